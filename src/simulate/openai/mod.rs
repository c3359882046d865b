//! OpenAI's protocol: how answers, refusals and faults look on the wire.
//!
//! Invariant: every error has the body `{"error":{"message","type","param","code"}}`, except where the simulated fault
//! is that it has not.

mod chunks;
mod field;
mod read;

use std::time::Duration;

use axum::http::HeaderMap;
use serde_json::json;

pub(super) use chunks::{chunks, error_chunk};
pub(super) use read::read;

use super::{
    answer::{Answer, Stop},
    capability::{Unable, has_ended},
    model::{Exceeded, FaultKind, Level, Meter, Rates},
    prompt::Prompt,
    reply::{Refused, Reply},
};
use crate::{
    catalog::{Catalog, Lifecycle},
    clock::Timestamp,
    spec::Api,
};

/// What every reply carries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp<'a> {
    pub request_id: &'a str,
    pub took: Duration,
    pub rates: Rates,
}

/// A refusal in OpenAI's shape.
pub(super) fn refuse(refused: &Refused) -> Reply {
    let kind = match refused.status {
        401..=404 | 400 | 405 | 413 => "invalid_request_error",
        429 if refused.code == Some("insufficient_quota") => "insufficient_quota",
        429 => "rate_limit_error",
        503 => "service_unavailable_error",
        _ => "server_error",
    };
    let error = json!({"message": refused.message, "type": kind, "param": refused.param, "code": refused.code});
    Reply::json(refused.status, &json!({"error": error}))
}

/// Adds the headers of every reply.
pub(super) fn stamp(reply: Reply, stamp: &Stamp<'_>) -> Reply {
    let mut reply = reply
        .header("x-request-id", stamp.request_id)
        .header("openai-version", "2020-10-01")
        .header("openai-organization", "org-simulated")
        .header("openai-processing-ms", stamp.took.as_millis().to_string());
    let Rates { requests, tokens } = stamp.rates;
    if let Some(Level { limit, remaining, reset }) = requests {
        reply = reply
            .header("x-ratelimit-limit-requests", limit.to_string())
            .header("x-ratelimit-remaining-requests", remaining.to_string())
            .header("x-ratelimit-reset-requests", go_duration(reset));
    }
    if let Some(Level { limit, remaining, reset }) = tokens {
        reply = reply
            .header("x-ratelimit-limit-tokens", limit.to_string())
            .header("x-ratelimit-remaining-tokens", remaining.to_string())
            .header("x-ratelimit-reset-tokens", go_duration(reset));
    }
    reply
}

/// A span as Go writes it: `120ms`, `1.5s`, `6m0s`, `1h2m3s`.
pub(super) fn go_duration(span: Duration) -> String {
    let (seconds, millis) = (span.as_secs(), span.subsec_millis());
    let fraction = match millis {
        0 => String::new(),
        _ => format!(".{millis:03}").trim_end_matches('0').to_owned(),
    };
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0) => format!("{millis}ms"),
        (0, 0, s) => format!("{s}{fraction}s"),
        (0, m, s) => format!("{m}m{s}{fraction}s"),
        (h, m, s) => format!("{h}h{m}m{s}{fraction}s"),
    }
}

fn finish_reason(stop: Stop) -> &'static str {
    match stop {
        Stop::End | Stop::Sequence => "stop",
        Stop::Length => "length",
        Stop::Tool => "tool_calls",
        Stop::Filter => "content_filter",
    }
}

fn usage(prompt: &Prompt, answer: &Answer) -> serde_json::Value {
    let output = answer.output_tokens.saturating_mul(prompt.choices);
    json!({
        "prompt_tokens": prompt.input_tokens,
        "completion_tokens": output,
        "total_tokens": prompt.input_tokens.saturating_add(output),
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
    })
}

