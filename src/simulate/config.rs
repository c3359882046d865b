//! What can be set at the start and changed at run time.
//!
//! Invariant: what `GET /_simulate/config` shows is what `PUT` takes; unknown keys are refused.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::model::{BehaviourConfig, FaultRule, Latency, Quota, Scoped};
use crate::clock::{format_span, parse_span};

/// Which models the endpoints know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ModelPolicy {
    /// Those of the catalogue, as long as they live, with what each refuses. While the catalogue is empty, any.
    #[default]
    Catalogue,
    /// Any name is a model without peculiarities.
    Any,
}

/// Settings of running simulated endpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimulationConfig {
    /// Where chance starts.
    pub seed: u64,
    /// How much refill a bucket of a minute holds, such as `1s`.
    #[serde(serialize_with = "write_span", deserialize_with = "read_span")]
    pub burst: Duration,
    /// `SCOPE=LATENCY`; the last that covers a call holds.
    pub latency: Vec<Scoped<Latency>>,
    /// `SCOPE=QUOTA`; the last that covers a call holds.
    pub quotas: Vec<Scoped<Quota>>,
    /// `SCOPE=FAULT`; the first that strikes holds.
    pub faults: Vec<Scoped<FaultRule>>,
    /// Which models there are.
    pub models: ModelPolicy,
    /// Whether calls without credentials are refused. Any credentials do.
    pub require_auth: bool,
    /// Calls kept in the journal; 0 for none.
    pub journal: usize,
}

/// Calls kept in the journal when nobody says how many.
pub(super) const DEFAULT_JOURNAL: usize = 10_000;

/// Calls kept in the journal at most: some 300 bytes each.
pub(super) const LARGEST_JOURNAL: usize = 1_000_000;

/// Rules of one kind at most: each is looked at for every call.
const MOST_RULES: usize = 1_000;

impl Default for SimulationConfig {
    fn default() -> Self {
        let BehaviourConfig { seed, burst, latency, quotas, faults } = BehaviourConfig::default();
        Self {
            seed,
            burst,
            latency,
            quotas,
            faults,
            models: ModelPolicy::default(),
            require_auth: false,
            journal: DEFAULT_JOURNAL,
        }
    }
}

impl SimulationConfig {
    /// The part that the model of behaviour works with.
    pub(super) fn behaviour(&self) -> BehaviourConfig {
        BehaviourConfig {
            seed: self.seed,
            burst: self.burst,
            latency: self.latency.clone(),
            quotas: self.quotas.clone(),
            faults: self.faults.clone(),
        }
    }

    /// Why these settings cannot be used, if so.
    pub(super) fn problem(&self) -> Option<String> {
        let most = self.latency.len().max(self.quotas.len()).max(self.faults.len());
        if most > MOST_RULES {
            Some(format!("there are at most {MOST_RULES} rules of a kind, not {most}"))
        } else if self.journal > LARGEST_JOURNAL {
            Some(format!("`journal` keeps at most {LARGEST_JOURNAL} calls, not {}", self.journal))
        } else {
            None
        }
    }
}

fn write_span<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format_span(*span))
}

fn read_span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    parse_span(&text).map_err(D::Error::custom)
}
