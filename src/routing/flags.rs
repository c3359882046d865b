//! Four levels of flags become one effective set for each pipeline.
//!
//! Rules (in order): within a level a pipeline's own value beats the one for all pipelines; the highest level that
//! says something wins; but for `FORCE_*` and `PAUSE`, true at any level wins, and only a runtime false overrides it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::{
    names::{PipelineName, ProviderName},
    spec::{Flag, FlagSet, Pipeline, Providers, Target, flags::FlagLevel},
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
    pub fn resolve(levels: &FlagLevels, pipeline: &Pipeline, providers: &Providers, rolled_back: bool) -> Self {
        let said = Said::of(levels, pipeline);
        let forced: ForcedProviders = said
            .flags()
            .filter_map(|flag| match flag {
                Flag::Force(provider) => said.kill_switch(flag).map(|source| (provider.clone(), source)),
                Flag::DisableFallback | Flag::Pause => None,
            })
            .collect();
        let permitted = if forced.is_empty() {
            Vec::new()
        } else {
            let serves = |target: &Target| forced.iter().all(|(name, _)| is_of(&target.provider, name, providers));
            pipeline.targets.iter().map(|target| serves(target)).collect()
        };
        Self {
            forced,
            disable_fallback: said.ordinary(&Flag::DisableFallback),
            pause: said.kill_switch(&Flag::Pause),
            rolled_back,
            permitted,
        }
    }

    /// Whether a forced provider takes the choice away from rules and rollouts, or a rollback does.
    pub fn overrides_rollouts(&self) -> bool {
        self.rolled_back || !self.forced.is_empty()
    }
}

/// Whether `provider` is the forced one or lists it as its family. The wire protocol says nothing here: OpenAI's models
/// on Bedrock speak OpenAI's protocol and are still not OpenAI.
pub fn is_of(provider: &ProviderName, forced: &ProviderName, providers: &Providers) -> bool {
    provider == forced || providers.get(provider).and_then(|facts| facts.family.as_ref()) == Some(forced)
}

/// All that is said about one pipeline, strongest level first. A set for the pipeline alone comes before the one for
/// all at its level.
struct Said<'a>(SmallVec<[(FlagSource, &'a FlagSet); 6]>);

impl<'a> Said<'a> {
    fn of(levels: &'a FlagLevels, pipeline: &'a Pipeline) -> Self {
        let source = |level, pipeline_only| FlagSource { level, pipeline_only };
        let sets = [
            (source(FlagLevel::Runtime, true), levels.runtime_by_pipeline.get(&pipeline.name)),
            (source(FlagLevel::Runtime, false), Some(&levels.runtime)),
            (source(FlagLevel::Environment, false), Some(&levels.environment)),
            (source(FlagLevel::File, true), levels.file_by_pipeline.get(&pipeline.name)),
            (source(FlagLevel::File, false), Some(&levels.file)),
            (source(FlagLevel::Spec, true), Some(&pipeline.flags)),
        ];
        Self(sets.into_iter().filter_map(|(source, set)| set.map(|set| (source, set))).collect())
    }

    /// Every flag that some level mentions. A forced provider that is no longer configured is among them: a kill switch
    /// does not lapse because its provider's settings went away.
    fn flags(&self) -> impl Iterator<Item = &'a Flag> {
        self.0.iter().flat_map(|(_, set)| set.0.keys()).collect::<BTreeSet<_>>().into_iter()
    }

    /// What each level says of `flag`, strongest first, one answer a level.
    fn by_level(&self, flag: &Flag) -> impl Iterator<Item = (FlagSource, bool)> {
        let mut last = None;
        self.0
            .iter()
            .filter_map(|(source, set)| set.get(flag).map(|value| (*source, value)))
            .filter(move |(source, _)| last.replace(source.level) != Some(source.level))
    }

    /// `DISABLE_FALLBACK`: the highest level that says something wins.
    fn ordinary(&self, flag: &Flag) -> Option<FlagSource> {
        self.by_level(flag).next().filter(|(_, value)| *value).map(|(source, _)| source)
    }

    /// `FORCE_*` and `PAUSE`: true at any level wins, and only a runtime false overrides it.
    fn kill_switch(&self, flag: &Flag) -> Option<FlagSource> {
        let overridden =
            self.by_level(flag).next().is_some_and(|(source, value)| source.level == FlagLevel::Runtime && !value);
        if overridden {
            return None;
        }
        self.by_level(flag).find(|(_, value)| *value).map(|(source, _)| source)
    }
}

#[cfg(test)]
mod tests;
