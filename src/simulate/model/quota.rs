//! What a provider grants: requests and tokens a minute, tokens a day.
//!
//! Invariant: buckets count in whole numbers (tokens × microseconds), so no amount is lost or invented by rounding. A
//! bucket may go below zero: a large request needs a full bucket, not an impossible one, and a settlement may exceed
//! what was reserved.
//!
//! Why not [`crate::quota::Bucket`]: that one is what the daemon believes, in fractions and with debts that it forgives; this
//! one is what a provider does. One bucket on both sides would make the same mistake twice, and every test that holds the
//! daemon against a provider would pass.

use std::{fmt, str::FromStr, time::Duration};

use super::rule::{InvalidRule, whole};
use crate::clock::Timestamp;

/// What is granted: `requests_per_minute=500,tokens_per_minute=200000,tokens_per_day=…`, each optional; `rpm`, `tpm`
/// and `tpd` for short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    /// Requests a minute.
    pub requests_per_minute: Option<u64>,
    /// Tokens a minute.
    pub tokens_per_minute: Option<u64>,
    /// Tokens a day.
    pub tokens_per_day: Option<u64>,
}

/// No quota may be larger: keeps every product in range.
const LARGEST: u64 = 1_000_000_000_000;

impl FromStr for Quota {
    type Err = InvalidRule;
    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        let mut quota = Self::default();
        for part in text.split(',') {
            let (key, value) = part.split_once('=').ok_or_else(|| {
                InvalidRule::new(format!("{part:?} is not a quota: write requests_per_minute=N or tokens_per_minute=N"))
            })?;
            let place = match key {
                "rpm" | "requests_per_minute" => &mut quota.requests_per_minute,
                "tpm" | "tokens_per_minute" => &mut quota.tokens_per_minute,
                "tpd" | "tokens_per_day" => &mut quota.tokens_per_day,
                _ => {
                    return Err(InvalidRule::new(format!(
                        "unknown quota {key:?}: there are requests_per_minute, tokens_per_minute and tokens_per_day"
                    )));
                }
            };
            let limit = whole(key, value)?;
            if limit > LARGEST {
                return Err(InvalidRule::new(format!("`{key}`: {limit} is above {LARGEST}")));
            }
            if place.replace(limit).is_some() {
                return Err(InvalidRule::new(format!("`{key}` is given twice")));
            }
        }
        Ok(quota)
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("requests_per_minute", self.requests_per_minute),
            ("tokens_per_minute", self.tokens_per_minute),
            ("tokens_per_day", self.tokens_per_day),
        ];
        let mut comma = "";
        for (key, limit) in parts {
            if let Some(limit) = limit {
                write!(f, "{comma}{key}={limit}")?;
                comma = ",";
            }
        }
        Ok(())
    }
}

/// Which of a quota's parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meter {
    /// Requests a minute.
    Requests,
    /// Tokens a minute.
    Tokens,
    /// Tokens a day.
    DailyTokens,
}

/// A quota that a call did not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    /// Which part.
    pub meter: Meter,
    /// What is granted a period.
    pub limit: u64,
    /// What is left now.
    pub remaining: u64,
    /// What the call needs.
    pub requested: u64,
    /// When it would fit; `None` when it never will.
    pub wait: Option<Duration>,
}

/// How full a bucket is, as headers tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// Granted a period.
    pub limit: u64,
    /// Left now.
    pub remaining: u64,
    /// Until it is full again.
    pub reset: Duration,
}

/// How full a provider's buckets are for one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// Requests a minute.
    pub requests: Option<Level>,
    /// Tokens a minute.
    pub tokens: Option<Level>,
}

/// A bucket that refills steadily.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    limit: u64,
    period: i128,
    capacity: i128,
    level: i128,
    at: Timestamp,
}

impl Bucket {
    /// A full bucket that refills `limit` every `period` and holds what `burst` refills, but at least one.
    pub fn full(limit: u64, period: Duration, burst: Duration, now: Timestamp) -> Self {
        let period = micros(period).max(1);
        let burst = micros(burst).min(period);
        let capacity = if limit == 0 { 0 } else { (i128::from(limit) * burst).max(period) };
        Self { limit, period, capacity, level: capacity, at: now }
    }

    fn refill(&mut self, now: Timestamp) {
        let elapsed = micros(now.since(self.at));
        self.at = self.at.max(now);
        self.level = self.capacity.min(self.level + elapsed * i128::from(self.limit));
    }

