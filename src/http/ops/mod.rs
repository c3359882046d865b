//! `/v1/ops`: what operators see and do.

pub(super) mod config;
pub(super) mod flags;
pub(super) mod keys;
pub(super) mod plan;
pub(super) mod quotas;
pub(super) mod report;
pub(super) mod rollouts;
pub(super) mod traffic;

use axum::{
    Json,
    body::Bytes,
    extract::{
        Query, State,
        rejection::{BytesRejection, QueryRejection},
    },
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{ApiError, App, jobs::pipeline_name, param::Param, view::hold_in_words};
use crate::{
    access::Caller,
    clock::{Timestamp, parse_span},
    engine::{explain::Carriage, reload::Actor},
    job::{Envelope, State as JobState},
    names::PipelineName,
    spec::RolloutIx,
    store::{AuditEntry, Cancelled, JobQuery},
};

/// Reads a JSON body into a shape that refuses unknown keys.
fn read<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, ApiError> {
    serde_json::from_slice(&body?).map_err(|error| ApiError::invalid(None, format!("the body cannot be read: {error}")))
}

/// Checks that what is to be done stays within the pipelines that a key is bound to; `None` is all of them.
fn within(caller: &Caller, pipeline: Option<&PipelineName>) -> Result<(), ApiError> {
    match pipeline {
        Some(pipeline) if caller.reaches(pipeline) => Ok(()),
        None if !caller.is_bound() => Ok(()),
        _ => Err(ApiError::forbidden(
            "pipeline_not_allowed",
            format!("key {:?} is bound to some pipelines: name one of them", caller.name()),
        )),
    }
}

/// Every pipeline: where it comes from, what it does, how it stands.
pub(super) async fn pipelines(State(app): State<App>, caller: Caller) -> Result<Json<Value>, ApiError> {
    let engine = &app.engine;
    let counts = engine.seen_counts(&engine.store().counts().await?);
    let world = engine.world();
    let data: Vec<Value> = world
        .lanes()
        .filter(|(name, _)| caller.reaches(name))
        .map(|(name, lane)| {
            let spec = &lane.loaded.pipeline;
            let jobs: serde_json::Map<String, Value> = counts
                .iter()
                .filter(|((pipeline, _), _)| pipeline == name)
                .map(|((_, state), count)| (state.to_string(), (*count).into()))
                .collect();
            let hold = engine.hold_of(name);
            let spent = engine.spent(name);
            json!({
                "name": name,
                "description": spec.description,
                "file": lane.loaded.file,
                "stale": lane.loaded.stale,
                "labels": spec.labels,
                "targets": spec.targets.iter().map(|target| json!({
                    "name": target.name, "provider": target.provider, "model": target.model, "region": target.region,
                })).collect::<Vec<_>>(),
                "rollouts": (0..).map(RolloutIx).zip(&spec.rollouts).map(|(ix, rollout)| json!({
                    "name": rollout.name,
                    "baseline": spec.target(rollout.baseline).name,
                    "candidate": spec.target(rollout.candidate).name,
                    "percent": lane.standings.percent(spec, ix).to_string(),
                    "state": rollout.gated().and_then(|_| world.courses.get(name, &rollout.name)).map(|course| course.state()),
                    "rolled_back": lane.flags.rolled_back,
                })).collect::<Vec<_>>(),
                "jobs": jobs,
                "spent_today_usd": spent.0,
                "spent_this_month_usd": spent.1,
                "budget": spec.budget.map(|budget| json!({
                    "usd_per_day": budget.usd_per_day, "usd_per_month": budget.usd_per_month,
                    "at_limit": budget.at_limit.to_string(),
                })),
                "held": hold.map(|hold| json!({ "reason_code": hold, "reason": hold_in_words(engine, hold, name, "") })),
            })
        })
        .collect();
    // Reports name every pipeline: who is bound to some sees none.
    let files = if caller.is_bound() { &[][..] } else { &world.snapshot.files[..] };
    Ok(Json(
        json!({ "generation": world.snapshot.generation, "hash": world.snapshot.hash, "data": data, "files": files }),
    ))
}

/// What a reload may be asked besides.
#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReloadBody {
    /// Why specs that violate the policy serve all the same.
    #[serde(rename = "override")]
    override_reason: Option<String>,
}

/// Reads the folders again, now.
pub(super) async fn reload(
    State(app): State<App>,
    caller: Caller,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    within(&caller, None)?;
    let body = body?;
    let asked: ReloadBody = if body.is_empty() { ReloadBody::default() } else { read(Ok(body))? };
    let report = match asked.override_reason {
        None => app.reloader.reload_for(Actor { actor: caller.name().to_owned(), reason: None }).await,
        Some(reason) if reason.trim().is_empty() => {
            return Err(ApiError::invalid(Some("override"), "say why the policy is overridden"));
        }
        Some(reason) => {
            let by = Actor { actor: caller.name().to_owned(), reason: Some(reason) };
            app.reloader.reload_against_policy(by).await
        }
    };
    let status = if report.is_clean() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    Ok((status, Json(report)).into_response())
}

/// A job to be explained.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExplainBody {
    job: Value,
    pipeline: Option<String>,
}

