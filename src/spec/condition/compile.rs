//! A tree becomes a program: names are resolved, and what can be known of types is checked.
//!
//! Invariant: what compiles names only fields that a job can have and functions that exist, and joins only types that
//! may meet. Metadata and labels are open maps of texts; the body is open in every way.

use std::{str::FromStr, sync::Arc};

use strum::VariantNames;

use super::{
    ConditionError,
    lex::Span,
    parse::{Expr, Kind, Literal, Op},
    program::{Convert, Each, Fact, Node, TextTest},
    types::{Type, hint, type_of},
};
use crate::names::nearest;

type Compiled = Result<(Node, Type), ConditionError>;

const FUNCTIONS: [&str; 14] = [
    "has",
    "size",
    "startsWith",
    "endsWith",
    "contains",
    "matches",
    "int",
    "double",
    "string",
    "all",
    "exists",
    "exists_one",
    "map",
    "filter",
];

/// Longest compiled regular expression, in bytes.
const MAX_PATTERN: usize = 1 << 20;

/// Compiles the expressions of one source text.
pub(super) struct Compiler<'s> {
    source: &'s str,
    variables: Vec<(String, Type)>,
    /// The program asks for `job.prompt_tokens`.
    pub needs_prompt_tokens: bool,
    /// The program asks for `job.body`.
    pub needs_body: bool,
}

impl<'s> Compiler<'s> {
    pub(super) fn new(source: &'s str) -> Self {
        Self { source, variables: Vec::new(), needs_prompt_tokens: false, needs_body: false }
    }

    /// Compiles a node and says what it gives.
    pub(super) fn compile(&mut self, expr: &Expr) -> Compiled {
        match &expr.kind {
            Kind::Literal(literal) => Ok((Node::Literal(literal.clone()), type_of(literal))),
            Kind::Name(name) => self.name(name, expr.span),
            Kind::Field { of, name, name_span } => self.field(expr, of, name, *name_span),
            Kind::Index { of, index } => self.index(expr, of, index),
            Kind::List(items) => {
                let nodes =
                    items.iter().map(|item| Ok(self.compile(item)?.0)).collect::<Result<_, ConditionError>>()?;
                Ok((Node::List(nodes), Type::List))
            }
            Kind::Not(of) => Ok((Node::Not(Box::new(self.boolean(of, "`!`")?)), Type::Bool)),
            Kind::Negate(of) => match self.compile(of)? {
                (node, kind @ (Type::Int | Type::Double | Type::Any)) => Ok((Node::Negate(Box::new(node)), kind)),
                (_, kind) => Err(of.span.error(format!("`-` does not apply to {}", kind.words()))),
            },
            Kind::Binary { op: op @ (Op::And | Op::Or), .. } => {
                let mut nodes = Vec::new();
                self.joined(*op, expr, &mut nodes)?;
                Ok((if *op == Op::And { Node::All(nodes) } else { Node::Any(nodes) }, Type::Bool))
            }
            Kind::Binary { op, left, right } => self.binary(*op, expr.span, left, right),
            Kind::Choice { test, then, other } => {
                let test = Box::new(self.boolean(test, "`… ? … : …`")?);
                let ((then, a), (other, b)) = (self.compile(then)?, self.compile(other)?);
                let kind = if a == b { a } else { Type::Any };
                Ok((Node::Choice { test, then: Box::new(then), other: Box::new(other) }, kind))
            }
            Kind::Call { target, name, name_span, args } => {
                self.call(expr.span, target.as_deref(), name, *name_span, args)
            }
        }
    }

    /// Compiles a node that must be able to give a boolean.
    pub(super) fn boolean(&mut self, expr: &Expr, place: &str) -> Result<Node, ConditionError> {
        match self.compile(expr)? {
            (node, Type::Bool | Type::Any) => Ok(node),
            (_, kind) => {
                let error = expr.span.error(format!("{place} needs true or false, this is {}", kind.words()));
                Err(error.help("compare it with something, such as `… == \"eu\"`"))
            }
        }
    }

    /// Flattens `a && b && c`, so that long chains cost no depth.
    fn joined(&mut self, op: Op, expr: &Expr, nodes: &mut Vec<Node>) -> Result<(), ConditionError> {
        match &expr.kind {
            Kind::Binary { op: inner, left, right } if *inner == op => {
                self.joined(op, left, nodes)?;
                self.joined(op, right, nodes)
            }
            _ => {
                nodes.push(self.boolean(expr, &format!("`{}`", op.symbol()))?);
                Ok(())
            }
        }
    }

