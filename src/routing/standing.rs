//! Where the rollouts of a pipeline stand now, as far as a decision asks.
//!
//! Invariant: a rollout with a percentage in its file stands where the file says; one with steps where its state says, and
//! without any state nobody is with the candidate.

use crate::{
    money::BasisPoints,
    spec::{Course, Pipeline, Rollout, RolloutIx},
};

/// One rollout with steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// The candidate's share.
    pub percent: BasisPoints,
    /// Which of its launches this is; 0 for none.
    pub revision: u32,
    /// Whether what is dispatched now is evidence.
    pub counts: bool,
}

/// The rollouts of one pipeline, by place. Beyond its end, nothing is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standings(Vec<Standing>);

impl Standings {
    /// Of a pipeline, as `of` knows each of its rollouts with steps.
    pub fn of(pipeline: &Pipeline, mut of: impl FnMut(&Rollout) -> Option<Standing>) -> Self {
        if pipeline.rollouts.iter().all(|rollout| rollout.gated().is_none()) {
            return Self::default();
        }
        let mut standing = |rollout: &Rollout| rollout.gated().and_then(|_| of(rollout)).unwrap_or_default();
        Self(pipeline.rollouts.iter().map(&mut standing).collect())
    }

    /// The rollout at `ix`, if it has steps.
    pub fn get(&self, ix: RolloutIx) -> Standing {
        self.0.get(usize::from(ix.0)).copied().unwrap_or_default()
    }

    /// The candidate's share.
    pub fn percent(&self, pipeline: &Pipeline, ix: RolloutIx) -> BasisPoints {
        match pipeline.rollout(ix).course {
            Course::Percent(percent) => percent,
            Course::Steps(_) => self.get(ix).percent,
        }
    }
}
