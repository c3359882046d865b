//! Hints that something happened in a store, so that one process need not poll.
//!
//! Invariant: a hint is given after the change is durable, never instead of it. Hints may come too often, and those about
//! endings may be lost; whoever listens asks the store for the truth.

use tokio::sync::{broadcast, watch};

use crate::ids::JobId;

/// Endings kept for a listener that is behind. One that falls further behind is told so and asks the store.
const ENDINGS_KEPT: usize = 1_024;

/// The hints of a store.
#[derive(Debug)]
pub struct Hints {
    ready: watch::Sender<u64>,
    documents: watch::Sender<u64>,
    ended: broadcast::Sender<JobId>,
}

impl Hints {
    /// Hints that nobody listens to yet.
    pub fn new() -> Self {
        Self {
            ready: watch::Sender::new(0),
            documents: watch::Sender::new(0),
            ended: broadcast::Sender::new(ENDINGS_KEPT),
        }
    }

    /// Jobs may have become ready.
    pub fn ready(&self) {
        self.ready.send_modify(|times| *times = times.wrapping_add(1));
    }

    /// A job ended.
    pub fn ended(&self, job: JobId) {
        // Nobody listening is no error.
        let _ = self.ended.send(job);
    }

    /// Documents may have been changed.
    pub fn documents_changed(&self) {
        self.documents.send_modify(|times| *times = times.wrapping_add(1));
    }

    /// Listens for changes of documents.
    pub fn document_changes(&self) -> watch::Receiver<u64> {
        self.documents.subscribe()
    }

    /// Listens for ready jobs.
    pub fn wakeups(&self) -> watch::Receiver<u64> {
        self.ready.subscribe()
    }

    /// Listens for ended jobs.
    pub fn endings(&self) -> broadcast::Receiver<JobId> {
        self.ended.subscribe()
    }
}