    fn name(&self, name: &str, span: Span) -> Compiled {
        if let Some(place) = self.variables.iter().rposition(|(variable, _)| variable == name) {
            let kind = self.variables.get(place).map_or(Type::Any, |(_, kind)| *kind);
            return Ok((Node::Variable(place), kind));
        }
        if name == "job" {
            let fields = Fact::VARIANTS.join(", job.");
            return Err(span.error("`job` alone is no value").help(format!("name one of its fields: job.{fields}")));
        }
        let error = span.error(format!("unknown name `{name}`"));
        Err(if Fact::from_str(name).is_ok() {
            error.help(format!("write `job.{name}`"))
        } else if let Some(near) = nearest(name, self.variables.iter().map(|(name, _)| name.as_str()).chain(["job"])) {
            error.help(format!("did you mean `{near}`?"))
        } else {
            error.help(format!("everything known of a job is under `job`; write \"{name}\" in quotes if it is a text"))
        })
    }

    fn fact(&mut self, name: &str, span: Span) -> Compiled {
        let Ok(fact) = Fact::from_str(name) else {
            let error = span.error(format!("a job has no field `{name}`"));
            let help = match nearest(name, Fact::VARIANTS.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("it has {}; what callers add is in job.metadata", Fact::VARIANTS.join(", ")),
            };
            return Err(error.help(help));
        };
        self.needs_prompt_tokens |= fact == Fact::PromptTokens;
        self.needs_body |= matches!(fact, Fact::Body | Fact::PromptTokens);
        let kind = match fact {
            Fact::Id | Fact::Pipeline => Type::Text,
            Fact::Metadata | Fact::Labels => Type::Texts,
            Fact::Priority | Fact::PromptTokens | Fact::AgeSeconds => Type::Int,
            Fact::Body => Type::Map,
        };
        Ok((Node::Fact(fact), kind))
    }

    fn is_job(&self, expr: &Expr) -> bool {
        matches!(&expr.kind, Kind::Name(name) if name == "job")
            && !self.variables.iter().any(|(variable, _)| variable == "job")
    }

    fn field(&mut self, expr: &Expr, of: &Expr, name: &str, name_span: Span) -> Compiled {
        if self.is_job(of) {
            return self.fact(name, name_span);
        }
        let (node, kind) = self.compile(of)?;
        self.select(expr, node, kind, name, name_span)
    }

    fn select(&self, expr: &Expr, of: Node, kind: Type, key: &str, span: Span) -> Compiled {
        if !(kind.is_map() || kind == Type::Any) {
            return Err(span.error(format!("{} has no field `{key}`", kind.words())));
        }
        let path = self.text(expr.span);
        let kind = if kind == Type::Texts { Type::Text } else { Type::Any };
        let labels = match of {
            Node::Fact(Fact::Metadata) => false,
            Node::Fact(Fact::Labels) => true,
            of => return Ok((Node::Field { of: Box::new(of), key: key.into(), path }, kind)),
        };
        Ok((Node::Text { labels, key: key.into(), path }, kind))
    }

    fn index(&mut self, expr: &Expr, of: &Expr, index: &Expr) -> Compiled {
        if self.is_job(of) {
            return match &index.kind {
                Kind::Literal(Literal::Text(name)) => self.fact(name, index.span),
                _ => Err(index.span.error("a job's field must be named").help("write `job.metadata` and the like")),
            };
        }
        let (node, kind) = self.compile(of)?;
        if let Kind::Literal(Literal::Text(key)) = &index.kind {
            return self.select(expr, node, kind, key, index.span);
        }
        let (by, by_kind) = self.compile(index)?;
        let fits = match kind {
            Type::Any => matches!(by_kind, Type::Any | Type::Int | Type::UInt | Type::Text),
            Type::List => matches!(by_kind, Type::Any | Type::Int | Type::UInt),
            Type::Texts | Type::Map => matches!(by_kind, Type::Any | Type::Text),
            _ => return Err(expr.span.error(format!("{} has no elements", kind.words()))),
        };
        if !fits {
            return Err(index.span.error(format!("{} is no index into {}", by_kind.words(), kind.words())));
        }
        let path = self.text(expr.span);
        let kind = if kind == Type::Texts { Type::Text } else { Type::Any };
        Ok((Node::Index { of: Box::new(node), index: Box::new(by), path }, kind))
    }

