//! `/v1/batches`: many requests at once, each a queued job.
//!
//! Invariant: a request that a client sent twice makes one batch.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json,
    body::Bytes,
    extract::{
        Query, State,
        rejection::{BytesRejection, QueryRejection},
    },
    http::HeaderMap,
};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::files::{kept, page_of, visible};
use crate::{
    access::Caller,
    clock::{Timestamp, parse_span},
    engine::batches::{BatchRecord, BatchStatus, Made, Repeat},
    http::{
        ApiError, App,
        jobs::pipeline_name,
        param::{Fixed, Param},
    },
    job::envelope::MAX_CALLBACK,
};

/// What lines may ask.
const ENDPOINT: &str = "/v1/chat/completions";
/// A key tells repeats for so long.
const KEY_WITHIN: Duration = Duration::from_hours(24);
/// A client's own retry comes within seconds; the same body later is another batch.
const RETRY_WITHIN: Duration = Duration::from_mins(10);
/// Windows that may be asked for; the original knows the day.
const WINDOWS: std::ops::RangeInclusive<Duration> = Duration::from_mins(1)..=Duration::from_hours(14 * 24);
/// Batches on a page, unless asked otherwise, and at most.
const PAGE: u32 = 20;
const MAX_PAGE: u32 = 100;
/// The pair of metadata that says who is told of the batch's end.
const CALLBACK_KEY: &str = "landbridge_callback";
/// Pairs of metadata, and the length of keys and values.
const MAX_PAIRS: usize = 16;
const MAX_KEY: usize = 64;
const MAX_VALUE: usize = 512;

/// A batch to be made.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct CreateBody {
    input_file_id: String,
    endpoint: String,
    completion_window: String,
    metadata: Option<BTreeMap<String, String>>,
    output_expires_after: Option<ExpiresAfter>,
    callback: Option<String>,
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ExpiresAfter {
    anchor: String,
    seconds: u64,
}

/// Makes a batch.
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller,
    Param(Fixed { pipeline }): Param<Fixed>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let body = body?;
    let asked: CreateBody = serde_json::from_slice(&body)
        .map_err(|error| ApiError::invalid(None, format!("the body cannot be read: {error}")))?;
    let fixed = pipeline.as_deref().map(pipeline_name).transpose()?;
    if asked.endpoint != ENDPOINT {
        let shown: String = asked.endpoint.chars().take(80).collect();
        let message = format!("batches of {shown:?} are not served here; only {ENDPOINT} is");
        return Err(ApiError::invalid(Some("endpoint"), message).coded("endpoint_not_supported"));
    }
    let window = parse_span(&asked.completion_window).ok().filter(|window| WINDOWS.contains(window));
    let window = window
        .ok_or_else(|| ApiError::invalid(Some("completion_window"), "`completion_window` is a span such as 24h"))?;
    if let Some(metadata) = &asked.metadata {
        check_metadata(metadata)?;
    }
    let output_expires_after = match &asked.output_expires_after {
        None => None,
        Some(ExpiresAfter { anchor, seconds }) if anchor == "created_at" => {
            Some(kept("output_expires_after.seconds", *seconds)?.as_secs())
        }
        Some(_) => {
            let message = "`output_expires_after.anchor` must be \"created_at\"";
            return Err(ApiError::invalid(Some("output_expires_after.anchor"), message));
        }
    };
    let callback = callback(&app, &asked)?;
    let file =
        visible(&app, &caller, &asked.input_file_id).await.map_err(|error| error.blaming(Some("input_file_id")))?;
    if file.purpose != "batch" {
        let message =
            format!("file {} is of purpose {:?}; a batch reads files of purpose `batch`", file.id, file.purpose);
        return Err(ApiError::invalid(Some("input_file_id"), message));
    }
    if !app.engine.is_accepting() {
        return Err(ApiError::unavailable("this daemon is draining and takes no new batches; try again in a moment"));
    }
    let now = app.engine.now();
    let record = BatchRecord {
        id: format!("batch_{}", uuid::Uuid::now_v7().simple()),
        owner: caller.id().to_owned(),
        owner_pipelines: caller.key().map(|key| key.pipelines.clone()).unwrap_or_default(),
        fixed,
        pipelines: std::collections::BTreeSet::new(),
        endpoint: asked.endpoint,
        input_file_id: asked.input_file_id,
        completion_window: asked.completion_window,
        status: BatchStatus::Validating,
        created_at: now,
        in_progress_at: None,
        expires_at: now + window,
        finalizing_at: None,
        completed_at: None,
        failed_at: None,
        expired_at: None,
        cancelling_at: None,
        cancelled_at: None,
        output_file_id: None,
        error_file_id: None,
        output_expires_after,
        callback,
        metadata: asked.metadata,
        errors: Vec::new(),
        total: 0,
        submitted: false,
        completed: 0,
        failed: 0,
        usage: None,
    };
    match app.engine.make_batch(record, &repeats(&caller, &headers, pipeline.as_deref(), &body)).await? {
        Made::New(record) | Made::Known(record) => Ok(Json(view(&record))),
        Made::Conflict(batch) => {
            let message = format!("this `Idempotency-Key` was used for {batch}, with another body; use a new one");
            Err(ApiError::conflict(message))
        }
    }
}

