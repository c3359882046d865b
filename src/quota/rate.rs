//! One limit by the minute: what was granted, what the provider tells, what its throttles taught, and the bucket that
//! follows from it.
//!
//! Invariant: the lowest of the known rates is in force; nothing a header says makes the wait for one call longer than a
//! minute, or lowers the rate below one a minute.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    bucket::Bucket,
    meter::Meter,
    pace::{FIRST_AT_ONCE, Pace, Turned},
};
use crate::clock::Timestamp;

/// Of a bucket, the part that is used at once: the rest evens out that calls do not arrive as evenly as they leave.
const USED_BURST: f64 = 0.95;
/// After a long silence, so much of the bucket is there.
const REOPENED_BURST: f64 = 0.1;
/// Headers count as right when they are this near to our own count, in calls or in shares of the bucket.
const NEAR: f64 = 0.05;
/// A minute's limit above this, in a header, is nonsense.
const ABSURD: u64 = 1_000_000_000_000;
/// No header makes anybody wait longer.
const LONGEST_WAIT: f64 = 60.0;

/// What a provider's headers say of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Told {
    /// Granted a minute.
    pub limit: Option<u64>,
    /// Left.
    pub remaining: Option<u64>,
    /// Until the limit is full again.
    pub reset: Option<Duration>,
}

/// Where the rate in force comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::Display, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Source {
    /// Settings, or an operator at run time.
    Granted,
    /// The provider's headers.
    Headers,
    /// Throttles.
    Learned,
    /// Nobody: it is being felt out.
    Seeking,
    /// The provider's wish that traffic grow slowly.
    Ramp,
}

/// What a reservation remembers of a rate.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Mark {
    /// What had been taken in all before.
    pub before: f64,
    /// What was taken.
    pub amount: u64,
}

/// What survives a restart.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct LearnedRate {
    /// Told by headers, a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<u64>,
    /// Measured, a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<f64>,
}

/// One limit by the minute.
#[derive(Debug, Clone)]
pub struct Rate {
    granted: Option<f64>,
    told: Option<u64>,
    share: f64,
    burst: Duration,
    ramp: Option<f64>,
    pace: Pace,
    bucket: Option<Bucket>,
    in_force: Option<f64>,
    taken: f64,
    meter: Meter,
}

impl Rate {
    /// Nothing is known, and nothing holds back.
    pub fn new(now: Timestamp) -> Self {
        Self {
            granted: None,
            told: None,
            share: 1.0,
            burst: super::grant::BURST,
            ramp: None,
            pace: Pace::free(now),
            bucket: None,
            in_force: None,
            taken: 0.0,
            meter: Meter::new(now),
        }
    }

    /// Puts a grant in force; what was used stays used, and what was learned of another grant is forgotten.
    pub fn grant(&mut self, now: Timestamp, per_minute: Option<u64>, share: f64, burst: Duration) {
        let granted = per_minute.map(|granted| granted as f64 * share);
        if granted != self.granted && granted.is_some() {
            self.pace = Pace::free(now);
        }
        (self.granted, self.share, self.burst) = (granted, share, burst);
        self.in_force = None;
        self.apply(now);
    }

    /// Feels its way up, if nobody says how fast it may be.
    pub fn seek(&mut self, now: Timestamp, calls: u64) {
        if self.known().is_none() && self.pace.rate().is_none() {
            self.pace = Pace::seeking(now, self.taken, calls);
            self.apply(now);
            if let Some(bucket) = &mut self.bucket {
                bucket.set_balance(now, FIRST_AT_ONCE);
            }
        }
    }

    /// Goes on with what was learned earlier.
    pub fn restore(&mut self, now: Timestamp, learned: LearnedRate, calls: u64) {
        self.told = learned.told.filter(|told| (1..=ABSURD).contains(told));
        let measured = learned.measured.filter(|rate| rate.is_finite() && *rate > 0.0 && *rate < ABSURD as f64);
        if let Some(rate) = measured {
            self.pace = Pace::holding(now, rate / 60.0, self.taken, calls);
        }
        self.apply(now);
    }

    /// What should survive a restart.
    pub fn learned(&self) -> LearnedRate {
        let told = self.told;
        // To a tenth: small movements are not worth writing down.
        let measured = self.pace.learned().map(|rate| (rate * 600.0).round() / 10.0).filter(|rate| *rate > 0.0);
        LearnedRate { told, measured }
    }

    /// Bounds it by the provider's wish for slow growth.
    pub fn set_ramp(&mut self, now: Timestamp, allowed: Option<f64>) {
        if self.ramp != allowed {
            self.ramp = allowed;
            self.apply(now);
        }
    }

    /// The rate in force, a minute, and where it comes from.
    pub fn in_force(&self) -> Option<(f64, Source)> {
        let pace = if self.pace.is_seeking() { Source::Seeking } else { Source::Learned };
        [
            (self.granted, Source::Granted),
            (self.told_share(), Source::Headers),
            (self.pace.rate().map(|rate| rate * 60.0), pace),
            (self.ramp, Source::Ramp),
        ]
        .into_iter()
        .filter_map(|(rate, source)| Some((rate?, source)))
        .min_by(|(one, _), (other, _)| one.total_cmp(other))
    }

    /// Whether it is told, or was measured.
    pub fn is_known(&self) -> bool {
        self.known().is_some() || self.pace.learned().is_some()
    }

    /// Whether anything limits it.
    pub fn is_limited(&self) -> bool {
        self.bucket.is_some()
    }

    /// When an amount may go, if nothing else takes any: `None` for never.
    pub fn when(&mut self, now: Timestamp, amount: u64, calls: u64) -> Option<Timestamp> {
        self.grow(now, calls);
        let Some(bucket) = &mut self.bucket else { return Some(now) };
        let when = bucket.when(now, amount);
        if when != Some(now) {
            self.pace.press();
        }
        when
    }

