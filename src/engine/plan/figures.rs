//! What moves would change in cost and latency, by what the ledger knows of both places.
//!
//! Invariant: an average of the ledger goes before a list price, and a list price is told to be one; what neither knows is
//! not told at all.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::Serialize;

use super::{
    doubts::{Doubt, Doubts},
    replay::{Found, Move, Place, Replay},
};
use crate::{
    engine::report::{
        digest::{Digest, Sums},
        savings::{ENOUGH, average, list_price, rounded},
    },
    money::{BasisPoints, Usd},
    names::{PipelineName, RolloutName},
    snapshot::Snapshot,
    spec::{Course, Target},
};

/// Distinct keys below which a split by them is a lottery.
const FEW_KEYS: usize = 2_000;

/// A pipeline that changes, or whose jobs move.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PipelineLine {
    /// Its name.
    pub pipeline: PipelineName,
    /// `added`, `removed`, `changed`, or `same` when only something around it changed.
    pub change: &'static str,
    /// Its jobs among those looked at.
    pub jobs: u64,
    /// Those that go elsewhere first.
    pub moved: u64,
    /// Those of which nothing can be said, because their prompt is gone.
    pub cannot_tell: u64,
    /// Those that stay where they are and would fall back elsewhere.
    pub fallback_changes: u64,
    /// What all moves change together, in dollars for the jobs looked at; `None` when some of it is not known.
    pub cost_change_usd: Option<Usd>,
    /// From where to where, by rule.
    pub moves: Vec<MoveLine>,
    /// Its rollouts.
    pub rollouts: Vec<RolloutLine>,
    /// What the requests that move would meet.
    pub doubts: Vec<Doubt>,
}

/// Jobs that move.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MoveLine {
    /// A target, or `held (REASON)`.
    pub from: String,
    /// A target, or `held (REASON)`.
    pub to: String,
    /// The rule that sends them there.
    pub rule: Option<String>,
    /// The rule that sent them where they go now.
    pub rule_before: Option<String>,
    /// How many.
    pub jobs: u64,
    /// What an answer costs on average where they go now.
    pub cost_before_usd: Option<Usd>,
    /// What one would cost.
    pub cost_after_usd: Option<Usd>,
    /// What the latter is taken from.
    pub basis: Basis,
    /// The difference for these jobs.
    pub cost_change_usd: Option<Usd>,
    /// Half of the answers there take no longer, in milliseconds.
    pub p50_before_ms: Option<f64>,
    /// 95 of 100 take no longer.
    pub p95_before_ms: Option<f64>,
    /// Half of the answers at the new place take no longer.
    pub p50_after_ms: Option<f64>,
    /// 95 of 100 take no longer.
    pub p95_after_ms: Option<f64>,
}

/// What a cost is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The average of answers in the ledger.
    Ledger,
    /// List prices for the tokens that the pipeline's answers consume on average.
    ListPrice,
    /// Neither is known.
    Unknown,
}

/// A rollout, as the keys of the jobs looked at see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RolloutLine {
    /// Its name.
    pub rollout: RolloutName,
    /// The candidate's share as it runs, in percent; `None` when the rollout is new.
    pub percent_before: Option<String>,
    /// The candidate's share as it would be.
    pub percent_after: String,
    /// Distinct keys.
    pub keys: usize,
    /// There are more keys than were told apart.
    pub keys_at_least: bool,
    /// Keys that go to the candidate and did not.
    pub keys_to_candidate: usize,
    /// Keys that go back to the baseline.
    pub keys_to_baseline: usize,
    /// Jobs without the key.
    pub jobs_without_key: u64,
    /// What is doubtful about it.
    pub warnings: Vec<String>,
}

/// What the ledger knows of places.
pub struct Averages<'a> {
    digest: &'a Digest,
    multiplier: Box<dyn Fn(&Target) -> Decimal + 'a>,
}

impl<'a> Averages<'a> {
    pub fn new(digest: &'a Digest, multiplier: impl Fn(&Target) -> Decimal + 'a) -> Self {
        Self { digest, multiplier: Box::new(multiplier) }
    }

    fn at(&self, pipeline: &PipelineName, target: &Target) -> Sums {
        self.digest.of(|key| key.pipeline == *pipeline && key.provider == target.provider && key.model == target.model)
    }

    fn of_pipeline(&self, pipeline: &PipelineName) -> Sums {
        self.digest.of(|key| key.pipeline == *pipeline)
    }

    /// Tokens that an answered call of a pipeline takes on average, prompt and answer.
    pub fn tokens(&self, pipeline: &PipelineName) -> Option<f64> {
        let sums = self.of_pipeline(pipeline);
        (sums.answered > 0).then(|| sums.answered_usage.total() as f64 / sums.answered as f64)
    }

    /// What an answer costs at a target.
    fn cost(&self, snapshot: &Snapshot, pipeline: &PipelineName, target: &Target) -> (Option<Usd>, Basis) {
        if let Some(each) = average(&self.at(pipeline, target)) {
            return (Some(each), Basis::Ledger);
        }
        let usual = self.of_pipeline(pipeline);
        match list_price(snapshot, target, &usual, (self.multiplier)(target)) {
            Some(each) => (Some(each), Basis::ListPrice),
            None => (None, Basis::Unknown),
        }
    }

    /// How long answers take there: for this pipeline, or for any where it has too few.
    fn times(&self, pipeline: &PipelineName, target: &Target) -> (Option<f64>, Option<f64>) {
        let own = self.at(pipeline, target);
        let sums = if own.answered >= ENOUGH {
            own
        } else {
            self.digest.of(|key| key.provider == target.provider && key.model == target.model)
        };
        if sums.answered < ENOUGH {
            return (None, None);
        }
        (sums.took.at(0.5).map(f64::round), sums.took.at(0.95).map(f64::round))
    }
}