    /// Whether `amount` fits now; if not, how long until it does (`None`: never).
    fn check(&mut self, amount: u64, now: Timestamp) -> Result<(), Option<Duration>> {
        self.refill(now);
        if amount > self.limit {
            return Err(None);
        }
        // What exceeds the bucket needs it full, and leaves a debt.
        let missing = (i128::from(amount) * self.period).min(self.capacity) - self.level;
        if missing <= 0 { Ok(()) } else { Err(Some(self.time_for(missing))) }
    }

    fn take(&mut self, amount: u64) {
        self.level -= i128::from(amount) * self.period;
    }

    fn give_back(&mut self, amount: i128, now: Timestamp) {
        self.refill(now);
        self.level = self.capacity.min(self.level + amount * self.period);
    }

    fn time_for(&self, missing: i128) -> Duration {
        let rate = i128::from(self.limit).max(1);
        Duration::from_micros(u64::try_from((missing + rate - 1) / rate).unwrap_or(u64::MAX))
    }

    fn remaining(&self) -> u64 {
        u64::try_from(self.level.max(0) / self.period).unwrap_or(u64::MAX)
    }

    /// How full it is.
    pub fn level(&mut self, now: Timestamp) -> Level {
        self.refill(now);
        Level { limit: self.limit, remaining: self.remaining(), reset: self.time_for(self.capacity - self.level) }
    }

    fn is_full(&mut self, now: Timestamp) -> bool {
        self.refill(now);
        self.level >= self.capacity
    }
}

fn micros(span: Duration) -> i128 {
    i128::try_from(span.as_micros()).unwrap_or(i128::MAX / 2_000_000_000_000_000)
}

const MINUTE: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_hours(24);

/// The buckets of one model in one region.
#[derive(Debug, Clone)]
pub struct Meters {
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    daily: Option<Bucket>,
}

impl Meters {
    /// Full buckets; those of a minute hold `burst`, that of a day the whole day.
    pub fn full(quota: &Quota, burst: Duration, now: Timestamp) -> Self {
        let bucket = |limit: Option<u64>, period, burst| limit.map(|limit| Bucket::full(limit, period, burst, now));
        Self {
            requests: bucket(quota.requests_per_minute, MINUTE, burst),
            tokens: bucket(quota.tokens_per_minute, MINUTE, burst),
            daily: bucket(quota.tokens_per_day, DAY, DAY),
        }
    }

    /// Takes one request and `tokens` from all buckets, or from none.
    ///
    /// # Errors
    /// [`Exceeded`] for the first part that does not fit.
    pub fn take(&mut self, tokens: u64, now: Timestamp) -> Result<(), Exceeded> {
        let parts = [
            (Meter::Requests, &mut self.requests, 1),
            (Meter::Tokens, &mut self.tokens, tokens),
            (Meter::DailyTokens, &mut self.daily, tokens),
        ];
        for (meter, bucket, requested) in parts {
            let Some(bucket) = bucket else { continue };
            if let Err(wait) = bucket.check(requested, now) {
                return Err(Exceeded { meter, limit: bucket.limit, remaining: bucket.remaining(), requested, wait });
            }
        }
        for (bucket, amount) in [(&mut self.requests, 1), (&mut self.tokens, tokens), (&mut self.daily, tokens)] {
            if let Some(bucket) = bucket {
                bucket.take(amount);
            }
        }
        Ok(())
    }

    /// Replaces the `reserved` tokens of a call by those it is `charged` in the end.
    pub fn settle(&mut self, reserved: u64, charged: u64, now: Timestamp) {
        for bucket in [&mut self.tokens, &mut self.daily].into_iter().flatten() {
            bucket.give_back(i128::from(reserved) - i128::from(charged), now);
        }
    }

    /// What headers tell.
    pub fn rates(&mut self, now: Timestamp) -> Rates {
        Rates {
            requests: self.requests.as_mut().map(|bucket| bucket.level(now)),
            tokens: self.tokens.as_mut().map(|bucket| bucket.level(now)),
        }
    }

    /// Whether forgetting these buckets would change nothing.
    pub fn are_full(&mut self, now: Timestamp) -> bool {
        [&mut self.requests, &mut self.tokens, &mut self.daily].into_iter().flatten().all(|bucket| bucket.is_full(now))
    }
}
