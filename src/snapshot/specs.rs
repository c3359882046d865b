//! Every spec file on its own: what it says now, and what it said when it was last good.
//!
//! Invariant: files do not influence each other here, so they are read side by side.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    thread,
};

use super::{
    DefinitionTexts, FileReport, LoadContext, LoadedPipeline, SourceFile, Sources, fixed, foresight::foresee, trial,
};
use crate::{
    catalog::Catalog,
    diagnostic::Diagnostic,
    spec::{self, Context, FlagSet, ModelDefinitions, model_definition},
};

/// From so many files on, reading is shared among the processors.
const WORTH_SHARING: usize = 16;

/// One spec file.
#[derive(Debug)]
pub(super) struct Candidate<'s> {
    /// Relative to the pipelines folder.
    pub file: String,
    /// Its contents now; empty when they cannot be read.
    pub bytes: &'s [u8],
    /// The pipeline that it defines now, if it is without errors.
    pub new: Option<Arc<LoadedPipeline>>,
    /// The pipeline that it defined when it was last good.
    pub old: Option<Arc<LoadedPipeline>>,
    /// The flags that it sets now, however broken it is otherwise.
    pub flags: Option<FlagSet>,
    /// What is wrong or doubtful.
    pub diagnostics: Vec<Diagnostic>,
}

/// What is known from the load before.
pub(super) struct Before<'s> {
    by_file: HashMap<&'s str, &'s Arc<LoadedPipeline>>,
    reports: HashMap<&'s str, &'s FileReport>,
    texts: &'s BTreeMap<String, String>,
    same_basis: bool,
    /// The definitions of now.
    definitions: Arc<DefinitionTexts>,
}

impl<'s> Before<'s> {
    pub(super) fn new(context: &'s LoadContext, basis: &[u8; 32], definitions: DefinitionTexts) -> Self {
        let mut before = Self {
            by_file: HashMap::new(),
            reports: HashMap::new(),
            texts: &context.last_good,
            same_basis: false,
            definitions: Arc::new(definitions),
        };
        if let Some(snapshot) = &context.previous {
            before.by_file = snapshot.pipelines.values().map(|loaded| (loaded.file.as_str(), loaded)).collect();
            before.reports = snapshot.files.iter().map(|report| (report.file.as_str(), report)).collect();
            before.same_basis = snapshot.basis == *basis;
        }
        before
    }

    fn unchanged(&self, file: &str, bytes: &[u8]) -> Option<(&'s Arc<LoadedPipeline>, &'s FileReport)> {
        let loaded = self.by_file.get(file).filter(|loaded| !loaded.stale && loaded.text.as_bytes() == bytes)?;
        let report = self.reports.get(file).filter(|report| report.valid)?;
        self.same_basis.then_some((*loaded, *report))
    }
}

/// Reads every spec. `check` is what they are checked against.
pub(super) fn read_all<'s>(
    sources: &'s Sources,
    context: &'s LoadContext,
    check: &Context<'_>,
    before: &Before<'s>,
) -> Vec<Candidate<'s>> {
    let files: Vec<(&String, &Vec<u8>)> = sources.specs.iter().collect();
    let workers = thread::available_parallelism().map_or(1, usize::from).min(8);
    let mut candidates: Vec<Candidate<'s>> = if workers == 1 || files.len() < WORTH_SHARING {
        files.iter().map(|(file, bytes)| read_one(file, bytes, context, check, before)).collect()
    } else {
        let read_some = |some: &[(&'s String, &'s Vec<u8>)]| -> Vec<Candidate<'s>> {
            some.iter().map(|(file, bytes)| read_one(file, bytes, context, check, before)).collect()
        };
        thread::scope(|scope| {
            let shares: Vec<_> = files
                .chunks(files.len().div_ceil(workers))
                .map(|share| scope.spawn(move || read_some(share)))
                .collect();
            // A reader that panicked must not look like files that were removed.
            let joined = shares.into_iter().map(|share| match share.join() {
                Ok(candidates) => candidates,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            joined.flatten().collect()
        })
    };
    candidates.extend(unreadable(sources, context, check, before));
    candidates.sort_by(|a, b| a.file.cmp(&b.file));
    candidates
}

fn read_one<'s>(
    file: &str,
    bytes: &'s [u8],
    context: &LoadContext,
    check: &Context<'_>,
    before: &Before<'s>,
) -> Candidate<'s> {
    if let Some((loaded, report)) = before.unchanged(file, bytes) {
        return Candidate {
            file: file.to_owned(),
            bytes,
            new: Some(Arc::clone(loaded)),
            old: Some(Arc::clone(loaded)),
            flags: Some(loaded.pipeline.flags.clone()),
            diagnostics: report.diagnostics.clone(),
        };
    }
    let (new, flags, diagnostics) = read_text(file, bytes, context, check, before);
    let old = last_good(file, bytes, new.as_ref(), check, before);
    Candidate { file: file.to_owned(), bytes, new, old, flags, diagnostics }
}

type ReadText = (Option<Arc<LoadedPipeline>>, Option<FlagSet>, Vec<Diagnostic>);

