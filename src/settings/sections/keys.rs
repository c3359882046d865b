//! `keys`: keys that the settings declare, each by its hash.

use std::collections::BTreeSet;

use rust_decimal::Decimal;
use strum::IntoEnumIterator as _;

use crate::{
    access::{KeyLimits, MAX_KEY_NAME, Scope},
    money::Usd,
    names::PipelineName,
    settings::{DeclaredKey, secret::secret},
    yaml::{Findings, Keys, Node},
};

/// Most entries.
const MOST: usize = 1_000;

const KEYS: Keys =
    Keys::new("a key", &["name", "scopes", "pipelines", "hash", "requests_per_minute", "usd_per_day", "usd_per_month"]);

/// Reads every declared key.
pub(in crate::settings) fn read(node: &Node, findings: &mut Findings) -> Option<Vec<DeclaredKey>> {
    let mut seen = BTreeSet::new();
    let mut keys = Vec::new();
    for item in node.list("keys", MOST, findings)? {
        let Some(key) = key(item, findings) else { continue };
        if seen.insert(key.name.clone()) {
            keys.push(key);
        } else {
            let message = format!("two keys are called `{}`", key.name);
            findings.error("duplicate-key", item.position, message, "give each a name of its own");
        }
    }
    Some(keys)
}

fn key(node: &Node, findings: &mut Findings) -> Option<DeclaredKey> {
    let section = node.section(&KEYS, findings)?;
    let name = section.require("name", findings).and_then(|node| node.line("name", MAX_KEY_NAME, findings));
    let scopes = section.require("scopes", findings).and_then(|node| scopes(node, findings));
    let hash = section.require("hash", findings).and_then(|node| secret("hash", node, findings));
    let pipelines = match section.get("pipelines") {
        None => Some(BTreeSet::new()),
        Some(node) => pipelines(node, findings),
    };
    let requests_per_minute = match section.get("requests_per_minute") {
        None => Some(None),
        Some(node) => {
            let number = node.integer("requests_per_minute", 1..=i64::from(u32::MAX), findings);
            number.map(|number| u32::try_from(number).ok())
        }
    };
    let mut dollars = |key: &str| match section.get(key) {
        None => Some(None),
        Some(node) => {
            let range = Decimal::ZERO..=Decimal::from(1_000_000_000);
            node.decimal(key, range, findings).map(|usd| Some(Usd(usd)))
        }
    };
    let (usd_per_day, usd_per_month) = (dollars("usd_per_day"), dollars("usd_per_month"));
    Some(DeclaredKey {
        name: name?.to_owned(),
        scopes: scopes?,
        pipelines: pipelines?,
        hash: hash?,
        limits: KeyLimits {
            requests_per_minute: requests_per_minute?,
            usd_per_day: usd_per_day?,
            usd_per_month: usd_per_month?,
        },
    })
}

fn scopes(node: &Node, findings: &mut Findings) -> Option<BTreeSet<Scope>> {
    let choices: Vec<(&str, Scope)> = Scope::iter().map(|scope| (scope.into(), scope)).collect();
    let items = node.list("scopes", choices.len(), findings)?;
    if items.is_empty() {
        findings.error("no-scope", node.position, "a key without scopes opens nothing", "write `scopes: [submit]`");
        return None;
    }
    items.iter().map(|item| item.choice("scopes", &choices, findings)).collect()
}

fn pipelines(node: &Node, findings: &mut Findings) -> Option<BTreeSet<PipelineName>> {
    let items = node.list("pipelines", 1_000, findings)?;
    if items.is_empty() {
        let message = "a key bound to no pipeline reaches nothing";
        findings.error(
            "no-pipeline",
            node.position,
            message,
            "name its pipelines, or remove the key to bind it to none",
        );
        return None;
    }
    items.iter().map(|item| item.name("pipelines", findings)).collect()
}
