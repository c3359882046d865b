//! When work would be done, and what it would cost, under the quotas of this moment.
//!
//! Invariant: an estimate and called one: sizes by the cheap estimate, answers as long as their bound, nobody else at
//! work. Nothing is stored or called.

use std::{collections::BTreeMap, time::Duration};

use rust_decimal::Decimal;
use serde::Serialize;

use super::{
    Engine,
    health::{TargetKey, demand},
    intake::IntakeError,
    quotas::{Rates, at_rate},
    size,
    spending::BudgetStanding,
};
use crate::{
    catalog::Tier,
    clock::Timestamp,
    job::{Envelope, State},
    money::Usd,
    names::PipelineName,
    quota::Period,
};

/// What is ahead under one quota.
#[derive(Debug, Clone, PartialEq, Serialize, Default, schemars::JsonSchema)]
pub struct Ahead {
    /// Jobs asked about.
    pub jobs: u64,
    /// Jobs that are queued already, by pipelines that would use it first.
    pub queued: u64,
    /// Tokens that the jobs asked about reserve.
    pub tokens: u64,
    /// When the last would have gone, in seconds from now; `None` when nothing limits it, or nothing is known yet.
    pub seconds: Option<u64>,
    /// Requests a minute, where that is known.
    pub requests_per_minute: Option<f64>,
    /// Tokens a minute, where that is known.
    pub tokens_per_minute: Option<f64>,
}

impl Ahead {
    /// How long all of it takes; `None` when nothing limits it, or nothing is known yet.
    pub fn takes(&self) -> Option<Duration> {
        if self.requests_per_minute.is_none() && self.tokens_per_minute.is_none() {
            return None;
        }
        let all = (self.jobs + self.queued) as f64;
        let each = if self.jobs == 0 { 0.0 } else { self.tokens as f64 / self.jobs as f64 };
        Some(at_rate(all, self.requests_per_minute).max(at_rate(all * each, self.tokens_per_minute)))
    }
}

/// A budget that the jobs would be paid from.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct BudgetAhead {
    /// What it is by.
    pub period: Period,
    /// What is left of it.
    pub left_usd: Usd,
    /// The most that the jobs asked about may cost it, as far as prices are known.
    pub cost_at_most_usd: Usd,
    /// When the next one begins.
    pub opens_at: Timestamp,
}

/// A job that would not be taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Refused {
    /// Its place among those asked about, from 0.
    pub job: usize,
    /// Why.
    pub message: String,
}

/// A forecast.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Forecast {
    /// When it was made.
    pub at: Timestamp,
    /// When the last job would have gone; `None` where nothing limits it, or nothing is known yet.
    pub done_at: Option<Timestamp>,
    /// The most that the jobs asked about may cost; `None` when a price is not known.
    pub cost_at_most_usd: Option<Usd>,
    /// Jobs asked about that no target would take, or that would be held.
    pub not_dispatched: u64,
    /// Jobs asked about that no pipeline would take.
    pub refused: Vec<Refused>,
    /// By quota.
    pub quotas: BTreeMap<String, Ahead>,
    /// By pipeline: the budget of which the least is left.
    pub budgets: BTreeMap<PipelineName, BudgetAhead>,
    /// What it rests on.
    pub assumes: &'static str,
}

const ASSUMES: &str = "sizes are estimated, every answer is as long as it may be, queued jobs are as large as those asked \
                       about on average, and nobody else uses the quotas";

