//! Calls to providers: real clients over real sockets.
//!
//! Invariant: one call, one attempt. No retries here (the engine owns them) and no routing. A call's error always says
//! whether bytes may have left, because that is what decides whether it may have been billed.

mod bedrock;
mod media;
pub mod messenger;
mod openai;
mod outward;
mod secret;
mod signature;
mod sockets;
mod streaming;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;

pub use streaming::{ChatStream, Gathered};

use crate::{
    ids::JobId,
    job::Fault,
    names::{ProviderName, Region},
    settings::{ApiSettings, MediaSettings, ProviderSettings, Settings},
    spec::Target,
    usage::Usage,
    wire::{Payload, Reading, faults::Classified},
};

const USER_AGENT: &str = concat!("landbridge/", env!("CARGO_PKG_VERSION"));

/// One call.
#[derive(Debug, Clone)]
pub struct Call {
    /// For the provider's request metadata and our logs.
    pub job: JobId,
    /// Where to.
    pub target: Arc<Target>,
    /// What to send.
    pub payload: Payload,
    /// What the answer must be read with.
    pub reading: Reading,
    /// To the end of the answer; already cut to the job's deadline.
    pub timeout: Duration,
    /// Longest silence between two pieces of a streamed answer.
    pub idle_timeout: Duration,
}

/// A provider's answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// An OpenAI chat completion, as JSON text.
    pub completion: String,
    /// What it consumed; `None` when the provider did not say.
    pub usage: Option<Usage>,
    /// The provider's own id of the request.
    pub provider_request_id: Option<String>,
    /// What the provider says of its quota.
    pub rate_limit: RateLimit,
}

/// What a provider's headers say of its quota. Absent where it says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateLimit {
    /// Requests a minute, in all.
    pub limit_requests: Option<u64>,
    /// Requests left.
    pub remaining_requests: Option<u64>,
    /// Until the requests are full again.
    pub reset_requests: Option<Duration>,
    /// Tokens a minute, in all.
    pub limit_tokens: Option<u64>,
    /// Tokens left.
    pub remaining_tokens: Option<u64>,
    /// Until the tokens are full again.
    pub reset_tokens: Option<Duration>,
}

/// How a call failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct CallError {
    /// What kind.
    pub fault: Fault,
    /// The provider's words, or ours when it said nothing.
    pub message: String,
    /// The provider's code, such as `rate_limit_exceeded` or `ThrottlingException`.
    pub code: Option<String>,
    /// The HTTP status, when there was one.
    pub status: Option<u16>,
    /// The OpenAI parameter that the provider blames.
    pub param: Option<String>,
    /// The provider's hint when to come back.
    pub retry_after: Option<Duration>,
    /// What the operator should do, when it is theirs to act.
    pub advice: Option<String>,
    /// Bytes may have left and no complete refusal came back: it may have been billed.
    pub possibly_billed: bool,
    /// What the provider says of its quota.
    pub rate_limit: RateLimit,
}

/// A provider account.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Sends one request and waits for its whole answer. Dropping the future stops the call.
    ///
    /// # Errors
    /// [`CallError`] with the fault.
    async fn chat(&self, call: Call) -> Result<Reply, CallError>;

    /// Has a request's prompt counted, at no charge.
    ///
    /// # Errors
    /// [`CallError`], also where the provider counts nothing.
    async fn count_tokens(&self, call: Call) -> Result<u64, CallError> {
        let message = format!("provider {} counts no tokens", call.target.provider);
        Err(Classified::unbilled(Fault::Refused, message).with_code("not_supported").into())
    }

    /// What the account is granted in a region, where AWS Service Quotas tells it; in its own, where none is named.
    ///
    /// # Errors
    /// [`CallError`], also where nobody tells it.
    async fn service_quotas(&self, region: Option<&Region>) -> Result<Vec<ServiceQuota>, CallError> {
        let _ = region;
        let message = "this provider is not in AWS Service Quotas".to_owned();
        Err(Classified::unbilled(Fault::Refused, message).with_code("not_supported").into())
    }

    /// Sends one request and hands over its answer piece by piece. Dropping the future or the stream stops the call.
    ///
    /// # Errors
    /// [`CallError`] with the fault, when there is no answer to begin with. What fails later is in the stream.
    async fn stream(&self, call: Call) -> Result<ChatStream, CallError>;
}

