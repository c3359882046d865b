//! Every count that the engine keeps, in one place.
//!
//! Invariant: nothing here decides anything; taking this file's calls away would change no job.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Engine,
    spending::BudgetStanding,
    world::{Lane, World},
};
use crate::{
    catalog::{Model, tokens::Bounds},
    clock::Timestamp,
    ids::JobId,
    job::{Fault, Outcome, State},
    metrics::{FlagReading, RolloutReading, RolloutState},
    money::{BasisPoints, Usd},
    names::PipelineName,
    routing::{Decision, Route},
    spec::{Flag, Pipeline, RolloutIx, Target},
    store::{AttemptEnd, Claimed, Next, StoreError, Unseen},
    usage::Usage,
};

/// A job that ended, to be counted once its end is durable.
pub(super) struct Ended {
    pipeline: PipelineName,
    state: State,
    took: Duration,
}

impl Engine {
    pub(super) fn observe_claim(&self, job: &Claimed) {
        if job.attempts.is_empty() {
            self.metrics.queue_wait(&job.pipeline, self.clock.now().since(job.created_at));
        }
    }

    pub(super) fn observe_decision(&self, lane: &Lane, decision: &Decision) {
        let spec = &lane.loaded.pipeline;
        let rule = decision.rule.and_then(|rule| spec.route.get(usize::from(rule))).map(|rule| &*rule.name);
        let target = match &decision.route {
            Route::Dispatch(chain) => chain.first().map(|ix| &spec.target(*ix).name),
            Route::Hold(_) => None,
        };
        self.metrics.route_decided(&spec.name, rule, target);
    }

    pub(super) fn observe_attempt(
        &self,
        pipeline: &PipelineName,
        target: &Target,
        ended: &AttemptEnd,
        most_cost: Option<Usd>,
        took: Duration,
    ) {
        self.metrics.attempt_ended(pipeline, &target.name, &target.provider, ended.fault, took);
        if ended.possibly_billed {
            self.metrics.possibly_billed(pipeline, &target.name, ended.outcome, most_cost);
        }
        if ended.outcome == Outcome::Succeeded && ended.cost.is_none() {
            self.metrics.unpriced(pipeline, &target.name);
        }
        if let Some(usage) = &ended.usage {
            self.metrics.tokens(pipeline, &target.name, usage);
        }
        if let Some(cost) = ended.cost {
            self.metrics.cost(pipeline, &target.name, cost);
        }
    }

    /// How good the estimate was that the call was planned and reserved with, and how full the window.
    pub(super) fn observe_answer(&self, target: &Target, model: Option<&Model>, prompt: Bounds, usage: Option<&Usage>) {
        let Some(usage) = usage else { return };
        self.metrics.token_estimate_error(&target.name, prompt.most, usage.prompt());
        if let Some(window) = model.and_then(|model| model.context_window).filter(|window| *window > 0) {
            self.metrics.window_utilization(&target.name, usage.total() as f64 / window as f64);
        }
    }

    /// Calls whose ends nobody saw, as the store found them.
    pub(super) fn observe_unseen(&self, unseen: &[Unseen]) {
        for call in unseen {
            self.metrics.possibly_billed(&call.pipeline, &call.target, Outcome::Unknown, call.most_cost);
        }
    }

    pub(super) fn observe_fallback(&self, spec: &Pipeline, from: &Target, to: &Target, fault: Fault) {
        self.metrics.fallback(&spec.name, &from.name, &to.name, fault);
    }

    pub(super) fn observed_end(&self, job: &Claimed, next: &Next) -> Option<Ended> {
        let state = match next {
            Next::Succeed(_) => State::Succeeded,
            Next::Fail(_) => State::Failed,
            Next::Expire => State::Expired,
            Next::Keep | Next::Queue | Next::Wait(_) | Next::Hold(_) => return None,
        };
        let took = self.clock.now().since(job.created_at);
        Some(Ended { pipeline: job.pipeline.clone(), state, took })
    }

    pub(super) fn observe_end(&self, Ended { pipeline, state, took }: Ended) {
        self.metrics.job_finished(&pipeline, state, took);
    }

    /// Counts jobs that ended outside of a carrying.
    pub(super) async fn observe_ends(&self, jobs: &[JobId]) {
        for job in jobs {
            if let Ok(Some(record)) = self.store.job(*job).await {
                let summary = record.summary;
                let took = summary.finished_at.unwrap_or_else(|| self.clock.now()).since(summary.created_at);
                self.metrics.job_finished(&summary.pipeline, summary.state, took);
            }
        }
    }

