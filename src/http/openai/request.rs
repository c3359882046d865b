//! A chat request as it comes in over HTTP.
//!
//! Invariant: what only the connection is about (`stream`, `stream_options`) never reaches a pipeline.

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use serde_json::Value;

use crate::{
    engine::{Engine, form::FormError},
    http::ApiError,
    job::Envelope,
    names::PipelineName,
};

/// Headers that carry metadata begin with this.
const METADATA: &str = "x-landbridge-metadata-";

/// A chat request.
#[derive(Debug)]
pub(super) struct ChatRequest {
    pub(super) envelope: Envelope,
    /// Piece by piece.
    pub(super) stream: bool,
    /// With the usage in the last piece.
    pub(super) include_usage: bool,
}

impl ChatRequest {
    /// Reads a request. `pipeline` is the one that the path fixes.
    pub(super) fn read(
        engine: &Engine,
        pipeline: Option<PipelineName>,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Self, ApiError> {
        let body: Value = serde_json::from_slice(body)
            .map_err(|error| ApiError::invalid(None, format!("the body is not JSON: {error}")).coded("invalid_json"))?;
        let Value::Object(mut body) = body else {
            return Err(ApiError::invalid(None, "the body must be a JSON object: a chat request"));
        };
        let stream = match body.remove("stream") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(stream)) => stream,
            Some(_) => return Err(ApiError::invalid(Some("stream"), "`stream` must be true or false")),
        };
        let include_usage = include_usage(body.remove("stream_options"), stream)?;
        let envelope = engine.chat_form(pipeline, metadata(headers)?, body)?;
        Ok(Self { envelope, stream, include_usage })
    }
}

fn include_usage(options: Option<Value>, stream: bool) -> Result<bool, ApiError> {
    let wrong = |message: &str| Err(ApiError::invalid(Some("stream_options"), message));
    match options {
        None | Some(Value::Null) => Ok(false),
        Some(_) if !stream => wrong("`stream_options` is only allowed together with `stream: true`"),
        Some(Value::Object(mut options)) => match options.remove("include_usage") {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(include)) => Ok(include),
            Some(_) => wrong("`stream_options.include_usage` must be true or false"),
        },
        Some(_) => wrong("`stream_options` must be an object"),
    }
}

/// Metadata from headers.
fn metadata(headers: &HeaderMap) -> Result<BTreeMap<String, String>, ApiError> {
    let mut metadata = BTreeMap::new();
    for (name, value) in headers {
        let Some(key) = name.as_str().strip_prefix(METADATA).filter(|key| !key.is_empty()) else { continue };
        let Ok(value) = std::str::from_utf8(value.as_bytes()) else {
            return Err(ApiError::invalid(Some(name.as_str()), format!("the header {name} is not UTF-8")));
        };
        metadata.insert(key.to_owned(), value.to_owned());
    }
    Ok(metadata)
}

impl From<FormError> for ApiError {
    fn from(FormError { param, code, message }: FormError) -> Self {
        let error = if code == "model_not_found" {
            Self::not_found(code, message)
        } else {
            Self::invalid(None, message).coded(code)
        };
        error.blaming(param)
    }
}
