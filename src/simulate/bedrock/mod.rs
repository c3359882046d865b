//! Bedrock's Converse protocol: how answers, refusals and faults look on the wire.
//!
//! Invariant: an error's name is in the header `x-amzn-errortype` and its text in the body `{"message"}`, except where
//! the simulated fault is that they are not. Bedrock tells nothing of its quotas.

mod count;
mod frames;
mod granted;
pub(super) mod invoke;
mod read;

use std::time::Duration;

use axum::http::HeaderMap;
use serde_json::json;

pub(super) use count::count;
pub(super) use frames::{exception, frames};
pub(super) use granted::answer as service_quotas;
pub(super) use read::read;

use super::{
    answer::{Answer, Stop},
    capability::Unable,
    model::{Exceeded, FaultKind, Meter},
    prompt::Prompt,
    reply::{Refused, Reply},
};

/// The name space that the service writes after an exception's name.
const NAME_SPACE: &str = ":http://internal.amazon.com/coral/com.amazon.bedrock/";

/// A refusal in Bedrock's shape.
pub(super) fn refuse(refused: &Refused) -> Reply {
    let reply = Reply::json(refused.status, &json!({"message": refused.message}));
    match refused.code {
        Some(code) => reply.header("x-amzn-errortype", format!("{code}{NAME_SPACE}")),
        None => reply,
    }
}

/// Adds the headers of every reply.
pub(super) fn stamp(reply: Reply, request_id: &str) -> Reply {
    reply.header("x-amzn-requestid", request_id)
}

fn validation(message: impl Into<std::borrow::Cow<'static, str>>) -> Refused {
    Refused::new(400, "ValidationException", message)
}

fn stop_reason(stop: Stop) -> &'static str {
    match stop {
        Stop::End => "end_turn",
        Stop::Sequence => "stop_sequence",
        Stop::Length => "max_tokens",
        Stop::Tool => "tool_use",
        Stop::Filter => "content_filtered",
    }
}

