//! Where jobs, their ledger and the operators' levers are kept.
//!
//! Invariant: what a method acknowledges is durable. Every write to a running job is compare-and-set on its fence;
//! attempt rows close by attempt id whoever holds the fence, because a stale worker's bill is still a bill.
//! The store's own clock judges leases. Stores decide nothing: they apply [`crate::job::state::next`].

mod codes;
mod conditions;
#[cfg(test)]
mod conformance;
mod crash;
mod document;
mod hints;
mod ledger;
pub mod memory;
pub mod moving;
mod notice;
mod observations;
mod paging;
pub mod postgres;
pub mod records;
pub mod sqlite;
mod traffic;
mod transfer;

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use tokio::sync::{broadcast, watch};

pub use conditions::{Condition, Lead};
pub use document::{DocumentChange, DocumentKind, DocumentPage};
pub use ledger::{
    LEDGER_MAX, LedgerCursor, LedgerPage, LedgerQuery, LedgerRow, RECORDED_BYTES, RECORDED_MAX, RecordedJob,
    RecordedPage, RecordedQuery,
};
pub use memory::MemoryStore;
pub use notice::{Due, Notice};
pub use observations::{Ended, NewObservation, Observation, ObservationQuery, Observed, Told};
pub use postgres::PostgresStore;
pub use records::*;
pub use sqlite::SqliteStore;
pub use traffic::{Traffic, TrafficKey};

use crate::{
    clock::Timestamp,
    ids::{JobId, NodeId},
    job::State,
    names::{PipelineName, RolloutName},
};

/// Rows that one call moves or deletes of a kind at most: a larger `limit` counts as this. Keeps a transaction to some ten
/// milliseconds.
pub const MOVE_MAX: u32 = 1_024;

/// Why a store could not do what it was asked. Callers retry only [`StoreError::Busy`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Passing: a full queue, a lock, a lost connection.
    #[error("the store is busy: {0}")]
    Busy(String),
    /// No space, or an I/O error: nothing was written, and nothing will be until it is mended.
    #[error("the store cannot write: {0}")]
    Unwritable(String),
    /// Another process has it; a command may ask that one instead.
    #[error("the store cannot be used: {0}")]
    Held(String),
    /// Its file is newer than this program, or another program's.
    #[error("the store cannot be used: {0}")]
    Unusable(String),
    /// Its contents are not what they must be.
    #[error("the store is damaged: {0}")]
    Damaged(String),
}

