//! Amazon Bedrock by the AWS SDK: Converse, and InvokeModel in the models' own forms; whole or in pieces.
//!
//! Invariant: the SDK serialises, signs and parses; it does not retry, wait or give up on its own. Connections are
//! [`Sockets`], the same as everywhere.

mod account;
mod answers;
mod convert;
mod count;
mod failure;
mod http;
mod service_quotas;
mod streams;

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock},
};

use async_trait::async_trait;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_bedrockruntime::{
    Client,
    config::{
        Builder, Region as SdkRegion, SharedHttpClient, StalledStreamProtectionConfig, retry::RetryConfig,
        timeout::TimeoutConfig,
    },
    error::{ProvideErrorMetadata, SdkError},
    operation::{RequestId, converse::ConverseInput},
    primitives::Blob,
    types::{ServiceTierType, Trace},
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_types::SdkConfig;
use rustls::pki_types::CertificateDer;

pub(super) use account::Account;
pub(super) use failure::without_credentials;

use self::http::Watch;
use super::{
    Call, CallError, ChatStream, Provider, RateLimit, Reply, ServiceQuota,
    media::Fetcher,
    sockets::{Sockets, Through},
    streaming::{self, Patience, Source},
};
use crate::{
    clock::{Clock, SystemClock},
    job::Fault,
    settings::MediaSettings,
    spec::Form,
    wire::{
        Completion, Payload, Refusal,
        converse::{self, Request},
        faults::Classified,
        invoke,
        openai::completion,
    },
};

/// Regions that one provider calls: more than AWS has, so that a loop over made-up names cannot fill memory.
const MAX_REGIONS: usize = 64;

/// A Bedrock account.
#[derive(Debug)]
pub(super) struct Bedrock {
    sdk: SdkConfig,
    http: SharedHttpClient,
    endpoint_url: Option<String>,
    /// For what no SDK asks: through the environment's proxy, and without one.
    sockets: Sockets,
    direct: Sockets,
    media: Fetcher,
    clients: RwLock<BTreeMap<String, Client>>,
}

impl Bedrock {
    pub(super) async fn connect(
        account: &Account<'_>,
        media: &MediaSettings,
        extra_roots: &[CertificateDer<'static>],
    ) -> Result<Self, String> {
        if let Some(url) = account.endpoint_url {
            super::http_url("endpoint_url", url)?;
        }
        let sockets = Sockets::open(Through::Environment, extra_roots)?;
        let direct = Sockets::open(Through::Direct, extra_roots)?;
        let sdk = Box::pin(account.load(http::for_credentials(sockets.clone(), direct.clone()))).await?;
        Ok(Self {
            sdk,
            http: http::for_calls(sockets.clone(), direct.clone()),
            sockets,
            direct,
            endpoint_url: account.endpoint_url.map(str::to_owned),
            media: Fetcher::open(media, extra_roots)?,
            clients: RwLock::default(),
        })
    }

    /// The client of the target's region.
    fn client(&self, call: &Call) -> Result<Client, Classified> {
        let own = call.target.region.as_ref().map(crate::names::Region::as_str);
        let region = own
            .or_else(|| account::region_of_arn(&call.target.model))
            .or_else(|| self.sdk.region().map(AsRef::as_ref))
            .ok_or_else(|| {
                let message = format!("target {:?} has no region", call.target.name.as_str());
                Classified::unbilled(Fault::Misconfigured, message).with_code("no_region").with_advice(
                    "set `region` on the target or on its provider, or BEDROCK_REGION or AWS_REGION in the environment",
                )
            })?;
        if let Some(client) = self.clients.read().unwrap_or_else(PoisonError::into_inner).get(region) {
            return Ok(client.clone());
        }
        let mut clients = self.clients.write().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= MAX_REGIONS && !clients.contains_key(region) {
            let message = format!("more than {MAX_REGIONS} regions on one provider");
            return Err(Classified::unbilled(Fault::Misconfigured, message));
        }
        Ok(clients.entry(region.to_owned()).or_insert_with(|| self.client_of(region)).clone())
    }

    fn client_of(&self, region: &str) -> Client {
        let mut config = Builder::from(&self.sdk)
            .region(SdkRegion::new(region.to_owned()))
            .http_client(self.http.clone())
            // The engine's rules decide on retries, and the call's own timeout bounds everything.
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if let Some(url) = &self.endpoint_url {
            config = config.endpoint_url(url);
        }
        Client::from_conf(config.build())
    }

    async fn ask(&self, call: &mut Call) -> Result<Reply, CallError> {
        let asked = self.take(call).await?;
        let client = self.client(call)?;
        let (watch, ids) = (Watch::default(), Ids::new());
        let (completion, provider_request_id) = match asked {
            Asked::Converse(request) => {
                let input = convert::request(ConverseInput::builder().model_id(&call.target.model), request)?;
                let output = self.wait(call, &watch, Box::pin(input.send_with(&client))).await?;
                let request_id = output.request_id().map(str::to_owned);
                (ids.complete(call, answers::answer(output))?, request_id)
            }
            Asked::Invoke(form, request, body) => {
                let mut input = client
                    .invoke_model()
                    .model_id(&call.target.model)
                    .content_type(JSON)
                    .accept(JSON)
                    .body(Blob::new(body));
                if let Some(guardrail) = request.guardrail_config {
                    input = input
                        .guardrail_identifier(guardrail.guardrail_identifier)
                        .guardrail_version(guardrail.guardrail_version)
                        .set_trace(guardrail.trace.as_deref().map(trace));
                }
                let input = input
                    .set_service_tier(request.service_tier.map(tier))
                    .set_request_metadata(metadata(&request.request_metadata));
                let output = self.wait(call, &watch, Box::pin(input.send())).await?;
                let answer = invoke::read(form, watch.counts(), output.body.as_ref())?;
                (ids.complete(call, answer)?, output.request_id().map(str::to_owned))
            }
        };
        for remark in &completion.remarks {
            tracing::warn!(job = %call.job, model = call.target.model, "{remark}");
        }
        // Bedrock says nothing of its quotas.
        let rate_limit = RateLimit::default();
        Ok(Reply { completion: completion.json, usage: completion.usage, provider_request_id, rate_limit })
    }

    async fn open(&self, call: &mut Call) -> Result<ChatStream, CallError> {
        let patience = Patience::of(call);
        let asked = self.take(call).await?;
        let client = self.client(call)?;
        let (watch, ids) = (Watch::default(), Ids::new());
        match asked {
            Asked::Converse(request) => {
                let input = convert::request(ConverseInput::builder().model_id(&call.target.model), request)?;
                let input = input.build().map_err(|error| not_taken(&error))?;
                let output = self.wait(call, &watch, Box::pin(streams::input(input).send_with(&client))).await?;
                let request_id = output.request_id().map(str::to_owned);
                let decoder = Some(converse::Stream::new(&call.reading, &ids.id));
                let source = streams::Converse { receiver: output.stream, decoder };
                Ok(ids.stream(call, source, patience, request_id))
            }
            Asked::Invoke(form, request, body) => {
                let mut input = client
                    .invoke_model_with_response_stream()
                    .model_id(&call.target.model)
                    .content_type(JSON)
                    .accept(JSON)
                    .body(Blob::new(body));
                if let Some(guardrail) = request.guardrail_config {
                    input = input
                        .guardrail_identifier(guardrail.guardrail_identifier)
                        .guardrail_version(guardrail.guardrail_version)
                        .set_trace(guardrail.trace.as_deref().map(trace));
                }
                let input = input
                    .set_service_tier(request.service_tier.map(tier))
                    .set_request_metadata(metadata(&request.request_metadata));
                let output = self.wait(call, &watch, Box::pin(input.send())).await?;
                let request_id = output.request_id().map(str::to_owned);
                let decoder = Some(invoke::Stream::new(form, &call.reading, &ids.id));
                let source = streams::Invoke { receiver: output.body, decoder };
                Ok(ids.stream(call, source, patience, request_id))
            }
        }
    }

    /// What is asked, with the media that it points at; the time that those took is the call's.
    async fn take(&self, call: &mut Call) -> Result<Asked, CallError> {
        let began = tokio::time::Instant::now();
        let (form, mut request) = match std::mem::replace(&mut call.payload, Payload::OpenAi(bytes::Bytes::new())) {
            Payload::Converse(request) => (None, request),
            Payload::Invoke(form, request) => (Some(form), request),
            Payload::OpenAi(_) => return Err(super::foreign_payload(call)),
        };
        self.media.resolve(&mut request).await?;
        call.timeout = call.timeout.saturating_sub(began.elapsed());
        // For the operator who reads Bedrock's invocation logs; left out where the job's own metadata fill the list.
        request.tag("landbridge-job", &call.job.to_string());
        match form {
            None => Ok(Asked::Converse(*request)),
            Some(form) => {
                let body = invoke::write(form, &call.target.model, &request).map_err(refused)?;
                Ok(Asked::Invoke(form, *request, body))
            }
        }
    }

    /// Waits for what the SDK makes of a call.
    async fn wait<T, E>(
        &self,
        call: &Call,
        watch: &Watch,
        sent: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, CallError>
    where
        E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        match tokio::time::timeout(call.timeout, watch.over(sent)).await {
            Ok(Ok(output)) => Ok(output),
            Ok(Err(error)) => Err(failure::classify(&error, &watch.departure).into()),
            Err(_) => Err(watch.departure.timed_out(call.timeout).into()),
        }
    }
}

const JSON: &str = "application/json";

/// What is asked, and how.
enum Asked {
    Converse(Request),
    /// The body, and the request for what travels beside it.
    Invoke(Form, Request, bytes::Bytes),
}

/// What an answer is called: Bedrock gives it neither an id nor a time.
struct Ids {
    id: String,
    created: i64,
}

impl Ids {
    fn new() -> Self {
        let id = uuid::Uuid::now_v7().simple().to_string();
        Self { id, created: SystemClock.now().as_micros() / 1_000_000 }
    }

    fn complete(&self, call: &Call, answer: converse::Answer) -> Result<Completion, Classified> {
        completion::from_converse(&call.target.model, &call.reading, answer, &self.id, self.created)
    }

    fn stream(
        &self,
        call: &Call,
        source: impl Source,
        patience: Patience,
        provider_request_id: Option<String>,
    ) -> ChatStream {
        ChatStream {
            events: streaming::events(source, patience, CallError::from),
            assembly: completion::of_converse(&call.target.model, &self.id, self.created),
            provider_request_id,
            rate_limit: RateLimit::default(),
        }
    }
}

fn refused(refusal: Refusal) -> Classified {
    Classified { param: refusal.param, ..Classified::unbilled(Fault::Refused, refusal.message) }
}

fn not_taken(error: &dyn std::error::Error) -> Classified {
    Classified::unbilled(Fault::Refused, format!("the SDK does not take the request: {error}"))
}

fn trace(trace: &str) -> Trace {
    Trace::from(trace.to_ascii_uppercase().as_str())
}

fn tier(tier: converse::ServiceTier) -> ServiceTierType {
    let name: &'static str = tier.into();
    ServiceTierType::from(name)
}

/// The request's metadata as the header has them: a JSON object.
fn metadata(metadata: &BTreeMap<String, String>) -> Option<String> {
    (!metadata.is_empty()).then(|| serde_json::to_string(metadata).unwrap_or_default())
}

/// What the AWS credential chain finds for an account.
pub(super) async fn credentials(
    account: &Account<'_>,
    extra_roots: &[CertificateDer<'static>],
) -> Result<SharedCredentialsProvider, String> {
    let sockets = Sockets::open(Through::Environment, extra_roots)?;
    let direct = Sockets::open(Through::Direct, extra_roots)?;
    let sdk = Box::pin(account.load(http::for_credentials(sockets, direct))).await?;
    sdk.credentials_provider().ok_or_else(|| "the AWS credential chain is empty".to_owned())
}

#[async_trait]
impl Provider for Bedrock {
    async fn chat(&self, mut call: Call) -> Result<Reply, CallError> {
        self.ask(&mut call).await
    }

    async fn stream(&self, mut call: Call) -> Result<ChatStream, CallError> {
        self.open(&mut call).await
    }

    async fn service_quotas(&self, region: Option<&crate::names::Region>) -> Result<Vec<ServiceQuota>, CallError> {
        self.list_quotas(region).await
    }

    async fn count_tokens(&self, mut call: Call) -> Result<u64, CallError> {
        let asked = self.take(&mut call).await?;
        self.count(&call, asked).await
    }
}

/// For tests: credentials and certificates of their own, no environment.
#[cfg(test)]
impl Bedrock {
    pub(super) fn for_test(endpoint_url: &str, media: &MediaSettings, extra_roots: &[CertificateDer<'static>]) -> Self {
        let sockets = Sockets::open(Through::Direct, extra_roots).unwrap();
        let credentials = aws_credential_types::Credentials::new("AKIATEST", "secret", None, None, "test");
        let sdk = SdkConfig::builder()
            .behavior_version(account::behavior())
            .region(SdkRegion::new("us-east-1"))
            .credentials_provider(aws_credential_types::provider::SharedCredentialsProvider::new(credentials))
            .build();
        Self {
            sdk,
            http: http::for_calls(sockets.clone(), sockets.clone()),
            direct: sockets.clone(),
            sockets,
            endpoint_url: Some(endpoint_url.to_owned()),
            media: Fetcher::open(media, extra_roots).unwrap(),
            clients: RwLock::default(),
        }
    }
}