fn usage(prompt: &Prompt, answer: &Answer) -> serde_json::Value {
    json!({
        "inputTokens": prompt.input_tokens,
        "outputTokens": answer.output_tokens,
        "totalTokens": prompt.input_tokens.saturating_add(answer.output_tokens),
    })
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// An answer.
pub(super) fn complete(prompt: &Prompt, answer: &Answer, latency: Duration) -> Reply {
    let content = match &answer.tool {
        Some(call) => {
            let id = format!("tooluse_{}", prompt.hash);
            json!([{"toolUse": {"toolUseId": id, "name": call.name, "input": call.input}}])
        }
        None => json!([{"text": answer.text}]),
    };
    let body = json!({
        "metrics": {"latencyMs": millis(latency)},
        "output": {"message": {"content": content, "role": "assistant"}},
        "stopReason": stop_reason(answer.stop),
        "usage": usage(prompt, answer),
    });
    Reply::json(200, &body)
}

/// A quota that the call did not fit.
pub(super) fn throttle(exceeded: &Exceeded) -> Reply {
    refuse(&throttled(match exceeded.meter {
        Meter::Requests => "Too many requests, please wait before trying again.",
        Meter::Tokens => "Too many tokens, please wait before trying again.",
        Meter::DailyTokens => "Too many tokens per day, please wait before trying again.",
    }))
}

fn throttled(message: &'static str) -> Refused {
    Refused::new(429, "ThrottlingException", message)
}

/// A model that does not take the request.
pub(super) fn unable(unable: &Unable) -> Refused {
    match unable {
        Unable::Unknown => validation("The provided model identifier is invalid."),
        Unable::Ended => Refused::new(
            404,
            "ResourceNotFoundException",
            "This model version has reached the end of its life. Please refer to the AWS documentation for more details.",
        ),
        Unable::NeedsProfile => validation(
            "Invocation of this model ID with on-demand throughput isn’t supported. Retry your request with the ID or ARN \
             of an inference profile that contains this model.",
        ),
        Unable::ForcedTool => {
            validation("This model doesn't support a forced tool. Remove toolConfig.toolChoice and try again.")
        }
        Unable::Bound { asked, least } => validation(format!(
            "The maximum tokens you requested, {asked}, is below the model's minimum of {least}. Try again with a higher \
             maximum tokens value."
        )),
        Unable::Parameter("assistant_prefill") => validation(
            "This model does not support assistant message prefill. The conversation must end with a user message.",
        ),
        Unable::Parameter("stop") => {
            validation("This model doesn't support the stopSequences field. Remove stopSequences and try again.")
        }
        Unable::Parameter(name) => validation(format!("`{name}` is deprecated for this model.")),
        Unable::Together(one, other) => {
            validation(format!("`{one}` and `{other}` cannot both be specified for this model. Please use only one."))
        }
        Unable::Output { asked: _, most } => validation(format!(
            "The maximum tokens you requested exceeds the model limit of {most}. Try again with a maximum tokens value that \
             is lower than {most}."
        )),
        Unable::Window { .. } => validation("Input is too long for requested model."),
    }
}

/// A fault that is a refusal; others are played on the wire.
pub(super) fn fault(kind: FaultKind) -> Option<Reply> {
    Some(match kind {
        FaultKind::Throttled { retry_after } => {
            hint(refuse(&throttled("Too many requests, please wait before trying again.")), retry_after)
        }
        FaultKind::QuotaExhausted => refuse(&throttled("Too many tokens per day, please wait before trying again.")),
        FaultKind::ServerError => refuse(&Refused::new(
            500,
            "InternalServerException",
            "The system encountered an unexpected error during processing. Try your request again.",
        )),
        FaultKind::Overloaded { status: 529, retry_after } => {
            // The model's maker speaks here: another shape, and no exception's name.
            let error = json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}});
            hint(Reply::json(529, &error), retry_after)
        }
        FaultKind::Overloaded { retry_after, .. } => hint(
            refuse(&Refused::new(
                503,
                "ServiceUnavailableException",
                "The service is temporarily unavailable. Try your request again.",
            )),
            retry_after,
        ),
        FaultKind::ModelTimeout => {
            refuse(&Refused::new(408, "ModelTimeoutException", "The model timed out in processing the request."))
        }
        FaultKind::Unauthorized => refuse(&Refused::new(
            403,
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        )),
        FaultKind::Forbidden => refuse(&Refused::new(
            403,
            "AccessDeniedException",
            "You don't have access to the model with the specified model ID.",
        )),
        FaultKind::ModelNotFound => refuse(&unable(&Unable::Unknown)),
        FaultKind::EndOfLife => refuse(&unable(&Unable::Ended)),
        FaultKind::ContextLength => refuse(&validation("Input is too long for requested model.")),
        FaultKind::Refused => refuse(&validation(
            "Malformed input request: the request was refused, please reformat your input and try again.",
        )),
        FaultKind::Hang
        | FaultKind::Reset { .. }
        | FaultKind::BadGateway
        | FaultKind::BrokenJson
        | FaultKind::ContentFilter
        | FaultKind::SlowDrip { .. }
        | FaultKind::StreamCut { .. }
        | FaultKind::StreamStall { .. }
        | FaultKind::StreamError { .. } => return None,
    })
}

fn hint(reply: Reply, wait: Option<Duration>) -> Reply {
    match wait {
        Some(wait) => reply.header("retry-after", wait.as_millis().div_ceil(1_000).to_string()),
        None => reply,
    }
}

/// Credentials that are missing.
pub(super) fn unauthorized() -> Refused {
    Refused::new(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
}

fn authorization(headers: &HeaderMap) -> Option<&str> {
    headers.get(axum::http::header::AUTHORIZATION)?.to_str().ok()
}

/// Whether a request is signed or carries a key.
pub(super) fn has_credentials(headers: &HeaderMap) -> bool {
    authorization(headers).is_some_and(|value| value.starts_with("AWS4-HMAC-SHA256 ") || value.starts_with("Bearer "))
}

/// The region that a request is signed for: `Credential=KEY/DAY/REGION/SERVICE/aws4_request`.
pub(super) fn signed_region(headers: &HeaderMap) -> Option<&str> {
    let (_, credential) = authorization(headers)?.split_once("Credential=")?;
    credential.split('/').nth(2).filter(|region| !region.is_empty() && region.len() <= 63)
}
