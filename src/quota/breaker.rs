//! A circuit breaker: leaves a provider's model alone while it cannot answer, and tries with one call at a time.
//!
//! ```text
//! closed ──(failures in a row, or most of the latest calls)──▶ open ──(pause over, a call goes)──▶ half open
//!    ▲                                                          ▲                                     │
//!    └──────────────────(the call is answered)──────────────────┼─────────────────────────────────────┤
//!                                                               └────(it fails: twice the pause)──────┘
//! ```
//!
//! Invariant: only failures of the provider count. A throttle, a refusal or a prompt that is too long is an answer; a call
//! that we stopped says nothing. Open never lasts longer than the longest pause without a call being let through.

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::{clock::Timestamp, job::Fault};

/// When a breaker opens and how long it stays so.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerPolicy {
    /// Opens after so many failures in a row.
    pub failures: u32,
    /// Opens when at least this share of the calls in `window` failed ...
    pub failing_share: f64,
    /// ... and there were at least so many.
    pub least_calls: u32,
    /// How far back calls are counted, about.
    pub window: Duration,
    /// How long it stays open at first; each failed try doubles it.
    pub first_pause: Duration,
    /// How long it stays open at most.
    pub longest_pause: Duration,
    /// A try that has not ended by then is followed by another.
    pub patience: Duration,
}

impl Default for BreakerPolicy {
    /// Short pauses: a try is one call, and after an outage the provider should be found well again within seconds.
    fn default() -> Self {
        Self {
            failures: 5,
            failing_share: 0.5,
            least_calls: 20,
            window: Duration::from_secs(30),
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(8),
            patience: Duration::from_secs(30),
        }
    }
}

/// Where a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerPhase {
    /// Calls go through.
    Closed,
    /// One call tries, or may.
    HalfOpen,
    /// No call goes through.
    Open,
}

impl BreakerPhase {
    /// As a gauge: 0 closed, 1 half open, 2 open.
    pub fn gauge(self) -> f64 {
        match self {
            Self::Closed => 0.0,
            Self::HalfOpen => 1.0,
            Self::Open => 2.0,
        }
    }
}

/// The breaker of one provider, model and region.
#[derive(Debug, Clone)]
pub struct Breaker {
    policy: BreakerPolicy,
    state: State,
    in_a_row: u32,
    window: Window,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed,
    Open { since: Timestamp, until: Timestamp, pause: Duration },
    Trying { since: Timestamp, until: Timestamp, pause: Duration },
}

/// What a failed call says of the provider.
enum Sign {
    Failing,
    Alive,
    Nothing,
}

fn sign(fault: Fault) -> Sign {
    match fault {
        // A call that nobody saw the end of is how a provider that hangs looks from here.
        Fault::Unavailable | Fault::Transient | Fault::Unknown => Sign::Failing,
        Fault::Throttled | Fault::Refused | Fault::TooLong => Sign::Alive,
        Fault::Misconfigured | Fault::Interrupted => Sign::Nothing,
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self::new(BreakerPolicy::default())
    }
}

impl Breaker {
    /// A closed breaker.
    pub fn new(policy: BreakerPolicy) -> Self {
        Self { policy, state: State::Closed, in_a_row: 0, window: Window::default() }
    }

    /// Where it stands.
    pub fn phase(&self, now: Timestamp) -> BreakerPhase {
        match self.state {
            State::Closed => BreakerPhase::Closed,
            State::Open { since, until, .. } if !is_over(since, until, now) => BreakerPhase::Open,
            State::Open { .. } | State::Trying { .. } => BreakerPhase::HalfOpen,
        }
    }

    /// Before when no call may go; `None` when one may now.
    pub fn not_before(&self, now: Timestamp) -> Option<Timestamp> {
        match self.state {
            State::Closed => None,
            State::Open { since, until, .. } | State::Trying { since, until, .. } => {
                (!is_over(since, until, now)).then_some(until)
            }
        }
    }

    /// A call is about to go: false when none may (another is trying already). Every call that is let through is to be
    /// answered by [`Breaker::on_success`] or [`Breaker::on_fault`].
    pub fn on_call(&mut self, now: Timestamp) -> bool {
        if self.not_before(now).is_some() {
            return false;
        }
        if let State::Open { pause, .. } | State::Trying { pause, .. } = self.state {
            self.state = State::Trying { since: now, until: now + self.policy.patience, pause };
        }
        true
    }

    /// A call was answered.
    pub fn on_success(&mut self, now: Timestamp) {
        match self.state {
            State::Closed => {
                self.in_a_row = 0;
                self.window.count(now, self.policy.window, false);
            }
            State::Trying { .. } => self.close(),
            // It began before the breaker opened.
            State::Open { .. } => {}
        }
    }

    /// A call failed.
    pub fn on_fault(&mut self, now: Timestamp, fault: Fault) {
        match (self.state, sign(fault)) {
            (State::Closed, Sign::Failing) => {
                self.in_a_row = self.in_a_row.saturating_add(1);
                self.window.count(now, self.policy.window, true);
                if self.in_a_row >= self.policy.failures || self.window.is_failing(&self.policy) {
                    self.open(now, self.policy.first_pause);
                }
            }
            (State::Trying { pause, .. }, Sign::Failing) => self.open(now, pause.saturating_mul(2)),
            (State::Trying { .. }, Sign::Alive) => self.close(),
            // The try came to nothing; the next call is another.
            (State::Trying { pause, .. }, Sign::Nothing) => {
                self.state = State::Open { since: now, until: now, pause };
            }
            (State::Closed, Sign::Alive | Sign::Nothing) | (State::Open { .. }, _) => {}
        }
    }

    fn open(&mut self, now: Timestamp, pause: Duration) {
        let pause = pause.min(self.policy.longest_pause);
        self.state = State::Open { since: now, until: now + pause, pause };
        self.in_a_row = 0;
        self.window = Window::default();
    }

    fn close(&mut self) {
        self.state = State::Closed;
        self.in_a_row = 0;
        self.window = Window::default();
    }
}

/// Also over when the clock has gone back behind its beginning.
fn is_over(since: Timestamp, until: Timestamp, now: Timestamp) -> bool {
    until <= now || now < since
}

/// The latest calls, in two halves: the older is dropped whole when the newer is full.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    since: Option<Timestamp>,
    newer: Count,
    older: Count,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    calls: u32,
    failures: u32,
}

impl Window {
    fn count(&mut self, now: Timestamp, span: Duration, failed: bool) {
        let half = span / 2;
        match self.since.filter(|since| *since <= now).map(|since| now.since(since)) {
            Some(age) if age < half => {}
            Some(age) if age < span => {
                self.older = std::mem::take(&mut self.newer);
                self.since = Some(now);
            }
            _ => *self = Self { since: Some(now), ..Self::default() },
        }
        self.newer.calls = self.newer.calls.saturating_add(1);
        self.newer.failures = self.newer.failures.saturating_add(u32::from(failed));
    }

    fn is_failing(&self, policy: &BreakerPolicy) -> bool {
        let calls = self.newer.calls.saturating_add(self.older.calls);
        let failures = self.newer.failures.saturating_add(self.older.failures);
        calls >= policy.least_calls && f64::from(failures) >= policy.failing_share * f64::from(calls)
    }
}
