//! Every path and method, with what it takes and answers.

use axum::http::Method;

use super::{
    answers::{
        Audit, Batch, BatchCounts, Batches, Cancelled, ChatRequest, Difference, Explained, Figures, File, FileDeleted,
        Files, FlagTouched, Flags, Generations, JobPage, KeyMade, KeySeen, Keys, LeverTouched, ListJobs, Model, Models,
        NewJob, Pipelines, QuotaDone, Quotas, Ready, Restored, RolloutsSeen, ScoresTaken, Traffic, Upload, Why,
    },
    shapes::{Shape, of},
};
use crate::{
    engine::{Forecast, reload::ReloadReport, rollouts::RolloutView},
    http::{jobs, openai, ops, scores::ScoresBody, view::JobView},
};

const JSON: &[&str] = &["application/json"];
const TEXT: &[&str] = &["text/plain"];
const NDJSON: &str = "application/x-ndjson";

/// An answer that is no error.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) says: &'static str,
    pub(super) kinds: &'static [&'static str],
    /// `None` is text.
    pub(super) shape: Option<Shape>,
}

/// One method of one path.
pub(super) struct Operation {
    pub(super) method: Method,
    pub(super) path: &'static str,
    name: &'static str,
    pub(super) summary: &'static str,
    pub(super) query: Option<Shape>,
    pub(super) bodies: Vec<(&'static str, Shape)>,
    /// Whether it does nothing without a body.
    pub(super) body_needed: bool,
    pub(super) answers: Vec<Answer>,
    /// Operations that take the `id` of an answer.
    pub(super) leads_to: &'static [&'static str],
    /// Statuses of errors beside those that every path may answer.
    pub(super) fails: Vec<u16>,
}

impl Operation {
    fn new(method: Method, path: &'static str, name: &'static str, summary: &'static str) -> Self {
        let (bodies, answers, fails) = (Vec::new(), Vec::new(), Vec::new());
        Self { method, path, name, summary, query: None, bodies, body_needed: true, answers, leads_to: &[], fails }
    }

    fn query(mut self, shape: Shape) -> Self {
        self.query = Some(shape);
        self.failing(&[400])
    }

    fn body(mut self, kind: &'static str, shape: Shape) -> Self {
        self.bodies.push((kind, shape));
        self.failing(&[400, 413])
    }

    fn takes(self, shape: Shape) -> Self {
        self.body("application/json", shape)
    }

    fn may_take(mut self, shape: Shape) -> Self {
        self.body_needed = false;
        self.takes(shape)
    }

    fn answer(mut self, status: u16, says: &'static str, kinds: &'static [&'static str], shape: Option<Shape>) -> Self {
        self.answers.push(Answer { status, says, kinds, shape });
        self
    }

    fn gives(self, says: &'static str, shape: Shape) -> Self {
        self.answer(200, says, JSON, Some(shape))
    }

    fn leading_to(mut self, operations: &'static [&'static str]) -> Self {
        self.leads_to = operations;
        self
    }

    fn failing(mut self, statuses: &[u16]) -> Self {
        self.fails.extend(statuses);
        self
    }

    pub(super) fn id(&self) -> String {
        self.name.to_owned()
    }

    pub(super) fn in_openai_form(&self) -> bool {
        ["/v1/chat", "/v1/models", "/v1/files", "/v1/batches"].iter().any(|start| self.path.starts_with(start))
    }

    pub(super) fn tag(&self) -> &'static str {
        match self.path {
            path if path.starts_with("/v1/jobs") => "jobs",
            path if path.starts_with("/v1/ops") => "ops",
            _ if self.in_openai_form() => "openai",
            _ => "machines",
        }
    }
}

/// All of them.
pub(super) fn operations() -> Vec<Operation> {
    let mut all = jobs();
    all.extend(openai_form());
    all.extend(levers());
    all.extend(insight());
    all.extend(machines());
    all
}

fn get(path: &'static str, name: &'static str, summary: &'static str) -> Operation {
    Operation::new(Method::GET, path, name, summary)
}

fn post(path: &'static str, name: &'static str, summary: &'static str) -> Operation {
    Operation::new(Method::POST, path, name, summary)
}

fn delete(path: &'static str, name: &'static str, summary: &'static str) -> Operation {
    Operation::new(Method::DELETE, path, name, summary)
}

