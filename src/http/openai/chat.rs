//! `POST /v1/chat/completions`: an answer while the caller waits.
//!
//! Invariant: headers wait for the answer to begin, because until then another target may give it. A caller that hangs up
//! drops the handler, and with it the call.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    extract::{State, rejection::BytesRejection},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use serde_json::json;

use super::request::ChatRequest;
use crate::{
    access::Caller,
    clock::Timestamp,
    engine::{
        intake::IntakeError,
        live::{Head, LiveCall, LiveEnd, LiveFailure, LiveFault, Said},
    },
    http::{
        ApiError, App,
        jobs::pipeline_name,
        param::{Fixed, Param},
    },
    job::HoldReason,
    wire::openai::chunks::Writer,
};

const JOB: HeaderName = HeaderName::from_static("x-landbridge-job");
const TARGET: HeaderName = HeaderName::from_static("x-landbridge-target");
const GENERATION: HeaderName = HeaderName::from_static("x-landbridge-generation");
const ATTEMPTS: HeaderName = HeaderName::from_static("x-landbridge-attempts");
/// Proxies that gather answers are told not to.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// Clients of the original obey it.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Answers a chat request.
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller,
    Param(Fixed { pipeline }): Param<Fixed>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let fixed = pipeline.as_deref().map(pipeline_name).transpose()?;
    let asked = ChatRequest::read(&app.engine, fixed, &headers, &body?)?;
    let patience = app.reloader.settings().live.deadline;
    let model = asked.envelope.body.get("model").and_then(|model| model.as_str()).unwrap_or_default().to_owned();
    let mut call = app.engine.live(&caller, asked.envelope, patience, asked.stream).map_err(refused)?;
    loop {
        match call.next().await {
            Some(Said::Begun(head)) => {
                let created = app.engine.now().as_micros().div_euclid(1_000_000);
                let id = format!("chatcmpl-{}", head.job.to_string().trim_start_matches("job_"));
                let writer = Writer::new(&id, &model, created, asked.include_usage);
                return Ok(stream(call, writer, &head));
            }
            Some(Said::Event(_)) => {}
            Some(Said::Ended(end)) => return Ok(answer(*end, app.engine.now())),
            None => return Err(ApiError::unavailable("the daemon lost this request; see its log")),
        }
    }
}

/// An answer piece by piece. Dropping the body hangs up.
fn stream(call: LiveCall, writer: Writer, head: &Head) -> Response {
    let pieces = futures_util::stream::unfold((call, writer), |(mut call, mut writer)| async move {
        loop {
            let mut out = Vec::new();
            match call.next().await? {
                Said::Begun(_) => {}
                Said::Event(event) => writer.write(&event, &mut out),
                Said::Ended(end) => match end.outcome {
                    Ok(_) => writer.end(&mut out),
                    Err(failure) => died(&failure, &mut out),
                },
            }
            // What comes together leaves together.
            if !out.is_empty() {
                return Some((Ok::<_, std::convert::Infallible>(Bytes::from(out)), (call, writer)));
            }
        }
    });
    let mut response = Body::from_stream(pieces).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(BUFFERING, HeaderValue::from_static("no"));
    mark(headers, head);
    response
}

/// Tells the caller that nothing follows, and why; clients of the original raise it as an error.
fn died(LiveFailure { error, .. }: &LiveFailure, out: &mut Vec<u8>) {
    let code = error.code.as_deref().unwrap_or(&error.reason_code);
    let error =
        json!({ "error": { "message": error.message, "type": error.kind, "param": error.param, "code": code } });
    out.extend_from_slice(format!("data: {error}\n\n").as_bytes());
}

fn answer(end: LiveEnd, now: Timestamp) -> Response {
    let LiveEnd { head, outcome } = end;
    let mut response = match outcome {
        Ok(completion) => {
            ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], completion).into_response()
        }
        Err(failure) => {
            let mut response = failed(failure, now).into_response();
            if head.attempts > 0 {
                // What could be tried again has been.
                response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
            }
            response
        }
    };
    mark(response.headers_mut(), &head);
    response
}

fn mark(headers: &mut HeaderMap, head: &Head) {
    let mut put = |name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    };
    if head.attempts > 0 {
        put(JOB, head.job.to_string());
    }
    if let Some(target) = &head.target {
        put(TARGET, target.to_string());
    }
    put(GENERATION, head.generation.to_string());
    put(ATTEMPTS, head.attempts.to_string());
}

/// Statuses as the original's clients tell errors apart.
fn failed(LiveFailure { fault, error }: LiveFailure, now: Timestamp) -> ApiError {
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    let (status, kind, code, wait) = match fault {
        LiveFault::Refused => (StatusCode::BAD_REQUEST, "invalid_request_error", "refused", None),
        LiveFault::TooLong => (StatusCode::BAD_REQUEST, "invalid_request_error", "context_length_exceeded", None),
        LiveFault::Throttled(until) => {
            let wait = now.until(until).max(Duration::from_secs(1));
            (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "rate_limit_exceeded", Some(wait))
        }
        LiveFault::Crowded => {
            let wait = Some(Duration::from_secs(1));
            (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "rate_limit_exceeded", wait)
        }
        LiveFault::Held(HoldReason::Budget) => {
            (StatusCode::TOO_MANY_REQUESTS, "insufficient_quota", "insufficient_quota", None)
        }
        LiveFault::Held(_) => (unavailable, "service_unavailable_error", "held", Some(Duration::from_secs(30))),
        LiveFault::Unavailable => {
            (unavailable, "service_unavailable_error", "unavailable", Some(Duration::from_secs(5)))
        }
        LiveFault::Interrupted | LiveFault::Store => {
            (unavailable, "service_unavailable_error", "unavailable", Some(Duration::from_secs(1)))
        }
        LiveFault::Failed => (StatusCode::BAD_GATEWAY, "server_error", "attempts_exhausted", None),
        LiveFault::Late => (StatusCode::GATEWAY_TIMEOUT, "server_error", "deadline_exceeded", None),
    };
    let code = match (fault, error.code) {
        (LiveFault::TooLong | LiveFault::Held(HoldReason::Budget), _) | (_, None) => code.to_owned(),
        (_, Some(code)) => code,
    };
    let failed = ApiError::new(status, kind, code, error.message).blaming(error.param);
    wait.map_or(failed.clone(), |wait| failed.after(wait))
}

/// A pipeline that none of the client's fields names is, to it, a model that is not there.
fn refused(error: IntakeError) -> ApiError {
    let model = matches!(error, IntakeError::UnknownPipeline { param: "body.model", .. });
    let refused = ApiError::from(error);
    if model { refused.coded("model_not_found").blaming(Some("model")) } else { refused }
}
