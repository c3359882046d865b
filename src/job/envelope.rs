//! What a caller hands in: one chat request in OpenAI form, and how it is to be handled.
//!
//! Invariant: an [`Envelope`] has been checked field by field, and everything in it is bounded. Unknown and repeated
//! keys are refused by name, because a misspelt field that is quietly ignored is a job that does something else.
//! Nothing here knows which pipelines exist or what time it is.

mod digest;
mod fields;
mod json;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, ops::RangeInclusive};

use serde_json::Value;

use crate::{clock::Timestamp, names::PipelineName};

/// Longest job as JSON text, in bytes: room for a few images inline, and below what providers take.
pub const MAX_JOB_BYTES: usize = 16 * 1024 * 1024;
/// Most pairs of metadata.
pub const MAX_METADATA_PAIRS: usize = 64;
/// Longest metadata key, in characters.
pub const MAX_METADATA_KEY: usize = 64;
/// Longest metadata value, in characters.
pub const MAX_METADATA_VALUE: usize = 512;
/// Longest idempotency key (or `custom_id`), in characters: short enough to be indexed by every store.
pub const MAX_IDEMPOTENCY_KEY: usize = 255;
/// Longest name of a batch, in characters.
pub const MAX_BATCH_NAME: usize = 128;
/// Longest address of a callback, in characters.
pub const MAX_CALLBACK: usize = 2_048;
/// Longest `body.model`, in characters: an ARN fits.
pub const MAX_MODEL_NAME: usize = 2_048;
/// Priorities that a job may ask for. A step weighs as much as a minute of age, so the ends are 17 hours apart from 0.
pub const PRIORITIES: RangeInclusive<i32> = -1_000..=1_000;

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
    /// Who is told of its end: an http or https address. Whether it may be called is not known here.
    pub callback: Option<String>,
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
    /// Reads a native job, or one line of an OpenAI batch file (`custom_id` becomes the idempotency key). A batch line
    /// may carry the native fields too, except a second key. An optional field that is `null` counts as absent.
    ///
    /// # Errors
    /// [`EnvelopeError`] naming the field for anything that is not a job.
    pub fn parse(text: &[u8]) -> Result<Self, EnvelopeError> {
        json::from_json(text)?.check()
    }

    /// The same from a parsed value (in-spec tests).
    ///
    /// # Errors
    /// As [`Envelope::parse`].
    pub fn from_value(value: Value) -> Result<Self, EnvelopeError> {
        fields::from_value(value)?.check()
    }

    /// SHA-256 over a canonical form of what is asked: equal envelopes, equal digests, whatever the order of keys.
    /// The idempotency key and the pipeline are left out: together they are what a repeat is looked up by.
    pub fn digest(&self) -> [u8; 32] {
        digest::of(self)
    }
}
