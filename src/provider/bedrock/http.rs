//! The SDK's HTTP client, made of our sockets.
//!
//! Invariant: only the calls themselves are watched for departure; what fetches credentials in between is not billed.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use aws_sdk_bedrockruntime::config::SharedHttpClient;
use aws_smithy_runtime_api::client::{
    http::{HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;

use crate::{
    provider::sockets::{Departure, Lost, Sockets, Through},
    wire::invoke::HeaderCounts,
};

tokio::task_local! {
    /// The call that this task is making.
    static WATCHED: Watch;
}

/// What is seen of a call on its way, beside what the SDK tells.
#[derive(Debug, Clone, Default)]
pub(super) struct Watch {
    /// Whether its request left.
    pub departure: Departure,
    /// The token counts in the headers of its answer, which the SDK passes over.
    counts: Arc<OnceLock<HeaderCounts>>,
}

impl Watch {
    /// Runs a call so that this learns of it.
    pub(super) fn over<F: Future>(&self, call: F) -> impl Future<Output = F::Output> + use<F> {
        WATCHED.scope(self.clone(), call)
    }

    /// The counts in the answer's headers.
    pub(super) fn counts(&self) -> HeaderCounts {
        self.counts.get().copied().unwrap_or_default()
    }

    fn heard(&self, headers: &::http::HeaderMap) {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let counts =
            HeaderCounts::read(text("x-amzn-bedrock-input-token-count"), text("x-amzn-bedrock-output-token-count"));
        // Only the first answer counts, and there is only one.
        let _first = self.counts.set(counts);
    }
}

/// For Converse.
pub(super) fn for_calls(sockets: Sockets, direct: Sockets) -> SharedHttpClient {
    SharedHttpClient::new(Connector { sockets, direct, watched: true, patience: None })
}

/// For the credential chain.
pub(super) fn for_credentials(sockets: Sockets, direct: Sockets) -> SharedHttpClient {
    SharedHttpClient::new(Connector { sockets, direct, watched: false, patience: None })
}

#[derive(Debug, Clone)]
struct Connector {
    sockets: Sockets,
    direct: Sockets,
    watched: bool,
    /// To the head of the answer, where the SDK sets a bound.
    patience: Option<Duration>,
}

impl HttpClient for Connector {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        let patience = match (settings.connect_timeout(), settings.read_timeout()) {
            (_, None) => None,
            (connect, Some(read)) => Some(connect.unwrap_or_default().saturating_add(read)),
        };
        SharedHttpConnector::new(Self { patience, ..self.clone() })
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let watch = if self.watched { WATCHED.try_with(Clone::clone).unwrap_or_default() } else { Watch::default() };
        let connector = self.clone();
        HttpConnectorFuture::new(async move {
            let (request, body) = translate(request)?;
            let sockets = match Through::to(request.url().host_str().unwrap_or_default()) {
                Through::Direct => &connector.direct,
                Through::Environment => &connector.sockets,
            };
            let sent = sockets.send(request, body, &watch.departure);
            let answer = match connector.patience {
                None => sent.await,
                Some(patience) => match tokio::time::timeout(patience, sent).await {
                    Ok(answer) => answer,
                    Err(elapsed) => return Err(ConnectorError::timeout(elapsed.into())),
                },
            };
            let answer = answer.map_err(|lost: Lost| ConnectorError::io(lost.into()))?;
            watch.heard(answer.headers());
            HttpResponse::try_from(answer.map(SdkBody::from_body_1_x))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

fn translate(request: HttpRequest) -> Result<(reqwest::Request, Bytes), ConnectorError> {
    let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
    let (head, body) = request.into_parts();
    let body =
        body.bytes().map(Bytes::copy_from_slice).ok_or_else(|| ConnectorError::user("a streamed body".into()))?;
    let request = reqwest::Request::try_from(http::Request::from_parts(head, reqwest::Body::default()))
        .map_err(|error| ConnectorError::user(error.into()))?;
    Ok((request, body))
}
