//! From files at rest to a snapshot in force: one way for the first load, the watcher, SIGHUP and the API.
//!
//! Invariant: reloads come one after another. A snapshot takes effect before it is written down, so that a kill switch
//! in a file works even while the store does not; what is written down is the last good text of every spec, for a
//! restart while a file is broken.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use serde::Serialize;
use serde_json::json;

use super::{
    Engine, generations,
    pins::{pin_change, pinned},
    rollouts::Courses,
};
use crate::{
    clock::Timestamp,
    diagnostic::Diagnostic,
    metrics::{Metrics, ReloadResult, ReloadTrigger},
    settings::{self, ApplyMode, Environment, Override, Settings},
    snapshot::{self, Apply, FileReport, LoadContext, Loaded, Snapshot, Sources, pin::Pin},
    spec::FlagSet,
    store::{AuditEntry, DocumentChange, DocumentKind, Store, StoreError},
    watch::{self, Folders, Scan},
};

/// The counter under which the store keeps the generation.
const GENERATION: &str = "generation";

/// What a reload did, for those who asked for it.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct ReloadReport {
    /// The generation now in force.
    pub generation: u64,
    /// Whether anything changed.
    pub changed: bool,
    /// Every file.
    pub files: Vec<FileReport>,
    /// Keys of the settings file that changed and take effect at the next start.
    pub needs_restart: Vec<&'static str>,
}

impl ReloadReport {
    /// Whether every file was valid.
    pub fn is_clean(&self) -> bool {
        self.files.iter().all(|file| file.valid)
    }
}

/// Who puts files in force by hand, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// A key's name, or `local`.
    pub actor: String,
    /// In the operator's words.
    pub reason: Option<String>,
}

/// What somebody asked of a reload.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Who; nobody where a file was saved.
    pub by: Option<Actor>,
    /// What violates the policy serves all the same.
    pub against_policy: bool,
    /// For the audit.
    pub action: &'static str,
}

/// Who acts where nobody does.
pub(super) const OURS: &str = "landbridge";

/// A problem on one line.
fn in_a_line(problem: &Diagnostic) -> String {
    match problem.position {
        Some(at) => format!("{}:{}:{}: {}", problem.file, at.line, at.column, problem.message),
        None => format!("{}: {}", problem.file, problem.message),
    }
}

/// Where files and environment come from.
#[derive(Debug, Clone)]
pub struct Origin {
    /// What is watched.
    pub folders: Folders,
    /// The settings file.
    pub settings_file: PathBuf,
    /// The environment at the start.
    pub environment: Environment,
    /// The flags that it sets.
    pub flags: FlagSet,
    /// Settings given on the command line.
    pub overrides: Vec<Override>,
}

/// What the first load gives.
pub struct FirstLoad {
    /// To start with.
    pub snapshot: Arc<Snapshot>,
    /// What it was made from.
    pub scan: Scan,
    /// The last good texts, as the store has them now.
    pub kept: BTreeMap<String, String>,
    /// What holds files at an earlier version.
    pub pin: Option<Pin>,
}

/// Loads the first snapshot, with the last good versions that an earlier life left in the store.
///
/// # Errors
/// [`StoreError`] when they cannot be read.
pub async fn first_load(
    store: &Arc<dyn Store>,
    settings: &Settings,
    origin: &Origin,
    metrics: &Metrics,
    now: Timestamp,
) -> Result<FirstLoad, StoreError> {
    let started = Instant::now();
    let last_good = last_good_specs(store).await?;
    let generation =
        store.documents(DocumentKind::Counter).await?.get(GENERATION).and_then(serde_json::Value::as_u64).unwrap_or(0);
    let scan = watch::settled_scan(&origin.folders, settings.watch.quiet).await;
    let mut pin = pinned(store).await?;
    let mut changes = Vec::new();
    let mut pinned = scan.clone();
    if let Some(held) = &mut pin
        && !held.lay_over(&mut pinned.sources).is_empty()
    {
        changes.push(pin_change(Some(&*held).filter(|held| !held.files.is_empty())));
    }
    let pin = pin.filter(|held| !held.files.is_empty());
    let begun = Courses::read(store).await?.begun();
    let previous = (Previous::Generation(generation), begun);
    let loaded = load(&pinned, settings, origin, last_good.clone(), previous, now, false).await;
    metrics.reloaded(ReloadTrigger::Start, result_of(&loaded.snapshot.files, true), started.elapsed(), now);
    report_faults(&loaded.snapshot.files);
    changes.extend(specs_to_write(&last_good, &loaded));
    if loaded.changed || generations::one(store, loaded.snapshot.generation).await?.is_none() {
        let words = vec!["in force at the start of a daemon".to_owned()];
        changes.extend(generations::to_write(&loaded.snapshot, None, (now, OURS, None), words));
    }
    store.apply(changes, None).await?;
    Ok(FirstLoad { snapshot: loaded.snapshot, scan, kept: loaded.last_good, pin })
}

