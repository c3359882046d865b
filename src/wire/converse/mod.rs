//! The Converse form, as plain data: what the SDK is handed and what it hands back.
//!
//! Invariant: serialising a [`Request`] gives the JSON that goes over the wire, so tests can hold it against the
//! service's own model. Nothing of the SDK's types in here.

mod family;
mod messages;
mod metadata;
mod sampling;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Refusal, fidelity::Ledger, parameters::Effective};
use crate::{catalog::Model, spec::Target};

/// A Converse request, without model and region.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// System text, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub system: Vec<Block>,
    /// The conversation: roles alternate, the user first and last.
    pub messages: Vec<Message>,
    /// Sampling and bounds.
    pub inference_config: InferenceConfig,
    /// What only this model family knows.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub additional_model_request_fields: Map<String, Value>,
    /// For the provider's logs.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub request_metadata: BTreeMap<String, String>,
    /// Stop sequences that the model does not take: the answer is cut at them here. Not sent.
    #[serde(skip)]
    pub local_stop: Vec<String>,
}

/// One turn.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Message {
    /// Whose.
    pub role: Role,
    /// Never empty.
    pub content: Vec<Block>,
}

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The caller's.
    User,
    /// The model's.
    Assistant,
}

/// A piece of content.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Block {
    /// Text, never blank.
    Text(String),
}

/// Sampling and bounds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InferenceConfig {
    /// Always sent: without it the service reserves the model's maximum against the quota.
    pub max_tokens: u64,
    /// 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Never empty strings.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stop_sequences: Vec<String>,
}

/// What Converse answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// The message's content, in order.
    pub content: Vec<AnswerBlock>,
    /// Why it ended, in the service's word.
    pub stop_reason: String,
    /// What it consumed.
    pub usage: Option<TokenUsage>,
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum AnswerBlock {
    /// Text, with or without citations.
    Text(String),
    /// What the model thought.
    Reasoning(String),
    /// A call of a tool.
    ToolUse {
        /// The call's id.
        id: String,
        /// The tool.
        name: String,
        /// Its arguments.
        input: Value,
    },
    /// Of a kind that this release does not read.
    Unread,
}

/// What a call consumed, in Converse's terms: `input` excludes what the cache read or wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenUsage {
    /// Uncached prompt tokens.
    pub input: u64,
    /// Generated tokens.
    pub output: u64,
    /// Prompt tokens read from the cache.
    pub cache_read: u64,
    /// Prompt tokens written to the cache.
    pub cache_write: u64,
}

/// Translates an effective request.
pub(super) fn translate(
    target: &Target,
    model: Option<&Model>,
    effective: &Effective<'_>,
    ledger: &mut Ledger<'_>,
) -> Result<Request, Refusal> {
    let habits = family::Habits::of(target, model);
    let mut request = Request::default();
    messages::carry(&effective.messages, habits, ledger, &mut request)?;
    sampling::carry(effective, habits, target, ledger, &mut request)?;
    metadata::carry(effective, ledger, &mut request)?;
    Ok(request)
}
