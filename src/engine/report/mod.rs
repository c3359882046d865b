//! What a migration came to, from the ledger: response times, errors, cost, savings, by provider, target and pipeline.
//!
//! Invariant: every figure is of ended calls as the ledger has them; what is estimated says so. Reports come one after
//! another, and leave room for work between two pages.

pub mod digest;
pub mod quantiles;
pub mod savings;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rust_decimal::Decimal;
use serde::Serialize;
use tokio::sync::Semaphore;

use self::{
    digest::{Digest, Sums},
    quantiles::Quantiles,
    savings::{Saving, rounded, savings},
};
use super::Engine;
use crate::{
    clock::Timestamp,
    job::{Fault, State},
    money::Usd,
    names::{PipelineName, ProviderName},
    store::{LedgerQuery, StoreError, TrafficKey},
    usage::Usage,
};

/// Looks back that are under way at once: each takes a reader of the store for a while.
pub(super) static LOOKING_BACK: Semaphore = Semaphore::const_new(1);

/// Calls read at once: some milliseconds of work.
const PAGE: u32 = 4_000;

/// What lines may be grouped by besides provider, target and pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByLabel(pub String);

/// A report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// From then.
    pub since: Timestamp,
    /// Until then.
    pub until: Timestamp,
    /// All calls together.
    pub total: Figures,
    /// By provider.
    pub providers: Vec<Line>,
    /// By target of a pipeline.
    pub targets: Vec<Line>,
    /// By pipeline, with how its jobs ended.
    pub pipelines: Vec<Line>,
    /// By the value of a label, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<Line>>,
    /// What leaving the baseline saved.
    pub savings: Vec<Saving>,
    /// Over time.
    pub series: Series,
    /// Percentiles are off by at most this part of themselves.
    pub percentile_error: f64,
    /// What should be known about the figures.
    pub notes: Vec<String>,
}

/// A line of a report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// What it is about: a provider, `PIPELINE/TARGET`, a pipeline, a label's value.
    pub name: String,
    /// The model, where the line is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// How jobs ended that are kept, by state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jobs: Option<BTreeMap<State, u64>>,
    /// The figures.
    pub figures: Figures,
}

/// What calls came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// Ended calls.
    pub calls: u64,
    /// Answered ones.
    pub answered: u64,
    /// Those that failed, by fault.
    pub faults: BTreeMap<&'static str, u64>,
    /// Failed calls over all but those that we interrupted.
    pub error_rate: Option<f64>,
    /// Answered calls over those and the ones that failed by the provider's or the network's doing: throttles, and
    /// requests that were refused for what they are, do not count.
    pub availability: Option<f64>,
    /// Milliseconds that answered calls took.
    pub response_ms: Option<Percentiles>,
    /// Milliseconds to the first piece of streamed answers.
    pub first_token_ms: Option<Percentiles>,
    /// How good the estimate of prompts was.
    pub estimate: Option<Estimate>,
    /// Prompt and answer over the model's window.
    pub window: Option<Percentiles>,
    /// Tokens, as reported.
    pub usage: Usage,
    /// What was paid, as far as known.
    pub cost_usd: Usd,
    /// What an answer cost on average.
    pub cost_per_answer_usd: Option<Usd>,
    /// Answers without a known cost.
    pub unpriced: u64,
    /// Calls that may have been billed without an answer.
    pub possibly_billed: u64,
    /// The most that those may have cost.
    pub possible_cost_usd: Usd,
    /// Those of which not even that is known.
    pub possible_cost_unknown: u64,
    /// Jobs that were answered here after another target had been tried.
    pub rescued: u64,
}

/// The middle, and the slow end.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentiles {
    /// Half are not above.
    pub p50: f64,
    /// 95 of 100 are not above.
    pub p95: f64,
    /// 99 of 100 are not above.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

/// The estimate of prompts over what providers reported.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// Calls of which both are known.
    pub calls: u64,
    /// The ratio in the middle: 1 is exact.
    pub p50: f64,
    /// 95 of 100 are not above.
    pub p95: f64,
    /// Calls whose prompt was larger than the estimate.
    pub too_low: u64,
}

