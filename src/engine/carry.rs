//! Carries one claimed job: decides, calls, and settles, until it has ended, waits, is held, or went back to the queue.
//!
//! Invariant: every way out of here settles the job (or finds the fence void). What the ledger says of earlier attempts
//! is the only memory; a job carried on by another daemon goes on where this one left it.

mod ends;
mod intent;
mod leg;
mod live;
mod ready;
mod turn;

use std::{sync::Arc, time::Duration};

use ready::Ready;
use serde_json::Value;
use smallvec::{SmallVec, smallvec};
use turn::Gate;

use super::{
    Engine,
    ask::ask,
    health::charge,
    inflight::Stop,
    live::Live,
    settle::{failure, settle},
    size::Sizes,
    unfit::{Unfit, no_target_left},
    world::Lane,
};
use crate::{
    catalog::tokens::Bounds,
    clock::Timestamp,
    ids::AttemptId,
    job::{
        Fault, HoldReason,
        retry::{self, Past, Policy, Step},
    },
    money::Usd,
    names::PipelineName,
    provider::{Call, Gathered},
    routing::{Decision, Question, Route, decide, permitted, prompt::decide_cheaply},
    snapshot::Snapshot,
    spec::{AtLimit, Pipeline, Target, TargetIx, condition::Facts},
    store::{AttemptEnd, Claimed, Next, Settlement},
};

/// A throttled target whose wait is longer than this is passed over for the next of the chain.
const SPILL_AFTER: Duration = Duration::from_mins(1);
/// Prices are compared by answers of so many tokens, where nothing bounds them.
const USUAL_ANSWER: u64 = 1_000;
/// Times a job may decide anew in one carrying: a bound against circles, far above what chains and retries need.
const MAX_TURNS: u32 = 1_000;

/// A job in hand.
struct Carried<'a> {
    engine: &'a Arc<Engine>,
    job: Claimed,
    id: String,
    body: Arc<Value>,
    past: Vec<Past>,
    stop: &'a Arc<Stop>,
    /// Its caller waits.
    live: Option<Live>,
    sizes: Sizes,
    /// Targets that cannot carry this request, with the reason; only ever grows.
    unfit: Vec<(TargetIx, Unfit)>,
    /// Its pipeline's budget is spent, and it goes to the cheapest target.
    thrifty: bool,
    version: u64,
    leg: leg::Leg,
}

/// A call that goes out.
struct Going {
    attempt: AttemptId,
    target: Arc<Target>,
    started_at: Timestamp,
    prompt: Bounds,
    most_cost: Option<Usd>,
    first_token: Option<Duration>,
    /// An equal target serves instead of the routed one.
    spilled: bool,
}

impl Going {
    fn observe(&self, engine: &Engine, pipeline: &PipelineName, ended: &AttemptEnd) {
        let took = ended.ended_at.since(self.started_at);
        engine.observe_attempt(pipeline, &self.target, ended, self.most_cost, took);
    }
}

/// What comes after a turn.
enum Turn {
    /// Decide again.
    Again,
    /// The job is settled.
    Done,
}

/// Carries `job` to wherever it can go now.
pub(super) async fn carry(engine: &Arc<Engine>, job: Claimed, stop: &Arc<Stop>) {
    engine.observe_claim(&job);
    let body = match serde_json::from_str(&job.body) {
        Ok(body) => Arc::new(body),
        Err(error) => {
            let message = format!("the stored body of job {} cannot be read: {error}", job.id);
            let failure = failure("damaged", message, "server_error", None, None);
            settle(
                engine,
                Settlement { job: job.id, fence: job.fence, ended: None, next: Next::Fail(failure), told: None },
            )
            .await;
            return;
        }
    };
    let past = Past::from_attempts(&job.attempts);
    let id = job.id.to_string();
    Carried {
        engine,
        job,
        id,
        body,
        past,
        stop,
        live: None,
        sizes: Sizes::default(),
        unfit: Vec::new(),
        thrifty: false,
        version: 0,
        leg: leg::Leg::default(),
    }
    .finish()
    .await;
}

/// The same for a job whose caller waits, and which no row holds yet.
pub(super) async fn carry_live(engine: &Arc<Engine>, job: Claimed, body: Arc<Value>, live: Live, stop: &Arc<Stop>) {
    engine.observe_claim(&job);
    let (id, live) = (job.id.to_string(), Some(live));
    let (past, sizes, unfit) = (Vec::new(), Sizes::default(), Vec::new());
    let leg = leg::Leg::default();
    Carried { engine, job, id, body, past, stop, live, sizes, unfit, thrifty: false, version: 0, leg }.finish().await;
}

