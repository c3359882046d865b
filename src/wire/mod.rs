//! Translation between the OpenAI chat form and what each provider speaks, and from a provider's failure to a fault.
//!
//! Invariant: pure. Nothing is dropped in silence: what a target cannot carry exactly is noted or refused, as the
//! target's fidelity says. No sockets and no SDK clients in here.

pub mod converse;

use bytes::Bytes;

use crate::{catalog::Model, job::FidelityNote, spec::Target};

/// A request ready to be sent to one target.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// What to send.
    pub payload: Payload,
    /// What is inexact about it.
    pub fidelity: Vec<FidelityNote>,
    /// The output bound that the request carries, if any: what a quota reserves.
    pub max_output_tokens: Option<u64>,
}

/// What to send, by protocol.
#[derive(Debug, Clone)]
pub enum Payload {
    /// The body of `POST /chat/completions`.
    OpenAi(Bytes),
    /// A Converse request.
    Converse(Box<converse::Request>),
}

/// Why a request cannot be carried to a target at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The OpenAI parameter at fault.
    pub param: Option<String>,
    /// What is wrong, for which target, and what would help.
    pub message: String,
}

/// Translates a job's body for a target: the target's defaults, overrides, caps and system text applied.
///
/// # Errors
/// [`Refusal`] when the target cannot carry the request within its fidelity.
pub fn prepare(_target: &Target, _model: Option<&Model>, _body: &serde_json::Value) -> Result<Prepared, Refusal> {
    Err(Refusal { param: None, message: "translation is being written".to_owned() })
}