/// A line for each pipeline that changes, or whose jobs move.
pub fn lines(replay: &Replay, averages: &Averages<'_>, mut doubts: Doubts) -> Vec<PipelineLine> {
    let (before, after) = (&replay.before.snapshot.pipelines, &replay.after.snapshot.pipelines);
    let mut names: Vec<&PipelineName> = before.keys().chain(after.keys()).chain(replay.found.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let nothing = Found::default();
    let line = |name: &PipelineName| {
        let change = match (before.get(name), after.get(name)) {
            (None, Some(_)) => "added",
            (Some(_), None) => "removed",
            (Some(old), Some(new)) if old.text != new.text => "changed",
            _ => "same",
        };
        let found = replay.found.get(name).unwrap_or(&nothing);
        let moves: Vec<MoveLine> = found
            .moves
            .iter()
            .filter(|(way, _)| way.from != way.to)
            .map(|(way, jobs)| move_line(replay, averages, name, way, *jobs))
            .collect();
        let moved = moves.iter().map(|line| line.jobs).sum();
        let differs = change != "same" || moved > 0 || found.fallback > 0;
        let total = moves.iter().try_fold(Usd::ZERO, |sum, line| Some(sum + line.cost_change_usd?));
        differs.then(|| PipelineLine {
            pipeline: name.clone(),
            change,
            jobs: found.jobs,
            moved,
            cannot_tell: found.cannot_tell,
            fallback_changes: found.fallback,
            cost_change_usd: total.map(rounded),
            moves,
            rollouts: rollouts(replay, name, found),
            doubts: doubts.remove(name).unwrap_or_default(),
        })
    };
    names.into_iter().filter_map(line).collect()
}

fn move_line(replay: &Replay, averages: &Averages<'_>, pipeline: &PipelineName, way: &Move, jobs: u64) -> MoveLine {
    let target = |side: &super::replay::Side, place: &Place| match place {
        Place::Held(_) => None,
        Place::Target(name) => {
            let spec = side.spec(pipeline)?;
            spec.target_named(name).map(|ix| spec.target(ix).clone())
        }
    };
    let (old, new) = (target(&replay.before, &way.from), target(&replay.after, &way.to));
    let cost = |snapshot: &Snapshot, target: &Target| averages.cost(snapshot, pipeline, target);
    let (cost_before, _) = old.as_ref().map_or((None, Basis::Unknown), |target| cost(&replay.before.snapshot, target));
    let (cost_after, basis) =
        new.as_ref().map_or((None, Basis::Unknown), |target| cost(&replay.after.snapshot, target));
    let (p50_before, p95_before) = old.as_ref().map_or((None, None), |target| averages.times(pipeline, target));
    let (p50_after, p95_after) = new.as_ref().map_or((None, None), |target| averages.times(pipeline, target));
    let change = cost_before.zip(cost_after).map(|(old, new)| Usd((new.0 - old.0).saturating_mul(Decimal::from(jobs))));
    let name = |place: &Place| match place {
        Place::Target(name) => name.to_string(),
        Place::Held(reason) => format!("held ({reason})"),
    };
    MoveLine {
        from: name(&way.from),
        to: name(&way.to),
        rule: way.rule.as_deref().map(str::to_owned),
        rule_before: way.rule_before.as_deref().map(str::to_owned),
        jobs,
        cost_before_usd: cost_before.map(rounded),
        cost_after_usd: cost_after.map(rounded),
        basis,
        cost_change_usd: change.map(rounded),
        p50_before_ms: p50_before,
        p95_before_ms: p95_before,
        p50_after_ms: p50_after,
        p95_after_ms: p95_after,
    }
}

fn rollouts(replay: &Replay, pipeline: &PipelineName, found: &Found) -> Vec<RolloutLine> {
    let Some(after) = replay.after.spec(pipeline) else { return Vec::new() };
    let old: BTreeMap<&RolloutName, _> = replay
        .before
        .spec(pipeline)
        .map(|spec| spec.rollouts.iter().map(|rollout| (&rollout.name, rollout)).collect())
        .unwrap_or_default();
    let none = super::replay::Keys::default();
    let line = |rollout: &crate::spec::Rollout| {
        let keys = found.rollouts.get(&rollout.name).unwrap_or(&none);
        let before = old.get(&rollout.name);
        let mut warnings = Vec::new();
        if before.is_some_and(|before| before.salt != rollout.salt || before.key.source() != rollout.key.source()) {
            warnings.push("its key or salt changes, so every key is dealt anew".to_owned());
        }
        let split = !matches!(rollout.course, Course::Percent(BasisPoints::NONE | BasisPoints::ALL));
        if split && !rollout.key.is_job_id() && !keys.seen.is_empty() && keys.seen.len() < FEW_KEYS {
            warnings.push(format!(
                "only {} distinct keys: the share of jobs may be far from {}",
                keys.seen.len(),
                rollout.course
            ));
        }
        RolloutLine {
            rollout: rollout.name.clone(),
            percent_before: before.map(|before| before.course.to_string()),
            percent_after: rollout.course.to_string(),
            keys: keys.seen.len(),
            keys_at_least: keys.more,
            keys_to_candidate: keys.to_candidate.len(),
            keys_to_baseline: keys.to_baseline.len(),
            jobs_without_key: keys.without,
            warnings,
        }
    };
    after.rollouts.iter().map(line).collect()
}