impl Carried<'_> {
    async fn finish(&mut self) {
        for _ in 0..MAX_TURNS {
            match self.turn().await {
                Turn::Again => {}
                Turn::Done => return,
            }
        }
        tracing::error!(job = self.id, "the job did not settle in {MAX_TURNS} turns; it goes back to the queue");
        self.settle(None, Next::Wait(self.engine.clock.now() + SPILL_AFTER)).await;
    }

    async fn turn(&mut self) -> Turn {
        let now = self.engine.clock.now();
        let world = self.engine.world();
        if world.version != self.version {
            self.version = world.version;
            self.unfit.clear();
        }
        if self.stop.is_stopped() || !self.engine.is_accepting() {
            return self.stopped(None).await;
        }
        let expires = self.engine.expires_at(&self.job.pipeline, self.job.expiry_key);
        if now >= expires {
            return self.settle(None, Next::Expire).await;
        }
        let Some(lane) = world.lane(&self.job.pipeline).filter(|lane| lane.hold.is_none()) else {
            // The whole pipeline is held: its jobs stay in the queue, and the hold is derived.
            return self.settle(None, Next::Queue).await;
        };
        self.thrifty = match self.engine.budget_is_spent(lane, now) {
            None => false,
            Some(AtLimit::Cheapest) => true,
            // Also a hold of the whole pipeline.
            Some(AtLimit::Hold) => return self.settle(None, Next::Queue).await,
        };
        let decision = self.decide(lane, now).await;
        self.engine.observe_decision(lane, &decision);
        let chain: Vec<TargetIx> = match &decision.route {
            Route::Hold(reason) => return self.settle(None, Next::Hold(*reason)).await,
            Route::Dispatch(_) if self.thrifty => self.by_price(lane, &world.snapshot, &decision).await,
            Route::Dispatch(chain) => chain.iter().copied().filter(|ix| self.fits(*ix)).collect(),
        };
        if chain.is_empty() {
            let failure = no_target_left(&self.job.pipeline, &self.unfit);
            return self.settle(None, Next::Fail(failure)).await;
        }
        let candidates = self.engine.candidates(&world, lane, &chain, now);
        let policy =
            Policy { retry: lane.loaded.pipeline.retry, spill_after: lane.loaded.pipeline.sharing.spill_after };
        match retry::choose(&candidates, &self.past, &policy, now) {
            Step::Call(place) => self.call(lane, &world.snapshot, &decision, &chain, place).await,
            step => self.give_way(step, None, None).await,
        }
    }

    async fn decide(&mut self, lane: &Lane, now: Timestamp) -> Decision {
        let tokens = match self.sizes.for_rules() {
            Some(tokens) => tokens,
            None => match self.ask(lane, now, 0, decide_cheaply) {
                Some(decision) => return decision,
                None => self.sizes.count_for_rules(&self.body).await,
            },
        };
        self.ask(lane, now, tokens, decide)
    }

    /// Puts the job's case to a way of deciding.
    fn ask<T>(&self, lane: &Lane, now: Timestamp, prompt_tokens: u64, way: fn(&Question<'_>) -> T) -> T {
        let spec = &lane.loaded.pipeline;
        let facts = Facts {
            id: &self.id,
            pipeline: spec.name.as_str(),
            metadata: &self.job.metadata,
            labels: &spec.labels,
            priority: i64::from(self.job.priority),
            body: &self.body,
            prompt_tokens: &|| prompt_tokens,
            age_seconds: i64::try_from(now.since(self.job.created_at).as_secs()).unwrap_or(i64::MAX),
        };
        way(&Question { pipeline: spec, flags: &lane.flags, standings: &lane.standings, facts })
    }

    /// Calls one target, once.
    async fn call(
        &mut self,
        lane: &Arc<Lane>,
        snapshot: &Snapshot,
        decision: &Decision,
        chain: &[TargetIx],
        place: usize,
    ) -> Turn {
        let spec = &lane.loaded.pipeline;
        let Some(&ix) = chain.get(place) else { return Turn::Done };
        let first = match self.ready(lane, snapshot, ix).await {
            Ok(ready) => ready,
            Err(unfit) => {
                self.unfit.push((ix, unfit));
                return Turn::Again;
            }
        };
        let mut line: SmallVec<[Ready<'_>; 1]> = smallvec![first];
        if !self.thrifty {
            line.extend(self.equals(lane, snapshot, decision, ix).await);
        }
        if let Some(wait) = self.key_without_money(&line) {
            return self.settle(None, wait).await;
        }
        let ways = line.iter().map(|ready| ready.way(spec)).collect();
        let held = match self.wait_for_turn(lane, ways).await {
            Gate::Open(held) => held,
            Gate::Later(until) => return self.settle(None, Next::Wait(until)).await,
            Gate::Changed => return Turn::Again,
        };
        let spilled = held.option() > 0;
        let Ready { target, provider, model, prepared, size, most_cost, .. } =
            line.swap_remove(held.option().min(line.len() - 1));
        let now = self.engine.clock.now();
        let mut going = Going {
            attempt: AttemptId::generate(),
            target: Arc::clone(&target),
            started_at: now,
            prompt: size.prompt,
            most_cost,
            first_token: None,
            spilled,
        };
        if !self.begin(lane, decision, &going, &prepared, snapshot.generation).await {
            held.unsent();
            return Turn::Done;
        }
        self.tell_passed_over(spec, &target);
        let left = self.engine.expires_at(&self.job.pipeline, self.job.expiry_key).since(now);
        let call = Call {
            job: self.job.id,
            target: target.clone(),
            payload: prepared.payload,
            reading: prepared.reading,
            timeout: target.timeout.min(left),
            idle_timeout: target.idle_timeout,
        };
        let stop = self.stop.clone();
        let head = self.live.as_ref().map(|live| live.head(&self.job));
        let answer = async {
            match (self.live.as_mut(), head) {
                (Some(live), Some(head)) if live.streams => live.listen(&*provider, call, head).await,
                _ => ask(&*provider, &target, call).await,
            }
        };
        let Gathered { outcome, first_token, usage } = tokio::select! {
            biased;
            answer = answer => answer,
            reason = stop.stopped() => {
                drop(held);
                return self.stopped(Some((going, reason))).await;
            }
        };
        let ended_at = self.engine.clock.now();
        let Some(pass) = held.take() else { return Turn::Done };
        going.first_token = first_token;
        if let Some(first_token) = first_token {
            self.engine.metrics.first_token(&spec.name, &target.name, first_token);
        }
        match outcome {
            Ok(reply) => {
                let charged = reply.usage.and_then(|usage| charge(&target, model, &usage));
                let cost = self.engine.cost(snapshot, &target, &reply);
                self.engine.health.succeeded(pass, charged, cost, &reply.rate_limit, ended_at);
                self.succeed(lane, model, &going, (reply, cost), ended_at).await
            }
            Err(error) => {
                let known = usage.map(|usage| (usage, self.engine.known_cost(snapshot, &target, &self.body, &usage)));
                self.engine.health.failed(pass, &error, known.and_then(|(_, cost)| cost), ended_at);
                self.fail(lane, (chain, place), &going, error, known, ended_at).await
            }
        }
    }

    /// What becomes of a job whose key has no money for its call, if that is so.
    fn key_without_money(&self, line: &[Ready<'_>]) -> Option<Next> {
        let now = self.engine.clock.now();
        let most = line.iter().filter_map(|ready| ready.most_cost).max().unwrap_or_default();
        let (_, short) = self.engine.spending.short_of_key(&self.job.caller, most, now)?;
        if short.is_spent() {
            self.engine.spending.hold_for(&self.job.caller);
            return Some(Next::Hold(HoldReason::Budget));
        }
        Some(Next::Wait(self.engine.spending.come_back(&self.job.caller, now)))
    }

    /// Whether a target may carry this request, as far as is known by now.
    fn fits(&self, ix: TargetIx) -> bool {
        !self.unfit.iter().any(|(unfit, _)| *unfit == ix)
    }

    /// The targets that routing permits, the cheapest for this job first; those without a price last. Compared by answers of
    /// one length, the shortest that any of them is bounded to.
    async fn by_price(&mut self, lane: &Lane, snapshot: &Snapshot, decision: &Decision) -> Vec<TargetIx> {
        let mut ready = Vec::new();
        for ix in permitted(&lane.loaded.pipeline, &lane.flags, decision) {
            if !self.fits(ix) {
                continue;
            }
            match self.ready(lane, snapshot, ix).await {
                Ok(one) => ready.push(one),
                Err(unfit) => self.unfit.push((ix, unfit)),
            }
        }
        let bound = |one: &Ready<'_>| one.prepared.max_output_tokens.or_else(|| one.model?.max_output_tokens);
        let output = ready.iter().filter_map(bound).min().unwrap_or(USUAL_ANSWER);
        let price = |one: &Ready<'_>| {
            self.engine.most_cost_of(snapshot, &one.target, &self.body, (one.size.prompt.most, output))
        };
        let mut priced: Vec<(Option<Usd>, TargetIx)> = ready.iter().map(|one| (price(one), one.ix)).collect();
        priced.sort_by_key(|(price, _)| (price.is_none(), *price));
        if lane.flags.disable_fallback.is_some() {
            priced.truncate(1);
        }
        priced.into_iter().map(|(_, ix)| ix).collect()
    }

    /// Counts the targets that the request was too long for, once each.
    fn tell_passed_over(&mut self, spec: &Pipeline, to: &Target) {
        for (ix, unfit) in &mut self.unfit {
            if let Unfit::TooLong { told: told @ false, .. } = unfit {
                *told = true;
                self.engine.observe_fallback(spec, spec.target(*ix), to, Fault::TooLong);
            }
        }
    }
}