    fn binary(&mut self, op: Op, span: Span, left: &Expr, right: &Expr) -> Compiled {
        let ((a, left_kind), (b, right_kind)) = (self.compile(left)?, self.compile(right)?);
        let unlike = |verb: &str, help: Option<String>| {
            let error = span.error(format!("{} {verb} {}", left_kind.words(), right_kind.words()));
            Err(help.into_iter().fold(error, ConditionError::help))
        };
        let kind = match op {
            Op::Equal | Op::Unequal if !left_kind.meets(right_kind) => {
                return unlike("never equals", hint(left, left_kind, right, right_kind));
            }
            Op::Equal | Op::Unequal => Type::Bool,
            Op::In => {
                if !(right_kind == Type::List || right_kind.is_map() || right_kind == Type::Any) {
                    let error = right.span.error(format!("`in` needs a list or a map, this is {}", right_kind.words()));
                    return Err(error.help("write `x in [\"a\", \"b\"]`"));
                }
                if right_kind.is_map() && !left_kind.meets(Type::Text) {
                    return Err(left.span.error(format!("the keys of a map are texts, this is {}", left_kind.words())));
                }
                if let Kind::List(items) = &right.kind {
                    for item in items {
                        if let Kind::Literal(literal) = &item.kind
                            && !left_kind.meets(type_of(literal))
                        {
                            let error = item.span.error(format!(
                                "{} never equals {}",
                                left_kind.words(),
                                type_of(literal).words()
                            ));
                            return Err(hint(left, left_kind, item, type_of(literal))
                                .into_iter()
                                .fold(error, ConditionError::help));
                        }
                    }
                }
                Type::Bool
            }
            Op::Less | Op::LessOrEqual | Op::Greater | Op::GreaterOrEqual => {
                let ordered = |kind: Type| kind.is_number() || matches!(kind, Type::Any | Type::Text | Type::Bool);
                if !left_kind.meets(right_kind) || !ordered(left_kind) || !ordered(right_kind) {
                    return unlike("has no order with", hint(left, left_kind, right, right_kind));
                }
                Type::Bool
            }
            _ => match (left_kind, right_kind) {
                (Type::Any, Type::Any) => Type::Any,
                (a @ (Type::Int | Type::UInt | Type::Double), b) if a == b || b == Type::Any => a,
                (Type::Any, b @ (Type::Int | Type::UInt | Type::Double)) => b,
                (a @ (Type::Text | Type::List), b) if op == Op::Add && (a == b || b == Type::Any) => a,
                (Type::Any, b @ (Type::Text | Type::List)) if op == Op::Add => b,
                (a, b) if a.is_number() && b.is_number() => {
                    return unlike("of one type cannot meet", Some("convert with int(…) or double(…)".to_owned()));
                }
                _ => return unlike(&format!("cannot be joined by `{}` with", op.symbol()), None),
            },
        };
        Ok((Node::Binary { op, left: Box::new(a), right: Box::new(b) }, kind))
    }

    fn call(&mut self, span: Span, target: Option<&Expr>, name: &str, name_span: Span, args: &[Expr]) -> Compiled {
        let usage = |usage: &str| Err(span.error(format!("`{name}` is written {usage}")));
        match (name, target, args) {
            ("has", None, [arg]) => self.has(arg),
            ("has", ..) => usage("`has(job.metadata.region)`"),
            ("size", None, [of]) | ("size", Some(of), []) => match self.compile(of)? {
                (_, kind) if kind == Type::Null || kind == Type::Bool || kind.is_number() => {
                    Err(of.span.error(format!("{} has no size", kind.words())))
                }
                (of, _) => Ok((Node::Convert { function: Convert::Size, of: Box::new(of) }, Type::Int)),
            },
            ("size", ..) => usage("`size(x)` or `x.size()`"),
            ("int" | "double" | "string", None, [of]) => {
                let (node, kind) = self.compile(of)?;
                let (function, gives) = match name {
                    "int" => (Convert::Int, Type::Int),
                    "double" => (Convert::Double, Type::Double),
                    _ => (Convert::Text, Type::Text),
                };
                let scalar = kind.is_number() || matches!(kind, Type::Any | Type::Text);
                if !(scalar || kind == Type::Bool && function == Convert::Text) {
                    return Err(of.span.error(format!("`{name}` does not convert {}", kind.words())));
                }
                Ok((Node::Convert { function, of: Box::new(node) }, gives))
            }
            ("int" | "double" | "string", ..) => usage(&format!("`{name}(x)`")),
            ("startsWith" | "endsWith" | "contains", Some(of), [by]) => {
                let function = match name {
                    "startsWith" => TextTest::StartsWith,
                    "endsWith" => TextTest::EndsWith,
                    _ => TextTest::Contains,
                };
                let (of, by) = (Box::new(self.string(of, name)?), Box::new(self.string(by, name)?));
                Ok((Node::TextTest { function, of, by }, Type::Bool))
            }
            ("startsWith" | "endsWith" | "contains", ..) => usage(&format!("`x.{name}(\"text\")`")),
            ("matches", Some(of), [by]) | ("matches", None, [of, by]) => {
                let of = Box::new(self.string(of, name)?);
                Ok((Node::Matches { of, pattern: pattern(by)? }, Type::Bool))
            }
            ("matches", ..) => usage("`x.matches(\"pattern\")`"),
            ("all" | "exists" | "exists_one" | "existsOne" | "map" | "filter", Some(over), [first, rest @ ..])
                if rest.len() == 1 || (rest.len() == 2 && name == "map") =>
            {
                self.each(name, over, first, rest)
            }
            ("all" | "exists" | "exists_one" | "existsOne" | "map" | "filter", ..) => {
                usage(&format!("`list.{name}(x, …)`"))
            }
            _ => {
                let error = name_span.error(format!("unknown function `{name}`"));
                Err(match nearest(name, FUNCTIONS) {
                    Some(near) => error.help(format!("did you mean `{near}`?")),
                    None => error.help(format!("there are {}", FUNCTIONS.join(", "))),
                })
            }
        }
    }

