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
};
use crate::{
    catalog::Tier,
    clock::Timestamp,
    job::{Envelope, State},
    money::Usd,
    names::PipelineName,
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
    /// By quota.
    pub quotas: BTreeMap<String, Ahead>,
    /// What it rests on.
    pub assumes: &'static str,
}

const ASSUMES: &str = "sizes are estimated, every answer is as long as it may be, queued jobs are as large as those asked \
                       about on average, and nobody else uses the quotas";

impl Engine {
    /// When jobs would be done behind what is queued, and what they would cost.
    ///
    /// # Errors
    /// [`IntakeError`] when no pipeline would take one of them, or the queue cannot be counted.
    pub async fn forecast(&self, jobs: &[Envelope]) -> Result<Forecast, IntakeError> {
        let now = self.now();
        let world = self.world();
        let mut quotas: BTreeMap<String, Ahead> = BTreeMap::new();
        let mut rates: BTreeMap<String, Rates> = BTreeMap::new();
        let mut cost = Some(Usd(Decimal::ZERO));
        let mut not_dispatched = 0;
        for envelope in jobs {
            let foreseen = world.foresee(envelope, size::estimate)?;
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
            cost = cost.zip(most).map(|(sum, most)| Usd(sum.0.saturating_add(most.0)));
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
            let (requests, tokens) = rates.get(name).copied().unwrap_or_default();
            if requests.is_none() && tokens.is_none() {
                continue;
            }
            let all = ahead.jobs + ahead.queued;
            let each = if ahead.jobs == 0 { 0.0 } else { ahead.tokens as f64 / ahead.jobs as f64 };
            let takes = at_rate(all as f64, requests).max(at_rate(all as f64 * each, tokens));
            ahead.seconds = Some(takes.as_secs());
            longest = Some(longest.map_or(takes, |longest| longest.max(takes)));
        }
        Ok(Forecast {
            at: now,
            done_at: longest.map(|takes| now + takes),
            cost_at_most_usd: cost,
            not_dispatched,
            quotas,
            assumes: ASSUMES,
        })
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
