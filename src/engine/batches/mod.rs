//! Batches of the OpenAI form: from an input file to jobs, and from their ends to output files.
//!
//! Invariant: a batch is carried by steps that may be taken again: a line is the same job whenever it is submitted, files
//! are written under ids that were written down before. So a batch goes on after a crash from wherever it was. Every change
//! of a batch goes through its one lock.

mod drive;
mod lines;
mod record;
mod results;
mod validate;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

pub use self::record::{BatchRecord, BatchStatus, LineError};
use super::{Engine, callbacks};
use crate::{
    clock::Timestamp,
    settings::BatchSettings,
    store::{DocumentChange, DocumentKind, DocumentPage, Result},
};

/// How long files of batches are kept unless their makers say otherwise, as the original does.
pub const FILES_KEPT: Duration = Duration::from_hours(30 * 24);
/// Batches that are read or written at the same time; the rest wait their turn.
const HEAVY: usize = 2;
/// Between tries when the store fails.
const STORE_BACKOFF: Duration = Duration::from_secs(1);
/// Rows looked at in one go.
const PAGE: u32 = 500;
/// What tells a repeated request is kept this long.
const REQUESTS_KEPT: Duration = Duration::from_hours(24);

/// A batch that is not over.
pub(super) struct Batch {
    /// Held while the batch changes.
    changing: tokio::sync::Mutex<()>,
    record: Mutex<BatchRecord>,
    changed: Notify,
}

impl Batch {
    fn new(record: BatchRecord) -> Arc<Self> {
        Arc::new(Self { changing: tokio::sync::Mutex::default(), record: Mutex::new(record), changed: Notify::new() })
    }

    pub(super) fn record(&self) -> BatchRecord {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// All batches that are not over.
pub(super) struct Batches {
    active: Mutex<HashMap<String, Arc<Batch>>>,
    /// Those that nobody carries yet.
    arrived: Mutex<Vec<Arc<Batch>>>,
    arrival: Notify,
    /// Held while a batch is made, so that of two equal requests one finds the other's.
    making: tokio::sync::Mutex<()>,
    heavy: Semaphore,
    limits: ArcSwap<BatchSettings>,
}

impl Default for Batches {
    fn default() -> Self {
        Self {
            active: Mutex::default(),
            arrived: Mutex::default(),
            arrival: Notify::new(),
            making: tokio::sync::Mutex::default(),
            heavy: Semaphore::new(HEAVY),
            limits: ArcSwap::from_pointee(BatchSettings { max_requests: 50_000, max_bytes: 200_000_000 }),
        }
    }
}

impl Batches {
    pub(super) fn limits(&self) -> BatchSettings {
        **self.limits.load()
    }

    pub(super) fn install_limits(&self, limits: BatchSettings) {
        self.limits.store(Arc::new(limits));
    }

    /// Whether a batch that is not over reads this file.
    pub(super) fn reads(&self, file: &str) -> bool {
        self.active().values().any(|batch| batch.record().input_file_id == file)
    }

    fn active(&self) -> MutexGuard<'_, HashMap<String, Arc<Batch>>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, record: BatchRecord) {
        let batch = Batch::new(record);
        let id = batch.record().id;
        self.active().insert(id, batch.clone());
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner).push(batch);
        self.arrival.notify_one();
    }

