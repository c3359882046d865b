//! Model definitions and the operator's catalogue: read again only when their bytes changed, kept when they break.

use std::{collections::BTreeMap, sync::Arc};

use super::{FileReport, LoadContext, SourceFile, Sources};
use crate::{
    catalog::Catalog,
    diagnostic::Diagnostic,
    spec::{ModelDefinition, ModelDefinitions, model_definition},
};

/// A model definition and its text.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedModel {
    /// The valid definition.
    pub definition: ModelDefinition,
    /// The text that it was loaded from.
    pub text: Arc<str>,
    /// What is doubtful about it.
    pub warnings: Vec<Diagnostic>,
}

/// Where a last good definition is kept: no spec's path begins with a slash.
pub(super) fn model_key(stem: &str) -> String {
    format!("/models/{stem}.json")
}
/// Where the last good catalogue is kept.
pub(super) const CATALOG_KEY: &str = "/catalog.yaml";
/// The catalogue's file, in reports.
const CATALOG_FILE: &str = "catalog.yaml";

/// The definitions in force.
pub(super) struct Models {
    pub loaded: BTreeMap<String, Arc<LoadedModel>>,
    pub reports: Vec<FileReport>,
}

impl Models {
    /// As specs look them up.
    pub(super) fn definitions(&self) -> ModelDefinitions {
        self.loaded.iter().map(|(stem, model)| (stem.clone(), model.definition.clone())).collect()
    }
}

/// Reads the definitions.
pub(super) fn models(sources: &Sources, context: &LoadContext) -> Models {
    let mut models = Models { loaded: BTreeMap::new(), reports: Vec::new() };
    let last_good = |stem: &str, file: &str| {
        let before = context.previous.as_ref().and_then(|snapshot| snapshot.models.get(stem)).cloned();
        before.or_else(|| {
            let text = context.last_good.get(&model_key(stem))?;
            read_model(file, text.as_bytes()).0
        })
    };
    for (stem, bytes) in &sources.models {
        let file = file_of(stem);
        let before = context.previous.as_ref().and_then(|snapshot| snapshot.models.get(stem));
        let (model, diagnostics) = match before.filter(|model| model.text.as_bytes() == bytes.as_slice()) {
            Some(same) => (Some(Arc::clone(same)), same.warnings.clone()),
            None => read_model(&file, bytes),
        };
        models.reports.push(FileReport { file: file.clone(), valid: model.is_some(), diagnostics });
        if let Some(model) = model.or_else(|| last_good(stem, &file)) {
            models.loaded.insert(stem.clone(), model);
        }
    }
    for (source, problem) in &sources.unreadable {
        let (file, stems) = match source {
            SourceFile::Model(stem) => (file_of(stem), vec![stem.clone()]),
            SourceFile::ModelFolder => ("models".to_owned(), kept_stems(context)),
            _ => continue,
        };
        models.reports.push(FileReport { file, valid: false, diagnostics: vec![problem.clone()] });
        for stem in stems {
            if let Some(model) = last_good(&stem, &file_of(&stem)) {
                models.loaded.entry(stem).or_insert(model);
            }
        }
    }
    models
}

/// Stems of all definitions that were good once.
fn kept_stems(context: &LoadContext) -> Vec<String> {
    match &context.previous {
        Some(snapshot) => snapshot.models.keys().cloned().collect(),
        None => context
            .last_good
            .keys()
            .filter_map(|key| Some(key.strip_prefix("/models/")?.strip_suffix(".json")?.to_owned()))
            .collect(),
    }
}

fn file_of(stem: &str) -> String {
    format!("models/{stem}.json")
}

fn read_model(file: &str, bytes: &[u8]) -> (Option<Arc<LoadedModel>>, Vec<Diagnostic>) {
    let (definition, diagnostics) = model_definition::read(file, bytes);
    let model = definition.map(|definition| {
        let text = Arc::from(String::from_utf8_lossy(bytes));
        Arc::new(LoadedModel { definition, text, warnings: diagnostics.clone() })
    });
    (model, diagnostics)
}

/// The catalogue in force.
pub(super) struct CatalogPart {
    pub catalog: Arc<Catalog>,
    /// The operator's text behind it; empty when there is none.
    pub text: Arc<str>,
    pub report: Option<FileReport>,
}

/// Reads the operator's catalogue over the built-in one.
pub(super) fn catalog(sources: &Sources, context: &LoadContext) -> CatalogPart {
    let report = |valid, diagnostics| Some(FileReport { file: CATALOG_FILE.to_owned(), valid, diagnostics });
    let last_good = |report| {
        if let Some(snapshot) = &context.previous {
            let text = snapshot.kept.get(CATALOG_KEY).cloned().unwrap_or_default();
            return CatalogPart { catalog: Arc::clone(&snapshot.catalog), text, report };
        }
        let text = context.last_good.get(CATALOG_KEY).map_or("", String::as_str);
        match Catalog::builtin().overlaid(CATALOG_FILE, text.as_bytes()).0 {
            Some(catalog) => CatalogPart { catalog: Arc::new(catalog), text: Arc::from(text), report },
            None => CatalogPart { catalog: Catalog::builtin(), text: Arc::from(""), report },
        }
    };
    if let Some(problem) = sources.unreadable.get(&SourceFile::Catalog) {
        return last_good(report(false, vec![problem.clone()]));
    }
    let Some(bytes) = &sources.catalog else {
        return CatalogPart { catalog: Catalog::builtin(), text: Arc::from(""), report: None };
    };
    match Catalog::builtin().overlaid(CATALOG_FILE, bytes) {
        (Some(catalog), diagnostics) => {
            // The same facts stay the same value, so that snapshots can tell that nothing changed.
            let same = context.previous.as_ref().filter(|snapshot| {
                snapshot.kept.get(CATALOG_KEY).is_some_and(|text| text.as_bytes() == bytes.as_slice())
            });
            let catalog = same.map_or_else(|| Arc::new(catalog), |snapshot| Arc::clone(&snapshot.catalog));
            let text = Arc::from(String::from_utf8_lossy(bytes));
            CatalogPart { catalog, text, report: report(true, diagnostics) }
        }
        (None, diagnostics) => last_good(report(false, diagnostics)),
    }
}
