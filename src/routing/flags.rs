//! Four levels of flags become one effective set for each pipeline.
//!
//! Rules (in order): within a level a pipeline's own value beats the one for all pipelines; the highest level that
//! says something wins; but for `FORCE_*` and `PAUSE`, true at any level wins, and only a runtime false overrides it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::{
    names::{PipelineName, ProviderName},
    spec::{FlagSet, Providers, flags::FlagLevel},
};

/// What the levels above the specs say. A spec's own flags come with its pipeline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlagLevels {
    /// `config/flags.yaml`, all pipelines.
    pub file: FlagSet,
    /// `config/flags.yaml`, by pipeline.
    pub file_by_pipeline: BTreeMap<PipelineName, FlagSet>,
    /// The daemon's environment.
    pub environment: FlagSet,
    /// Runtime, all pipelines.
    pub runtime: FlagSet,
    /// Runtime, by pipeline.
    pub runtime_by_pipeline: BTreeMap<PipelineName, FlagSet>,
}

/// Where an effective flag was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlagSource {
    /// The level.
    pub level: FlagLevel,
    /// For this pipeline alone, not for all.
    pub pipeline_only: bool,
}

/// The providers that are forced, each with its source. More than one holds the job.
pub type ForcedProviders = SmallVec<[(ProviderName, FlagSource); 1]>;

/// The flags in force for one pipeline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EffectiveFlags {
    /// Forced providers.
    pub forced: ForcedProviders,
    /// `DISABLE_FALLBACK`, where in force.
    pub disable_fallback: Option<FlagSource>,
    /// `PAUSE`, where in force.
    pub pause: Option<FlagSource>,
    /// A `rollback` is in force: every rollout serves its baseline.
    pub rolled_back: bool,
    /// For each target, by place: whether the forced provider (or its family) serves it. Empty when none is forced.
    pub permitted: Vec<bool>,
}

impl EffectiveFlags {
    /// Resolves the levels for one pipeline.
    pub fn resolve(
        _levels: &FlagLevels,
        _pipeline: &crate::spec::Pipeline,
        _providers: &Providers,
        rolled_back: bool,
    ) -> Self {
        Self { rolled_back, ..Self::default() }
    }
}