/// Figures over time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Series {
    /// Seconds that a point stands for.
    pub step_seconds: i64,
    /// By time, then by provider.
    pub points: Vec<Point>,
}

/// A provider in a slot of time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// When it begins.
    pub at: Timestamp,
    /// The provider.
    pub provider: ProviderName,
    /// Ended calls.
    pub calls: u64,
    /// Answered ones.
    pub answered: u64,
    /// What was paid.
    pub cost_usd: Usd,
    /// Half of the answers took no longer.
    pub p50_ms: Option<f64>,
    /// 95 of 100 took no longer.
    pub p95_ms: Option<f64>,
}

impl Engine {
    /// What the ledger says since a moment, of these pipelines (`None` is all).
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub async fn digest(
        &self,
        since: Timestamp,
        within: Option<&BTreeSet<PipelineName>>,
    ) -> Result<Digest, StoreError> {
        let world = self.world();
        let snapshot = &world.snapshot;
        let window = |key: &TrafficKey| {
            let api = snapshot.providers.get(&key.provider)?.api;
            snapshot.catalog.find(api, &key.model)?.context_window
        };
        let wanted = |pipeline: &PipelineName| within.is_none_or(|within| within.contains(pipeline));
        let mut digest = Digest::new(since, self.now());
        let mut query = LedgerQuery { since, after: None, limit: PAGE };
        loop {
            let page = self.store.ledger(query).await?;
            digest.add(&page, window, wanted);
            let Some(next) = page.next else { return Ok(digest) };
            query.after = Some(next);
            tokio::task::yield_now().await;
        }
    }

    /// The report since a moment, of these pipelines (`None` is all).
    ///
    /// # Errors
    /// [`StoreError`] when the ledger cannot be read.
    pub async fn report(
        &self,
        since: Timestamp,
        within: Option<&BTreeSet<PipelineName>>,
        by: Option<&ByLabel>,
    ) -> Result<Report, StoreError> {
        let _alone = LOOKING_BACK.acquire().await;
        let until = self.now();
        let digest = self.digest(since, within).await?;
        let mut ends: BTreeMap<PipelineName, BTreeMap<State, u64>> = BTreeMap::new();
        for ((pipeline, state), count) in self.store.ends(since).await? {
            if within.is_none_or(|within| within.contains(&pipeline)) {
                ends.entry(pipeline).or_default().insert(state, count);
            }
        }
        let world = self.world();
        let multiplier = |target: &crate::spec::Target| self.multiplier(&target.provider);
        let (saved, without) = savings(&digest, &world.snapshot, multiplier);
        let saved = saved.into_iter().filter(|saving| within.is_none_or(|within| within.contains(&saving.pipeline)));
        let labels = by.map(|ByLabel(label)| {
            let value_of = |key: &TrafficKey| {
                let spec = &world.snapshot.pipelines.get(&key.pipeline)?.pipeline;
                spec.labels.get(label).cloned()
            };
            grouped(&digest, |key| value_of(key).unwrap_or_else(|| "(none)".to_owned()))
        });
        let mut pipelines = grouped(&digest, |key| key.pipeline.to_string());
        for line in &mut pipelines {
            line.jobs = PipelineName::new(&line.name).ok().and_then(|name| ends.remove(&name));
        }
        for (name, jobs) in ends {
            let figures = Figures::of(&Sums::default());
            pipelines.push(Line { name: name.to_string(), model: None, jobs: Some(jobs), figures });
        }
        pipelines.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Report {
            since,
            until,
            total: Figures::of(&digest.of(|_| true)),
            providers: grouped(&digest, |key| key.provider.to_string()),
            targets: targets(&digest),
            pipelines,
            labels,
            savings: saved.collect(),
            series: series(&digest),
            percentile_error: quantiles::ERROR,
            notes: notes(&digest, &without),
        })
    }
}

