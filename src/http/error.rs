//! Errors as OpenAI's clients expect them: `{"error":{"message","type","param","code"}}`.

use std::{borrow::Cow, time::Duration};

use axum::{
    Json,
    extract::rejection::{BytesRejection, PathRejection, QueryRejection},
    http::{HeaderName, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::json;

use super::keys::KeyError;
use crate::{
    engine::{intake::IntakeError, levers::LeverError},
    job::EnvelopeError,
    store::StoreError,
};

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// An error on its way to a caller.
#[derive(Debug, Clone)]
pub struct ApiError {
    status: StatusCode,
    body: ErrorBody,
    /// When to come back.
    retry_after: Option<Duration>,
}

/// OpenAI's error object; all four keys are always there.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct ErrorBody {
    message: String,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<String>,
    code: Cow<'static, str>,
}

impl ApiError {
    pub(super) fn new(
        status: StatusCode,
        kind: &'static str,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        let retry_after = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(Duration::from_secs(1));
        Self { status, body: ErrorBody { message: message.into(), kind, param: None, code: code.into() }, retry_after }
    }

    /// The same, blaming a parameter.
    #[must_use]
    pub(super) fn blaming(mut self, param: Option<impl Into<String>>) -> Self {
        self.body.param = param.map(Into::into);
        self
    }

    /// The same with a stable code of its own.
    #[must_use]
    pub(super) fn coded(mut self, code: &'static str) -> Self {
        self.body.code = code.into();
        self
    }

    /// The same, saying when to come back.
    #[must_use]
    pub(super) fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// 401: no key, or one that opens nothing.
    pub(super) fn unauthorised(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", "invalid_api_key", message)
    }

    /// 403: the key is good, but not for this.
    pub(super) fn forbidden(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "permission_error", code, message)
    }

    /// 429.
    pub(super) fn too_many(code: &'static str, message: impl Into<String>, wait: Option<Duration>) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, code, code, message);
        wait.map_or(error.clone(), |wait| error.after(wait))
    }

    /// 400: the caller's fault, in this field.
    pub fn invalid(param: Option<&str>, message: impl Into<String>) -> Self {
        let mut error = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", "invalid_request", message);
        error.body.param = param.map(str::to_owned);
        error
    }

    /// 404.
    pub fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", code, message)
    }

    /// 409.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "invalid_request_error", "conflict", message)
    }

    /// 503: come back in a moment.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable_error", "unavailable", message)
    }

    /// 413.
    pub fn too_large() -> Self {
        let message = format!("the body is larger than {} MiB; send fewer lines at a time", super::MAX_BODY >> 20);
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", "body_too_large", message)
    }

    /// The object alone, for a line of a bulk answer.
    pub fn body(&self) -> &ErrorBody {
        &self.body
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({ "error": self.body }))).into_response();
        if let Some(wait) = self.retry_after {
            // Clients that know the finer header use it; whole seconds are rounded up, so that nobody comes too early.
            let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, millis.div_ceil(1_000).into());
            headers.insert(RETRY_AFTER_MS, millis.into());
        }
        response
    }
}

impl From<EnvelopeError> for ApiError {
    fn from(error: EnvelopeError) -> Self {
        Self::invalid(error.param.as_deref(), error.message)
    }
}

impl From<IntakeError> for ApiError {
    fn from(error: IntakeError) -> Self {
        let message = error.to_string();
        match error {
            IntakeError::UnknownPipeline { param, .. } => {
                let mut error = Self::not_found("pipeline_not_found", message);
                error.body.param = Some(param.to_owned());
                error
            }
            IntakeError::Invalid { param, .. } => Self::invalid(Some(param), message),
            IntakeError::Conflict { .. } => {
                let mut error = Self::conflict(message);
                error.body.param = Some("idempotency_key".to_owned());
                error
            }
            IntakeError::NotReached { .. } => {
                Self::forbidden("pipeline_not_allowed", message).blaming(Some("pipeline"))
            }
            IntakeError::Draining | IntakeError::Store(_) => Self::unavailable(message),
        }
    }
}

impl From<LeverError> for ApiError {
    fn from(error: LeverError) -> Self {
        let message = error.to_string();
        match error {
            LeverError::UnknownPipeline { .. } => Self::not_found("pipeline_not_found", message),
            LeverError::Conflict(_) => Self::conflict(message),
            LeverError::Store(_) => Self::unavailable(message),
        }
    }
}

impl From<KeyError> for ApiError {
    fn from(error: KeyError) -> Self {
        let message = error.to_string();
        match error {
            KeyError::Invalid(param, _) => Self::invalid(Some(param), message),
            KeyError::Forbidden(_) => Self::forbidden("insufficient_scope", message),
            KeyError::Unknown(_) => Self::not_found("key_not_found", message),
            KeyError::Store(_) => Self::unavailable(message),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::unavailable(error.to_string())
    }
}

impl From<BytesRejection> for ApiError {
    fn from(rejection: BytesRejection) -> Self {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            return Self::too_large();
        }
        Self::invalid(None, format!("the body did not arrive whole: {rejection}"))
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::invalid(None, format!("the query cannot be read: {rejection}"))
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::invalid(None, format!("the path cannot be read: {rejection}"))
    }
}

/// 404 for paths that are not served.
pub(super) async fn no_such_path(method: Method, uri: Uri) -> ApiError {
    ApiError::not_found("unknown_path", format!("{method} {} is not served here", uri.path()))
}

/// 405 for methods that a path does not take.
pub(super) async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "invalid_request_error",
        "method_not_allowed",
        format!("{} does not take {method}", uri.path()),
    )
}