/// One quota of an account, as AWS Service Quotas tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceQuota {
    /// What it is called, for people.
    pub name: String,
    /// What is granted.
    pub value: f64,
}

/// The configured providers by name.
pub type ProviderSet = BTreeMap<ProviderName, Arc<dyn Provider>>;

/// Why a provider's settings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("providers.{provider}: {message}")]
pub struct ConnectError {
    /// The provider.
    pub provider: ProviderName,
    /// What is wrong, the setting first, and what to write instead.
    pub message: String,
}

/// Makes ring the process's choice of cryptography for TLS. `main` and tests call it first; again is harmless.
pub fn install_crypto() {
    // An error only says that a choice was made before.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Prepares the clients of one provider. Nothing is called yet, and no key is read: what is missing then shows at the
/// first call, which parks the target until it is there.
///
/// # Errors
/// [`ConnectError`] naming the setting that cannot be used.
pub async fn connect(
    name: &ProviderName,
    settings: &ProviderSettings,
    media: &MediaSettings,
) -> Result<Arc<dyn Provider>, ConnectError> {
    let connected: Result<Arc<dyn Provider>, String> = match &settings.api {
        ApiSettings::OpenAi { base_url, api_key, organization, project, region, aws } => {
            let address = openai::Address {
                base_url,
                api_key: api_key.as_ref(),
                organization: organization.as_deref(),
                project: project.as_deref(),
                aws: aws.as_ref().zip(region.as_ref()),
            };
            openai::OpenAi::connect(&address, &[]).await.map(|provider| Arc::new(provider) as Arc<dyn Provider>)
        }
        ApiSettings::Bedrock { region, profile, role_arn, endpoint_url, anonymous } => {
            let account = bedrock::Account {
                region: region.as_ref(),
                profile: profile.as_deref(),
                role_arn: role_arn.as_deref(),
                endpoint_url: endpoint_url.as_deref(),
                anonymous: *anonymous,
            };
            let connected = bedrock::Bedrock::connect(&account, media, &[]).await;
            connected.map(|provider| Arc::new(provider) as Arc<dyn Provider>)
        }
    };
    connected.map_err(|message| ConnectError { provider: name.clone(), message })
}

/// Prepares the clients of all configured providers.
///
/// # Errors
/// Every [`ConnectError`] there is, not just the first.
pub async fn connect_all(settings: &Settings) -> Result<ProviderSet, Vec<ConnectError>> {
    let mut set = ProviderSet::new();
    let mut errors = Vec::new();
    for (name, provider) in &settings.providers {
        match connect(name, provider, &settings.media).await {
            Ok(provider) => {
                set.insert(name.clone(), provider);
            }
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(set) } else { Err(errors) }
}

impl From<Classified> for CallError {
    fn from(classified: Classified) -> Self {
        Self {
            fault: classified.fault,
            message: classified.message,
            code: classified.code,
            status: classified.status,
            param: classified.param,
            retry_after: classified.retry_after,
            advice: classified.advice,
            possibly_billed: classified.possibly_billed,
            rate_limit: RateLimit::default(),
        }
    }
}

/// A setting's address: http or https, without secrets, query or fragment.
fn http_url(setting: &str, text: &str) -> Result<reqwest::Url, String> {
    let url: reqwest::Url = text.parse().map_err(|error| format!("{setting}: {text:?} is no URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(format!("{setting}: {text:?} must begin with https:// (or http://) and a host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("{setting}: must hold no user name or password; name the key's place in `api_key`"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("{setting}: {text:?} must end before any ? or #"));
    }
    Ok(url)
}

/// A call that was prepared for another protocol than the provider's.
fn foreign_payload(call: &Call) -> CallError {
    let message = format!(
        "target {:?} was prepared for another protocol than its provider {:?} speaks",
        call.target.name.as_str(),
        call.target.provider.as_str()
    );
    Classified::unbilled(Fault::Refused, message).with_code("foreign_payload").into()
}
