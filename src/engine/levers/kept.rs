//! The levers as the store keeps them, and what they say together.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    names::{PipelineName, ProviderName, RolloutName},
    routing::FlagLevels,
    spec::Flag,
};

/// The scope word of flags that bind every pipeline.
pub const ALL: &str = "all";

/// A flag set at run time, as the store keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuntimeFlag {
    /// What it says.
    pub value: bool,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who set it.
    pub actor: String,
    /// When.
    pub set_at: Timestamp,
    /// When it clears itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clear_at: Option<Timestamp>,
}

/// A rollback in force, as the store keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollback {
    /// The baseline's provider, now forced.
    pub provider: ProviderName,
    /// The rollouts held.
    pub rollouts: Vec<RolloutName>,
    /// What the pipeline's flag said before, to be put back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flag_before: Option<RuntimeFlag>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who.
    pub actor: String,
    /// When.
    pub at: Timestamp,
}

/// All runtime levers, as read from the store.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Runtime {
    /// By scope and flag name.
    pub flags: BTreeMap<String, RuntimeFlag>,
    /// By pipeline.
    pub rollbacks: BTreeMap<PipelineName, Rollback>,
}

impl Runtime {
    /// Lays the runtime flags over the levels that files and environment fill. Flags of providers that are no longer
    /// configured are passed over.
    pub fn levels<'a>(
        &self,
        below: &FlagLevels,
        providers: impl Iterator<Item = &'a ProviderName> + Clone,
    ) -> FlagLevels {
        let mut levels = below.clone();
        for (key, flag) in &self.flags {
            let Some((scope, name)) = key.split_once('/') else { continue };
            let Some(parsed) = Flag::parse(name, providers.clone()) else { continue };
            if scope == ALL {
                levels.runtime.0.insert(parsed, flag.value);
            } else if let Ok(pipeline) = PipelineName::new(scope) {
                levels.runtime_by_pipeline.entry(pipeline).or_default().0.insert(parsed, flag.value);
            }
        }
        levels
    }
}
