//! The whole validated set of specs, model definitions, flags file and catalogue: loaded, tested, swapped as one.
//!
//! Invariant: a snapshot is immutable and complete; an attempt works on one from start to end. Each file stands alone:
//! a broken one keeps its last good version. Reading the disk is somebody else's work: bytes come in as arguments.
//!
//! The rooms: [`load`] puts everything together; `specs` reads each file, `trial` runs its tests, `resolve` settles which
//! of two files may have a name or a model; `foresight` asks the translation what becomes of targets' own parameters; `definitions` and `flags_file` read what is not a spec; `guard` holds specs against the policy; `accept` and
//! `overlap` know which models go where; [`describe_changes`] says what differs between two snapshots.

mod accept;
mod definitions;
mod diff;
mod fixed;
mod flags_file;
mod foresight;
mod guard;
mod load;
mod missing;
mod overlap;
mod parts;
pub mod pin;
mod place;
pub mod report;
mod resolve;
mod sources;
mod specs;
#[cfg(test)]
mod tests;
mod trial;

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

use crate::{
    catalog::Catalog,
    diagnostic::Diagnostic,
    names::{PipelineName, RolloutName},
    routing::FlagLevels,
    spec::{FlagSet, Pipeline, Providers},
};

pub(crate) use accept::AcceptIndex;
pub use definitions::LoadedModel;
pub use diff::describe_changes;
pub use foresight::foresee;
pub use load::load;
pub use sources::SourceFile;

/// Everything that dispatch looks at.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Counts loads that changed anything, over restarts.
    pub generation: u64,
    /// SHA-256 over all contents, as 64 hexadecimal digits: equal on daemons that serve the same.
    pub hash: String,
    /// By name.
    pub pipelines: BTreeMap<PipelineName, Arc<LoadedPipeline>>,
    /// `config/flags.yaml` and the environment; runtime levels are empty here.
    pub flags: FlagLevels,
    /// Facts on models.
    pub catalog: Arc<Catalog>,
    /// The configured providers.
    pub providers: Arc<Providers>,
    /// Model definitions by file stem.
    pub models: BTreeMap<String, Arc<LoadedModel>>,
    /// Every file, valid or not.
    pub files: Vec<FileReport>,
    /// Which models the pipelines take.
    pub(crate) accept: AcceptIndex,
    /// Pipelines that a broken file would define, with the file.
    pub(crate) broken: BTreeMap<PipelineName, String>,
    /// Last good texts of files that are no specs, by the key under which they are kept.
    pub(crate) kept: BTreeMap<String, Arc<str>>,
    /// What specs were checked against; while it stays the same, an unchanged spec need not be read again.
    pub(crate) basis: [u8; 32],
}

/// A pipeline and where it came from.
#[derive(Debug, Clone)]
pub struct LoadedPipeline {
    /// The valid pipeline.
    pub pipeline: Pipeline,
    /// Its file, relative to the pipelines folder.
    pub file: String,
    /// The text that it was loaded from.
    pub text: Arc<str>,
    /// The file on disk is broken, or what it builds on has changed so that it cannot serve; this is its last good version.
    pub stale: bool,
    /// The model definitions that it was loaded with, by file stem.
    pub(crate) definitions: Arc<DefinitionTexts>,
}

/// Texts of model definitions by file stem.
pub(crate) type DefinitionTexts = BTreeMap<String, Arc<str>>;

/// What a load made of one file.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct FileReport {
    /// As the operator would name it: specs relative to the pipelines folder, others relative to `config`.
    pub file: String,
    /// Whether its newest contents serve.
    pub valid: bool,
    /// What is wrong or doubtful.
    pub diagnostics: Vec<Diagnostic>,
}

/// The bytes that a load works from, by path as the operator would name it (forward slashes).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// `pipelines/**/*.{yaml,yml}`, relative to the pipelines folder.
    pub specs: BTreeMap<String, Vec<u8>>,
    /// `config/models/*.json`, by file stem.
    pub models: BTreeMap<String, Vec<u8>>,
    /// `config/flags.yaml`.
    pub flags: Option<Vec<u8>>,
    /// `config/catalog.yaml`.
    pub catalog: Option<Vec<u8>>,
    /// The policy.
    pub policy: Option<Vec<u8>>,
    /// What is there but could not be read (no permission, too large, still being written), with why: such a file keeps
    /// its last good version, and is never taken for a removed one.
    pub unreadable: BTreeMap<SourceFile, Diagnostic>,
}

/// What a load is held against.
#[derive(Debug, Clone)]
pub struct LoadContext {
    /// The configured providers.
    pub providers: Arc<Providers>,
    /// Flags that the daemon's environment sets.
    pub environment: FlagSet,
    /// What an earlier load left in [`Loaded::last_good`], for the first load of a process.
    pub last_good: BTreeMap<String, String>,
    /// The snapshot in force; `None` at the first load of a process.
    pub previous: Option<Arc<Snapshot>>,
    /// The generation that an earlier life of the daemon ended with, 0 for none.
    pub generation: u64,
    /// What a broken file does to the rest.
    pub apply: Apply,
    /// Whether the removal of every spec is believed.
    pub allow_empty: bool,
    /// Lifecycles of models are judged as of this day.
    pub today: jiff::civil::Date,
    /// Specs that violate the policy serve all the same, from now on and as they are.
    pub override_policy: bool,
    /// Rollouts with steps that have begun.
    pub begun: Begun,
}

/// Rollouts with steps that have begun, with what may no longer change of them.
pub type Begun = BTreeMap<(PipelineName, RolloutName), Fixed>;

/// What decides which jobs are the candidate's: changed in the middle, it would swap them for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixed {
    /// What jobs are bucketed by.
    pub key: String,
    /// What goes into the hash before the key.
    pub salt: String,
}

/// What a broken file does to the rest of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Apply {
    /// Nothing: it alone keeps its last good version.
    #[default]
    PerFile,
    /// The whole change is rejected. Flags get through all the same.
    All,
}

/// What a load made of the files.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// To be swapped in; its reports may be new even where nothing else is.
    pub snapshot: Arc<Snapshot>,
    /// Whether anything that steers jobs changed.
    pub changed: bool,
    /// What to keep for a restart while a file is broken: the last good text of each spec by file, and of other files
    /// by keys that begin with a slash.
    pub last_good: BTreeMap<String, String>,
    /// What was let through against the policy, where that was asked for.
    pub overridden: Vec<Diagnostic>,
}

impl Snapshot {
    /// The pipeline of this name.
    pub fn pipeline(&self, name: &PipelineName) -> Option<&Arc<LoadedPipeline>> {
        self.pipelines.get(name)
    }

    /// The texts that serve, as if they stood on disk: of broken files, their last good versions.
    pub fn sources(&self) -> Sources {
        let text = |key: &str| self.kept.get(key).filter(|text| !text.is_empty()).map(|text| text.as_bytes().to_vec());
        Sources {
            specs: self
                .pipelines
                .values()
                .map(|loaded| (loaded.file.clone(), loaded.text.as_bytes().to_vec()))
                .collect(),
            models: self.models.iter().map(|(stem, model)| (stem.clone(), model.text.as_bytes().to_vec())).collect(),
            flags: text(parts::FLAGS_KEY),
            catalog: text(definitions::CATALOG_KEY),
            policy: text(guard::POLICY_KEY),
            unreadable: BTreeMap::new(),
        }
    }

    /// The pipeline that takes jobs which name `model` and no pipeline.
    pub fn accepting(&self, model: &str) -> Option<&Arc<LoadedPipeline>> {
        self.pipelines.get(self.accept.find(model)?)
    }
}
