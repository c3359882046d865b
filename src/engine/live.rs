//! Requests whose callers wait: carried like any job, but never put back into the queue.
//!
//! Invariant: a live job is in no queue at any time. Its row is made, running, together with its first intent, and its
//! caller hears of its end before the store does. When the caller hangs up, the call is stopped; when the daemon dies, the
//! job is failed by the next life, for nobody waits for it.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::mpsc;

use super::{
    Engine, StopReason,
    carry::carry_live,
    intake::IntakeError,
    settle::{failure, settle},
};
use crate::{
    access::Caller,
    clock::Timestamp,
    ids::JobId,
    job::{Envelope, HoldReason},
    money::Usd,
    names::{PipelineName, TargetName},
    provider::{Call, CallError, ChatStream, Gathered, Provider, Reply},
    store::{Claimed, Fence, JobError, NewJob, Next, Settlement},
    wire::stream::Event,
};

/// Pieces of an answer on their way to a caller who reads slowly; then the provider's own stream waits.
const LINE: usize = 64;
/// After the deadline, calls have ended by themselves; what still waits for a turn is stopped after this.
const GRACE: Duration = Duration::from_millis(50);

/// What a caller is told.
#[derive(Debug)]
pub enum Said {
    /// The answer begins: from here on there is no other target.
    Begun(Head),
    /// A piece of it.
    Event(Event),
    /// It is over.
    Ended(Box<LiveEnd>),
}

/// What is known of the job by then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The job.
    pub job: JobId,
    /// Its pipeline.
    pub pipeline: PipelineName,
    /// The target of its newest attempt.
    pub target: Option<TargetName>,
    /// The snapshot's generation at that attempt.
    pub generation: u64,
    /// Attempts begun.
    pub attempts: u32,
}

/// How it ended.
#[derive(Debug)]
pub struct LiveEnd {
    /// What is known of the job.
    pub head: Head,
    /// The OpenAI chat completion as JSON text, or why there is none.
    pub outcome: Result<String, LiveFailure>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveFailure {
    /// What kind.
    pub fault: LiveFault,
    /// In words.
    pub error: JobError,
}

/// What kind of failure a caller is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiveFault {
    /// The request's own fault.
    Refused,
    /// It does not fit any target's window.
    TooLong,
    /// Quotas are used up until then.
    Throttled(Timestamp),
    /// Every target failed.
    Failed,
    /// No target can be called now: credentials, access, overload.
    Unavailable,
    /// The pipeline, or this job, is held.
    Held(HoldReason),
    /// The deadline passed.
    Late,
    /// The daemon is going down, or an operator interrupted.
    Interrupted,
    /// Too many callers wait already.
    Crowded,
    /// The store took no record, so nothing was called.
    Store,
}

/// A live request under way. Dropping it hangs up.
pub struct LiveCall {
    engine: Arc<Engine>,
    job: JobId,
    line: mpsc::Receiver<Said>,
    over: bool,
}

impl LiveCall {
    /// What is said next; `None` after the end.
    pub async fn next(&mut self) -> Option<Said> {
        if self.over {
            return None;
        }
        let said = self.line.recv().await;
        self.over = !matches!(said, Some(Said::Begun(_) | Said::Event(_)));
        said
    }
}

impl Drop for LiveCall {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let (engine, job) = (self.engine.clone(), self.job);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // The row first, so that what the call's end finds is a cancelled job.
                if let Err(error) = engine.cancel(vec![job]).await {
                    tracing::warn!(%job, %error, "the caller hung up, and the job could not be cancelled");
                }
                engine.inflight.stop(job, StopReason::Cancelled);
            });
        }
    }
}

/// The live side of a job in hand.
pub(super) struct Live {
    /// Not in the store yet.
    pub(super) unborn: Option<NewJob>,
    /// Its row could not be made: there is nothing to settle.
    pub(super) lost: bool,
    /// When the caller no longer waits.
    pub(super) expires: Timestamp,
    /// Whether the answer is wanted piece by piece.
    pub(super) streams: bool,
    /// Whether a piece of it was said: then there is no way back.
    pub(super) committed: bool,
    pub(super) generation: u64,
    pub(super) line: mpsc::Sender<Said>,
}

impl Engine {
    /// Carries a request for a caller who waits, at most for `patience`.
    ///
    /// # Errors
    /// [`IntakeError`] as for any job.
    pub fn live(
        self: &Arc<Self>,
        caller: &Caller,
        mut envelope: Envelope,
        patience: Duration,
        streams: bool,
    ) -> Result<LiveCall, IntakeError> {
        if !self.is_accepting() {
            return Err(IntakeError::Draining);
        }
        let now = self.clock.now();
        envelope.deadline = Some(now + patience);
        let body = Arc::new(envelope.body.clone());
        let new = self.new_job(caller, envelope, None, now)?;
        let job = new.id;
        let (sender, line) = mpsc::channel(LINE);
        let live = Live {
            expires: new.deadline,
            unborn: Some(new),
            lost: false,
            streams,
            committed: false,
            generation: self.world().snapshot.generation,
            line: sender,
        };
        let engine = self.clone();
        tokio::spawn(async move {
            let line = live.line.clone();
            if AssertUnwindSafe(engine.carry_live(live, body)).catch_unwind().await.is_err() {
                tracing::error!(%job, "carrying this live job panicked; the daemon goes on");
                let message = format!("carrying job {job} panicked inside the daemon (see its log)");
                let error = failure("crashed_worker", message, "server_error", None, None);
                let fence = Fence::FIRST;
                settle(&engine, Settlement { job, fence, ended: None, next: Next::Fail(error), told: None }).await;
            }
            drop(line);
        });
        Ok(LiveCall { engine: self.clone(), job, line, over: false })
    }