fn jobs() -> Vec<Operation> {
    vec![
        post("/v1/jobs", "submitJob", "Takes a job in, or many as NDJSON; durable when it answers.")
            .takes(of::<NewJob>)
            .body(NDJSON, of::<String>)
            .answer(200, "The key is known with the same envelope: this job.", JSON, Some(of::<JobView>))
            .answer(202, "The job, or one line for each line.", JSON, Some(of::<JobView>))
            .answer(202, "The job, or one line for each line.", &[NDJSON], None)
            .leading_to(&["showJob", "explainJob", "cancelJob", "retryJob"])
            .failing(&[404, 409]),
        get("/v1/jobs", "listJobs", "Jobs, newest first, without contents.")
            .query(of::<ListJobs>)
            .gives("A page.", of::<JobPage>),
        get("/v1/jobs/{id}", "showJob", "One job; with `wait`, its end, or how it stands when the wait is over.")
            .query(of::<jobs::ShowQuery>)
            .gives("The job.", of::<JobView>)
            .failing(&[404]),
        get("/v1/jobs/{id}/why", "explainJob", "Why a job stands where it stands, in words.")
            .gives("In words.", of::<Why>)
            .failing(&[400, 404]),
        post("/v1/jobs/{id}/scores", "scoreJob", "Writes down what somebody thinks of a job's answer.")
            .takes(of::<ScoresBody>)
            .gives("Whether it is evidence.", of::<ScoresTaken>)
            .failing(&[404, 409]),
        post("/v1/jobs/{id}/cancel", "cancelJob", "Ends a live job.")
            .gives("The job.", of::<JobView>)
            .failing(&[400, 404, 409]),
        post("/v1/jobs/{id}/retry", "retryJob", "Submits an ended job's envelope again, as a new job.")
            .answer(202, "The new job.", JSON, Some(of::<JobView>))
            .failing(&[400, 404]),
    ]
}

fn openai_form() -> Vec<Operation> {
    vec![
        post("/v1/chat/completions", "createChatCompletion", "Answers a chat request, whole or in pieces.")
            .takes(of::<ChatRequest>)
            .answer(200, "The completion, or a stream of its pieces.", &["application/json", "text/event-stream"], None)
            .failing(&[404, 500, 502, 504]),
        get("/v1/models", "listModels", "Pipelines, and the models that they accept.")
            .gives("All of them.", of::<Models>)
            .failing(&[400]),
        get("/v1/models/{model}", "showModel", "One of them.").gives("The model.", of::<Model>).failing(&[400, 404]),
        post("/v1/files", "createFile", "Takes a file of requests in.")
            .body("multipart/form-data", of::<Upload>)
            .gives("The file.", of::<File>),
        get("/v1/files", "listFiles", "Files, newest first.")
            .query(of::<openai::files::ListQuery>)
            .gives("A page.", of::<Files>),
        get("/v1/files/{file}", "showFile", "One file.").gives("The file.", of::<File>).failing(&[400, 404]),
        delete("/v1/files/{file}", "deleteFile", "Deletes a file.")
            .gives("It is gone.", of::<FileDeleted>)
            .failing(&[400, 404, 409]),
        get("/v1/files/{file}/content", "readFile", "What is in a file.")
            .answer(200, "The bytes.", &["application/octet-stream"], None)
            .failing(&[400, 404]),
        post("/v1/batches", "createBatch", "Makes a batch of a file's requests.")
            .takes(of::<openai::batches::CreateBody>)
            .gives("The batch.", of::<Batch>)
            .failing(&[404, 409]),
        get("/v1/batches", "listBatches", "Batches, newest first.")
            .query(of::<openai::batches::ListQuery>)
            .gives("A page.", of::<Batches>),
        get("/v1/batches/{batch}", "showBatch", "One batch.").gives("The batch.", of::<Batch>).failing(&[400, 404]),
        post("/v1/batches/{batch}/cancel", "cancelBatch", "Asks a batch to stop.")
            .gives("The batch.", of::<Batch>)
            .failing(&[400, 404, 409]),
    ]
}

fn levers() -> Vec<Operation> {
    vec![
        post("/v1/ops/reload", "reload", "Reads the folders again, now.")
            .may_take(of::<ops::ReloadBody>)
            .gives("Every file is good.", of::<ReloadReport>)
            .answer(422, "Some file is broken; the good ones are in force.", JSON, Some(of::<ReloadReport>)),
        get("/v1/ops/flags", "listFlags", "Every flag that is set, and what is in force for each pipeline.")
            .gives("All of them.", of::<Flags>),
        post("/v1/ops/flags", "setFlag", "Sets a flag at run time.")
            .takes(of::<ops::flags::SetBody>)
            .gives("What it touches.", of::<FlagTouched>)
            .failing(&[404, 409]),
        delete("/v1/ops/flags/{flag}", "clearFlag", "Clears a flag that was set at run time.")
            .query(of::<ops::flags::ClearQuery>)
            .gives("What it touches.", of::<FlagTouched>)
            .failing(&[404, 409]),
        post("/v1/ops/rollback", "rollBack", "Forces the baseline's provider and holds rollouts.")
            .takes(of::<ops::flags::ScopeBody>)
            .gives("What it touches.", of::<LeverTouched>)
            .failing(&[404, 409]),
        post("/v1/ops/resume", "resume", "Undoes a rollback.")
            .takes(of::<ops::flags::ScopeBody>)
            .gives("What it touches.", of::<LeverTouched>)
            .failing(&[404, 409]),
        post("/v1/ops/cancel", "cancelJobs", "Cancels every live job of a batch, of a pipeline, or of both.")
            .takes(of::<ops::CancelBody>)
            .gives("How many.", of::<Cancelled>)
            .failing(&[404]),
        post(
            "/v1/ops/rollouts/{pipeline}/{rollout}/{what}",
            "moveRollout",
            "Promotes, approves, pauses, resumes, aborts or retries.",
        )
        .takes(of::<ops::rollouts::MoveBody>)
        .gives("How it stands now.", of::<RolloutView>)
        .failing(&[404, 409]),
        post("/v1/ops/config/rollback", "restore", "Puts an earlier generation in force, or follows the disk again.")
            .takes(of::<ops::config::RollbackBody>)
            .gives("What is in force.", of::<Restored>)
            .failing(&[404, 422]),
        post("/v1/ops/quotas", "setQuota", "Sets a quota, from now on.")
            .takes(of::<ops::quotas::SetBody>)
            .gives("It is set.", of::<QuotaDone>)
            .failing(&[404, 409]),
        post("/v1/ops/quotas/reset", "resetQuota", "Takes back what was set, and forgets what was learned.")
            .takes(of::<ops::quotas::ResetBody>)
            .gives("It is reset.", of::<QuotaDone>)
            .failing(&[404, 409]),
        post("/v1/ops/keys", "createKey", "Makes a key.").takes(of::<ops::keys::CreateBody>).answer(
            201,
            "The key, and its text, this once.",
            JSON,
            Some(of::<KeyMade>),
        ),
        delete("/v1/ops/keys/{key}", "revokeKey", "Revokes a key.")
            .gives("The key.", of::<KeySeen>)
            .failing(&[400, 404]),
    ]
}

