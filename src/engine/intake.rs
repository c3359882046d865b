//! Taking jobs in: which pipeline, what deadline, one durable row each.
//!
//! Invariant: a job is acknowledged after the store says that it is durable, and not before.

use std::{sync::Arc, time::Duration};

use super::{Engine, world::World};
use crate::{
    access::Caller,
    clock::Timestamp,
    ids::JobId,
    job::{Envelope, State},
    names::PipelineName,
    snapshot::LoadedPipeline,
    store::{NewJob, StoreError, Submitted},
};

/// A job that was taken in.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    /// Its id.
    pub id: JobId,
    /// Where it stands.
    pub state: State,
    /// Its pipeline.
    pub pipeline: PipelineName,
    /// The key was known with the same envelope: nothing new was added.
    pub repeated: bool,
}

/// Why a job was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// No spec defines the pipeline, or none accepts the model.
    #[error("{message}")]
    UnknownPipeline {
        /// With near names, or the fault of the file that would define it.
        message: String,
        /// The field at fault.
        param: &'static str,
    },
    /// Its times contradict each other.
    #[error("{message}")]
    Invalid {
        /// What is wrong.
        message: String,
        /// The field at fault.
        param: &'static str,
    },
    /// The idempotency key belongs to another job.
    #[error(
        "idempotency key {key:?} was used in pipeline {pipeline} for {job}, with another envelope; send that envelope again, or use a new key"
    )]
    Conflict {
        /// The key.
        key: String,
        /// The pipeline.
        pipeline: PipelineName,
        /// The job that has it.
        job: JobId,
    },
    /// The caller's key is bound to other pipelines.
    #[error("key {key:?} is bound to other pipelines than {pipeline}")]
    NotReached {
        /// The key's name.
        key: String,
        /// The pipeline.
        pipeline: PipelineName,
    },
    /// The daemon is going down.
    #[error("this daemon is draining and takes no new jobs; try again in a moment")]
    Draining,
    /// The store did not take it.
    #[error("the job was not stored: {0}")]
    Store(String),
}

impl World {
    /// The pipeline that takes an envelope.
    pub(super) fn pipeline_for(&self, envelope: &Envelope) -> Result<&std::sync::Arc<LoadedPipeline>, IntakeError> {
        let snapshot = &self.snapshot;
        if let Some(name) = &envelope.pipeline {
            return snapshot.pipelines.get(name).ok_or_else(|| IntakeError::UnknownPipeline {
                message: snapshot.explain_missing(name),
                param: "pipeline",
            });
        }
        let model = envelope.body.get("model").and_then(serde_json::Value::as_str);
        let Some(model) = model else {
            return Err(IntakeError::UnknownPipeline {
                message: "the job names no pipeline, and its body no model that could find one; set `pipeline`"
                    .to_owned(),
                param: "pipeline",
            });
        };
        snapshot.accepting(model).ok_or_else(|| IntakeError::UnknownPipeline {
            message: format!(
                "the job names no pipeline, and none accepts model {model:?}; set `pipeline`, or add the model to a spec's `accept: {{ models: […] }}`"
            ),
            param: "body.model",
        })
    }
}

impl Engine {
    /// Takes jobs in; one answer each, in order. Durable when it returns.
    pub async fn submit(&self, caller: &Caller, envelopes: Vec<Envelope>) -> Vec<Result<Accepted, IntakeError>> {
        self.take_in(caller, envelopes, None).await
    }

    /// Submits a job's envelope again as a new job.
    ///
    /// # Errors
    /// [`IntakeError`] as for any job; a job whose prompt is pruned is `Invalid`.
    pub async fn retry(&self, caller: &Caller, job: JobId) -> Result<Accepted, IntakeError> {
        let record = self.store.job(job).await.map_err(store_error)?;
        let record =
            record.ok_or_else(|| IntakeError::Invalid { message: format!("there is no job {job}"), param: "id" })?;
        let summary = record.summary;
        if !summary.state.is_terminal() {
            return Err(IntakeError::Invalid {
                message: format!("job {job} is {}; only a job that has ended can be tried again", summary.state),
                param: "id",
            });
        }
        let body = record.body.as_deref().and_then(|body| serde_json::from_str(body).ok());
        let Some(body) = body else {
            return Err(IntakeError::Invalid {
                message: format!(
                    "the prompt of job {job} is no longer kept (see `retention` of pipeline {}); submit it again",
                    summary.pipeline
                ),
                param: "id",
            });
        };
        let envelope = Envelope {
            pipeline: Some(summary.pipeline),
            idempotency_key: None,
            batch: summary.batch,
            metadata: record.metadata,
            priority: Some(summary.priority),
            not_before: None,
            deadline: None,
            callback: record.callback,
            body,
        };
        let mut answers = self.take_in(caller, vec![envelope], Some(job)).await;
        answers.pop().unwrap_or(Err(IntakeError::Draining))
    }

