//! A target: a provider and a model, with what this pipeline sends there.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::providers::Api;
use crate::names::{ProviderName, Region, TargetName};

/// A target's place in its pipeline. Always valid for the pipeline that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TargetIx(pub u16);

impl TargetIx {
    /// The place as an index.
    pub fn get(self) -> usize {
        usize::from(self.0)
    }
}

/// OpenAI request parameters by name, such as `temperature` or `max_tokens`.
pub type Parameters = serde_json::Map<String, serde_json::Value>;

/// What to do about a request that a target cannot carry exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, strum::EnumString, strum::Display)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Fidelity {
    /// Anything inexact is refused before any call.
    Strict,
    /// Sampling and bookkeeping parameters may go, noted; the answer's contract may not.
    #[default]
    Warn,
    /// Everything may go, noted.
    Loose,
}

/// How a target's system text meets the job's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, strum::EnumString, strum::Display)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum SystemMode {
    /// Before the job's.
    #[default]
    Prepend,
    /// Instead of the job's.
    Replace,
    /// Only if the job has none.
    Fallback,
}

/// The native forms of Bedrock's InvokeModel, for models that Converse does not serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::EnumString, strum::Display)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Form {
    /// Anthropic's: `anthropic_version`, `messages`.
    Claude,
    /// Llama's: `prompt`, `max_gen_len`.
    Llama,
}

/// System text that a target adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemPrompt {
    /// The text.
    pub text: String,
    /// How it meets the job's own.
    pub mode: SystemMode,
}

/// Where the data of a call may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Residency {
    /// Only to these regions (never empty).
    Within(Vec<Region>),
    /// Nowhere that can be promised.
    Unknown,
}

/// A target of a valid pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Its name in the pipeline.
    pub name: TargetName,
    /// The configured provider.
    pub provider: ProviderName,
    /// The provider's protocol.
    pub api: Api,
    /// The model, inference profile or ARN, as the provider wants it.
    pub model: String,
    /// The region to call, for providers that have regions.
    pub region: Option<Region>,
    /// Where the data of a call may go.
    pub residency: Residency,
    /// From the start of a call to the end of its answer.
    pub timeout: Duration,
    /// Longest silence between two pieces of a streamed answer.
    pub idle_timeout: Duration,
    /// Queued jobs are called by streaming, and the answer is put together again.
    pub stream: bool,
    /// InvokeModel in this form instead of Converse.
    pub invoke: Option<Form>,
    /// Parameters where the job says nothing.
    pub defaults: Parameters,
    /// Parameters whatever the job says.
    pub overrides: Parameters,
    /// Upper bounds of numeric parameters.
    pub cap: Parameters,
    /// System text.
    pub system: Option<SystemPrompt>,
    /// What to do about inexact requests.
    pub fidelity: Fidelity,
}

impl Target {
    /// Everything that decides what it answers, in a text that a person can read: the model and where it is called, and a
    /// digest of the parameters if there are any. Names, time-outs and limits are no part of it.
    pub fn identity(&self) -> String {
        let mut text = format!("{}/{}", self.provider, self.model);
        if let Some(region) = &self.region {
            text = format!("{text} in {region}");
        }
        let system = self.system.as_ref().map(|system| (&system.text, system.mode));
        if self.defaults.is_empty() && self.overrides.is_empty() && self.cap.is_empty() && system.is_none() {
            return if let Some(form) = self.invoke { format!("{text} ({form})") } else { text };
        }
        let sorted =
            |parameters: &Parameters| parameters.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let parts: [std::collections::BTreeMap<String, serde_json::Value>; 3] =
            [sorted(&self.defaults), sorted(&self.overrides), sorted(&self.cap)];
        let written = serde_json::to_string(&(parts, system, self.invoke)).unwrap_or_default();
        let digest = Sha256::digest(written);
        let short = digest.iter().take(4).fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
        format!("{text} with parameters {short:08x}")
    }
}
