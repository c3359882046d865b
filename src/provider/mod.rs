//! Calls to providers: real clients over real sockets.
//!
//! Invariant: one call, one attempt. No retries here (the engine owns them) and no routing. A call's error always says
//! whether bytes may have left, because that is what decides whether it may have been billed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{ids::JobId, job::Fault, names::ProviderName, spec::Target, usage::Usage, wire::Payload};

/// One call.
#[derive(Debug, Clone)]
pub struct Call {
    /// For the provider's request metadata and our logs.
    pub job: JobId,
    /// Where to.
    pub target: Arc<Target>,
    /// What to send.
    pub payload: Payload,
    /// To the end of the answer; already cut to the job's deadline.
    pub timeout: Duration,
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
}

/// The configured providers by name.
pub type ProviderSet = BTreeMap<ProviderName, Arc<dyn Provider>>;