/// A completion.
pub(super) fn complete(prompt: &Prompt, answer: &Answer, id: &str, now: Timestamp) -> Reply {
    let finish_reason = finish_reason(answer.stop);
    let choices: Vec<_> = (0..prompt.choices)
        .map(|index| {
            let mut message = json!({"role": "assistant", "content": answer.text, "refusal": null});
            if let (Some(call), Some(message)) = (&answer.tool, message.as_object_mut()) {
                let function = json!({"name": call.name, "arguments": call.input.to_string()});
                let id = format!("call_{}{index}", id.trim_start_matches("req_"));
                message.insert("content".to_owned(), serde_json::Value::Null);
                message.insert("tool_calls".to_owned(), json!([{"id": id, "type": "function", "function": function}]));
            }
            json!({"index": index, "message": message, "logprobs": null, "finish_reason": finish_reason})
        })
        .collect();
    let completion = json!({
        "id": format!("chatcmpl-{}", id.trim_start_matches("req_")),
        "object": "chat.completion",
        "created": now.as_micros() / 1_000_000,
        "model": prompt.model,
        "choices": choices,
        "usage": usage(prompt, answer),
        "service_tier": "default",
        "system_fingerprint": null,
    });
    Reply::json(200, &completion)
}

/// A quota that the call did not fit.
pub(super) fn throttle(model: &str, exceeded: &Exceeded) -> Reply {
    let Exceeded { meter, limit, remaining, requested, wait } = *exceeded;
    let what = match meter {
        Meter::Requests => "requests per min (RPM)",
        Meter::Tokens => "tokens per min (TPM)",
        Meter::DailyTokens => "tokens per day (TPD)",
    };
    let whose = format!("{model} in organization org-simulated on {what}");
    let Some(wait) = wait else {
        // No waiting helps: the request alone is larger than the quota.
        let message = format!(
            "Request too large for {whose}: Limit {limit}, Requested {requested}. The input or output tokens must be \
             reduced in order to run successfully."
        );
        let error = json!({"message": message, "type": "tokens", "param": null, "code": "rate_limit_exceeded"});
        return Reply::json(429, &json!({"error": error}));
    };
    let used = limit.saturating_sub(remaining);
    let again = go_duration(wait);
    let message = format!(
        "Rate limit reached for {whose}: Limit {limit}, Used {used}, Requested {requested}. Please try again in {again}."
    );
    retry_after(refuse(&Refused::new(429, "rate_limit_exceeded", message)), Some(wait))
}

fn retry_after(reply: Reply, wait: Option<Duration>) -> Reply {
    let Some(wait) = wait else { return reply };
    let millis = wait.as_micros().div_ceil(1_000);
    reply.header("retry-after", millis.div_ceil(1_000).to_string()).header("retry-after-ms", millis.to_string())
}

/// A model that does not take the request.
pub(super) fn unable(model: &str, unable: &Unable) -> Refused {
    match unable {
        Unable::Unknown => Refused::new(
            404,
            "model_not_found",
            format!("The model `{model}` does not exist or you do not have access to it."),
        ),
        Unable::Ended => {
            Refused::new(404, "model_not_found", format!("The model `{model}` has been shut down and is no longer accessible."))
        }
        Unable::NeedsProfile => Refused::new(404, "model_not_found", format!("The model `{model}` does not exist.")),
        Unable::ForcedTool => Refused::new(
            400,
            "unsupported_value",
            "Unsupported value: 'tool_choice' does not support forcing a tool with this model.",
        )
        .param("tool_choice"),
        Unable::Bound { asked, least } => Refused::new(
            400,
            "integer_below_min_value",
            format!("Invalid 'max_completion_tokens': integer below minimum value. Expected a value >= {least}, but got {asked} instead."),
        )
        .param("max_completion_tokens"),
        Unable::Parameter("max_tokens") => Refused::new(
            400,
            "unsupported_parameter",
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        )
        .param("max_tokens"),
        Unable::Parameter(name @ ("temperature" | "top_p")) => Refused::new(
            400,
            "unsupported_value",
            format!("Unsupported value: '{name}' does not support this value with this model. Only the default (1) value is supported."),
        )
        .param(*name),
        Unable::Parameter(name) => Refused::new(
            400,
            "unsupported_parameter",
            format!("Unsupported parameter: '{name}' is not supported with this model."),
        )
        .param(*name),
        Unable::Together(one, other) => Refused::new(
            400,
            "unsupported_parameter",
            format!("Unsupported parameter: '{other}' is not supported together with '{one}' with this model."),
        )
        .param(other.clone()),
        Unable::Output { asked, most } => Refused::new(
            400,
            "invalid_value",
            format!(
                "max_tokens is too large: {asked}. This model supports at most {most} completion tokens, whereas you \
                 provided {asked}."
            ),
        )
        .param("max_tokens"),
        Unable::Window { input, output, most } => too_long(*input, *output, *most),
    }
}

