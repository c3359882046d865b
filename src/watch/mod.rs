//! Watching the folders and files that operators edit, and saying when they hold something new that is whole.
//!
//! Events are hints, looking is truth: a hint leads to a look, two equal looks a quiet time apart make contents, and a
//! look on a period finds what no event told. Where the system has no events to give, looking is all there is.
//!
//! Invariant: nothing is handed out that was still being written, and a file or folder that cannot be read is never
//! mistaken for one that was removed. What the files mean is not known here.

mod ears;
mod read;
mod scan;
mod settle;
#[cfg(test)]
mod tests;
mod trail;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::settings::{Settings, WatchMode, WatchSettings};
use ears::{Ears, Hints, Maker};
use scan::Look;
use settle::{Settler, Verdict};

pub use scan::{MAX_DEPTH, MAX_ENTRIES, MAX_FILE_BYTES, MAX_FILES, MAX_TOTAL_BYTES, Scan, ScanHash, scan};

/// Between looks where there are no events: quick enough for an operator who waits, slow enough for a network disk.
const POLL: Duration = Duration::from_secs(1);
/// From the last event of a burst to the look that it asks for.
const LULL: Duration = Duration::from_millis(30);
/// Times that a look follows folders that are being replaced under it; the next look goes on.
const MOST_ATTENDS: usize = 3;
/// A look that takes longer than this is worth a word in the log: the disk may hang.
const SLOW_LOOK: Duration = Duration::from_secs(10);

/// What is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folders {
    /// Specs: every `*.yaml` and `*.yml` below it, but for names that start with a dot.
    pub pipelines: PathBuf,
    /// Model definitions: every `*.json` in it; may be missing.
    pub models: PathBuf,
    /// `config/flags.yaml`; may be missing.
    pub flags_file: PathBuf,
    /// `config/catalog.yaml`; may be missing.
    pub catalog_file: PathBuf,
    /// The policy; may be missing.
    pub policy_file: PathBuf,
    /// `config/landbridge.yaml`.
    pub settings_file: PathBuf,
}

impl Folders {
    /// The folders that `settings`, read from `settings_file`, name.
    pub fn of(settings: &Settings, settings_file: &Path) -> Self {
        Self {
            pipelines: settings.pipelines.clone(),
            models: settings.models.clone(),
            flags_file: settings.flags_file.clone(),
            catalog_file: settings.catalog_file.clone(),
            policy_file: settings.policy.clone(),
            settings_file: settings_file.to_owned(),
        }
    }
}

/// What led to a change being found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum Trigger {
    /// The first look.
    Startup,
    /// An event, or a look in the course of polling.
    Watch,
    /// The look on a period that finds what no event told.
    Rescan,
}

/// New contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What the files hold.
    pub scan: Scan,
    /// What led to it.
    pub trigger: Trigger,
}

/// Watches [`Folders`].
pub struct Watcher {
    folders: Arc<Folders>,
    settings: WatchSettings,
    cancel: CancellationToken,
    hints: Arc<Hints>,
    ears: Arc<Mutex<Ears>>,
    settler: Settler,
    /// When to look next, whatever happens.
    due: Instant,
    /// What led to the looks being taken; `None` while nothing has happened.
    trigger: Option<Trigger>,
    /// The first hint since the last look.
    burst: Option<Instant>,
    /// There are no events, and no use in asking for them again before this time.
    polling_until: Option<Instant>,
    /// What the caller has.
    known: Option<ScanHash>,
}

impl Watcher {
    /// Starts to watch. The first [`Watcher::next`] returns what is there.
    pub fn start(folders: Folders, settings: WatchSettings, cancel: CancellationToken) -> Self {
        Self::start_with(ears::system, folders, settings, cancel)
    }

    fn start_with(make: Maker, folders: Folders, settings: WatchSettings, cancel: CancellationToken) -> Self {
        let hints = Arc::new(Hints::default());
        Self {
            folders: Arc::new(folders),
            settings,
            cancel,
            ears: Arc::new(Mutex::new(Ears::new(make, Arc::clone(&hints)))),
            hints,
            settler: Settler::new(settings.quiet),
            due: Instant::now(),
            trigger: Some(Trigger::Startup),
            burst: None,
            polling_until: None,
            known: None,
        }
    }

