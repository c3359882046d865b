//! The course of a rollout: a total function of where it stands, what happens, and the time.
//!
//! | event | running | paused | held | rolled back, aborted | done |
//! |---|---|---|---|---|---|
//! | tick: a gate failed, rolls back | rolled back | rolled back | rolled back | – | – |
//! | tick: a gate failed, holds | held | – | – | – | – |
//! | tick: the step's demands are met | next step, or done | – | – | – | – |
//! | breaker tripped | rolled back | rolled back | rolled back | – | – |
//! | promote | next step | refused | next step, the failed gate waived | refused | refused |
//! | pause | paused | – | refused | refused | refused |
//! | resume | – | running | running, the failed gate waived | refused | refused |
//! | approve | approved | approved | approved | refused | refused |
//! | abort | aborted | aborted | aborted | aborted | aborted |
//! | retry | refused | refused | refused | running, a new revision | refused |
//! | switch on, off | held, then the same step with a fresh minimum time | – | – | – | – |
//! | edited | see `edit` | | | | |
//!
//! Invariant: every change carries a reason in words and a generation one higher, for compare-and-set; abort beats promote in
//! either order; a pause, a hold and a switch stop the clocks; only [`Controller::percent`] says what routing may do. Nothing
//! here knows where the state is stored or who asks.

mod edit;
mod event;
#[cfg(test)]
mod tests;
mod tick;
mod timers;
mod waits;

pub use event::{Change, Event, Readings, Refusal, State, Transition, Turn, Wait};

pub use crate::spec::rollout::{
    Identity, InvalidPlan, InvalidWindow, MOST_GATES, MOST_STEPS, OnNoData, OnUndecided, Patience, Plan, Require, Step,
    Windows, Written,
};

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::gate::{Counting, GateSpec, OnFail, Verdict};
use crate::{clock::Timestamp, money::BasisPoints};
use timers::Timers;

/// The state without the kill switch, which lies over it and goes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Base {
    Running,
    Paused,
    Held,
    RolledBack,
    Aborted,
    Done,
}

/// A rollout on its course.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Controller {
    generation: u64,
    revision: u32,
    plan: Plan,
    base: Base,
    /// Whether a kill switch is on.
    switch: bool,
    /// The step; `None` before the first.
    step: Option<usize>,
    percent: BasisPoints,
    timers: Timers,
    /// Evidence counted so far, to hear when more comes in.
    heard: u64,
    jobs_at_entry: u64,
    pairs_at_entry: u64,
    approved: bool,
    /// Failed gates that an operator has decided to live with.
    waived: BTreeSet<String>,
    /// Jobs up to this number belong to earlier revisions.
    after: u64,
    counting: Vec<Counting>,
    /// Candidates that were rolled back.
    rejected: Vec<String>,
    reason: String,
    changed_at: Timestamp,
}

impl Controller {
    /// A new rollout, before its first step; jobs dispatched up to number `after` are no evidence.
    ///
    /// # Errors
    /// [`Refusal`] for a plan that cannot be followed.
    pub fn new(plan: Plan, after: u64, now: Timestamp) -> Result<Self, Refusal> {
        if let Some(fault) = plan.check().into_iter().next() {
            return Err(Refusal(format!("the plan cannot be followed: {fault}")));
        }
        Ok(Self {
            generation: 0,
            revision: 1,
            base: Base::Running,
            switch: false,
            step: None,
            percent: BasisPoints::NONE,
            timers: Timers::started(now),
            heard: 0,
            jobs_at_entry: 0,
            pairs_at_entry: 0,
            approved: false,
            waived: BTreeSet::new(),
            after,
            counting: edit::counting(&plan, after),
            rejected: Vec::new(),
            reason: "it is new".to_owned(),
            changed_at: now,
            plan,
        })
    }

    /// What comes of an event.
    ///
    /// # Errors
    /// [`Refusal`] when the event cannot be followed where the rollout stands; then nothing has changed.
    pub fn on(&self, event: Event<'_>, now: Timestamp) -> Result<Turn, Refusal> {
        match event {
            Event::Tick(readings) => Ok(self.tick(readings, now)),
            Event::BreakerTripped(failures) => Ok(self.tripped(failures, now)),
            Event::Promote(readings) => self.promoted(readings, now),
            Event::Pause => self.paused(now),
            Event::Resume(readings) => self.resumed(readings, now),
            Event::Approve => self.approve(now),
            Event::Abort => Ok(self.aborted(now)),
            Event::Retry(sequence) => self.retried(sequence, now),
            Event::SwitchOn => Ok(self.switched(true, now)),
            Event::SwitchOff => Ok(self.switched(false, now)),
            Event::Edited(plan, sequence) => self.edited(plan, sequence, now),
        }
    }

