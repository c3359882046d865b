//! The three clocks of a rollout: time in the step, time without a verdict, time without evidence.
//!
//! Invariant: they stand still together while the rollout is paused or held, and a clock that jumps back subtracts nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// Time that was counted, and since when it is counted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Stopwatch {
    kept: Duration,
    since: Option<Timestamp>,
}

impl Stopwatch {
    fn elapsed(self, now: Timestamp) -> Duration {
        self.kept.saturating_add(self.since.map_or(Duration::ZERO, |since| now.since(since)))
    }

    fn stop(&mut self, now: Timestamp) {
        *self = Self { kept: self.elapsed(now), since: None };
    }

    fn go(&mut self, now: Timestamp) {
        self.since.get_or_insert(now);
    }

    fn zero(&mut self, now: Timestamp) {
        *self = Self { kept: Duration::ZERO, since: self.since.map(|_| now) };
    }
}

/// The clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Timers {
    step: Stopwatch,
    undecided: Stopwatch,
    quiet: Stopwatch,
}

impl Timers {
    /// All of them at zero, running.
    pub(super) fn started(now: Timestamp) -> Self {
        let mut timers = Self::default();
        timers.run(true, now);
        timers
    }

    /// All of them at zero, standing.
    pub(super) fn standing() -> Self {
        Self::default()
    }

    /// Lets them run or stand.
    pub(super) fn run(&mut self, run: bool, now: Timestamp) {
        for watch in [&mut self.step, &mut self.undecided, &mut self.quiet] {
            if run {
                watch.go(now);
            } else {
                watch.stop(now);
            }
        }
    }

    /// Patience begins anew; time in the step goes on.
    pub(super) fn be_patient(&mut self, now: Timestamp) {
        self.undecided.zero(now);
        self.quiet.zero(now);
    }

    /// Evidence came in.
    pub(super) fn heard(&mut self, now: Timestamp) {
        self.quiet.zero(now);
    }

    /// Time in the step.
    pub(super) fn in_step(&self, now: Timestamp) -> Duration {
        self.step.elapsed(now)
    }

    /// Time in the step without a verdict.
    pub(super) fn without_verdict(&self, now: Timestamp) -> Duration {
        self.undecided.elapsed(now)
    }

    /// Time without evidence.
    pub(super) fn without_evidence(&self, now: Timestamp) -> Duration {
        self.quiet.elapsed(now)
    }
}
