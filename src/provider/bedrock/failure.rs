//! From an SDK error to what it means.
//!
//! Invariant: an error says "not billed" only when no byte of the request can have left, or when Bedrock refused it.

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_bedrockruntime::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::http::Response;

use crate::{
    clock::{Clock, SystemClock},
    job::Fault,
    provider::sockets::{Departure, Lost, chain, find},
    wire::faults::{Classified, Hints, bedrock},
};

pub(super) fn classify<E>(error: &SdkError<E, Response>, departure: &Departure) -> Classified
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match error {
        SdkError::ServiceError(context) => answered(context.err().code(), context.raw()),
        // The head came, the body did not.
        SdkError::ResponseError(_) => Lost::of_read(error).0,
        _ => {
            if let Some(Lost(classified)) = find::<Lost>(error) {
                return classified.clone();
            }
            if departure.has_left() {
                return Classified::billed(Fault::Unknown, chain(error)).with_code("connection_lost");
            }
            match find::<CredentialsError>(error) {
                Some(credentials) => without_credentials(credentials),
                None => unsent(error),
            }
        }
    }
}

/// Bedrock answered, and the answer is no Converse output.
fn answered(code: Option<&str>, raw: &Response) -> Classified {
    let headers = raw.headers();
    let hints = Hints {
        retry_after: headers.get("retry-after"),
        retry_after_ms: headers.get("x-amz-retry-after"),
        should_retry: headers.get("x-should-retry"),
        error_type: headers.get("x-amzn-errortype"),
        now: Some(SystemClock.now()),
    };
    let status = raw.status().as_u16();
    let body = raw.body().bytes().unwrap_or_default();
    if status == 200 {
        let message = "Bedrock answered 200 with something else than the operation's output";
        return Classified::billed(Fault::Transient, message).with_code("invalid_response").with_status(status);
    }
    bedrock::classify(status, &hints, code, body)
}

pub(in crate::provider) fn without_credentials(error: &CredentialsError) -> Classified {
    let words = format!("no AWS credentials: {}", chain(error));
    let passing = matches!(error, CredentialsError::ProviderTimedOut(_) | CredentialsError::ProviderError(_))
        && !words.contains("AccessDenied");
    let fault = if passing { Fault::Transient } else { Fault::Misconfigured };
    Classified::unbilled(fault, words).with_code("no_credentials").with_advice(
        "give the daemon AWS credentials: environment variables, a profile, a web identity or the machine's role (not \
         built in: IAM Identity Center and aws login, except through credential_process)",
    )
}

/// The SDK gave up before it had a request to send.
fn unsent<E>(error: &SdkError<E, Response>) -> Classified
where
    E: std::error::Error + Send + Sync + 'static,
{
    let words = chain(error);
    if words.contains("no identity resolver") || words.contains("identity") {
        return Classified::unbilled(Fault::Misconfigured, format!("no AWS credentials: {words}"))
            .with_code("no_credentials")
            .with_advice("give the daemon AWS credentials, or set AWS_BEARER_TOKEN_BEDROCK");
    }
    match error {
        SdkError::ConstructionFailure(_) => {
            Classified::unbilled(Fault::Refused, format!("the SDK does not take the request: {words}"))
        }
        _ => Classified::unbilled(Fault::Transient, words).with_code("connection_failed"),
    }
}