/// How a repeat of this request would be known: by its key, or by its body when the client says that it tries again.
fn repeats(caller: &Caller, headers: &HeaderMap, pipeline: Option<&str>, body: &[u8]) -> Vec<Repeat> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let digest = hex(&[pipeline.unwrap_or_default().as_bytes(), b"\n", body]);
    let retries = text("x-stainless-retry-count").and_then(|count| count.parse::<u32>().ok()).unwrap_or(0);
    let mut repeats = vec![Repeat {
        key: format!("body/{}", hex(&[caller.id().as_bytes(), b"\n", digest.as_bytes()])),
        digest: digest.clone(),
        within: RETRY_WITHIN,
        strict: false,
        look: retries > 0,
    }];
    if let Some(key) = text("idempotency-key") {
        repeats.push(Repeat {
            key: format!("key/{}", hex(&[caller.id().as_bytes(), b"\n", key.as_bytes()])),
            digest,
            within: KEY_WITHIN,
            strict: true,
            look: true,
        });
    }
    repeats
}

fn hex(parts: &[&[u8]]) -> String {
    use std::fmt::Write as _;
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

/// Who is told of the batch's end: a field of its own, or a pair of metadata for clients that know no other field.
fn callback(app: &App, asked: &CreateBody) -> Result<Option<String>, ApiError> {
    let in_metadata = asked.metadata.as_ref().and_then(|metadata| metadata.get(CALLBACK_KEY));
    let (param, url) = match (&asked.callback, in_metadata) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            let message = format!("`callback` and `metadata.{CALLBACK_KEY}` are the same thing; give one of them");
            return Err(ApiError::invalid(Some("callback"), message));
        }
        (Some(url), None) => ("callback".to_owned(), url),
        (None, Some(url)) => (format!("metadata.{CALLBACK_KEY}"), url),
    };
    if url.chars().nth(MAX_CALLBACK).is_some() {
        let message = format!("`{param}` has more than {MAX_CALLBACK} characters");
        return Err(ApiError::invalid(Some(&param), message));
    }
    app.engine.check_callback(url).map_err(|message| ApiError::invalid(Some(&param), message))?;
    Ok(Some(url.clone()))
}

fn check_metadata(metadata: &BTreeMap<String, String>) -> Result<(), ApiError> {
    let fits = |(key, value): (&String, &String)| key.chars().count() <= MAX_KEY && value.chars().count() <= MAX_VALUE;
    if metadata.len() <= MAX_PAIRS && metadata.iter().all(fits) {
        return Ok(());
    }
    let message =
        format!("`metadata` has at most {MAX_PAIRS} pairs, keys of {MAX_KEY} and values of {MAX_VALUE} characters");
    Err(ApiError::invalid(Some("metadata"), message))
}

/// Which batch.
#[derive(Debug, Deserialize)]
pub(super) struct BatchPath {
    batch: String,
}

