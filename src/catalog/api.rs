//! The protocols that models are reached by.

use serde::{Deserialize, Serialize};

/// The wire protocol that a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, strum::Display, strum::EnumString)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Api {
    /// OpenAI chat completions over HTTP.
    OpenAi,
    /// Amazon Bedrock Converse.
    Bedrock,
}