    /// Waits until the files hold, at rest, something other than what was last returned or acknowledged; `None` once
    /// watching was cancelled. Losing this future to another branch of a `select!` loses nothing.
    pub async fn next(&mut self) -> Option<Change> {
        loop {
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return None,
                () = sleep_until(self.due) => {}
                () = self.hints.wake.notified() => {
                    self.heed_hint();
                    continue;
                }
            }
            self.burst = None;
            let trigger = *self.trigger.get_or_insert(if self.is_polling() { Trigger::Watch } else { Trigger::Rescan });
            let cancel = self.cancel.clone();
            tokio::select! {
                biased;
                () = cancel.cancelled() => return None,
                () = self.look() => {}
            }
            let now = Instant::now();
            match self.settler.verdict(&self.folders, now) {
                Verdict::LookAgain(at) => self.due = at,
                Verdict::Settled(scan, again) => {
                    let idle = if self.is_polling() { self.settings.rescan.min(POLL) } else { self.settings.rescan };
                    self.due = again.unwrap_or(now + idle);
                    if again.is_none() {
                        self.trigger = None;
                    }
                    if self.known != Some(scan.hash) {
                        self.known = Some(scan.hash);
                        return Some(Change { scan: *scan, trigger });
                    }
                }
            }
        }
    }

    /// Asks for a look now.
    pub fn poke(&self) {
        self.hints.wake.notify_one();
    }

    /// Tells that the caller has `scan` already, by a look of its own: it is not returned again.
    pub fn acknowledge(&mut self, scan: &Scan) {
        self.known = Some(scan.hash);
    }

    /// Whether changes are found by looking alone, without events.
    pub fn is_polling(&self) -> bool {
        self.settings.mode == WatchMode::Poll || self.polling_until.is_some()
    }

    fn heed_hint(&mut self) {
        let now = Instant::now();
        self.trigger.get_or_insert(Trigger::Watch);
        // Wait for the burst to end, but not for a writer that never pauses.
        let latest = *self.burst.get_or_insert(now) + self.settings.quiet;
        self.due = self.due.min((now + LULL).min(latest));
    }

    /// Looks, and listens anew where folders were replaced.
    async fn look(&mut self) {
        let started = Instant::now();
        let folders = Arc::clone(&self.folders);
        let listens = self.settings.mode == WatchMode::Auto && self.polling_until.is_none_or(|until| until <= started);
        let ears = listens.then(|| Arc::clone(&self.ears));
        let (look, deafness) = on_a_thread(move || match ears {
            Some(ears) => look_and_listen(&folders, &mut ears.lock().unwrap_or_else(PoisonError::into_inner)),
            None => (scan::look(&folders), None),
        })
        .await;
        let ended = Instant::now();
        if listens {
            self.note_hearing(deafness, ended);
        }
        self.settler.observe(look, started, ended);
    }

    fn note_hearing(&mut self, deafness: Option<String>, now: Instant) {
        match deafness {
            Some(reason) => {
                if self.polling_until.is_none() {
                    tracing::warn!(
                        %reason,
                        "file events are not to be had; looking at all files every second instead \
                         (on Linux, see fs.inotify.max_user_watches and max_user_instances)"
                    );
                }
                self.polling_until = Some(now + self.settings.rescan);
            }
            None if self.polling_until.take().is_some() => tracing::info!("file events are to be had again"),
            None => {}
        }
    }

    /// Does as if the system had sent `event`.
    #[cfg(test)]
    fn inject(&self, event: notify::Result<notify::Event>) {
        let listener = ears::Listener { plan: ears::Plan::of(&self.folders), hints: Arc::clone(&self.hints) };
        notify::EventHandler::handle_event(&mut { listener }, event);
    }
}

/// Looks, and sees to it that the ears are where the folders are; with why there are none to be had.
fn look_and_listen(folders: &Folders, ears: &mut Ears) -> (Look, Option<String>) {
    let mut look = scan::look(folders);
    for _ in 0..MOST_ATTENDS {
        if look.crowded {
            ears.close();
            return (look, Some("a watched folder holds too much to be watched by events".to_owned()));
        }
        match ears.attend(folders, &look.walked) {
            // Whatever happened before the new ears were open was not heard.
            Ok(true) => look = scan::look(folders),
            Ok(false) => break,
            Err(error) => {
                ears.close();
                return (look, Some(error.to_string()));
            }
        }
    }
    (look, None)
}

/// Looks until the files are at rest, and returns what they hold; for reloads that somebody waits for. Files that do not
/// come to rest within some two seconds are reported in [`Sources::unreadable`](crate::snapshot::Sources::unreadable).
pub async fn settled_scan(folders: &Folders, quiet: Duration) -> Scan {
    let folders = Arc::new(folders.clone());
    let mut settler = Settler::new(quiet);
    loop {
        let started = Instant::now();
        let looked_at = Arc::clone(&folders);
        let look = on_a_thread(move || scan::look(&looked_at)).await;
        settler.observe(look, started, Instant::now());
        match settler.verdict(&folders, Instant::now()) {
            Verdict::LookAgain(at) => sleep_until(at).await,
            Verdict::Settled(scan, _) => return *scan,
        }
    }
}

/// Runs file work where it may block, and complains when it takes long.
async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let mut running = tokio::task::spawn_blocking(work);
    loop {
        match tokio::time::timeout(SLOW_LOOK, &mut running).await {
            Ok(Ok(done)) => return done,
            Ok(Err(failed)) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
            // Only while the runtime shuts down.
            Ok(Err(_)) => std::future::pending().await,
            Err(_) => tracing::warn!("the watched folders take more than ten seconds to read; does their disk hang?"),
        }
    }
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watcher").field("folders", &self.folders).field("polling", &self.is_polling()).finish()
    }
}