    async fn carry_live(self: &Arc<Self>, live: Live, body: Arc<serde_json::Value>) {
        let Some(new) = &live.unborn else { return };
        let job = Claimed {
            id: new.id,
            pipeline: new.pipeline.clone(),
            caller: new.caller.clone(),
            fence: Fence::FIRST,
            priority: new.priority,
            created_at: new.created_at,
            expiry_key: new.expiry_key,
            metadata: new.metadata.clone(),
            body: String::new(),
            assignment: None,
            attempts: Vec::new(),
            suspect: false,
        };
        let head = live.head(&job);
        if let Some(reason) = self.hold_of(&job.pipeline).filter(|reason| *reason != HoldReason::TargetsParked) {
            let error = self.held_error(reason, &job.pipeline, &job.caller);
            live.fail(head, LiveFault::Held(reason), error).await;
            return;
        }
        let left = self.clock.now().until(live.expires);
        // Half of the places are the queue's, however many callers wait.
        let Some(ticket) = self.inflight.admit_live(job.id, job.pipeline.clone(), self.max_in_flight.div_ceil(2))
        else {
            live.fail(head, LiveFault::Crowded, crowded_error()).await;
            return;
        };
        let stop = ticket.stop().clone();
        let out_of_time = async {
            tokio::time::sleep(left + GRACE).await;
            stop.stop(StopReason::Interrupted);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = carry_live(self, job, body, live, ticket.stop()) => {}
            () = out_of_time => {}
        }
    }
}

impl Live {
    pub(super) fn head(&self, job: &Claimed) -> Head {
        Head {
            job: job.id,
            pipeline: job.pipeline.clone(),
            target: job.attempts.last().map(|attempt| attempt.target.clone()),
            generation: self.generation,
            attempts: u32::try_from(job.attempts.len()).unwrap_or(u32::MAX),
        }
    }

    async fn fail(&self, head: Head, fault: LiveFault, error: JobError) {
        self.say(Said::Ended(Box::new(LiveEnd { head, outcome: Err(LiveFailure { fault, error }) }))).await;
    }

    /// Calls a target piece by piece, and says each piece to the caller. What comes before the model speaks commits to
    /// nothing and is kept back until then.
    pub(super) async fn listen(&mut self, provider: &dyn Provider, call: Call, head: Head) -> Gathered {
        let began = tokio::time::Instant::now();
        let stream = match provider.stream(call).await {
            Ok(stream) => stream,
            Err(error) => return Gathered::whole(Err(error)),
        };
        let ChatStream { mut events, mut assembly, provider_request_id, rate_limit } = stream;
        let (mut first_token, mut usage) = (None, None);
        let mut kept: Vec<Event> = Vec::new();
        let failed = loop {
            let event = match events.next().await {
                None => break None,
                Some(Err(error)) => break Some(error),
                Some(Ok(event)) => event,
            };
            if let Event::Usage(counts) = &event {
                usage = Some(*counts);
            }
            if event.is_output() && first_token.is_none() {
                first_token = Some(began.elapsed());
                self.commit(&head, &mut kept).await;
            }
            if let Err(fault) = assembly.push(event.clone()) {
                break Some(CallError { rate_limit, ..fault.into() });
            }
            if self.committed {
                self.say(Said::Event(event)).await;
            } else if kept.len() < LINE {
                kept.push(event);
            }
        };
        let outcome = match failed {
            Some(error) => Err(error),
            None => match assembly.finish() {
                Ok(completion) => {
                    // An answer without a word is an answer too.
                    self.commit(&head, &mut kept).await;
                    Ok(Reply { completion: completion.json, usage: completion.usage, provider_request_id, rate_limit })
                }
                Err(fault) => Err(CallError { rate_limit, ..fault.into() }),
            },
        };
        Gathered { outcome, first_token, usage }
    }

    async fn commit(&mut self, head: &Head, kept: &mut Vec<Event>) {
        if std::mem::replace(&mut self.committed, true) {
            return;
        }
        self.say(Said::Begun(head.clone())).await;
        for event in kept.drain(..) {
            self.say(Said::Event(event)).await;
        }
    }

    /// Says something to the caller, who may have hung up.
    pub(super) async fn say(&self, said: Said) {
        let _heard = self.line.send(said).await;
    }
}

impl Engine {
    /// What a caller is told who cannot be held.
    pub(super) fn held_error(&self, reason: HoldReason, pipeline: &PipelineName, caller: &str) -> JobError {
        let budget =
            (reason == HoldReason::Budget).then(|| self.budget_in_words(pipeline, caller, Usd::ZERO)).flatten();
        let why = budget.unwrap_or_else(|| reason.to_string());
        let message =
            format!("pipeline {pipeline} takes no live requests now: {why}; queued jobs wait until it goes on");
        failure(&reason.to_string(), message, "service_unavailable_error", Some(reason.to_string()), None)
    }
}

fn crowded_error() -> JobError {
    let message = "too many requests wait for their answers at this daemon already; come back in a moment";
    failure("crowded", message.to_owned(), "rate_limit_error", Some("rate_limit_exceeded".to_owned()), None)
}

pub(super) fn late_error() -> JobError {
    let message = "no answer within the deadline of live requests (`live: { deadline }`); a queued job has more time";
    failure("deadline", message.to_owned(), "server_error", Some("deadline_exceeded".to_owned()), None)
}
