//! Values while an expression is evaluated: borrowed from the job or the expression wherever they can be.
//!
//! Invariant: equality and order are CEL's. Numbers compare by value across int, uint and double; other unlike types
//! are unequal, and have no order.

use std::{borrow::Cow, cmp::Ordering, collections::BTreeMap};

use serde_json::Value as Json;

use super::parse::Literal;

/// A value.
#[derive(Debug, Clone)]
pub(super) enum Val<'v> {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Double(f64),
    Text(Cow<'v, str>),
    /// A list of the body.
    Array(&'v [Json]),
    /// A map of the body.
    Object(&'v serde_json::Map<String, Json>),
    /// Metadata or labels.
    Texts(&'v BTreeMap<String, String>),
    /// A list made by the expression.
    List(Vec<Val<'v>>),
}

/// What a map has under a key.
pub(super) enum Lookup<'v> {
    Found(Val<'v>),
    Absent,
    NotAMap,
}

impl<'v> Val<'v> {
    /// A value of the body. Whole numbers are ints (uints where they do not fit), others doubles.
    pub(super) fn of(json: &'v Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::String(text) => Self::Text(Cow::Borrowed(text)),
            Json::Array(items) => Self::Array(items),
            Json::Object(map) => Self::Object(map),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => Self::Int(value),
                (None, Some(value)) => Self::UInt(value),
                (None, None) => Self::Double(number.as_f64().unwrap_or(f64::NAN)),
            },
        }
    }

    /// A constant of the expression.
    pub(super) fn literal(literal: &'v Literal) -> Self {
        match literal {
            Literal::Null => Self::Null,
            Literal::Bool(value) => Self::Bool(*value),
            Literal::Int(value) => Self::Int(*value),
            Literal::UInt(value) => Self::UInt(*value),
            Literal::Double(value) => Self::Double(*value),
            Literal::Text(text) => Self::Text(Cow::Borrowed(text)),
        }
    }

    /// The type in words, with its article.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::UInt(_) | Self::Double(_) => "a number",
            Self::Text(_) => "a text",
            Self::Array(_) | Self::List(_) => "a list",
            Self::Object(_) | Self::Texts(_) => "a map",
        }
    }

    /// The value under `key` of a map.
    pub(super) fn field(&self, key: &str) -> Lookup<'v> {
        let found = match self {
            Self::Object(map) => map.get(key).map(Val::of),
            Self::Texts(map) => map.get(key).map(|text| Val::Text(Cow::Borrowed(text))),
            _ => return Lookup::NotAMap,
        };
        found.map_or(Lookup::Absent, Lookup::Found)
    }

    /// The elements of a list, the keys of a map, or `None`.
    pub(super) fn elements(&self) -> Option<Vec<Val<'v>>> {
        match self {
            Self::Array(items) => Some(items.iter().map(Val::of).collect()),
            Self::List(items) => Some(items.clone()),
            Self::Object(map) => Some(map.keys().map(|key| Val::Text(Cow::Borrowed(key))).collect()),
            Self::Texts(map) => Some(map.keys().map(|key| Val::Text(Cow::Borrowed(key))).collect()),
            _ => None,
        }
    }

    /// How many characters, elements or entries; `None` for scalars that have no size.
    pub(super) fn size(&self) -> Option<usize> {
        match self {
            Self::Text(text) => Some(text.chars().count()),
            Self::Array(items) => Some(items.len()),
            Self::List(items) => Some(items.len()),
            Self::Object(map) => Some(map.len()),
            Self::Texts(map) => Some(map.len()),
            _ => None,
        }
    }

    /// Whether a list has an element like `needle`, or a map such a key; `None` where that cannot be asked.
    pub(super) fn holds(&self, needle: &Val<'_>) -> Option<bool> {
        match self {
            Self::Array(items) => Some(items.iter().any(|item| Val::of(item).equals(needle))),
            Self::List(items) => Some(items.iter().any(|item| item.equals(needle))),
            Self::Object(_) | Self::Texts(_) => match needle {
                Val::Text(key) => Some(matches!(self.field(key), Lookup::Found(_))),
                Val::Int(_) | Val::UInt(_) | Val::Bool(_) => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    /// CEL's `==`.
    pub(super) fn equals(&self, other: &Val<'_>) -> bool {
        match (self, other) {
            (Val::Null, Val::Null) => true,
            (Val::Text(a), Val::Text(b)) => a == b,
            (Val::Array(a), Val::Array(b)) => {
                a.len() == b.len() && a.iter().zip(*b).all(|(a, b)| Val::of(a).equals(&Val::of(b)))
            }
            (Val::List(a), Val::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.equals(b)),
            (Val::List(a), Val::Array(b)) | (Val::Array(b), Val::List(a)) => {
                a.len() == b.len() && a.iter().zip(*b).all(|(a, b)| a.equals(&Val::of(b)))
            }
            (Val::Texts(a), Val::Texts(b)) => a == b,
            (Val::Object(a), Val::Object(b)) => {
                a.len() == b.len()
                    && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| Val::of(a).equals(&Val::of(b))))
            }
            (Val::Texts(a), Val::Object(b)) | (Val::Object(b), Val::Texts(a)) => {
                a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).and_then(Json::as_str) == Some(a.as_str()))
            }
            _ => self.order(other) == Some(Ordering::Equal),
        }
    }

    /// CEL's order, which numbers, texts and booleans have among themselves.
    pub(super) fn order(&self, other: &Val<'_>) -> Option<Ordering> {
        match (self, other) {
            (Val::Bool(a), Val::Bool(b)) => Some(a.cmp(b)),
            (Val::Text(a), Val::Text(b)) => Some(a.as_ref().cmp(b.as_ref())),
            (Val::Double(a), Val::Double(b)) => a.partial_cmp(b),
            (Val::Double(a), _) => other.whole().and_then(|b| order_whole(b, *a)).map(Ordering::reverse),
            (_, Val::Double(b)) => self.whole().and_then(|a| order_whole(a, *b)),
            _ => Some(self.whole()?.cmp(&other.whole()?)),
        }
    }

    /// An int or uint, in a type that holds both.
    fn whole(&self) -> Option<i128> {
        match self {
            Self::Int(value) => Some(i128::from(*value)),
            Self::UInt(value) => Some(i128::from(*value)),
            _ => None,
        }
    }
}

/// Compares without rounding the whole number.
#[expect(clippy::cast_possible_truncation, reason = "the number was checked to be within ±2^65 and cut to a whole one")]
fn order_whole(whole: i128, double: f64) -> Option<Ordering> {
    const BEYOND: f64 = 36_893_488_147_419_103_232.0;
    if double.is_nan() {
        return None;
    }
    if double >= BEYOND {
        return Some(Ordering::Less);
    }
    if double <= -BEYOND {
        return Some(Ordering::Greater);
    }
    let cut = double.trunc();
    Some(whole.cmp(&(cut as i128)).then_with(|| 0.0_f64.partial_cmp(&(double - cut)).unwrap_or(Ordering::Equal)))
}
