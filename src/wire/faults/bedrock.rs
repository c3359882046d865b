//! Failures as Bedrock's runtime reports them.
//!
//! Invariant: the exception's name decides with the message beside it; where a gateway or a model's own error shape
//! leaves the name out, the HTTP status does.

use serde_json::Value;

use super::{
    Classified, DAILY_REQUESTS, DAILY_REST, DAILY_TOKENS, Hints, MAX_MESSAGE, Row, excerpt, foreign_body, normal,
    number_after,
};
use crate::{
    catalog::{Api, Catalog, id::bedrock_id},
    job::Fault::{self, Misconfigured, Refused, Throttled, TooLong, Transient, Unavailable},
};

/// How long a new marketplace subscription takes, by the service's own words.
const SUBSCRIPTION_REST: u64 = 900;

const REPORT: &str = "landbridge sent what this model does not take: set the parameter away with `override:` on the \
                      target, and report it so that the catalogue learns";
const CREDENTIALS: &str = "check the AWS credentials that this daemon finds (environment, profile, role), and the \
                           machine's clock";

const DAY: &str = "the day's allowance of this model is used up: ask AWS for more, or let a fallback serve";
/// A model that only inference profiles serve; the advice names them.
const NEEDS_PROFILE: &str = "with on-demand throughput isn't supported";
const TOO_MANY_TOKENS: &str = "maximum tokens you requested exceeds the model limit";
const THROTTLING: &[&str] = &["ThrottlingException", "Throttling", "TooManyRequestsException", "rate_limit_error"];