/// A batch that the caller may know of; to others it is not there.
async fn seen(app: &App, caller: &Caller, id: &str) -> Result<BatchRecord, ApiError> {
    let batch = app.engine.batch(id).await?.filter(|batch| is_seen(caller, batch));
    batch.ok_or_else(|| {
        let shown: String = id.chars().take(80).collect();
        ApiError::not_found("batch_not_found", format!("there is no batch {shown:?}"))
    })
}

fn is_seen(caller: &Caller, batch: &BatchRecord) -> bool {
    let within = || {
        let known = !batch.pipelines.is_empty() && batch.pipelines.iter().all(|name| caller.reaches(name));
        caller.may(crate::access::Scope::Read) && (!caller.is_bound() || known)
    };
    caller.owns(&batch.owner) || within()
}

/// One batch.
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Param(BatchPath { batch }): Param<BatchPath>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(view(&seen(&app, &caller, &batch).await?)))
}

/// Asks a batch to stop.
pub(super) async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Param(BatchPath { batch }): Param<BatchPath>,
) -> Result<Json<Value>, ApiError> {
    let record = seen(&app, &caller, &batch).await?;
    if caller.key().is_some() && !caller.owns(&record.owner) && !caller.may(crate::access::Scope::Operate) {
        let message = "only the key that made a batch, or one with the scope `operate`, cancels it";
        return Err(ApiError::forbidden("insufficient_scope", message));
    }
    match app.engine.cancel_batch(&record.id).await? {
        Some(record) => Ok(Json(view(&record))),
        None => Err(ApiError::conflict(format!("batch {} is over: it is {}", record.id, record.status))),
    }
}

/// What a list of batches may be asked.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ListQuery {
    after: Option<String>,
    limit: Option<u32>,
}

/// Batches, newest first.
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(ListQuery { mut after, limit }) = query?;
    let limit = limit.unwrap_or(PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(ApiError::invalid(Some("limit"), format!("`limit` is a number from 1 to {MAX_PAGE}")));
    }
    let mut found: Vec<BatchRecord> = Vec::new();
    loop {
        let page = app.engine.batches_page(after.clone(), MAX_PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id.clone());
        found.extend(page.into_iter().filter(|batch| is_seen(&caller, batch)));
        if found.len() > limit as usize {
            break;
        }
    }
    let has_more = found.len() > limit as usize;
    found.truncate(limit as usize);
    Ok(Json(page_of(found.iter().map(view).collect(), has_more)))
}

/// A batch as the original shows it.
fn view(batch: &BatchRecord) -> Value {
    let seconds = |at: Option<Timestamp>| at.map(|at| at.as_micros().div_euclid(1_000_000));
    let ended = batch.status.is_terminal();
    let errors = (!batch.errors.is_empty()).then(|| json!({ "object": "list", "data": batch.errors }));
    let usage = batch.usage.map(|usage| {
        json!({
            "input_tokens": usage.prompt(),
            "input_tokens_details": { "cached_tokens": usage.cache_read },
            "output_tokens": usage.output,
            "output_tokens_details": { "reasoning_tokens": usage.reasoning },
            "total_tokens": usage.total(),
        })
    });
    json!({
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": errors,
        "input_file_id": batch.input_file_id,
        "completion_window": batch.completion_window,
        "status": batch.status,
        "output_file_id": batch.output_file_id.as_ref().filter(|_| ended),
        "error_file_id": batch.error_file_id.as_ref().filter(|_| ended),
        "created_at": seconds(Some(batch.created_at)),
        "in_progress_at": seconds(batch.in_progress_at),
        "expires_at": seconds(Some(batch.expires_at)),
        "finalizing_at": seconds(batch.finalizing_at),
        "completed_at": seconds(batch.completed_at),
        "failed_at": seconds(batch.failed_at),
        "expired_at": seconds(batch.expired_at.filter(|_| batch.status == BatchStatus::Expired)),
        "cancelling_at": seconds(batch.cancelling_at),
        "cancelled_at": seconds(batch.cancelled_at),
        "request_counts": { "total": batch.total, "completed": batch.completed, "failed": batch.failed },
        "metadata": batch.metadata,
        "usage": usage,
    })
}