/// Reloads while the daemon runs.
pub struct Reloader {
    pub(super) engine: Arc<Engine>,
    pub(super) origin: Origin,
    settings: Mutex<Settings>,
    /// The last good texts, as the store has them. Held through a reload, so that reloads come one after another.
    pub(super) kept: tokio::sync::Mutex<BTreeMap<String, String>>,
    /// What holds files at an earlier version; changed only while `kept` is held.
    pub(super) pin: Mutex<Option<Pin>>,
}

impl Reloader {
    /// For an engine that runs with `settings`.
    pub fn new(
        engine: Arc<Engine>,
        origin: Origin,
        settings: Settings,
        kept: BTreeMap<String, String>,
        pin: Option<Pin>,
    ) -> Self {
        engine.install_quotas(&settings);
        engine.batches.install_limits(settings.batches);
        engine.install_callbacks(settings.callbacks.as_ref());
        let (settings, kept, pin) = (Mutex::new(settings), tokio::sync::Mutex::new(kept), Mutex::new(pin));
        Self { engine, origin, settings, kept, pin }
    }

    /// The settings in force.
    pub fn settings(&self) -> Settings {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the folders now, waits until they are at rest, and puts what they hold in force.
    pub async fn reload(&self, trigger: ReloadTrigger) -> ReloadReport {
        let scan = watch::settled_scan(&self.origin.folders, self.settings().watch.quiet).await;
        self.apply(scan, trigger).await
    }

    /// The same, because somebody asked for it.
    pub async fn reload_for(&self, by: Actor) -> ReloadReport {
        let scan = watch::settled_scan(&self.origin.folders, self.settings().watch.quiet).await;
        let mut kept = self.kept.lock().await;
        let asked = Asked { by: Some(by), against_policy: false, action: "reload" };
        self.put_in_force(&mut kept, scan, ReloadTrigger::Api, asked).await
    }

    /// The same, against the policy: what violates it serves from now on, as it stands now.
    pub async fn reload_against_policy(&self, by: Actor) -> ReloadReport {
        let scan = watch::settled_scan(&self.origin.folders, self.settings().watch.quiet).await;
        let mut kept = self.kept.lock().await;
        let asked = Asked { by: Some(by), against_policy: true, action: "reload.override" };
        self.put_in_force(&mut kept, scan, ReloadTrigger::Api, asked).await
    }

    /// What these files would make of the snapshot in force, if they stood on disk. Nothing is changed.
    pub async fn foresee(&self, sources: Sources) -> Loaded {
        let kept = self.kept.lock().await.clone();
        self.foresee_with(sources, kept, false).await
    }

    pub(super) async fn foresee_with(
        &self,
        sources: Sources,
        kept: BTreeMap<String, String>,
        against_policy: bool,
    ) -> Loaded {
        let scan = Scan { sources, settings: None, settings_fault: None, hash: watch::ScanHash([0; 32]) };
        let world = self.engine.world();
        let previous = (Previous::Snapshot(world.snapshot.clone()), world.courses.begun());
        load(&scan, &self.settings(), &self.origin, kept, previous, self.engine.now(), against_policy).await
    }

    /// These files alone, as a snapshot to be compared.
    pub(super) async fn read_alone(&self, sources: Sources) -> Arc<Snapshot> {
        let scan = Scan { sources, settings: None, settings_fault: None, hash: watch::ScanHash([0; 32]) };
        let (settings, now) = (self.settings(), self.engine.now());
        let previous = (Previous::Generation(0), snapshot::Begun::new());
        let loaded = load(&scan, &settings, &self.origin, BTreeMap::new(), previous, now, true).await;
        loaded.snapshot
    }

    /// Puts what a scan found in force.
    pub async fn apply(&self, scan: Scan, trigger: ReloadTrigger) -> ReloadReport {
        let mut kept = self.kept.lock().await;
        self.put_in_force(&mut kept, scan, trigger, Asked::default()).await
    }

    pub(super) async fn put_in_force(
        &self,
        kept: &mut BTreeMap<String, String>,
        mut scan: Scan,
        trigger: ReloadTrigger,
        asked: Asked,
    ) -> ReloadReport {
        let started = Instant::now();
        let now = self.engine.now();
        let (settings_report, needs_restart) = self.reload_settings(&scan);
        let before = self.engine.world().snapshot.clone();
        let settings = self.settings();
        let previous = Previous::Snapshot(before.clone());
        let released = self.lay_pin_over(&mut scan);
        let mut documents: Vec<DocumentChange> =
            released.iter().map(|released| pin_change(released.left.as_ref())).collect();
        let against_policy = asked.against_policy;
        let previous = (previous, self.engine.world().courses.begun());
        let loaded = load(&scan, &settings, &self.origin, kept.clone(), previous, now, against_policy).await;
        let mut files = loaded.snapshot.files.clone();
        files.extend(settings_report);
        let changed = loaded.changed;
        if changed {
            self.engine.install(loaded.snapshot.clone());
        } else {
            // Reports may differ though nothing that serves does: a file broke, or was mended to what it was.
            self.engine.install_reports(loaded.snapshot.clone());
        }
        if let Some(released) = &released {
            self.set_pin(released.left.clone());
        }
        if changed || !loaded.overridden.is_empty() {
            let mut words = snapshot::describe_changes(&before, &loaded.snapshot);
            words.extend(
                released
                    .iter()
                    .flat_map(|released| &released.files)
                    .map(|file| format!("{file} was saved, and is no longer held at an earlier version")),
            );
            tracing::info!(
                generation = loaded.snapshot.generation,
                trigger = <&str>::from(trigger),
                "specs reloaded: {}",
                words.join("; ")
            );
            let mut entry = AuditEntry {
                at: now,
                actor: OURS.to_owned(),
                action: "reload".to_owned(),
                subject: loaded.snapshot.hash.clone(),
                reason: None,
                detail: json!({ "generation": loaded.snapshot.generation, "changes": words }),
            };
            if let Some(by) = &asked.by {
                asked.action.clone_into(&mut entry.action);
                entry.actor.clone_from(&by.actor);
                entry.reason.clone_from(&by.reason);
            }
            if !loaded.overridden.is_empty() {
                let violations: Vec<String> = loaded.overridden.iter().map(in_a_line).collect();
                tracing::warn!(
                    actor = entry.actor,
                    reason = entry.reason,
                    "the policy is overridden: {}",
                    violations.join("; ")
                );
                entry.detail["violations"] = json!(violations);
            }
            documents.extend(specs_to_write(kept, &loaded));
            if changed {
                let who = (now, entry.actor.as_str(), entry.reason.as_deref());
                documents.extend(generations::to_write(&loaded.snapshot, Some(&before), who, words.clone()));
            }
            match self.engine.store.apply(documents, Some(entry)).await {
                Ok(()) => {
                    *kept = loaded.last_good;
                    self.forget_old_generations(loaded.snapshot.generation, now).await;
                }
                Err(error) => {
                    tracing::error!(%error, "the new specs are in force, but the store could not keep them for a restart");
                }
            }
        } else if !documents.is_empty()
            && let Err(error) = self.engine.store.apply(documents, None).await
        {
            tracing::error!(%error, "what holds files at an earlier version could not be written down");
        }
        report_faults(&files);
        if matches!(trigger, ReloadTrigger::Signal | ReloadTrigger::Api) {
            self.engine.ask_aws_for_quotas();
        }
        let took = started.elapsed();
        self.engine.metrics.reloaded(trigger, result_of(&files, changed), took, now);
        ReloadReport { generation: loaded.snapshot.generation, changed, files, needs_restart }
    }

    /// Takes over what is hot in the settings, and says what is not.
    fn reload_settings(&self, scan: &Scan) -> (Option<FileReport>, Vec<&'static str>) {
        let file = self.origin.settings_file.display().to_string();
        let report =
            |valid: bool, diagnostics: Vec<Diagnostic>| Some(FileReport { file: file.clone(), valid, diagnostics });
        if let Some(fault) = &scan.settings_fault {
            return (report(false, vec![fault.clone()]), Vec::new());
        }
        let Some(bytes) = &scan.settings else { return (None, Vec::new()) };
        let Origin { settings_file, environment, overrides, .. } = &self.origin;
        let (new, warnings) = match Settings::read(settings_file, bytes, environment, overrides) {
            Ok(read) => (read.settings, read.warnings),
            Err(diagnostics) => return (report(false, diagnostics), Vec::new()),
        };
        let mut current = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        let difference = settings::diff(&current, &new);
        for key in &difference.restart {
            tracing::warn!(key, file, "this setting changed, and takes effect at the next start");
        }
        if !difference.hot.is_empty() {
            *current = current.with_hot_parts_of(&new);
            self.engine.install_quotas(&current);
            self.engine.batches.install_limits(current.batches);
            self.engine.install_callbacks(current.callbacks.as_ref());
            tracing::info!(keys = ?difference.hot, file, "settings reloaded");
        }
        (report(true, warnings), difference.restart)
    }
}

enum Previous {
    Generation(u64),
    Snapshot(Arc<Snapshot>),
}

async fn load(
    scan: &Scan,
    settings: &Settings,
    origin: &Origin,
    last_good: BTreeMap<String, String>,
    (previous, begun): (Previous, snapshot::Begun),
    now: Timestamp,
    override_policy: bool,
) -> Loaded {
    let (generation, previous) = match previous {
        Previous::Generation(generation) => (generation, None),
        Previous::Snapshot(snapshot) => (snapshot.generation, Some(snapshot)),
    };
    let context = LoadContext {
        providers: Arc::new(settings.provider_facts()),
        environment: origin.flags.clone(),
        last_good,
        previous,
        generation,
        apply: match settings.watch.apply {
            ApplyMode::PerFile => Apply::PerFile,
            ApplyMode::All => Apply::All,
        },
        allow_empty: settings.watch.allow_empty,
        today: now.date(),
        override_policy,
        begun,
    };
    let sources = scan.sources.clone();
    let fallback = context.clone();
    // A thousand specs take a good part of a second: not on a thread that serves.
    match tokio::task::spawn_blocking(move || snapshot::load(&sources, &context)).await {
        Ok(loaded) => loaded,
        Err(error) => {
            tracing::error!(%error, "loading panicked; loading again in place");
            snapshot::load(&scan.sources, &fallback)
        }
    }
}

async fn last_good_specs(store: &Arc<dyn Store>) -> Result<BTreeMap<String, String>, StoreError> {
    let documents = store.documents(DocumentKind::Spec).await?;
    Ok(documents.into_iter().filter_map(|(file, text)| Some((file, text.as_str()?.to_owned()))).collect())
}

/// What changed of the last good versions, and the generation.
fn specs_to_write(known: &BTreeMap<String, String>, loaded: &Loaded) -> Vec<DocumentChange> {
    let change = |kind, key: &str, value| DocumentChange { kind, key: key.to_owned(), value };
    let gone = known.keys().filter(|file| !loaded.last_good.contains_key(*file));
    let new = loaded.last_good.iter().filter(|(file, text)| known.get(*file) != Some(text));
    gone.map(|file| change(DocumentKind::Spec, file, None))
        .chain(new.map(|(file, text)| change(DocumentKind::Spec, file, Some(text.as_str().into()))))
        .chain([change(DocumentKind::Counter, GENERATION, Some(loaded.snapshot.generation.into()))])
        .collect()
}

fn result_of(files: &[FileReport], changed: bool) -> ReloadResult {
    match (files.iter().all(|file| file.valid), changed) {
        (true, _) => ReloadResult::Success,
        (false, true) => ReloadResult::Partial,
        (false, false) => ReloadResult::Failure,
    }
}

fn report_faults(files: &[FileReport]) {
    for file in files {
        for diagnostic in &file.diagnostics {
            if diagnostic.is_error() {
                tracing::error!(file = file.file, "\n{diagnostic}");
            } else {
                tracing::warn!(file = file.file, "\n{diagnostic}");
            }
        }
    }
}

/// A snapshot of one spec and nothing else, for the engine's tests.
#[cfg(test)]
pub(super) mod tests_only {
    use super::*;
    use crate::{
        names::ProviderName,
        snapshot::Sources,
        spec::{Api, ProviderFacts},
    };