/// Reads a spec and runs its tests.
fn read_text(file: &str, bytes: &[u8], context: &LoadContext, check: &Context<'_>, before: &Before<'_>) -> ReadText {
    let read = spec::read(file, bytes, check);
    let mut diagnostics = read.diagnostics;
    let Some(pipeline) = read.pipeline else {
        return (None, spec::salvage_flags(file, bytes, &context.providers), diagnostics);
    };
    diagnostics.extend(foresee(file, bytes, &pipeline, check.catalog));
    if diagnostics.iter().any(Diagnostic::is_error) {
        return (None, Some(pipeline.flags), diagnostics);
    }
    let text = String::from_utf8_lossy(bytes);
    let swapped = fixed::check(&pipeline, &context.begun, file, text.strip_prefix('\u{feff}').unwrap_or(&text));
    if !swapped.is_empty() {
        diagnostics.extend(swapped);
        return (None, Some(pipeline.flags), diagnostics);
    }
    let failed = trial::run(&pipeline, &context.providers, file, text.strip_prefix('\u{feff}').unwrap_or(&text));
    let flags = Some(pipeline.flags.clone());
    if !failed.is_empty() {
        diagnostics.extend(failed);
        return (None, flags, diagnostics);
    }
    (Some(Arc::new(loaded(file, pipeline, &text, &before.definitions))), flags, diagnostics)
}

fn loaded(file: &str, pipeline: spec::Pipeline, text: &str, definitions: &Arc<DefinitionTexts>) -> LoadedPipeline {
    let definitions = Arc::clone(definitions);
    LoadedPipeline { pipeline, file: file.to_owned(), text: Arc::from(text), stale: false, definitions }
}

/// What a file defined when it was last good: in the snapshot before, or, after a restart, in the text that was kept.
fn last_good(
    file: &str,
    bytes: &[u8],
    new: Option<&Arc<LoadedPipeline>>,
    check: &Context<'_>,
    before: &Before<'_>,
) -> Option<Arc<LoadedPipeline>> {
    if let Some(old) = before.by_file.get(file) {
        return Some(Arc::clone(old));
    }
    let text = before.texts.get(file)?;
    match new {
        Some(new) if text.as_bytes() == bytes => Some(Arc::clone(new)),
        _ => read_kept(file, text, check, before),
    }
}

/// Where the model definitions are kept that a last good version needs and that are no longer so.
pub(super) fn definitions_key(file: &str) -> String {
    format!("/with/{file}")
}

/// Reads a text that was good once, with the definitions that it was good with. Its tests passed then; what the catalogue
/// has come to say of its models is no reason to take it away.
pub(super) fn read_kept(
    file: &str,
    text: &str,
    check: &Context<'_>,
    before: &Before<'_>,
) -> Option<Arc<LoadedPipeline>> {
    let kept: BTreeMap<String, String> =
        before.texts.get(&definitions_key(file)).and_then(|kept| serde_json::from_str(kept).ok()).unwrap_or_default();
    let mut models: ModelDefinitions = check.models.clone();
    let mut texts = DefinitionTexts::clone(&before.definitions);
    for (stem, text) in kept {
        if let (Some(definition), _) = model_definition::read(&stem, text.as_bytes()) {
            models.insert(stem.clone(), definition);
            texts.insert(stem, Arc::from(text));
        }
    }
    let nothing = Catalog::default();
    let pipeline = [check.catalog, &nothing].into_iter().find_map(|catalog| {
        spec::read(file, text.as_bytes(), &Context { models: &models, catalog, ..*check }).pipeline
    })?;
    Some(Arc::new(loaded(file, pipeline, text, &Arc::new(texts))))
}

/// The definitions that a last good version needs beside those of now: as text, by file stem.
pub(super) fn definitions_to_keep(loaded: &LoadedPipeline, now: &DefinitionTexts) -> Option<String> {
    let kept: BTreeMap<&str, &str> = loaded
        .definitions
        .iter()
        .filter(|(stem, text)| loaded.stale && now.get(*stem) != Some(*text) && loaded.text.contains(stem.as_str()))
        .map(|(stem, text)| (stem.as_str(), text.as_ref()))
        .collect();
    (!kept.is_empty()).then(|| serde_json::to_string(&kept).unwrap_or_default())
}

/// Files that are there but cannot be read, alone or with their folder.
fn unreadable<'s>(
    sources: &'s Sources,
    context: &LoadContext,
    check: &Context<'_>,
    before: &Before<'s>,
) -> Vec<Candidate<'s>> {
    let kept = before.by_file.keys().copied();
    let kept_texts = context.last_good.keys().map(String::as_str).filter(|_| context.previous.is_none());
    let named = sources.unreadable.keys().filter_map(|source| match source {
        SourceFile::Spec(file) => Some(file.as_str()),
        _ => None,
    });
    let mut files: Vec<&str> = kept.chain(kept_texts).chain(named).collect();
    files.sort_unstable();
    files.dedup();
    files
        .into_iter()
        .filter(|file| !file.starts_with('/') && !sources.specs.contains_key(*file))
        .filter_map(|file| {
            let problem = sources.unreadable_spec(file)?;
            Some(Candidate {
                file: file.to_owned(),
                bytes: &[],
                new: None,
                old: last_good(file, &[], None, check, before),
                flags: None,
                diagnostics: vec![problem.clone()],
            })
        })
        .collect()
}
