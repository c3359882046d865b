//! `quotas`: what the providers grant.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rust_decimal::Decimal;

use super::providers::known;
use crate::{
    names::{ProviderName, Region},
    quota::{ProfileClass, grant::BURST},
    settings::{ApiSettings, ProviderSettings, QuotaSetting},
    yaml::{Findings, Keys, Node, Section, Value},
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
        "source",
    ],
);

/// What AWS says itself, or what makes no sense with it.
const NOT_WITH_AWS: [&str; 7] =
    ["requests_per_minute", "tokens_per_minute", "tokens_per_day", "concurrency", "profile", "ramp", "pool"];

/// Reads every quota.
pub(in crate::settings) fn read(
    node: &Node,
    names: &BTreeSet<ProviderName>,
    providers: Option<&BTreeMap<ProviderName, ProviderSettings>>,
    findings: &mut Findings,
) -> Option<Vec<QuotaSetting>> {
    let mut seen = BTreeSet::new();
    let mut quotas = Vec::new();
    for item in node.list("quotas", MOST, findings)? {
        let Some(quota) = quota(item, names, providers, findings) else { continue };
        if seen.insert((quota.provider.clone(), quota.model.clone(), quota.region.clone(), quota.profile)) {
            quotas.push(quota);
        } else {
            let message = "this quota stands here twice: same provider, model, region and profile";
            findings.error("duplicate-quota", item.position, message, "keep one of the two");
        }
    }
    Some(quotas)
}

fn quota(
    node: &Node,
    names: &BTreeSet<ProviderName>,
    providers: Option<&BTreeMap<ProviderName, ProviderSettings>>,
    findings: &mut Findings,
) -> Option<QuotaSetting> {
    let section = node.section(&KEYS, findings)?;
    if let Some(source) = section.get("source") {
        source.choice("source", &[("aws", ())], findings)?;
        return from_aws(&section, names, providers, findings);
    }
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
        from_aws: false,
    })
}

/// A quota that AWS Service Quotas tells: of every model, unless one is named.
fn from_aws(
    section: &Section<'_>,
    names: &BTreeSet<ProviderName>,
    providers: Option<&BTreeMap<ProviderName, ProviderSettings>>,
    findings: &mut Findings,
) -> Option<QuotaSetting> {
    for key in NOT_WITH_AWS {
        if let Some(node) = section.get(key) {
            let message = format!("`{key}` stands beside `source: aws`, which tells it");
            findings.error("conflict", node.position, message, "leave one of the two out");
        }
    }
    let provider = section.require("provider", findings).and_then(|node| {
        let name = node.name("provider", findings)?;
        let name = known(name, node.position, names, findings)?;
        let api = providers.and_then(|all| all.get(&name)).map(|provider| &provider.api);
        if api.is_some_and(|api| !matches!(api, ApiSettings::Bedrock { .. })) {
            let message = format!("provider `{name}` is no `api: bedrock`: AWS Service Quotas does not know it");
            findings.error("no-effect", node.position, message, "write the limits instead of `source: aws`");
        }
        Some(name)
    });
    let model = section.get("model").map_or(Some("*".to_owned()), |node| glob(node, findings));
    let region = match section.get("region") {
        None => None,
        Some(node) => Some(node.name::<Region>("region", findings)?),
    };
    let burst = section
        .get("burst")
        .map_or(Some(BURST), |node| node.span("burst", Duration::from_millis(10)..=LONGEST_BURST, findings));
    let share = section.get("share").map_or(Some(Decimal::ONE), |node| share(node, findings));
    Some(QuotaSetting {
        provider: provider?,
        model: model?,
        region,
        requests_per_minute: None,
        tokens_per_minute: None,
        tokens_per_day: None,
        concurrency: None,
        profile: None,
        burst: burst?,
        ramp: None,
        share: share?,
        pool: false,
        from_aws: true,
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