    pub(in super::super) fn load_text(spec: &str, previous: Option<Arc<Snapshot>>, now: Timestamp) -> Arc<Snapshot> {
        let facts = |api| ProviderFacts { api, family: None, region: None, data_regions: Vec::new() };
        let providers = [("openai", Api::OpenAi), ("bedrock", Api::Bedrock)]
            .into_iter()
            .map(|(name, api)| (ProviderName::new(name).unwrap(), facts(api)))
            .collect();
        let context = LoadContext {
            providers: Arc::new(providers),
            environment: FlagSet::default(),
            last_good: BTreeMap::new(),
            generation: previous.as_ref().map_or(0, |snapshot| snapshot.generation),
            previous,
            apply: Apply::PerFile,
            allow_empty: false,
            today: now.date(),
            override_policy: false,
            begun: snapshot::Begun::new(),
        };
        let mut sources = Sources::default();
        sources.specs.insert("triage.yaml".to_owned(), spec.as_bytes().to_vec());
        let loaded = snapshot::load(&sources, &context);
        let problems: Vec<String> = loaded
            .snapshot
            .files
            .iter()
            .flat_map(|file| &file.diagnostics)
            .filter(|problem| problem.is_error())
            .map(ToString::to_string)
            .collect();
        assert!(problems.is_empty(), "{}", problems.join("\n"));
        loaded.snapshot
    }
}