    async fn take_in(
        &self,
        caller: &Caller,
        envelopes: Vec<Envelope>,
        retry_of: Option<JobId>,
    ) -> Vec<Result<Accepted, IntakeError>> {
        if !self.is_accepting() {
            return envelopes.iter().map(|_| Err(IntakeError::Draining)).collect();
        }
        let mut answers = Vec::with_capacity(envelopes.len());
        let mut jobs = Vec::with_capacity(envelopes.len());
        let now = self.clock.now();
        for envelope in envelopes {
            match self.new_job(caller, envelope, retry_of, now) {
                Ok(job) => {
                    answers.push(None);
                    jobs.push(job);
                }
                Err(error) => answers.push(Some(Err(error))),
            }
        }
        let heads: Vec<(JobId, PipelineName, Option<String>)> =
            jobs.iter().map(|job| (job.id, job.pipeline.clone(), job.idempotency_key.clone())).collect();
        let mut outcomes = match self.store.submit(jobs).await {
            Ok(outcomes) => heads.into_iter().zip(outcomes).map(|(head, outcome)| self.taken(head, outcome)).collect(),
            Err(error) => {
                let message = error.to_string();
                heads.iter().map(|_| Err(IntakeError::Store(message.clone()))).collect::<Vec<_>>()
            }
        }
        .into_iter();
        answers
            .into_iter()
            .map(|early| early.or_else(|| outcomes.next()).unwrap_or(Err(IntakeError::Draining)))
            .collect()
    }

    /// What a caller hands in, as the row that it becomes.
    pub(super) fn new_job(
        &self,
        caller: &Caller,
        envelope: Envelope,
        retry_of: Option<JobId>,
        now: Timestamp,
    ) -> Result<NewJob, IntakeError> {
        let loaded = self.pipeline_for_caller(caller, &envelope)?;
        let spec = &loaded.pipeline;
        let digest = envelope.digest();
        let deadline = envelope.deadline.unwrap_or(now + spec.deadline);
        if deadline <= now {
            return Err(IntakeError::Invalid {
                message: format!("deadline {deadline} has passed (it is {now})"),
                param: "deadline",
            });
        }
        if let Some(start) = envelope.not_before.filter(|start| *start >= deadline) {
            return Err(IntakeError::Invalid {
                message: format!("not_before {start} is not before the deadline {deadline}"),
                param: "not_before",
            });
        }
        if let Some(url) = &envelope.callback {
            self.check_callback(url).map_err(|message| IntakeError::Invalid { message, param: "callback" })?;
        }
        let body = serde_json::to_string(&envelope.body).map_err(|error| IntakeError::Invalid {
            message: format!("the body cannot be stored: {error}"),
            param: "body",
        })?;
        Ok(NewJob {
            id: JobId::generate(),
            pipeline: spec.name.clone(),
            caller: caller.id().to_owned(),
            idempotency_key: envelope.idempotency_key,
            digest,
            batch: envelope.batch,
            priority: envelope.priority.unwrap_or(spec.priority),
            created_at: now,
            not_before: envelope.not_before,
            deadline,
            expiry_key: deadline - self.holds.total(&spec.name, now),
            metadata: envelope.metadata,
            body,
            retry_of,
            callback: envelope.callback,
        })
    }

    /// Checks that the caller reaches the pipeline of an envelope.
    ///
    /// # Errors
    /// [`IntakeError`] as for a job.
    pub fn reach(&self, caller: &Caller, envelope: &Envelope) -> Result<(), IntakeError> {
        self.pipeline_for_caller(caller, envelope).map(drop)
    }

    /// The pipeline of an envelope, if the caller reaches it.
    pub(super) fn pipeline_for_caller(
        &self,
        caller: &Caller,
        envelope: &Envelope,
    ) -> Result<Arc<LoadedPipeline>, IntakeError> {
        let not_reached = |pipeline: &PipelineName| IntakeError::NotReached {
            key: caller.name().to_owned(),
            pipeline: pipeline.clone(),
        };
        // Before it is looked up: who is bound learns nothing of other pipelines.
        if let Some(name) = envelope.pipeline.as_ref().filter(|name| !caller.reaches(name)) {
            return Err(not_reached(name));
        }
        let loaded = self.pipeline_for(envelope)?;
        if !caller.reaches(&loaded.pipeline.name) {
            return Err(not_reached(&loaded.pipeline.name));
        }
        Ok(loaded)
    }

    /// The pipeline that an envelope names, or the one that accepts its model.
    pub(super) fn pipeline_for(&self, envelope: &Envelope) -> Result<Arc<LoadedPipeline>, IntakeError> {
        self.world.load().pipeline_for(envelope).cloned()
    }

    fn taken(
        &self,
        (id, pipeline, key): (JobId, PipelineName, Option<String>),
        outcome: Submitted,
    ) -> Result<Accepted, IntakeError> {
        match outcome {
            Submitted::New(state) => {
                self.metrics.jobs_submitted(&pipeline, 1);
                Ok(Accepted { id, state, pipeline, repeated: false })
            }
            Submitted::Existing(id, state) => Ok(Accepted { id, state, pipeline, repeated: true }),
            Submitted::Conflict(job) => Err(IntakeError::Conflict { key: key.unwrap_or_default(), pipeline, job }),
        }
    }
}

fn store_error(error: StoreError) -> IntakeError {
    IntakeError::Store(error.to_string())
}

/// The longest time a caller may wait for a job's end in one request.
pub const MAX_WAIT: Duration = Duration::from_mins(5);