static TABLE: &[Row] = &[
    // Quotas.
    Row::new(Throttled)
        .code(THROTTLING)
        .says(&["tokens per day"])
        .after(DAILY_REST.as_secs())
        .named(DAILY_TOKENS)
        .advice(DAY),
    Row::new(Throttled)
        .status(&[429])
        .says(&["tokens per day"])
        .after(DAILY_REST.as_secs())
        .named(DAILY_TOKENS)
        .advice(DAY),
    Row::new(Throttled)
        .status(&[429])
        .says(&["requests per day"])
        .after(DAILY_REST.as_secs())
        .named(DAILY_REQUESTS)
        .advice(DAY),
    Row::new(Throttled).code(THROTTLING),
    Row::new(Transient).code(&["ModelNotReadyException"]),
    Row::new(Misconfigured)
        .code(&["ServiceQuotaExceededException"])
        .advice("an account limit is reached: ask AWS to raise it"),
    // Capacity.
    Row::new(Unavailable).code(&["ServiceUnavailableException", "ServiceUnavailable", "overloaded_error"]),
    Row::new(Unavailable).status(&[503, 529]),
    Row::new(Misconfigured)
        .code(&["billing_error"])
        .advice("the account behind this model has no valid means of payment"),
    // The model's own troubles.
    Row::new(Transient).code(&["ModelTimeoutException"]).billed(),
    Row::new(Transient).code(&["ModelErrorException", "ModelStreamErrorException"]).billed(),
    Row::new(Refused).says(&["could not process image"]),
    Row::new(Transient).code(&["InternalServerException", "InternalFailure", "InternalServerError"]),
    // Access.
    Row::new(Unavailable)
        .status(&[403])
        .says(&["subscription", "still being processed"])
        .after(SUBSCRIPTION_REST)
        .advice("the subscription to this model is minutes old: it will serve soon"),
    Row::new(Unavailable).code(&["MPAgreementBeingCreated"]).after(SUBSCRIPTION_REST),
    Row::new(Misconfigured)
        .says(&["is not authorized to perform"])
        .advice("give the role an IAM policy that allows bedrock:InvokeModel on this model and inference profile"),
    Row::new(Misconfigured)
        .says(&["invalid_payment_instrument"])
        .advice("the AWS account has no valid means of payment for marketplace models"),
    Row::new(Misconfigured)
        .says(&["aws-marketplace:"])
        .advice("subscribe to the model once with a role that may use aws-marketplace:Subscribe"),
    Row::new(Misconfigured)
        .says(&["have access to the model"])
        .advice("ask for access to the model in the Bedrock console of this account and region"),
    Row::new(Misconfigured).code(&["ExpiredTokenException", "ExpiredToken", "RequestExpired"]).advice(CREDENTIALS),
    Row::new(Misconfigured)
        .code(&[
            "UnrecognizedClientException",
            "InvalidClientTokenId",
            "InvalidSignatureException",
            "SignatureDoesNotMatch",
            "IncompleteSignature",
            "MissingAuthenticationToken",
            "MissingAuthenticationTokenException",
        ])
        .advice(CREDENTIALS),
    Row::new(Misconfigured)
        .code(&["AccessDeniedException", "AccessDenied", "access_denied"])
        .advice("check the role's IAM policy and the account's access to this model in this region"),
    // Models that are not there.
    Row::new(Misconfigured)
        .says(&["end of its life"])
        .advice("this model no longer serves: name its successor on the target (landbridge models --substitutes)"),
    Row::new(Misconfigured)
        .says(&["marked by provider as legacy"])
        .advice("legacy models are closed to accounts that have not used them for 30 days: name a current model"),
    Row::new(Misconfigured)
        .says(&["use case details have not been submitted"])
        .advice("fill in the model provider's use-case form once in the Bedrock console"),
    Row::new(Misconfigured)
        .says(&[NEEDS_PROFILE])
        .advice("this model needs an inference profile: put us., eu. or global. before its id on the target"),
    Row::new(Misconfigured)
        .says(&["provided model identifier is invalid"])
        .advice("no such model in this region: check the target's model and region"),
    Row::new(Misconfigured)
        .status(&[400])
        .says(&["operation not allowed"])
        .advice("this account may not call Bedrock models yet (new accounts start with a quota of 0): ask AWS support"),
    Row::new(Misconfigured)
        .says(&["guardrail identifier is invalid"])
        .advice("no such guardrail in this account and region"),
    Row::new(Misconfigured)
        .code(&["ResourceNotFoundException", "UnknownOperationException", "not_found_error"])
        .advice("check the target's model and region, and the provider's `endpoint_url` if there is one"),
    // Prompts that do not fit.
    Row::new(TooLong).says(&["input is too long"]),
    Row::new(TooLong).says(&["prompt is too long"]),
    Row::new(TooLong).says(&["too many input tokens"]),
    Row::new(TooLong).says(&["exceed context limit"]),
    Row::new(TooLong).says(&["prompt tokens", "exceed model maximum"]),
    Row::new(TooLong).says(&["context_length_exceeded"]),
    // What we should not have sent.
    Row::new(Refused)
        .says(&[TOO_MANY_TOKENS])
        .advice("set `cap: { max_tokens: … }` on the target to what the model writes at most"),
    Row::new(Refused).says(&["cannot both be specified for this model"]).advice(REPORT),
    Row::new(Refused).says(&["is deprecated for this model"]).advice(REPORT),
    Row::new(Refused).says(&["this model doesn't support the"]).advice(REPORT),
    Row::new(Refused).says(&["toolconfig field must be defined"]).advice(REPORT),
    Row::new(Refused).says(&["conversation must start with a user message"]).advice(REPORT),
    Row::new(Refused).says(&["cannot be provided in the same turn"]).advice(REPORT),
    Row::new(Refused).code(&["ValidationException", "validation_error", "invalid_request_error"]),
    // No name: the status alone.
    Row::new(Misconfigured).status(&[401, 403]).advice(CREDENTIALS),
    Row::new(Misconfigured)
        .status(&[404, 405, 410, 300, 301, 302, 303, 307, 308])
        .advice("check the target's model and region, and the provider's `endpoint_url` if there is one"),
    Row::new(Misconfigured).status(&[407, 511]).advice("the proxy between us and Bedrock wants credentials"),
    Row::new(Throttled).status(&[429]),
    Row::new(Transient).status(&[408, 424, 502, 504]).billed(),
    Row::new(Transient).status(&[409, 425, 500]),
];