/// Where a job would go now, and why; nothing is stored or called.
pub(super) async fn explain(
    State(app): State<App>,
    caller: Caller,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let asked: ExplainBody = read(body)?;
    let mut envelope = Envelope::from_value(asked.job)?;
    if let Some(pipeline) = asked.pipeline {
        envelope.pipeline = Some(pipeline_name(&pipeline)?);
    }
    app.engine.reach(&caller, &envelope)?;
    let foreseen = app.engine.explain(&envelope)?;
    let mut lines = vec![crate::routing::explain(&foreseen.decision)];
    for carriage in &foreseen.chain {
        let name = &carriage.target.name;
        lines.extend(carriage.fidelity_in_words().into_iter().map(|line| format!("target {name}: {line}")));
    }
    let text = lines.join("\n");
    let targets: Vec<Value> = foreseen.chain.iter().map(Carriage::to_json).collect();
    Ok(Json(json!({
        "pipeline": foreseen.pipeline, "decision": foreseen.decision, "targets": targets, "text": text,
    })))
}

/// What `GET /v1/ops/audit` may be asked.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    since: Option<String>,
    limit: Option<u32>,
}

/// Who did what, when, and why; oldest first. `since` is a span back from now or a time.
pub(super) async fn audit(
    State(app): State<App>,
    caller: Caller,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    within(&caller, None)?;
    let Query(query) = query?;
    let since = query.since.map_or(Ok(Timestamp::from_micros(0)), |text| moment(&app, &text))?;
    let limit = query.limit.unwrap_or(1_000).clamp(1, 10_000);
    Ok(Json(json!({ "data": app.engine.store().audit(since, limit).await? })))
}

/// A moment in the past: a span back from now, or a time.
fn moment(app: &App, text: &str) -> Result<Timestamp, ApiError> {
    match parse_span(text) {
        Ok(span) => Ok(app.engine.now() - span),
        Err(_) => text.parse().map_err(|_| {
            ApiError::invalid(Some("since"), format!("{text:?} is neither a span such as 24h nor an RFC 3339 time"))
        }),
    }
}

/// How a batch stands.
pub(super) async fn batch(
    State(app): State<App>,
    caller: Caller,
    Param(batch): Param<String>,
) -> Result<Json<Value>, ApiError> {
    let counts = app.engine.store().batch_counts(&batch).await?;
    let total: u64 = counts.values().sum();
    let one = JobQuery { batch: Some(batch.clone()), limit: 1, ..JobQuery::default() };
    let first = app.engine.store().list(one).await?.jobs.pop();
    if first.is_none_or(|job| !caller.sees(&job.pipeline, &job.caller)) {
        return Err(ApiError::not_found("batch_not_found", format!("no job belongs to batch {batch:?}")));
    }
    let ended = counts.iter().filter(|(state, _)| !state.is_terminal()).all(|(_, count)| *count == 0);
    let counts: serde_json::Map<String, Value> =
        counts.into_iter().map(|(state, count)| (state.to_string(), count.into())).collect();
    Ok(Json(json!({ "batch": batch, "counts": counts, "total": total, "ended": ended })))
}

/// Which jobs to cancel.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CancelBody {
    batch: Option<String>,
    pipeline: Option<String>,
    reason: Option<String>,
}

/// Jobs cancelled in one pass.
const CANCEL_PASS: u32 = 500;

/// Cancels every live job of a batch, a pipeline, or a batch's in a pipeline.
pub(super) async fn cancel(
    State(app): State<App>,
    caller: Caller,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let asked: CancelBody = read(body)?;
    if asked.batch.is_none() && asked.pipeline.is_none() {
        return Err(ApiError::invalid(None, "name a batch, a pipeline, or both"));
    }
    let pipeline = asked.pipeline.as_deref().map(pipeline_name).transpose()?;
    within(&caller, pipeline.as_ref())?;
    let subject = match (&asked.batch, &asked.pipeline) {
        (Some(batch), Some(pipeline)) => format!("batch {batch} in {pipeline}"),
        (Some(batch), None) => format!("batch {batch}"),
        (None, pipeline) => pipeline.clone().unwrap_or_default(),
    };
    let mut query = JobQuery {
        pipeline,
        batch: asked.batch,
        states: vec![JobState::Queued, JobState::Waiting, JobState::Held, JobState::Running],
        limit: CANCEL_PASS,
        ..JobQuery::default()
    };
    let mut cancelled = 0_usize;
    loop {
        let page = app.engine.store().list(query.clone()).await?;
        let ids = page.jobs.iter().map(|job| job.id).collect();
        let outcomes = app.engine.cancel(ids).await?;
        cancelled += outcomes.iter().filter(|outcome| matches!(outcome, Cancelled::Done { .. })).count();
        let Some(next) = page.next else {
            let entry = AuditEntry {
                at: app.engine.now(),
                actor: caller.name().to_owned(),
                action: "jobs.cancel".to_owned(),
                subject,
                reason: asked.reason,
                detail: json!({ "cancelled": cancelled }),
            };
            app.engine.store().apply(Vec::new(), Some(entry)).await?;
            return Ok(Json(json!({ "cancelled": cancelled })));
        };
        query.after = Some(next);
    }
}
