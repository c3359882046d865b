//! A store in memory: for tests and simulation. The same promises as the others but durability.
//!
//! Invariant: one lock, held for the length of one method and never across a wait.

mod documents;
mod observations;
mod past;
mod reading;
mod recovery;
mod retention;
mod shelf;
mod steering;
mod table;
mod working;

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{broadcast, watch};

use self::{shelf::Shelf, table::Table};
use super::{
    AuditEntry, Cancelled, ClaimRequest, Claimed, Condition, DocumentChange, DocumentKind, DocumentPage, Intent,
    JobOutcome, JobPage, JobQuery, JobRecord, Lead, LedgerPage, LedgerQuery, NewJob, NewObservation, Observation,
    ObservationQuery, Promoted, PruneCut, Pruned, RecordedPage, RecordedQuery, Recovered, Result, Settled, Settlement,
    Store, Submitted, Traffic, TrafficKey, hints::Hints,
};
use crate::{
    clock::{SharedClock, Timestamp},
    ids::{JobId, NodeId},
    job::State,
    money::Usd,
    names::{PipelineName, RolloutName},
};

/// A store that ends with its process.
pub struct MemoryStore {
    clock: SharedClock,
    node: NodeId,
    hints: Hints,
    table: Mutex<Table>,
    shelf: Shelf,
}

