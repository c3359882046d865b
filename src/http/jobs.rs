//! `/v1/jobs`: submit, read, wait, cancel, try again, and ask why.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json,
    body::Bytes,
    extract::{
        Query, State,
        rejection::{BytesRejection, QueryRejection},
    },
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::json;

use super::{ApiError, App, param::Param, view::JobView};
use crate::{
    access::{Caller, Scope},
    clock::parse_span,
    engine::intake::{Accepted, IntakeError, MAX_WAIT},
    ids::JobId,
    job::{Envelope, State as JobState},
    names::PipelineName,
    store::{Cancelled, JobQuery, JobRecord, JobSummary},
};

/// Lines of one bulk, at most.
const MAX_LINES: usize = 50_000;
/// Lines handed to the store at once: enough to share a commit.
const LINES_A_SUBMIT: usize = 1_000;
/// Jobs on a page, unless asked otherwise, and at most.
const PAGE: u32 = 100;
const MAX_PAGE: u32 = 1_000;

/// One job, or many as NDJSON.
pub(super) async fn submit(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let body = body?;
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if matches!(essence, "application/x-ndjson" | "application/jsonl" | "application/x-jsonlines") {
        return submit_lines(&app, &caller, &body).await;
    }
    let mut answers = app.engine.submit(&caller, vec![Envelope::parse(&body)?]).await;
    let accepted = answers.pop().unwrap_or(Err(IntakeError::Draining))?;
    let status = if accepted.repeated { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(whole(&app, &caller, accepted.id).await?)).into_response())
}

async fn submit_lines(app: &App, caller: &Caller, body: &[u8]) -> Result<Response, ApiError> {
    let lines: Vec<(usize, &[u8])> = body
        .split(|byte| *byte == b'\n')
        .enumerate()
        .map(|(at, line)| (at + 1, line.trim_ascii()))
        .filter(|(_, line)| !line.is_empty())
        .collect();
    if lines.len() > MAX_LINES {
        return Err(ApiError::invalid(None, format!("{} lines in one body; send at most {MAX_LINES}", lines.len())));
    }
    let mut answer = String::with_capacity(lines.len() * 80);
    for chunk in lines.chunks(LINES_A_SUBMIT) {
        let parsed: Vec<(usize, Result<Envelope, ApiError>)> =
            chunk.iter().map(|(at, line)| (*at, Envelope::parse(line).map_err(ApiError::from))).collect();
        let good = parsed.iter().filter_map(|(_, envelope)| envelope.as_ref().ok().cloned()).collect();
        let mut outcomes = app.engine.submit(caller, good).await.into_iter();
        for (at, envelope) in parsed {
            let outcome = match envelope {
                Ok(_) => outcomes.next().unwrap_or(Err(IntakeError::Draining)).map_err(ApiError::from),
                Err(error) => Err(error),
            };
            let line = match outcome {
                Ok(Accepted { id, state, .. }) => json!({ "line": at, "id": id, "state": state }),
                Err(error) => json!({ "line": at, "error": error.body() }),
            };
            answer.push_str(&line.to_string());
            answer.push('\n');
        }
    }
    Ok((StatusCode::ACCEPTED, [(header::CONTENT_TYPE, "application/x-ndjson")], answer).into_response())
}

/// What `GET /v1/jobs/{id}` may be asked.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ShowQuery {
    wait: Option<String>,
}

/// One job; with `wait`, its end, or how it stands when the wait is over.
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Param(id): Param<String>,
    query: Result<Query<ShowQuery>, QueryRejection>,
) -> Result<Json<JobView>, ApiError> {
    let id = job_id(&id)?;
    if let Some(wait) = &query?.wait {
        let wait = parse_span(wait).map_err(|error| ApiError::invalid(Some("wait"), error.to_string()))?;
        visible(&app, &caller, id).await?;
        wait_for_end(&app, id, wait.min(MAX_WAIT)).await?;
    }
    Ok(Json(whole(&app, &caller, id).await?))
}

/// How often a waiter looks for itself, in case a hint was lost.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