    /// Takes an amount.
    pub fn take(&mut self, now: Timestamp, amount: u64) -> Mark {
        let mark = Mark { before: self.taken, amount };
        if let Some(bucket) = &mut self.bucket {
            bucket.charge(amount);
        }
        self.taken += amount as f64;
        self.meter.add(now, amount as f64);
        mark
    }

    /// Gives back what was taken for a call that was not sent.
    pub fn give_back(&mut self, mark: Mark) {
        if let Some(bucket) = &mut self.bucket {
            bucket.give_back(mark.amount);
        }
        self.taken -= mark.amount as f64;
        self.meter.correct(-(mark.amount as f64));
    }

    /// Replaces what was taken by what was charged.
    pub fn settle(&mut self, mark: Mark, actual: u64) {
        if let Some(bucket) = &mut self.bucket {
            if actual > mark.amount {
                bucket.charge(actual - mark.amount);
            } else {
                bucket.give_back(mark.amount - actual);
            }
        }
        self.meter.correct(actual as f64 - mark.amount as f64);
    }

    /// Believes the provider's headers on the answer to a call sent at `at`, as far as they make sense.
    pub fn hear(&mut self, now: Timestamp, at: Timestamp, mark: Mark, told: Told) {
        // A limit that the very call would not have fitted is no limit.
        let plausible = mark.amount.max(1)..=ABSURD;
        let Some(limit) = told.limit.filter(|limit| plausible.contains(limit)) else { return };
        if self.told != Some(limit) {
            if self.known().is_none() {
                // Now it is known: no need to feel for it, nor to be shy of what was felt.
                self.pace = Pace::free(now);
            }
            self.told = Some(limit);
            self.apply(now);
        }
        let Some(bucket) = &mut self.bucket else { return };
        let per_second = limit as f64 / 60.0;
        let missing = match (told.reset, told.remaining) {
            (Some(reset), _) => reset.as_secs_f64() * per_second,
            (None, Some(remaining)) if remaining <= limit => (limit - remaining) as f64,
            _ => return,
        };
        if self.share < 1.0 && told.remaining != Some(0) {
            // Others use their part of it: what is missing is not ours alone.
            return;
        }
        let missing = missing.min(per_second * LONGEST_WAIT);
        let refilled = now.since(at).as_secs_f64() * per_second;
        let since = self.taken - mark.before - mark.amount as f64;
        let theirs = bucket.burst() - (missing - refilled).max(0.0) - since.max(0.0);
        let ours = bucket.balance(now);
        if (theirs - ours).abs() > (bucket.burst() * NEAR).max(2.0) {
            bucket.set_balance(now, theirs);
        }
    }

    /// The provider turned a call away because of this limit, as far as is known.
    pub fn throttled(&mut self, now: Timestamp, at: Timestamp, mark: Mark, number: u64, calls: u64) {
        let current = self.in_force().map_or_else(|| self.meter.last_minute(now) / 30.0, |(rate, _)| rate / 60.0);
        let call = Turned { sent_at: at, before: mark.before, number, amount: mark.amount as f64 };
        if self.pace.throttled(now, call, current, self.taken, calls) {
            self.apply(now);
            if let Some(bucket) = &mut self.bucket {
                // The provider's is empty.
                let balance = bucket.balance(now).min(0.0);
                bucket.set_balance(now, balance);
            }
        }
    }

    /// Nothing goes before `until`. A provider's bucket fills meanwhile, but after a long silence nobody should be
    /// overrun: then calls begin at the rate.
    pub fn stop_until(&mut self, now: Timestamp, until: Timestamp) {
        if now.until(until) <= super::grant::BURST {
            return;
        }
        if let Some(bucket) = &mut self.bucket {
            bucket.stop_until(until);
        }
    }

    /// Begins again after a silence that was not of our choosing.
    pub fn reopen(&mut self, now: Timestamp) {
        if let Some(bucket) = &mut self.bucket {
            let most = bucket.burst() * REOPENED_BURST;
            if bucket.balance(now) > most {
                bucket.set_balance(now, most);
            }
        }
    }

    /// How much of it the last minute used, 0 to 1.
    pub fn used(&self, now: Timestamp) -> Option<f64> {
        let (per_minute, _) = self.in_force()?;
        let used = self.meter.last_minute(now);
        Some(if per_minute > 0.0 { (used / per_minute).clamp(0.0, 1.0) } else { 1.0 })
    }

    /// What went in the last minute.
    pub fn last_minute(&self, now: Timestamp) -> f64 {
        self.meter.last_minute(now)
    }

    fn grow(&mut self, now: Timestamp, calls: u64) {
        let ceiling = self.known().map(|known| known / 60.0);
        if self.pace.grow(now, ceiling, self.taken, calls) {
            self.apply(now);
        }
    }

    fn told_share(&self) -> Option<f64> {
        self.told.map(|told| told as f64 * self.share)
    }

    /// What somebody said, a minute.
    pub fn known(&self) -> Option<f64> {
        [self.granted, self.told_share()].into_iter().flatten().min_by(f64::total_cmp)
    }

    fn apply(&mut self, now: Timestamp) {
        let in_force = self.in_force().map(|(rate, _)| rate);
        if in_force == self.in_force {
            return;
        }
        self.in_force = in_force;
        let burst = self.burst.mul_f64(USED_BURST);
        match (&mut self.bucket, in_force) {
            (_, None) => self.bucket = None,
            (Some(bucket), Some(rate)) => bucket.set_rate(rate, burst, now),
            (None, Some(rate)) => self.bucket = Some(Bucket::new(rate, burst, now)),
        }
    }
}