    fn promoted(&self, readings: &Readings, now: Timestamp) -> Result<Turn, Refusal> {
        if self.switch {
            return Err(self.refuse("promoted", "a kill switch is on; clear it first"));
        }
        if !matches!(self.base, Base::Running | Base::Held) {
            return Err(self.refuse("promoted", self.next_word()));
        }
        if self.step().is_some_and(|step| step.approval) && !self.approved {
            return Err(self.refuse("promoted", "this step asks for an approval; approve it first"));
        }
        let mut promoted = self.clone();
        promoted.waive(readings);
        let mut turn = promoted.leave_step(readings, Change::Promoted, "an operator asked for it".to_owned(), now);
        if let Some(transition) = &mut turn.transition {
            // Of the rollout as it was, not as it was prepared.
            transition.from = self.state();
        }
        Ok(turn)
    }

    fn paused(&self, now: Timestamp) -> Result<Turn, Refusal> {
        let mut next = self.clone();
        match self.base {
            Base::Running => next.base = Base::Paused,
            Base::Paused => return Ok(Turn { controller: next, transition: None }),
            _ => return Err(self.refuse("paused", self.next_word())),
        }
        next.run_timers(now);
        Ok(self.turn(next, Change::Paused, "an operator paused it".to_owned(), now))
    }

    fn resumed(&self, readings: &Readings, now: Timestamp) -> Result<Turn, Refusal> {
        let mut next = self.clone();
        let reason = match self.base {
            Base::Running if self.switch => {
                return Err(self.refuse("resumed", "a kill switch is on; it goes on when that is cleared"));
            }
            Base::Running => return Ok(Turn { controller: next, transition: None }),
            Base::Paused => "an operator resumed it".to_owned(),
            Base::Held => match next.waive(readings) {
                waived if waived.is_empty() => "an operator resumed it".to_owned(),
                waived => format!("an operator resumed it and waived {}", waived.join(", ")),
            },
            _ => return Err(self.refuse("resumed", self.next_word())),
        };
        if self.base == Base::Held {
            next.timers.be_patient(now);
        }
        next.base = Base::Running;
        next.run_timers(now);
        Ok(self.turn(next, Change::Resumed, reason, now))
    }

    fn approve(&self, now: Timestamp) -> Result<Turn, Refusal> {
        if !matches!(self.base, Base::Running | Base::Paused | Base::Held) {
            return Err(self.refuse("approved", self.next_word()));
        }
        if !self.step().is_some_and(|step| step.approval) {
            return Err(self.refuse("approved", "this step asks for no approval"));
        }
        let mut next = self.clone();
        if self.approved {
            return Ok(Turn { controller: next, transition: None });
        }
        next.approved = true;
        Ok(self.turn(next, Change::Approved, format!("an operator approved of leaving {}", self.percent), now))
    }

    fn aborted(&self, now: Timestamp) -> Turn {
        let mut next = self.clone();
        if self.base == Base::Aborted {
            return Turn { controller: next, transition: None };
        }
        next.base = Base::Aborted;
        next.percent = BasisPoints::NONE;
        next.timers = Timers::standing();
        next.reject();
        self.turn(next, Change::Aborted, "an operator aborted it: everybody goes to the baseline".to_owned(), now)
    }

    fn retried(&self, sequence: u64, now: Timestamp) -> Result<Turn, Refusal> {
        if !matches!(self.base, Base::RolledBack | Base::Aborted) {
            return Err(self.refuse("retried", "only a rollout that was rolled back or aborted begins again"));
        }
        let mut next = self.relaunched(sequence);
        next.forgive();
        next.run_timers(now);
        let reason = format!("an operator let it begin again: revision {}", next.revision);
        Ok(self.turn(next, Change::Retried, reason, now))
    }