async fn wait_for_end(app: &App, id: JobId, wait: Duration) -> Result<(), ApiError> {
    let mut endings = app.engine.store().endings();
    let over = tokio::time::sleep(wait);
    tokio::pin!(over);
    loop {
        let state = app.engine.store().job(id).await?.map(|record| record.summary.state);
        if state.is_none_or(JobState::is_terminal) {
            return Ok(());
        }
        let look = tokio::time::sleep(LOOK_AGAIN);
        tokio::pin!(look);
        loop {
            tokio::select! {
                () = &mut over => return Ok(()),
                () = &mut look => break,
                ended = endings.recv() => match ended {
                    Ok(ended) if ended != id => {}
                    _ => break,
                },
            }
        }
    }
}

/// Jobs, newest first.
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Json<serde_json::Value>, ApiError> {
    let Query(pairs) = query?;
    let mut query = JobQuery { limit: PAGE, ..JobQuery::default() };
    for (name, value) in pairs {
        let invalid = |message: String| ApiError::invalid(Some(&name), message);
        match name.as_str() {
            "pipeline" => query.pipeline = Some(pipeline_name(&value)?),
            "state" => {
                for state in value.split(',') {
                    query.states.push(state.parse().map_err(|_| {
                        invalid(format!("{state:?} is not a state: queued, waiting, held, running, succeeded, failed, cancelled, expired"))
                    })?);
                }
            }
            "batch" => query.batch = Some(value),
            "key" => query.idempotency_key = Some(value),
            "where" => {
                let (path, wanted) =
                    value.split_once('=').ok_or_else(|| invalid("write where=metadata.NAME=VALUE".to_owned()))?;
                let field = path
                    .strip_prefix("metadata.")
                    .ok_or_else(|| invalid(format!("{path:?}: only metadata.NAME can be asked for")))?;
                query.metadata.insert(field.to_owned(), wanted.to_owned());
            }
            "after" => query.after = Some(job_id(&value)?),
            "limit" => {
                query.limit = value
                    .parse()
                    .ok()
                    .filter(|limit| (1..=MAX_PAGE).contains(limit))
                    .ok_or_else(|| invalid(format!("limit is a number from 1 to {MAX_PAGE}")))?;
            }
            _ => {
                return Err(ApiError::invalid(
                    Some(&name),
                    format!(
                        "unknown query parameter {name:?}; there are pipeline, state, batch, key, where, after, limit"
                    ),
                ));
            }
        }
    }
    query.within = caller.key().map(|key| key.pipelines.iter().cloned().collect()).unwrap_or_default();
    // Holds of a whole pipeline are derived: its queued rows are shown, and asked for, as held.
    let asked = query.states.clone();
    if asked.contains(&JobState::Held) {
        query.states.extend([JobState::Queued, JobState::Waiting]);
    }
    let page = app.engine.store().list(query).await?;
    let jobs: Vec<JobView> = page
        .jobs
        .into_iter()
        .map(|summary| JobView::summary(&app.engine, summary))
        .filter(|job| asked.is_empty() || asked.contains(&job.state()))
        .collect();
    Ok(Json(json!({ "data": jobs, "next": page.next })))
}

/// Ends a live job.
pub(super) async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Param(id): Param<String>,
) -> Result<Json<JobView>, ApiError> {
    let id = job_id(&id)?;
    touchable(&app, &caller, id).await?;
    match app.engine.cancel(vec![id]).await?.pop() {
        Some(Cancelled::Done { .. }) => Ok(Json(whole(&app, &caller, id).await?)),
        Some(Cancelled::AlreadyEnded(state)) => {
            Err(ApiError::conflict(format!("job {id} has ended already: it is {state}")))
        }
        Some(Cancelled::Unknown) | None => Err(no_such_job(id)),
    }
}

/// Submits an ended job's envelope again.
pub(super) async fn retry(
    State(app): State<App>,
    caller: Caller,
    Param(id): Param<String>,
) -> Result<Response, ApiError> {
    let id = job_id(&id)?;
    touchable(&app, &caller, id).await?;
    let accepted = app.engine.retry(&caller, id).await?;
    Ok((StatusCode::ACCEPTED, Json(whole(&app, &caller, accepted.id).await?)).into_response())
}

