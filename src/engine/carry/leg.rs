//! The first leg of a job in a rollout with steps: all attempts at its arm's target, and how that is told.
//!
//! Invariant: a leg is told to have ended once, with the write that shows it: the intent that goes to another target, or the
//! settlement that ends the job. A job that an operator, a new share or another spec takes from its arm is told as withdrawn.

use super::{Carried, Going};
use crate::{
    engine::world::Lane,
    routing::{Arm, Assignment, Decision},
    spec::{Pipeline, TargetIx, rollout::Criterion},
    store::{AttemptEnd, Ended, Next, Observed, Told},
    wire,
};

/// What is known of the leg in this carrying.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Leg {
    /// Nothing yet, or there is none.
    #[default]
    Unknown,
    /// The last call went to its arm's target.
    AtArm,
    /// It is over.
    Told,
}

/// The target of an assignment's arm, as the spec of now says.
fn target_of(spec: &Pipeline, assignment: &Assignment) -> Option<TargetIx> {
    let rollout = spec.rollouts.iter().find(|rollout| rollout.name == assignment.rollout)?;
    Some(match assignment.arm {
        Arm::Baseline => rollout.baseline,
        Arm::Candidate => rollout.candidate,
    })
}

impl Carried<'_> {
    /// What a call that goes out says of the leg.
    pub(super) fn leg_at(
        &mut self,
        lane: &Lane,
        decision: &Decision,
        going: &Going,
        assignment: Option<&Assignment>,
    ) -> Option<Told> {
        let assignment = assignment.filter(|assignment| assignment.counted.is_some() && self.leg != Leg::Told)?;
        let spec = &lane.loaded.pipeline;
        let told = |what| Some(Told { rollout: assignment.rollout.clone(), what });
        let served = decision
            .arm
            .filter(|choice| spec.rollout(choice.rollout).name == assignment.rollout)
            .is_some_and(|choice| choice.served == assignment.arm);
        let target = target_of(spec, assignment).filter(|_| served);
        let Some(target) = target else {
            self.leg = Leg::Told;
            return told(Observed::Withdrawn);
        };
        let is_called = |ix: &TargetIx| spec.target(*ix).name == going.target.name;
        let equals = spec.sharing.equivalents.get(&target);
        if is_called(&target) || equals.is_some_and(|equals| equals.iter().any(is_called)) {
            self.leg = Leg::AtArm;
            return None;
        }
        self.leg = Leg::Told;
        told(Observed::Ended(Ended { failed: true, invalid: false, micros: None, cost: None }))
    }

    /// What a settlement says of it.
    pub(super) fn leg_after(&mut self, ended: Option<&AttemptEnd>, next: &Next) -> Option<Told> {
        if self.leg == Leg::Told {
            return None;
        }
        let assignment = self.job.assignment.clone().filter(|assignment| assignment.counted.is_some())?;
        let leg = match (next, ended) {
            (Next::Succeed(completion), Some(end)) if self.leg == Leg::AtArm => {
                let started = self.job.attempts.last().map(|attempt| attempt.started_at);
                let took = started.map(|started| end.ended_at.since(started));
                Ended {
                    failed: false,
                    invalid: self.judges_output(&assignment) && wire::is_invalid(&self.body, completion),
                    micros: took.map(|took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX)),
                    cost: end.cost,
                }
            }
            (Next::Fail(_) | Next::Expire, _) => Ended { failed: true, invalid: false, micros: None, cost: None },
            _ => return None,
        };
        self.leg = Leg::Told;
        Some(Told { rollout: assignment.rollout, what: Observed::Ended(leg) })
    }

    /// The job ends for a reason that is none of its arm's: the daemon goes down, an operator interrupts, the caller hangs up.
    pub(super) fn leg_withdrawn(&mut self) -> Option<Told> {
        let assignment = self.job.assignment.as_ref().filter(|assignment| assignment.counted.is_some())?;
        let told = Told { rollout: assignment.rollout.clone(), what: Observed::Withdrawn };
        (std::mem::replace(&mut self.leg, Leg::Told) != Leg::Told).then_some(told)
    }

    /// Whether a gate of the rollout asks for valid output.
    fn judges_output(&self, assignment: &Assignment) -> bool {
        let world = self.engine.world();
        let Some(lane) = world.lane(&self.job.pipeline) else { return false };
        let rollout = lane.loaded.pipeline.rollouts.iter().find(|rollout| rollout.name == assignment.rollout);
        rollout.and_then(|rollout| rollout.gated()).is_some_and(|gated| {
            gated.plan.gates.iter().any(|gate| matches!(gate.criterion, Criterion::InvalidOutput { .. }))
        })
    }
}
