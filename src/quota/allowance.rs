//! What one provider account grants for one model, as far as it is known: a call takes its whole demand from every limit
//! at once, or nothing.
//!
//! Invariant: what is not known is learned, and what was told wrong is found out; every reaction to a provider's words
//! is bounded (an hour for a wish to be left alone, a day for tokens of a day) and can be told in words. What a call took
//! is given back only when nothing was sent.

#[cfg(test)]
mod tests;

use std::time::Duration;

use rust_decimal::prelude::ToPrimitive;
use serde::{Deserialize, Serialize};

use super::{
    crowd::Crowd,
    day::{Day, next_day},
    grant::{Blocked, Demand, Grant, Limit},
    ramp::Ramp,
    rate::{LearnedRate, Mark, Rate, Source, Told},
};
use crate::clock::Timestamp;

/// A provider's wish to be left alone is believed up to this long.
pub const LONGEST_WISH: Duration = Duration::from_hours(1);
/// Nothing closes an account for longer.
const LONGEST_CLOSURE: Duration = Duration::from_hours(24);
/// When to ask again while as many calls are in flight as may be: one that ends asks earlier.
const ASK_AGAIN: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

/// The right to send one call; to be settled or cancelled.
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use = "a reservation that is not settled is held for good"]
pub struct Reservation {
    /// When it was made.
    pub at: Timestamp,
    number: u64,
    requests: Mark,
    tokens: Mark,
}

/// Which limit a provider says that it turned a call away for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Throttle {
    /// It did not say.
    #[default]
    Unsaid,
    /// Too many requests.
    Requests,
    /// Too many tokens.
    Tokens,
    /// The day's tokens are used up.
    TokensPerDay,
    /// The account has nothing left until somebody pays.
    Exhausted,
    /// Too many calls at once.
    Concurrency,
}

/// How a call ended, as far as quotas are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verdict {
    /// It was answered.
    Answered,
    /// It was turned away, with the provider's hint when to come back.
    Throttled(Throttle, Option<Duration>),
    /// The endpoint was too busy.
    Overloaded,
    /// It says nothing of quotas.
    #[default]
    Other,
}

/// The end of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ending {
    /// How.
    pub verdict: Verdict,
    /// Tokens charged instead of those reserved, where the provider corrects them.
    pub charged: Option<u64>,
    /// What headers say of requests.
    pub requests: Told,
    /// What headers say of tokens.
    pub tokens: Told,
}

/// What survives a restart.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Learned {
    /// Of requests.
    #[serde(default)]
    pub requests: LearnedRate,
    /// Of tokens.
    #[serde(default)]
    pub tokens: LearnedRate,
    /// The day, and the tokens used in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day: Option<(Timestamp, u64)>,
    /// Until when it is closed, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<(Timestamp, Limit)>,
    /// Calls at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
}

/// How one limit stands.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Standing {
    /// Which.
    pub limit: Limit,
    /// What is in force: a minute, a day, or at once.
    pub in_force: f64,
    /// Where that comes from.
    pub source: Source,
    /// How much of it is used, 0 to 1.
    pub used: f64,
}

/// The limits of one key.
#[derive(Debug, Clone)]
pub struct Allowance {
    grant: Grant,
    requests: Rate,
    tokens: Rate,
    day: Day,
    crowd: Crowd,
    ramp: Option<Ramp>,
    in_flight: u32,
    /// Calls sent so far.
    sent: u64,
    closed: Option<Closure>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Closure {
    since: Timestamp,
    until: Timestamp,
    why: Limit,
}

impl Allowance {
    /// Nothing used yet; buckets are full.
    pub fn new(grant: Grant, now: Timestamp) -> Self {
        let mut allowance = Self {
            grant,
            requests: Rate::new(now),
            tokens: Rate::new(now),
            day: Day::new(now),
            crowd: Crowd::default(),
            ramp: None,
            in_flight: 0,
            sent: 0,
            closed: None,
        };
        allowance.set_grant(grant, now);
        allowance
    }

