//! A pipeline spec: from the bytes of a YAML file to a valid [`Pipeline`], or to every problem the file has.
//!
//! Invariant: raw YAML shapes never leave this room, and a `Pipeline` cannot name a target or rollout that does not
//! exist: names became indexes on the way in. Nothing here reads files, knows the time or calls a provider.

pub mod collapse;
pub mod condition;
pub mod flags;
pub mod keys;
pub mod model_definition;
mod parameters;
pub mod pipeline;
pub mod policy;
pub mod providers;
pub mod read;
pub mod residency;
pub mod rollout;
pub mod schema;
pub mod target;

pub use flags::{Flag, FlagSet};
pub use model_definition::{ModelDefinition, ModelDefinitions};
pub use pipeline::{
    Accept, AtLimit, Budget, Confinement, Course, Destination, Gated, MissingKey, OnMissing, Pipeline, Retention,
    Retry, Rollout, RolloutIx, Rule, Sharing, SpecTest,
};
pub use providers::{Api, ProviderFacts, Providers};
pub use read::{Context, Read, is_score_name, read, read_flags, salvage_flags, salvage_name};
pub use target::{Fidelity, Form, Parameters, Residency, SystemMode, SystemPrompt, Target, TargetIx};
