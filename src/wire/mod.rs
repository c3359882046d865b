//! Translation between the OpenAI chat form and what each provider speaks, and from a provider's failure to a fault.
//!
//! Invariant: pure. Nothing is dropped in silence: what a target cannot carry exactly is noted or refused, as the
//! target's fidelity says. No sockets and no SDK clients in here.

pub mod converse;
mod effort;
pub mod faults;
mod fidelity;
#[cfg(test)]
pub(crate) mod golden;
pub mod invoke;
pub mod openai;
mod parameters;
#[cfg(test)]
mod properties;
mod reading;
pub mod stream;
#[cfg(test)]
mod tests;
mod validity;

use bytes::Bytes;
use serde_json::Value;

pub use crate::spec::Form;
use crate::{
    catalog::Model,
    job::FidelityNote,
    spec::{Api, Target},
};
use fidelity::Ledger;
pub use reading::Reading;
pub use validity::is_invalid;

/// A request ready to be sent to one target.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// What to send.
    pub payload: Payload,
    /// What the answer must be read with.
    pub reading: Reading,
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
    /// A request for InvokeModel, in the form of the model's family. It is written out last, from the Converse form, when
    /// media have been fetched.
    Invoke(Form, Box<converse::Request>),
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

impl Refusal {
    fn of(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), message: message.into() }
    }
}

/// A chat completion in OpenAI's form, read or made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// The JSON text.
    pub json: String,
    /// What it consumed; `None` when the provider did not say.
    pub usage: Option<crate::usage::Usage>,
    /// Content blocks of kinds that this release cannot read; they are missing from the text.
    pub unread_blocks: usize,
    /// What whoever runs this should know of the answer, in words: what was taken off it, what a guardrail did.
    pub remarks: Vec<String>,
}

/// Translates a job's body for a target: the target's defaults, overrides, caps and system text applied.
///
/// # Errors
/// [`Refusal`] when the target cannot carry the request within its fidelity.
pub fn prepare(target: &Target, model: Option<&Model>, body: &Value) -> Result<Prepared, Refusal> {
    let effective = parameters::effective(target, body)?;
    let mut ledger = Ledger::new(target);
    let mut reading = Reading::default();
    if effective.streams {
        // How a queued job is called is the daemon's affair; the answer is the same, so no fidelity forbids it.
        ledger.note_always(
            "stream",
            crate::job::FidelityAction::Emulated,
            "queued jobs are called without streaming; the whole answer is kept",
        );
    }
    for name in &effective.uninvited {
        ledger.uninvited(name)?;
    }
    let (payload, max_output_tokens) = match target.api {
        Api::OpenAi => {
            let (body, limit) = openai::request::body(target, model, &effective, &mut reading, &mut ledger)?;
            (Payload::OpenAi(body), limit)
        }
        Api::Bedrock => {
            let request = converse::translate(target, model, &effective, &mut reading, &mut ledger)?;
            let limit = request.inference_config.max_tokens;
            let mut request = Box::new(request);
            let payload = match target.invoke {
                None => Payload::Converse(request),
                Some(form) => {
                    let here = reading.local_stop.len();
                    invoke::fit(form, &target.model, &mut request, &mut reading)?;
                    if reading.local_stop.len() > here {
                        let detail = "this form has no stop sequences; the answer is cut at the first of them";
                        ledger.note_always("stop", crate::job::FidelityAction::Emulated, detail);
                    }
                    Payload::Invoke(form, request)
                }
            };
            (payload, Some(limit))
        }
    };
    Ok(Prepared { payload, reading, fidelity: ledger.into_notes(), max_output_tokens })
}