    /// Changes what is granted from now on; what was used stays used.
    pub fn set_grant(&mut self, grant: Grant, now: Timestamp) {
        let share = share_of(&grant);
        if grant.ramp != self.ramp.is_some() {
            self.ramp = grant.ramp.then(|| Ramp::new(now));
        }
        if !grant.ramp {
            self.tokens.set_ramp(now, None);
        }
        if grant != self.grant {
            // Somebody knows better now than a closure of the past does.
            self.closed = None;
        }
        self.grant = grant;
        self.requests.grant(now, grant.requests_per_minute, share, grant.burst);
        self.tokens.grant(now, grant.tokens_per_minute, share, grant.burst);
        if !grant.names_a_rate() {
            self.requests.seek(now, self.sent);
        }
    }

    /// What is granted.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Goes on with what was learned earlier, as far as it makes sense.
    pub fn restore(&mut self, now: Timestamp, learned: &Learned) {
        self.requests.restore(now, learned.requests, self.sent);
        self.tokens.restore(now, learned.tokens, self.sent);
        if let Some((start, used)) = learned.day {
            self.day = Day::restored(now, start, used);
        }
        if let Some((until, why)) = learned.closed {
            self.close(now, until.min(now + LONGEST_CLOSURE), why);
        }
        if let Some(most) = learned.concurrency {
            self.crowd = Crowd::restored(most);
        }
    }

    /// Forgets what was learned: as if it had just been made.
    pub fn forget(&mut self, now: Timestamp) {
        let (in_flight, sent, day) = (self.in_flight, self.sent, self.day);
        *self = Self { day, in_flight, sent, ..Self::new(self.grant, now) };
    }

    /// What should survive a restart.
    pub fn learned(&mut self, now: Timestamp) -> Learned {
        let (start, used) = self.day.used(now);
        Learned {
            requests: self.requests.learned(),
            tokens: self.tokens.learned(),
            day: self.grant.tokens_per_day.map(|_| (start, used)),
            closed: self.closed(now).filter(|closure| now.until(closure.until) > MINUTE).map(|it| (it.until, it.why)),
            concurrency: self.crowd.most(),
        }
    }

    /// Whether and when a call may go, taking nothing.
    ///
    /// # Errors
    /// [`Blocked`] by the limit that lets it go last.
    pub fn check(&mut self, now: Timestamp, demand: Demand) -> Result<(), Blocked> {
        if let Some(closure) = self.closed(now) {
            return Err(Blocked { by: closure.why, until: closure.until });
        }
        if let Some(most) = self.concurrency()
            && self.in_flight >= most
        {
            let until = now + if most == 0 { MINUTE } else { ASK_AGAIN };
            return Err(Blocked { by: Limit::Concurrency, until });
        }
        self.follow_ramp(now);
        let share = share_of(&self.grant);
        let day = match self.grant.tokens_per_day {
            Some(limit) => {
                let ours = (limit as f64 * share).to_u64().unwrap_or(limit);
                self.day.when(now, demand.tokens, ours)
            }
            None => Some(now),
        };
        let times = [
            (Limit::RequestsPerMinute, self.requests.when(now, demand.requests, self.sent), demand.requests),
            (Limit::TokensPerMinute, self.tokens.when(now, demand.tokens, self.sent), demand.tokens),
            (Limit::TokensPerDay, day, demand.tokens),
        ];
        let last = times
            .into_iter()
            .filter_map(|(by, when, amount)| match when {
                Some(until) => Some(Blocked { by, until }),
                // A rate of zero keeps out all but what takes nothing.
                None => (amount > 0).then_some(Blocked { by, until: now + MINUTE }),
            })
            .max_by_key(|blocked| blocked.until);
        match last {
            Some(blocked) if blocked.until > now => Err(blocked),
            _ => Ok(()),
        }
    }

    /// Takes a call's whole demand.
    ///
    /// # Errors
    /// [`Blocked`]; nothing is taken.
    pub fn admit(&mut self, now: Timestamp, demand: Demand) -> Result<Reservation, Blocked> {
        self.check(now, demand)?;
        Ok(self.take(now, demand))
    }