    fn switched(&self, on: bool, now: Timestamp) -> Turn {
        let mut next = self.clone();
        if self.switch == on {
            return Turn { controller: next, transition: None };
        }
        next.switch = on;
        if !on {
            // What was seen before the switch may not hold after it: the step's minimum time begins anew.
            next.timers = Timers::standing();
        }
        next.run_timers(now);
        let (change, reason) = if on {
            (Change::SwitchedOn, "a kill switch is on: jobs dispatched meanwhile are no evidence")
        } else {
            (Change::SwitchedOff, "the kill switch is cleared: the same step, its minimum time from the beginning")
        };
        self.turn(next, change, reason.to_owned(), now)
    }

    fn tripped(&self, failures: u32, now: Timestamp) -> Turn {
        if !matches!(self.base, Base::Running | Base::Paused | Base::Held) {
            return Turn { controller: self.clone(), transition: None };
        }
        let last = self.plan.breaker.map_or_else(String::new, |rule| format!(" {}", rule.last));
        self.roll_back(format!("the breaker tripped: {failures} of the candidate's last{last} jobs failed"), now)
    }

    /// Waives the gates that have failed and hold; says which.
    fn waive(&mut self, readings: &Readings) -> Vec<String> {
        if readings.revision != self.revision {
            return Vec::new();
        }
        let failed =
            |gate: &&GateSpec| gate.on_fail == OnFail::Hold && waits::verdict(readings, &gate.name()) == Verdict::Fail;
        let names: Vec<String> = self.plan.gates.iter().filter(failed).map(GateSpec::name).collect();
        self.waived.extend(names.iter().cloned());
        names
    }

    fn run_timers(&mut self, now: Timestamp) {
        let run = self.base == Base::Running && !self.switch;
        self.timers.run(run, now);
    }

    fn turn(&self, mut next: Self, change: Change, reason: String, now: Timestamp) -> Turn {
        next.generation = self.generation.saturating_add(1);
        next.reason.clone_from(&reason);
        next.changed_at = now;
        let transition = Transition {
            change,
            from: self.state(),
            to: next.state(),
            percent_before: self.percent,
            percent_after: next.percent,
            reason,
        };
        Turn { controller: next, transition: Some(transition) }
    }

    fn refuse(&self, what: &str, why: &str) -> Refusal {
        Refusal(format!("the rollout cannot be {what}: it is {} ({}); {why}", self.state(), self.reason))
    }

    fn next_word(&self) -> &'static str {
        match self.base {
            Base::Running => "it is on its way",
            Base::Paused => "resume it first",
            Base::Held => "resume, promote or abort it",
            Base::RolledBack | Base::Aborted => "retry lets it begin again",
            Base::Done => "there is no further step",
        }
    }

    /// Counts the changes; a store writes a new state only over the generation it was made from.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Counts the launches; evidence belongs to one of them.
    pub fn revision(&self) -> u32 {
        self.revision
    }

    /// Whether it is held by a kill switch.
    pub fn is_switched(&self) -> bool {
        self.switch
    }

    /// Failed gates that an operator lives with.
    pub fn waived(&self) -> impl Iterator<Item = &str> {
        self.waived.iter().map(String::as_str)
    }

    /// The plan that it follows.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        match self.base {
            Base::Running | Base::Paused if self.switch => State::Held,
            Base::Running => State::Running,
            Base::Paused => State::Paused,
            Base::Held => State::Held,
            Base::RolledBack => State::RolledBack,
            Base::Aborted => State::Aborted,
            Base::Done => State::Done,
        }
    }

    /// The step it is in, counted from 0; `None` before the first.
    pub fn step_index(&self) -> Option<usize> {
        self.step
    }

    /// The step it is in.
    pub fn step(&self) -> Option<&Step> {
        self.step.and_then(|step| self.plan.steps.get(step))
    }

    /// The candidate's share. After a rollback or an abort, nobody's; a switch is no business of the share.
    pub fn percent(&self) -> BasisPoints {
        self.percent
    }

    /// Jobs dispatched up to this number belong to earlier revisions.
    pub fn after(&self) -> u64 {
        self.after
    }

    /// Which evidence counts for each gate.
    pub fn counting(&self) -> &[Counting] {
        &self.counting
    }

    /// Why it stands where it stands.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Since when.
    pub fn changed_at(&self) -> Timestamp {
        self.changed_at
    }
}
