//! What leaving the baseline saved: what answers cost elsewhere, against what they would have cost there.
//!
//! Invariant: where the ledger knows what the baseline's answers cost on average, that is what counts (so a baseline that
//! is bought at a discount, or in batches, is compared at what it really cost); list prices are used only where it does
//! not, and are told apart.

use rust_decimal::Decimal;
use serde::Serialize;

use super::digest::{Digest, Sums};
use crate::{
    catalog::Tier,
    money::Usd,
    names::{PipelineName, TargetName},
    snapshot::Snapshot,
    spec::{Pipeline, Target},
    usage::Usage,
};

/// Answers with a known cost that make an average worth something.
pub const ENOUGH: u64 = 30;

/// What the baseline's cost is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The average cost of answers in the ledger.
    Ledger,
    /// List prices, times the settings' multiplier, for the same tokens.
    ListPrice,
    /// Neither is known.
    Unknown,
}

/// What a pipeline saved.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Saving {
    /// The pipeline.
    pub pipeline: PipelineName,
    /// The rollouts' baseline.
    pub baseline: TargetName,
    /// Jobs answered elsewhere, at a known cost.
    pub jobs: u64,
    /// What they cost.
    pub cost_usd: Usd,
    /// What they would have cost at the baseline.
    pub at_baseline_usd: Option<Usd>,
    /// The difference; below zero when it was dearer.
    pub saved_usd: Option<Usd>,
    /// What the baseline's cost is taken from.
    pub basis: Basis,
}

/// What an answer costs on average, where enough of them say so.
pub fn average(sums: &Sums) -> Option<Usd> {
    (sums.priced() >= ENOUGH).then(|| Usd(sums.answered_cost.0 / Decimal::from(sums.priced())))
}

/// What one answer of average size costs at a target by the price list.
pub fn list_price(snapshot: &Snapshot, target: &Target, sums: &Sums, multiplier: Decimal) -> Option<Usd> {
    let each = |tokens: u64| tokens / sums.answered.max(1);
    let usage = &sums.answered_usage;
    let usage = Usage {
        input: each(usage.input),
        output: each(usage.output),
        cache_read: each(usage.cache_read),
        cache_write: each(usage.cache_write),
        reasoning: each(usage.reasoning),
    };
    (sums.answered > 0)
        .then(|| snapshot.catalog.cost(target.api, &target.model, &usage, Tier::Standard, multiplier))
        .flatten()
}

/// The one target that all rollouts of a pipeline start from.
fn baseline(spec: &Pipeline) -> Option<&Target> {
    let first = spec.rollouts.first()?.baseline;
    spec.rollouts.iter().all(|rollout| rollout.baseline == first).then(|| &**spec.target(first))
}

/// What each pipeline saved that has a baseline; the names of those that have none.
pub fn savings(
    digest: &Digest,
    snapshot: &Snapshot,
    multiplier: impl Fn(&Target) -> Decimal,
) -> (Vec<Saving>, Vec<PipelineName>) {
    let (mut savings, mut without) = (Vec::new(), Vec::new());
    for (name, loaded) in &snapshot.pipelines {
        let moved_from = |target: &TargetName| digest.of(|key| key.pipeline == *name && key.target != *target);
        let Some(baseline) = baseline(&loaded.pipeline) else {
            if digest.places.keys().any(|key| key.pipeline == *name) {
                without.push(name.clone());
            }
            continue;
        };
        let elsewhere = moved_from(&baseline.name);
        if elsewhere.priced() == 0 {
            continue;
        }
        let at_home =
            digest.of(|key| key.pipeline == *name && key.target == baseline.name && key.model == baseline.model);
        let (each, basis) = match average(&at_home) {
            Some(each) => (Some(each), Basis::Ledger),
            None => match list_price(snapshot, baseline, &elsewhere, multiplier(baseline)) {
                Some(each) => (Some(each), Basis::ListPrice),
                None => (None, Basis::Unknown),
            },
        };
        let at_baseline = each.map(|each| Usd(each.0.saturating_mul(Decimal::from(elsewhere.priced()))));
        savings.push(Saving {
            pipeline: name.clone(),
            baseline: baseline.name.clone(),
            jobs: elsewhere.priced(),
            cost_usd: rounded(elsewhere.answered_cost),
            at_baseline_usd: at_baseline.map(rounded),
            saved_usd: at_baseline.map(|there| rounded(Usd(there.0 - elsewhere.answered_cost.0))),
            basis,
        });
    }
    (savings, without)
}

/// To the ten-thousandth of a cent, which is more than anybody reads.
pub fn rounded(amount: Usd) -> Usd {
    Usd(amount.0.round_dp(6).normalize())
}
