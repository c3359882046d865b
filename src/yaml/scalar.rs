//! Typed readers of single values and lists. Each says what is wrong and returns `None`, or returns the value.

use std::{collections::BTreeMap, ops::RangeInclusive, str::FromStr, time::Duration};

use rust_decimal::Decimal;

use super::{
    findings::Findings,
    node::{Node, Value},
    section::{in_backticks, shortened},
};
use crate::{
    clock,
    money::BasisPoints,
    names::{InvalidName, nearest},
};

impl Node {
    /// Says that this is not `wanted`.
    pub(super) fn mismatch(&self, what: &str, wanted: &str, help: &str, findings: &mut Findings) {
        if self.is_null() {
            let message = format!("`{what}` has no value");
            findings.error("no-value", self.position, message, format!("{help}; or remove the key"));
        } else {
            let message = format!("`{what}` must be {wanted}, not {}", self.kind());
            findings.error("wrong-type", self.position, message, help);
        }
    }

    /// Text, which may be empty.
    pub fn text<'n>(&'n self, what: &str, findings: &mut Findings) -> Option<&'n str> {
        match &self.value {
            Value::Text(text) => Some(text),
            Value::Number(number) => {
                self.mismatch(what, "text", &format!("put it in quotes: \"{}\"", shortened(&number.text)), findings);
                None
            }
            Value::Bool(value) => {
                self.mismatch(what, "text", &format!("put it in quotes: \"{value}\""), findings);
                None
            }
            _ => {
                self.mismatch(what, "text", &format!("write `{what}: some text`"), findings);
                None
            }
        }
    }

    /// Text that is more than white space and at most `longest` characters.
    pub fn line<'n>(&'n self, what: &str, longest: usize, findings: &mut Findings) -> Option<&'n str> {
        let text = self.text(what, findings)?;
        if text.trim().is_empty() {
            findings.error(
                "no-value",
                self.position,
                format!("`{what}` is empty"),
                "write some text, or remove the key",
            );
            return None;
        }
        let length = text.chars().count();
        if length > longest {
            let message = format!("`{what}` has {length} characters; at most {longest} are taken");
            findings.error("too-long", self.position, message, "shorten it");
            return None;
        }
        Some(text)
    }

    /// `true` or `false`.
    pub fn boolean(&self, what: &str, findings: &mut Findings) -> Option<bool> {
        if let Value::Bool(value) = self.value {
            return Some(value);
        }
        let help = match &self.value {
            Value::Text(text) => match text.to_ascii_lowercase().as_str() {
                "yes" | "on" | "y" | "true" => "write `true`, without quotes",
                "no" | "off" | "n" | "false" => "write `false`, without quotes",
                _ => "write `true` or `false`",
            },
            _ => "write `true` or `false`",
        };
        self.mismatch(what, "true or false", help, findings);
        None
    }

    /// A whole number within `range`.
    pub fn integer(&self, what: &str, range: RangeInclusive<i64>, findings: &mut Findings) -> Option<i64> {
        let (low, high) = (*range.start(), *range.end());
        let help = format!("write a whole number from {low} to {high}");
        let Value::Number(number) = &self.value else {
            self.mismatch(what, "a whole number", &help, findings);
            return None;
        };
        let value = number.json.as_ref().and_then(serde_json::Number::as_i64);
        let inside = value.filter(|value| range.contains(value));
        if inside.is_none() {
            let message = match value {
                Some(value) => format!("`{what}` is {value}, outside {low} to {high}"),
                None => format!("`{what}` is {}, not a whole number from {low} to {high}", shortened(&number.text)),
            };
            findings.error("out-of-range", self.position, message, help);
        }
        inside
    }

    /// An exact decimal number within `range`.
    pub fn decimal(&self, what: &str, range: RangeInclusive<Decimal>, findings: &mut Findings) -> Option<Decimal> {
        let help = format!("write a decimal number from {} to {}", range.start(), range.end());
        let Value::Number(number) = &self.value else {
            self.mismatch(what, "a number", &help, findings);
            return None;
        };
        let value = Decimal::from_str_exact(number.text.strip_prefix('+').unwrap_or(&number.text)).ok();
        let inside = value.filter(|value| range.contains(value));
        if inside.is_none() {
            let message = format!(
                "`{what}` is {}, not a number from {} to {}",
                shortened(&number.text),
                range.start(),
                range.end()
            );
            findings.error("out-of-range", self.position, message, help);
        }
        inside
    }

    /// A percentage with at most two decimals, as a number or with a percent sign: `25`, `0.5`, `60%`.
    pub fn percent(&self, what: &str, findings: &mut Findings) -> Option<BasisPoints> {
        let help = "write a number from 0 to 100 with at most two decimals, such as 25 or 0.5";
        let written = match &self.value {
            Value::Number(number) => number.text.as_str(),
            Value::Text(text) if text.ends_with('%') => text.trim_end_matches('%').trim_end(),
            _ => {
                self.mismatch(what, "a percentage", help, findings);
                return None;
            }
        };
        let share = BasisPoints::parse_percent(written);
        if share.is_none() {
            let message = format!("`{what}` is {}, not a percentage", shortened(written));
            findings.error("bad-percentage", self.position, message, help);
        }
        share
    }

    /// A span of time such as `30s` or `1h30m`, within `range`.
    pub fn span(&self, what: &str, range: RangeInclusive<Duration>, findings: &mut Findings) -> Option<Duration> {
        let help = "write a number and a unit, such as 150ms, 30s, 5m, 24h, 7d or 1h30m";
        let Value::Text(text) = &self.value else {
            if let Value::Number(number) = &self.value {
                let message = format!("`{what}` has no unit");
                findings.error(
                    "bad-span",
                    self.position,
                    message,
                    format!("write `{}s` for seconds", shortened(&number.text)),
                );
            } else {
                self.mismatch(what, "a span of time", help, findings);
            }
            return None;
        };
        let Ok(span) = clock::parse_span(text) else {
            let message = format!("`{what}` is \"{}\", not a span of time up to ten years", shortened(text));
            findings.error("bad-span", self.position, message, help);
            return None;
        };
        if range.contains(&span) {
            return Some(span);
        }
        let (low, high) = (clock::format_span(*range.start()), clock::format_span(*range.end()));
        let message = format!("`{what}` is {text}, outside {low} to {high}");
        findings.error("out-of-range", self.position, message, format!("write a span from {low} to {high}"));
        None
    }

    /// A name of a checked kind.
    pub fn name<N: FromStr<Err = InvalidName>>(&self, what: &str, findings: &mut Findings) -> Option<N> {
        let text = self.text(what, findings)?;
        let name = text.parse().ok();
        if name.is_none() {
            bad_name(&format!("`{what}` cannot be"), text, self.position, findings);
        }
        name
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&self, what: &str, choices: &[(&str, T)], findings: &mut Findings) -> Option<T> {
        let words = || choices.iter().map(|(word, _)| *word);
        let Value::Text(text) = &self.value else {
            self.mismatch(what, "one of a few words", &format!("write one of {}", in_backticks(words())), findings);
            return None;
        };
        if let Some((_, value)) = choices.iter().find(|(word, _)| word == text) {
            return Some(*value);
        }
        let help = nearest(text, words()).map_or_else(
            || format!("write one of {}", in_backticks(words())),
            |near| format!("did you mean `{near}`?"),
        );
        let message = format!("`{what}` cannot be \"{}\"", shortened(text));
        findings.error("unknown-value", self.position, message, help);
        None
    }

    /// A list of at most `longest` values.
    pub fn list<'n>(&'n self, what: &str, longest: usize, findings: &mut Findings) -> Option<&'n [Self]> {
        let Value::List(items) = &self.value else {
            self.mismatch(what, "a list", &format!("write `{what}: [one, two]`, or `[]` for none"), findings);
            return None;
        };
        if items.len() > longest {
            let message = format!("`{what}` has {} values; at most {longest} are taken", items.len());
            findings.error("too-many", self.position, message, "shorten the list");
            return None;
        }
        Some(items)
    }

    /// Texts by key.
    pub fn texts(&self, what: &str, findings: &mut Findings) -> Option<BTreeMap<String, String>> {
        let entries = self.entries(what, findings)?;
        let mut texts = BTreeMap::new();
        for entry in entries {
            if let Some(text) = entry.value.text(&entry.key.text, findings) {
                texts.insert(entry.key.text.clone(), text.to_owned());
            }
        }
        Some(texts)
    }

    /// Any value, as JSON; repeated keys and numbers without a JSON form are errors.
    pub fn json(&self, what: &str, findings: &mut Findings) -> Option<serde_json::Value> {
        use serde_json::Value as Json;
        Some(match &self.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Text(text) => Json::String(text.clone()),
            Value::Number(number) => {
                if number.json.is_none() {
                    let message = format!("`{what}` holds {}, which JSON cannot carry", shortened(&number.text));
                    findings.error("out-of-range", self.position, message, "write a finite number");
                }
                Json::Number(number.json.clone()?)
            }
            Value::List(items) => {
                Json::Array(items.iter().map(|item| item.json(what, findings)).collect::<Option<_>>()?)
            }
            Value::Map(_) => {
                let mut object = serde_json::Map::new();
                for entry in self.entries(what, findings)? {
                    object.insert(entry.key.text.clone(), entry.value.json(&entry.key.text, findings)?);
                }
                Json::Object(object)
            }
        })
    }
}

impl super::Key {
    /// This key as a name of a checked kind, where `what` is what it names: `a target`.
    pub fn name<N: FromStr<Err = InvalidName>>(&self, what: &str, findings: &mut Findings) -> Option<N> {
        let name = self.text.parse().ok();
        if name.is_none() {
            bad_name(&format!("{what} cannot be named"), &self.text, self.position, findings);
        }
        name
    }
}

fn bad_name(lead: &str, text: &str, at: crate::diagnostic::Position, findings: &mut Findings) {
    let mended: String = text
        .trim()
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .skip_while(|c| *c == '-')
        .take(crate::names::MAX_NAME_LENGTH)
        .collect();
    let help = if crate::names::is_name(&mended) {
        format!("write `{mended}`: 1 to 63 characters of a-z, 0-9 and '-', starting with a letter or digit")
    } else {
        "use 1 to 63 characters of a-z, 0-9 and '-', starting with a letter or digit".to_owned()
    };
    findings.error("bad-name", at, format!("{lead} \"{}\"", shortened(text)), help);
}
