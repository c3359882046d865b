//! Rules on addresses that the daemon may call for somebody else: by scheme, host, port and path.
//!
//! Invariant: a rule covers what it names and nothing beside it.

use globset::{Glob, GlobMatcher};

use crate::yaml::{Findings, Node};

/// Most rules.
const MOST: usize = 1_000;

/// Addresses that may be called: a scheme, a host in which `*` stands for anything, a port, and how paths begin.
#[derive(Debug, Clone)]
pub struct AddressRule {
    text: String,
    https: bool,
    host: GlobMatcher,
    port: Option<u16>,
    path: String,
}

impl PartialEq for AddressRule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl AddressRule {
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

    /// Whether it names one address by its number.
    pub fn names_a_number(&self) -> bool {
        self.host.glob().glob().parse::<std::net::IpAddr>().is_ok()
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

/// Reads a list of rules.
pub(super) fn rules(node: &Node, findings: &mut Findings) -> Option<Vec<AddressRule>> {
    list(node, findings, "a host such as *.example.com", AddressRule::parse)
}

/// Reads a list, each item by `parse`. Every one is read, so that every fault is told.
pub(super) fn list<T>(
    node: &Node,
    findings: &mut Findings,
    or: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Option<Vec<T>> {
    let items: Vec<Option<T>> = node
        .list("allow", MOST, findings)?
        .iter()
        .map(|item| match parse(item.line("allow", 2_048, findings)?) {
            Ok(rule) => Some(rule),
            Err(why) => {
                let help = format!("write an address such as https://images.example.com, or {or}");
                findings.error("bad-url", item.position, format!("`allow` cannot be read: {why}"), help);
                None
            }
        })
        .collect();
    items.into_iter().collect()
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
            let read = AddressRule::parse(rule).unwrap();
            assert_eq!(read.covers(https, host, port, path), covered, "{rule} {host}:{port}{path}");
        }
        for bad in ["ftp://x", "https://", "", "https://me:pw@x", "https://x/?a", "https://x:port", "x/*"] {
            assert!(AddressRule::parse(bad).is_err(), "{bad}");
        }
    }
}
