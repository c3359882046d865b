//! The facts about configured providers that specs are checked against. Settings supply them; no secrets here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::names::{ProviderName, Region};

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

/// What a spec may ask of one provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderFacts {
    /// The protocol.
    pub api: Api,
    /// A kill switch for this other provider also matches this one.
    pub family: Option<ProviderName>,
    /// The region of targets that name none.
    pub region: Option<Region>,
    /// Where a provider without regions keeps data; empty when it does not say.
    pub data_regions: Vec<Region>,
}

/// All configured providers by name.
pub type Providers = BTreeMap<ProviderName, ProviderFacts>;
