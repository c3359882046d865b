//! The tree: values and keys that know where they stand.

use std::ops::Range;

use super::align;
use crate::diagnostic::Position;

/// A parsed file.
#[derive(Debug, Clone)]
pub struct Document {
    /// The whole of it; [`Value::Null`] for a file of nothing or of comments.
    pub root: Node,
    /// What positions refer to: the file without a byte order mark.
    pub text: String,
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// What stands there.
    pub value: Value,
    /// Where. A value that is left empty stands at its key.
    pub position: Position,
    pub(super) bytes: Range<usize>,
}

/// What can stand in a YAML file.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing, `null` or `~`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the file; the same key may stand in it twice (see [`Node::entries`]).
    Map(Vec<Entry>),
}

/// A number, with the text that it was written as.
#[derive(Debug, Clone, PartialEq)]
pub struct Number {
    /// As written, so that decimals stay exact.
    pub text: String,
    /// As JSON has it; `None` for infinities and what is not a number.
    pub json: Option<serde_json::Number>,
}

/// One key and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// Its value.
    pub value: Node,
}

/// A key and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// As written, without quotes.
    pub text: String,
    /// Where.
    pub position: Position,
}

impl Node {
    /// What kind of value this is, in words.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// Whether nothing stands here.
    pub fn is_null(&self) -> bool {
        self.value == Value::Null
    }

    /// The value as JSON; `None` when a number in it has no JSON form. The last of two equal keys wins.
    pub fn to_json(&self) -> Option<serde_json::Value> {
        use serde_json::Value as Json;
        Some(match &self.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Number(number) => Json::Number(number.json.clone()?),
            Value::Text(text) => Json::String(text.clone()),
            Value::List(items) => Json::Array(items.iter().map(Self::to_json).collect::<Option<_>>()?),
            Value::Map(entries) => {
                let pairs = entries.iter().map(|entry| Some((entry.key.text.clone(), entry.value.to_json()?)));
                Json::Object(pairs.collect::<Option<_>>()?)
            }
        })
    }

    /// Where the characters `offset..offset + length` of this text stand in the file `source`, whatever its quoting or
    /// folding; the whole value where that cannot be told.
    pub fn locate(&self, source: &str, offset: usize, length: usize) -> Position {
        let (Value::Text(text), Some(raw)) = (&self.value, source.get(self.bytes.clone())) else {
            return self.position;
        };
        let Some(places) = align::align(raw, text) else { return self.position };
        let (Some(&from), Some(last)) = (places.get(offset), places.get(offset + length.saturating_sub(1))) else {
            // An error at the very end of the text: the place after its last character.
            return match places.last() {
                Some(&last) if offset >= text.chars().count() => {
                    let mut end = self.place(raw, last);
                    end.column = end.column.saturating_add(1);
                    end
                }
                _ => self.position,
            };
        };
        let mut position = self.place(raw, from);
        let stretch = raw.get(from..=*last).or_else(|| raw.get(from..)).unwrap_or_default();
        let stretch = stretch.split(['\n', '\r']).next().unwrap_or_default();
        position.length = u32::try_from(stretch.chars().count()).unwrap_or(u32::MAX).max(1);
        position
    }

    fn place(&self, raw: &str, at: usize) -> Position {
        let before = raw.get(..at).unwrap_or_default();
        let count = |text: &str| u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
        match before.rsplit_once('\n') {
            None => Position {
                line: self.position.line,
                column: self.position.column.saturating_add(count(before)),
                length: 1,
            },
            Some((above, line)) => {
                let lines = above.matches('\n').count() + 1;
                Position {
                    line: self.position.line.saturating_add(u32::try_from(lines).unwrap_or(u32::MAX)),
                    column: count(line).saturating_add(1),
                    length: 1,
                }
            }
        }
    }
}
