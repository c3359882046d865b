//! A spec that is saved in the middle of a rollout.
//!
//! | what changed | what follows |
//! |---|---|
//! | nothing | nothing |
//! | key or salt | refused: other jobs would be the candidate's. Another name makes another rollout |
//! | a target | a new revision, from before the first step, without evidence; rolled back if that candidate already was |
//! | steps | the percentage stays; the place is the last step not above it |
//! | a margin | that gate's evidence begins anew |
//! | alpha, `outcome_within`, a gate that is added | all evidence begins anew: all thresholds depend on them |
//! | anything else | it is followed from now on |
//!
//! Invariant: reading a file again never moves a rolled-back or aborted rollout; only an operator or another target does.

use std::collections::BTreeSet;

use super::{Base, Controller, Plan, Refusal, Turn, event::Change, timers::Timers};
use crate::{clock::Timestamp, money::BasisPoints, rollout::gate::Counting};

/// Most candidates that a rollout remembers as rolled back.
const MOST_REJECTED: usize = 32;

impl Controller {
    pub(super) fn edited(&self, plan: &Plan, sequence: u64, now: Timestamp) -> Result<Turn, Refusal> {
        if *plan == self.plan {
            return Ok(Turn { controller: self.clone(), transition: None });
        }
        if let Some(fault) = plan.check().into_iter().next() {
            return Err(Refusal(format!("the new plan cannot be followed: {fault}")));
        }
        let (old, new) = (&self.plan.identity, &plan.identity);
        for (what, before, after) in [("key", &old.key, &new.key), ("salt", &old.salt, &new.salt)] {
            if before != after {
                return Err(Refusal(format!(
                    "the rollout's {what} was changed from {before:?} to {after:?}: that would swap the candidate's jobs for \
                     others in the middle of the rollout. Give the rollout another name, or change the {what} back"
                )));
            }
        }
        if old.baseline != new.baseline || old.candidate != new.candidate {
            return Ok(self.revised(plan, sequence, now));
        }
        let mut next = self.clone();
        next.plan = plan.clone();
        let mut words = Vec::new();
        next.recount(&self.plan, sequence, &mut words);
        if plan.steps != self.plan.steps {
            next.replace(&mut words);
        }
        if words.is_empty() {
            words.push("it follows the new plan".to_owned());
        }
        next.run_timers(now);
        Ok(self.turn(next, Change::Edited, format!("the spec was saved: {}", words.join("; ")), now))
    }

    /// Other targets: everything begins again.
    fn revised(&self, plan: &Plan, sequence: u64, now: Timestamp) -> Turn {
        let mut next = self.relaunched(sequence);
        next.plan = plan.clone();
        next.counting = counting(plan, sequence);
        let known = next.rejected.contains(&target_of(plan));
        let reason = if known {
            next.base = Base::RolledBack;
            format!(
                "the spec names candidate {}, which was rolled back before: `rollout retry` launches it again",
                plan.identity.candidate
            )
        } else {
            format!("the spec names other targets: revision {} begins before its first step", next.revision)
        };
        next.run_timers(now);
        self.turn(next, Change::Revised, reason, now)
    }

    /// The same plan in a new revision, before its first step, without evidence up to `sequence`.
    pub(super) fn relaunched(&self, sequence: u64) -> Self {
        Self {
            revision: self.revision.saturating_add(1),
            base: Base::Running,
            step: None,
            percent: BasisPoints::NONE,
            approved: false,
            waived: BTreeSet::new(),
            after: sequence,
            counting: counting(&self.plan, sequence),
            timers: Timers::standing(),
            jobs_at_entry: 0,
            pairs_at_entry: 0,
            heard: 0,
            ..self.clone()
        }
    }

    /// Which evidence counts on under the new plan.
    fn recount(&mut self, old: &Plan, sequence: u64, words: &mut Vec<String>) {
        let (before, fresh) = (std::mem::take(&mut self.counting), counting(&self.plan, sequence));
        let added = self.plan.gates.iter().any(|gate| !old.gates.iter().any(|known| known.name() == gate.name()));
        let all =
            added || self.plan.alpha.to_bits() != old.alpha.to_bits() || self.plan.outcome_within != old.outcome_within;
        let mut anew = Vec::new();
        for counting in fresh {
            let known = before.iter().find(|known| known.criterion == counting.criterion).filter(|_| !all);
            if known.is_none() {
                anew.push(counting.criterion.to_string());
            }
            self.counting.push(known.cloned().unwrap_or(counting));
        }
        self.waived.retain(|name| !anew.contains(name) && self.plan.gates.iter().any(|gate| gate.name() == *name));
        if !anew.is_empty() {
            words.push(format!("the evidence of {} begins anew", anew.join(", ")));
        }
    }

    /// The place among new steps: the last one not above the percentage, which stays.
    fn replace(&mut self, words: &mut Vec<String>) {
        if matches!(self.base, Base::RolledBack | Base::Aborted) {
            self.step = None;
            return;
        }
        if self.step.is_none() {
            return;
        }
        self.step = self.plan.step_at(self.percent);
        self.approved = false;
        let last = self.step.is_some_and(|step| step + 1 == self.plan.steps.len());
        if self.base == Base::Done && !last {
            self.base = Base::Running;
        }
        words.push(match self.step {
            Some(step) => format!("it stays at {}, now step {} of {}", self.percent, step + 1, self.plan.steps.len()),
            None => format!("it stays at {}, below its first step", self.percent),
        });
    }

    /// Remembers that the present candidate was rolled back.
    pub(super) fn reject(&mut self) {
        let target = target_of(&self.plan);
        self.rejected.retain(|known| *known != target);
        self.rejected.push(target);
        if self.rejected.len() > MOST_REJECTED {
            self.rejected.remove(0);
        }
    }

    /// Forgets it again.
    pub(super) fn forgive(&mut self) {
        let target = target_of(&self.plan);
        self.rejected.retain(|known| *known != target);
    }
}

fn target_of(plan: &Plan) -> String {
    plan.identity.candidate.clone()
}

/// Every gate of a plan, counting jobs after `sequence`.
pub(super) fn counting(plan: &Plan, sequence: u64) -> Vec<Counting> {
    let gates = u32::try_from(plan.gates.len()).unwrap_or(u32::MAX);
    plan.gates
        .iter()
        .map(|gate| Counting { criterion: gate.criterion.clone(), after: sequence, alpha: plan.alpha, gates })
        .collect()
}
