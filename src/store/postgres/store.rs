//! The methods of [`Store`], each handed to the room that does it.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{broadcast, watch};

use super::{PostgresStore, claim, documents, ledger, observe, past, prune, recover, rows, shelf, steer, sums};
use crate::{
    clock::Timestamp,
    ids::{JobId, NodeId},
    job::State,
    money::Usd,
    names::{PipelineName, RolloutName},
    store::{
        AuditEntry, Cancelled, ClaimRequest, Claimed, Condition, DocumentChange, DocumentKind, DocumentPage, Intent,
        JobOutcome, JobPage, JobQuery, JobRecord, Lead, LedgerPage, LedgerQuery, NewJob, NewObservation, Next,
        Observation, ObservationQuery, Promoted, PruneCut, Pruned, RecordedPage, RecordedQuery, Recovered, Result,
        Settled, Settlement, Store, StoreError, Submitted, Traffic, TrafficKey,
    },
};

/// Jobs and bytes of bodies that one submitting transaction takes; larger submits are several.
const SUBMIT_JOBS: usize = 512;
const SUBMIT_BYTES: usize = 8 << 20;

#[async_trait]
impl Store for PostgresStore {
    async fn now(&self) -> Result<Timestamp> {
        self.link()
            .with_tries(|link| async move {
                let tx = link.look().await?;
                let now = tx.now;
                tx.done().await?;
                Ok(now)
            })
            .await
    }

    fn local_node(&self) -> NodeId {
        self.home.node
    }

    fn wakeups(&self) -> watch::Receiver<u64> {
        self.inner.hints.wakeups()
    }

    fn endings(&self) -> broadcast::Receiver<JobId> {
        self.inner.hints.endings()
    }

    async fn submit(&self, jobs: Vec<NewJob>) -> Result<Vec<Submitted>> {
        let mut answers = Vec::with_capacity(jobs.len());
        let mut some = Vec::with_capacity(jobs.len().min(SUBMIT_JOBS));
        let mut bytes = 0;
        for job in jobs {
            if some.len() >= SUBMIT_JOBS || (bytes > 0 && bytes + job.body.len() > SUBMIT_BYTES) {
                answers.extend(self.submit_some(std::mem::take(&mut some), bytes).await?);
                bytes = 0;
            }
            bytes += job.body.len();
            some.push(job);
        }
        if !some.is_empty() {
            answers.extend(self.submit_some(some, bytes).await?);
        }
        Ok(answers)
    }