impl Engine {
    /// When jobs would be done behind what is queued, and what they would cost.
    ///
    /// # Errors
    /// [`IntakeError`] when the queue cannot be counted.
    pub async fn forecast(&self, jobs: &[Envelope]) -> Result<Forecast, IntakeError> {
        let now = self.now();
        let world = self.world();
        let mut quotas: BTreeMap<String, Ahead> = BTreeMap::new();
        let mut rates: BTreeMap<String, Rates> = BTreeMap::new();
        let mut cost = Some(Usd::ZERO);
        let mut not_dispatched = 0;
        let mut refused = Vec::new();
        let mut by_pipeline: BTreeMap<PipelineName, Usd> = BTreeMap::new();
        for (place, envelope) in jobs.iter().enumerate() {
            let foreseen = match world.foresee(envelope, size::estimate) {
                Ok(foreseen) => foreseen,
                Err(error) => {
                    refused.push(Refused { job: place, message: error.to_string() });
                    continue;
                }
            };
            let Some(first) = foreseen.chain.iter().find_map(|way| way.prepared.as_ref().ok().map(|it| (way, it)))
            else {
                not_dispatched += 1;
                continue;
            };
            let (way, prepared) = first;
            let (name, rate) = self.health.rates_of(&TargetKey::of(&way.target), now);
            let demand = demand(&way.target, prepared, way.size.prompt.most);
            rates.insert(name.clone(), rate);
            let ahead = quotas.entry(name).or_default();
            ahead.jobs += 1;
            ahead.tokens = ahead.tokens.saturating_add(demand.tokens);
            let output = way.max_output_tokens().or_else(|| way.model.as_ref()?.max_output_tokens);
            let multiplier = self.prices.load().get(&way.target.provider).copied().unwrap_or(Decimal::ONE);
            let most = output.and_then(|output| {
                let tokens = (way.size.prompt.most, output);
                world.snapshot.catalog.cost_at_most(
                    way.target.api,
                    &way.target.model,
                    tokens,
                    Tier::Standard,
                    multiplier,
                )
            });
            *by_pipeline.entry(foreseen.pipeline.clone()).or_default() += most.unwrap_or_default();
            cost = cost.zip(most).map(|(sum, most)| sum + most);
        }
        for ((pipeline, state), count) in
            self.store.counts().await.map_err(|error| IntakeError::Store(error.to_string()))?
        {
            if matches!(state, State::Queued | State::Waiting | State::Running)
                && let Some((name, rate)) = self.first_quota(&pipeline, now)
            {
                rates.insert(name.clone(), rate);
                quotas.entry(name).or_default().queued += count;
            }
        }
        let mut longest: Option<Duration> = None;
        for (name, ahead) in &mut quotas {
            (ahead.requests_per_minute, ahead.tokens_per_minute) = rates.get(name).copied().unwrap_or_default();
            let Some(takes) = ahead.takes() else { continue };
            ahead.seconds = Some(takes.as_secs());
            longest = Some(longest.map_or(takes, |longest| longest.max(takes)));
        }
        let budgets = by_pipeline
            .into_iter()
            .filter_map(|(pipeline, cost)| Some((pipeline.clone(), self.budget_ahead(&pipeline, cost, now)?)))
            .collect();
        Ok(Forecast {
            at: now,
            done_at: longest.map(|takes| now + takes),
            cost_at_most_usd: cost,
            not_dispatched,
            refused,
            quotas,
            budgets,
            assumes: ASSUMES,
        })
    }

    /// What is left of a pipeline's budget, where it has one.
    fn budget_ahead(&self, pipeline: &PipelineName, cost_at_most_usd: Usd, now: Timestamp) -> Option<BudgetAhead> {
        let world = self.world();
        let budget = world.lane(pipeline)?.loaded.pipeline.budget?;
        let standings = self.spending.standings(pipeline, &budget.into(), now);
        let left = |standing: BudgetStanding| BudgetAhead {
            period: standing.period,
            left_usd: (standing.cap - standing.spent).max(Usd::ZERO),
            cost_at_most_usd,
            opens_at: standing.period.next(now),
        };
        standings.into_iter().map(left).min_by_key(|ahead| ahead.left_usd)
    }

    /// The quota of the target that most jobs of a pipeline would go to first: that of its last rule.
    fn first_quota(&self, pipeline: &PipelineName, now: Timestamp) -> Option<(String, Rates)> {
        let world = self.world();
        let spec = &world.lane(pipeline)?.loaded.pipeline;
        let ix = match spec.route.last()?.to {
            crate::spec::Destination::Target(ix) => ix,
            crate::spec::Destination::Rollout(ix) => spec.rollout(ix).baseline,
        };
        Some(self.health.rates_of(&TargetKey::of(spec.target(ix)), now))
    }
}
