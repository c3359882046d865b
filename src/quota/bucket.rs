//! A token bucket: what may be used at once, and what refills.
//!
//! Invariant: amounts up to the burst never exceed `burst + rate × time` over any stretch of time. The balance may be
//! negative: what was used beyond what it held is owed.

use std::time::Duration;

use crate::clock::Timestamp;

/// The fastest rate that is told apart from any faster one: a million million a minute. Keeps sums exact.
const FASTEST: f64 = 1e12;
/// A balance this near is met: rates are no whole numbers of microseconds.
const NEAR: f64 = 1e-6;
/// A bucket this full is full: one whose rate grows holds a little more every time it is looked at.
const FULL: f64 = 0.999;

/// A token bucket, full when made.
#[derive(Debug, Clone, PartialEq)]
pub struct Bucket {
    per_micro: f64,
    burst: f64,
    balance: f64,
    updated: Timestamp,
}

impl Bucket {
    /// A bucket that refills by `per_minute`, and holds what refills in `burst`, or a single unit if that is more. Rates
    /// that are negative or no number count as zero.
    pub fn new(per_minute: f64, burst: Duration, now: Timestamp) -> Self {
        let mut bucket = Self { per_micro: 0.0, burst: 1.0, balance: 0.0, updated: now };
        bucket.set_rate(per_minute, burst, now);
        bucket.balance = bucket.burst;
        bucket
    }

    /// Changes the rate from now on. What was used stays used; a larger burst fills at the new rate.
    pub fn set_rate(&mut self, per_minute: f64, burst: Duration, now: Timestamp) {
        self.refill(now);
        let per_minute = if per_minute > 0.0 { per_minute.min(FASTEST) } else { 0.0 };
        self.per_micro = per_minute / 60e6;
        self.burst = (per_minute / 60.0 * burst.as_secs_f64()).max(1.0);
        self.balance = self.balance.min(self.burst);
    }

    /// When `amount` may be used, if nothing else is; `None` when nothing ever refills. More than the burst may be used
    /// once the bucket is full, and leaves it in debt.
    pub fn when(&mut self, now: Timestamp, amount: u64) -> Option<Timestamp> {
        self.refill(now);
        if self.per_micro <= 0.0 {
            return None;
        }
        let wanted = if amount as f64 > self.burst { self.burst * FULL } else { amount as f64 };
        let missing = wanted - self.balance;
        if missing <= NEAR {
            return Some(now);
        }
        Some(
            now + Duration::try_from_secs_f64(missing / self.per_micro / 1e6)
                .map_or(Duration::MAX, up_to_the_microsecond),
        )
    }

    /// Uses an amount, whether it is there or not.
    pub fn charge(&mut self, amount: u64) {
        self.balance -= amount as f64;
    }

    /// Gives back what was charged and not used.
    pub fn give_back(&mut self, amount: u64) {
        self.balance = (self.balance + amount as f64).min(self.burst);
    }

    /// What is in it; below nothing when more was used than it held.
    pub fn balance(&mut self, now: Timestamp) -> f64 {
        self.refill(now);
        self.balance
    }

    /// What it holds at most.
    pub fn burst(&self) -> f64 {
        self.burst
    }

    /// Sets what is in it, never above what it holds.
    pub fn set_balance(&mut self, now: Timestamp, balance: f64) {
        self.refill(now);
        if !balance.is_nan() {
            self.balance = balance.clamp(-FASTEST, self.burst);
        }
    }

    /// Refills nothing before `until`, and what has been saved up is gone.
    pub(super) fn stop_until(&mut self, until: Timestamp) {
        self.refill(until);
        self.balance = self.balance.min(0.0);
    }

    fn refill(&mut self, now: Timestamp) {
        let grown = now.since(self.updated).as_micros() as f64 * self.per_micro;
        self.balance = (self.balance + grown).min(self.burst);
        // Also when the clock went back: the past is not waited for a second time.
        self.updated = now;
    }
}

fn up_to_the_microsecond(span: Duration) -> Duration {
    Duration::from_micros(u64::try_from(span.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX))
}
