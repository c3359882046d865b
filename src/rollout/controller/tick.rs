//! What a rollout does by itself: roll back, hold, advance, end.
//!
//! Invariant: rollbacks come first and nothing stops them: no window, no pause, no hold, no switch.

use super::{
    Base, Controller, OnNoData, OnUndecided, Readings, Turn,
    event::{Change, Wait},
    timers::Timers,
    waits::verdict,
};
use crate::{
    clock::{Timestamp, format_span},
    money::BasisPoints,
    rollout::gate::{OnFail, Verdict},
};

impl Controller {
    pub(super) fn tick(&self, readings: &Readings, now: Timestamp) -> Turn {
        let quiet = Turn { controller: self.clone(), transition: None };
        let live = matches!(self.base, Base::Running | Base::Paused | Base::Held);
        if readings.revision != self.revision || !live {
            return quiet;
        }
        if let Some(gate) = self.failed_gate(readings, OnFail::Rollback) {
            return self.roll_back(format!("gate `{gate}` failed: the candidate is worse than its margin allows"), now);
        }
        if self.base != Base::Running || self.switch {
            return quiet;
        }
        if let Some(gate) = self.failed_gate(readings, OnFail::Hold) {
            return self.hold(format!("gate `{gate}` failed: the candidate is worse than its margin allows"), now);
        }
        let heard = readings.jobs.saturating_add(readings.pairs);
        let mut next = self.clone();
        if heard != self.heard {
            next.heard = heard;
            next.timers.heard(now);
        }
        next.wait_or_move(readings, now)
    }

    fn wait_or_move(&self, readings: &Readings, now: Timestamp) -> Turn {
        let waits = self.waits(readings, now);
        if waits.is_empty() {
            let reason = if self.step.is_none() { "it begins" } else { "all that the step before asks for is met" };
            return self.leave_step(readings, Change::Advanced, reason.to_owned(), now);
        }
        // Before its first step a rollout waits for a window and for nothing else.
        if self.step().is_some() {
            let silence = self.timers.without_evidence(now);
            if let Some(no_data) = self.plan.no_data.filter(|no_data| silence >= no_data.after) {
                let reason = format!("no evidence came in for {}", format_span(no_data.after));
                return match no_data.act {
                    OnNoData::Hold => self.hold(reason, now),
                    OnNoData::Rollback => self.roll_back(reason, now),
                };
            }
            let lacks_evidence = |wait: &Wait| matches!(wait, Wait::Gate { .. } | Wait::Jobs(_) | Wait::Pairs(_));
            let waited = self.timers.without_verdict(now);
            if let Some(undecided) = self.plan.undecided.filter(|undecided| waited >= undecided.after)
                && waits.iter().any(lacks_evidence)
            {
                let lacking: Vec<String> =
                    waits.iter().filter(|wait| lacks_evidence(wait)).map(Wait::to_string).collect();
                let reason = format!("after {} it still lacks {}", format_span(undecided.after), lacking.join("; "));
                match undecided.act {
                    OnUndecided::Hold => return self.hold(reason, now),
                    OnUndecided::Rollback => return self.roll_back(reason, now),
                    OnUndecided::Advance if waits.iter().all(|wait| matches!(wait, Wait::Gate { .. })) => {
                        return self.leave_step(readings, Change::Advanced, reason, now);
                    }
                    OnUndecided::Advance => {}
                }
            }
        }
        Turn { controller: self.clone(), transition: None }
    }

    /// The first failed gate that acts so, unless an operator has waived it.
    fn failed_gate(&self, readings: &Readings, on_fail: OnFail) -> Option<String> {
        self.plan.gates.iter().filter(|gate| gate.on_fail == on_fail).map(super::GateSpec::name).find(|name| {
            verdict(readings, name) == Verdict::Fail && !(self.waived.contains(name) && on_fail == OnFail::Hold)
        })
    }

    /// To the next step, or to the end.
    pub(super) fn leave_step(&self, readings: &Readings, change: Change, reason: String, now: Timestamp) -> Turn {
        let to = self.step.map_or(0, |step| step + 1);
        let mut next = self.clone();
        let Some(step) = self.plan.steps.get(to) else {
            next.base = Base::Done;
            next.timers.run(false, now);
            return self.turn(next, Change::Done, format!("the last step is behind it: {reason}"), now);
        };
        next.step = Some(to);
        next.percent = step.percent;
        next.base = Base::Running;
        next.approved = false;
        let own = readings.revision == self.revision;
        (next.jobs_at_entry, next.pairs_at_entry) = if own { (readings.jobs, readings.pairs) } else { (0, 0) };
        next.heard = next.jobs_at_entry.saturating_add(next.pairs_at_entry);
        next.timers = Timers::started(now);
        let percent = step.percent;
        self.turn(next, change, format!("to {percent} (step {} of {}): {reason}", to + 1, self.plan.steps.len()), now)
    }

    pub(super) fn hold(&self, reason: String, now: Timestamp) -> Turn {
        let mut next = self.clone();
        next.base = Base::Held;
        next.timers.run(false, now);
        self.turn(next, Change::Held, reason, now)
    }

    pub(super) fn roll_back(&self, reason: String, now: Timestamp) -> Turn {
        let mut next = self.clone();
        next.base = Base::RolledBack;
        next.percent = BasisPoints::NONE;
        next.timers = Timers::standing();
        next.reject();
        self.turn(next, Change::RolledBack, reason, now)
    }
}