/// Why a job stands where it stands, in words.
pub(super) async fn why(
    State(app): State<App>,
    caller: Caller,
    Param(id): Param<String>,
) -> Result<Json<serde_json::Value>, ApiError> {
    let record = visible(&app, &caller, job_id(&id)?).await?;
    let steps: Vec<String> = app.engine.story(&record);
    let attempts = record.attempts.clone();
    let record_id = record.summary.id;
    let view = JobView::whole(&app.engine, record);
    let (reason, reason_code) = view.reason();
    let id = record_id;
    let state = view.state();
    let summary = match reason {
        Some(reason) => format!("{state}: {reason}"),
        None => match (state, attempts.last()) {
            (JobState::Succeeded, Some(last)) => format!("succeeded at target {} on attempt {}", last.target, last.n),
            (JobState::Running, Some(last)) => format!("running: attempt {} is at target {}", last.n, last.target),
            (JobState::Queued, _) => "queued: it is dispatched as soon as its pipeline has a free place".to_owned(),
            _ => state.to_string(),
        },
    };
    let reason_and_code: BTreeMap<&str, Option<&str>> =
        BTreeMap::from([("reason", reason), ("reason_code", reason_code)]);
    let mut answer = json!({ "id": id, "state": state, "summary": summary, "steps": steps, "attempts": attempts });
    for (key, value) in reason_and_code {
        if let (Some(value), Some(object)) = (value, answer.as_object_mut()) {
            object.insert(key.to_owned(), value.into());
        }
    }
    Ok(Json(answer))
}

async fn whole(app: &App, caller: &Caller, id: JobId) -> Result<JobView, ApiError> {
    let mut record = visible(app, caller, id).await?;
    if !caller.sees_content(&record.summary.caller) {
        record.result = None;
    }
    let callback = app.engine.callback_of(&record).await?;
    Ok(JobView::whole(&app.engine, record).with_callback(callback))
}

/// A job that the caller may know of; to others it is not there.
async fn visible(app: &App, caller: &Caller, id: JobId) -> Result<JobRecord, ApiError> {
    let record = app.engine.store().job(id).await?;
    let seen = record.filter(|record| {
        let JobSummary { pipeline, caller: owner, .. } = &record.summary;
        caller.sees(pipeline, owner) || (caller.may(Scope::Operate) && caller.reaches(pipeline))
    });
    seen.ok_or_else(|| no_such_job(id))
}

/// A job that the caller may score: one that they handed in, or may steer.
pub(super) async fn scorable(app: &App, caller: &Caller, id: &str) -> Result<JobRecord, ApiError> {
    let id = job_id(id)?;
    touchable(app, caller, id).await?;
    visible(app, caller, id).await
}

/// Checks that the caller may cancel a job or try it again: their own, or any as an operator.
async fn touchable(app: &App, caller: &Caller, id: JobId) -> Result<(), ApiError> {
    let owner = visible(app, caller, id).await?.summary.caller;
    if caller.owns(&owner) || caller.may(Scope::Operate) {
        return Ok(());
    }
    let message =
        format!("job {id} was handed in with another key; only that one, or one with the scope `operate`, may do this");
    Err(ApiError::forbidden("insufficient_scope", message))
}

fn no_such_job(id: JobId) -> ApiError {
    ApiError::not_found(
        "job_not_found",
        format!("there is no job {id}; ended jobs are kept for their pipeline's `retention.results`"),
    )
}

fn job_id(text: &str) -> Result<JobId, ApiError> {
    text.parse().map_err(|error: crate::ids::InvalidId| ApiError::invalid(Some("id"), error.to_string()))
}

pub(super) fn pipeline_name(text: &str) -> Result<PipelineName, ApiError> {
    PipelineName::new(text).map_err(|error| ApiError::invalid(Some("pipeline"), error.to_string()))
}