    /// Takes a call's whole demand after a [`Allowance::check`] at the same moment.
    pub fn take(&mut self, now: Timestamp, demand: Demand) -> Reservation {
        let number = self.sent;
        self.sent += 1;
        self.in_flight = self.in_flight.saturating_add(1);
        self.day.take(demand.tokens);
        Reservation {
            at: now,
            number,
            requests: self.requests.take(now, demand.requests),
            tokens: self.tokens.take(now, demand.tokens),
        }
    }

    /// Nothing was sent: gives everything back.
    pub fn cancel(&mut self, reservation: Reservation) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.requests.give_back(reservation.requests);
        self.tokens.give_back(reservation.tokens);
        self.day.correct(reservation.at, reservation.tokens.amount, 0);
    }

    /// A call ended: charges what it used, and learns from what the provider said.
    pub fn settle(&mut self, now: Timestamp, reservation: Reservation, ending: &Ending) {
        let in_flight = self.in_flight;
        self.in_flight = in_flight.saturating_sub(1);
        let Reservation { at, number, requests, tokens } = reservation;
        if let Some(charged) = ending.charged {
            self.tokens.settle(tokens, charged);
            self.day.correct(at, tokens.amount, charged);
        }
        self.requests.hear(now, at, requests, ending.requests);
        self.tokens.hear(now, at, tokens, ending.tokens);
        match ending.verdict {
            Verdict::Answered => self.crowd.answered(in_flight),
            // Where a rate is known, a busy provider is its own affair: the breaker sees to that.
            Verdict::Overloaded if self.requests.known().is_none() && self.tokens.known().is_none() => {
                self.crowd.overloaded(number, in_flight, self.sent);
            }
            Verdict::Overloaded => {}
            Verdict::Throttled(Throttle::Concurrency, _) => self.crowd.overloaded(number, in_flight, self.sent),
            Verdict::Throttled(kind, hint) => self.throttled(now, reservation, kind, hint),
            Verdict::Other => {}
        }
    }

    fn throttled(&mut self, now: Timestamp, reservation: Reservation, kind: Throttle, hint: Option<Duration>) {
        let Reservation { at, number, requests, tokens } = reservation;
        match kind {
            Throttle::TokensPerDay => {
                // The provider's own word on its day, where it gives one; days differ.
                let until = hint.map_or_else(|| next_day(now), |hint| now + hint.min(LONGEST_CLOSURE));
                return self.close(now, until, Limit::TokensPerDay);
            }
            Throttle::Exhausted => {
                let until = now + hint.unwrap_or(LONGEST_WISH).min(LONGEST_CLOSURE);
                return self.close(now, until, Limit::Exhausted);
            }
            Throttle::Tokens => self.tokens.throttled(now, at, tokens, number, self.sent),
            Throttle::Requests => self.requests.throttled(now, at, requests, number, self.sent),
            Throttle::Unsaid | Throttle::Concurrency => {
                // What is known to be limited is the likelier culprit.
                if self.tokens.is_limited() && !self.requests.is_limited() {
                    self.tokens.throttled(now, at, tokens, number, self.sent);
                } else {
                    self.requests.throttled(now, at, requests, number, self.sent);
                }
            }
        }
        if let Some(hint) = hint {
            self.close(now, now + hint.min(LONGEST_WISH), Limit::RetryAfter);
        }
    }

    /// Lets nothing go before `until`; a shorter closure does not shorten a longer one.
    pub fn close(&mut self, now: Timestamp, until: Timestamp, why: Limit) {
        if until <= now || self.closed(now).is_some_and(|closure| closure.until >= until) {
            return;
        }
        self.closed = Some(Closure { since: now, until, why });
        self.requests.stop_until(now, until);
        self.tokens.stop_until(now, until);
    }

