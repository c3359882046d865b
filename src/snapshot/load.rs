//! From the bytes of all files to a snapshot.
//!
//! Invariant: pure, and the same bytes against the same context give the same snapshot. Whatever is wrong, a snapshot
//! comes out: what is broken keeps its last good version, and flags get through.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::{
    Apply, FileReport, LoadContext, Loaded, SourceFile, Sources,
    definitions::CATALOG_KEY,
    guard::POLICY_FILE,
    parts::{FLAGS_FILE, FOLDER, Parts},
};
use crate::diagnostic::Diagnostic;

/// Loads everything.
pub fn load(sources: &Sources, context: &LoadContext) -> Loaded {
    let mut parts = Parts::read(sources, context);
    let kept_specs = kept_specs(context);
    if all_removed(sources, &kept_specs) && !context.allow_empty {
        let specs = kept_specs.iter().map(|(file, text)| (file.clone(), text.as_bytes().to_vec())).collect();
        let refused = Sources { specs, ..sources.clone() };
        parts = Parts::read(&refused, context);
        parts.set_aside(context, sources, &HashMap::new());
        for report in parts.files.iter_mut().filter(|report| kept_specs.contains_key(&report.file)) {
            report.valid = false;
        }
        let message = format!("every spec is gone; the {} that served go on serving", kept_specs.len());
        let problem = Diagnostic::error("all-specs-removed", FOLDER, message);
        let help = "set `watch: { allow_empty: true }` in the settings to believe it";
        parts.files.push(FileReport { file: FOLDER.to_owned(), valid: false, diagnostics: vec![problem.help(help)] });
    } else if context.apply == Apply::All && parts.files.iter().any(|report| !report.valid) {
        let kept = kept_sources(context, &kept_specs, sources);
        let mut held = Parts::read(&kept, context);
        held.set_aside(context, sources, &parts.said);
        held.files = held_back(parts.files, &kept, sources);
        held.broken = parts.broken;
        parts = held;
    }
    parts.finish(context)
}

/// The texts of the specs that serve, by file.
fn kept_specs(context: &LoadContext) -> BTreeMap<String, Arc<str>> {
    match &context.previous {
        Some(snapshot) => {
            snapshot.pipelines.values().map(|loaded| (loaded.file.clone(), Arc::clone(&loaded.text))).collect()
        }
        None => context
            .last_good
            .iter()
            .filter(|(key, _)| !key.starts_with('/'))
            .map(|(file, text)| (file.clone(), Arc::from(text.as_str())))
            .collect(),
    }
}

/// Whether every spec that served is gone, and none came.
fn all_removed(sources: &Sources, kept: &BTreeMap<String, Arc<str>>) -> bool {
    sources.specs.is_empty()
        && !kept.is_empty()
        && kept.keys().all(|file| sources.unreadable_spec(file).is_none())
        && !sources.unreadable.keys().any(|source| matches!(source, SourceFile::Spec(_)))
}

/// What served before, as if it stood on disk; flags are always those of now.
fn kept_sources(context: &LoadContext, specs: &BTreeMap<String, Arc<str>>, now: &Sources) -> Sources {
    let (models, catalog) = match &context.previous {
        Some(snapshot) => (
            snapshot.models.iter().map(|(stem, model)| (stem.clone(), model.text.as_bytes().to_vec())).collect(),
            snapshot.kept.get(CATALOG_KEY).map(|text| text.as_bytes().to_vec()),
        ),
        None => (
            context
                .last_good
                .iter()
                .filter_map(|(key, text)| {
                    let stem = key.strip_prefix("/models/")?.strip_suffix(".json")?;
                    Some((stem.to_owned(), text.as_bytes().to_vec()))
                })
                .collect(),
            context.last_good.get(CATALOG_KEY).map(|text| text.as_bytes().to_vec()),
        ),
    };
    let unreadable =
        now.unreadable.iter().filter(|(source, _)| matches!(source, SourceFile::Flags | SourceFile::Policy));
    Sources {
        specs: specs.iter().map(|(file, text)| (file.clone(), text.as_bytes().to_vec())).collect(),
        models,
        flags: now.flags.clone(),
        policy: now.policy.clone(),
        catalog: catalog.filter(|text| !text.is_empty()),
        unreadable: unreadable.map(|(source, problem)| (source.clone(), problem.clone())).collect(),
    }
}

/// Reports of a change that was rejected as a whole: good files that differ from what serves say that they wait.
fn held_back(mut reports: Vec<FileReport>, kept: &Sources, now: &Sources) -> Vec<FileReport> {
    let broken: Vec<String> = reports.iter().filter(|report| !report.valid).map(|report| report.file.clone()).collect();
    let broken = broken.join(", ");
    let waits = |file: &str, what: &str| {
        let message = format!("{what} waits, because {broken} is broken and `watch.apply` is `all`");
        Diagnostic::error("held-back", file, message).help("mend it, and everything is applied at once")
    };
    for report in reports.iter_mut().filter(|report| report.valid) {
        let file = report.file.as_str();
        let same = if let Some(stem) = file.strip_prefix("models/").and_then(|name| name.strip_suffix(".json"))
            && now.models.contains_key(stem)
        {
            now.models.get(stem) == kept.models.get(stem)
        } else if file == "catalog.yaml" && !now.specs.contains_key(file) {
            now.catalog == kept.catalog
        } else if (file == FLAGS_FILE || file == POLICY_FILE) && !now.specs.contains_key(file) {
            true
        } else {
            now.specs.get(file) == kept.specs.get(file)
        };
        if !same {
            report.valid = false;
            let problem = waits(&report.file, "this version");
            report.diagnostics.push(problem);
        }
    }
    let reported: HashSet<String> = reports.iter().map(|report| report.file.clone()).collect();
    for file in kept.specs.keys().filter(|file| !reported.contains(*file)).cloned() {
        reports.push(FileReport { valid: false, diagnostics: vec![waits(&file, "its removal")], file });
    }
    reports.sort_by(|a, b| a.file.cmp(&b.file));
    reports
}
