//! The plan of a rollout: what its spec says.
//!
//! Invariant: [`Plan::check`] has been asked before a plan is followed; a plan that fails it is never installed.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};

use super::{gate::GateSpec, windows::Windows};
use crate::money::BasisPoints;

/// Most steps.
pub const MOST_STEPS: usize = 64;

/// Most gates.
pub const MOST_GATES: usize = 32;

/// What makes it the same rollout: a change of the first two begins a new revision, a change of the others is another rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Everything about the baseline that decides what it answers.
    pub baseline: String,
    /// Everything about the candidate that decides what it answers.
    pub candidate: String,
    /// What jobs are bucketed by.
    pub key: String,
    /// What goes into the hash before the key.
    pub salt: String,
}

/// What the gates must say before a step is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, strum::Display, strum::EnumString)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Require {
    /// All of them pass.
    #[default]
    Pass,
    /// None of them fails.
    NotFail,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The candidate's share.
    pub percent: BasisPoints,
    /// The least time in it, not counting pauses and holds.
    pub min_duration: Duration,
    /// The least jobs of the candidate that were counted in it.
    pub min_jobs: u64,
    /// The least pairs that were counted in it.
    pub min_pairs: u64,
    /// What the gates must say.
    pub require: Require,
    /// Whether an operator must approve before it is left.
    pub approval: bool,
}

/// What happens when the gates do not come to a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::Display, strum::EnumString)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum OnUndecided {
    /// Wait for an operator.
    Hold,
    /// Back to the baseline.
    Rollback,
    /// Go on, as if undecided gates had passed.
    Advance,
}

/// What happens when nothing comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::Display, strum::EnumString)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum OnNoData {
    /// Wait for an operator.
    Hold,
    /// Back to the baseline.
    Rollback,
}

/// When a breaker trips.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerRule {
    /// Among so many of the candidate's last ends; 1 to [`BreakerRule::MOST`].
    pub last: u32,
    /// So many failures.
    pub failures: u32,
}

impl BreakerRule {
    /// Most ends that are remembered.
    pub const MOST: u32 = 1_000;

    /// Whether it can trip, and not before the first failure.
    pub fn is_valid(self) -> bool {
        (1..=Self::MOST).contains(&self.last) && (1..=self.last).contains(&self.failures)
    }
}

/// How long to wait, and what then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patience<Act> {
    /// So long, not counting pauses and holds.
    pub after: Duration,
    /// Then this.
    #[serde(rename = "do")]
    pub act: Act,
}

/// What a rollout's spec says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// What makes it the same rollout.
    pub identity: Identity,
    /// Its steps, each at a higher share than the one before.
    pub steps: Vec<Step>,
    /// The chance that a sound candidate ever fails, and that a gate ever passes an unsound one.
    pub alpha: f64,
    /// Its gates.
    pub gates: Vec<GateSpec>,
    /// When a job that has not ended counts as failed.
    pub outcome_within: Duration,
    /// When the gates do not come to a verdict.
    pub undecided: Option<Patience<OnUndecided>>,
    /// When nothing comes in.
    pub no_data: Option<Patience<OnNoData>>,
    /// When so much fails that nobody needs statistics.
    pub breaker: Option<BreakerRule>,
    /// When it may advance by itself.
    pub windows: Option<Windows>,
}

/// Why a plan cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidPlan(pub String);

impl Plan {
    /// Everything that is wrong with the plan; nothing for a sound one.
    pub fn check(&self) -> Vec<InvalidPlan> {
        let mut faults = Vec::new();
        let mut fault = |text: String| faults.push(InvalidPlan(text));
        if self.steps.is_empty() || self.steps.len() > MOST_STEPS {
            fault(format!("{} steps: write 1 to {MOST_STEPS}", self.steps.len()));
        }
        for (i, pair) in self.steps.windows(2).enumerate() {
            if let [before, after] = pair
                && after.percent <= before.percent
            {
                fault(format!(
                    "step {} is at {}, not above step {} at {}: each step must raise the percentage",
                    i + 2,
                    after.percent,
                    i + 1,
                    before.percent
                ));
            }
        }
        if !(self.alpha > 0.0 && self.alpha <= 0.5) {
            fault(format!("alpha is {}: it must lie above 0 and be at most 0.5, such as 0.05", self.alpha));
        }
        if self.gates.len() > MOST_GATES {
            fault(format!("{} gates: at most {MOST_GATES} are taken", self.gates.len()));
        }
        let mut names = BTreeSet::new();
        for gate in &self.gates {
            if let Err(invalid) = gate.check() {
                fault(invalid.to_string());
            }
            if !names.insert(gate.name()) {
                fault(format!("gate `{}` is there twice: leave one out", gate.name()));
            }
        }
        if self.outcome_within.is_zero() {
            fault("outcome_within must be above zero, such as 10m".to_owned());
        }
        if self.breaker.is_some_and(|rule| !rule.is_valid()) {
            fault(format!("breaker: `last` must be 1 to {}, `failures` 1 to `last`", BreakerRule::MOST));
        }
        faults
    }

    /// The last step at or below `percent`.
    pub fn step_at(&self, percent: BasisPoints) -> Option<usize> {
        self.steps.iter().rposition(|step| step.percent <= percent)
    }
}
