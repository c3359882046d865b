//! Mappings: with a known set of keys (a section), or with names as keys (entries).
//!
//! Invariant: a key that nobody knows, stands twice, or is documented but not built is never passed over in silence.

use super::{
    findings::Findings,
    node::{Entry, Key, Node, Value},
};
use crate::{diagnostic::Position, names::nearest};

/// The keys of one kind of mapping.
#[derive(Debug, Clone, Copy)]
pub struct Keys {
    /// What the mapping is, in words: `a target`.
    pub of: &'static str,
    /// The keys that are read.
    pub known: &'static [&'static str],
    /// Keys that the documentation names but this release does not build, each with what to use instead.
    pub unbuilt: &'static [(&'static str, &'static str)],
}

impl Keys {
    /// Keys of `of`.
    pub const fn new(of: &'static str, known: &'static [&'static str]) -> Self {
        Self { of, known, unbuilt: &[] }
    }

    /// The same, with keys that are refused by name.
    #[must_use]
    pub const fn unbuilt(mut self, unbuilt: &'static [(&'static str, &'static str)]) -> Self {
        self.unbuilt = unbuilt;
        self
    }
}

/// A mapping whose keys have been checked.
#[derive(Debug, Clone)]
pub struct Section<'n> {
    keys: &'static Keys,
    position: Position,
    entries: Vec<&'n Entry>,
}

impl<'n> Section<'n> {
    /// The value of `key`, where the file has it.
    pub fn get(&self, key: &str) -> Option<&'n Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// `key` and its value, where the file has it.
    pub fn entry(&self, key: &str) -> Option<&'n Entry> {
        debug_assert!(self.keys.known.contains(&key), "{key} is not among the keys of {}", self.keys.of);
        self.entries.iter().find(|entry| entry.key.text == key).copied()
    }

    /// The value of `key`; its absence is an error.
    pub fn require(&self, key: &str, findings: &mut Findings) -> Option<&'n Node> {
        let found = self.get(key);
        if found.is_none() {
            let message = format!("{} needs `{key}`", self.keys.of);
            findings.error("missing-key", self.position, message, format!("add `{key}: …`"));
        }
        found
    }

    /// Where the mapping stands (its first key).
    pub fn position(&self) -> Position {
        self.position
    }

    /// Every entry whose key is known.
    pub fn entries(&self) -> impl Iterator<Item = &'n Entry> {
        self.entries.iter().copied()
    }
}

impl Node {
    /// This mapping's entries: keys are names, each once. Says what is wrong when it is not a mapping or a key repeats
    /// (the first stays).
    pub fn entries(&self, what: &str, findings: &mut Findings) -> Option<Vec<&Entry>> {
        let Value::Map(entries) = &self.value else {
            let help = format!("write `{what}:` with indented `key: value` lines, or `{{}}`");
            self.mismatch(what, "a mapping", &help, findings);
            return None;
        };
        Some(distinct(entries, findings))
    }

    /// This mapping with its keys checked against `keys`; `None` when it is not a mapping.
    pub fn section<'n>(&'n self, keys: &'static Keys, findings: &mut Findings) -> Option<Section<'n>> {
        let Value::Map(entries) = &self.value else {
            let message = if self.is_null() {
                format!("{} has no value", keys.of)
            } else {
                format!("{} must be a mapping, not {}", keys.of, self.kind())
            };
            let help = format!("write `key: value` lines; the keys are {}", in_backticks(keys.known.iter().copied()));
            findings.error(if self.is_null() { "no-value" } else { "wrong-type" }, self.position, message, help);
            return None;
        };
        let mut entries = distinct(entries, findings);
        entries.retain(|entry| is_known(entry, keys, findings));
        Some(Section { keys, position: self.position, entries })
    }
}

/// The entries without those whose key has stood before; says so.
fn distinct<'n>(entries: &'n [Entry], findings: &mut Findings) -> Vec<&'n Entry> {
    let mut seen: std::collections::HashMap<&str, &Key> = std::collections::HashMap::new();
    let mut kept = Vec::with_capacity(entries.len());
    for entry in entries {
        if let Some(first) = seen.get(entry.key.text.as_str()) {
            let (key, line) = (shortened(&entry.key.text), first.position.line);
            let message = format!("`{key}` stands here twice; the first is in line {line}");
            findings.error("duplicate-key", entry.key.position, message, "keep one of the two");
        } else {
            seen.insert(&entry.key.text, &entry.key);
            kept.push(entry);
        }
    }
    kept
}

/// Whether `keys` has this key; says so if not.
fn is_known(entry: &Entry, keys: &Keys, findings: &mut Findings) -> bool {
    let key = entry.key.text.as_str();
    if keys.known.contains(&key) {
        return true;
    }
    if let Some((_, instead)) = keys.unbuilt.iter().find(|(name, _)| *name == key) {
        let message = format!("`{key}` is not part of this release");
        findings.error("not-in-this-release", entry.key.position, message, *instead);
        return false;
    }
    let help = nearest(key, keys.known.iter().copied()).map_or_else(
        || format!("{} has the keys {}", keys.of, in_backticks(keys.known.iter().copied())),
        |near| format!("did you mean `{near}`?"),
    );
    findings.error("unknown-key", entry.key.position, format!("unknown key `{}`", shortened(key)), help);
    false
}

/// Names in backticks, with commas.
pub fn in_backticks<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// A text short enough for a message, without control characters.
pub fn shortened(text: &str) -> String {
    const LONGEST: usize = 80;
    let mut short = String::new();
    for c in text.chars().take(LONGEST) {
        if c.is_control() { short.extend(c.escape_default()) } else { short.push(c) }
    }
    if text.chars().nth(LONGEST).is_some() {
        short.push('…');
    }
    short
}
