//! Failures as Bedrock's runtime reports them.
//!
//! Invariant: the exception's name decides with the message beside it; where a gateway or a model's own error shape
//! leaves the name out, the HTTP status does.

use serde_json::Value;

use super::{Classified, Hints, MAX_MESSAGE, Row, excerpt, foreign_body, normal};
use crate::job::Fault::{Misconfigured, Refused, Throttled, TooLong, Transient, Unavailable};

/// How long a model rests whose tokens of the day are used up; Bedrock does not say when the day ends.
const DAILY_QUOTA_REST: u64 = 3_600;
/// How long a new marketplace subscription takes, by the service's own words.
const SUBSCRIPTION_REST: u64 = 900;

const REPORT: &str = "landbridge sent what this model does not take: set the parameter away with `override:` on the \
                      target, and report it so that the catalogue learns";
const CREDENTIALS: &str = "check the AWS credentials that this daemon finds (environment, profile, role), and the \
                           machine's clock";

static TABLE: &[Row] = &[
    // Quotas.
    Row::new(Throttled)
        .status(&[429])
        .says(&["too many tokens per day"])
        .after(DAILY_QUOTA_REST)
        .advice("the day's tokens of this model are used up: ask AWS for more, or let a fallback serve"),
    Row::new(Throttled)
        .code(&["ThrottlingException"])
        .says(&["tokens per day"])
        .after(DAILY_QUOTA_REST)
        .advice("the day's tokens of this model are used up: ask AWS for more, or let a fallback serve"),
    Row::new(Throttled).code(&["ThrottlingException", "Throttling", "TooManyRequestsException"]),
    Row::new(Transient).code(&["ModelNotReadyException"]),
    Row::new(Misconfigured)
        .code(&["ServiceQuotaExceededException"])
        .advice("an account limit is reached: ask AWS to raise it"),
    // Capacity.
    Row::new(Unavailable).code(&["ServiceUnavailableException", "ServiceUnavailable", "overloaded_error"]),
    Row::new(Unavailable).status(&[503, 529]),
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
        .says(&["with on-demand throughput isn't supported"])
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
        .says(&["maximum tokens you requested exceeds the model limit"])
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
    let message = normal(&said.message);
    let codes: Vec<&str> = [said.code.as_deref(), said.kind.as_deref()].into_iter().flatten().collect();
    let (fault, billed, retry_after, advice) = match TABLE.iter().find(|row| row.fits(status, &codes, &message)) {
        Some(row) => (row.fault, row.billed, row.retry_after, row.advice_text()),
        None if (500..600).contains(&status) => (Transient, false, None, None),
        None if (400..500).contains(&status) => (Refused, false, None, None),
        // A success that the SDK could not read.
        None => (Transient, true, None, None),
    };
    let mut result = Classified {
        fault,
        message: said.message,
        code: said.code.or(said.kind),
        status: Some(status),
        param: None,
        retry_after,
        advice,
        possibly_billed: billed,
    };
    if result.code.as_deref() == Some("ModelErrorException") {
        result.fault = behind_model_error(parsed.as_ref()).unwrap_or(result.fault);
    }
    if matches!(result.fault, Throttled | Transient | Unavailable) {
        result.retry_after = hints.wait().or(result.retry_after);
    }
    result
}

/// The fault behind a `ModelErrorException`, by the status that the model itself gave.
fn behind_model_error(body: Option<&Value>) -> Option<crate::job::Fault> {
    match body?.get("originalStatusCode")?.as_u64()? {
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
