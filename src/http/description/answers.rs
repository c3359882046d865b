//! The shapes of bodies and answers that are put together field by field where they are made, and of what is read by hand.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde_json::{Map, Value};

use crate::{
    access::Key,
    clock::Timestamp,
    engine::{
        QuotaStanding, SetQuota,
        batches::{BatchStatus, LineError},
        levers::Touched,
        rollouts::RolloutView,
    },
    http::{error::ErrorBody, view::JobView},
    ids::JobId,
    job::{Attempt, HoldReason, State},
    money::Usd,
    names::{PipelineName, ProviderName, RolloutName, TargetName},
    snapshot::FileReport,
    store::AuditEntry,
    usage::Usage,
};

macro_rules! shapes {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        #[derive(JsonSchema)]
        $(#[$doc])*
        #[allow(dead_code, clippy::struct_field_names, reason = "only its schema is wanted, with the API's own names")]
        pub(super) struct $name { $($(#[$field_doc])* $field: $type,)* }
    )*};
}

shapes! {
    /// What every error looks like.
    ErrorAnswer { error: ErrorBody, }

    // -- jobs --

    /// A job to be done: a chat request in OpenAI form, and how it is to be handled.
    #[schemars(deny_unknown_fields)]
    NewJob {
        /// The pipeline; without it, the one that accepts the body's model.
        pipeline: Option<PipelineName>,
        /// The same key in the same pipeline by the same caller is the same job.
        #[schemars(length(min = 1, max = 255), regex(pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$"))]
        idempotency_key: Option<String>,
        /// The batch it belongs to.
        #[schemars(length(min = 1, max = 128), regex(pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$"))]
        batch: Option<String>,
        /// For rules, rollouts and reports.
        metadata: Option<Metadata>,
        /// Higher first.
        #[schemars(range(min = -1000, max = 1000))]
        priority: Option<i32>,
        /// Not called before.
        not_before: Option<Timestamp>,
        /// Expires then.
        deadline: Option<Timestamp>,
        /// Who is told of its end.
        #[schemars(length(max = 2048), regex(pattern = r"^https?://[^\u0000-\u001f\u007f-\u009f]*$"))]
        callback: Option<String>,
        /// The chat request.
        body: ChatBody,
    }
    /// A chat request: whatever OpenAI takes.
    ChatBody {
        /// What is asked for; it finds a pipeline where none is named.
        #[schemars(length(max = 2048))]
        model: Option<String>,
        /// The conversation.
        #[schemars(length(min = 1))]
        messages: Vec<Message>,
    }
    /// A turn of the conversation.
    Message {
        /// Who speaks: user, assistant, system, developer or tool.
        #[schemars(length(min = 1))]
        role: String,
    }
    /// A line of a bulk answer: a job, or why it is none.
    BulkLine {
        /// From 1.
        line: u64,
        /// The job.
        id: Option<JobId>,
        /// Where it stands.
        state: Option<State>,
        /// Why there is none.
        error: Option<ErrorBody>,
    }
    /// Which jobs.
    #[schemars(deny_unknown_fields)]
    ListJobs {
        /// Of this pipeline.
        pipeline: Option<PipelineName>,
        /// In this state, or several with commas between them.
        #[schemars(regex(pattern = "^(queued|waiting|held|running|succeeded|failed|cancelled|expired)(,(queued|waiting|held|running|succeeded|failed|cancelled|expired))*$"))]
        state: Option<String>,
        /// Of this batch.
        batch: Option<String>,
        /// With this idempotency key.
        key: Option<String>,
        /// With this value of metadata: `metadata.NAME=VALUE`.
        #[schemars(regex(pattern = r"^metadata\.[^=]*=.*$"))]
        r#where: Option<String>,
        /// Behind this job: `next` of the page before.
        after: Option<JobId>,
        /// At most.
        #[schemars(range(min = 1, max = 1000))]
        limit: Option<u32>,
    }
    /// A page of jobs.
    JobPage {
        /// Newest first.
        data: Vec<JobView>,
        /// Where the next page begins.
        next: Option<JobId>,
    }
    /// Why a job stands where it stands.
    Why {
        /// The job.
        id: JobId,
        /// Where it stands.
        state: State,
        /// In a sentence.
        summary: String,
        /// What happened, in order.
        steps: Vec<String>,
        /// Its calls.
        attempts: Vec<Attempt>,
        /// Why it is held, waits, or failed.
        reason: Option<String>,
        /// The same as a stable code.
        reason_code: Option<String>,
    }

    // -- operators --

    /// A target.
    TargetSeen {
        name: TargetName,
        provider: ProviderName,
        model: String,
        region: Option<String>,
    }
    /// A rollout.
    RolloutSeen {
        name: RolloutName,
        baseline: TargetName,
        candidate: TargetName,
        percent: String,
        rolled_back: bool,
    }
    /// Why a pipeline is held.
    Held {
        reason_code: HoldReason,
        reason: String,
    }
    /// A pipeline.
    PipelineSeen {
        name: PipelineName,
        description: Option<String>,
        /// Where it comes from.
        file: String,
        /// Whether its file is broken, and this its last good version.
        stale: bool,
        labels: BTreeMap<String, String>,
        targets: Vec<TargetSeen>,
        rollouts: Vec<RolloutSeen>,
        /// How many of its jobs stand where.
        jobs: BTreeMap<String, u64>,
        spent_today_usd: Usd,
        held: Option<Held>,
    }
    /// Every pipeline.
    Pipelines {
        generation: u64,
        hash: String,
        data: Vec<PipelineSeen>,
        files: Vec<FileReport>,
    }
    /// A flag that is set somewhere.
    FlagSeen {
        flag: String,
        /// A pipeline, or `all`.
        scope: String,
        /// runtime, environment, file or spec.
        level: String,
        value: bool,
        reason: Option<String>,
        actor: Option<String>,
        set_at: Option<Timestamp>,
        clear_after: Option<Timestamp>,
    }
    /// A provider that is forced.
    Forced {
        provider: ProviderName,
        source: Value,
    }
    /// What is in force for a pipeline.
    Effective {
        pipeline: PipelineName,
        forced: Vec<Forced>,
        pause: bool,
        disable_fallback: bool,
        rolled_back: bool,
    }
    /// Every flag, and what is in force.
    Flags {
        data: Vec<FlagSeen>,
        effective: Vec<Effective>,
    }
    /// What a flag touches, and in words.
    FlagTouched {
        touched: Value,
        message: String,
    }
    /// A rollback or its end.
    LeverTouched {
        #[schemars(flatten)]
        touched: Touched,
    }
    /// Where a job would go.
    Explained {
        pipeline: PipelineName,
        decision: Value,
        targets: Vec<Map<String, Value>>,
        text: String,
    }
    /// Who did what.
    Audit { data: Vec<AuditEntry>, }
    /// How a batch stands.
    BatchCounts {
        batch: String,
        counts: BTreeMap<String, u64>,
        total: u64,
        ended: bool,
    }
    /// How many were cancelled.
    Cancelled { cancelled: u64, }
    /// A key that was just made.
    KeyMade {
        key: Key,
        /// Its text, this once.
        token: String,
    }
    /// A key.
    KeySeen { key: Key, }
    /// Every key.
    Keys { data: Vec<Key>, }
    /// A quota that an operator set.
    QuotaKept {
        name: String,
        quota: SetQuota,
    }
    /// Every quota.
    Quotas {
        data: Vec<QuotaStanding>,
        set: Vec<QuotaKept>,
    }
    /// What became of a quota.
    QuotaDone {
        name: String,
        message: String,
    }
    /// Sums of calls.
    TrafficSum {
        pipeline: PipelineName,
        target: TargetName,
        provider: ProviderName,
        model: String,
        attempts: u64,
        jobs_answered: u64,
        possibly_billed: u64,
        usage: Usage,
        cost_usd: Usd,
        unpriced: u64,
        possible_cost_usd: Usd,
        possible_cost_unknown: u64,
    }
    /// Sums of ended calls over whole hours.
    Traffic {
        since: Timestamp,
        data: Vec<TrafficSum>,
    }
    /// A file that is broken.
    BrokenFile {
        file: String,
        diagnostics: Vec<String>,
    }
    /// A pipeline that is held.
    HeldPipeline {
        pipeline: PipelineName,
        reason_code: HoldReason,
    }
    /// Whether work is accepted, and what is degraded.
    Ready {
        ready: bool,
        degraded: bool,
        generation: u64,
        hash: String,
        pipelines: u64,
        broken_files: Vec<BrokenFile>,
        stale_pipelines: Vec<PipelineName>,
        held_pipelines: Vec<HeldPipeline>,
        store: Option<String>,
        draining: bool,
    }

    /// A set of files that was in force.
    GenerationSeen {
        generation: u64,
        at: Timestamp,
        hash: String,
        actor: String,
        reason: Option<String>,
        changes: Vec<String>,
        files: u64,
    }
    /// What holds files at an earlier version.
    Pinned {
        generation: u64,
        at: Timestamp,
        actor: String,
        reason: Option<String>,
        files: Vec<String>,
    }
    /// A page of generations.
    Generations {
        running: u64,
        pinned: Option<Pinned>,
        data: Vec<GenerationSeen>,
        next: Option<u64>,
    }
    /// How one file differs.
    FileDifference {
        file: String,
        before: Option<String>,
        after: Option<String>,
    }
    /// What differs between two generations.
    Difference {
        from: u64,
        to: u64,
        changes: Vec<String>,
        files: Vec<FileDifference>,
    }
    /// What is in force after going back.
    Restored {
        generation: u64,
        changed: bool,
        files: Vec<FileReport>,
        pinned: Option<Pinned>,
    }

    // -- the OpenAI form --

    /// A chat request of the OpenAI form.
    ChatRequest {
        /// A pipeline, or a model that one accepts.
        #[schemars(length(min = 1, max = 2048))]
        model: String,
        #[schemars(length(min = 1))]
        messages: Vec<Message>,
        /// Whether the answer comes in pieces.
        stream: Option<bool>,
    }
    /// A chat completion.
    Completion {
        id: String,
        object: String,
        created: i64,
        model: String,
        choices: Vec<Map<String, Value>>,
        usage: Option<Map<String, Value>>,
    }
    /// A model.
    Model {
        id: String,
        object: String,
        created: i64,
        owned_by: String,
    }
    /// Every model.
    Models {
        object: String,
        data: Vec<Model>,
    }
    /// A file.
    File {
        id: String,
        object: String,
        bytes: u64,
        created_at: i64,
        expires_at: Option<i64>,
        filename: String,
        purpose: String,
        status: String,
    }
    /// An upload.
    Upload {
        /// `batch`.
        purpose: String,
        /// Lines of requests.
        file: String,
    }
    /// A page of files.
    Files {
        object: String,
        data: Vec<File>,
        first_id: Option<String>,
        last_id: Option<String>,
        has_more: bool,
    }
    /// All rollouts.
    RolloutsSeen {
        data: Vec<RolloutView>,
    }
    /// What became of scores.
    ScoresTaken {
        /// Whether they are evidence.
        counted: bool,
        /// Why not.
        reason: Option<String>,
    }
    /// A file that is gone.
    FileDeleted {
        id: String,
        object: String,
        deleted: bool,
    }
    /// What is wrong with a batch's input.
    BatchErrors {
        object: String,
        data: Vec<LineError>,
    }
    /// How many lines stand where.
    RequestCounts {
        total: u64,
        completed: u64,
        failed: u64,
    }
    /// A batch.
    Batch {
        id: String,
        object: String,
        endpoint: String,
        errors: Option<BatchErrors>,
        input_file_id: String,
        completion_window: String,
        status: BatchStatus,
        output_file_id: Option<String>,
        error_file_id: Option<String>,
        created_at: i64,
        expires_at: i64,
        request_counts: RequestCounts,
        metadata: Option<BTreeMap<String, String>>,
        usage: Option<Map<String, Value>>,
    }
    /// A page of batches.
    Batches {
        object: String,
        data: Vec<Batch>,
        first_id: Option<String>,
        last_id: Option<String>,
        has_more: bool,
    }
}

/// Figures by name; `landbridge plan --format json` and `report --format json` print the same.
pub(super) struct Figures;

impl JsonSchema for Figures {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Figures".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "object" })
    }
}

/// Pairs of texts.
pub(super) struct Metadata;

impl JsonSchema for Metadata {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Metadata".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "object",
            "maxProperties": 64,
            "propertyNames": { "minLength": 1, "maxLength": 64, "pattern": r"^[^\u0000-\u001f\u007f-\u009f]*$" },
            "additionalProperties": { "type": "string", "maxLength": 512, "pattern": r"^[^\u0000]*$" },
        })
    }
}