    async fn submit_running(&self, job: NewJob, node: NodeId, intent: Intent) -> Result<()> {
        let (names, job, intent) = (&self.inner.names, &job, &intent);
        self.link().with_tries(|link| claim::submit_running(link, names, job, node, intent)).await
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>> {
        let inner = self.inner.clone();
        // In a task of its own: what is claimed is handed over, or was never claimed.
        let claiming = tokio::spawn(async move {
            inner.link.with_tries(|link| claim::claim(link, &inner.names, &inner.orphans, &request)).await
        });
        claiming.await.map_err(|error| StoreError::Busy(format!("claiming broke off: {error}")))?
    }

    async fn begin(&self, intents: Vec<Intent>) -> Result<Vec<bool>> {
        self.begins.ask(intents, 0).await
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<Vec<Settled>> {
        let bytes = settlements.iter().map(|settlement| match &settlement.next {
            Next::Succeed(result) => result.len(),
            _ => 0,
        });
        let bytes = bytes.sum();
        self.settles.ask(settlements, bytes).await
    }

    async fn cancel(&self, jobs: Vec<JobId>) -> Result<Vec<Cancelled>> {
        let mut answers = Vec::with_capacity(jobs.len());
        for some in jobs.chunks(SUBMIT_JOBS) {
            let done = self.link().with_tries(|link| steer::cancel(link, some)).await?;
            answers.extend(self.inner.told(done));
        }
        Ok(answers)
    }

    async fn release(&self, pipeline: Option<PipelineName>, limit: u32) -> Result<u64> {
        let names = &self.inner.names;
        let done = self.link().with_tries(|link| steer::release(link, names, pipeline.as_ref(), limit)).await?;
        Ok(self.inner.told(done))
    }

    async fn promote(&self, now: Timestamp, limit: u32) -> Result<Promoted> {
        let done = self.link().with_tries(|link| steer::promote(link, now, limit)).await?;
        Ok(self.inner.told(done))
    }

    async fn expire(&self, before: BTreeMap<PipelineName, Timestamp>, limit: u32) -> Result<Vec<JobId>> {
        let (names, before) = (&self.inner.names, &before);
        let done = self.link().with_tries(|link| steer::expire(link, names, before, limit)).await?;
        Ok(self.inner.told(done))
    }

    async fn register(&self, node: NodeId) -> Result<Recovered> {
        let names = &self.inner.names;
        let done = self.link().with_tries(|link| recover::register(link, names, node)).await?;
        Ok(self.inner.told(done))
    }

    async fn heartbeat(&self, node: NodeId) -> Result<()> {
        self.link().with_tries(|link| recover::heartbeat(link, node)).await
    }

    async fn reclaim(&self, lease: Duration) -> Result<Recovered> {
        let names = &self.inner.names;
        let mut all = Recovered::default();
        while let Some(done) =
            self.link().with_tries(|link| recover::reclaim_one(link, names, lease, self.home.node)).await?
        {
            let one = self.inner.told(done);
            all.requeued += one.requeued;
            all.unknown_attempts += one.unknown_attempts;
            all.suspects += one.suspects;
            all.quarantined.extend(one.quarantined);
            all.unseen.extend(one.unseen);
        }
        Ok(all)
    }

    async fn deregister(&self, node: NodeId) -> Result<()> {
        let names = &self.inner.names;
        let news = self.link().with_tries(|link| recover::deregister(link, names, node)).await?;
        self.inner.told(((), news));
        Ok(())
    }

    async fn nodes(&self) -> Result<BTreeMap<NodeId, Option<Timestamp>>> {
        self.link().with_tries(documents::nodes).await
    }

    async fn prune(&self, cut: PruneCut, limit: u32) -> Result<Pruned> {
        let (names, cut) = (&self.inner.names, &cut);
        self.link().with_tries(|link| prune::prune(link, names, cut, limit)).await
    }

    async fn job(&self, id: JobId) -> Result<Option<JobRecord>> {
        let names = &self.inner.names;
        self.link().with_tries(|link| rows::record(link, names, id)).await
    }

    async fn job_by_key(&self, pipeline: &PipelineName, caller: &str, key: &str) -> Result<Option<JobId>> {
        let names = &self.inner.names;
        self.link().with_tries(|link| sums::by_key(link, names, pipeline, caller, key)).await
    }

    async fn list(&self, query: JobQuery) -> Result<JobPage> {
        let (names, query) = (&self.inner.names, &query);
        self.link().with_tries(|link| rows::list(link, names, query)).await
    }

    async fn counts(&self) -> Result<BTreeMap<(PipelineName, State), u64>> {
        self.link().with_tries(sums::counts).await
    }

    async fn oldest_queued(&self) -> Result<BTreeMap<PipelineName, Timestamp>> {
        self.link().with_tries(sums::oldest_queued).await
    }

    async fn batch_counts(&self, batch: &str) -> Result<BTreeMap<State, u64>> {
        self.link().with_tries(|link| sums::batch_counts(link, batch)).await
    }

    async fn spending(&self, since: Timestamp) -> Result<BTreeMap<PipelineName, Usd>> {
        self.link()
            .with_tries(|link| async move {
                let tx = link.look().await?;
                let spent = ledger::spending(&tx, since).await?;
                tx.done().await?;
                Ok(spent)
            })
            .await
    }

    async fn spending_by_caller(&self, since: Timestamp) -> Result<BTreeMap<String, Usd>> {
        self.link()
            .with_tries(|link| async move {
                let tx = link.look().await?;
                let spent = ledger::spending_by_caller(&tx, since).await?;
                tx.done().await?;
                Ok(spent)
            })
            .await
    }

    async fn recorded(&self, query: RecordedQuery) -> Result<RecordedPage> {
        let (names, query) = (&self.inner.names, &query);
        self.link().with_tries(|link| past::recorded(link, names, query)).await
    }

    async fn ledger(&self, query: LedgerQuery) -> Result<LedgerPage> {
        let names = &self.inner.names;
        self.link().with_tries(|link| past::ledger(link, names, query)).await
    }

    async fn ends(&self, since: Timestamp) -> Result<BTreeMap<(PipelineName, State), u64>> {
        let names = &self.inner.names;
        self.link().with_tries(|link| past::ends(link, names, since)).await
    }

    async fn outcomes(&self, jobs: Vec<JobId>) -> Result<Vec<Option<JobOutcome>>> {
        let jobs = &jobs;
        self.link().with_tries(|link| rows::outcomes(link, jobs)).await
    }

    async fn traffic(&self, since: Timestamp) -> Result<BTreeMap<TrafficKey, Traffic>> {
        self.link().with_tries(|link| sums::traffic(link, since)).await
    }

    async fn apply_if(
        &self,
        conditions: Vec<Condition>,
        changes: Vec<DocumentChange>,
        audit: Option<AuditEntry>,
    ) -> Result<bool> {
        let (conditions, changes, audit) = (&conditions, &changes, audit.as_ref());
        let done = self.link().with_tries(|link| documents::apply(link, conditions, changes, audit)).await?;
        if done {
            self.inner.hints.documents_changed();
            self.inner.mouth.tell_documents();
        }
        Ok(done)
    }

    async fn documents(&self, kind: DocumentKind) -> Result<BTreeMap<String, serde_json::Value>> {
        self.link().with_tries(|link| documents::documents(link, kind)).await
    }

    async fn document(&self, kind: DocumentKind, key: &str) -> Result<Option<serde_json::Value>> {
        self.link().with_tries(|link| documents::document(link, kind, key)).await
    }

    async fn documents_page(&self, page: DocumentPage) -> Result<Vec<(String, serde_json::Value)>> {
        let page = &page;
        self.link().with_tries(|link| documents::page(link, page)).await
    }

    async fn observe(&self, observations: Vec<NewObservation>) -> Result<()> {
        let (names, observations) = (&self.inner.names, &observations);
        self.link().with_tries(|link| observe::observe(link, names, observations)).await
    }

    async fn observations(&self, query: ObservationQuery) -> Result<Vec<Observation>> {
        let (names, query) = (&self.inner.names, &query);
        self.link().with_tries(|link| observe::read(link, names, query)).await
    }

    async fn last_observation(&self, pipeline: &PipelineName, rollout: &RolloutName) -> Result<u64> {
        let names = &self.inner.names;
        self.link().with_tries(|link| observe::last(link, names, pipeline, rollout)).await
    }

    async fn forget_observations(
        &self,
        pipeline: &PipelineName,
        rollout: &RolloutName,
        through: u64,
        limit: u32,
    ) -> Result<u64> {
        let names = &self.inner.names;
        self.link().with_tries(|link| observe::forget(link, names, (pipeline, rollout), through, limit)).await
    }

    async fn write_content(&self, id: &str, at: u64, bytes: Bytes) -> Result<()> {
        let bytes = &bytes;
        self.link().with_tries(|link| shelf::write(link, id, at, bytes)).await
    }

    async fn seal_content(&self, id: &str) -> Result<()> {
        self.link().with_tries(|link| shelf::seal(link, id)).await
    }

    async fn read_content(&self, id: &str, at: u64, most: usize) -> Result<Option<Bytes>> {
        self.link().with_tries(|link| shelf::read(link, id, at, most)).await
    }

    async fn delete_content(&self, id: &str) -> Result<()> {
        self.link().with_tries(|link| shelf::delete(link, id)).await
    }

    async fn contents(&self) -> Result<Vec<String>> {
        self.link().with_tries(shelf::ids).await
    }

    async fn revision(&self) -> Result<u64> {
        self.link().with_tries(documents::revision).await
    }

    fn document_changes(&self) -> watch::Receiver<u64> {
        self.inner.hints.document_changes()
    }

    async fn lead(&self, name: &str, node: NodeId, lease: Duration) -> Result<Option<Lead>> {
        self.link().with_tries(|link| documents::lead(link, name, node, lease)).await
    }

    async fn resign(&self, lead: &Lead) -> Result<()> {
        self.link().with_tries(|link| documents::resign(link, lead)).await
    }

    async fn audit(&self, since: Timestamp, limit: u32) -> Result<Vec<AuditEntry>> {
        self.link().with_tries(|link| documents::audit(link, since, limit)).await
    }
}
