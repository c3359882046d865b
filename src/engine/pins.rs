//! Going back to an earlier generation, and what holds files there.
//!
//! Invariant: a pin is durable before it takes effect, and is lifted file by file as files are saved (see
//! [`crate::snapshot::pin`]) or by hand as a whole. What would not serve is not gone back to.

use std::{collections::BTreeMap, sync::PoisonError, time::Duration};

use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    generations::{self, Generation},
    reload::{Actor, Asked, ReloadReport, Reloader},
};
use crate::{
    clock::Timestamp,
    diagnostic::Diagnostic,
    metrics::ReloadTrigger,
    snapshot::{
        self, FileReport, Snapshot, Sources,
        pin::{Pin, Texts},
    },
    store::{AuditEntry, DocumentChange, DocumentKind, Store, StoreError},
    watch::{self, Scan},
};

/// How often the pins of others are looked for.
const LOOK: Duration = Duration::from_secs(1);

/// Under which the store keeps what is pinned.
const KEY: &str = "config";

/// Why a generation was not gone back to.
#[derive(Debug, thiserror::Error)]
pub enum RollbackError {
    /// It is not kept.
    #[error("generation {0} is not kept; `landbridge config history` lists those that are")]
    Unknown(u64),
    /// It would not serve as it is.
    #[error("generation {generation} would not serve today")]
    Broken {
        /// The generation.
        generation: u64,
        /// What is wrong.
        files: Vec<FileReport>,
    },
    /// Nothing is pinned.
    #[error("no file is held at an earlier version")]
    NothingPinned,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What differs between two generations.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The older, or whatever was asked for first.
    pub from: u64,
    /// The other.
    pub to: u64,
    /// In words.
    pub changes: Vec<String>,
    /// Texts of files that differ: before and after.
    pub files: BTreeMap<String, (Option<String>, Option<String>)>,
}

/// Files that were saved since they were pinned.
pub(super) struct LetGo {
    /// Their names.
    pub files: Vec<String>,
    /// What stays pinned.
    pub left: Option<Pin>,
}

/// What the store has pinned.
pub(super) async fn pinned(store: &std::sync::Arc<dyn Store>) -> Result<Option<Pin>, StoreError> {
    let found = store.document(DocumentKind::Pin, KEY).await?;
    Ok(found.and_then(|value| serde_json::from_value(value).ok()))
}

pub(super) fn pin_change(pin: Option<&Pin>) -> DocumentChange {
    let value = pin.and_then(|pin| serde_json::to_value(pin).ok());
    DocumentChange { kind: DocumentKind::Pin, key: KEY.to_owned(), value }
}

