//! The request parameters that a target may set or bound, by OpenAI's names: the one list of them, which the reader's keys
//! are made of.

use std::{borrow::Cow, collections::BTreeMap};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value};

/// A shape, and the names of its fields.
macro_rules! shape_with_names {
    ($(#[$about:meta])* pub struct $shape:ident { $($(#[$said:meta])* pub $field:ident: $kind:ty,)* }) => {
        $(#[$about])*
        pub struct $shape { $($(#[$said])* pub $field: $kind,)* }

        impl $shape {
            /// The fields, in their order.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($field)),*];
        }
    };
}

shape_with_names! {
/// Request parameters. `model`, `messages` and `stream` are not among them: the target decides those.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Parameters {
    /// The longest answer, in tokens. Bedrock charges its quota for as many until the call ends.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_tokens: Option<u64>,
    /// The newer name of `max_tokens`; one of the two.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_completion_tokens: Option<u64>,
    /// Sampling temperature.
    #[schemars(range(min = 0, max = 2))]
    pub temperature: Option<f64>,
    /// Nucleus sampling.
    #[schemars(range(min = 0, max = 1))]
    pub top_p: Option<f64>,
    /// Sampling among the likeliest tokens, for models that have it.
    #[schemars(range(min = 1, max = 1000))]
    pub top_k: Option<u32>,
    /// Where to stop: a text, or up to four.
    pub stop: Option<Stop>,
    /// Answers to one request.
    #[schemars(range(min = 1, max = 128))]
    pub n: Option<u32>,
    /// For repeatable sampling.
    pub seed: Option<i64>,
    /// Against topics that have come up.
    #[schemars(range(min = -2, max = 2))]
    pub presence_penalty: Option<f64>,
    /// Against words that have come up.
    #[schemars(range(min = -2, max = 2))]
    pub frequency_penalty: Option<f64>,
    /// Biases by token.
    pub logit_bias: Option<Map<String, Value>>,
    /// Whether probabilities come with the answer.
    pub logprobs: Option<bool>,
    /// Alternatives at each place.
    #[schemars(range(min = 0, max = 20))]
    pub top_logprobs: Option<u32>,
    /// Who asks.
    #[schemars(length(min = 1, max = 1024))]
    pub user: Option<String>,
    /// Who asks, for abuse detection.
    #[schemars(length(min = 1, max = 1024))]
    pub safety_identifier: Option<String>,
    /// Whether the provider keeps the answer.
    pub store: Option<bool>,
    /// Kept with the request by the provider.
    pub metadata: Option<BTreeMap<String, String>>,
    /// The form of the answer.
    pub response_format: Option<Map<String, Value>>,
    /// Tools that the model may call.
    #[schemars(length(max = 128))]
    pub tools: Option<Vec<Value>>,
    /// Which tool must be called: a word, or a choice.
    pub tool_choice: Option<ToolChoice>,
    /// Whether several tools may be called at once.
    pub parallel_tool_calls: Option<bool>,
    /// How long to think, for models that do.
    #[schemars(length(min = 1, max = 1024))]
    pub reasoning_effort: Option<String>,
    /// How much to say, for models that have it.
    #[schemars(length(min = 1, max = 1024))]
    pub verbosity: Option<String>,
    /// The provider's class of service.
    #[schemars(length(min = 1, max = 1024))]
    pub service_tier: Option<String>,
    /// Which prompts share a cache.
    #[schemars(length(min = 1, max = 1024))]
    pub prompt_cache_key: Option<String>,
    /// How long the cache is kept.
    #[schemars(length(min = 1, max = 1024))]
    pub prompt_cache_retention: Option<String>,
    /// The guardrail that watches over the call. Bedrock Converse only; a job cannot set it.
    pub guardrail: Option<Guardrail>,
    /// Fields of the model's own, sent as they are. Bedrock Converse only; a job cannot set them.
    pub additional_model_request_fields: Option<Map<String, Value>>,
}
}

/// A guardrail of Amazon Bedrock.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Guardrail {
    /// Its id or ARN.
    #[schemars(length(min = 1, max = 2048))]
    pub id: String,
    /// Its version: a number in quotes, or `DRAFT`.
    #[schemars(length(min = 1, max = 16))]
    pub version: String,
    /// Whether the answer says what the guardrail did. `disabled` by default.
    pub trace: Option<GuardrailTrace>,
}

/// Whether the answer says what a guardrail did.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub enum GuardrailTrace {
    /// It does.
    Enabled,
    /// It does not.
    Disabled,
    /// It says all of it.
    EnabledFull,
}

shape_with_names! {

/// Upper bounds of parameters, whoever set them.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Caps {
    /// Of `max_tokens`.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_tokens: Option<u64>,
    /// Of `max_completion_tokens`.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_completion_tokens: Option<u64>,
    /// Of `temperature`.
    #[schemars(range(min = 0, max = 2))]
    pub temperature: Option<f64>,
    /// Of `top_p`.
    #[schemars(range(min = 0, max = 1))]
    pub top_p: Option<f64>,
    /// Of `top_k`.
    #[schemars(range(min = 1, max = 1000))]
    pub top_k: Option<u32>,
    /// Of `n`.
    #[schemars(range(min = 1, max = 128))]
    pub n: Option<u32>,
    /// Of `presence_penalty`.
    #[schemars(range(min = -2, max = 2))]
    pub presence_penalty: Option<f64>,
    /// Of `frequency_penalty`.
    #[schemars(range(min = -2, max = 2))]
    pub frequency_penalty: Option<f64>,
    /// Of `top_logprobs`.
    #[schemars(range(min = 0, max = 20))]
    pub top_logprobs: Option<u32>,
}
}

/// Where to stop: a text, or up to four.
#[derive(Debug)]
pub struct Stop;

impl JsonSchema for Stop {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Stop".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": 4}
            ]
        })
    }
}

/// Which tool must be called: a word, or a choice.
#[derive(Debug)]
pub struct ToolChoice;

impl JsonSchema for ToolChoice {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ToolChoice".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "object"]})
    }
}
