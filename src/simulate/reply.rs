//! A reply before it becomes HTTP, and a refusal before it becomes a reply.

use std::borrow::Cow;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use bytes::Bytes;

/// A whole reply.
#[derive(Debug)]
pub(super) struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    /// A reply of JSON.
    pub fn json(status: u16, body: &impl serde::Serialize) -> Self {
        // Only maps with odd keys cannot be written; there are none here.
        let body = serde_json::to_vec(body).unwrap_or_default();
        Self::typed(status, "application/json", body)
    }

    /// A reply of some content type.
    pub fn typed(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let mut headers = HeaderMap::with_capacity(16);
        headers.insert(axum::http::header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, headers, body: body.into() }
    }

    /// The same, with a header. One that cannot be sent is left out.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl AsRef<str>) -> Self {
        if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
        self
    }
}

/// Why a request is turned away, before each protocol puts it in its own shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub status: u16,
    /// OpenAI's error code or the name of AWS's exception.
    pub code: Option<&'static str>,
    /// The parameter at fault.
    pub param: Option<String>,
    pub message: Cow<'static, str>,
}

impl Refused {
    pub fn new(status: u16, code: impl Into<Option<&'static str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code: code.into(), param: None, message: message.into() }
    }

    #[must_use]
    pub fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }
}
