//! How far quotas reach: the load of the busiest hour against what providers grant.
//!
//! Invariant: tokens are those that the pipeline's answers consume on average; a quota that is still being felt out has no
//! headroom that could be told.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{figures::Averages, replay::Replay};
use crate::{
    clock::Timestamp,
    engine::{Engine, health::TargetKey},
};

/// A quota, as the jobs looked at would meet it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QuotaLine {
    /// Its name.
    pub quota: String,
    /// Jobs that meet it now, and would.
    pub jobs_before: u64,
    /// Jobs that would meet it.
    pub jobs_after: u64,
    /// Requests a minute in the busiest hour, as it would be.
    pub requests_per_minute: f64,
    /// Tokens a minute in the busiest hour, where the ledger knows how many an answer takes.
    pub tokens_per_minute: Option<f64>,
    /// What is granted.
    pub granted_requests: Option<f64>,
    /// What is granted.
    pub granted_tokens: Option<f64>,
    /// The larger of both over what is granted; above 1, jobs wait. `None` where nothing is known to be granted.
    pub used: Option<f64>,
    /// The same as it is now.
    pub used_before: Option<f64>,
}

#[derive(Default)]
struct Load {
    jobs: [u64; 2],
    /// By hour: jobs, and tokens, before and after.
    hours: BTreeMap<i64, ([f64; 2], [f64; 2])>,
    tokens_known: bool,
    granted: (Option<f64>, Option<f64>),
}

impl Engine {
    /// The load on every quota that the jobs would meet.
    pub(super) fn headroom(&self, replay: &Replay, averages: &Averages<'_>, now: Timestamp) -> Vec<QuotaLine> {
        let mut quotas: BTreeMap<String, Load> = BTreeMap::new();
        let mut tokens = BTreeMap::new();
        for ((pipeline, target, hour), counts) in &replay.load {
            let each = *tokens.entry(pipeline).or_insert_with(|| averages.tokens(pipeline));
            for (side, (specs, count)) in [&replay.before, &replay.after].into_iter().zip(counts).enumerate() {
                let target = specs.spec(pipeline).and_then(|spec| Some(spec.target(spec.target_named(target)?)));
                let (Some(target), 1..) = (target, *count) else { continue };
                let (name, granted) = self.health.rates_of(&TargetKey::of(target), now);
                let load = quotas.entry(name).or_insert_with(|| Load { tokens_known: true, ..Load::default() });
                load.granted = granted;
                load.tokens_known &= each.is_some();
                let (jobs, used) = load.hours.entry(*hour).or_default();
                if let (Some(all), Some(jobs), Some(used)) =
                    (load.jobs.get_mut(side), jobs.get_mut(side), used.get_mut(side))
                {
                    *all += count;
                    *jobs += *count as f64;
                    *used += *count as f64 * each.unwrap_or(0.0);
                }
            }
        }
        let minutes = (replay.hours() * 60.0).clamp(1.0, 60.0);
        quotas.into_iter().map(|(name, load)| line(name, &load, minutes)).collect()
    }
}

fn line(quota: String, load: &Load, minutes: f64) -> QuotaLine {
    let busiest = |amounts: &mut dyn Iterator<Item = f64>| amounts.fold(0.0, f64::max) / minutes;
    let jobs = |side: usize| busiest(&mut load.hours.values().filter_map(|(jobs, _)| jobs.get(side).copied()));
    let used = |side: usize| busiest(&mut load.hours.values().filter_map(|(_, tokens)| tokens.get(side).copied()));
    let [(requests_before, requests), (tokens_before, tokens)] = [(jobs(0), jobs(1)), (used(0), used(1))];
    let part =
        |amount: f64, granted: Option<f64>| granted.filter(|granted| *granted > 0.0).map(|granted| amount / granted);
    let larger = |requests: f64, tokens: f64| {
        let by_requests = part(requests, load.granted.0);
        let by_tokens = part(tokens, load.granted.1).filter(|_| load.tokens_known);
        [by_requests, by_tokens].into_iter().flatten().reduce(f64::max).map(hundredths)
    };
    let [jobs_before, jobs_after] = load.jobs;
    QuotaLine {
        quota,
        jobs_before,
        jobs_after,
        requests_per_minute: hundredths(requests),
        tokens_per_minute: load.tokens_known.then_some(tokens.round()),
        granted_requests: load.granted.0,
        granted_tokens: load.granted.1,
        used: larger(requests, tokens),
        used_before: larger(requests_before, tokens_before),
    }
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