/// Classifies a failed call. `code` is the SDK's name of the exception; without one, the header's or the body's counts.
pub fn classify(status: u16, hints: &Hints<'_>, code: Option<&str>, body: &[u8]) -> Classified {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let said = Said::read(status, hints, code, parsed.as_ref(), body);
    let original = parsed.as_ref().and_then(|body| body.get("originalStatusCode")?.as_u64());
    judge(status, hints, said, original)
}

/// Classifies an exception that came within a stream, by its name (`throttlingException`, in any case) and what it says.
/// `original_status` is what a model's own error carries. The answer had begun, so it may have been billed.
pub fn in_stream(exception: &str, message: &str, original_status: Option<u16>) -> Classified {
    let message =
        if message.trim().is_empty() { "the stream ended by an exception without a message" } else { message };
    let said = Said {
        message: excerpt(message, MAX_MESSAGE),
        code: Some(excerpt(bare(exception), 100)).filter(|code| !code.is_empty()),
        kind: None,
    };
    let judged = judge(status_of(exception).unwrap_or(500), &Hints::default(), said, original_status.map(u64::from));
    Classified { possibly_billed: true, ..judged }
}

/// Classifies an error in the place of a chunk, in the form of the model's family.
pub fn in_chunk(body: &[u8]) -> Classified {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let said = Said::read(500, &Hints::default(), None, parsed.as_ref(), body);
    let name = said.kind.as_deref().or(said.code.as_deref()).unwrap_or_default();
    let status = status_of(name).unwrap_or(500);
    Classified { possibly_billed: true, ..judge(status, &Hints::default(), said, None) }
}

/// Whether a name is one of Bedrock's own exceptions.
pub(super) fn is_exception(name: &str) -> bool {
    bare(name).to_ascii_lowercase().ends_with("exception")
}

/// The status of an exception when no answer has begun, by its name.
fn status_of(exception: &str) -> Option<u16> {
    const STATUSES: [(&str, u16); 16] = [
        ("internalServerException", 500),
        ("modelStreamErrorException", 424),
        ("modelErrorException", 424),
        ("modelTimeoutException", 408),
        ("modelNotReadyException", 429),
        ("validationException", 400),
        ("throttlingException", 429),
        ("serviceUnavailableException", 503),
        ("accessDeniedException", 403),
        ("resourceNotFoundException", 404),
        ("overloaded_error", 529),
        ("rate_limit_error", 429),
        ("invalid_request_error", 400),
        ("authentication_error", 401),
        ("permission_error", 403),
        ("timeout_error", 504),
    ];
    let name = bare(exception);
    STATUSES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, status)| *status)
}

fn judge(status: u16, hints: &Hints<'_>, said: Said, original_status: Option<u64>) -> Classified {
    let message = normal(&said.message);
    let codes: Vec<&str> = [said.code.as_deref(), said.kind.as_deref()].into_iter().flatten().collect();
    let row = TABLE.iter().find(|row| row.fits(status, &codes, &message));
    let (fault, billed, retry_after, advice) = match row {
        Some(row) => (row.fault, row.billed, row.retry_after, row.advice_text()),
        None if (500..600).contains(&status) => (Transient, false, None, None),
        None if (400..500).contains(&status) => (Refused, false, None, None),
        // A success that the SDK could not read.
        None => (Transient, true, None, None),
    };
    let model_error = codes.iter().any(|code| code.to_ascii_lowercase().ends_with("errorexception"));
    let code = said.code.or(said.kind).or_else(|| (status == 200).then(|| "invalid_response".to_owned()));
    let mut result = Classified {
        fault,
        code: row.map_or_else(|| code.clone(), |row| row.code_or(code.clone())),
        status: Some(status),
        param: None,
        retry_after,
        advice,
        possibly_billed: billed,
        message: said.message,
    };
    if model_error {
        result.fault = original_status.and_then(behind_model_error).unwrap_or(result.fault);
    }
    if message.contains(NEEDS_PROFILE) {
        result.advice = Some(profiles_of(&result.message));
    }
    if message.contains(TOO_MANY_TOKENS) {
        result.param = Some("max_tokens".to_owned());
        if let Some(most) = output_limit(&message) {
            result.advice =
                Some(format!("set `cap: {{ max_tokens: {most} }}` on the target: this model writes no more"));
        }
    }
    result.retry_after = match result.fault {
        Throttled | Transient | Unavailable => hints.wait().or(result.retry_after),
        _ => None,
    };
    result
}

