//! Settings and specs read without a daemon: for `check`, `explain`, `doctor`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::exit::{Failure, Result};
use crate::{
    catalog::Catalog,
    clock::{Clock, SystemClock},
    diagnostic::Diagnostic,
    settings::{self, Settings},
    snapshot::{self, Apply, LoadContext, Snapshot, Sources},
    watch::{self, Folders, Scan},
};

/// Settings and everything that they name.
pub struct Offline {
    /// The settings.
    pub settings: Settings,
    /// What is doubtful about them.
    pub warnings: Vec<Diagnostic>,
    /// All specs, valid or not.
    pub snapshot: Arc<Snapshot>,
}

/// Reads the settings file and the environment.
///
/// # Errors
/// [`Failure`] with exit code 78 and every problem.
pub fn read_settings(config: &Path) -> Result<settings::Loaded> {
    Settings::load(config, &settings::environment(), &[]).map_err(|diagnostics| {
        let words: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
        Failure::settings(words.join("\n\n"))
    })
}

/// Loads the specs at `paths` (files or folders; the settings' folder when empty) as a daemon would at a cold start.
///
/// # Errors
/// [`Failure`] for wrong settings and paths that cannot be read.
pub fn load(config: &Path, paths: &[PathBuf]) -> Result<Offline> {
    let read = read_settings(config)?;
    let mut folders = Folders::of(&read.settings, config);
    let mut files = Vec::new();
    let mut scan: Option<Scan> = None;
    for path in paths {
        if path.is_dir() {
            folders.pipelines.clone_from(path);
            let found = watch::scan(&folders);
            match &mut scan {
                None => scan = Some(found),
                Some(scan) => {
                    let prefix = path.display();
                    scan.sources.specs.extend(
                        found.sources.specs.into_iter().map(|(name, bytes)| (format!("{prefix}/{name}"), bytes)),
                    );
                }
            }
        } else {
            let bytes = std::fs::read(path)
                .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))?;
            files.push((path.display().to_string(), bytes));
        }
    }
    let mut scan = scan.unwrap_or_else(|| watch::scan(&folders));
    if !files.is_empty() && paths.iter().all(|path| !path.is_dir()) {
        scan.sources.specs.clear();
    }
    scan.sources.specs.extend(files);
    let (_, mut warnings) = settings::environment_flags(&settings::environment(), &read.settings.provider_facts());
    warnings.extend(read.warnings);
    let snapshot = load_sources(&read.settings, &scan.sources);
    Ok(Offline { settings: read.settings, warnings, snapshot })
}

/// Loads files as a daemon would at a cold start.
pub fn load_sources(settings: &Settings, sources: &Sources) -> Arc<Snapshot> {
    let (flags, _) = settings::environment_flags(&settings::environment(), &settings.provider_facts());
    let context = LoadContext {
        providers: Arc::new(settings.provider_facts()),
        environment: flags,
        last_good: BTreeMap::new(),
        previous: None,
        generation: 0,
        apply: Apply::PerFile,
        allow_empty: true,
        today: SystemClock.now().date(),
        override_policy: false,
        begun: crate::snapshot::Begun::new(),
    };
    snapshot::load(sources, &context).snapshot
}

/// The catalogue as the daemon of these settings would have it; the built-in one where they cannot be read.
pub fn catalog(config: &Path) -> Arc<Catalog> {
    load(config, &[]).map_or_else(|_| Catalog::builtin().clone(), |offline| offline.snapshot.catalog.clone())
}
