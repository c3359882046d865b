//! Amazon Bedrock: Converse by the AWS SDK.
//!
//! Invariant: the SDK serialises, signs and parses; it does not retry, wait or give up on its own. Connections are
//! [`Sockets`], the same as everywhere.

mod account;
mod convert;
mod count;
mod failure;
mod http;

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock},
};

use async_trait::async_trait;
use aws_sdk_bedrockruntime::{
    Client,
    config::{
        Builder, Region as SdkRegion, SharedHttpClient, StalledStreamProtectionConfig, retry::RetryConfig,
        timeout::TimeoutConfig,
    },
    operation::RequestId,
};
use aws_types::SdkConfig;
use rustls::pki_types::CertificateDer;

pub(super) use account::Account;

use super::{
    Call, CallError, Provider, RateLimit, Reply,
    sockets::{Departure, Sockets, Through},
};
use crate::{
    clock::{Clock, SystemClock},
    job::Fault,
    wire::{Payload, converse::Request, faults::Classified, openai::completion},
};

/// Regions that one provider calls: more than AWS has, so that a loop over made-up names cannot fill memory.
const MAX_REGIONS: usize = 64;

/// A Bedrock account.
#[derive(Debug)]
pub(super) struct Bedrock {
    sdk: SdkConfig,
    http: SharedHttpClient,
    endpoint_url: Option<String>,
    clients: RwLock<BTreeMap<String, Client>>,
}

impl Bedrock {
    pub(super) async fn connect(
        account: &Account<'_>,
        extra_roots: &[CertificateDer<'static>],
    ) -> Result<Self, String> {
        if let Some(url) = account.endpoint_url {
            super::http_url("endpoint_url", url)?;
        }
        let sockets = Sockets::open(Through::Environment, extra_roots)?;
        let direct = Sockets::open(Through::Direct, extra_roots)?;
        let sdk = account.load(http::for_credentials(sockets.clone(), direct.clone())).await?;
        Ok(Self {
            sdk,
            http: http::for_calls(sockets, direct),
            endpoint_url: account.endpoint_url.map(str::to_owned),
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
        Ok(clients.entry(region.to_owned()).or_insert_with(|| self.open(region)).clone())
    }

    fn open(&self, region: &str) -> Client {
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

    async fn exchange(&self, call: &Call, request: Request) -> Result<Reply, CallError> {
        let client = self.client(call)?;
        let departure = Departure::default();
        let input = convert::request(client.converse().model_id(&call.target.model), request)?;
        let sent = http::watched(departure.clone(), input.send());
        let output = match tokio::time::timeout(call.timeout, sent).await {
            Ok(Ok(output)) => output,
            Ok(Err(error)) => return Err(failure::classify(&error, &departure).into()),
            Err(_) => return Err(departure.timed_out(call.timeout).into()),
        };
        let provider_request_id = output.request_id().map(str::to_owned);
        let created = SystemClock.now().as_micros() / 1_000_000;
        let id = uuid::Uuid::now_v7().simple().to_string();
        let completion =
            completion::from_converse(&call.target.model, &call.reading, convert::answer(output), &id, created)?;
        if completion.unread_blocks > 0 {
            tracing::warn!(
                job = %call.job,
                model = call.target.model,
                blocks = completion.unread_blocks,
                "the answer holds content of kinds that this release cannot read; it is left out"
            );
        }
        Ok(Reply {
            completion: completion.json,
            usage: completion.usage,
            provider_request_id,
            // Bedrock says nothing of its quotas.
            rate_limit: RateLimit::default(),
        })
    }
}

#[async_trait]
impl Provider for Bedrock {
    async fn chat(&self, mut call: Call) -> Result<Reply, CallError> {
        let Payload::Converse(mut request) = std::mem::replace(&mut call.payload, Payload::OpenAi(bytes::Bytes::new()))
        else {
            return Err(super::foreign_payload(&call));
        };
        // For the operator who reads Bedrock's invocation logs; left out where the job's own metadata fill the list.
        request.tag("landbridge-job", &call.job.to_string());
        self.exchange(&call, *request).await
    }

    async fn count_tokens(&self, mut call: Call) -> Result<u64, CallError> {
        match std::mem::replace(&mut call.payload, Payload::OpenAi(bytes::Bytes::new())) {
            Payload::Converse(request) => self.count(&call, *request).await,
            _ => Err(super::foreign_payload(&call)),
        }
    }
}

/// For tests: credentials and certificates of their own, no environment.
#[cfg(test)]
impl Bedrock {
    pub(super) fn for_test(endpoint_url: &str, extra_roots: &[CertificateDer<'static>]) -> Self {
        let sockets = Sockets::open(Through::Direct, extra_roots).unwrap();
        let credentials = aws_credential_types::Credentials::new("AKIATEST", "secret", None, None, "test");
        let sdk = SdkConfig::builder()
            .behavior_version(account::behavior())
            .region(SdkRegion::new("us-east-1"))
            .credentials_provider(aws_credential_types::provider::SharedCredentialsProvider::new(credentials))
            .build();
        Self {
            sdk,
            http: http::for_calls(sockets.clone(), sockets),
            endpoint_url: Some(endpoint_url.to_owned()),
            clients: RwLock::default(),
        }
    }
}
