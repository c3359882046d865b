//! What one provider grants for one model: requests and tokens a minute, and calls at once.
//!
//! Invariant: a call's whole demand is booked or nothing is. Whoever is told a time waits until then and goes, without
//! asking again; what is not used is given back.

#[cfg(test)]
mod tests;

use std::time::Duration;

use rust_decimal::{Decimal, prelude::ToPrimitive};

use super::{bucket::Bucket, grant::Demand};
use crate::clock::Timestamp;

/// Buckets hold what refills in this time: what providers' own buckets are known to allow.
const BURST: Duration = Duration::from_secs(1);
/// Nothing is booked further ahead than this: who comes later asks again later.
const HORIZON: Duration = Duration::from_mins(10);
/// A provider's wish to be left alone is believed up to this long.
const LONGEST_PENALTY: Duration = Duration::from_hours(1);
/// When to ask again while as many calls are in flight as may be: nobody knows when one ends.
const ASK_AGAIN: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

/// What a provider grants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Requests a minute; unlimited when absent.
    pub requests_per_minute: Option<u64>,
    /// Tokens a minute; unlimited when absent.
    pub tokens_per_minute: Option<u64>,
    /// Calls in flight at once; unlimited when absent.
    pub concurrency: Option<u32>,
    /// Ours of it, in (0, 1].
    pub share: Decimal,
}

/// Whether a call may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Now; its demand is booked.
    Now,
    /// At this time; its demand is booked.
    At(Timestamp),
    /// Nothing is booked: ask again then. As many calls are in flight as may be, the bookings already reach too far
    /// ahead, or a rate is zero.
    Later(Timestamp),
}

/// How much of each quota the last minute used, 0 to 1; `None` where there is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Utilization {
    /// Of the requests.
    pub requests: Option<f64>,
    /// Of the tokens.
    pub tokens: Option<f64>,
    /// Of the calls at once, now.
    pub concurrency: Option<f64>,
}

/// The quotas of one provider's model.
#[derive(Debug, Clone)]
pub struct Limiter {
    requests: Option<Rate>,
    tokens: Option<Rate>,
    concurrency: Option<u32>,
    in_flight: u32,
    penalty: Option<Penalty>,
}

#[derive(Debug, Clone, Copy)]
struct Penalty {
    since: Timestamp,
    until: Timestamp,
}

impl Limiter {
    /// A limiter whose buckets are full.
    pub fn new(rates: Rates, now: Timestamp) -> Self {
        let mut limiter = Self { requests: None, tokens: None, concurrency: None, in_flight: 0, penalty: None };
        limiter.set_rates(rates, now);
        limiter
    }

    /// Changes what is granted from now on; what was used stays used.
    pub fn set_rates(&mut self, rates: Rates, now: Timestamp) {
        let share = rates.share.to_f64().unwrap_or(1.0).clamp(0.0, 1.0);
        Rate::set(&mut self.requests, rates.requests_per_minute, share, now);
        Rate::set(&mut self.tokens, rates.tokens_per_minute, share, now);
        self.concurrency = rates.concurrency.map(|calls| {
            let ours = (f64::from(calls) * share).floor().to_u32().unwrap_or(calls);
            // A share of few is still one; none at all stays none.
            ours.max(calls.min(1))
        });
    }

    /// Books a call's whole demand, and says when it may go.
    pub fn reserve(&mut self, now: Timestamp, demand: Demand) -> Admission {
        if let Some(most) = self.concurrency
            && self.in_flight >= most
        {
            return Admission::Later(now + if most == 0 { MINUTE } else { ASK_AGAIN });
        }
        let start = self.start(now);
        let mut at = start;
        for (rate, amount) in [(&mut self.requests, demand.requests), (&mut self.tokens, demand.tokens)] {
            let Some(rate) = rate else { continue };
            match rate.bucket.when(start, amount) {
                Some(time) => at = at.max(time),
                None if amount == 0 => {}
                None => return Admission::Later(now + MINUTE),
            }
        }
        if now.until(at) > HORIZON {
            return Admission::Later(now + HORIZON);
        }
        for (rate, amount) in [(&mut self.requests, demand.requests), (&mut self.tokens, demand.tokens)] {
            if let Some(rate) = rate {
                rate.bucket.book(at, amount);
                rate.meter.add(now, amount);
            }
        }
        self.in_flight = self.in_flight.saturating_add(1);
        if at <= now { Admission::Now } else { Admission::At(at) }
    }

    /// A booked call was not sent: gives all of it back.
    pub fn refund(&mut self, demand: Demand) {
        self.in_flight = self.in_flight.saturating_sub(1);
        for (rate, amount) in [(&mut self.requests, demand.requests), (&mut self.tokens, demand.tokens)] {
            if let Some(rate) = rate {
                rate.bucket.cancel(amount);
                rate.meter.current -= amount as f64;
            }
        }
    }

