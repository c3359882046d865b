//! A compiled expression meets a job.
//!
//! Invariant: semantics are CEL's: `&&` and `||` absorb an error on one side when the other side decides, whichever side
//! it is. A value that the job lacks is told apart from other errors and counts before them. Work is bounded: elements
//! visited and text built are paid from one purse.

use std::{borrow::Cow, cell::Cell, sync::Arc};

use super::{
    Facts,
    parse::Op,
    program::{Convert, Each, Fact, Node, TextTest},
    value::{Lookup, Val},
};

/// Elements that one evaluation may visit, over all macros of an expression: beyond any sensible body, and a few
/// milliseconds at worst.
const MAX_STEPS: u32 = 100_000;
/// Built text costs a step for this many bytes.
const BYTES_PER_STEP: usize = 64;

/// Why there is no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The job lacks the value at this path.
    Missing(Arc<str>),
    /// The expression does not apply to this job.
    Failed(Arc<str>),
}

impl Trouble {
    fn failed(why: impl Into<Arc<str>>) -> Self {
        Self::Failed(why.into())
    }

    /// Which of two to report: a missing value first, because rules say what to do about it.
    fn before(self, later: Self) -> Self {
        if matches!((&self, &later), (Self::Failed(_), Self::Missing(_))) { later } else { self }
    }
}

type Outcome<'v> = Result<Val<'v>, Trouble>;

/// One evaluation.
pub(super) struct Evaluation<'v> {
    facts: &'v Facts<'v>,
    variables: Vec<Val<'v>>,
    steps: u32,
    prompt_tokens: Cell<Option<u64>>,
}

impl<'v> Evaluation<'v> {
    /// An evaluation on one job.
    pub(super) fn new(facts: &'v Facts<'v>) -> Self {
        Self { facts, variables: Vec::new(), steps: MAX_STEPS, prompt_tokens: Cell::new(None) }
    }

    /// The truth of a node.
    pub(super) fn truth(&mut self, node: &'v Node) -> Result<bool, Trouble> {
        match node {
            Node::All(nodes) => self.until(nodes, false),
            Node::Any(nodes) => self.until(nodes, true),
            Node::Not(of) => Ok(!self.truth(of)?),
            Node::Binary { op, left, right } if is_test(*op) => self.compare(*op, left, right),
            Node::Has { of, key } => Ok(match self.value(of) {
                Ok(map) => matches!(map.field(key), Lookup::Found(_)),
                Err(_) => false,
            }),
            Node::TextTest { function, of, by } => {
                let (of, by) = (self.value(of)?, self.value(by)?);
                let (Val::Text(of), Val::Text(by)) = (&of, &by) else {
                    return Err(Trouble::failed(format!(
                        "{} is not a text to be searched for {}",
                        of.kind(),
                        by.kind()
                    )));
                };
                Ok(match function {
                    TextTest::StartsWith => of.starts_with(by.as_ref()),
                    TextTest::EndsWith => of.ends_with(by.as_ref()),
                    TextTest::Contains => of.contains(by.as_ref()),
                })
            }
            Node::Matches { of, pattern } => match self.value(of)? {
                Val::Text(text) => Ok(pattern.is_match(&text)),
                other => Err(Trouble::failed(format!("{} is not a text to be matched", other.kind()))),
            },
            Node::Each { mode: mode @ (Each::All | Each::Exists | Each::ExistsOne), over, body, .. } => {
                self.each(*mode, over, body)
            }
            _ => match self.value(node)? {
                Val::Bool(value) => Ok(value),
                other => Err(Trouble::failed(format!("it gives {}, not true or false", other.kind()))),
            },
        }
    }

