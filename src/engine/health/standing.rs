//! How quotas and breakers stand, for those who look: gauges and operators.

use serde::Serialize;

use super::{Health, TargetKey};
use crate::{
    clock::Timestamp,
    engine::quotas::at_rate,
    ids::JobId,
    metrics::{BreakerReading, BreakerState, Metrics, QuotaKind, QuotaReading},
    money::Usd,
    quota::{Blocked, BreakerPhase, Limit, LineIx, Standing},
};

/// How one quota stands.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct QuotaStanding {
    /// Its name: account, region, reach and model; or a pool.
    pub quota: String,
    /// Every limit in force, and where it comes from.
    pub limits: Vec<Standing>,
    /// Calls in flight.
    pub in_flight: u32,
    /// Jobs in line.
    pub waiting: usize,
    /// Since when somebody has always had to wait.
    pub exhausted_since: Option<Timestamp>,
    /// Until when nothing goes, and why.
    pub closed: Option<Closed>,
}

/// A quota that nothing may use for a while.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Closed {
    /// Until when.
    pub until: Timestamp,
    /// Why.
    pub why: Limit,
}

/// Where a job waits.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::engine) struct PlaceInLine {
    quota: String,
    others: usize,
    blocked: Option<Blocked>,
    about: Option<Timestamp>,
}

impl PlaceInLine {
    /// For somebody who asks why.
    pub(in crate::engine) fn in_words(&self) -> String {
        let Self { quota, others, blocked, about } = self;
        let what = blocked.map_or("it goes as soon as it is its turn".to_owned(), |blocked| {
            format!("{} lets the next one go at {}", blocked.by.in_words(), blocked.until)
        });
        let about = about.map_or(String::new(), |about| format!("; its own turn is expected by about {about}"));
        format!("it waits in line for the quota {quota}, with {others} others: {what}{about}")
    }
}

impl Health {
    /// Every quota in use.
    pub fn quotas(&self, now: Timestamp) -> Vec<QuotaStanding> {
        let mut floor = self.lock();
        let mut standings = Vec::new();
        for place in 0..floor.room.accounts.len() {
            let line = LineIx(u32::try_from(place).unwrap_or(u32::MAX));
            let in_line = floor.scheduler.line(line);
            let Some(account) = floor.room.accounts.get_mut(place) else { break };
            standings.push(QuotaStanding {
                quota: account.name.clone(),
                limits: account.allowance.standings(now),
                in_flight: account.allowance.in_flight(),
                waiting: in_line.waiting,
                exhausted_since: in_line.exhausted_since,
                closed: account.allowance.closed_until(now).map(|(until, why)| Closed { until, why }),
            });
        }
        standings.sort_by(|one, other| one.quota.cmp(&other.quota));
        standings
    }

    /// Where a job waits, if it does.
    pub(in crate::engine) fn place_of(&self, job: JobId, now: Timestamp) -> Option<PlaceInLine> {
        let mut floor = self.lock();
        let ticket = *floor.room.waiters.iter().find(|(_, waiter)| waiter.job == job)?.0;
        let line = floor.scheduler.ask(ticket)?.line;
        let others = floor.scheduler.line(line).waiting.saturating_sub(1);
        Some(floor.place(line, others, now))
    }

    /// The most that the call of a job in line may cost.
    pub(in crate::engine) fn price_of(&self, job: JobId) -> Option<Usd> {
        let floor = self.lock();
        let waiter = floor.room.waiters.values().find(|waiter| waiter.job == job)?;
        waiter.ways.first()?.most_cost
    }

    /// How it looks to a job that would go to a target now, if it would have to wait.
    pub(in crate::engine) fn line_of(&self, key: &TargetKey, now: Timestamp) -> Option<PlaceInLine> {
        let mut floor = self.lock();
        let line = floor.room.of(key, now).line;
        let others = floor.scheduler.line(line).waiting;
        let mut place = floor.place(line, others, now);
        // Where nobody stands in line, nobody has been told yet.
        let closed = floor.room.allowance(line).and_then(|allowance| allowance.closed_until(now));
        place.blocked = place.blocked.or(closed.map(|(until, by)| Blocked { by, until }));
        place.blocked.is_some().then_some(place)
    }

    /// The quota of a target, and its rates a minute: of requests and of tokens.
    pub(in crate::engine) fn rates_of(&self, key: &TargetKey, now: Timestamp) -> (String, (Option<f64>, Option<f64>)) {
        let mut floor = self.lock();
        let line = floor.room.of(key, now).line;
        let account = floor.room.accounts.get(line.0 as usize);
        account.map_or_else(Default::default, |account| {
            // A rate that is still being felt out foretells nothing.
            let known = account.allowance.is_known();
            (account.name.clone(), if known { account.allowance.rates() } else { (None, None) })
        })
    }

    /// Forgets what was learned of a quota.
    pub(in crate::engine) fn forget(&self, name: &str, now: Timestamp) {
        let mut floor = self.lock();
        for account in floor.room.accounts.iter_mut().filter(|account| account.name == name) {
            account.allowance.forget(now);
            account.written = account.allowance.learned(now);
        }
        floor.scheduler.stir_all();
        drop(floor);
        self.something_changed();
    }

    /// Sets the gauges of quotas and breakers.
    pub(in crate::engine) fn observe(&self, metrics: &Metrics, now: Timestamp) {
        let mut floor = self.lock();
        let mut breakers = Vec::new();
        let mut quotas = Vec::new();
        let keys: Vec<TargetKey> = floor.room.conditions.keys().cloned().collect();
        for key in keys {
            let condition = floor.room.of(&key, now);
            let state = match condition.breaker.phase(now) {
                BreakerPhase::Closed => BreakerState::Closed,
                BreakerPhase::HalfOpen => BreakerState::HalfOpen,
                BreakerPhase::Open => BreakerState::Open,
            };
            let line = condition.line;
            let limits = floor.room.allowance(line).map(|allowance| allowance.standings(now)).unwrap_or_default();
            for standing in limits {
                let kind = match standing.limit {
                    Limit::RequestsPerMinute => QuotaKind::RequestsPerMinute,
                    Limit::TokensPerMinute => QuotaKind::TokensPerMinute,
                    Limit::TokensPerDay => QuotaKind::TokensPerDay,
                    Limit::Concurrency => QuotaKind::Concurrency,
                    _ => continue,
                };
                quotas.push((key.clone(), kind, standing.used));
            }
            breakers.push((key, state));
        }
        drop(floor);
        metrics.set_breakers(breakers.iter().map(|(key, state)| BreakerReading {
            provider: &key.provider,
            model: &key.model,
            region: key.region.as_ref(),
            state: *state,
        }));
        metrics.set_quotas(quotas.iter().map(|(key, kind, used)| QuotaReading {
            provider: &key.provider,
            model: &key.model,
            region: key.region.as_ref(),
            kind: *kind,
            used: *used,
        }));
    }
}

impl super::Floor {
    fn place(&mut self, line: LineIx, others: usize, now: Timestamp) -> PlaceInLine {
        let blocked = self.scheduler.line(line).blocked;
        let account = self.room.accounts.get(line.0 as usize);
        let quota = account.map_or(String::new(), |account| account.name.clone());
        let rate = account.and_then(|account| account.allowance.rates().0).filter(|rate| *rate > 0.0);
        let first = blocked.map_or(now, |blocked| blocked.until.max(now));
        let about = rate.map(|rate| first + at_rate(others as f64, Some(rate)));
        PlaceInLine { quota, others, blocked, about }
    }
}
