//! How a turn of a live job ends: its caller is told first, and a settlement that nobody waits for follows.
//!
//! Invariant: a live job never goes back into the queue; where another would, its caller is told why.

use super::{Carried, Turn};
use crate::{
    clock::Timestamp,
    engine::{
        live::{LiveEnd, LiveFailure, LiveFault, Said, late_error},
        settle::{failure, settle},
    },
    job::Fault,
    store::{AttemptEnd, JobError, Next, Settled, Settlement},
};

impl Carried<'_> {
    /// What a live job becomes: an answer to its caller, then a settlement that nobody waits for.
    pub(super) async fn settle_live(&mut self, ended: Option<AttemptEnd>, next: Next) -> Turn {
        let now = self.engine.clock.now();
        let Some(live) = &self.live else { return Turn::Done };
        let (expires, head) = (live.expires, live.head(&self.job));
        let interrupted = next == Next::Queue;
        let (outcome, next) = match next {
            Next::Keep => {
                self.write_end(ended, Next::Keep).await;
                return Turn::Again;
            }
            Next::Wait(until) if until < expires && !live.line.is_closed() => {
                if ended.is_some() {
                    self.write_end(ended, Next::Keep).await;
                }
                tokio::select! {
                    () = tokio::time::sleep(now.until(until)) => {}
                    _ = self.stop.stopped() => {}
                }
                return Turn::Again;
            }
            Next::Wait(until) => {
                let waits_for_quota = self.past.last().is_none_or(|past| past.fault == Fault::Throttled);
                let fault = if waits_for_quota { LiveFault::Throttled(until) } else { LiveFault::Failed };
                let message =
                    format!("no target could take this request before its deadline; the next try would be at {until}");
                let error = self.with_last_message(failure("deadline", message, "server_error", None, None));
                (Err(LiveFailure { fault, error: error.clone() }), Next::Fail(error))
            }
            Next::Hold(reason) => {
                let error = self.engine.held_error(reason, &self.job.pipeline, &self.job.caller);
                (Err(LiveFailure { fault: LiveFault::Held(reason), error: error.clone() }), Next::Fail(error))
            }
            Next::Expire => {
                let error = self.with_last_message(late_error());
                (Err(LiveFailure { fault: LiveFault::Late, error }), Next::Expire)
            }
            Next::Queue if now >= expires => {
                let error = self.with_last_message(late_error());
                (Err(LiveFailure { fault: LiveFault::Late, error }), Next::Expire)
            }
            Next::Queue => {
                let (fault, error) = self.why_not_now(live.lost, live.line.is_closed());
                (Err(LiveFailure { fault, error: error.clone() }), Next::Fail(error))
            }
            Next::Succeed(completion) => (Ok(completion.clone()), Next::Succeed(completion)),
            Next::Fail(error) => {
                let fault = self.kind_of(&error, now);
                (Err(LiveFailure { fault, error: error.clone() }), Next::Fail(error))
            }
        };
        live.say(Said::Ended(Box::new(LiveEnd { head, outcome }))).await;
        if live.unborn.is_some() || live.lost {
            return Turn::Done;
        }
        let (engine, observed) = (self.engine.clone(), self.engine.observed_end(&self.job, &next));
        let told = if interrupted { self.leg_withdrawn() } else { self.leg_after(ended.as_ref(), &next) };
        let settlement = Settlement { job: self.job.id, fence: self.job.fence, ended, next, told };
        tokio::spawn(async move {
            if settle(&engine, settlement).await == Some(Settled::Applied)
                && let Some(observed) = observed
            {
                engine.observe_end(observed);
            }
        });
        Turn::Done
    }

    async fn write_end(&self, ended: Option<AttemptEnd>, next: Next) {
        let settlement = Settlement { job: self.job.id, fence: self.job.fence, ended, next, told: None };
        settle(self.engine, settlement).await;
    }

    fn kind_of(&self, error: &JobError, now: Timestamp) -> LiveFault {
        match (error.reason_code.as_str(), self.past.last().map(|past| past.fault)) {
            ("refused", _) => LiveFault::Refused,
            ("too_long", _) => LiveFault::TooLong,
            (_, Some(Fault::Throttled)) => LiveFault::Throttled(now),
            (_, Some(Fault::Misconfigured | Fault::Unavailable)) => LiveFault::Unavailable,
            _ => LiveFault::Failed,
        }
    }

    /// Why a job would go back to the queue, where a live one cannot.
    fn why_not_now(&self, lost: bool, hung_up: bool) -> (LiveFault, JobError) {
        let error = |code: &str, message: &str| failure(code, message.to_owned(), "server_error", None, None);
        if lost {
            return (LiveFault::Store, error("store", "the request could not be recorded, so nothing was called"));
        }
        if hung_up {
            return (LiveFault::Interrupted, error("caller_gone", "the caller hung up before the answer was there"));
        }
        match self.engine.hold_of(&self.job.pipeline) {
            Some(reason) if !self.stop.is_stopped() => {
                (LiveFault::Held(reason), self.engine.held_error(reason, &self.job.pipeline, &self.job.caller))
            }
            _ => {
                let message = "this daemon is going down, or an operator interrupted the call; ask again";
                (LiveFault::Interrupted, error("interrupted", message))
            }
        }
    }

    fn with_last_message(&self, mut error: JobError) -> JobError {
        if let Some(last) = self.job.attempts.iter().rev().find_map(|attempt| attempt.message.as_deref()) {
            error.message = format!("{}; the last attempt: {last}", error.message);
        }
        error
    }
}