/// What a store method gives.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// A durable queue with its ledger. Every method is one transaction, or a few that each leave a whole state.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The store's own time.
    async fn now(&self) -> Result<Timestamp>;

    /// Who this daemon is to the store: the same after a restart on the same store.
    fn local_node(&self) -> NodeId;

    // -- hints -----------------------------------------------------------------------------------------------------

    /// Changes when jobs may have become ready. A hint: polling stays the truth.
    fn wakeups(&self) -> watch::Receiver<u64>;

    /// Tells which jobs ended. A hint that may be lost: ask the store on `Lagged`, and now and then. One listener in a
    /// process is meant, who tells those that wait for single jobs.
    fn endings(&self) -> broadcast::Receiver<JobId>;

    // -- submitting ------------------------------------------------------------------------------------------------

    /// Adds jobs; one answer for each, in order. Durable when it returns. Many jobs may be added in several transactions:
    /// after an error some may be there, and adding them again (same ids or same keys) finds them.
    async fn submit(&self, jobs: Vec<NewJob>) -> Result<Vec<Submitted>>;

    /// Adds a job that is running already, here, with its first attempt begun, in one commit: for a caller who waits. The
    /// job's fence is [`Fence::FIRST`], and so must be the intent's. Should this daemon die, the job is failed and not
    /// carried on, because its caller is gone too.
    async fn submit_running(&self, job: NewJob, node: NodeId, intent: Intent) -> Result<()>;

    // -- working ---------------------------------------------------------------------------------------------------

    /// Claims ready jobs, lowest `order_key` first over all the pipelines asked for, within each one's limit.
    /// With `suspects`, claims at most one suspect, and none while the node has one in flight; without, claims no suspect.
    /// Await it to its end: what is claimed for a caller that has gone stays claimed until the node (de)registers.
    async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>>;

    /// Writes intents before bytes leave; for each, whether the fence still held (when not, nothing was written).
    /// Beginning an attempt twice under the same fence is one attempt.
    async fn begin(&self, intents: Vec<Intent>) -> Result<Vec<bool>>;

    /// Closes attempts and moves jobs on; for each, what became of it. However a job ends, here or by another method, the
    /// [`Notice`] for its callback is written in the same transaction. An attempt is closed once: what came first stays, but
    /// that what nobody saw (`unknown`) takes the end, and the bill, that its worker reports later.
    /// An attempt whose end was seen ends the row of crashes that would make its job a suspect.
    async fn settle(&self, settlements: Vec<Settlement>) -> Result<Vec<Settled>>;

    // -- steering --------------------------------------------------------------------------------------------------

    /// Cancels live jobs. A running job's fence is taken from its worker.
    async fn cancel(&self, jobs: Vec<JobId>) -> Result<Vec<Cancelled>>;

    /// Puts individually held jobs of a pipeline (of all, when `None`) back into the queue, at most `limit`; how many.
    /// The time each was held is added to its `expiry_key`.
    async fn release(&self, pipeline: Option<PipelineName>, limit: u32) -> Result<u64>;

    // -- upkeep ----------------------------------------------------------------------------------------------------

    /// Moves waiting jobs whose time has come into the queue, at most `limit`.
    async fn promote(&self, now: Timestamp, limit: u32) -> Result<Promoted>;

    /// Expires live jobs whose `expiry_key` is at or before the given moment of their pipeline, at most `limit`; their ids.
    /// A running job's fence is taken from its worker. A held job's clock stands still, so it does not expire before it is
    /// released. Pipelines not named are not looked at.
    async fn expire(&self, before: BTreeMap<PipelineName, Timestamp>, limit: u32) -> Result<Vec<JobId>>;

    /// Announces a daemon that starts, takes back what its earlier life left running, and closes the attempts of that
    /// life as `unknown`. Jobs in flight then become suspects or are quarantined, see [`Recovered`].
    async fn register(&self, node: NodeId) -> Result<Recovered>;

    /// Says that the node lives.
    async fn heartbeat(&self, node: NodeId) -> Result<()>;

    /// Takes back what nodes silent for longer than `lease` left running. Never from [`Store::local_node`]: it is asking.
    async fn reclaim(&self, lease: Duration) -> Result<Recovered>;

    /// Says that the node stopped in good order. What it still had goes back to the queue without counting a crash, and
    /// open attempts close as `unknown`.
    async fn deregister(&self, node: NodeId) -> Result<()>;

    /// The daemons that the store has heard of, and when last; `None` for one that stopped, or was given up.
    async fn nodes(&self) -> Result<BTreeMap<NodeId, Option<Timestamp>>>;

    /// Deletes contents of ended jobs, then the jobs, then the ledger, whose time has come; at most `limit` rows of each. A
    /// store that keeps ended jobs by the day may drop a day at once, and may let jobs of a busy day wait for that, no
    /// longer than two days.
    async fn prune(&self, cut: PruneCut, limit: u32) -> Result<Pruned>;

    // -- reading ---------------------------------------------------------------------------------------------------

    /// One job with its contents and attempts.
    async fn job(&self, id: JobId) -> Result<Option<JobRecord>>;

    /// The job of an idempotency key.
    async fn job_by_key(&self, pipeline: &PipelineName, caller: &str, key: &str) -> Result<Option<JobId>>;

    /// Jobs newest first, without contents.
    async fn list(&self, query: JobQuery) -> Result<JobPage>;

    /// How many jobs of each pipeline stand where. Cheap: kept, not counted.
    async fn counts(&self) -> Result<BTreeMap<(PipelineName, State), u64>>;

    /// When the oldest ready job of each pipeline was submitted, as far as the front of its queue tells (an older job of
    /// low priority may stand further back).
    async fn oldest_queued(&self) -> Result<BTreeMap<PipelineName, Timestamp>>;

    /// How many jobs of a batch stand where; empty when no job names it.
    async fn batch_counts(&self, batch: &str) -> Result<BTreeMap<State, u64>>;

    /// Spending of each pipeline since a moment, over ended attempts.
    async fn spending(&self, since: Timestamp) -> Result<BTreeMap<PipelineName, crate::money::Usd>>;

    /// Sums of ended calls by pipeline, target and model, over the hours since the one that `since` is in. Cheap: kept, not
    /// counted.
    async fn traffic(&self, since: Timestamp) -> Result<BTreeMap<TrafficKey, Traffic>>;

    /// Spending of each caller since a moment, over ended attempts of jobs that are kept; nobody's is left out.
    async fn spending_by_caller(&self, since: Timestamp) -> Result<BTreeMap<String, crate::money::Usd>>;

    /// Recorded jobs newest first, as far as rules look at them.
    async fn recorded(&self, query: RecordedQuery) -> Result<RecordedPage>;

    /// Ended calls by the time of their end. The ledger outlives its jobs.
    async fn ledger(&self, query: LedgerQuery) -> Result<LedgerPage>;

    /// How many jobs that are kept ended since a moment, by pipeline and state.
    async fn ends(&self, since: Timestamp) -> Result<BTreeMap<(PipelineName, State), u64>>;

    /// How jobs ended, for each, in order; `None` for those unknown.
    async fn outcomes(&self, jobs: Vec<JobId>) -> Result<Vec<Option<JobOutcome>>>;

    // -- documents: small durable state of operators and daemons -----------------------------------------------------

    /// Changes documents and writes the audit entry in the same transaction.
    async fn apply(&self, changes: Vec<DocumentChange>, audit: Option<AuditEntry>) -> Result<()> {
        self.apply_if(Vec::new(), changes, audit).await.map(drop)
    }

    /// The same, if all conditions hold then; whether they did. When one does not, nothing is written.
    async fn apply_if(
        &self,
        conditions: Vec<Condition>,
        changes: Vec<DocumentChange>,
        audit: Option<AuditEntry>,
    ) -> Result<bool>;

    /// A number that every change of documents changes, whoever made it: the same number, the same documents.
    async fn revision(&self) -> Result<u64>;

    /// Changes when documents may have been changed. A hint: [`Store::revision`] stays the truth.
    fn document_changes(&self) -> watch::Receiver<u64>;

    /// All documents of a kind, by key.
    async fn documents(&self, kind: DocumentKind) -> Result<BTreeMap<String, serde_json::Value>>;

    /// One document.
    async fn document(&self, kind: DocumentKind, key: &str) -> Result<Option<serde_json::Value>>;

    /// Some documents of a kind in the order of their keys.
    async fn documents_page(&self, page: DocumentPage) -> Result<Vec<(String, serde_json::Value)>>;

    /// Audit entries since a moment, oldest first, at most `limit`.
    async fn audit(&self, since: Timestamp, limit: u32) -> Result<Vec<AuditEntry>>;

    // -- observations: what happens to rollouts with steps --------------------------------------------------------------

    /// Writes down what happens beside the life of jobs. What happens with it comes in intents and settlements, and is
    /// written in the same transaction.
    async fn observe(&self, observations: Vec<NewObservation>) -> Result<()>;

    /// A rollout's observations behind a number, in order. Whoever has read them has everything up to the last one's number.
    async fn observations(&self, query: ObservationQuery) -> Result<Vec<Observation>>;

    /// The number of a rollout's newest observation; 0 before the first.
    async fn last_observation(&self, pipeline: &PipelineName, rollout: &RolloutName) -> Result<u64>;

    /// Deletes observations up to a number, oldest first, at most `limit`, and never the newest; how many.
    async fn forget_observations(
        &self,
        pipeline: &PipelineName,
        rollout: &RolloutName,
        through: u64,
        limit: u32,
    ) -> Result<u64>;

    // -- contents: bytes too many for a row ---------------------------------------------------------------------------

    /// Writes a piece of a content that is not sealed, behind the `at` bytes that it has; the first piece makes it.
    async fn write_content(&self, id: &str, at: u64, bytes: bytes::Bytes) -> Result<()>;

    /// Makes a content durable and whole. Only sealed contents are read. An empty one may be sealed without a piece.
    async fn seal_content(&self, id: &str) -> Result<()>;

    /// At most `most` bytes of a sealed content from `at` on; empty behind its end. `None` when there is no such content.
    async fn read_content(&self, id: &str, at: u64, most: usize) -> Result<Option<bytes::Bytes>>;

    /// Deletes a content, sealed or not; none is fine too.
    async fn delete_content(&self, id: &str) -> Result<()>;

    /// The ids of all contents, sealed or not.
    async fn contents(&self) -> Result<Vec<String>>;

    // -- one among several daemons -----------------------------------------------------------------------------------

    /// Takes the lead of `name` for `lease` from now, or keeps it for as long from now; `None` while another node has it.
    /// The token changes whenever the lead was not held without a break, so that writes of a former leader can be told,
    /// see [`Condition::Leads`]. A node that registers, deregisters or is reclaimed loses its leads.
    async fn lead(&self, name: &str, node: NodeId, lease: Duration) -> Result<Option<Lead>>;

    /// Gives a lead back, if it is still this one.
    async fn resign(&self, lead: &Lead) -> Result<()>;
}