    /// The value of a node.
    pub(super) fn value(&mut self, node: &'v Node) -> Outcome<'v> {
        match node {
            Node::Literal(literal) => Ok(Val::literal(literal)),
            Node::Text { labels, key, path } => {
                let texts = if *labels { self.facts.labels } else { self.facts.metadata };
                match texts.get(key.as_ref()) {
                    Some(text) => Ok(Val::Text(Cow::Borrowed(text))),
                    None => Err(Trouble::Missing(path.clone())),
                }
            }
            Node::Fact(fact) => Ok(self.fact(*fact)),
            Node::Variable(place) => self.variables.get(*place).cloned().ok_or_else(|| Trouble::failed("no variable")),
            Node::Field { of, key, path } => {
                let of = self.value(of)?;
                match of.field(key) {
                    Lookup::Found(value) => Ok(value),
                    Lookup::Absent => Err(Trouble::Missing(path.clone())),
                    Lookup::NotAMap => Err(Trouble::failed(format!("{path}: {} has no fields", of.kind()))),
                }
            }
            Node::Index { of, index, path } => {
                let of = self.value(of)?;
                let index = self.value(index)?;
                at(&of, &index, path)
            }
            Node::List(nodes) => Ok(Val::List(nodes.iter().map(|node| self.value(node)).collect::<Result<_, _>>()?)),
            Node::Negate(of) => match self.value(of)? {
                Val::Int(value) => value.checked_neg().map(Val::Int).ok_or_else(overflow),
                Val::Double(value) => Ok(Val::Double(-value)),
                other => Err(Trouble::failed(format!("`-` does not apply to {}", other.kind()))),
            },
            Node::Choice { test, then, other } => {
                if self.truth(test)? {
                    self.value(then)
                } else {
                    self.value(other)
                }
            }
            Node::Binary { op, left, right } if !is_test(*op) => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                self.arithmetic(*op, left, right)
            }
            Node::Convert { function, of } => {
                let of = self.value(of)?;
                convert(*function, of)
            }
            Node::Each { mode: mode @ (Each::Map | Each::Filter), over, body, filter } => {
                self.collect(*mode, over, body, filter.as_deref())
            }
            _ => self.truth(node).map(Val::Bool),
        }
    }

    /// Joins by `||` (`decisive` is true) or `&&` (false): the first decisive one decides, else the first trouble.
    fn until(&mut self, nodes: &'v [Node], decisive: bool) -> Result<bool, Trouble> {
        let mut trouble: Option<Trouble> = None;
        for node in nodes {
            match self.truth(node) {
                Ok(value) if value == decisive => return Ok(decisive),
                Ok(_) => {}
                Err(found) => {
                    trouble = Some(match trouble {
                        Some(first) => first.before(found),
                        None => found,
                    });
                }
            }
        }
        trouble.map_or(Ok(!decisive), Err)
    }

    fn compare(&mut self, op: Op, left: &'v Node, right: &'v Node) -> Result<bool, Trouble> {
        let needle = self.value(left)?;
        if let (Op::In, Node::List(nodes)) = (op, right) {
            // Without a list of its own, so that the usual list of constants costs no allocation.
            let mut found = false;
            for node in nodes {
                found |= self.value(node)?.equals(&needle);
            }
            return Ok(found);
        }
        let other = self.value(right)?;
        let order = || {
            needle.order(&other).ok_or_else(|| {
                let message = format!("`{}` does not compare {} with {}", op.symbol(), needle.kind(), other.kind());
                Trouble::failed(message)
            })
        };
        match op {
            Op::Equal => Ok(needle.equals(&other)),
            Op::Unequal => Ok(!needle.equals(&other)),
            Op::Less => Ok(order()?.is_lt()),
            Op::LessOrEqual => Ok(order()?.is_le()),
            Op::Greater => Ok(order()?.is_gt()),
            Op::GreaterOrEqual => Ok(order()?.is_ge()),
            _ => other.holds(&needle).ok_or_else(|| {
                Trouble::failed(format!("`in` does not look for {} in {}", needle.kind(), other.kind()))
            }),
        }
    }

