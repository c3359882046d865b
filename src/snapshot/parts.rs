//! All files read and settled with each other, on the way to becoming a snapshot.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write,
    sync::Arc,
};

use sha2::{Digest, Sha256};

use super::{
    AcceptIndex, DefinitionTexts, FileReport, LoadContext, Loaded, LoadedModel, LoadedPipeline, Snapshot, SourceFile,
    Sources,
    definitions::{self, CATALOG_KEY, model_key},
    flags_file::{self, FileFlags},
    guard::{self, LetThrough, POLICY_KEY},
    resolve::{Served, Stand, resolve, standing},
    specs::{self, Before, Candidate, definitions_key},
};
use crate::{
    catalog::Catalog,
    diagnostic::Diagnostic,
    names::{PipelineName, ProviderName, Region},
    routing::FlagLevels,
    spec::{Context, FlagSet, ModelDefinitions, salvage_name},
};

/// Where the last good flags are kept.
pub(super) const FLAGS_KEY: &str = "/flags.yaml";
/// The flags file, in reports.
pub(super) const FLAGS_FILE: &str = "flags.yaml";
/// The pipelines folder, in reports.
pub(super) const FOLDER: &str = "pipelines";

/// Everything read, before it becomes a snapshot.
pub(super) struct Parts {
    pipelines: BTreeMap<PipelineName, Arc<LoadedPipeline>>,
    models: BTreeMap<String, Arc<LoadedModel>>,
    catalog: Arc<Catalog>,
    catalog_text: Arc<str>,
    flags: FileFlags,
    pub files: Vec<FileReport>,
    pub broken: BTreeMap<PipelineName, String>,
    /// The flags that each spec file sets now.
    pub said: HashMap<String, FlagSet>,
    basis: [u8; 32],
    policy_text: String,
    through: LetThrough,
}

impl Parts {
    /// Reads everything, file by file.
    pub(super) fn read(sources: &Sources, context: &LoadContext) -> Self {
        let models = definitions::models(sources, context);
        let catalog = definitions::catalog(sources, context);
        let basis = basis(context, &models.loaded, &catalog.text);
        let definitions: ModelDefinitions = models.definitions();
        let check = Context {
            providers: &context.providers,
            models: &definitions,
            catalog: &catalog.catalog,
            today: context.today,
        };
        let before = Before::new(context, &basis, texts(&models.loaded));
        let mut candidates = specs::read_all(sources, context, &check, &before);
        let policy = guard::policy(sources, context);
        let through = guard::hold(&mut candidates, &policy.policy, context);
        adopt(&mut candidates, context, &check, &before);
        let served = served(&candidates, context);
        let stands = resolve(&mut candidates, &served);

        let mut parts = Self {
            pipelines: BTreeMap::new(),
            models: models.loaded,
            catalog: catalog.catalog,
            catalog_text: catalog.text,
            flags: FileFlags::default(),
            files: Vec::with_capacity(candidates.len() + models.reports.len() + 2),
            broken: BTreeMap::new(),
            said: HashMap::new(),
            basis,
            policy_text: policy.text,
            through,
        };
        for (candidate, stand) in candidates.into_iter().zip(stands) {
            parts.take(candidate, stand);
        }
        parts.report_folders(sources);
        parts.files.extend(models.reports);
        parts.files.extend(catalog.report);
        parts.files.extend(policy.report);
        parts.read_flags(sources, context);
        parts
    }

    fn take(&mut self, mut candidate: Candidate<'_>, stand: Stand) {
        candidate.diagnostics.sort_by_key(|found| found.position.map(|at| (at.line, at.column)));
        if let Some(loaded) = standing(&candidate, stand) {
            let loaded = match stand {
                Stand::Old => stale(loaded, &candidate.file, candidate.flags.as_ref()),
                Stand::New | Stand::Nothing => Arc::clone(loaded),
            };
            self.pipelines.insert(loaded.pipeline.name.clone(), loaded);
        } else {
            let name = match &candidate.new {
                Some(new) => Some(new.pipeline.name.clone()),
                None => salvage_name(&candidate.file, candidate.bytes),
            };
            if let Some(name) = name {
                self.broken.entry(name).or_insert_with(|| candidate.file.clone());
            }
        }
        if let Some(flags) = candidate.flags {
            self.said.insert(candidate.file.clone(), flags);
        }
        self.files.push(FileReport {
            file: candidate.file,
            valid: stand == Stand::New,
            diagnostics: candidate.diagnostics,
        });
    }

    fn report_folders(&mut self, sources: &Sources) {
        for (source, problem) in &sources.unreadable {
            if let SourceFile::SpecFolder(folder) = source {
                let file = if folder.is_empty() { FOLDER.to_owned() } else { folder.clone() };
                self.files.push(FileReport { file, valid: false, diagnostics: vec![problem.clone()] });
            }
        }
    }

