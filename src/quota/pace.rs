//! A rate that is learned from being turned away: how fast calls may go where nobody says so, or where what was said
//! turned out to be too much.
//!
//! Between two throttles a provider's bucket is empty at both ends, so what it let through in between, over the time,
//! *is* its rate. That is what a cut goes down to; without enough evidence it goes down by a factor. Afterwards the rate
//! creeps up again, faster the longer nothing happens.
//!
//! Invariant: one cut a round trip, however many calls were turned away (those sent before the cut say nothing new).
//! Never below a floor of about a call a minute; grows only while calls wait for it.

use std::time::Duration;

use crate::clock::Timestamp;

/// The first guess, in calls a second ...
const FIRST: f64 = 64.0;
/// ... of which so many at once ...
pub const FIRST_AT_ONCE: f64 = 32.0;
/// ... doubled in this time until the first throttle, in seconds.
const DOUBLING: f64 = 0.125;
/// After a throttle that told little, doubling is slower.
const SLOW_DOUBLING: f64 = 0.5;
/// Providers' buckets hold about this much refill, in seconds, and are full after a while of quiet.
const CAPACITY: f64 = 1.0;
/// So many calls let through between two throttles tell the rate.
const EVIDENCE: u64 = 20;
/// Below the measured rate by so much, so that the provider's bucket fills a little.
const BELOW: f64 = 0.98;
/// Without evidence: a throttle soon after another, or after a while.
const CUT_SOON: f64 = 0.6;
const CUT_LATE: f64 = 0.9;
/// The longest stretch whose measure is trusted: in a longer one the provider's bucket may have been full.
const TRUSTED: Duration = Duration::from_secs(30);
/// A known rate is crept back to at this speed, in shares a second.
const BACK: f64 = 0.02;
/// No rate is followed above this, in units a second.
const FASTEST: f64 = 1e9;
/// Between two looks time counts as this at most: nothing grows while nobody asks.
const LONGEST_STEP: f64 = 1.0;

/// A call as its throttle tells of it.
#[derive(Debug, Clone, Copy)]
pub struct Turned {
    /// When it was sent.
    pub sent_at: Timestamp,
    /// What had been sent in all before it.
    pub before: f64,
    /// How many calls had been sent before it.
    pub number: u64,
    /// What it asked for.
    pub amount: f64,
}

/// The learned rate of one limit.
#[derive(Debug, Clone, PartialEq)]
pub struct Pace {
    phase: Phase,
    grown_at: Timestamp,
    pressed: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Phase {
    /// Nothing holds it down.
    Free,
    /// Faster and faster, until something turns us away.
    Seeking { rate: f64, doubling: f64, window: Window },
    /// At a rate that was measured, creeping up; `sure` once it was measured from one throttle to another.
    Holding { rate: f64, window: Window, sure: bool },
}

/// A stretch of time that began with the provider's bucket in a known state.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Window {
    since: Timestamp,
    /// What had been sent in all, and how many calls, when it began.
    sent: f64,
    calls: u64,
    /// What was turned away since, and how many calls.
    lost: f64,
    lost_calls: u64,
    /// Calls below this number were sent before the latest cut.
    deaf_below: u64,
    /// When that was.
    cut_at: Timestamp,
    /// The provider's bucket was full when it began.
    full: bool,
}

impl Window {
    fn begin(now: Timestamp, sent: f64, calls: u64, full: bool) -> Self {
        Self { since: now, sent, calls, lost: 0.0, lost_calls: 0, deaf_below: calls, cut_at: now, full }
    }

    fn let_through(&self, call: &Turned) -> u64 {
        call.number.saturating_sub(self.calls).saturating_sub(self.lost_calls)
    }

    /// What the provider let through a second, from the beginning to this throttled call.
    fn measured(&self, call: &Turned) -> f64 {
        let amount = (call.before - self.sent - self.lost).max(0.0);
        let seconds = call.sent_at.since(self.since).as_secs_f64() + if self.full { CAPACITY } else { 0.0 };
        if seconds > 0.0 { amount / seconds } else { 0.0 }
    }
}

impl Pace {
    /// Holds nothing back.
    pub fn free(now: Timestamp) -> Self {
        Self { phase: Phase::Free, grown_at: now, pressed: false }
    }

    /// Feels its way up, for a limit that nobody told. `sent` and `calls` are what has been sent so far.
    pub fn seeking(now: Timestamp, sent: f64, calls: u64) -> Self {
        let window = Window::begin(now, sent, calls, true);
        Self { phase: Phase::Seeking { rate: FIRST, doubling: DOUBLING, window }, grown_at: now, pressed: false }
    }

    /// Goes on at a rate that was learned earlier, in units a second.
    pub fn holding(now: Timestamp, rate: f64, sent: f64, calls: u64) -> Self {
        let window = Window::begin(now, sent, calls, true);
        Self { phase: Phase::Holding { rate: rate.min(FASTEST), window, sure: true }, grown_at: now, pressed: false }
    }

