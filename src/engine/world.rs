//! What dispatch looks at: the snapshot, the levers in force, and which pipelines are held by them.
//!
//! Invariant: a world is immutable and swapped whole; its version changes with every swap, so that work that waited can
//! tell whether it must decide again.

use std::{collections::BTreeMap, sync::Arc};

use super::rollouts::Courses;
use crate::{
    job::HoldReason,
    names::PipelineName,
    routing::{EffectiveFlags, FlagLevels, Standings},
    snapshot::{LoadedPipeline, Snapshot},
    spec::{Flag, flags::FlagLevel},
};

/// Everything that steers dispatch.
#[derive(Debug)]
pub struct World {
    /// Counts swaps in this process.
    pub version: u64,
    /// Specs, catalogue, flags file.
    pub snapshot: Arc<Snapshot>,
    /// All four levels; the runtime ones filled in.
    pub levels: FlagLevels,
    /// Pipelines under `rollback`.
    pub rolled_back: Vec<PipelineName>,
    /// How far rollouts with steps have come.
    pub courses: Arc<Courses>,
    /// By pipeline.
    lanes: BTreeMap<PipelineName, Arc<Lane>>,
}

/// A pipeline with the levers in force for it.
#[derive(Debug)]
pub struct Lane {
    /// The pipeline and its file.
    pub loaded: Arc<LoadedPipeline>,
    /// The flags in force.
    pub flags: EffectiveFlags,
    /// Where its rollouts stand.
    pub standings: Standings,
    /// Why none of its jobs may be dispatched, as far as flags say.
    pub hold: Option<HoldReason>,
}

impl World {
    /// Works out the levers for every pipeline of a snapshot.
    pub fn new(
        version: u64,
        snapshot: Arc<Snapshot>,
        levels: FlagLevels,
        rolled_back: Vec<PipelineName>,
        courses: Arc<Courses>,
    ) -> Self {
        let lanes = snapshot
            .pipelines
            .iter()
            .map(|(name, loaded)| {
                let flags =
                    EffectiveFlags::resolve(&levels, &loaded.pipeline, &snapshot.providers, rolled_back.contains(name));
                let hold = hold_by_flags(&flags);
                let standings = courses.standings(&loaded.pipeline);
                (name.clone(), Arc::new(Lane { loaded: loaded.clone(), flags, standings, hold }))
            })
            .collect();
        Self { version, snapshot, levels, rolled_back, courses, lanes }
    }

    /// The lane of a pipeline, unless no spec defines it.
    pub fn lane(&self, pipeline: &PipelineName) -> Option<&Arc<Lane>> {
        self.lanes.get(pipeline)
    }

    /// All lanes by name.
    pub fn lanes(&self) -> impl Iterator<Item = (&PipelineName, &Arc<Lane>)> {
        self.lanes.iter()
    }

    /// The same specs under other levers: what a flag change would do.
    pub fn with_levels(&self, levels: FlagLevels) -> Self {
        Self::new(self.version, self.snapshot.clone(), levels, self.rolled_back.clone(), self.courses.clone())
    }
}

impl World {
    /// Whether a flag is in force for all pipelines alike.
    pub fn active_everywhere(&self, flag: &Flag) -> bool {
        let levels = [self.levels.runtime.get(flag), self.levels.environment.get(flag), self.levels.file.get(flag)];
        match flag {
            // A true wins at any level; only a runtime false overrides it.
            Flag::Force(_) | Flag::Pause => levels[0].unwrap_or(levels[1] == Some(true) || levels[2] == Some(true)),
            Flag::DisableFallback => levels.into_iter().flatten().next().unwrap_or(false),
        }
    }
}

impl Lane {
    /// Whether a flag is in force for this pipeline alone.
    pub fn active_here(&self, flag: &Flag) -> bool {
        let source = match flag {
            Flag::Force(provider) => {
                self.flags.forced.iter().find(|(forced, _)| forced == provider).map(|(_, source)| *source)
            }
            Flag::DisableFallback => self.flags.disable_fallback,
            Flag::Pause => self.flags.pause,
        };
        source.is_some_and(|source| source.pipeline_only || source.level == FlagLevel::Spec)
    }
}

/// Why flags alone hold every job of a pipeline.
fn hold_by_flags(flags: &EffectiveFlags) -> Option<HoldReason> {
    if flags.pause.is_some() {
        Some(HoldReason::Paused)
    } else if flags.forced.len() > 1 {
        Some(HoldReason::ForcedProvidersConflict)
    } else if !flags.forced.is_empty() && !flags.permitted.contains(&true) {
        Some(HoldReason::ForcedProviderHasNoTarget)
    } else {
        None
    }
}
