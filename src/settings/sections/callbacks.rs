//! `callbacks`: who may be told of ends, and what signs what they are told.
//!
//! Invariant: nobody is called that the list does not name.

use std::time::Duration;

use ipnet::IpNet;

use super::addresses::{self, AddressRule};
use crate::{
    settings::{CallbackSettings, Secret, secret::secret},
    yaml::{Findings, Keys, Node, Value},
};

const KEYS: Keys = Keys::new("`callbacks`", &["secret", "allow", "timeout"]);

/// Most secrets that sign at a time.
const MOST_SECRETS: usize = 5;
/// How long a receiver may take to answer, when the settings are silent.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Who may be called.
#[derive(Debug, Clone, PartialEq)]
pub enum Callable {
    /// These addresses.
    Rule(AddressRule),
    /// Whoever has an address of this network.
    Network(IpNet),
}

impl Callable {
    /// Reads an address rule, or a network such as `10.0.0.0/8`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.parse::<IpNet>() {
            Ok(network) => Ok(Self::Network(network.trunc())),
            Err(error) if looks_like_network(text) => Err(format!("{text:?} is no network: {error}")),
            Err(_) => AddressRule::parse(text).map(Self::Rule),
        }
    }
}

fn looks_like_network(text: &str) -> bool {
    let number = text.split_once('/').map(|(number, _)| number.trim_start_matches('[').trim_end_matches(']'));
    number.is_some_and(|number| number.parse::<std::net::IpAddr>().is_ok())
}

/// Reads all of it.
pub(in crate::settings) fn read(node: &Node, findings: &mut Findings) -> Option<CallbackSettings> {
    let section = node.section(&KEYS, findings)?;
    let secrets = section.require("secret", findings).and_then(|node| secrets(node, findings));
    let allow = section
        .require("allow", findings)
        .and_then(|node| addresses::list(node, findings, "a network such as 10.0.0.0/8", Callable::parse));
    let range = Duration::from_secs(1)..=Duration::from_mins(1);
    let timeout = section.get("timeout").map_or(Some(TIMEOUT), |node| node.span("timeout", range, findings));
    Some(CallbackSettings { secrets: secrets?, allow: allow?, timeout: timeout? })
}

/// One place of a secret, or several while they are changed over.
fn secrets(node: &Node, findings: &mut Findings) -> Option<Vec<Secret>> {
    let Value::List(_) = &node.value else { return Some(vec![secret("secret", node, findings)?]) };
    let items = node.list("secret", MOST_SECRETS, findings)?;
    if items.is_empty() {
        let help = "write `secret: { file: PATH }`";
        findings.error("no-secret", node.position, "`secret` names no place, so nothing could be signed", help);
        return None;
    }
    let places: Vec<Option<Secret>> = items.iter().map(|item| secret("secret", item, findings)).collect();
    places.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_addresses_are_told_apart() {
        for (text, network) in [
            ("10.0.0.0/8", true),
            ("10.1.2.3/8", true),
            ("fd00::/8", true),
            ("https://hooks.example.com", false),
            ("hooks.example.com/in", false),
            ("http://10.1.2.3:8080", false),
        ] {
            let read = Callable::parse(text).unwrap();
            assert_eq!(matches!(read, Callable::Network(_)), network, "{text}");
        }
        assert_eq!(Callable::parse("10.1.2.3/8"), Callable::parse("10.0.0.0/8"));
        assert!(Callable::parse("ftp://x").is_err());
    }
}
