//! OpenAI, and servers that speak its chat completions; Bedrock's own endpoint in that form among them.
//!
//! Invariant: one POST a call; the body goes out as it was prepared (a stream is asked for at its end) and the answer
//! comes back as it was sent.

mod authority;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use http_body_util::{BodyExt, Limited};
use rustls::pki_types::CertificateDer;

use self::authority::{Authority, Granted};
use super::{
    Call, CallError, ChatStream, Provider, RateLimit, Reply,
    sockets::{self, Answer, Departure, Lost, Sockets, Through},
    streaming::{self, Patience, Source},
};
use crate::{
    clock::{Clock, SystemClock},
    job::Fault,
    names::Region,
    settings::{AwsAuth, Secret},
    wire::{
        Payload, Reading,
        faults::{Classified, Hints, bedrock, go_duration, openai},
        openai::{events, response},
        stream::{Assembly, Event},
    },
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const AWS_REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-client-request-id");
/// After the last piece, the end of the answer is waited for so long: then the connection serves again.
const LAST_BYTES: Duration = Duration::from_millis(100);

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
    /// Bedrock's endpoint in this form, in a region.
    pub aws: Option<(&'a AwsAuth, &'a Region)>,
}

/// An OpenAI account.
#[derive(Debug)]
pub(super) struct OpenAi {
    sockets: Sockets,
    url: reqwest::Url,
    authority: Authority,
    headers: HeaderMap,
}

impl OpenAi {
    pub(super) async fn connect(
        address: &Address<'_>,
        extra_roots: &[CertificateDer<'static>],
    ) -> Result<Self, String> {
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
            authority: Authority::of(address, extra_roots).await?,
            headers,
        })
    }

    /// Sends a body; the answer's head, whatever it says.
    async fn send(&self, call: &Call, body: Bytes, accept: Option<HeaderValue>, departure: &Departure) -> Sent {
        let mut request = reqwest::Request::new(reqwest::Method::POST, self.url.clone());
        request.headers_mut().clone_from(&self.headers);
        if let Some(accept) = accept {
            request.headers_mut().insert(header::ACCEPT, accept);
        }
        // Names the call in the provider's logs; every attempt has its own.
        let id = format!("{}-{:08x}", call.job, rand::random::<u32>());
        if let Ok(id) = HeaderValue::from_str(&id) {
            request.headers_mut().insert(CLIENT_REQUEST_ID, id);
        }
        let granted = match self.authority.grant(self.url.as_str(), request.headers_mut(), &body).await {
            Ok(granted) => granted,
            Err(fault) => return Sent { granted: Granted::default(), answer: Err(fault) },
        };
        let answer = self.sockets.send(request, body, departure).await.map_err(|lost| lost.0);
        Sent { granted, answer }
    }

    async fn exchange(&self, call: &Call, body: Bytes, departure: &Departure) -> Result<Reply, CallError> {
        let Sent { granted, answer } = self.send(call, body, None, departure).await;
        let answer = answer.map_err(|fault| granted.error(fault, RateLimit::default()))?;
        let (head, body) = answer.into_parts();
        let rate_limit = rate_limit(&head.headers);
        let body = sockets::read(body).await.map_err(|lost| granted.error(lost.0, rate_limit))?;
        understand(head.status.as_u16(), &head.headers, &body, &call.reading)
            .map_err(|fault| granted.error(fault, rate_limit))
    }

    async fn open(
        &self,
        call: &Call,
        body: Bytes,
        departure: &Departure,
        patience: Patience,
    ) -> Result<ChatStream, CallError> {
        let accept = HeaderValue::from_static("text/event-stream");
        let Sent { granted, answer } = self.send(call, body, Some(accept), departure).await;
        let answer = answer.map_err(|fault| granted.error(fault, RateLimit::default()))?;
        let (head, body) = answer.into_parts();
        let rate_limit = rate_limit(&head.headers);
        let (status, streams) = (head.status.as_u16(), is_event_stream(&head.headers));
        if status != 200 || !streams {
            let body = sockets::read(body).await.map_err(|lost| granted.error(lost.0, rate_limit))?;
            let fault = match understand(status, &head.headers, &body, &call.reading) {
                Err(fault) => fault,
                Ok(_) => unstreamed(),
            };
            return Err(granted.error(fault, rate_limit));
        }
        let pieces = Pieces { body, decoder: Some(events::Stream::new(&call.reading)) };
        Ok(ChatStream {
            events: streaming::events(pieces, patience, move |fault| granted.error(fault, rate_limit)),
            assembly: Assembly::new("", &call.target.model, SystemClock.now().as_micros() / 1_000_000),
            provider_request_id: request_id(&head.headers),
            rate_limit,
        })
    }
}

