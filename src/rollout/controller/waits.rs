//! What a rollout waits for, in words.

use std::fmt;

use super::{Controller, Plan, Readings, Require, State, event::Wait};
use crate::{
    clock::{Timestamp, format_span},
    money::BasisPoints,
    rollout::gate::{GateSpec, Outlook, Unit, Verdict},
};

impl Controller {
    /// What is still missing before the step is left by itself; nothing when it can be left now. Only meaningful while the
    /// rollout runs.
    pub fn waits(&self, readings: &Readings, now: Timestamp) -> Vec<Wait> {
        let mut waits = Vec::new();
        if let Some(step) = self.step() {
            let left = step.min_duration.saturating_sub(self.timers.in_step(now));
            if !left.is_zero() {
                waits.push(Wait::Time(left));
            }
            let jobs = step.min_jobs.saturating_sub(readings.jobs.saturating_sub(self.jobs_at_entry));
            if jobs > 0 {
                waits.push(Wait::Jobs(jobs));
            }
            let pairs = step.min_pairs.saturating_sub(readings.pairs.saturating_sub(self.pairs_at_entry));
            if pairs > 0 {
                waits.push(Wait::Pairs(pairs));
            }
            for gate in applicable(&self.plan, step.percent) {
                let name = gate.name();
                let verdict = verdict(readings, &name);
                let satisfied = match step.require {
                    Require::Pass => verdict == Verdict::Pass,
                    Require::NotFail => verdict != Verdict::Fail,
                };
                if !satisfied && !self.waived.contains(&name) {
                    waits.push(Wait::Gate { name, verdict });
                }
            }
            if readings.split_is_off {
                waits.push(Wait::Split);
            }
            if step.approval && !self.approved {
                waits.push(Wait::Approval);
            }
        }
        // The end changes nobody's target and needs no window.
        let ends = self.step_index().is_some_and(|step| step + 1 >= self.plan.steps.len());
        if let Some(windows) = &self.plan.windows
            && !ends
            && !windows.are_open(now)
        {
            waits.push(Wait::Window(windows.open_at(now)));
        }
        waits
    }

    /// Where the rollout stands, in a sentence: `at 10 % (step 3 of 5), waits for 1h30m more and an approval`.
    pub fn describe(&self, readings: &Readings, now: Timestamp) -> String {
        let place = match self.step_index() {
            Some(step) => format!("at {} (step {} of {})", self.percent(), step + 1, self.plan.steps.len()),
            None => format!("at {}, before step 1 of {}", self.percent(), self.plan.steps.len()),
        };
        match self.state() {
            State::Running => match self.waits(readings, now)[..] {
                [] => format!("{place}, about to go on"),
                ref waits => {
                    let waits: Vec<String> = waits.iter().map(Wait::to_string).collect();
                    format!("{place}, waits for {}", waits.join("; "))
                }
            },
            state => format!("{place}, {}: {}", state.to_string().replace('_', " "), self.reason()),
        }
    }
}

/// The gates that can be asked at a share: without jobs of both arms, only those fed by the shadow.
fn applicable(plan: &Plan, percent: BasisPoints) -> impl Iterator<Item = &GateSpec> {
    let both_arms = percent != BasisPoints::NONE && percent != BasisPoints::ALL;
    plan.gates.iter().filter(move |gate| both_arms || (percent == BasisPoints::NONE && gate.criterion.is_paired()))
}

/// A gate's verdict; one that nobody has heard of is undecided.
pub(super) fn verdict(readings: &Readings, name: &str) -> Verdict {
    let unheard = Verdict::Undecided(Outlook::TooEarly { unit: Unit::Jobs, seen: 0 });
    readings.verdicts.get(name).copied().unwrap_or(unheard)
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(left) => write!(f, "{} more in this step", format_span(*left)),
            Self::Jobs(jobs) => write!(f, "{jobs} more jobs of the candidate"),
            Self::Pairs(pairs) => write!(f, "{pairs} more pairs"),
            Self::Gate { name, verdict } => write!(f, "gate `{name}` ({verdict})"),
            Self::Split => {
                f.write_str("a split that is what it should be: the candidate gets more or fewer jobs than its share")
            }
            Self::Approval => f.write_str("an approval"),
            Self::Window(Some(opens)) => write!(f, "the window that opens at {opens}"),
            Self::Window(None) => f.write_str("a window to open"),
        }
    }
}