fn too_long(input: u64, output: u64, most: u64) -> Refused {
    let sum = input.saturating_add(output);
    Refused::new(
        400,
        "context_length_exceeded",
        format!(
            "This model's maximum context length is {most} tokens. However, you requested {sum} tokens ({input} in the \
             messages, {output} in the completion). Please reduce the length of the messages or completion."
        ),
    )
    .param("messages")
}

/// A fault that is a refusal; others are played on the wire.
pub(super) fn fault(kind: FaultKind, prompt: &Prompt) -> Option<Reply> {
    let model = &prompt.model;
    Some(match kind {
        FaultKind::Throttled { retry_after: hint } => {
            let message = format!("Rate limit reached for {model} in organization org-simulated.");
            retry_after(refuse(&Refused::new(429, "rate_limit_exceeded", message)), hint)
        }
        FaultKind::QuotaExhausted => refuse(&Refused::new(
            429,
            "insufficient_quota",
            "You exceeded your current quota, please check your plan and billing details.",
        )),
        FaultKind::ServerError => {
            refuse(&Refused::new(500, None, "The server had an error while processing your request. Sorry about that!"))
        }
        FaultKind::Overloaded { status, retry_after: hint } => retry_after(
            refuse(&Refused {
                status,
                ..Refused::new(
                    503,
                    "server_is_overloaded",
                    "The engine is currently overloaded, please try again later.",
                )
            }),
            hint,
        ),
        FaultKind::ModelTimeout => refuse(&Refused::new(408, None, "Request timed out.")),
        FaultKind::Unauthorized => refuse(&unauthorized("Incorrect API key provided.")),
        FaultKind::Forbidden => refuse(&Refused::new(
            403,
            "model_not_found",
            format!("Project `proj_simulated` does not have access to model `{model}`."),
        )),
        FaultKind::ModelNotFound => refuse(&unable(model, &Unable::Unknown)),
        FaultKind::EndOfLife => refuse(&unable(model, &Unable::Ended)),
        FaultKind::ContextLength => {
            refuse(&too_long(prompt.input_tokens, prompt.max_output.unwrap_or(0), prompt.input_tokens / 2))
        }
        FaultKind::Refused => refuse(
            &Refused::new(
                400,
                "content_policy_violation",
                "Your request was rejected as a result of our safety system.",
            )
            .param("messages"),
        ),
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

/// Credentials that are missing or wrong.
pub(super) fn unauthorized(message: &'static str) -> Refused {
    Refused::new(401, "invalid_api_key", message)
}

/// Whether a request carries a key.
pub(super) fn has_credentials(headers: &HeaderMap) -> bool {
    headers
        .get(axum::http::header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .is_some_and(|key| !key.trim().is_empty())
}

/// `GET /v1/models`: those of the catalogue that live.
pub(super) fn models(catalog: &Catalog, now: Timestamp) -> Reply {
    let data: Vec<_> = catalog
        .models()
        .iter()
        .filter(|model| model.api == Api::OpenAi && !has_ended(model, now))
        .map(|model| {
            let mut entry = json!({"id": model.id, "object": "model", "created": 1_700_000_000, "owned_by": "openai"});
            if let (Lifecycle::EndsOn(day), Some(entry)) = (model.lifecycle, entry.as_object_mut()) {
                entry.insert("shutdown_date".to_owned(), json!(day.to_string()));
            }
            entry
        })
        .collect();
    Reply::json(200, &json!({"object": "list", "data": data}))
}
