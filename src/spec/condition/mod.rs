//! Conditions of rules and keys of rollouts: expressions in CEL, the Common Expression Language, over a job.
//!
//! Invariant: an expression that compiled names only fields that a job can have, and evaluating it is bounded in time,
//! cannot panic, and for a simple comparison allocates nothing. Nothing here knows what rules do with the answer.
//!
//! What can be written: `job.id`, `job.pipeline`, `job.metadata.KEY`, `job.labels.KEY` (texts), `job.priority`,
//! `job.prompt_tokens`, `job.age_seconds` (ints) and `job.body.…` (the chat request, anything); `==` `!=` `<` `<=` `>`
//! `>=` `in` `&&` `||` `!` `? :` `+` `-` `*` `/` `%`; `x[0]`, `x["key"]`; texts, numbers, `true`, `false`, `null` and
//! lists; `has(x.y)`, `size(x)`, `x.startsWith(y)`, `x.endsWith(y)`, `x.contains(y)`, `x.matches("pattern")`, `int(x)`,
//! `double(x)`, `string(x)`; `list.all(x, …)`, `exists`, `exists_one`, `map`, `filter`. Semantics are CEL's (a property
//! test holds them against the `cel` crate), with two kindnesses: `has()` is false, not an error, where the path to the
//! field breaks off, and an index that a list does not have counts as missing.

mod compile;
mod eval;
mod lex;
mod parse;
mod program;
#[cfg(test)]
mod tests;
mod types;
mod value;

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use compile::Compiler;
use eval::{Evaluation, Trouble};
use parse::{Kind, parse};
use program::{Fact, Node};
use types::Type;
use value::Val;

/// What an expression may look at.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// `job.id`.
    pub id: &'a str,
    /// `job.pipeline`.
    pub pipeline: &'a str,
    /// `job.metadata`.
    pub metadata: &'a BTreeMap<String, String>,
    /// `job.labels`: the pipeline's.
    pub labels: &'a BTreeMap<String, String>,
    /// `job.priority`.
    pub priority: i64,
    /// `job.body`: the chat request.
    pub body: &'a serde_json::Value,
    /// `job.prompt_tokens`: counted only when asked for.
    pub prompt_tokens: &'a dyn Fn() -> u64,
    /// `job.age_seconds`: since submit.
    pub age_seconds: i64,
}

/// The answer of a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    True,
    /// It does not.
    False,
    /// It needs a value that the job lacks: the path, such as `job.metadata.region`.
    Missing(Arc<str>),
    /// It cannot be evaluated on this job (a comparison of unlike types, say): why.
    Failed(Arc<str>),
}

/// Why an expression does not compile: where in its text, what, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ConditionError {
    /// Offset in characters into the expression.
    pub offset: usize,
    /// Length in characters, at least 1.
    pub length: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

/// A compiled condition.
#[derive(Debug, Clone)]
pub struct Condition {
    source: Arc<str>,
    program: Arc<Node>,
    needs_prompt_tokens: bool,
    needs_body: bool,
}

impl Condition {
    /// Compiles an expression that must give a boolean.
    ///
    /// # Errors
    /// [`ConditionError`] for a syntax error, an unknown name, types that cannot meet, or an expression that cannot
    /// give a boolean.
    pub fn parse(source: &str) -> Result<Self, ConditionError> {
        let expr = parse(source)?;
        let mut compiler = Compiler::new(source);
        let program = compiler.boolean(&expr, "a condition")?;
        Ok(Self {
            source: Arc::from(source),
            program: Arc::new(program),
            needs_prompt_tokens: compiler.needs_prompt_tokens,
            needs_body: compiler.needs_body,
        })
    }

    /// As written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it looks at `job.prompt_tokens`.
    pub fn needs_prompt_tokens(&self) -> bool {
        self.needs_prompt_tokens
    }

    /// Whether it looks at the request: `job.body`, or `job.prompt_tokens`, which is counted from it.
    pub fn needs_body(&self) -> bool {
        self.needs_body
    }

    /// Evaluates it on a job.
    pub fn evaluate(&self, facts: &Facts<'_>) -> Verdict {
        match Evaluation::new(facts).truth(&self.program) {
            Ok(true) => Verdict::True,
            Ok(false) => Verdict::False,
            Err(Trouble::Missing(path)) => Verdict::Missing(path),
            Err(Trouble::Failed(why)) => Verdict::Failed(why),
        }
    }
}

/// What a rollout buckets a job by: a path to a scalar.
#[derive(Debug, Clone)]
pub struct KeyExpression {
    source: Arc<str>,
    program: Arc<Node>,
    needs_body: bool,
}

impl KeyExpression {
    /// Compiles a key.
    ///
    /// # Errors
    /// [`ConditionError`] as for conditions, and for anything but a path that can lead to a scalar and stays the same
    /// for as long as the job lives.
    pub fn parse(source: &str) -> Result<Self, ConditionError> {
        const HELP: &str = "write a path such as `job.metadata.customer` or `job.body.user`";
        let expr = parse(source)?;
        let mut compiler = Compiler::new(source);
        let (program, kind) = compiler.compile(&expr)?;
        let needs_body = compiler.needs_body;
        if !is_path(&expr) {
            return Err(expr.span.error("a key is a path to a value of the job").help(HELP));
        }
        if matches!(program, Node::Fact(Fact::AgeSeconds)) {
            return Err(expr
                .span
                .error("`job.age_seconds` changes while a job waits, so the split would not be sticky")
                .help(HELP));
        }
        match kind {
            Type::Texts | Type::Map | Type::List => {
                Err(expr.span.error("a key is one value, this is a map").help(HELP))
            }
            _ => Ok(Self { source: Arc::from(source), program: Arc::new(program), needs_body }),
        }
    }

    /// As written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it looks at the request.
    pub fn needs_body(&self) -> bool {
        self.needs_body
    }

    /// Whether the key is `job.id`: a fresh one for every job, so that nothing is sticky.
    pub fn is_job_id(&self) -> bool {
        matches!(*self.program, Node::Fact(Fact::Id))
    }

    /// The job's key as text (numbers as decimal text, booleans as `true` and `false`), or `None` where it is absent,
    /// null, empty or not a scalar.
    pub fn evaluate<'a>(&self, facts: &Facts<'a>) -> Option<Cow<'a, str>> {
        if let Node::Text { labels, key, .. } = &*self.program {
            let texts = if *labels { facts.labels } else { facts.metadata };
            return texts.get(key.as_ref()).filter(|text| !text.is_empty()).map(|text| Cow::Borrowed(text.as_str()));
        }
        // The program is not borrowed for as long as the job is, so what it gives is copied.
        let text = match Evaluation::new(facts).value(&self.program).ok()? {
            Val::Text(text) => text.into_owned(),
            Val::Int(value) => value.to_string(),
            Val::UInt(value) => value.to_string(),
            Val::Double(value) => value.to_string(),
            Val::Bool(value) => value.to_string(),
            Val::Null | Val::Array(_) | Val::Object(_) | Val::Texts(_) | Val::List(_) => return None,
        };
        (!text.is_empty()).then_some(Cow::Owned(text))
    }
}

fn is_path(expr: &parse::Expr) -> bool {
    match &expr.kind {
        Kind::Name(_) => true,
        Kind::Field { of, .. } => is_path(of),
        Kind::Index { of, index } => is_path(of) && (is_path(index) || matches!(index.kind, Kind::Literal(_))),
        _ => false,
    }
}
