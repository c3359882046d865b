//! What an expression compiles to.
//!
//! Invariant: every name is resolved; what is left to run time is what only the job can tell.

use std::sync::Arc;

use super::parse::{Literal, Op};

/// A compiled node.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// A constant.
    Literal(Literal),
    /// A field of the job.
    Fact(Fact),
    /// `job.metadata.key` or `job.labels.key`: by far the most common.
    Text { labels: bool, key: Box<str>, path: Arc<str> },
    /// The variable of a macro, by place.
    Variable(usize),
    /// `of.key`
    Field { of: Box<Node>, key: Box<str>, path: Arc<str> },
    /// `of[index]`
    Index { of: Box<Node>, index: Box<Node>, path: Arc<str> },
    /// `has(of.key)`
    Has { of: Box<Node>, key: Box<str> },
    /// `[a, b]`
    List(Vec<Node>),
    /// `!x`
    Not(Box<Node>),
    /// `-x`
    Negate(Box<Node>),
    /// Two or more joined by `&&`.
    All(Vec<Node>),
    /// Two or more joined by `||`.
    Any(Vec<Node>),
    /// A comparison, `in` or arithmetic.
    Binary { op: Op, left: Box<Node>, right: Box<Node> },
    /// `a ? b : c`
    Choice { test: Box<Node>, then: Box<Node>, other: Box<Node> },
    /// A function of one value.
    Convert { function: Convert, of: Box<Node> },
    /// A test of one text by another.
    TextTest { function: TextTest, of: Box<Node>, by: Box<Node> },
    /// `x.matches("pattern")`
    Matches { of: Box<Node>, pattern: regex::Regex },
    /// A macro over the elements of a list or the keys of a map.
    Each { mode: Each, over: Box<Node>, body: Box<Node>, filter: Option<Box<Node>> },
}

/// A field of the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::EnumString, strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "snake_case")]
pub(super) enum Fact {
    Id,
    Pipeline,
    Metadata,
    Labels,
    Priority,
    Body,
    PromptTokens,
    AgeSeconds,
}

/// A function of one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Convert {
    Size,
    Int,
    Double,
    Text,
}

/// A test of one text by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextTest {
    StartsWith,
    EndsWith,
    Contains,
}

/// What a macro makes of the elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Each {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
}