/// The number in a message, in table form, that names the model's longest output.
pub(super) fn output_limit(message: &str) -> Option<u64> {
    let (_, rest) = message.split_once(TOO_MANY_TOKENS)?;
    number_after(rest, "of ").or_else(|| number_after(rest, ": "))
}

/// The inference profiles of the model that a message names.
fn profiles_of(message: &str) -> String {
    let mut words = message.split_whitespace().skip_while(|word| !word.eq_ignore_ascii_case("id"));
    let named = words.nth(1).map(|word| word.trim_matches(|mark: char| mark.is_ascii_punctuation()));
    let base = named.map(|model| bedrock_id(model).base).filter(|base| base.contains('.'));
    let Some(base) = base else {
        return "this model needs an inference profile: put us., eu. or global. before its id on the target".to_owned();
    };
    let base = excerpt(base, 100);
    let known = Catalog::builtin().find(Api::Bedrock, &base).map(|model| model.profiles.clone()).unwrap_or_default();
    let names: Vec<String> = if known.is_empty() {
        ["us", "eu", "global"].iter().map(|geography| format!("{geography}.{base}")).collect()
    } else {
        known.iter().map(|geography| format!("{geography}.{base}")).collect()
    };
    format!("this model needs an inference profile: write {} as the target's model", names.join(" or "))
}

/// The fault behind a model's own error, by the status that it gave.
fn behind_model_error(status: u64) -> Option<Fault> {
    match status {
        429 => Some(Throttled),
        503 | 529 => Some(Unavailable),
        408 => None,
        400..=499 => Some(Refused),
        _ => None,
    }
}

struct Said {
    message: String,
    code: Option<String>,
    kind: Option<String>,
}

impl Said {
    fn read(status: u16, hints: &Hints<'_>, code: Option<&str>, parsed: Option<&Value>, body: &[u8]) -> Self {
        let field = |value: Option<&Value>, names: &[&str]| {
            names.iter().find_map(|name| value?.get(name)?.as_str()).map(str::to_owned)
        };
        // Some models and routes answer in Anthropic's or OpenAI's shape.
        let inner = parsed.and_then(|value| value.get("error")).filter(|error| error.is_object());
        let message = field(parsed, &["message", "Message"])
            .or_else(|| field(inner, &["message"]))
            .filter(|message| !message.trim().is_empty())
            .unwrap_or_else(|| foreign_body(status, body));
        let code = code
            .map(str::to_owned)
            .or_else(|| hints.error_type.map(str::to_owned))
            .or_else(|| field(parsed, &["__type", "code"]))
            .or_else(|| field(inner, &["code"]))
            .map(|code| excerpt(bare(&code), 100))
            .filter(|code| !code.is_empty());
        Self {
            message: excerpt(&message, MAX_MESSAGE),
            code,
            kind: field(inner, &["type"]).map(|kind| excerpt(&kind, 100)),
        }
    }
}

/// The exception's name without the namespace before it and the address after it.
fn bare(code: &str) -> &str {
    let code = code.rsplit('#').next().unwrap_or(code);
    code.split(':').next().unwrap_or(code).trim()
}
