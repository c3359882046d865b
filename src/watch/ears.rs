//! Listening for changes: the system's file events, filtered to hints that something may have changed.
//!
//! Invariant: a hint carries no news. What changed is found by looking; a lost or false event costs time, not truth.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use notify::{
    Event, EventHandler, EventKind, RecursiveMode,
    event::{AccessKind, AccessMode, ModifyKind},
};
use tokio::sync::Notify;

use super::{
    Folders,
    trail::{Trail, follow},
};

/// Where hints are left for the watcher. Many hints are one hint.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// Wakes the watcher; keeps one wake-up for a watcher that is busy.
    pub(super) wake: Notify,
    /// Events were lost, or a listened-to folder was replaced: listen anew.
    pub(super) deaf: AtomicBool,
}

/// Which paths matter, and what to listen to for them. All paths are real paths.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Plan {
    /// Folders listened to with everything below, with device and inode.
    deep: BTreeMap<PathBuf, (u64, u64)>,
    /// Folders listened to without what is below, with device and inode.
    flat: BTreeMap<PathBuf, (u64, u64)>,
    /// Names in those folders that matter.
    names: BTreeSet<PathBuf>,
}

impl Plan {
    pub(super) fn of(folders: &Folders) -> Self {
        let mut plan = Self::default();
        let trails: Vec<(bool, Trail)> = [
            (true, &folders.pipelines),
            (true, &folders.models),
            (false, &folders.flags_file),
            (false, &folders.catalog_file),
            (false, &folders.policy_file),
            (false, &folders.settings_file),
        ]
        .map(|(deep, path)| (deep, follow(path)))
        .into();
        for end in trails.iter().filter(|(deep, _)| *deep).filter_map(|(_, trail)| trail.end.as_ref()) {
            if let Some(identity) = identity(end) {
                plan.deep.insert(end.clone(), identity);
            }
        }
        for step in trails.into_iter().flat_map(|(_, trail)| trail.steps) {
            let parent = step.parent().filter(|parent| !plan.is_deep(parent));
            if let Some((parent, identity)) = parent.and_then(|parent| Some((parent, identity(parent)?))) {
                plan.flat.insert(parent.to_owned(), identity);
            }
            plan.names.insert(step);
        }
        plan
    }

    fn is_deep(&self, path: &Path) -> bool {
        path.ancestors().any(|above| self.deep.contains_key(above))
    }

    /// Whether an event at `path` may concern us.
    fn concerns(&self, path: &Path) -> bool {
        self.names.contains(path) || self.flat.contains_key(path) || self.is_deep(path)
    }

    /// Whether `path` is a folder that we listen to: if it is replaced, we listen to the wrong one.
    fn listens_to(&self, path: &Path) -> bool {
        self.flat.contains_key(path) || self.deep.contains_key(path)
    }
}

fn identity(folder: &Path) -> Option<(u64, u64)> {
    let found = fs::metadata(folder).ok().filter(fs::Metadata::is_dir)?;
    Some((found.dev(), found.ino()))
}

/// What receives events: filters them by a plan into hints.
#[derive(Debug, Clone)]
pub(super) struct Listener {
    pub(super) plan: Plan,
    pub(super) hints: Arc<Hints>,
}

impl EventHandler for Listener {
    fn handle_event(&mut self, event: notify::Result<Event>) {
        let Ok(event) =
            event.inspect_err(|error| tracing::warn!(%error, "file events were lost; looking at all files"))
        else {
            self.hints.deaf.store(true, Ordering::Release);
            self.hints.wake.notify_one();
            return;
        };
        if event.need_rescan() {
            tracing::warn!("the system's queue of file events overflowed; looking at all files");
            self.hints.deaf.store(true, Ordering::Release);
            self.hints.wake.notify_one();
            return;
        }
        // Our own reading makes events of this kind: without the filter every look would ask for another.
        if matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write)) {
            return;
        }
        if !event.paths.is_empty() && !event.paths.iter().any(|path| self.plan.concerns(path)) {
            return;
        }
        let replaces = !matches!(
            event.kind,
            EventKind::Access(_) | EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_))
        );
        if replaces && event.paths.iter().any(|path| self.plan.listens_to(path)) {
            self.hints.deaf.store(true, Ordering::Release);
        }
        self.hints.wake.notify_one();
    }
}