    fn fact(&self, fact: Fact) -> Val<'v> {
        let facts = self.facts;
        match fact {
            Fact::Id => Val::Text(Cow::Borrowed(facts.id)),
            Fact::Pipeline => Val::Text(Cow::Borrowed(facts.pipeline)),
            Fact::Metadata => Val::Texts(facts.metadata),
            Fact::Labels => Val::Texts(facts.labels),
            Fact::Priority => Val::Int(facts.priority),
            Fact::Body => Val::of(facts.body),
            Fact::AgeSeconds => Val::Int(facts.age_seconds),
            Fact::PromptTokens => {
                let tokens = self.prompt_tokens.get().unwrap_or_else(|| (facts.prompt_tokens)());
                self.prompt_tokens.set(Some(tokens));
                Val::Int(i64::try_from(tokens).unwrap_or(i64::MAX))
            }
        }
    }

    fn pay(&mut self, steps: usize) -> Result<(), Trouble> {
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        self.steps = self.steps.checked_sub(steps).ok_or_else(|| {
            Trouble::failed(format!("it takes more than {MAX_STEPS} steps on this job; make the expression simpler"))
        })?;
        Ok(())
    }

    fn elements(&mut self, over: &'v Node) -> Result<Vec<Val<'v>>, Trouble> {
        let over = self.value(over)?;
        let elements =
            over.elements().ok_or_else(|| Trouble::failed(format!("{} has no elements to go through", over.kind())))?;
        self.pay(elements.len())?;
        Ok(elements)
    }

    fn with<T>(&mut self, element: Val<'v>, work: impl FnOnce(&mut Self) -> T) -> T {
        self.variables.push(element);
        let result = work(self);
        self.variables.pop();
        result
    }

    fn each(&mut self, mode: Each, over: &'v Node, body: &'v Node) -> Result<bool, Trouble> {
        let decisive = mode == Each::Exists;
        let mut trouble: Option<Trouble> = None;
        let mut count = 0_usize;
        for element in self.elements(over)? {
            match self.with(element, |evaluation| evaluation.truth(body)) {
                Ok(value) if mode == Each::ExistsOne => count += usize::from(value),
                Ok(value) if value == decisive => return Ok(decisive),
                Ok(_) => {}
                Err(found) if mode == Each::ExistsOne => return Err(found),
                Err(found) => {
                    trouble = Some(match trouble {
                        Some(first) => first.before(found),
                        None => found,
                    });
                }
            }
        }
        match trouble {
            Some(trouble) => Err(trouble),
            None if mode == Each::ExistsOne => Ok(count == 1),
            None => Ok(!decisive),
        }
    }

    fn collect(&mut self, mode: Each, over: &'v Node, body: &'v Node, filter: Option<&'v Node>) -> Outcome<'v> {
        let mut list = Vec::new();
        for element in self.elements(over)? {
            let kept = self.with(element.clone(), |evaluation| {
                if mode == Each::Filter {
                    return Ok(evaluation.truth(body)?.then_some(element));
                }
                match filter.map(|filter| evaluation.truth(filter)) {
                    Some(Ok(false)) => Ok(None),
                    Some(Err(trouble)) => Err(trouble),
                    Some(Ok(true)) | None => evaluation.value(body).map(Some),
                }
            })?;
            list.extend(kept);
        }
        Ok(Val::List(list))
    }

    fn arithmetic(&mut self, op: Op, left: Val<'v>, right: Val<'v>) -> Outcome<'v> {
        match (op, &left, &right) {
            (_, Val::Int(a), Val::Int(b)) => {
                let result = match op {
                    Op::Add => a.checked_add(*b),
                    Op::Subtract => a.checked_sub(*b),
                    Op::Multiply => a.checked_mul(*b),
                    _ if *b == 0 => return Err(Trouble::failed("division by zero")),
                    Op::Divide => a.checked_div(*b),
                    _ => a.checked_rem(*b),
                };
                result.map(Val::Int).ok_or_else(overflow)
            }
            (_, Val::UInt(a), Val::UInt(b)) => {
                let result = match op {
                    Op::Add => a.checked_add(*b),
                    Op::Subtract => a.checked_sub(*b),
                    Op::Multiply => a.checked_mul(*b),
                    _ if *b == 0 => return Err(Trouble::failed("division by zero")),
                    Op::Divide => a.checked_div(*b),
                    _ => a.checked_rem(*b),
                };
                result.map(Val::UInt).ok_or_else(overflow)
            }
            (Op::Add, Val::Double(a), Val::Double(b)) => Ok(Val::Double(a + b)),
            (Op::Subtract, Val::Double(a), Val::Double(b)) => Ok(Val::Double(a - b)),
            (Op::Multiply, Val::Double(a), Val::Double(b)) => Ok(Val::Double(a * b)),
            (Op::Divide, Val::Double(a), Val::Double(b)) => Ok(Val::Double(a / b)),
            (Op::Add, Val::Text(a), Val::Text(b)) => {
                self.pay((a.len() + b.len()) / BYTES_PER_STEP)?;
                Ok(Val::Text(Cow::Owned(format!("{a}{b}"))))
            }
            (Op::Add, Val::Array(_) | Val::List(_), Val::Array(_) | Val::List(_)) => {
                let mut list = left.elements().unwrap_or_default();
                list.extend(right.elements().unwrap_or_default());
                self.pay(list.len())?;
                Ok(Val::List(list))
            }
            _ => {
                let mut message = format!("`{}` does not join {} and {}", op.symbol(), left.kind(), right.kind());
                if left.kind() == right.kind() && left.kind() == "a number" {
                    message.push_str(" of another type; use int(…) or double(…)");
                }
                Err(Trouble::failed(message))
            }
        }
    }
}

