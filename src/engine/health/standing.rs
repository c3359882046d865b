//! How quotas and breakers stand, for those who look: gauges and operators.

use serde::Serialize;

use super::{Health, TargetKey};
use crate::{
    clock::Timestamp,
    metrics::{BreakerReading, BreakerState, Metrics, QuotaKind, QuotaReading},
    quota::{BreakerPhase, Limit, Standing},
};

/// How one quota stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
    pub closed: Option<(Timestamp, Limit)>,
}

impl Health {
    /// Every quota in use.
    pub fn quotas(&self, now: Timestamp) -> Vec<QuotaStanding> {
        let mut floor = self.lock();
        let mut standings = Vec::new();
        for place in 0..floor.room.accounts.len() {
            let line = crate::quota::LineIx(u32::try_from(place).unwrap_or(u32::MAX));
            let in_line = floor.scheduler.line(line);
            let Some(account) = floor.room.accounts.get_mut(place) else { break };
            standings.push(QuotaStanding {
                quota: account.name.clone(),
                limits: account.allowance.standings(now),
                in_flight: account.allowance.in_flight(),
                waiting: in_line.waiting,
                exhausted_since: in_line.exhausted_since,
                closed: account.allowance.closed_until(now),
            });
        }
        standings.sort_by(|one, other| one.quota.cmp(&other.quota));
        standings
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
