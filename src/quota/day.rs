//! Tokens a day.
//!
//! Invariant: days are those of UTC. A day begins with nothing used, and a call that alone is larger than the day's
//! tokens goes when nothing else has.

use std::time::Duration;

use crate::clock::Timestamp;

const DAY_MICROS: i64 = 86_400_000_000;

/// The first moment of a day.
pub fn day_of(now: Timestamp) -> Timestamp {
    Timestamp::from_micros(now.as_micros().div_euclid(DAY_MICROS).saturating_mul(DAY_MICROS))
}

/// The first moment of the next day.
pub fn next_day(now: Timestamp) -> Timestamp {
    day_of(now) + Duration::from_hours(24)
}

/// What one day has used of its tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Day {
    start: Timestamp,
    used: u64,
}

impl Day {
    /// Nothing used.
    pub fn new(now: Timestamp) -> Self {
        Self { start: day_of(now), used: 0 }
    }

    /// What was used of the day that began at `start`; nothing if that is another day than this.
    pub fn restored(now: Timestamp, start: Timestamp, used: u64) -> Self {
        if start == day_of(now) { Self { start, used } } else { Self::new(now) }
    }

    /// Since when, and how much.
    pub fn used(&mut self, now: Timestamp) -> (Timestamp, u64) {
        let start = day_of(now);
        if start > self.start {
            *self = Self { start, used: 0 };
        }
        (self.start, self.used)
    }

    /// When an amount may be used of so many a day.
    pub fn when(&mut self, now: Timestamp, amount: u64, limit: u64) -> Option<Timestamp> {
        let (_, used) = self.used(now);
        if limit == 0 && amount > 0 {
            None
        } else if used == 0 || used.saturating_add(amount) <= limit {
            Some(now)
        } else {
            Some(next_day(now))
        }
    }

    /// Uses an amount.
    pub fn take(&mut self, amount: u64) {
        self.used = self.used.saturating_add(amount);
    }

    /// Replaces an amount taken at `at` by another. What was taken on another day stays there.
    pub fn correct(&mut self, at: Timestamp, taken: u64, actual: u64) {
        if day_of(at) == self.start {
            self.used = self.used.saturating_sub(taken).saturating_add(actual);
        }
    }
}
