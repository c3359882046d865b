//! `media`: which remote pictures and documents may be fetched for targets that take bytes alone.
//!
//! Invariant: nothing is fetched that no rule names, and a rule never opens addresses of this network by itself.

use std::time::Duration;

use globset::{Glob, GlobMatcher};

use crate::{
    settings::MediaSettings,
    yaml::{Findings, Keys, Node, Value},
};

const KEYS: Keys = Keys::new("`media`", &["allow", "max_bytes", "timeout", "private"]);

/// Most rules.
const MOST: usize = 1_000;
/// Most bytes of one medium: what a whole request to Bedrock may have.
const LARGEST: u64 = 25_000_000;

impl Default for MediaSettings {
    fn default() -> Self {
        Self { allow: Vec::new(), max_bytes: 4_000_000, timeout: Duration::from_secs(10), private: false }
    }
}

/// Addresses that may be fetched: a scheme, a host in which `*` stands for anything, a port, and how paths begin.
#[derive(Debug, Clone)]
pub struct MediaRule {
    text: String,
    https: bool,
    host: GlobMatcher,
    port: Option<u16>,
    path: String,
}

impl PartialEq for MediaRule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl MediaRule {
    /// Reads `https://images.example.com`, `*.example.com` or `http://cache.example.com:8080/pictures/`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (https, rest) = match text.split_once("://") {
            None => (true, text),
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            Some((scheme, _)) => return Err(format!("`{scheme}` is neither https nor http")),
        };
        let (place, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if place.contains('@') || rest.contains(['?', '#']) || path.contains('*') {
            return Err("it holds more than a scheme, a host, a port and the beginning of a path".to_owned());
        }
        let colon = place.rfind(':').filter(|_| !place.ends_with(']'));
        let (host, port) = match colon {
            None => (place, None),
            Some(colon) => {
                let (host, port) = place.split_at(colon);
                let port = port.trim_start_matches(':');
                (host, Some(port.parse().map_err(|_| format!("`{port}` is no port"))?))
            }
        };
        // Brackets mean a class of letters to a glob and an address of version 6 to a URL.
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if bare.is_empty() || bare.contains(['[', '{', ' ', '\\']) {
            return Err("it names no host".to_owned());
        }
        let host = Glob::new(&bare).map_err(|error| error.kind().to_string())?.compile_matcher();
        Ok(Self { text: text.to_owned(), https, host, port, path: path.to_owned() })
    }

    /// Whether an address is one of these. `host` has no brackets and small letters, `port` is the one called.
    pub fn covers(&self, https: bool, host: &str, port: u16, path: &str) -> bool {
        let usual = if self.https { 443 } else { 80 };
        let below = match path.strip_prefix(self.path.as_str()) {
            Some(rest) => rest.is_empty() || self.path.is_empty() || self.path.ends_with('/') || rest.starts_with('/'),
            None => false,
        };
        self.https == https && self.port.unwrap_or(usual) == port && self.host.is_match(host) && below
    }
}

/// Reads all of it.
pub(in crate::settings) fn read(node: &Node, findings: &mut Findings) -> Option<MediaSettings> {
    let default = MediaSettings::default();
    let section = node.section(&KEYS, findings)?;
    let allow = section.get("allow").map_or(Some(default.allow), |node| rules(node, findings));
    let max_bytes = section.get("max_bytes").map_or(Some(default.max_bytes), |node| size(node, findings));
    let span = Duration::from_millis(100)..=Duration::from_mins(2);
    let timeout = section.get("timeout").map_or(Some(default.timeout), |node| node.span("timeout", span, findings));
    let private = section.get("private").map_or(Some(default.private), |node| node.boolean("private", findings));
    Some(MediaSettings { allow: allow?, max_bytes: max_bytes?, timeout: timeout?, private: private? })
}

fn rules(node: &Node, findings: &mut Findings) -> Option<Vec<MediaRule>> {
    // Every one is read, so that every fault is told.
    let rules: Vec<Option<MediaRule>> =
        node.list("allow", MOST, findings)?.iter().map(|item| rule(item, findings)).collect();
    rules.into_iter().collect()
}

fn rule(node: &Node, findings: &mut Findings) -> Option<MediaRule> {
    match MediaRule::parse(node.line("allow", 2_048, findings)?) {
        Ok(rule) => Some(rule),
        Err(why) => {
            let help = "write an address such as https://images.example.com, or a host such as *.example.com";
            findings.error("bad-url", node.position, format!("`allow` cannot be read: {why}"), help);
            None
        }
    }
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
    fn a_rule_covers_what_it_names_and_nothing_beside_it() {
        for (rule, https, host, port, path, covered) in [
            ("https://images.example.com", true, "images.example.com", 443, "/a.png", true),
            ("images.example.com", true, "images.example.com", 443, "/", true),
            ("https://images.example.com", false, "images.example.com", 80, "/a.png", false),
            ("https://images.example.com", true, "images.example.com", 8443, "/a.png", false),
            ("https://images.example.com", true, "images.example.com.evil.test", 443, "/a.png", false),
            ("https://images.example.com", true, "evil-images.example.com", 443, "/a.png", false),
            ("*.example.com", true, "a.b.example.com", 443, "/a.png", true),
            ("*.example.com", true, "example.com", 443, "/a.png", false),
            ("http://cache:8080/pictures", false, "cache", 8080, "/pictures/a.png", true),
            ("http://cache:8080/pictures", false, "cache", 8080, "/pictures", true),
            ("http://cache:8080/pictures", false, "cache", 8080, "/pictures-of-others/a.png", false),
            ("http://cache:8080/pictures/", false, "cache", 8080, "/private/a.png", false),
            ("http://[::1]:9000", false, "::1", 9000, "/a.png", true),
        ] {
            let read = MediaRule::parse(rule).unwrap();
            assert_eq!(read.covers(https, host, port, path), covered, "{rule} {host}:{port}{path}");
        }
        for bad in ["ftp://x", "https://", "", "https://me:pw@x", "https://x/?a", "https://x:port", "x/*"] {
            assert!(MediaRule::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("4MB", Some(4_000_000)), ("512 KiB", Some(524_288)), ("7", Some(7)), ("4GB", None)] {
            assert_eq!(bytes_of(text), bytes, "{text}");
        }
    }
}