fn insight() -> Vec<Operation> {
    vec![
        get("/v1/ops/pipelines", "listPipelines", "Every pipeline: where it comes from, what it does, how it stands.")
            .gives("All of them.", of::<Pipelines>),
        post("/v1/ops/explain", "explain", "Where a job would go now, and why; nothing is stored or called.")
            .takes(of::<ops::ExplainBody>)
            .gives("The decision.", of::<Explained>)
            .failing(&[404]),
        get("/v1/ops/quotas", "listQuotas", "Every quota in use, and those that operators set.")
            .gives("All of them.", of::<Quotas>),
        get("/v1/ops/forecast", "forecastBacklog", "When what is queued now would be done.")
            .gives("The forecast.", of::<Forecast>),
        post("/v1/ops/forecast", "forecastJobs", "When jobs would be done that are not queued yet.")
            .takes(of::<ops::quotas::ForecastBody>)
            .gives("The forecast.", of::<Forecast>)
            .failing(&[404]),
        post("/v1/ops/plan", "plan", "What specs at hand would do to recorded jobs; nothing is stored or called.")
            .takes(of::<ops::plan::PlanBody>)
            .gives("Who moves, and what it costs.", of::<Figures>),
        get("/v1/ops/rollouts", "listRollouts", "Every rollout, and how it stands.")
            .gives("All of them.", of::<RolloutsSeen>),
        get("/v1/ops/rollouts/{pipeline}/{rollout}", "showRollout", "One rollout, gate by gate.")
            .gives("The rollout.", of::<RolloutView>)
            .failing(&[400, 404]),
        get("/v1/ops/report", "report", "What a migration came to.")
            .query(of::<ops::report::ReportQuery>)
            .gives("The ledger's figures.", of::<Figures>),
        get("/v1/ops/config", "listGenerations", "Sets of files that were in force, newest first.")
            .query(of::<ops::config::HistoryQuery>)
            .gives("A page.", of::<Generations>),
        get("/v1/ops/config/{generation}/diff", "compareGenerations", "What differs between two generations.")
            .query(of::<ops::config::DiffQuery>)
            .gives("The difference.", of::<Difference>)
            .failing(&[404]),
        get("/v1/ops/audit", "listAudit", "Who did what, when, and why; oldest first.")
            .query(of::<ops::AuditQuery>)
            .gives("Entries.", of::<Audit>),
        get("/v1/ops/traffic", "sumTraffic", "Sums of ended calls by pipeline, target and model.")
            .query(of::<ops::traffic::TrafficQuery>)
            .gives("Sums.", of::<Traffic>),
        get("/v1/ops/batches/{batch}", "countBatch", "How the jobs of a batch stand.")
            .gives("Counts.", of::<BatchCounts>)
            .failing(&[400, 404]),
        get("/v1/ops/keys", "listKeys", "Every key, without its text.").gives("All of them.", of::<Keys>),
    ]
}

fn machines() -> Vec<Operation> {
    vec![
        get("/healthz", "isAlive", "The process lives.").answer(200, "It does.", TEXT, None),
        get("/readyz", "isReady", "Whether work is accepted, and what is degraded.")
            .gives("It is.", of::<Ready>)
            .answer(503, "It is not.", JSON, Some(of::<Ready>)),
        get("/metrics", "readMetrics", "Prometheus metrics.").answer(200, "In text form.", TEXT, None),
        get("/openapi.json", "describe", "This description.")
            .gives("It.", of::<serde_json::Map<String, serde_json::Value>>),
    ]
}
