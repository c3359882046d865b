//! Flags: the levers that stand above rules, rollouts and retries.
//!
//! Invariant: a flag set says true, false or nothing for each flag; nothing is not false.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::names::ProviderName;

/// One lever.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Flag {
    /// `FORCE_<NAME>_PROVIDER`: only targets of this provider, or of its family, may serve.
    Force(ProviderName),
    /// `DISABLE_FALLBACK`: only the routed target may serve.
    DisableFallback,
    /// `PAUSE`: nothing is dispatched.
    Pause,
}

impl Flag {
    /// Reads a flag's name; a `FORCE_…_PROVIDER` must name one of `providers`.
    pub fn parse<'a>(text: &str, providers: impl IntoIterator<Item = &'a ProviderName>) -> Option<Self> {
        match text {
            "DISABLE_FALLBACK" => Some(Self::DisableFallback),
            "PAUSE" => Some(Self::Pause),
            _ => {
                let name = text.strip_prefix("FORCE_")?.strip_suffix("_PROVIDER")?;
                providers.into_iter().find(|provider| provider.shouted() == name).cloned().map(Self::Force)
            }
        }
    }

    /// Every flag that can be set with these providers configured, by name.
    pub fn known<'a>(providers: impl IntoIterator<Item = &'a ProviderName>) -> Vec<Self> {
        let mut flags: Vec<Self> = providers.into_iter().cloned().map(Self::Force).collect();
        flags.extend([Self::DisableFallback, Self::Pause]);
        flags
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Force(provider) => write!(f, "FORCE_{}_PROVIDER", provider.shouted()),
            Self::DisableFallback => f.write_str("DISABLE_FALLBACK"),
            Self::Pause => f.write_str("PAUSE"),
        }
    }
}

/// What one level (runtime, environment, file, spec) says of each flag.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FlagSet(pub BTreeMap<Flag, bool>);

impl FlagSet {
    /// What this level says of `flag`.
    pub fn get(&self, flag: &Flag) -> Option<bool> {
        self.0.get(flag).copied()
    }
}

/// The level at which a flag was set, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum FlagLevel {
    /// The pipeline's own spec.
    Spec,
    /// `config/flags.yaml`.
    File,
    /// An environment variable of the daemon.
    Environment,
    /// Set at run time, kept in the store.
    Runtime,
}