    fn has(&mut self, arg: &Expr) -> Compiled {
        let (of, key) = match &arg.kind {
            Kind::Field { of, name, .. } => (of, name.as_str()),
            Kind::Index { of, index } => match &index.kind {
                Kind::Literal(Literal::Text(key)) => (of, key.as_ref()),
                _ => {
                    return Err(arg.span.error("`has` needs a field by name").help("write `has(job.metadata.region)`"));
                }
            },
            _ => return Err(arg.span.error("`has` needs a field").help("write `has(job.metadata.region)`")),
        };
        if self.is_job(of) {
            self.compile(arg)?;
            return Err(arg.span.error(format!("every job has `{key}`")).help("write `has(job.metadata.region)`"));
        }
        let (of, kind) = self.compile(of)?;
        self.select(arg, of.clone(), kind, key, arg.span)?;
        Ok((Node::Has { of: Box::new(of), key: key.into() }, Type::Bool))
    }

    fn string(&mut self, expr: &Expr, function: &str) -> Result<Node, ConditionError> {
        match self.compile(expr)? {
            (node, Type::Text | Type::Any) => Ok(node),
            (_, kind) => Err(expr.span.error(format!("`{function}` works on texts, this is {}", kind.words()))),
        }
    }

    fn each(&mut self, name: &str, over: &Expr, variable: &Expr, rest: &[Expr]) -> Compiled {
        let Kind::Name(variable_name) = &variable.kind else {
            return Err(variable
                .span
                .error(format!("`{name}` begins with a variable's name"))
                .help(format!("write `list.{name}(x, …)`, where x stands for an element")));
        };
        let (over_node, kind) = self.compile(over)?;
        let element = match kind {
            Type::Any | Type::List => Type::Any,
            Type::Texts | Type::Map => Type::Text,
            _ => return Err(over.span.error(format!("{} has no elements to go through", kind.words()))),
        };
        self.variables.push((variable_name.clone(), element));
        let result = self.each_body(name, over_node, rest);
        self.variables.pop();
        result
    }

    fn each_body(&mut self, name: &str, over: Node, rest: &[Expr]) -> Compiled {
        let over = Box::new(over);
        let (mode, gives) = match name {
            "all" => (Each::All, Type::Bool),
            "exists" => (Each::Exists, Type::Bool),
            "map" => (Each::Map, Type::List),
            "filter" => (Each::Filter, Type::List),
            _ => (Each::ExistsOne, Type::Bool),
        };
        let (filter, body) = match rest {
            [filter, body] => (Some(Box::new(self.boolean(filter, "`map`")?)), self.compile(body)?.0),
            [body] if mode == Each::Map => (None, self.compile(body)?.0),
            [body] => (None, self.boolean(body, &format!("`{name}`"))?),
            _ => return Err(Span { start: 0, end: 1 }.error(format!("`{name}` is written `list.{name}(x, …)`"))),
        };
        Ok((Node::Each { mode, over, body: Box::new(body), filter }, gives))
    }

    fn text(&self, span: Span) -> Arc<str> {
        self.source.chars().skip(span.start).take(span.end - span.start).collect::<String>().into()
    }
}

fn pattern(expr: &Expr) -> Result<regex::Regex, ConditionError> {
    let Kind::Literal(Literal::Text(text)) = &expr.kind else {
        return Err(expr.span.error("a pattern must be written out as a text"));
    };
    regex::RegexBuilder::new(text).size_limit(MAX_PATTERN).build().map_err(|error| {
        let reason = error.to_string();
        let last = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        expr.span.error(format!("this pattern is not a regular expression: {last}"))
    })
}
