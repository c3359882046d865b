//! What a caller hands in: one chat request in OpenAI form, and how it is to be handled.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{clock::Timestamp, names::PipelineName};

/// A job as submitted, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// The pipeline; `None` lets `accept` decide by the body's model.
    pub pipeline: Option<PipelineName>,
    /// The same key in the same pipeline by the same caller is the same job.
    pub idempotency_key: Option<String>,
    /// The batch it belongs to.
    pub batch: Option<String>,
    /// For rules, rollouts and reports.
    pub metadata: BTreeMap<String, String>,
    /// Higher first; the pipeline's when absent.
    pub priority: Option<i32>,
    /// Not dispatched before.
    pub not_before: Option<Timestamp>,
    /// Expires then; the pipeline's span when absent.
    pub deadline: Option<Timestamp>,
    /// The OpenAI chat request: an object with a non-empty array `messages`.
    pub body: Value,
}

/// Why a submitted job is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EnvelopeError {
    /// The field at fault, such as `metadata.order`.
    pub param: Option<String>,
    /// What is wrong and what to send instead.
    pub message: String,
}

impl Envelope {
    /// Reads a native job, or one line of an OpenAI batch file (`custom_id` becomes the idempotency key).
    ///
    /// # Errors
    /// [`EnvelopeError`] naming the field for anything that is not a job.
    pub fn parse(_json: &[u8]) -> Result<Self, EnvelopeError> {
        Err(EnvelopeError { param: None, message: "envelopes are being written".to_owned() })
    }

    /// The same from a parsed value (in-spec tests).
    ///
    /// # Errors
    /// As [`Envelope::parse`].
    pub fn from_value(_value: Value) -> Result<Self, EnvelopeError> {
        Err(EnvelopeError { param: None, message: "envelopes are being written".to_owned() })
    }

    /// SHA-256 over a canonical form of everything but the idempotency key: equal envelopes, equal digests.
    pub fn digest(&self) -> [u8; 32] {
        [0; 32]
    }
}