impl Reloader {
    /// What holds files at an earlier version.
    pub fn pin(&self) -> Option<Pin> {
        self.pin.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_pin(&self, pin: Option<Pin>) {
        *self.pin.lock().unwrap_or_else(PoisonError::into_inner) = pin;
    }

    /// Lays what is pinned over what stands on disk; what was let go thereby, if anything was.
    pub(super) fn lay_pin_over(&self, scan: &mut Scan) -> Option<LetGo> {
        let mut pin = self.pin()?;
        let files = pin.lay_over(&mut scan.sources);
        if files.is_empty() {
            return None;
        }
        tracing::info!(?files, "saved files are no longer held at an earlier version");
        Some(LetGo { files, left: Some(pin).filter(|pin| !pin.files.is_empty()) })
    }

    /// Puts an earlier generation in force, over whatever stands on disk.
    ///
    /// # Errors
    /// [`RollbackError`]; nothing changed then.
    pub async fn go_back(
        &self,
        generation: u64,
        by: Actor,
        against_policy: bool,
    ) -> Result<ReloadReport, RollbackError> {
        let mut kept = self.kept.lock().await;
        let store = self.engine.store().clone();
        let (_, texts) = self.texts_of(generation).await?;
        let scan = watch::settled_scan(&self.origin.folders, self.settings().watch.quiet).await;
        let files = Pin::files(&texts, &scan.sources.texts());
        let now = self.engine.now();
        let mut pin = Pin { generation, at: now, actor: by.actor.clone(), reason: by.reason.clone(), files };
        let mut sources = scan.sources.clone();
        pin.lay_over(&mut sources);
        let foreseen = self.foresee_with(sources, kept.clone(), against_policy).await;
        let pinned_specs: Vec<&str> = pin.files.keys().filter_map(|name| name.strip_prefix("specs/")).collect();
        let broken: Vec<FileReport> = foreseen
            .snapshot
            .files
            .iter()
            .filter(|file| !file.valid && pinned_specs.contains(&file.file.as_str()))
            .cloned()
            .collect();
        if !broken.is_empty() {
            return Err(RollbackError::Broken { generation, files: broken });
        }
        let entry = AuditEntry {
            at: now,
            actor: by.actor.clone(),
            action: "config.rollback".to_owned(),
            subject: format!("generation {generation}"),
            reason: by.reason.clone(),
            detail: json!({ "files": pin.files.keys().collect::<Vec<_>>() }),
        };
        let pin = Some(pin).filter(|pin| !pin.files.is_empty());
        store.apply(vec![pin_change(pin.as_ref())], Some(entry)).await?;
        self.set_pin(pin);
        let asked = Asked { by: Some(by), against_policy, action: "reload" };
        Ok(self.put_in_force(&mut kept, scan, ReloadTrigger::Api, asked).await)
    }

    /// Follows the disk again.
    ///
    /// # Errors
    /// [`RollbackError`] when nothing is pinned, or the store cannot be written.
    pub async fn follow_again(&self, by: Actor) -> Result<ReloadReport, RollbackError> {
        let mut kept = self.kept.lock().await;
        let Some(pin) = self.pin() else { return Err(RollbackError::NothingPinned) };
        let entry = AuditEntry {
            at: self.engine.now(),
            actor: by.actor.clone(),
            action: "config.follow".to_owned(),
            subject: format!("generation {}", pin.generation),
            reason: by.reason.clone(),
            detail: json!({ "files": pin.files.keys().collect::<Vec<_>>() }),
        };
        self.engine.store().apply(vec![pin_change(None)], Some(entry)).await?;
        self.set_pin(None);
        let scan = watch::settled_scan(&self.origin.folders, self.settings().watch.quiet).await;
        let asked = Asked { by: Some(by), against_policy: false, action: "reload" };
        Ok(self.put_in_force(&mut kept, scan, ReloadTrigger::Api, asked).await)
    }

    /// Takes over what another daemon on the same store pinned or let go. One look at a number, as long as nobody did.
    pub async fn follow_pins(&self, stop: CancellationToken) {
        let store = self.engine.store().clone();
        let mut seen: Option<u64> = None;
        let mut looks = tokio::time::interval(LOOK);
        while stop.run_until_cancelled(looks.tick()).await.is_some() {
            let look = async {
                let revision = store.revision().await?;
                if seen == Some(revision) {
                    return Ok(());
                }
                let mut kept = self.kept.lock().await;
                let theirs = pinned(&store).await?;
                if theirs != self.pin() {
                    tracing::info!("what is held at an earlier version was changed elsewhere; taken over");
                    self.set_pin(theirs);
                    let scan = watch::settled_scan(&self.origin.folders, self.settings().watch.quiet).await;
                    self.put_in_force(&mut kept, scan, ReloadTrigger::Watch, Asked::default()).await;
                }
                seen = Some(revision);
                Ok::<(), StoreError>(())
            };
            if let Err(error) = look.await {
                tracing::debug!(%error, "the pins could not be looked at; trying again");
            }
        }
    }

    async fn texts_of(&self, generation: u64) -> Result<(Generation, Texts), RollbackError> {
        let store = self.engine.store();
        let found = generations::one(store, generation).await?.ok_or(RollbackError::Unknown(generation))?;
        let texts = generations::texts(store, &found).await?.ok_or(RollbackError::Unknown(generation))?;
        Ok((found, texts))
    }

    /// What differs between two generations; without a second one, against what is in force.
    ///
    /// # Errors
    /// [`RollbackError`] when one of them is not kept.
    pub async fn compare(&self, from: u64, to: Option<u64>) -> Result<Difference, RollbackError> {
        let running = self.engine.world().snapshot.clone();
        let (_, before) = self.texts_of(from).await?;
        let (to, after) = match to {
            Some(to) if to != running.generation => (to, self.texts_of(to).await?.1),
            _ => (running.generation, running.texts()),
        };
        let old: std::sync::Arc<Snapshot> = self.read_alone(Sources::of_texts(before.clone())).await;
        let new = self.read_alone(Sources::of_texts(after.clone())).await;
        let mut files = BTreeMap::new();
        for name in before.keys().chain(after.keys()) {
            let (old, new) = (before.get(name).cloned(), after.get(name).cloned());
            if old != new {
                files.insert(name.clone(), (old, new));
            }
        }
        Ok(Difference { from, to, changes: snapshot::describe_changes(&old, &new), files })
    }

    /// Forgets generations that are too many or too old.
    pub(super) async fn forget_old_generations(&self, newest: u64, now: Timestamp) {
        // A look at all of them now and then is enough.
        if !newest.is_multiple_of(generations::SLACK) {
            return;
        }
        let oldest = now - self.settings().retention.audit;
        if let Err(error) = generations::prune(self.engine.store(), newest, oldest).await {
            tracing::warn!(%error, "old generations could not be forgotten; the next reload tries again");
        }
    }
}

impl RollbackError {
    /// What is wrong with files, one problem a line.
    pub fn problems(&self) -> Vec<String> {
        match self {
            Self::Broken { files, .. } => files
                .iter()
                .flat_map(|file| &file.diagnostics)
                .filter(|problem| problem.is_error())
                .map(Diagnostic::to_string)
                .collect(),
            _ => Vec::new(),
        }
    }
}
