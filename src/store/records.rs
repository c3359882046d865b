//! What goes into a store and what comes out of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    ids::{AttemptId, JobId, NodeId},
    job::{Attempt, Fault, FidelityNote, HoldReason, Outcome, State},
    money::Usd,
    names::{PipelineName, ProviderName, Region, TargetName},
    usage::Usage,
};

use super::observations::Told;
pub use crate::routing::Assignment;

/// The right to write a running job; a later claim, a cancel or an expiry makes it void.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fence(pub u64);

impl Fence {
    /// That of a job's first claim.
    pub const FIRST: Self = Self(1);
}

/// Microseconds by which a step of priority moves a job forward: one minute.
const PRIORITY_STEP_MICROS: i64 = 60_000_000;

/// A job to be added.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// Made by the caller.
    pub id: JobId,
    /// Its pipeline, resolved.
    pub pipeline: PipelineName,
    /// Who submits: the key's id, or empty while no keys exist.
    pub caller: String,
    /// Unique for pipeline and caller.
    pub idempotency_key: Option<String>,
    /// Of the envelope, to tell a repeat from a conflict.
    pub digest: [u8; 32],
    /// The batch it belongs to.
    pub batch: Option<String>,
    /// Higher first.
    pub priority: i32,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// Waits until then, when in the future.
    pub not_before: Option<Timestamp>,
    /// When it expires, before time spent held is added.
    pub deadline: Timestamp,
    /// `deadline` less the time that its pipeline had spent held when it was submitted; see [`super::Store::expire`].
    pub expiry_key: Timestamp,
    /// For rules, rollouts and reports.
    pub metadata: BTreeMap<String, String>,
    /// The chat request as JSON text.
    pub body: String,
    /// The job that this one tries again.
    pub retry_of: Option<JobId>,
    /// Who is told of its end.
    pub callback: Option<String>,
}

impl NewJob {
    /// What ready jobs are ordered by, fixed at submit: a minute of age weighs as much as a step of priority, so nothing
    /// starves and nothing needs rewriting.
    pub fn order_key(&self) -> i64 {
        self.created_at.as_micros().saturating_sub(i64::from(self.priority).saturating_mul(PRIORITY_STEP_MICROS))
    }
}

/// What became of a submitted job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    /// Added, in this state (`queued` or `waiting`).
    New(State),
    /// The key is known with the same envelope: this job, in this state.
    Existing(JobId, State),
    /// The key is known with another envelope: this job.
    Conflict(JobId),
}

/// Which jobs to claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRequest {
    /// Who claims.
    pub node: NodeId,
    /// Pipelines that may be worked on, each with how many of its jobs at most.
    pub pipelines: Vec<(PipelineName, u32)>,
    /// How many in all, at most.
    pub max: u32,
    /// One suspect instead of ordinary jobs.
    pub suspects: bool,
}

impl ClaimRequest {
    /// Whether it asks for no job at all: then it says nothing of its node either.
    pub fn is_empty(&self) -> bool {
        self.max == 0 || self.pipelines.iter().all(|(_, places)| *places == 0)
    }
}

/// A claimed job.
#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    /// The job.
    pub id: JobId,
    /// Its pipeline.
    pub pipeline: PipelineName,
    /// Who submitted it.
    pub caller: String,
    /// The right to write it.
    pub fence: Fence,
    /// Higher first.
    pub priority: i32,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// See [`NewJob::expiry_key`], moved by the time the job itself was held.
    pub expiry_key: Timestamp,
    /// For rules, rollouts and reports.
    pub metadata: BTreeMap<String, String>,
    /// The chat request as JSON text.
    pub body: String,
    /// The arm of its first dispatch.
    pub assignment: Option<Assignment>,
    /// Its attempts so far, oldest first, without decisions.
    pub attempts: Vec<Attempt>,
    /// In flight at two crashes in a row.
    pub suspect: bool,
}

