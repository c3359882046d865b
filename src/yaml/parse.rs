//! From bytes to the tree, within bounds.
//!
//! Invariant: what the YAML library makes of a file never leaves this file; its errors become diagnostics.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{
    Location, Spanned,
    options::{DuplicateKeyPolicy, NonFiniteFloatPolicy},
};

use super::node::{Document, Entry, Key, Node, Number, Value};
use crate::diagnostic::{Diagnostic, Position};

/// Largest file that is read: far above any spec, small enough to read at every reload.
pub const MAX_BYTES: usize = 1 << 20;
/// Deepest nesting: a job's body inside a spec's test is some ten deep.
const MAX_DEPTH: usize = 48;
/// Most values in a file.
const MAX_NODES: usize = 100_000;
/// Most values that aliases may add: a bomb stops here.
const MAX_REPLAYED: usize = 20_000;

/// Reads a file.
///
/// # Errors
/// One diagnostic: a file that is too large, is not UTF-8, or breaks YAML's syntax has no tree to look further into.
pub fn parse(file: &str, bytes: &[u8]) -> Result<Document, Box<Diagnostic>> {
    if bytes.len() > MAX_BYTES {
        let message = format!("the file has {} bytes; at most {MAX_BYTES} are read", bytes.len());
        let problem = Diagnostic::error("file-too-large", file, message);
        return Err(Box::new(problem.help("split it, or move large texts elsewhere")));
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => return Err(Box::new(not_utf8(file, bytes, error.valid_up_to()))),
    };
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 4 * MAX_NODES,
            max_documents: 2,
            max_anchors: 1_000,
            max_aliases: 10_000,
            max_merge_keys: 1_000,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_REPLAYED },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        reject_unsupported_tags: true,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        emit_comments: false,
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(raw) => Ok(Document { root: raw_node(raw, text), text: text.to_owned() }),
        Err(error) => Err(Box::new(syntax_error(file, text, error.without_snippet()))),
    }
}

fn not_utf8(file: &str, bytes: &[u8], valid_up_to: usize) -> Diagnostic {
    let before = String::from_utf8_lossy(bytes.get(..valid_up_to).unwrap_or_default()).into_owned();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let position = Position { line: narrow(line), column: narrow(column), length: 1 };
    Diagnostic::error("not-utf-8", file, "the file is not UTF-8 from here on")
        .at(position, &String::from_utf8_lossy(bytes))
        .help("save it as UTF-8")
}

fn syntax_error(file: &str, text: &str, error: &serde_saphyr::Error) -> Diagnostic {
    use serde_saphyr::Error;
    let words = plain_message(error);
    let (code, message, help) = match error {
        Error::MultipleDocuments { .. } => (
            "several-documents",
            "the file holds more than one YAML document".to_owned(),
            "keep one document a file: remove `---` and what follows",
        ),
        Error::Budget { .. } => too_complex(&words),
        Error::NullIntoString { .. } => ("bad-key", "a key is empty".to_owned(), "write a name before the colon"),
        Error::Unexpected { expected: "string scalar", .. } => (
            "bad-key",
            "a key must be text".to_owned(),
            "write a plain name before the colon; put braces and brackets that are text in quotes",
        ),
        // Limits that the library reports in words: of nesting and of aliases.
        _ if words.contains("limit exceeded") => too_complex(&words),
        _ => (
            "syntax",
            format!("this is not YAML: {words}"),
            "check indentation, brackets and quotes here and in the line above; text with `: `, `#`, `{` or `*` needs quotes",
        ),
    };
    let diagnostic = Diagnostic::error(code, file, message).help(help);
    match error.location() {
        Some(place) if place.line() > 0 => {
            diagnostic.at(Position { line: narrow(place.line()), column: narrow(place.column()), length: 1 }, text)
        }
        _ => diagnostic,
    }
}

fn too_complex(words: &str) -> (&'static str, String, &'static str) {
    (
        "too-complex",
        format!("the file is deeper or larger than is read ({words})"),
        "use fewer values, less nesting and fewer aliases",
    )
}

/// The library's words without its position, which a diagnostic has already; without its longer lectures.
fn plain_message(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let text = text.lines().next().unwrap_or_default();
    text.split(" at line ").next().unwrap_or(text).chars().take(200).collect()
}

fn narrow(number: impl TryInto<u32>) -> u32 {
    number.try_into().unwrap_or(u32::MAX)
}

/// The shape as the library hands it over, before texts of numbers and places are looked up.
enum Raw {
    Null,
    Bool(bool),
    Number(Option<serde_json::Number>),
    Text(String),
    List(Vec<Spanned<Self>>),
    Map(Vec<(Spanned<String>, Spanned<Self>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Number(Some(value.into())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Number(Some(value.into())))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Number(serde_json::Number::from_i128(value)))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
        Ok(Raw::Number(serde_json::Number::from_u128(value)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Number(serde_json::Number::from_f64(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Text(value))
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Raw, E> {
        Ok(Raw::Text(String::from_utf8_lossy(value).into_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key()? {
            map.push((key, entries.next_value()?));
        }
        Ok(Raw::Map(map))
    }
}

fn raw_node(raw: Spanned<Raw>, text: &str) -> Node {
    // Behind an alias or a merge, the place that needs correcting is where the value was written.
    let (mut position, bytes) = place(raw.defined, text);
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Bool(value) => Value::Bool(value),
        Raw::Number(json) => {
            let text = text.get(bytes.clone()).unwrap_or_default().trim().to_owned();
            Value::Number(Number { text, json })
        }
        Raw::Text(text) => Value::Text(text),
        Raw::List(items) => Value::List(items.into_iter().map(|item| raw_node(item, text)).collect()),
        Raw::Map(entries) => Value::Map(entries.into_iter().map(|(key, value)| raw_entry(key, value, text)).collect()),
    };
    if let Value::Map(entries) = &value
        && let Some(first) = entries.first()
        && first.key.position.line == position.line
        && first.key.position.column == position.column
    {
        position.length = first.key.position.length;
    }
    Node { value, position, bytes }
}

fn raw_entry(key: Spanned<String>, value: Spanned<Raw>, text: &str) -> Entry {
    let key = Key { text: key.value, position: place(key.defined, text).0 };
    let mut value = raw_node(value, text);
    if value.is_null() && value.bytes.is_empty() {
        value.position = key.position;
    }
    Entry { key, value }
}

fn place(location: Location, text: &str) -> (Position, std::ops::Range<usize>) {
    let span = location.span();
    let start = usize::try_from(span.byte_offset().unwrap_or(0)).unwrap_or(0);
    let end = start.saturating_add(usize::try_from(span.byte_len().unwrap_or(0)).unwrap_or(0));
    let first_line = text.get(start..end).unwrap_or_default().lines().next().unwrap_or_default();
    let position = Position {
        line: narrow(location.line()).max(1),
        column: narrow(location.column()).max(1),
        length: narrow(first_line.trim_end().chars().count()).max(1),
    };
    (position, start..end)
}