fn grouped(digest: &Digest, name: impl Fn(&TrafficKey) -> String) -> Vec<Line> {
    let mut groups: BTreeMap<String, Sums> = BTreeMap::new();
    for (key, sums) in &digest.places {
        groups.entry(name(key)).or_default().merge(sums);
    }
    groups.into_iter().map(|(name, sums)| Line { name, model: None, jobs: None, figures: Figures::of(&sums) }).collect()
}

fn targets(digest: &Digest) -> Vec<Line> {
    let line = |(key, sums): (&TrafficKey, &Sums)| Line {
        name: format!("{}/{}", key.pipeline, key.target),
        model: Some(key.model.clone()),
        jobs: None,
        figures: Figures::of(sums),
    };
    digest.places.iter().map(line).collect()
}

fn series(digest: &Digest) -> Series {
    let point = |((slot, provider), point): (&(i64, ProviderName), &digest::Point)| Point {
        at: Timestamp::from_micros(slot.saturating_mul(digest.slot)),
        provider: provider.clone(),
        calls: point.calls,
        answered: point.answered,
        cost_usd: rounded(point.cost),
        p50_ms: point.took.at(0.5).map(short),
        p95_ms: point.took.at(0.95).map(short),
    };
    Series { step_seconds: digest.slot / 1_000_000, points: digest.slots.iter().map(point).collect() }
}

fn notes(digest: &Digest, without: &[PipelineName]) -> Vec<String> {
    let mut notes = Vec::new();
    if !without.is_empty() {
        let names: Vec<&str> = without.iter().take(20).map(PipelineName::as_str).collect();
        let more = without.len().saturating_sub(names.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        notes.push(format!(
            "no savings are told of {}{more}: no rollout says what the baseline is, or several disagree",
            names.join(", ")
        ));
    }
    if digest.left_out > 0 {
        notes.push(format!("{} calls to too many different targets are left out", digest.left_out));
    }
    notes
}

impl Figures {
    /// Of sums.
    pub fn of(sums: &Sums) -> Self {
        let interrupted = sums.by(Fault::Interrupted);
        let failed: u64 = sums.faults.values().sum::<u64>() - interrupted;
        let theirs = [Fault::Transient, Fault::Unavailable, Fault::Misconfigured, Fault::Unknown];
        let down: u64 = theirs.into_iter().map(|fault| sums.by(fault)).sum();
        let part = |some: u64, all: u64| (all > 0).then(|| some as f64 / all as f64);
        Self {
            calls: sums.calls,
            answered: sums.answered,
            faults: sums.faults.clone(),
            error_rate: part(failed, sums.calls.saturating_sub(interrupted)),
            availability: part(sums.answered, sums.answered + down),
            response_ms: Percentiles::of(&sums.took),
            first_token_ms: Percentiles::of(&sums.first_token),
            estimate: sums.estimate.at(0.5).zip(sums.estimate.at(0.95)).map(|(p50, p95)| Estimate {
                calls: sums.estimate.count(),
                p50: short(p50),
                p95: short(p95),
                too_low: sums.underestimated,
            }),
            window: Percentiles::of(&sums.window),
            usage: sums.usage,
            cost_usd: rounded(sums.cost),
            cost_per_answer_usd: (sums.priced() > 0)
                .then(|| rounded(Usd(sums.answered_cost.0 / Decimal::from(sums.priced())))),
            unpriced: sums.unpriced,
            possibly_billed: sums.possibly_billed,
            possible_cost_usd: rounded(sums.possible_cost),
            possible_cost_unknown: sums.unbounded,
            rescued: sums.rescued,
        }
    }
}

impl Percentiles {
    fn of(values: &Quantiles) -> Option<Self> {
        let at = |part| values.at(part).map(short);
        Some(Self { p50: at(0.5)?, p95: at(0.95)?, p99: at(0.99)?, max: values.most().map(short)? })
    }
}

/// A number to four digits: there are no more in it.
fn short(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 0.0;
    }
    #[expect(clippy::cast_possible_truncation, reason = "the logarithm of a float is between -324 and 309")]
    let digits = 3 - value.log10().floor() as i32;
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

/// Without a span, a report goes back this far.
pub const DEFAULT_SPAN: Duration = Duration::from_hours(7 * 24);
