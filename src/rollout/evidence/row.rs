//! Rows of the ledger, as far as they are evidence.
//!
//! Invariant: a row's place is fixed when its job is first dispatched; what is learned later never moves it.
//!
//! No evidence, and so never handed in: jobs without the rollout's key, confined jobs, and jobs first dispatched while a
//! switch was on.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{clock::Timestamp, ids::JobId, money::BasisPoints};

/// Which of a rollout's two a job fell to at its first dispatch. Evidence stays with this arm, whoever served the job in
/// the end.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Arm {
    /// Where everybody was.
    Baseline,
    /// Where everybody is to go.
    Candidate,
}

/// A row's place: the order of first dispatches, the job's id where two have the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Given at the first dispatch and never lower than one given before; a time in microseconds will do.
    pub sequence: u64,
    /// The job.
    pub job: JobId,
}

/// How the first leg of a job ended: all attempts at its arm's target.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// When.
    pub at: Timestamp,
    /// Whether it failed: no answer, an open breaker included. A fallback's rescue changes nothing.
    pub failed: bool,
    /// Whether an answer came whose JSON or tool arguments do not validate.
    pub invalid: bool,
    /// How long the answer took, if one came.
    pub latency: Option<Duration>,
    /// What the leg cost in dollars, if that is known.
    pub cost: Option<f64>,
}

/// A first leg, ended or not.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Leg {
    /// When it was dispatched.
    pub dispatched_at: Timestamp,
    /// How it ended, if that is known.
    pub end: Option<End>,
}

/// One job of the split.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Its place.
    pub place: Place,
    /// The arm it fell to.
    pub arm: Arm,
    /// The candidate's share when it was dispatched.
    pub share: BasisPoints,
    /// What became of it.
    pub leg: Leg,
    /// Whether it was taken from its arm before that was known, by an operator or another spec: then it is no evidence.
    pub dropped: bool,
}

/// One job that both served: the baseline for its owner, the candidate in the shadow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// Its place.
    pub place: Place,
    /// The candidate's share when it was dispatched.
    pub share: BasisPoints,
    /// The baseline's leg.
    pub baseline: Leg,
    /// The shadow's.
    pub candidate: Leg,
    /// Whether the shadow was given up for lack of budget or quota: then the pair is no evidence.
    pub dropped: bool,
    /// Whether the two answers agree, by JSON pointer; empty while one is missing.
    pub agreement: BTreeMap<String, bool>,
}

/// A number that a user posted for a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Its place among the scores: the order of posting. Of several posts for one job and name the first counts.
    pub posted: Place,
    /// The number that the job had at its first dispatch.
    pub sequence: u64,
    /// What is scored.
    pub name: String,
    /// The job's arm.
    pub arm: Arm,
    /// The candidate's share when the job was dispatched.
    pub share: BasisPoints,
    /// The score.
    pub value: f64,
}

/// What is known about latency.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Latency {
    /// It took so long.
    Took(Duration),
    /// Longer than `outcome_within`.
    Beyond(Duration),
    /// It failed, fast or slowly: a failure's time is no latency.
    Unknown,
}

/// A leg that can be counted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counted {
    /// Failed, or too late.
    pub failed: bool,
    /// Answered, but not validly.
    pub invalid: bool,
    /// How long it took.
    pub latency: Latency,
    /// What it cost in dollars: finite and not negative.
    pub cost: Option<f64>,
}

impl Leg {
    /// The leg as it counts, or `None` while that is open. `within` is how long it may take; every end up to `known_until` is
    /// known. A leg that ended later than `within` counts as one that never ended, so that it does not matter when it is
    /// looked at.
    pub fn counted(&self, within: Duration, known_until: Timestamp) -> Option<Counted> {
        let latest = self.dispatched_at + within;
        match self.end.filter(|end| end.at <= latest) {
            Some(end) => Some(Counted {
                failed: end.failed,
                invalid: end.invalid && !end.failed,
                latency: match end.latency {
                    Some(latency) if !end.failed => Latency::Took(latency),
                    _ => Latency::Unknown,
                },
                cost: end.cost.filter(|cost| cost.is_finite() && *cost >= 0.0),
            }),
            None if self.end.is_some() || known_until > latest => {
                Some(Counted { failed: true, invalid: false, latency: Latency::Beyond(within), cost: None })
            }
            None => None,
        }
    }

    /// Takes over what another copy of the same row knows; of two ends the earlier counts, of two at once the failure.
    fn learn(&mut self, other: &Self) {
        self.dispatched_at = self.dispatched_at.min(other.dispatched_at);
        self.end = match (self.end, other.end) {
            (Some(a), Some(b)) => Some(if (b.at, !b.failed) < (a.at, !a.failed) { b } else { a }),
            (a, b) => a.or(b),
        };
    }
}

/// What an ordered stream needs to know of its rows.
pub trait Row {
    /// The row's place.
    fn place(&self) -> Place;
    /// Takes over what another copy of the same row knows, in any order of copies.
    fn learn(&mut self, other: Self);
}

impl Row for Outcome {
    fn place(&self) -> Place {
        self.place
    }

    fn learn(&mut self, other: Self) {
        self.leg.learn(&other.leg);
        self.dropped |= other.dropped;
    }
}

impl Row for Pair {
    fn place(&self) -> Place {
        self.place
    }

    fn learn(&mut self, other: Self) {
        self.baseline.learn(&other.baseline);
        self.candidate.learn(&other.candidate);
        self.dropped |= other.dropped;
        for (pointer, agrees) in other.agreement {
            self.agreement.entry(pointer).and_modify(|known| *known &= agrees).or_insert(agrees);
        }
    }
}

impl Row for Score {
    fn place(&self) -> Place {
        self.posted
    }

    fn learn(&mut self, _other: Self) {}
}