    /// The provider serves again after a silence: calls begin at the rate, not with all that was saved up.
    pub fn reopen(&mut self, now: Timestamp) {
        self.requests.reopen(now);
        self.tokens.reopen(now);
    }

    /// Until when nothing may go, and why, if that is so now.
    pub fn closed_until(&mut self, now: Timestamp) -> Option<(Timestamp, Limit)> {
        self.closed(now).map(|closure| (closure.until, closure.why))
    }

    /// Whether tokens are counted, so that it is worth estimating them.
    pub fn counts_tokens(&self) -> bool {
        self.tokens.is_limited() || self.grant.tokens_per_day.is_some() || self.ramp.is_some()
    }

    /// Whether a rate is known: told, or measured.
    pub fn is_known(&self) -> bool {
        self.requests.is_known() || self.tokens.is_known()
    }

    /// Calls in flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Every limit in force.
    pub fn standings(&mut self, now: Timestamp) -> Vec<Standing> {
        let mut standings = Vec::new();
        for (limit, rate) in [(Limit::RequestsPerMinute, &self.requests), (Limit::TokensPerMinute, &self.tokens)] {
            if let (Some((in_force, source)), Some(used)) = (rate.in_force(), rate.used(now)) {
                standings.push(Standing { limit, in_force, source, used });
            }
        }
        if let Some(limit) = self.grant.tokens_per_day {
            let in_force = limit as f64 * share_of(&self.grant);
            let (_, used) = self.day.used(now);
            let (limit, source) = (Limit::TokensPerDay, Source::Granted);
            standings.push(Standing { limit, in_force, source, used: part(used as f64, in_force) });
        }
        if let Some(most) = self.concurrency() {
            let source = if self.grant.concurrency.is_some() { Source::Granted } else { Source::Learned };
            let used = part(f64::from(self.in_flight), f64::from(most));
            standings.push(Standing { limit: Limit::Concurrency, in_force: f64::from(most), source, used });
        }
        standings
    }

    /// The rates in force, a minute: of requests and of tokens.
    pub fn rates(&self) -> (Option<f64>, Option<f64>) {
        (self.requests.in_force().map(|(rate, _)| rate), self.tokens.in_force().map(|(rate, _)| rate))
    }

    fn concurrency(&self) -> Option<u32> {
        let granted = self.grant.concurrency.map(|calls| {
            let ours = (f64::from(calls) * share_of(&self.grant)).floor().to_u32().unwrap_or(calls);
            // A share of few is still one; none at all stays none.
            ours.max(calls.min(1))
        });
        granted.into_iter().chain(self.crowd.most()).min()
    }

    fn follow_ramp(&mut self, now: Timestamp) {
        if let Some(ramp) = &mut self.ramp {
            let allowed = ramp.allowed(now, self.tokens.last_minute(now));
            self.tokens.set_ramp(now, Some(allowed));
        }
    }

    /// The closure in force; one set at a time that the clock has since gone back behind is over.
    fn closed(&mut self, now: Timestamp) -> Option<Closure> {
        self.closed = self.closed.filter(|closure| closure.since <= now && now < closure.until);
        self.closed
    }
}

/// What a call takes of the scarcer limit, in microseconds of its rate: what turns are counted in.
pub fn rate_cost(allowance: &Allowance, demand: Demand) -> u64 {
    let (requests, tokens) = allowance.rates();
    let part =
        |amount: u64, rate: Option<f64>| rate.filter(|rate| *rate > 0.0).map_or(0.0, |rate| amount as f64 / rate);
    let minutes = part(demand.requests, requests).max(part(demand.tokens, tokens));
    (minutes * 60e6).ceil().to_u64().unwrap_or(0).clamp(1, 3_600_000_000)
}

fn share_of(grant: &Grant) -> f64 {
    grant.share.to_f64().unwrap_or(1.0).clamp(0.0, 1.0)
}

/// Of nothing, anything is all.
fn part(used: f64, granted: f64) -> f64 {
    if granted > 0.0 { (used / granted).clamp(0.0, 1.0) } else { 1.0 }
}
