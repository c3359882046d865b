//! `media`: which remote pictures and documents may be fetched for targets that take bytes alone.
//!
//! Invariant: nothing is fetched that no rule names, and a rule never opens addresses of this network by itself.

use std::time::Duration;

use crate::{
    settings::{MediaSettings, sections::addresses},
    yaml::{Findings, Keys, Node, Value},
};

const KEYS: Keys = Keys::new("`media`", &["allow", "max_bytes", "timeout", "private"]);

/// Most bytes of one medium: what a whole request to Bedrock may have.
const LARGEST: u64 = 25_000_000;

impl Default for MediaSettings {
    fn default() -> Self {
        Self { allow: Vec::new(), max_bytes: 4_000_000, timeout: Duration::from_secs(10), private: false }
    }
}

/// Reads all of it.
pub(in crate::settings) fn read(node: &Node, findings: &mut Findings) -> Option<MediaSettings> {
    let default = MediaSettings::default();
    let section = node.section(&KEYS, findings)?;
    let allow = section.get("allow").map_or(Some(default.allow), |node| addresses::rules(node, findings));
    let max_bytes = section.get("max_bytes").map_or(Some(default.max_bytes), |node| size(node, findings));
    let span = Duration::from_millis(100)..=Duration::from_mins(2);
    let timeout = section.get("timeout").map_or(Some(default.timeout), |node| node.span("timeout", span, findings));
    let private = section.get("private").map_or(Some(default.private), |node| node.boolean("private", findings));
    Some(MediaSettings { allow: allow?, max_bytes: max_bytes?, timeout: timeout?, private: private? })
}

/// A count of bytes: a number, or one with a unit.
fn size(node: &Node, findings: &mut Findings) -> Option<usize> {
    let help = "write a number of bytes, or a size such as 500kB, 4MB or 4MiB, up to 25MB";
    let bytes = match &node.value {
        Value::Number(number) => number.json.as_ref().and_then(serde_json::Number::as_u64),
        Value::Text(text) => bytes_of(text),
        _ => None,
    };
    let within = bytes.filter(|bytes| (1..=LARGEST).contains(bytes)).and_then(|bytes| usize::try_from(bytes).ok());
    if within.is_none() {
        findings.error("bad-size", node.position, "`max_bytes` is no size from 1 byte to 25MB", help);
    }
    within
}

fn bytes_of(text: &str) -> Option<u64> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "kib" => 1_024,
        "mib" => 1_048_576,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("4MB", Some(4_000_000)), ("512 KiB", Some(524_288)), ("7", Some(7)), ("4GB", None)] {
            assert_eq!(bytes_of(text), bytes, "{text}");
        }
    }
}