/// What came of sending, and by whose grant.
struct Sent {
    granted: Granted,
    answer: Result<Answer, Classified>,
}

#[async_trait]
impl Provider for OpenAi {
    async fn chat(&self, mut call: Call) -> Result<Reply, CallError> {
        let Payload::OpenAi(body) = std::mem::replace(&mut call.payload, Payload::OpenAi(Bytes::new())) else {
            return Err(super::foreign_payload(&call));
        };
        let departure = Departure::default();
        match tokio::time::timeout(call.timeout, self.exchange(&call, body, &departure)).await {
            Ok(result) => result,
            Err(_) => Err(departure.timed_out(call.timeout).into()),
        }
    }

    async fn stream(&self, mut call: Call) -> Result<ChatStream, CallError> {
        let Payload::OpenAi(body) = std::mem::replace(&mut call.payload, Payload::OpenAi(Bytes::new())) else {
            return Err(super::foreign_payload(&call));
        };
        let body = streamed(&body);
        let (departure, patience) = (Departure::default(), Patience::of(&call));
        match tokio::time::timeout(call.timeout, self.open(&call, body, &departure, patience)).await {
            Ok(result) => result,
            Err(_) => Err(departure.timed_out(call.timeout).into()),
        }
    }
}

/// A prepared body that asks for a stream, and for the usage at its end. (What was prepared is an object that says
/// nothing of streams.)
fn streamed(body: &[u8]) -> Bytes {
    const ASK: &[u8] = br#","stream":true,"stream_options":{"include_usage":true}}"#;
    let end = body.iter().rposition(|byte| *byte == b'}').unwrap_or(body.len());
    [body.get(..end).unwrap_or(body), ASK].concat().into()
}

/// A stream's pieces as they come.
struct Pieces {
    body: Limited<reqwest::Body>,
    /// Gone once the bytes are over.
    decoder: Option<events::Stream>,
}

impl Source for Pieces {
    async fn next(&mut self) -> Result<Option<Vec<Event>>, Classified> {
        let mut out = Vec::new();
        loop {
            let Some(decoder) = &mut self.decoder else { return Ok(None) };
            if decoder.is_done() {
                // Read to the end, the connection serves another call; a server that keeps it open is not waited for.
                let _end = tokio::time::timeout(LAST_BYTES, self.body.frame()).await;
                self.decoder = None;
                return Ok(None);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    let Ok(bytes) = frame.into_data() else { continue };
                    decoder.push(&bytes, &mut out)?;
                    return Ok(Some(out));
                }
                Some(Err(error)) => return Err(Lost::of_read(error.as_ref()).0),
                None => {
                    if let Some(decoder) = self.decoder.take() {
                        decoder.finish(&mut out)?;
                    }
                    return Ok(Some(out));
                }
            }
        }
    }
}

fn unstreamed() -> Classified {
    Classified::billed(Fault::Misconfigured, "the provider answered whole where a stream was asked for")
        .with_code("not_streamed")
        .with_status(200)
        .with_advice("this server does not stream: set `stream: false` on the target")
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    text(headers, "content-type").is_some_and(|kind| kind.trim_start().starts_with("text/event-stream"))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn request_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(REQUEST_ID).or_else(|| headers.get(AWS_REQUEST_ID));
    id.and_then(|id| id.to_str().ok()).map(str::to_owned)
}

fn understand(status: u16, headers: &HeaderMap, body: &[u8], reading: &Reading) -> Result<Reply, Classified> {
    if status != 200 {
        let hints = Hints {
            retry_after: text(headers, "retry-after"),
            retry_after_ms: text(headers, "retry-after-ms"),
            should_retry: text(headers, "x-should-retry"),
            error_type: text(headers, "x-amzn-errortype"),
            now: Some(SystemClock.now()),
        };
        // Bedrock's gate in front of this form speaks its own way: of signatures, roles and regions.
        return Err(match hints.error_type {
            Some(_) => bedrock::classify(status, &hints, None, body),
            None => openai::classify(status, &hints, body),
        });
    }
    let completion = response::read(body, reading)?;
    Ok(Reply {
        completion: completion.json,
        usage: completion.usage,
        provider_request_id: request_id(headers),
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
