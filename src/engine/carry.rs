//! Carries one claimed job: decides, calls, and settles, until it has ended, waits, is held, or went back to the queue.
//!
//! Invariant: every way out of here settles the job (or finds the fence void). What the ledger says of earlier attempts
//! is the only memory; a job carried on by another daemon goes on where this one left it.

use std::{sync::Arc, time::Duration};

use serde_json::Value;

use super::{
    Engine,
    health::{Gate, TargetKey, charge},
    inflight::{Stop, StopReason},
    settle::{failure, open_attempt, settle},
    world::Lane,
};
use crate::{
    clock::Timestamp,
    ids::AttemptId,
    job::{
        Fault, Outcome,
        retry::{self, Past, Policy, Step},
    },
    money::Usd,
    provider::{Call, CallError, Reply},
    routing::{Decision, Question, Route, decide},
    spec::{Target, TargetIx, condition::Facts},
    store::{AttemptEnd, Claimed, Intent, JobError, Next, Settled, Settlement},
    wire::{self, Prepared, Refusal},
};

/// A throttled target whose wait is longer than this is passed over for the next of the chain.
const SPILL_AFTER: Duration = Duration::from_mins(1);
/// A quota's next slot is waited for in place up to this long; beyond, the job waits in the store. Long enough that a
/// tight quota does not send every job there and back: the permits held meanwhile keep more from being claimed.
const WAIT_IN_PLACE: Duration = Duration::from_secs(20);
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
    /// Targets that cannot carry this request, with the reason; only ever grows.
    unfit: Vec<(TargetIx, Refusal)>,
    version: u64,
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
            settle(engine, Settlement { job: job.id, fence: job.fence, ended: None, next: Next::Fail(failure) }).await;
            return;
        }
    };
    let past = Past::from_attempts(&job.attempts);
    let id = job.id.to_string();
    let mut carried = Carried { engine, job, id, body, past, stop, unfit: Vec::new(), version: 0 };
    for _ in 0..MAX_TURNS {
        match carried.turn().await {
            Turn::Again => {}
            Turn::Done => return,
        }
    }
    tracing::error!(job = carried.id, "the job did not settle in {MAX_TURNS} turns; it goes back to the queue");
    carried.settle(None, Next::Wait(engine.clock.now() + SPILL_AFTER)).await;
}

