//! The facts about configured providers that specs are checked against. Settings supply them; no secrets here.

use std::collections::BTreeMap;

pub use crate::catalog::Api;
use crate::names::{ProviderName, Region};

/// What a spec may ask of one provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderFacts {
    /// The protocol.
    pub api: Api,
    /// A kill switch for this other provider also matches this one.
    pub family: Option<ProviderName>,
    /// The region of targets that name none; with OpenAI's protocol, the one that the provider's address is of.
    pub region: Option<Region>,
    /// Where a provider without regions keeps data; empty when it does not say.
    pub data_regions: Vec<Region>,
}

/// All configured providers by name.
pub type Providers = BTreeMap<ProviderName, ProviderFacts>;