    fn read_flags(&mut self, sources: &Sources, context: &LoadContext) {
        let last_good = if let Some(snapshot) = &context.previous {
            FileFlags { all: snapshot.flags.file.clone(), by_pipeline: snapshot.flags.file_by_pipeline.clone() }
        } else {
            let text = context.last_good.get(FLAGS_KEY).map_or("", String::as_str);
            flags_file::read(FLAGS_FILE, text.as_bytes(), &FileFlags::default(), &context.providers).0
        };
        if let Some(problem) = sources.unreadable.get(&SourceFile::Flags) {
            self.flags = last_good;
            let diagnostics = vec![problem.clone()];
            self.files.push(FileReport { file: FLAGS_FILE.to_owned(), valid: false, diagnostics });
            return;
        }
        let Some(bytes) = &sources.flags else { return };
        let (flags, mut diagnostics) = flags_file::read(FLAGS_FILE, bytes, &last_good, &context.providers);
        let valid = !diagnostics.iter().any(Diagnostic::is_error);
        let known = self.pipelines.keys().chain(self.broken.keys()).map(PipelineName::as_str);
        diagnostics.extend(flags_file::warn_of_strangers(&flags, FLAGS_FILE, bytes, known));
        self.flags = flags;
        self.files.push(FileReport { file: FLAGS_FILE.to_owned(), valid, diagnostics });
    }

    /// Marks pipelines whose text is not that of the disk, and lays the flags that files set now over their own.
    pub(super) fn set_aside(&mut self, context: &LoadContext, now: &Sources, said: &HashMap<String, FlagSet>) {
        for loaded in self.pipelines.values_mut() {
            let before = context.previous.as_ref().and_then(|snapshot| snapshot.pipelines.get(&loaded.pipeline.name));
            let is_stale = now.specs.get(&loaded.file).is_none_or(|bytes| bytes != loaded.text.as_bytes());
            let mut flags = match before.filter(|before| is_stale && before.text == loaded.text) {
                Some(before) => before.pipeline.flags.clone(),
                None => loaded.pipeline.flags.clone(),
            };
            if let Some(said) = said.get(&loaded.file) {
                flags.0.extend(said.0.iter().map(|(flag, value)| (flag.clone(), *value)));
            }
            if loaded.stale != is_stale || loaded.pipeline.flags != flags {
                let mut changed = LoadedPipeline::clone(loaded);
                changed.stale = is_stale;
                changed.pipeline.flags = flags;
                *loaded = Arc::new(changed);
            }
        }
    }

    /// The snapshot, and what to keep of it.
    pub(super) fn finish(self, context: &LoadContext) -> Loaded {
        let flags_text: Arc<str> = Arc::from(self.flags.to_text());
        let hash = self.hash(context, &flags_text);
        let mut last_good: BTreeMap<String, String> =
            self.pipelines.values().map(|loaded| (loaded.file.clone(), loaded.text.to_string())).collect();
        let definitions = texts(&self.models);
        last_good.extend(self.pipelines.values().filter_map(|loaded| {
            Some((definitions_key(&loaded.file), specs::definitions_to_keep(loaded, &definitions)?))
        }));
        last_good.extend(self.models.iter().map(|(stem, model)| (model_key(stem), model.text.to_string())));
        last_good.insert(CATALOG_KEY.to_owned(), self.catalog_text.to_string());
        last_good.insert(FLAGS_KEY.to_owned(), flags_text.to_string());
        last_good.insert(POLICY_KEY.to_owned(), self.policy_text.clone());
        last_good.extend(self.through.kept);

        let changed = match &context.previous {
            Some(snapshot) => snapshot.hash != hash,
            None => context.generation == 0 || !same_contents(&last_good, &context.last_good),
        };
        let before = context.previous.as_ref().map_or(context.generation, |snapshot| snapshot.generation);
        let snapshot = Snapshot {
            generation: before + u64::from(changed),
            hash,
            accept: AcceptIndex::of(&self.pipelines),
            pipelines: self.pipelines,
            flags: FlagLevels {
                file: self.flags.all,
                file_by_pipeline: self.flags.by_pipeline,
                environment: context.environment.clone(),
                ..FlagLevels::default()
            },
            catalog: self.catalog,
            providers: Arc::clone(&context.providers),
            models: self.models,
            files: self.files,
            broken: self.broken,
            kept: [
                (CATALOG_KEY.to_owned(), self.catalog_text),
                (FLAGS_KEY.to_owned(), flags_text),
                (POLICY_KEY.to_owned(), Arc::from(self.policy_text)),
            ]
            .into(),
            basis: self.basis,
        };
        Loaded { snapshot: Arc::new(snapshot), changed, last_good, overridden: self.through.overridden }
    }