/// Makes a system watcher for a listener; a seam for tests of systems that have none.
pub(super) type Maker = fn(Listener) -> notify::Result<Box<dyn notify::Watcher + Send>>;

/// The system's best.
pub(super) fn system(listener: Listener) -> notify::Result<Box<dyn notify::Watcher + Send>> {
    Ok(Box::new(notify::recommended_watcher(listener)?))
}

/// The listening side of a watcher.
pub(super) struct Ears {
    make: Maker,
    hints: Arc<Hints>,
    plan: Plan,
    walked: BTreeSet<(u64, u64)>,
    watcher: Option<Box<dyn notify::Watcher + Send>>,
}

impl Ears {
    pub(super) fn new(make: Maker, hints: Arc<Hints>) -> Self {
        Self { make, hints, plan: Plan::default(), walked: BTreeSet::new(), watcher: None }
    }

    /// Listens anew if the folders are others than before. Whether it did: then something may have happened unheard
    /// before, and another look is needed.
    pub(super) fn attend(&mut self, folders: &Folders, walked: &BTreeSet<(u64, u64)>) -> notify::Result<bool> {
        let deaf = self.hints.deaf.swap(false, Ordering::AcqRel);
        let plan = Plan::of(folders);
        if self.watcher.is_some() && !deaf && plan == self.plan && *walked == self.walked {
            return Ok(false);
        }
        // All of it anew: the system forgets folders that are removed and follows those that are renamed away.
        self.watcher = None;
        let mut watcher = (self.make)(Listener { plan: plan.clone(), hints: Arc::clone(&self.hints) })?;
        let deep = plan.deep.keys().map(|path| (path, RecursiveMode::Recursive));
        let flat = plan.flat.keys().map(|path| (path, RecursiveMode::NonRecursive));
        for (path, mode) in deep.chain(flat) {
            match watcher.watch(path, mode) {
                // Removed just now: the look that follows finds that out.
                Err(error) if is_gone(&error) => self.hints.deaf.store(true, Ordering::Release),
                other => other?,
            }
        }
        self.plan = plan;
        self.walked.clone_from(walked);
        self.watcher = Some(watcher);
        Ok(true)
    }

    /// Stops listening.
    pub(super) fn close(&mut self) {
        self.watcher = None;
    }
}

fn is_gone(error: &notify::Error) -> bool {
    match &error.kind {
        notify::ErrorKind::PathNotFound => true,
        notify::ErrorKind::Io(cause) => cause.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, DataChange, Flag, RemoveKind, RenameMode};

    use super::*;

    #[test]
    fn events_become_hints_only_where_they_may_matter() {
        let plan = Plan {
            deep: [("/x/pipelines".into(), (1, 1))].into(),
            flat: [("/x".into(), (1, 2))].into(),
            names: ["/x/pipelines".into(), "/x/flags.yaml".into()].into(),
        };
        let data = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let renamed = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let read = EventKind::Access(AccessKind::Open(AccessMode::Any));
        let at = |kind: EventKind, path: &str| Event::new(kind).add_path(path.into());
        // (event, a hint, listen anew)
        for (event, hint, deaf) in [
            (at(data, "/x/pipelines/a.yaml"), true, false),
            (at(closed, "/x/pipelines/sub/a.yaml"), true, false),
            (at(renamed, "/x/pipelines/..data"), true, false),
            (at(renamed, "/x/flags.yaml"), true, false),
            (at(data, "/x/landbridge.db"), false, false),
            (at(read, "/x/pipelines/a.yaml"), false, false),
            (at(EventKind::Access(AccessKind::Close(AccessMode::Read)), "/x/flags.yaml"), false, false),
            (at(EventKind::Remove(RemoveKind::Folder), "/x/pipelines"), true, true),
            (at(EventKind::Create(CreateKind::Folder), "/x/pipelines"), true, true),
            (at(EventKind::Remove(RemoveKind::Folder), "/x"), true, true),
            (Event::new(EventKind::Other).set_flag(Flag::Rescan), true, true),
        ] {
            let hints = Arc::new(Hints::default());
            let text = format!("{event:?}");
            Listener { plan: plan.clone(), hints: Arc::clone(&hints) }.handle_event(Ok(event));
            let woken = futures_util::FutureExt::now_or_never(hints.wake.notified()).is_some();
            assert_eq!((woken, hints.deaf.load(Ordering::Acquire)), (hint, deaf), "{text}");
        }
    }
}
