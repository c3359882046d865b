//! What is known of an expression's types before any job is there.
//!
//! Invariant: types only ever rule out what could not be true on any job; whatever comes from the body may be anything.

use super::parse::{Expr, Kind, Literal};

/// What is known of a node before any job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    /// Anything: it comes from the body.
    Any,
    Null,
    Bool,
    Int,
    UInt,
    Double,
    Text,
    List,
    /// A map from text to text.
    Texts,
    /// A map.
    Map,
}

impl Type {
    /// In words, with an article.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Any => "any value",
            Self::Null => "null",
            Self::Bool => "a boolean",
            Self::Int | Self::UInt | Self::Double => "a number",
            Self::Text => "a text",
            Self::List => "a list",
            Self::Texts | Self::Map => "a map",
        }
    }

    /// Whether numbers are what it gives.
    pub(super) fn is_number(self) -> bool {
        matches!(self, Self::Int | Self::UInt | Self::Double)
    }

    /// Whether maps are what it gives.
    pub(super) fn is_map(self) -> bool {
        matches!(self, Self::Texts | Self::Map)
    }

    /// Whether values of the two can be equal.
    pub(super) fn meets(self, other: Self) -> bool {
        self == Self::Any
            || other == Self::Any
            || self == other
            || (self.is_number() && other.is_number())
            || (self.is_map() && other.is_map())
    }
}

/// The type of a constant.
pub(super) fn type_of(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::UInt(_) => Type::UInt,
        Literal::Double(_) => Type::Double,
        Literal::Text(_) => Type::Text,
    }
}

/// Advice where a text meets something else.
pub(super) fn hint(left: &Expr, left_kind: Type, right: &Expr, right_kind: Type) -> Option<String> {
    for (kind, other) in [(left_kind, right), (right_kind, left)] {
        match (kind, &other.kind) {
            (Type::Text, Kind::Literal(Literal::Null)) => {
                return Some("ask `has(…)` whether a value is there".to_owned());
            }
            (Type::Text, Kind::Literal(Literal::Int(value))) => {
                return Some(format!("metadata and labels are texts: write \"{value}\", or convert with int(…)"));
            }
            (Type::Text, Kind::Literal(Literal::Bool(value))) => {
                return Some(format!("metadata and labels are texts: write \"{value}\""));
            }
            (Type::Text, _) if left_kind.is_number() || right_kind.is_number() => {
                return Some("convert the text with int(…) or double(…)".to_owned());
            }
            _ => {}
        }
    }
    None
}
