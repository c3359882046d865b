//! The whole validated set of specs, model definitions, flags file and catalogue: loaded, tested, swapped as one.
//!
//! Invariant: a snapshot is immutable and complete; an attempt works on one from start to end. Each file stands alone:
//! a broken one keeps its last good version. Reading the disk is somebody else's work: bytes come in as arguments.

mod sources;

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

use crate::{
    catalog::Catalog,
    diagnostic::Diagnostic,
    names::PipelineName,
    routing::FlagLevels,
    spec::{Pipeline, Providers},
};

pub use sources::SourceFile;

/// Everything that dispatch looks at.
#[derive(Debug, Clone)]
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
    /// Every file, valid or not.
    pub files: Vec<FileReport>,
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
    /// The file on disk is broken; this is its last good version.
    pub stale: bool,
}

/// What a load made of one file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileReport {
    /// As the operator would name it.
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
    /// What is there but could not be read (no permission, too large, still being written), with why: such a file keeps
    /// its last good version, and is never taken for a removed one.
    pub unreadable: BTreeMap<SourceFile, Diagnostic>,
}