impl Carried<'_> {
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
        let decision = self.decide(lane, now);
        self.engine.observe_decision(lane, &decision);
        let chain: Vec<TargetIx> = match &decision.route {
            Route::Hold(reason) => return self.settle(None, Next::Hold(*reason)).await,
            Route::Dispatch(chain) => {
                chain.iter().copied().filter(|ix| !self.unfit.iter().any(|(unfit, _)| unfit == ix)).collect()
            }
        };
        if chain.is_empty() {
            let refusal = self.unfit.first().map_or_else(
                || Refusal {
                    param: None,
                    message: format!("pipeline {} has no target left for this job", self.job.pipeline),
                },
                |(_, refusal)| refusal.clone(),
            );
            let failure = failure("refused", refusal.message, "invalid_request_error", None, refusal.param);
            return self.settle(None, Next::Fail(failure)).await;
        }
        let candidates = self.engine.candidates(&world, lane, &chain, now);
        let policy = Policy { retry: lane.loaded.pipeline.retry, spill_after: SPILL_AFTER };
        match retry::choose(&candidates, &self.past, &policy, now) {
            Step::Call(place) => self.call(lane, &world.snapshot, &decision, &chain, place).await,
            step => self.give_way(step, None, None).await,
        }
    }

    fn decide(&self, lane: &Lane, now: Timestamp) -> Decision {
        let spec = &lane.loaded.pipeline;
        let prompt_tokens = || crate::catalog::tokens::estimate_prompt_tokens(&self.body);
        let facts = Facts {
            id: &self.id,
            pipeline: spec.name.as_str(),
            metadata: &self.job.metadata,
            labels: &spec.labels,
            priority: i64::from(self.job.priority),
            body: &self.body,
            prompt_tokens: &prompt_tokens,
            age_seconds: i64::try_from(now.since(self.job.created_at).as_secs()).unwrap_or(i64::MAX),
        };
        decide(&Question { pipeline: spec, flags: &lane.flags, facts })
    }

    /// Calls one target, once.
    async fn call(
        &mut self,
        lane: &Arc<Lane>,
        snapshot: &crate::snapshot::Snapshot,
        decision: &Decision,
        chain: &[TargetIx],
        place: usize,
    ) -> Turn {
        let spec = &lane.loaded.pipeline;
        let Some(&ix) = chain.get(place) else { return Turn::Done };
        let target = spec.target(ix).clone();
        let Some(provider) = self.engine.providers.get(&target.provider).cloned() else {
            let refusal = Refusal {
                param: None,
                message: format!(
                    "provider {} of target {} is not connected; restart the daemon after adding it",
                    target.provider, target.name
                ),
            };
            self.unfit.push((ix, refusal));
            return Turn::Again;
        };
        let model = snapshot.catalog.find(target.api, &target.model);
        let prepared = match wire::prepare(&target, model, &self.body) {
            Ok(prepared) => prepared,
            Err(refusal) => {
                tracing::info!(job = self.id, target = %target.name, %refusal, "this target cannot carry the request");
                self.unfit.push((ix, refusal));
                return Turn::Again;
            }
        };
        let key = TargetKey::of(&target);
        let demand = self.engine.demand(&target, &prepared, &self.body);
        match self.pass_gate(&key, demand).await {
            Gate::Open => {}
            Gate::Wait(until) | Gate::Later(until) => return self.settle(None, Next::Wait(until)).await,
            Gate::Changed => return Turn::Again,
        }
        let now = self.engine.clock.now();
        let attempt = AttemptId::generate();
        if !self.begin(lane, decision, &target, &prepared, attempt, snapshot.generation, now).await {
            self.engine.health.unsent(&key, demand);
            return Turn::Done;
        }
        let left = self.engine.expires_at(&self.job.pipeline, self.job.expiry_key).since(now);
        let call = Call {
            job: self.job.id,
            target: target.clone(),
            payload: prepared.payload,
            reading: prepared.reading,
            timeout: target.timeout.min(left),
        };
        let stop = self.stop.clone();
        let answer = tokio::select! {
            biased;
            answer = provider.chat(call) => answer,
            reason = stop.stopped() => {
                self.engine.health.settled(&key, demand, None);
                return self.stopped(Some((attempt, reason, target))).await;
            }
        };
        let ended_at = self.engine.clock.now();
        let took = ended_at.since(now);
        match answer {
            Ok(reply) => {
                let charged = reply.usage.and_then(|usage| charge(&target, model, &usage));
                self.engine.health.succeeded(&key, demand, charged, ended_at);
                self.succeed(lane, snapshot, &target, attempt, reply, ended_at, took).await
            }
            Err(error) => {
                self.engine.health.failed(&key, demand, &error, ended_at);
                self.fail(lane, chain, place, attempt, &target, error, ended_at, took).await
            }
        }
    }

    /// Waits for the target's next slot, unless that is far off or the world changes meanwhile.
    async fn pass_gate(&self, key: &TargetKey, demand: super::health::Demand) -> Gate {
        let now = self.engine.clock.now();
        let until = match self.engine.health.reserve(key, demand, now) {
            Gate::Wait(until) => until,
            gate => return gate,
        };
        if now.until(until) > WAIT_IN_PLACE {
            self.engine.health.unsent(key, demand);
            return Gate::Later(until);
        }
        let mut world = self.engine.world_version.subscribe();
        if *world.borrow_and_update() != self.version {
            self.engine.health.unsent(key, demand);
            return Gate::Changed;
        }
        tokio::select! {
            () = tokio::time::sleep(now.until(until)) => Gate::Open,
            _ = world.changed() => {
                self.engine.health.unsent(key, demand);
                Gate::Changed
            }
            _ = self.stop.stopped() => {
                self.engine.health.unsent(key, demand);
                Gate::Changed
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one row")]
    async fn begin(
        &mut self,
        lane: &Lane,
        decision: &Decision,
        target: &Arc<Target>,
        prepared: &Prepared,
        attempt: AttemptId,
        generation: u64,
        now: Timestamp,
    ) -> bool {
        let spec = &lane.loaded.pipeline;
        let n = u32::try_from(self.job.attempts.len()).unwrap_or(u32::MAX).saturating_add(1);
        let assignment = match &self.job.assignment {
            Some(_) => None,
            None => decision.assignment(spec, &lane.flags),
        };
        let record = decision.record(spec, generation);
        let intent = Intent {
            attempt,
            job: self.job.id,
            fence: self.job.fence,
            n,
            target: target.name.clone(),
            provider: target.provider.clone(),
            model: target.model.clone(),
            region: target.region.clone(),
            started_at: now,
            generation,
            decision: serde_json::to_string(&record).unwrap_or_default(),
            assignment: assignment.clone(),
            fidelity: prepared.fidelity.clone(),
        };
        match self.engine.store.begin(vec![intent]).await.map(|mut held| held.pop().unwrap_or(false)) {
            Ok(true) => {
                self.job.assignment = self.job.assignment.take().or(assignment);
                self.job.attempts.push(open_attempt(attempt, n, target, now));
                true
            }
            Ok(false) => {
                tracing::debug!(job = self.id, "the fence is void: the job was cancelled, expired or taken over");
                false
            }
            Err(error) => {
                tracing::error!(job = self.id, %error, "the intent could not be stored; nothing was sent");
                self.settle(None, Next::Queue).await;
                false
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one end")]
    async fn succeed(
        &mut self,
        lane: &Lane,
        snapshot: &crate::snapshot::Snapshot,
        target: &Arc<Target>,
        attempt: AttemptId,
        reply: Reply,
        ended_at: Timestamp,
        took: Duration,
    ) -> Turn {
        let cost = reply.usage.and_then(|usage| self.engine.cost(snapshot, target, &usage));
        let ended = AttemptEnd {
            attempt,
            ended_at,
            outcome: Outcome::Succeeded,
            fault: None,
            message: None,
            usage: reply.usage,
            cost,
            possibly_billed: false,
            provider_request_id: reply.provider_request_id,
        };
        self.engine.observe_attempt(&lane.loaded.pipeline.name, target, &ended, took);
        self.engine.observe_answer(target, snapshot, &self.body, reply.usage.as_ref());
        self.spend(cost, ended_at);
        self.settle(Some(ended), Next::Succeed(reply.completion)).await
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one end")]
    async fn fail(
        &mut self,
        lane: &Arc<Lane>,
        chain: &[TargetIx],
        place: usize,
        attempt: AttemptId,
        target: &Arc<Target>,
        error: CallError,
        ended_at: Timestamp,
        took: Duration,
    ) -> Turn {
        let spec = &lane.loaded.pipeline;
        if error.fault == Fault::Misconfigured {
            tracing::error!(
                pipeline = %spec.name, target = %target.name, provider = %target.provider, model = target.model,
                code = error.code, advice = error.advice, "target parked until something changes: {}", error.message
            );
        }
        let ended = AttemptEnd {
            attempt,
            ended_at,
            outcome: Outcome::Failed,
            fault: Some(error.fault),
            message: Some(match &error.advice {
                Some(advice) => format!("{} ({advice})", error.message),
                None => error.message.clone(),
            }),
            usage: None,
            cost: None,
            possibly_billed: error.possibly_billed,
            provider_request_id: None,
        };
        self.engine.observe_attempt(&spec.name, target, &ended, took);
        self.past.push(Past {
            target: target.name.clone(),
            fault: error.fault,
            theirs: true,
            possibly_billed: error.possibly_billed,
        });
        let world = self.engine.world();
        let candidates = self.engine.candidates(&world, lane, chain, ended_at);
        let policy = Policy { retry: spec.retry, spill_after: SPILL_AFTER };
        let step = retry::after_fault(&candidates, &self.past, &policy, ended_at, error.retry_after, rand::random());
        if let Step::Call(next) = step {
            if let (true, Some(ix)) = (next != place, chain.get(next)) {
                self.engine.observe_fallback(spec, target, spec.target(*ix), error.fault);
            }
            return self.settle(Some(ended), Next::Keep).await;
        }
        self.give_way(step, Some(ended), Some(error)).await
    }

    /// Settles a job that cannot be called on now.
    async fn give_way(&mut self, step: Step, ended: Option<AttemptEnd>, error: Option<CallError>) -> Turn {
        let next = match step {
            Step::Call(_) => Next::Keep,
            Step::Wait { until } => Next::Wait(until),
            Step::Hold(reason) => Next::Hold(reason),
            Step::Fail { reason_code } => Next::Fail(self.last_words(reason_code, error)),
        };
        self.settle(ended, next).await
    }

    /// What a failed job says: the last fault's message, or how its attempts ran out.
    fn last_words(&self, reason_code: &str, error: Option<CallError>) -> JobError {
        let tried = self.past.len();
        match error {
            Some(error) if reason_code == "attempts_exhausted" => failure(
                reason_code,
                format!("gave up after {tried} attempts; the last failed: {}", error.message),
                "server_error",
                error.code,
                error.param,
            ),
            Some(error) => failure(reason_code, error.message, "invalid_request_error", error.code, error.param),
            None => {
                let last = self.job.attempts.iter().rev().find_map(|attempt| attempt.message.clone());
                let message = match last {
                    Some(last) => format!("gave up after {tried} attempts; the last failed: {last}"),
                    None => format!("gave up after {tried} attempts"),
                };
                failure(reason_code, message, "server_error", None, None)
            }
        }
    }

    /// Ends a call that was stopped, or a turn that never called.
    async fn stopped(&mut self, call: Option<(AttemptId, StopReason, Arc<Target>)>) -> Turn {
        let Some((attempt, reason, target)) = call else {
            return self.settle(None, Next::Queue).await;
        };
        let ended_at = self.engine.clock.now();
        let words = match reason {
            StopReason::Cancelled => "cancelled while the call was in flight",
            StopReason::Interrupted => "interrupted while the call was in flight",
        };
        let ended = AttemptEnd {
            attempt,
            ended_at,
            outcome: Outcome::Interrupted,
            fault: Some(Fault::Interrupted),
            message: Some(words.to_owned()),
            usage: None,
            cost: None,
            possibly_billed: true,
            provider_request_id: None,
        };
        self.engine.observe_attempt(&self.job.pipeline, &target, &ended, Duration::ZERO);
        // For a cancelled job the fence is void already; this closes the attempt all the same.
        self.settle(Some(ended), Next::Queue).await
    }

    async fn settle(&mut self, ended: Option<AttemptEnd>, next: Next) -> Turn {
        if let (Some(end), Some(last)) = (&ended, self.job.attempts.last_mut()) {
            last.outcome = end.outcome;
            last.message.clone_from(&end.message);
        }
        let keep = next == Next::Keep;
        let observed = self.engine.observed_end(&self.job, &next);
        let waits = matches!(next, Next::Wait(_));
        let settlement = Settlement { job: self.job.id, fence: self.job.fence, ended, next };
        match settle(self.engine, settlement).await {
            Some(Settled::Applied) => {
                if waits {
                    self.engine.waiting.notify_one();
                }
                if let Some(observed) = observed {
                    self.engine.observe_end(observed);
                }
                if keep { Turn::Again } else { Turn::Done }
            }
            Some(Settled::Stale) | None => Turn::Done,
        }
    }

    fn spend(&self, cost: Option<Usd>, now: Timestamp) {
        if let Some(cost) = cost {
            self.engine.spending.add(&self.job.pipeline, cost, now);
        }
    }
}