    /// A booked call ended: `actual` tokens are charged instead of those booked, where known. More than was booked leaves
    /// a debt that the next calls wait for.
    pub fn settle(&mut self, demand: Demand, actual: Option<u64>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let (Some(rate), Some(actual)) = (&mut self.tokens, actual) {
            rate.correct(demand.tokens, actual);
        }
    }

    /// The provider wants to be left alone until then (an hour at most): nothing new is booked for earlier, and afterwards
    /// calls go at the rate, not all at once. Calls already booked keep their time; see [`Limiter::not_before`].
    pub fn penalise(&mut self, now: Timestamp, until: Timestamp) {
        let until = until.min(now + LONGEST_PENALTY).max(self.start(now));
        if until <= now {
            return;
        }
        self.penalty = Some(Penalty { since: now, until });
        for rate in [&mut self.requests, &mut self.tokens].into_iter().flatten() {
            rate.bucket.stop_until(until);
        }
    }

    /// Until when the provider wants to be left alone, if it does now.
    pub fn not_before(&mut self, now: Timestamp) -> Option<Timestamp> {
        Some(self.start(now)).filter(|start| *start > now)
    }

    /// How much of each quota is used.
    pub fn utilization(&self, now: Timestamp) -> Utilization {
        let used = |rate: &Option<Rate>| rate.as_ref().map(|rate| rate.used(now));
        let concurrency = self.concurrency.map(|most| share_of(f64::from(self.in_flight), f64::from(most)));
        Utilization { requests: used(&self.requests), tokens: used(&self.tokens), concurrency }
    }

    /// Whether tokens are limited, so that it is worth estimating them.
    pub fn counts_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    /// From when on calls may go, rates aside.
    fn start(&mut self, now: Timestamp) -> Timestamp {
        match self.penalty {
            // Over, or set at a time that the clock has since gone back behind.
            Some(penalty) if penalty.until <= now || now < penalty.since => {
                self.penalty = None;
                now
            }
            Some(penalty) => penalty.until,
            None => now,
        }
    }
}

/// One limit by the minute.
#[derive(Debug, Clone)]
struct Rate {
    per_minute: f64,
    bucket: Bucket,
    meter: Meter,
}

impl Rate {
    fn set(slot: &mut Option<Self>, granted: Option<u64>, share: f64, now: Timestamp) {
        let Some(granted) = granted else {
            *slot = None;
            return;
        };
        let per_minute = granted as f64 * share;
        match slot {
            Some(rate) => {
                rate.per_minute = per_minute;
                rate.bucket.set_rate(per_minute, BURST, now);
            }
            None => {
                *slot = Some(Self { per_minute, bucket: Bucket::new(per_minute, BURST, now), meter: Meter::new(now) });
            }
        }
    }

    fn correct(&mut self, booked: u64, actual: u64) {
        if actual > booked {
            self.bucket.charge(actual - booked);
        } else {
            self.bucket.give_back(booked - actual);
        }
        self.meter.current += actual as f64 - booked as f64;
    }

    fn used(&self, now: Timestamp) -> f64 {
        share_of(self.meter.last_minute(now), self.per_minute)
    }
}

/// Of nothing, anything is all.
fn share_of(used: f64, granted: f64) -> f64 {
    if granted > 0.0 { (used / granted).clamp(0.0, 1.0) } else { 1.0 }
}

/// About how much went in the last minute: this minute's count, and the last one's in proportion.
#[derive(Debug, Clone)]
struct Meter {
    since: Timestamp,
    current: f64,
    previous: f64,
}

impl Meter {
    fn new(now: Timestamp) -> Self {
        Self { since: now, current: 0.0, previous: 0.0 }
    }

    fn add(&mut self, now: Timestamp, amount: u64) {
        let age = now.since(self.since);
        if age >= MINUTE || now < self.since {
            self.previous = if age < 2 * MINUTE { self.current } else { 0.0 };
            self.current = 0.0;
            self.since = if age < 2 * MINUTE && now >= self.since { self.since + MINUTE } else { now };
        }
        self.current += amount as f64;
    }

    fn last_minute(&self, now: Timestamp) -> f64 {
        let (old, new, age) = match now.since(self.since) {
            age if age < MINUTE => (self.previous, self.current, age),
            age if age < 2 * MINUTE => (self.current, 0.0, age.saturating_sub(MINUTE)),
            _ => return 0.0,
        };
        old * (1.0 - age.as_secs_f64() / 60.0) + new
    }
}