fn is_test(op: Op) -> bool {
    matches!(op, Op::Equal | Op::Unequal | Op::Less | Op::LessOrEqual | Op::Greater | Op::GreaterOrEqual | Op::In)
}

fn overflow() -> Trouble {
    Trouble::failed("a number goes out of range")
}

fn at<'v>(of: &Val<'v>, index: &Val<'_>, path: &Arc<str>) -> Outcome<'v> {
    let missing = || Err(Trouble::Missing(path.clone()));
    if let Val::Text(key) = index {
        return match of.field(key) {
            Lookup::Found(value) => Ok(value),
            Lookup::Absent => missing(),
            Lookup::NotAMap => Err(Trouble::failed(format!("{path}: {} has no fields", of.kind()))),
        };
    }
    let place = match index {
        Val::Int(place) => *place,
        Val::UInt(place) => i64::try_from(*place).unwrap_or(i64::MAX),
        _ => return Err(Trouble::failed(format!("{path}: {} is not an index", index.kind()))),
    };
    let place_in = |length: usize| usize::try_from(place).ok().filter(|place| *place < length);
    match of {
        Val::Array(items) => match place_in(items.len()).and_then(|place| items.get(place)) {
            Some(item) => Ok(Val::of(item)),
            None => missing(),
        },
        Val::List(items) => match place_in(items.len()).and_then(|place| items.get(place)) {
            Some(item) => Ok(item.clone()),
            None => missing(),
        },
        Val::Object(_) | Val::Texts(_) => missing(),
        _ => Err(Trouble::failed(format!("{path}: {} has no elements", of.kind()))),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the double was checked to be in the range of an int")]
fn convert(function: Convert, of: Val<'_>) -> Outcome<'_> {
    const INT_END: f64 = 9_223_372_036_854_775_808.0;
    let refused = |name: &str| Trouble::failed(format!("{name}(…) does not apply to {}", of.kind()));
    match function {
        Convert::Size => {
            let size = of.size().ok_or_else(|| refused("size"))?;
            Ok(Val::Int(i64::try_from(size).unwrap_or(i64::MAX)))
        }
        Convert::Int => match &of {
            Val::Int(value) => Ok(Val::Int(*value)),
            Val::UInt(value) => i64::try_from(*value).map(Val::Int).map_err(|_| overflow()),
            Val::Double(value) if *value > -INT_END && *value < INT_END => Ok(Val::Int(*value as i64)),
            Val::Double(_) => Err(overflow()),
            Val::Text(text) => {
                text.parse().map(Val::Int).map_err(|_| Trouble::failed("int(…) got a text that is no whole number"))
            }
            _ => Err(refused("int")),
        },
        Convert::Double => match &of {
            Val::Int(value) => Ok(Val::Double(*value as f64)),
            Val::UInt(value) => Ok(Val::Double(*value as f64)),
            Val::Double(value) => Ok(Val::Double(*value)),
            Val::Text(text) => match text.parse::<f64>() {
                Ok(value) => Ok(Val::Double(value)),
                Err(_) => Err(Trouble::failed("double(…) got a text that is no number")),
            },
            _ => Err(refused("double")),
        },
        Convert::Text => match of {
            Val::Text(text) => Ok(Val::Text(text)),
            Val::Int(value) => Ok(Val::Text(Cow::Owned(value.to_string()))),
            Val::UInt(value) => Ok(Val::Text(Cow::Owned(value.to_string()))),
            Val::Double(value) => Ok(Val::Text(Cow::Owned(value.to_string()))),
            Val::Bool(value) => Ok(Val::Text(Cow::Borrowed(if value { "true" } else { "false" }))),
            _ => Err(refused("string")),
        },
    }
}