    /// Over everything that steers jobs; not over the names of files.
    fn hash(&self, context: &LoadContext, flags_text: &str) -> String {
        let mut hash = Sha256::new();
        let mut put = |part: &str| {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        };
        put(&facts_of_providers(context));
        for (name, loaded) in &self.pipelines {
            put("pipeline");
            put(name.as_str());
            put(&loaded.text);
            put(&flags_of(&loaded.pipeline.flags));
        }
        for (stem, model) in &self.models {
            put("model");
            put(stem);
            put(&model.text);
        }
        put("catalog");
        put(&self.catalog_text);
        put("flags");
        put(flags_text);
        put(&flags_of(&context.environment));
        if !self.policy_text.is_empty() {
            put("policy");
            put(&self.policy_text);
        }
        hash.finalize().iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// A last good version, under the flags that its broken file sets now.
fn stale(old: &Arc<LoadedPipeline>, file: &str, flags: Option<&FlagSet>) -> Arc<LoadedPipeline> {
    let mut pipeline_flags = old.pipeline.flags.clone();
    pipeline_flags
        .0
        .extend(flags.into_iter().flat_map(|flags| flags.0.iter().map(|(flag, value)| (flag.clone(), *value))));
    if old.stale && old.file == file && old.pipeline.flags == pipeline_flags {
        return Arc::clone(old);
    }
    let mut kept = LoadedPipeline::clone(old);
    kept.stale = true;
    file.clone_into(&mut kept.file);
    kept.pipeline.flags = pipeline_flags;
    Arc::new(kept)
}

/// A broken file that has no last good version of its own, but names a pipeline whose file is gone, was moved: it takes
/// that version over.
fn adopt(candidates: &mut [Candidate<'_>], context: &LoadContext, check: &Context<'_>, before: &Before<'_>) {
    if !candidates.iter().any(|candidate| candidate.new.is_none() && candidate.old.is_none()) {
        return;
    }
    let here: HashSet<&str> = candidates.iter().map(|candidate| candidate.file.as_str()).collect();
    let mut gone: HashMap<PipelineName, Arc<LoadedPipeline>> = match &context.previous {
        Some(snapshot) => {
            let gone = snapshot.pipelines.iter().filter(|(_, loaded)| !here.contains(loaded.file.as_str()));
            gone.map(|(name, loaded)| (name.clone(), Arc::clone(loaded))).collect()
        }
        None => context
            .last_good
            .iter()
            .filter(|(file, _)| !file.starts_with('/') && !here.contains(file.as_str()))
            .filter_map(|(file, text)| specs::read_kept(file, text, check, before))
            .map(|loaded| (loaded.pipeline.name.clone(), loaded))
            .collect(),
    };
    for new in candidates.iter().filter_map(|candidate| candidate.new.as_ref()) {
        gone.remove(&new.pipeline.name);
    }
    for candidate in candidates.iter_mut().filter(|candidate| candidate.new.is_none() && candidate.old.is_none()) {
        if let Some(name) = salvage_name(&candidate.file, candidate.bytes) {
            candidate.old = gone.remove(&name);
        }
    }
}

/// What serves, by name: the snapshot before, or, after a restart, the last good versions.
fn served(candidates: &[Candidate<'_>], context: &LoadContext) -> Served {
    let Some(snapshot) = &context.previous else {
        let old = candidates.iter().filter_map(|candidate| candidate.old.as_ref());
        return old.map(|old| (old.pipeline.name.clone(), Arc::clone(old))).collect();
    };
    snapshot.pipelines.iter().map(|(name, loaded)| (name.clone(), Arc::clone(loaded))).collect()
}

/// The texts of definitions.
fn texts(models: &BTreeMap<String, Arc<LoadedModel>>) -> DefinitionTexts {
    models.iter().map(|(stem, model)| (stem.clone(), Arc::clone(&model.text))).collect()
}

/// Whether a restart found what the life before left.
fn same_contents(new: &BTreeMap<String, String>, kept: &BTreeMap<String, String>) -> bool {
    let text = |key: &String| kept.get(key).map_or("", String::as_str);
    new.iter().all(|(key, contents)| text(key) == contents)
        && kept.keys().filter(|key| !key.starts_with('/')).all(|file| new.contains_key(file))
}

/// What specs are checked against, as one value.
fn basis(context: &LoadContext, models: &BTreeMap<String, Arc<LoadedModel>>, catalog: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut put = |part: &str| {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    };
    put(&facts_of_providers(context));
    for (stem, model) in models {
        put(stem);
        put(&model.text);
    }
    put(catalog);
    put(&context.today.to_string());
    hash.finalize().into()
}

fn facts_of_providers(context: &LoadContext) -> String {
    let mut text = String::new();
    for (name, facts) in context.providers.iter() {
        let family = facts.family.as_ref().map_or("", ProviderName::as_str);
        let region = facts.region.as_ref().map_or("", Region::as_str);
        let data: Vec<&str> = facts.data_regions.iter().map(Region::as_str).collect();
        let _ = writeln!(text, "{name} {} {family}/{region}/{}", facts.api, data.join(","));
    }
    text
}

fn flags_of(flags: &FlagSet) -> String {
    flags.0.iter().fold(String::new(), |mut text, (flag, value)| {
        let _ = writeln!(text, "{flag}={value}");
        text
    })
}
