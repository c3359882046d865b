//! `quotas`: what the providers grant.

use std::{collections::BTreeSet, time::Duration};

use rust_decimal::Decimal;

use super::providers::known;
use crate::{
    names::{ProviderName, Region},
    quota::{ProfileClass, grant::BURST},
    settings::QuotaSetting,
    yaml::{Findings, Keys, Node, Value},
};

/// Most entries.
const MOST: usize = 1_000;

/// Longest `burst`: providers refill within a minute.
const LONGEST_BURST: Duration = Duration::from_mins(1);

const PROFILES: [(&str, ProfileClass); 3] =
    [("in_region", ProfileClass::InRegion), ("geo", ProfileClass::Geo), ("global", ProfileClass::Global)];

const KEYS: Keys = Keys::new(
    "a quota",
    &[
        "provider",
        "model",
        "region",
        "profile",
        "requests_per_minute",
        "tokens_per_minute",
        "tokens_per_day",
        "concurrency",
        "burst",
        "ramp",
        "share",
        "pool",
    ],
)
.unbuilt(&[(
    "source",
    "write the limits here; `aws service-quotas list-service-quotas --service-code bedrock` tells them",
)]);

/// Reads every quota.
pub(in crate::settings) fn read(
    node: &Node,
    names: &BTreeSet<ProviderName>,
    findings: &mut Findings,
) -> Option<Vec<QuotaSetting>> {
    let mut seen = BTreeSet::new();
    let mut quotas = Vec::new();
    for item in node.list("quotas", MOST, findings)? {
        let Some(quota) = quota(item, names, findings) else { continue };
        if seen.insert((quota.provider.clone(), quota.model.clone(), quota.region.clone(), quota.profile)) {
            quotas.push(quota);
        } else {
            let message = "this quota stands here twice: same provider, model, region and profile";
            findings.error("duplicate-quota", item.position, message, "keep one of the two");
        }
    }
    Some(quotas)
}

fn quota(node: &Node, names: &BTreeSet<ProviderName>, findings: &mut Findings) -> Option<QuotaSetting> {
    let section = node.section(&KEYS, findings)?;
    let provider = section.require("provider", findings);
    let provider = provider.and_then(|node| {
        let name = node.name("provider", findings)?;
        known(name, node.position, names, findings)
    });
    let model = section.require("model", findings).and_then(|node| glob(node, findings));
    let region = match section.get("region") {
        None => None,
        Some(node) => Some(node.name::<Region>("region", findings)?),
    };
    let mut limit = |key: &str, highest: i64| -> Option<Option<u64>> {
        let Some(node) = section.get(key) else { return Some(None) };
        node.integer(key, 1..=highest, findings).map(|value| Some(value.unsigned_abs()))
    };
    let requests_per_minute = limit("requests_per_minute", 1_000_000_000);
    let tokens_per_minute = limit("tokens_per_minute", 1_000_000_000_000);
    let tokens_per_day = limit("tokens_per_day", 1_000_000_000_000_000);
    let concurrency = limit("concurrency", 1_000_000);
    let profile = section.get("profile").map(|node| node.choice("profile", &PROFILES, findings));
    let burst = section
        .get("burst")
        .map_or(Some(BURST), |node| node.span("burst", Duration::from_millis(10)..=LONGEST_BURST, findings));
    let ramp = section.get("ramp").map(|node| node.boolean("ramp", findings));
    let share = section.get("share").map_or(Some(Decimal::ONE), |node| share(node, findings));
    let pool = section.get("pool").map_or(Some(false), |node| node.boolean("pool", findings));
    let rates = (requests_per_minute, tokens_per_minute, tokens_per_day, concurrency);
    if let (Some(None), Some(None), Some(None), Some(None)) = rates {
        let message = "this quota limits nothing";
        let help = "add `requests_per_minute`, `tokens_per_minute`, `tokens_per_day` or `concurrency`";
        findings.error("empty-quota", section.position(), message, help);
        return None;
    }
    Some(QuotaSetting {
        provider: provider?,
        model: model?,
        region,
        requests_per_minute: requests_per_minute?,
        tokens_per_minute: tokens_per_minute?,
        tokens_per_day: tokens_per_day?,
        profile: match profile {
            Some(profile) => Some(profile?),
            None => None,
        },
        burst: burst?,
        ramp: match ramp {
            Some(ramp) => Some(ramp?),
            None => None,
        },
        concurrency: concurrency?.and_then(|calls| u32::try_from(calls).ok()),
        share: share?,
        pool: pool?,
    })
}

fn glob(node: &Node, findings: &mut Findings) -> Option<String> {
    let text = node.line("model", 512, findings)?;
    match globset::Glob::new(text) {
        Ok(_) => Some(text.to_owned()),
        Err(error) => {
            let message = format!("`model` is not a pattern: {}", error.kind());
            findings.error("bad-glob", node.position, message, "write a model's name, with * for any characters");
            None
        }
    }
}

/// A percentage with its sign, or a fraction: `60%` or `0.6`, never nothing and never more than all.
fn share(node: &Node, findings: &mut Findings) -> Option<Decimal> {
    if let Value::Number(_) = node.value {
        return node.decimal("share", Decimal::new(1, 4)..=Decimal::ONE, findings);
    }
    let points = node.percent("share", findings)?.get();
    if points == 0 {
        findings.error("out-of-range", node.position, "`share` is nothing at all", "write a share such as 60%");
        return None;
    }
    Some(Decimal::new(points.into(), 4).normalize())
}