/// What is written before bytes leave.
#[derive(Debug, Clone, PartialEq)]
pub struct Intent {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its job.
    pub job: JobId,
    /// The right to write it.
    pub fence: Fence,
    /// From 1.
    pub n: u32,
    /// The target.
    pub target: TargetName,
    /// The target's provider.
    pub provider: ProviderName,
    /// The model asked for.
    pub model: String,
    /// The region called.
    pub region: Option<Region>,
    /// When.
    pub started_at: Timestamp,
    /// The snapshot's generation.
    pub generation: u64,
    /// The decision: a [`crate::routing::DecisionRecord`] as JSON text.
    pub decision: String,
    /// Set at the first dispatch to a rollout; kept for good.
    pub assignment: Option<Assignment>,
    /// What is inexact about the request.
    pub fidelity: Vec<FidelityNote>,
    /// The most that the call may cost, by an upper estimate; `None` where its price or bounds are not known.
    pub most_cost: Option<Usd>,
    /// The tokens that the prompt is reckoned to have at most.
    pub prompt_estimate: Option<u64>,
    /// What this means for the job's rollout, besides its first dispatch.
    pub told: Option<Told>,
}

/// How an attempt ended, and what becomes of its job.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    /// The job.
    pub job: JobId,
    /// The right to write it.
    pub fence: Fence,
    /// The attempt that ended, if one did.
    pub ended: Option<AttemptEnd>,
    /// What becomes of the job.
    pub next: Next,
    /// What this means for the job's rollout; written if the fence holds.
    pub told: Option<Told>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptEnd {
    /// The attempt.
    pub attempt: AttemptId,
    /// When.
    pub ended_at: Timestamp,
    /// How.
    pub outcome: Outcome,
    /// Why it failed.
    pub fault: Option<Fault>,
    /// In words.
    pub message: Option<String>,
    /// What it consumed.
    pub usage: Option<Usage>,
    /// What it cost.
    pub cost: Option<Usd>,
    /// It may have been billed though no answer came.
    pub possibly_billed: bool,
    /// The provider's own id of the request.
    pub provider_request_id: Option<String>,
    /// From the start to the first piece of a streamed answer.
    pub first_token: Option<std::time::Duration>,
}

/// What becomes of a job.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// It stays claimed: the next target is called at once.
    Keep,
    /// Back into the queue.
    Queue,
    /// Waits.
    Wait(Timestamp),
    /// Held.
    Hold(HoldReason),
    /// Ended with this OpenAI chat completion.
    Succeed(String),
    /// Ended without.
    Fail(JobError),
    /// Ended by its deadline.
    Expire,
}

/// Why a job failed: OpenAI's error object and a stable reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobError {
    /// Stable, such as `refused`, `too_long`, `attempts_exhausted`, `crashed_worker`.
    pub reason_code: String,
    /// In words.
    pub message: String,
    /// OpenAI's `type`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The provider's code.
    pub code: Option<String>,
    /// The parameter at fault.
    pub param: Option<String>,
}

/// What became of a settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Done.
    Applied,
    /// The fence was void: the attempt was closed, the job left alone.
    Stale,
}

/// What became of a cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// It was live; now it is cancelled. `running` when a call may be in flight.
    Done {
        /// Where it stood.
        was: State,
    },
    /// It had ended already, so.
    AlreadyEnded(State),
    /// No such job.
    Unknown,
}

/// What a promotion did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Promoted {
    /// Jobs moved.
    pub moved: u64,
    /// When the next waiting job is due.
    pub next_due: Option<Timestamp>,
}

/// What taking back a dead daemon's work did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Jobs put back into the queue.
    pub requeued: u64,
    /// Attempts closed as `unknown`: possibly billed.
    pub unknown_attempts: u64,
    /// Of those put back, jobs in flight at two crashes in a row.
    pub suspects: u64,
    /// Jobs ended as `crashed_worker`: the process died while the suspect ran alone.
    pub quarantined: Vec<JobId>,
    /// Each attempt that was closed as `unknown`.
    pub unseen: Vec<Unseen>,
}

/// A call whose end nobody saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unseen {
    /// The job's pipeline.
    pub pipeline: PipelineName,
    /// Where the call went.
    pub target: TargetName,
    /// The most that it may have cost, where known.
    pub most_cost: Option<Usd>,
}

