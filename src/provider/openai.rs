//! OpenAI, and servers that speak its chat completions.
//!
//! Invariant: one POST a call; the body goes out as it was prepared and comes back as it was sent.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use rustls::pki_types::CertificateDer;

use super::{
    Call, CallError, Provider, RateLimit, Reply,
    secret::{Key, SecretSource},
    sockets::{self, Departure, Sockets, Through},
};
use crate::{
    clock::{Clock, SystemClock},
    job::Fault,
    settings::Secret,
    wire::{
        Payload, Reading,
        faults::{Classified, Hints, go_duration, openai},
        openai::response,
    },
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-client-request-id");

/// What to call, checked.
pub(super) struct Address<'a> {
    /// Without a slash at the end.
    pub base_url: &'a str,
    /// Where the key is.
    pub api_key: Option<&'a Secret>,
    /// `OpenAI-Organization`.
    pub organization: Option<&'a str>,
    /// `OpenAI-Project`.
    pub project: Option<&'a str>,
}

/// An OpenAI account.
#[derive(Debug)]
pub(super) struct OpenAi {
    sockets: Sockets,
    url: reqwest::Url,
    key: Option<SecretSource>,
    headers: HeaderMap,
}

impl OpenAi {
    pub(super) fn connect(address: &Address<'_>, extra_roots: &[CertificateDer<'static>]) -> Result<Self, String> {
        let url = super::http_url("base_url", address.base_url)?;
        let through = Through::to(url.host_str().unwrap_or_default());
        let url = format!("{}/chat/completions", url.as_str().trim_end_matches('/'));
        let url = url.parse().map_err(|error| format!("base_url: {url}: {error}"))?;
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(super::USER_AGENT));
        for (setting, name, value) in [
            ("organization", "openai-organization", address.organization),
            ("project", "openai-project", address.project),
        ] {
            let Some(value) = value else { continue };
            let value = HeaderValue::from_str(value).map_err(|_| format!("{setting}: {value:?} cannot be a header"))?;
            headers.insert(HeaderName::from_static(name), value);
        }
        Ok(Self {
            sockets: Sockets::open(through, extra_roots)?,
            url,
            key: address.api_key.cloned().map(SecretSource::new),
            headers,
        })
    }

    async fn exchange(&self, call: &Call, key: Option<&Key>, body: Bytes) -> Result<Reply, CallError> {
        let mut request = reqwest::Request::new(reqwest::Method::POST, self.url.clone());
        request.headers_mut().clone_from(&self.headers);
        if let Some(key) = key {
            request.headers_mut().insert(header::AUTHORIZATION, key.bearer().clone());
        }
        // Names the call in the provider's logs; every attempt has its own.
        let id = format!("{}-{:08x}", call.job, rand::random::<u32>());
        if let Ok(id) = HeaderValue::from_str(&id) {
            request.headers_mut().insert(CLIENT_REQUEST_ID, id);
        }
        let departure = Departure::default();
        let whole = async {
            let answer = self.sockets.send(request, body, &departure).await.map_err(|lost| CallError::from(lost.0))?;
            let (head, body) = answer.into_parts();
            let rate_limit = rate_limit(&head.headers);
            let body = sockets::read(body).await.map_err(|lost| CallError { rate_limit, ..lost.0.into() })?;
            understand(head.status.as_u16(), &head.headers, &body, &call.reading)
                .map_err(|fault| CallError { rate_limit, ..fault.into() })
        };
        match tokio::time::timeout(call.timeout, whole).await {
            Ok(result) => result,
            Err(_) => Err(departure.timed_out(call.timeout).into()),
        }
    }
}

#[async_trait]
impl Provider for OpenAi {
    async fn chat(&self, mut call: Call) -> Result<Reply, CallError> {
        let Payload::OpenAi(body) = std::mem::replace(&mut call.payload, Payload::OpenAi(Bytes::new())) else {
            return Err(super::foreign_payload(&call));
        };
        let key = match &self.key {
            None => None,
            Some(source) => Some(source.key().map_err(|message| {
                let advice = "put the key where the provider's `api_key` in the settings says";
                Classified::unbilled(Fault::Misconfigured, message).with_code("no_api_key").with_advice(advice)
            })?),
        };
        let mut result = self.exchange(&call, key.as_ref(), body).await;
        if let (Err(error), Some(key)) = (&mut result, &key) {
            error.message = key.redact(&error.message);
        }
        result
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn understand(status: u16, headers: &HeaderMap, body: &[u8], reading: &Reading) -> Result<Reply, Classified> {
    if status != 200 {
        let hints = Hints {
            retry_after: text(headers, "retry-after"),
            retry_after_ms: text(headers, "retry-after-ms"),
            should_retry: text(headers, "x-should-retry"),
            error_type: None,
            now: Some(SystemClock.now()),
        };
        return Err(openai::classify(status, &hints, body));
    }
    let completion = response::read(body, reading)?;
    Ok(Reply {
        completion: completion.json,
        usage: completion.usage,
        provider_request_id: headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).map(str::to_owned),
        rate_limit: rate_limit(headers),
    })
}

/// Reads `x-ratelimit-*`; where the project has an allowance of its own, the scarcer of the two counts.
fn rate_limit(headers: &HeaderMap) -> RateLimit {
    let count = |name: &str| text(headers, name).and_then(|text| text.trim().parse::<u64>().ok());
    let span = |name: &str| text(headers, name).and_then(go_duration);
    let scarcer = |whole: Option<u64>, project: Option<u64>| match (whole, project) {
        (Some(whole), Some(project)) => Some(whole.min(project)),
        (whole, project) => whole.or(project),
    };
    let later = |whole: Option<Duration>, project: Option<Duration>| whole.max(project);
    RateLimit {
        limit_requests: count("x-ratelimit-limit-requests"),
        remaining_requests: count("x-ratelimit-remaining-requests"),
        reset_requests: span("x-ratelimit-reset-requests"),
        limit_tokens: scarcer(count("x-ratelimit-limit-tokens"), count("x-ratelimit-limit-project-tokens")),
        remaining_tokens: scarcer(count("x-ratelimit-remaining-tokens"), count("x-ratelimit-remaining-project-tokens")),
        reset_tokens: later(span("x-ratelimit-reset-tokens"), span("x-ratelimit-reset-project-tokens")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_limits_are_read() {
        let mut headers = HeaderMap::new();
        assert_eq!(rate_limit(&headers), RateLimit::default());
        for (name, value) in [
            ("x-ratelimit-limit-requests", "5000"),
            ("x-ratelimit-remaining-requests", "4999"),
            ("x-ratelimit-reset-requests", "12ms"),
            ("x-ratelimit-limit-tokens", "2000000"),
            ("x-ratelimit-limit-project-tokens", "1000"),
            ("x-ratelimit-remaining-tokens", "many"),
            ("x-ratelimit-remaining-project-tokens", "900"),
            ("x-ratelimit-reset-tokens", "6m0s"),
            ("x-ratelimit-reset-project-tokens", "-3s"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        assert_eq!(
            rate_limit(&headers),
            RateLimit {
                limit_requests: Some(5_000),
                remaining_requests: Some(4_999),
                reset_requests: Some(Duration::from_millis(12)),
                limit_tokens: Some(1_000),
                remaining_tokens: Some(900),
                reset_tokens: Some(Duration::from_mins(6)),
            }
        );
    }
}
