//! The Converse form, as plain data: what the SDK is handed and what it hands back.
//!
//! Invariant: serialising a [`Request`] gives the JSON that goes over the wire, so tests can hold it against the
//! service's own model. Nothing of the SDK's types in here.

mod answer;
mod calls;
mod content;
mod events;
mod extras;
mod family;
mod format;
mod labels;
mod media;
mod messages;
mod metadata;
mod pictures;
mod reasoning;
mod sampling;
mod schema;
mod tools;
mod written;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

pub use answer::{Answer, AnswerBlock, BlockDelta, BlockStart, Citation, StreamEvent, TokenUsage};
pub use events::Stream;

use super::{Reading, Refusal, fidelity::Ledger, parameters::Effective};
use crate::{catalog::Model, spec::Target};

/// A Converse request, without model and region.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// System text, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub system: Vec<Block>,
    /// The conversation: user and assistant alternate, the user first and last; system text may stand behind a user's.
    pub messages: Vec<Message>,
    /// Sampling and bounds.
    pub inference_config: InferenceConfig,
    /// What only this model family knows.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub additional_model_request_fields: Map<String, Value>,
    /// Fields of the model's own answer to hand back.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub additional_model_response_field_paths: Vec<String>,
    /// Tools, and how they are chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_config: Option<ToolConfig>,
    /// What the answer must look like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_config: Option<OutputConfig>,
    /// The guardrail that watches over the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guardrail_config: Option<Guardrail>,
    /// How urgent it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<ServiceTier>,
    /// For the provider's logs.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub request_metadata: BTreeMap<String, String>,
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
    /// The operator's, inside a conversation: for models that heed it there.
    System,
}

/// A piece of content.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Block {
    /// Text, never blank.
    Text(String),
    /// A picture.
    Image(Image),
    /// A document.
    Document(Document),
    /// A tool that the model called.
    ToolUse(ToolUse),
    /// What a tool answered.
    ToolResult(ToolResult),
}

/// A picture.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Image {
    /// `png`, `jpeg`, `gif` or `webp`; empty while a remote source has not been fetched.
    pub format: String,
    /// Where its bytes are.
    pub source: Source,
}

/// A document.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Document {
    /// Such as `pdf` or `txt`; empty while a remote source has not been fetched.
    pub format: String,
    /// Unique in the request; letters, digits, single blanks and `-()[]`.
    pub name: String,
    /// Where its bytes are.
    pub source: Source,
}

/// Where the bytes of a medium are.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// Here.
    Bytes(bytes::Bytes),
    /// At an http(s) address: the provider layer fetches them before it sends the request.
    Remote(String),
    /// In S3, where the service fetches them by itself: `s3://bucket/key`.
    S3(String),
}

/// A tool that the model called.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolUse {
    /// The call's id.
    pub tool_use_id: String,
    /// The tool.
    pub name: String,
    /// Always an object.
    pub input: Value,
}

/// What a tool answered.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolResult {
    /// The call's id.
    pub tool_use_id: String,
    /// Texts and images.
    pub content: Vec<Block>,
}

/// Tools, and how they are chosen.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolConfig {
    /// Never empty.
    pub tools: Vec<Tool>,
    /// `None` leaves the choice to the model, without the field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<ToolChoice>,
}

/// A tool.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// Letters, digits, `_` and `-`, at most 64.
    pub name: String,
    /// Never empty.
    pub description: String,
    /// JSON schema of its input: an object at the root.
    pub input_schema: Value,
    /// Whether its input is held to the schema.
    pub strict: Option<bool>,
}

/// How tools are chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice {
    /// As the model likes.
    Auto,
    /// Some tool.
    Any,
    /// This tool.
    Tool(String),
}

/// What the answer must look like.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputConfig {
    /// The schema's name, if it has one.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// The JSON schema.
    pub schema: Value,
}

/// A guardrail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Guardrail {
    /// Its id or ARN.
    pub guardrail_identifier: String,
    /// A number, or `DRAFT`.
    pub guardrail_version: String,
    /// `enabled`, `disabled` or `enabled_full`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

/// How urgent a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum ServiceTier {
    /// The standard tier.
    Default,
    /// Cheaper and slower.
    Flex,
    /// Faster and dearer.
    Priority,
    /// Bought capacity.
    Reserved,
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

/// Translates an effective request.
pub(super) fn translate(
    target: &Target,
    model: Option<&Model>,
    effective: &Effective<'_>,
    reading: &mut Reading,
    ledger: &mut Ledger<'_>,
) -> Result<Request, Refusal> {
    let habits = family::Habits::of(target, model);
    let mut request = Request::default();
    let thinking = reasoning::Thinking::read(effective, habits, ledger)?;
    let mut toolbox = tools::Toolbox::read(effective, habits, reading, ledger)?;
    let format = format::Format::read(effective, habits, thinking.is_on(), &toolbox, ledger)?;
    let calls_as_text = toolbox.is_empty();
    let against = reasoning::Against {
        forced_tool: toolbox.must_be_called() || format.forces_a_tool(),
        ends_in_results: !calls_as_text && messages::ends_in_results(&effective.messages),
        is_bounded: effective.output_limit.is_some(),
    };
    sampling::bound(effective.output_limit, habits, target, ledger, &mut request)?;
    let allowed = thinking.pack(habits, against, ledger, &mut request)?;
    let telling = messages::Telling { calls_as_text, thinks: allowed == reasoning::Sampling::Narrow };
    messages::carry(&effective.messages, habits, telling, ledger, &mut request)?;
    format.pack(habits, &mut toolbox, reading, &mut request);
    toolbox.pack(habits, &mut request);
    sampling::carry(effective, habits, allowed, reading, ledger, &mut request)?;
    metadata::carry(effective, ledger, &mut request)?;
    extras::carry(effective, habits, ledger, &mut request)?;
    Ok(request)
}