    /// The rate it holds to, in units a second.
    pub fn rate(&self) -> Option<f64> {
        match self.phase {
            Phase::Free => None,
            Phase::Seeking { rate, .. } | Phase::Holding { rate, .. } => Some(rate),
        }
    }

    /// The rate that was measured, if one was.
    pub fn learned(&self) -> Option<f64> {
        match self.phase {
            Phase::Holding { rate, .. } => Some(rate),
            Phase::Free | Phase::Seeking { .. } => None,
        }
    }

    /// Whether it still looks for the limit.
    pub fn is_seeking(&self) -> bool {
        matches!(self.phase, Phase::Seeking { .. })
    }

    /// A call waited for this rate.
    pub fn press(&mut self) {
        self.pressed = true;
    }

    /// Lets the rate grow while calls wait for it, up to a `ceiling` that is known otherwise. Whether it changed.
    pub fn grow(&mut self, now: Timestamp, ceiling: Option<f64>, sent: f64, calls: u64) -> bool {
        let span = now.since(self.grown_at);
        let quiet = span.as_secs_f64() > LONGEST_STEP * 2.0;
        self.grown_at = now;
        let pressed = std::mem::take(&mut self.pressed);
        match &mut self.phase {
            Phase::Free => false,
            Phase::Seeking { window, .. } if quiet && !pressed => {
                // The provider's bucket has filled up meanwhile.
                let deaf_below = window.deaf_below;
                *window = Window { deaf_below, ..Window::begin(now, sent, calls, true) };
                false
            }
            _ if !pressed => false,
            Phase::Seeking { rate, doubling, .. } => {
                *rate = (*rate * (span.as_secs_f64().min(*doubling) / *doubling).exp2()).min(FASTEST);
                true
            }
            Phase::Holding { rate, window, sure } => {
                let by = creep(now.since(window.cut_at), ceiling.is_some(), *sure);
                *rate = (*rate * (1.0 + by * span.as_secs_f64().min(LONGEST_STEP))).min(FASTEST);
                if ceiling.is_some_and(|ceiling| *rate >= ceiling) {
                    self.phase = Phase::Free;
                }
                true
            }
        }
    }

    /// A call was turned away. `current` is the rate in force, `sent` and `calls` what has been sent by now. Whether the
    /// rate was cut.
    pub fn throttled(&mut self, now: Timestamp, call: Turned, current: f64, sent: f64, calls: u64) -> bool {
        let floor = (call.amount / 60.0).max(f64::MIN_POSITIVE);
        match &mut self.phase {
            Phase::Free => {
                let window = Window::begin(now, sent, calls, false);
                self.phase = Phase::Holding { rate: (current * CUT_LATE).max(floor), window, sure: true };
            }
            Phase::Seeking { window, .. } | Phase::Holding { window, .. } if call.number < window.deaf_below => {
                if call.number >= window.calls {
                    window.lost += call.amount;
                    window.lost_calls += 1;
                }
                return false;
            }
            Phase::Seeking { rate, window, .. } => {
                let through = window.let_through(&call);
                let measured = window.measured(&call);
                let fresh = window.full && through > 0;
                if through >= EVIDENCE {
                    let rate = (measured * BELOW).max(floor);
                    let sure = !window.full;
                    self.phase = Phase::Holding { rate, window: Window::begin(now, sent, calls, false), sure };
                } else {
                    let rate = measured.max(*rate / 8.0 * f64::from(u8::from(!fresh))).max(floor);
                    let window = if window.full {
                        Window::begin(now, sent, calls, false)
                    } else {
                        Window {
                            lost: window.lost + call.amount,
                            lost_calls: window.lost_calls + 1,
                            deaf_below: calls,
                            cut_at: now,
                            ..*window
                        }
                    };
                    self.phase = Phase::Seeking { rate, doubling: SLOW_DOUBLING, window };
                }
            }
            Phase::Holding { rate, window, .. } => {
                let stretch = call.sent_at.since(window.since);
                let rate = if window.let_through(&call) >= EVIDENCE && !window.full {
                    let least = if stretch > TRUSTED { 0.85 } else { 0.5 };
                    (window.measured(&call) * BELOW).clamp(*rate * least, *rate * 0.97)
                } else if now.since(window.cut_at).as_secs_f64() < CAPACITY {
                    *rate * CUT_SOON
                } else {
                    *rate * CUT_LATE
                };
                let window = Window::begin(now, sent, calls, false);
                self.phase = Phase::Holding { rate: rate.max(floor), window, sure: true };
            }
        }
        self.grown_at = now;
        self.pressed = false;
        true
    }
}

/// How fast a rate creeps up, in shares a second, so long after a cut.
fn creep(since: Duration, known: bool, sure: bool) -> f64 {
    match since.as_secs() {
        _ if known => BACK,
        // Nobody knows what the provider's bucket held at first.
        0..30 if !sure => 0.01,
        0..10 => 0.002,
        10..30 => 0.005,
        30..60 => 0.01,
        60..120 => 0.03,
        _ => 0.06,
    }
}