    fn take_arrived(&self) -> Vec<Arc<Batch>> {
        std::mem::take(&mut *self.arrived.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What tells a batch asked for twice.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Asked {
    batch: String,
    digest: String,
    at: Timestamp,
}

/// What a repeated request is known by.
#[derive(Debug, Clone)]
pub struct Repeat {
    /// Unique for the caller.
    pub key: String,
    /// Of what is asked.
    pub digest: String,
    /// How long ago the first may have come.
    pub within: Duration,
    /// Whether another digest under the same key is a conflict.
    pub strict: bool,
    /// Whether the request may be a repeat; if not, it only is remembered.
    pub look: bool,
}

/// A batch that was made, or found.
pub enum Made {
    /// It is new.
    New(Box<BatchRecord>),
    /// It was asked for before.
    Known(Box<BatchRecord>),
    /// The key was used for another request.
    Conflict(String),
}

impl Engine {
    /// Makes a batch, unless the same was asked for before. Durable when it returns.
    ///
    /// # Errors
    /// [`crate::store::StoreError`].
    pub async fn make_batch(&self, record: BatchRecord, repeats: &[Repeat]) -> Result<Made> {
        let _making = self.batches.making.lock().await;
        let now = self.clock.now();
        for repeat in repeats.iter().filter(|repeat| repeat.look) {
            let value = self.store.document(DocumentKind::BatchRequest, &repeat.key).await?;
            let Some(asked) = value.and_then(|value| serde_json::from_value::<Asked>(value).ok()) else { continue };
            if now.since(asked.at) > repeat.within {
                continue;
            }
            if asked.digest != repeat.digest {
                if repeat.strict {
                    return Ok(Made::Conflict(asked.batch));
                }
                continue;
            }
            if let Some(known) = self.batch(&asked.batch).await? {
                return Ok(Made::Known(Box::new(known)));
            }
        }
        let mut changes = vec![record.change()];
        for repeat in repeats {
            let asked = Asked { batch: record.id.clone(), digest: repeat.digest.clone(), at: now };
            changes.push(DocumentChange {
                kind: DocumentKind::BatchRequest,
                key: repeat.key.clone(),
                value: serde_json::to_value(asked).ok(),
            });
        }
        self.store.apply(changes, None).await?;
        self.batches.add(record.clone());
        Ok(Made::New(Box::new(record)))
    }

    /// A batch by its id, with its counts as they are now.
    ///
    /// # Errors
    /// [`crate::store::StoreError`].
    pub async fn batch(&self, id: &str) -> Result<Option<BatchRecord>> {
        let active = self.batches.active().get(id).map(|batch| batch.record());
        let mut record = match active {
            Some(record) => record,
            None => match self.store.document(DocumentKind::Batch, id).await?.map(serde_json::from_value) {
                Some(Ok(record)) => record,
                _ => return Ok(None),
            },
        };
        self.count(&mut record).await?;
        Ok(Some(record))
    }

    /// Batches, newest first, older than `after`.
    ///
    /// # Errors
    /// [`crate::store::StoreError`].
    pub async fn batches_page(&self, after: Option<String>, limit: u32) -> Result<Vec<BatchRecord>> {
        let page = DocumentPage { kind: DocumentKind::Batch, after, descending: true, limit };
        let rows = self.store.documents_page(page).await?;
        let mut records = Vec::with_capacity(rows.len());
        for (id, value) in rows {
            let active = self.batches.active().get(&id).map(|batch| batch.record());
            let Some(mut record) = active.or_else(|| serde_json::from_value(value).ok()) else { continue };
            self.count(&mut record).await?;
            records.push(record);
        }
        Ok(records)
    }

    /// What an uploaded file may have, and a batch.
    pub fn batch_limits(&self) -> BatchSettings {
        self.batches.limits()
    }

    /// Whether a batch that is not over reads this file.
    pub fn file_is_read(&self, id: &str) -> bool {
        self.batches.reads(id)
    }

    /// Asks a batch to stop; how it stands then. `None` when it is not there, or over.
    ///
    /// # Errors
    /// [`crate::store::StoreError`].
    pub async fn cancel_batch(&self, id: &str) -> Result<Option<BatchRecord>> {
        let Some(batch) = self.batches.active().get(id).cloned() else { return Ok(None) };
        let now = self.clock.now();
        self.change_batch(&batch, Vec::new(), |record| {
            if matches!(record.status, BatchStatus::Validating | BatchStatus::InProgress) {
                record.status = BatchStatus::Cancelling;
                record.cancelling_at = Some(now);
            }
        })
        .await?;
        self.batch(id).await
    }

    /// Counts from the jobs, while they are the truth.
    async fn count(&self, record: &mut BatchRecord) -> Result<()> {
        if matches!(record.status, BatchStatus::InProgress | BatchStatus::Finalizing | BatchStatus::Cancelling) {
            let counts = self.store.batch_counts(&record.id).await?;
            let of = |state| counts.get(&state).copied().unwrap_or(0);
            record.completed = of(crate::job::State::Succeeded);
            record.failed = of(crate::job::State::Failed) + of(crate::job::State::Expired);
        }
        Ok(())
    }

    /// Changes a batch durably, with other rows in the same transaction.
    async fn change_batch(
        &self,
        batch: &Batch,
        mut others: Vec<DocumentChange>,
        change: impl FnOnce(&mut BatchRecord),
    ) -> Result<()> {
        let _changing = batch.changing.lock().await;
        let mut record = batch.record();
        let was = record.status;
        change(&mut record);
        others.push(record.change());
        if record.status.is_terminal() && !was.is_terminal() {
            others.extend(callbacks::of_batch(&record, self.clock.now()));
        }
        self.store.apply(others, None).await?;
        *batch.record.lock().unwrap_or_else(PoisonError::into_inner) = record;
        batch.changed.notify_one();
        Ok(())
    }

    /// Takes up the batches that an earlier life left.
    pub(super) async fn take_up_batches(&self) -> Result<()> {
        let mut page = DocumentPage { kind: DocumentKind::Batch, after: None, descending: true, limit: PAGE };
        loop {
            let rows = self.store.documents_page(page.clone()).await?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            page.after = Some(last.clone());
            for (_, value) in rows {
                if let Ok(record) = serde_json::from_value::<BatchRecord>(value)
                    && !record.status.is_terminal()
                {
                    self.batches.add(record);
                }
            }
        }
    }

    /// Forgets batches as old as the ledger, and what told repeated requests.
    pub(super) async fn sweep_batches(&self) -> Result<()> {
        let now = self.clock.now();
        let ledger = self.retention.load().ledger;
        for (kind, kept) in [(DocumentKind::Batch, ledger), (DocumentKind::BatchRequest, REQUESTS_KEPT)] {
            let mut page = DocumentPage { kind, after: None, descending: false, limit: PAGE };
            loop {
                let rows = self.store.documents_page(page.clone()).await?;
                let Some((last, _)) = rows.last() else { break };
                page.after = Some(last.clone());
                let old = |value: &serde_json::Value| {
                    let at = value.get("created_at").or_else(|| value.get("at")).and_then(|at| at.as_str());
                    at.and_then(|at| at.parse::<Timestamp>().ok()).is_some_and(|at| at + kept < now)
                };
                let active: BTreeSet<String> = self.batches.active().keys().cloned().collect();
                let gone = rows.into_iter().filter(|(key, value)| old(value) && !active.contains(key));
                let changes: Vec<DocumentChange> =
                    gone.map(|(key, _)| DocumentChange { kind, key, value: None }).collect();
                if !changes.is_empty() {
                    self.store.apply(changes, None).await?;
                }
            }
        }
        Ok(())
    }
}

/// Carries every batch, each in a task of its own, until `stop`. What is cut off goes on at the next start.
pub(super) async fn run(engine: Arc<Engine>, stop: CancellationToken) {
    let mut carried = JoinSet::new();
    loop {
        for batch in engine.batches.take_arrived() {
            let engine = engine.clone();
            carried.spawn(async move { drive::drive(&engine, &batch).await });
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = engine.batches.arrival.notified() => {}
            Some(_) = carried.join_next(), if !carried.is_empty() => {}
        }
    }
    carried.shutdown().await;
}