impl MemoryStore {
    /// An empty store that lives by `clock`.
    pub fn new(clock: SharedClock) -> Self {
        Self { clock, node: NodeId::generate(), hints: Hints::new(), table: Mutex::default(), shelf: Shelf::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // A panic under the lock is a defect of ours; the next caller still finds whole rows.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does one thing to the table, then gives the hints that it asked for.
    fn with<T>(&self, act: impl FnOnce(&mut Table, Timestamp) -> Result<T>) -> Result<T> {
        let now = self.clock.now();
        let (answer, ready, ended) = {
            let mut table = self.table();
            let answer = act(&mut table, now);
            (answer, std::mem::take(&mut table.became_ready), std::mem::take(&mut table.ended))
        };
        if ready {
            self.hints.ready();
        }
        for job in ended {
            self.hints.ended(job);
        }
        answer
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn now(&self) -> Result<Timestamp> {
        Ok(self.clock.now())
    }

    fn local_node(&self) -> NodeId {
        self.node
    }

    fn wakeups(&self) -> watch::Receiver<u64> {
        self.hints.wakeups()
    }

    fn endings(&self) -> broadcast::Receiver<JobId> {
        self.hints.endings()
    }

    async fn submit(&self, jobs: Vec<NewJob>) -> Result<Vec<Submitted>> {
        self.with(|table, now| Ok(jobs.into_iter().map(|job| table.submit(job, now)).collect()))
    }

    async fn submit_running(&self, job: NewJob, node: NodeId, intent: Intent) -> Result<()> {
        self.with(|table, now| table.submit_running(job, node, intent, now))
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>> {
        self.with(|table, now| table.claim(&request, now))
    }

    async fn begin(&self, intents: Vec<Intent>) -> Result<Vec<bool>> {
        self.with(|table, now| Ok(intents.into_iter().map(|intent| table.begin(intent, now)).collect()))
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<Vec<Settled>> {
        self.with(|table, now| settlements.into_iter().map(|settlement| table.settle(settlement, now)).collect())
    }

    async fn cancel(&self, jobs: Vec<JobId>) -> Result<Vec<Cancelled>> {
        self.with(|table, now| jobs.into_iter().map(|job| table.cancel(job, now)).collect())
    }

    async fn release(&self, pipeline: Option<PipelineName>, limit: u32) -> Result<u64> {
        self.with(|table, now| table.release(pipeline.as_ref(), limit, now))
    }

    async fn promote(&self, now: Timestamp, limit: u32) -> Result<Promoted> {
        self.with(|table, _| table.promote(now, limit))
    }

    async fn expire(&self, before: BTreeMap<PipelineName, Timestamp>, limit: u32) -> Result<Vec<JobId>> {
        self.with(|table, now| table.expire(&before, limit, now))
    }

    async fn register(&self, node: NodeId) -> Result<Recovered> {
        self.with(|table, now| table.register(node, now))
    }

    async fn heartbeat(&self, node: NodeId) -> Result<()> {
        self.with(|table, now| {
            table.gone.remove(&node);
            table.nodes.insert(node, now);
            Ok(())
        })
    }

    async fn reclaim(&self, lease: Duration) -> Result<Recovered> {
        self.with(|table, now| table.reclaim(lease, self.node, now))
    }

    async fn deregister(&self, node: NodeId) -> Result<()> {
        self.with(|table, now| table.deregister(node, now))
    }

    async fn nodes(&self) -> Result<BTreeMap<NodeId, Option<Timestamp>>> {
        let table = self.table();
        let gone = table.gone.iter().map(|node| (*node, None));
        Ok(gone.chain(table.nodes.iter().map(|(node, seen)| (*node, Some(*seen)))).collect())
    }

    async fn prune(&self, cut: PruneCut, limit: u32) -> Result<Pruned> {
        self.with(|table, _| Ok(table.prune(&cut, limit)))
    }

    async fn job(&self, id: JobId) -> Result<Option<JobRecord>> {
        Ok(self.table().record(id))
    }

    async fn job_by_key(&self, pipeline: &PipelineName, caller: &str, key: &str) -> Result<Option<JobId>> {
        Ok(self.table().by_key(pipeline, caller, key))
    }

    async fn list(&self, query: JobQuery) -> Result<JobPage> {
        Ok(self.table().list(&query))
    }

    async fn counts(&self) -> Result<BTreeMap<(PipelineName, State), u64>> {
        Ok(self.table().counts.clone())
    }

    async fn oldest_queued(&self) -> Result<BTreeMap<PipelineName, Timestamp>> {
        Ok(self.table().oldest_queued())
    }

    async fn batch_counts(&self, batch: &str) -> Result<BTreeMap<State, u64>> {
        Ok(self.table().batches.get(batch).cloned().unwrap_or_default())
    }

    async fn spending(&self, since: Timestamp) -> Result<BTreeMap<PipelineName, Usd>> {
        Ok(self.table().spending(since))
    }

    async fn traffic(&self, since: Timestamp) -> Result<BTreeMap<TrafficKey, Traffic>> {
        Ok(self.table().traffic(since))
    }

    async fn spending_by_caller(&self, since: Timestamp) -> Result<BTreeMap<String, Usd>> {
        Ok(self.table().spending_by_caller(since))
    }

    async fn recorded(&self, query: RecordedQuery) -> Result<RecordedPage> {
        Ok(self.table().recorded(&query))
    }

    async fn ledger(&self, query: LedgerQuery) -> Result<LedgerPage> {
        Ok(self.table().ledger_page(&query))
    }

    async fn ends(&self, since: Timestamp) -> Result<BTreeMap<(PipelineName, State), u64>> {
        Ok(self.table().ends(since))
    }

    async fn outcomes(&self, jobs: Vec<JobId>) -> Result<Vec<Option<JobOutcome>>> {
        let table = self.table();
        Ok(jobs.into_iter().map(|id| table.outcome(id)).collect())
    }

    async fn apply_if(
        &self,
        conditions: Vec<Condition>,
        changes: Vec<DocumentChange>,
        audit: Option<AuditEntry>,
    ) -> Result<bool> {
        let now = self.clock.now();
        let done = self.table().apply_if(&conditions, changes, audit, now);
        if done {
            self.hints.documents_changed();
        }
        Ok(done)
    }

    async fn revision(&self) -> Result<u64> {
        Ok(self.table().revision)
    }

    fn document_changes(&self) -> watch::Receiver<u64> {
        self.hints.document_changes()
    }

    async fn lead(&self, name: &str, node: NodeId, lease: Duration) -> Result<Option<Lead>> {
        let now = self.clock.now();
        Ok(self.table().lead(name, node, lease, now))
    }

    async fn resign(&self, lead: &Lead) -> Result<()> {
        self.table().resign(lead);
        Ok(())
    }

    async fn documents(&self, kind: DocumentKind) -> Result<BTreeMap<String, serde_json::Value>> {
        Ok(self.table().documents.get(&kind).cloned().unwrap_or_default())
    }

    async fn document(&self, kind: DocumentKind, key: &str) -> Result<Option<serde_json::Value>> {
        Ok(self.table().documents.get(&kind).and_then(|documents| documents.get(key)).cloned())
    }

    async fn documents_page(&self, page: DocumentPage) -> Result<Vec<(String, serde_json::Value)>> {
        Ok(self.table().documents_page(&page))
    }

    async fn audit(&self, since: Timestamp, limit: u32) -> Result<Vec<AuditEntry>> {
        Ok(self.table().audit_since(since, limit))
    }

    async fn observe(&self, observations: Vec<NewObservation>) -> Result<()> {
        let now = self.clock.now();
        self.table().observe_all(observations, now);
        Ok(())
    }

    async fn observations(&self, query: ObservationQuery) -> Result<Vec<Observation>> {
        Ok(self.table().read_observations(&query))
    }

    async fn last_observation(&self, pipeline: &PipelineName, rollout: &RolloutName) -> Result<u64> {
        Ok(self.table().last_observation(pipeline, rollout))
    }

    async fn forget_observations(
        &self,
        pipeline: &PipelineName,
        rollout: &RolloutName,
        through: u64,
        limit: u32,
    ) -> Result<u64> {
        Ok(self.table().forget_observations(pipeline, rollout, through, limit))
    }

    async fn write_content(&self, id: &str, at: u64, bytes: Bytes) -> Result<()> {
        self.shelf.write(id, at, &bytes)
    }

    async fn seal_content(&self, id: &str) -> Result<()> {
        self.shelf.seal(id);
        Ok(())
    }

    async fn read_content(&self, id: &str, at: u64, most: usize) -> Result<Option<Bytes>> {
        Ok(self.shelf.read(id, at, most))
    }

    async fn delete_content(&self, id: &str) -> Result<()> {
        self.shelf.delete(id);
        Ok(())
    }

    async fn contents(&self) -> Result<Vec<String>> {
        Ok(self.shelf.ids())
    }
}
