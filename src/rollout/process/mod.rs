//! What can be concluded from outcomes, looked at after every one of them.
//!
//! An *e-process* E starts at 1 and, while the hypothesis it bets against is true, is not expected to grow, whatever has
//! been seen. By Ville's inequality the chance that it *ever* reaches 1/α is then at most α; so it may be read at any
//! moment and as often as one likes. Every gate runs two: one bets against "no worse than the margin allows" and says
//! fail, one bets against "worse than the margin allows, or just at it" and says pass.
//!
//! | file | for | exact? |
//! |---|---|---|
//! | [`block`] | rates of two arms, side by side | yes |
//! | [`proportion`] | which arm a failure hit; agreement; pairs that differ; the sample ratio | yes |
//! | [`betting`] | bounded numbers: pairs, scores | yes |
//! | [`mean`] | unbounded numbers: log latency, capped cost | asymptotically |
//! | [`quantile`] | p50, p95, p99 of two arms | yes |
//! | [`restart`] | regressions that begin late | as exact as what it restarts |
//!
//! Invariant: all of it is kept as logarithms; no finite input makes a number that is not one. Nothing here knows jobs,
//! providers or steps.

pub mod betting;
pub mod block;
pub mod mean;
pub mod proportion;
pub mod quantile;
pub mod restart;
#[cfg(test)]
pub(in crate::rollout) mod simulation;

pub use betting::Betting;
pub use block::BlockTest;
pub use mean::MeanSequence;
pub use proportion::Proportion;
pub use quantile::{QuantileSequence, Ranks};
pub use restart::Restarted;

use serde::{Deserialize, Serialize};

pub use crate::spec::rollout::Margin;

/// Which of the two conclusions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Side {
    /// The candidate is worse than the margin allows.
    Fail,
    /// It is not.
    Pass,
}

/// The error rates of a gate's two conclusions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Levels {
    /// The chance of ever failing a candidate that is within the margin: α/K, with K gates that can fail.
    pub fail: f64,
    /// The chance of ever passing one that is not: α, because all gates must pass.
    pub pass: f64,
}

impl Levels {
    /// The levels of one of `gates` gates at the rollout's `alpha`.
    pub fn new(alpha: f64, gates: u32) -> Self {
        let alpha = if alpha.is_finite() { alpha.clamp(1e-9, 0.5) } else { 0.05 };
        Self { fail: alpha / f64::from(gates.max(1)), pass: alpha }
    }

    /// The error rate of one side.
    pub fn of(self, side: Side) -> f64 {
        match side {
            Side::Fail => self.fail,
            Side::Pass => self.pass,
        }
    }

    /// What ln E must reach on one side.
    pub fn ln_threshold(self, side: Side) -> f64 {
        -self.of(side).ln()
    }
}

/// Where a process is heading if what was seen so far is what is true.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drift {
    /// The conclusion it is heading for.
    pub side: Side,
    /// The expected growth of ln E, an observation; above zero.
    pub rate: f64,
}

/// A pair of e-processes fed with the same observations.
pub trait EProcess: Clone {
    /// The same test before any observation.
    fn fresh(&self) -> Self;
    /// ln E of one side.
    fn ln_e(&self, side: Side) -> f64;
    /// Where it is heading; `None` when nothing was seen or the figures lie on the margin.
    fn drift(&self) -> Option<Drift>;
}