/// What is old enough to go. Moments are compared with a job's end, or an attempt's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PruneCut {
    /// By pipeline: prompts of jobs that ended before. A pipeline that is not named uses `default_prompts`.
    pub prompts: BTreeMap<PipelineName, Timestamp>,
    /// By pipeline: results of jobs that ended before, and the jobs.
    pub results: BTreeMap<PipelineName, Timestamp>,
    /// For pipelines that no spec defines.
    pub default_prompts: Timestamp,
    /// For pipelines that no spec defines.
    pub default_results: Timestamp,
    /// Attempts that ended before.
    pub ledger: Timestamp,
    /// Audit entries before.
    pub audit: Timestamp,
}

/// What a prune deleted. Run it again while anything was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Prompts blanked.
    pub prompts: u64,
    /// Jobs deleted with their results.
    pub jobs: u64,
    /// Ledger rows deleted.
    pub attempts: u64,
    /// Audit entries deleted.
    pub audit: u64,
}

/// A job as read.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRecord {
    /// The summary.
    pub summary: JobSummary,
    /// For rules, rollouts and reports.
    pub metadata: BTreeMap<String, String>,
    /// The chat request as JSON text; `None` once pruned.
    pub body: Option<String>,
    /// The OpenAI chat completion as JSON text.
    pub result: Option<String>,
    /// Why it failed.
    pub error: Option<JobError>,
    /// Its ledger, oldest first, with decisions.
    pub attempts: Vec<Attempt>,
    /// What was inexact about the newest attempt's request.
    pub fidelity: Vec<FidelityNote>,
    /// The arm of its first dispatch.
    pub assignment: Option<Assignment>,
    /// Who is told of its end.
    pub callback: Option<String>,
}

/// A job without its contents.
#[derive(Debug, Clone, PartialEq)]
pub struct JobSummary {
    /// The job.
    pub id: JobId,
    /// Its pipeline.
    pub pipeline: PipelineName,
    /// Who submitted it.
    pub caller: String,
    /// Where it stands, by its own row (holds of a whole pipeline are derived by the reader).
    pub state: State,
    /// Why it is held.
    pub hold: Option<HoldReason>,
    /// Until when it waits.
    pub until: Option<Timestamp>,
    /// Higher first.
    pub priority: i32,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// When it expires, before time spent held is added.
    pub deadline: Timestamp,
    /// Its idempotency key.
    pub idempotency_key: Option<String>,
    /// Its batch.
    pub batch: Option<String>,
    /// The job that this one tries again.
    pub retry_of: Option<JobId>,
    /// In flight at two crashes in a row.
    pub suspect: bool,
    /// Attempts begun.
    pub attempts: u32,
    /// The snapshot's generation at its newest dispatch; 0 before the first.
    pub generation: u64,
    /// The target of its newest attempt.
    pub target: Option<TargetName>,
}

/// How a job stands, as far as a batch needs to know.
#[derive(Debug, Clone, PartialEq)]
pub struct JobOutcome {
    /// Where it stands.
    pub state: State,
    /// The OpenAI chat completion as JSON text.
    pub result: Option<String>,
    /// Why it failed.
    pub error: Option<JobError>,
    /// What its attempts consumed, all together.
    pub usage: Usage,
}

/// Which jobs to list.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JobQuery {
    /// Of this pipeline.
    pub pipeline: Option<PipelineName>,
    /// Of one of these pipelines; empty for all.
    pub within: Vec<PipelineName>,
    /// In one of these states (by row); empty for all.
    pub states: Vec<State>,
    /// Of this batch.
    pub batch: Option<String>,
    /// With this idempotency key.
    pub idempotency_key: Option<String>,
    /// With these metadata values.
    pub metadata: BTreeMap<String, String>,
    /// Older than this job (a cursor).
    pub after: Option<JobId>,
    /// At most; stores look at a bounded number of rows, so a page may be short though more exist.
    pub limit: u32,
}

/// A page of jobs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JobPage {
    /// Newest first.
    pub jobs: Vec<JobSummary>,
    /// Where the next page starts, when there may be more.
    pub next: Option<JobId>,
}

/// Who did what, when, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// Who: a key's name, `local`, or `landbridge` itself.
    pub actor: String,
    /// What, such as `flag.set`.
    pub action: String,
    /// To what: a pipeline, a flag, a file.
    pub subject: String,
    /// Why, in the operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Particulars.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub detail: serde_json::Value,
}
