//! A job as callers see it.
//!
//! Invariant: what is shown is what the store has, plus the holds that are derived from levers, budgets and health.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    clock::Timestamp,
    engine::{Engine, callbacks::CallbackStanding},
    ids::JobId,
    job::{Attempt, FidelityNote, HoldReason, Outcome, State},
    money::Usd,
    names::{PipelineName, TargetName},
    routing::Arm,
    store::{JobError, JobRecord, JobSummary},
    usage::Usage,
};

/// A job, whole or in a list.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct JobView {
    id: JobId,
    pipeline: PipelineName,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
    generation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<TargetName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_of: Option<JobId>,
    priority: i32,
    attempt_count: u32,
    #[serde(skip_serializing_if = "Option::is_none", flatten)]
    content: Option<Content>,
    created_at: Timestamp,
    deadline: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<Timestamp>,
}

/// What only a whole job shows.
#[derive(Debug, Serialize, schemars::JsonSchema)]
struct Content {
    metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arm: Option<Arm>,
    attempts: Vec<Attempt>,
    fidelity: Vec<FidelityNote>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    result: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    callback: Option<CallbackStanding>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_usd: Option<Usd>,
    /// Answered calls whose cost is not known.
    #[serde(skip_serializing_if = "is_zero")]
    unpriced_attempts: usize,
    /// Calls that ended without an answer and may have been billed; never part of `cost_usd`.
    #[serde(skip_serializing_if = "is_zero")]
    possibly_billed_attempts: usize,
    /// The most that those may have cost; absent when that is not known of each.
    #[serde(skip_serializing_if = "Option::is_none")]
    possible_cost_usd: Option<Usd>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde's skip_serializing_if asks for")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

#[derive(Debug, Serialize, schemars::JsonSchema)]
struct ErrorView {
    message: String,
    #[serde(rename = "type")]
    kind: String,
    code: Option<String>,
    param: Option<String>,
}

impl JobView {
    /// A job of a list.
    pub fn summary(engine: &Engine, summary: JobSummary) -> Self {
        let live = matches!(summary.state, State::Queued | State::Waiting | State::Held);
        let derived = live.then(|| engine.hold_of(&summary.pipeline)).flatten();
        let hold = derived.or(summary.hold);
        let state = if derived.is_some() { State::Held } else { summary.state };
        let (reason, reason_code) = match (state, hold) {
            (State::Held, Some(hold)) => {
                (Some(hold_in_words(engine, hold, &summary.pipeline, &summary.caller)), Some(hold.to_string()))
            }
            (State::Waiting, _) => (
                summary.until.map(|until| format!("waits until {until}")),
                Some(if summary.attempts == 0 { "not_before" } else { "between_attempts" }.to_owned()),
            ),
            _ => (None, None),
        };
        Self {
            id: summary.id,
            pipeline: summary.pipeline,
            state,
            reason,
            reason_code,
            until: summary.until.filter(|_| state == State::Waiting),
            generation: summary.generation,
            target: summary.target,
            idempotency_key: summary.idempotency_key,
            batch: summary.batch,
            retry_of: summary.retry_of,
            priority: summary.priority,
            attempt_count: summary.attempts,
            content: None,
            created_at: summary.created_at,
            deadline: summary.deadline,
            finished_at: summary.finished_at,
        }
    }

    /// A whole job.
    pub fn whole(engine: &Engine, record: JobRecord) -> Self {
        let usage = record.attempts.iter().filter_map(|attempt| attempt.usage).reduce(|mut sum, usage| {
            sum += usage;
            sum
        });
        let costs: Vec<Usd> = record.attempts.iter().filter_map(|attempt| attempt.cost_usd).collect();
        let answered = |attempt: &&Attempt| attempt.outcome == Outcome::Succeeded;
        let unpriced = record.attempts.iter().filter(answered).filter(|attempt| attempt.cost_usd.is_none()).count();
        let possible: Vec<&Attempt> = record.attempts.iter().filter(|attempt| attempt.possibly_billed).collect();
        let possible_cost: Option<Usd> = possible.iter().map(|attempt| attempt.possible_cost_usd).sum();
        let possibly_billed = possible.len();
        let mut view = Self::summary(engine, record.summary);
        if let Some(error) = &record.error {
            view.reason = Some(error.message.clone());
            view.reason_code = Some(error.reason_code.clone());
        }
        view.content = Some(Content {
            metadata: record.metadata,
            arm: record.assignment.map(|assignment| assignment.arm),
            attempts: record.attempts,
            fidelity: record.fidelity,
            result: record.result.and_then(|result| RawValue::from_string(result).ok()),
            error: record.error.map(|JobError { message, kind, code, param, .. }| ErrorView {
                message,
                kind,
                code,
                param,
            }),
            usage,
            cost_usd: (!costs.is_empty()).then(|| costs.into_iter().sum()),
            callback: None,
            unpriced_attempts: unpriced,
            possibly_billed_attempts: possibly_billed,
            possible_cost_usd: possible_cost.filter(|_| possibly_billed > 0),
        });
        view
    }

    /// The same job with how its callback stands.
    #[must_use]
    pub fn with_callback(mut self, callback: Option<CallbackStanding>) -> Self {
        if let Some(content) = &mut self.content {
            content.callback = callback;
        }
        self
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// Why, in words and as a code.
    pub fn reason(&self) -> (Option<&str>, Option<&str>) {
        (self.reason.as_deref(), self.reason_code.as_deref())
    }
}

/// Why a job is held, and what would free it.
pub fn hold_in_words(engine: &Engine, hold: HoldReason, pipeline: &PipelineName, caller: &str) -> String {
    match hold {
        HoldReason::Paused => format!("pipeline {pipeline} is paused; clear PAUSE to go on"),
        HoldReason::Budget => engine.budget_in_words(pipeline, caller, Usd::ZERO).unwrap_or_else(|| "its budget has opened again; it goes on in a moment".to_owned()),
        HoldReason::Confined => format!("no target of pipeline {pipeline} keeps this job's data where its rule confines it"),
        HoldReason::PipelineRemoved => format!("no spec defines pipeline {pipeline}; put its file back, or cancel the job"),
        HoldReason::ForcedProviderHasNoTarget => format!("a provider is forced that pipeline {pipeline} has no target for; clear the flag, or add a target"),
        HoldReason::ForcedProvidersConflict => format!("two different providers are forced on pipeline {pipeline}; clear one"),
        HoldReason::TargetsParked => format!("every target of pipeline {pipeline} that may serve this job waits for an operator (credentials, access, model); see its attempts, and `landbridge doctor`"),
        HoldReason::MissingValue => "a rule or rollout needs a value that the job lacks, and says to hold such jobs; change the spec, or cancel the job and submit it with the value".to_owned(),
    }
}