    pub(super) fn observe_world(&self, world: &World) {
        self.metrics.follow(&world.snapshot);
        self.metrics.set_rollouts(world.lanes().flat_map(|(name, lane)| {
            let spec = &lane.loaded.pipeline;
            (0..).map(RolloutIx).zip(&spec.rollouts).map(move |(ix, rollout)| {
                let percent = lane.standings.percent(spec, ix);
                let state = match (world.courses.get(name, &rollout.name), rollout.gated()) {
                    _ if lane.flags.rolled_back => RolloutState::RolledBack,
                    (Some(controller), Some(_)) => controller.state(),
                    (None, Some(_)) => RolloutState::Running,
                    (_, None) if percent == BasisPoints::ALL => RolloutState::Done,
                    (_, None) => RolloutState::Running,
                };
                let percent = if lane.flags.rolled_back { BasisPoints::NONE } else { percent };
                RolloutReading { pipeline: name, rollout: &rollout.name, percent, state }
            })
        }));
        let known = Flag::known(world.snapshot.providers.keys());
        let everywhere: Vec<(&Flag, bool)> = known.iter().map(|flag| (flag, world.active_everywhere(flag))).collect();
        let by_pipeline: Vec<(&PipelineName, &Flag)> = world
            .lanes()
            .flat_map(|(name, lane)| {
                known.iter().filter(move |flag| lane.active_here(flag)).map(move |flag| (name, flag))
            })
            .collect();
        let for_all = everywhere.iter().map(|(flag, active)| FlagReading { flag, pipeline: None, active: *active });
        let for_one = by_pipeline.iter().map(|(name, flag)| FlagReading { flag, pipeline: Some(name), active: true });
        self.metrics.set_flags(for_all.chain(for_one));
    }

    /// Sets the gauges of queue, quotas and breakers, for somebody who looks now.
    ///
    /// # Errors
    /// [`StoreError`] when the queue cannot be counted; the gauges stay as they were.
    pub async fn refresh_gauges(&self) -> Result<(), StoreError> {
        let counts = self.store.counts().await?;
        self.observe_gauges(&counts, self.clock.now()).await
    }

    /// Sets the gauges of queue, quotas and breakers.
    pub(super) async fn observe_gauges(
        &self,
        counts: &BTreeMap<(PipelineName, State), u64>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.metrics.set_jobs(&self.seen_counts(counts));
        self.metrics.set_oldest(&self.store.oldest_queued().await?, now);
        self.health.observe(&self.metrics, now);
        self.observe_budgets(now);
        Ok(())
    }

    fn observe_budgets(&self, now: Timestamp) {
        let used = |standing: &BudgetStanding| {
            let cap = standing.cap.approximate();
            let used = if cap > 0.0 { standing.spent.approximate() / cap } else { 1.0 };
            (<&'static str>::from(standing.period), used)
        };
        let world = self.world.load();
        let budgets = world.lanes().filter_map(|(name, lane)| Some((name, lane.loaded.pipeline.budget?)));
        let pipelines: Vec<_> =
            budgets.map(|(name, budget)| (name, self.spending.standings(name, &budget.into(), now))).collect();
        let keys = self.spending.key_standings(now);
        let flat = |name, standings: &[BudgetStanding]| -> Vec<_> {
            standings.iter().map(used).map(|(period, used)| (name, period, used)).collect()
        };
        self.metrics.set_budgets(
            pipelines.iter().flat_map(|(name, standings)| flat(name.as_str(), standings)),
            keys.iter().flat_map(|(name, standings)| flat(name.as_str(), standings)),
        );
    }

    /// The counts as callers see them: what a held pipeline has queued is held.
    pub fn seen_counts(&self, counts: &BTreeMap<(PipelineName, State), u64>) -> BTreeMap<(PipelineName, State), u64> {
        let mut seen = BTreeMap::new();
        for ((pipeline, state), count) in counts {
            let state = match state {
                State::Queued | State::Waiting if self.hold_of(pipeline).is_some() => State::Held,
                state => *state,
            };
            *seen.entry((pipeline.clone(), state)).or_default() += count;
        }
        seen
    }
}
