//! How a turn ends: what a call's answer, fault or stop is written down as, and what becomes of the job.
//!
//! Invariant: whatever ended is settled exactly once, by fence; the attempt's row is closed in the same write.

use std::{sync::Arc, time::Duration};

use super::{Carried, Going, Turn};
use crate::{
    catalog::Model,
    clock::Timestamp,
    engine::{
        inflight::StopReason,
        settle::{failure, settle},
        world::Lane,
    },
    job::{
        Fault, Outcome,
        retry::{self, Past, Policy, Step},
    },
    money::Usd,
    provider::{CallError, Reply},
    spec::TargetIx,
    store::{AttemptEnd, JobError, Next, Settled, Settlement},
    usage::Usage,
};

/// A job that failed at a busy target comes back so much later than the others who wait for it.
const BEHIND: Duration = Duration::from_millis(250);
/// For so many failures at most.
const MOST_BEHIND: u32 = 8;

impl Carried<'_> {
    pub(super) async fn succeed(
        &mut self,
        lane: &Lane,
        model: Option<&Model>,
        going: &Going,
        (reply, cost): (Reply, Option<Usd>),
        ended_at: Timestamp,
    ) -> Turn {
        let ended = AttemptEnd {
            attempt: going.attempt,
            ended_at,
            outcome: Outcome::Succeeded,
            fault: None,
            message: None,
            usage: reply.usage,
            cost,
            possibly_billed: false,
            provider_request_id: reply.provider_request_id,
            first_token: going.first_token,
        };
        going.observe(self.engine, &lane.loaded.pipeline.name, &ended);
        self.engine.observe_answer(&going.target, model, going.prompt, reply.usage.as_ref());
        self.settle(Some(ended), Next::Succeed(reply.completion)).await
    }

    pub(super) async fn fail(
        &mut self,
        lane: &Arc<Lane>,
        (chain, place): (&[TargetIx], usize),
        going: &Going,
        error: CallError,
        known: Option<(Usage, Option<Usd>)>,
        ended_at: Timestamp,
    ) -> Turn {
        let target = &going.target;
        let spec = &lane.loaded.pipeline;
        if error.fault == Fault::Misconfigured {
            tracing::error!(
                pipeline = %spec.name, target = %target.name, provider = %target.provider, model = target.model,
                code = error.code, advice = error.advice, "target parked until something changes: {}", error.message
            );
        }
        let cost = known.and_then(|(_, cost)| cost);
        let ended = AttemptEnd {
            attempt: going.attempt,
            ended_at,
            outcome: Outcome::Failed,
            fault: Some(error.fault),
            message: Some(match &error.advice {
                Some(advice) => format!("{} ({advice})", error.message),
                None => error.message.clone(),
            }),
            // A stream may say what it consumed before it fails. What is known to be owed is no possibility any more.
            usage: known.map(|(usage, _)| usage),
            cost,
            possibly_billed: error.possibly_billed && cost.is_none(),
            provider_request_id: None,
            first_token: going.first_token,
        };
        going.observe(self.engine, &spec.name, &ended);
        self.past.push(Past {
            target: target.name.clone(),
            fault: error.fault,
            theirs: true,
            possibly_billed: error.possibly_billed,
        });
        if self.live.as_ref().is_some_and(|live| live.committed) {
            // The caller has heard the beginning of an answer: no other can follow.
            let message = format!("the answer broke off: {}", error.message);
            let failure = failure("stream_broken", message, "server_error", error.code, None);
            return self.settle(Some(ended), Next::Fail(failure)).await;
        }
        let world = self.engine.world();
        let candidates = self.engine.candidates(&world, lane, chain, ended_at);
        let policy = Policy { retry: spec.retry, spill_after: spec.sharing.spill_after };
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
    pub(super) async fn give_way(&mut self, step: Step, ended: Option<AttemptEnd>, error: Option<CallError>) -> Turn {
        let next = match step {
            Step::Call(_) => Next::Keep,
            Step::Wait { until } => {
                let waits_for_recovery = error.as_ref().is_none_or(|error| error.fault == Fault::Unavailable);
                Next::Wait(if waits_for_recovery { self.behind(until) } else { until })
            }
            Step::Hold(reason) => Next::Hold(reason),
            Step::Fail { reason_code } => Next::Fail(self.last_words(reason_code, error)),
        };
        self.settle(ended, next).await
    }

    /// A job that has failed comes back behind those that have not: otherwise the oldest would be the one that tries
    /// every time whether a target is well again, and run out of attempts.
    fn behind(&self, until: Timestamp) -> Timestamp {
        let burned = u32::try_from(self.past.iter().filter(|past| past.burns()).count()).unwrap_or(u32::MAX);
        let least = BEHIND.saturating_mul(burned.min(MOST_BEHIND));
        if burned == 0 { until } else { until + least + BEHIND.mul_f64(rand::random()) }
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
    pub(super) async fn stopped(&mut self, call: Option<(Going, StopReason)>) -> Turn {
        let Some((going, reason)) = call else {
            return self.settle(None, Next::Queue).await;
        };
        let ended_at = self.engine.clock.now();
        let words = match reason {
            StopReason::Cancelled => "cancelled while the call was in flight",
            StopReason::Interrupted => "interrupted while the call was in flight",
        };
        let ended = AttemptEnd {
            attempt: going.attempt,
            ended_at,
            outcome: Outcome::Interrupted,
            fault: Some(Fault::Interrupted),
            message: Some(words.to_owned()),
            usage: None,
            cost: None,
            possibly_billed: true,
            provider_request_id: None,
            first_token: None,
        };
        going.observe(self.engine, &self.job.pipeline, &ended);
        // For a cancelled job the fence is void already; this closes the attempt all the same.
        self.settle(Some(ended), Next::Queue).await
    }

    pub(super) async fn settle(&mut self, ended: Option<AttemptEnd>, next: Next) -> Turn {
        if let (Some(end), Some(last)) = (&ended, self.job.attempts.last_mut()) {
            last.outcome = end.outcome;
            last.message.clone_from(&end.message);
        }
        if self.live.is_some() {
            return self.settle_live(ended, next).await;
        }
        let keep = next == Next::Keep;
        let observed = self.engine.observed_end(&self.job, &next);
        let waits = matches!(next, Next::Wait(_));
        let told = self.leg_after(ended.as_ref(), &next);
        let settlement = Settlement { job: self.job.id, fence: self.job.fence, ended, next, told };
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
}
