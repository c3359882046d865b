//! The embedded store: one SQLite file, one writer thread with group commit, a few readers.
//!
//! Invariant: the file has one daemon at a time; what a method acknowledges was synced to disk; only the writer writes, and
//! it alone copies the write-ahead log into the file.

mod backup;
mod blobs;
mod claim;
mod documents;
mod export;
mod home;
mod list;
mod names;
mod observe;
mod past;
mod prune;
mod readers;
mod recover;
mod rows;
mod schema;
mod session;
mod settle;
mod steer;
mod submit;
mod tally;
#[cfg(test)]
mod tests;
mod trouble;
mod writer;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, OpenFlags, config::DbConfig};
use tokio::sync::{broadcast, watch};

pub use self::backup::{Copied, backup};
use self::{blobs::Blobs, home::Home, readers::Readers, session::Session, trouble::Trouble, writer::Writer};
use super::{
    AuditEntry, Cancelled, ClaimRequest, Claimed, Condition, DocumentChange, DocumentKind, DocumentPage, Intent,
    JobOutcome, JobPage, JobQuery, JobRecord, Lead, LedgerPage, LedgerQuery, NewJob, NewObservation, Observation,
    ObservationQuery, Promoted, PruneCut, Pruned, RecordedPage, RecordedQuery, Recovered, Result, Settled, Settlement,
    Store, StoreError, Submitted, Traffic, TrafficKey, codes,
    hints::Hints,
    transfer::{Part, Rows},
};
use crate::{
    clock::{SharedClock, Timestamp},
    ids::{JobId, NodeId},
    job::State,
    money::Usd,
    names::{PipelineName, RolloutName},
};

/// The oldest SQLite whose write-ahead log can be trusted with several connections.
const OLDEST_SQLITE: i32 = 3_051_003;

/// How long a lock of another program is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Page cache of the writer, in KiB.
const WRITER_CACHE: i64 = 16_384;

/// What the log file shrinks to when it starts anew, in bytes.
const LOG_KEPT: i64 = 64 << 20;

/// Prepared statements kept by each connection: more than there are.
const STATEMENTS: usize = 128;

/// Jobs and bytes of bodies that one submitting transaction takes; larger submits are several.
const SUBMIT_JOBS: usize = 512;
const SUBMIT_BYTES: usize = 8 << 20;

/// A store in one SQLite file.
pub struct SqliteStore {
    // Readers close first: the writer's connection is then the last, and tidies up.
    readers: Readers,
    writer: Writer,
    blobs: Blobs,
    clock: SharedClock,
    node: NodeId,
    epoch: u64,
    counts: session::Counts,
    hints: Arc<Hints>,
}

impl SqliteStore {
    /// Opens the file, or makes it with its folder. Blocks until the disk has answered.
    ///
    /// # Errors
    /// [`StoreError`] naming the file and what to do when it is another daemon's, another program's, newer than this program,
    /// damaged, or cannot be written.
    pub fn open(path: &Path, clock: SharedClock) -> Result<Self> {
        if rusqlite::version_number() < OLDEST_SQLITE {
            return Err(StoreError::Unusable(format!(
                "this program was built with SQLite {}, and needs 3.51.3 or newer",
                rusqlite::version()
            )));
        }
        let home = Home::take(path)?;
        let path = home.path.clone();
        let fault = |trouble: Trouble| trouble.describe(&path);
        let mut conn = connect(&path).map_err(|error| fault(error.into()))?;
        schema::ensure(&mut conn, &path.display().to_string()).map_err(|error| match error {
            schema::SchemaTrouble::Store(error) => error,
            schema::SchemaTrouble::Sql(trouble) => fault(trouble),
        })?;
        let (node, epoch) = begin_epoch(&mut conn).map_err(fault)?;
        let counts = session::Counts::default();
        let hints = Arc::new(Hints::new());
        let session = Session::new(conn, clock.clone(), node, counts.clone(), hints.clone()).map_err(fault)?;
        let readers = Readers::start(&path)?;
        let writer = Writer::start(home, session)?;
        let blobs = Blobs::beside(&path);
        tracing::debug!(path = %path.display(), %node, epoch, "the store is open");
        Ok(Self { readers, writer, blobs, clock, node, epoch, counts, hints })
    }

    /// How many times the file has been opened for work.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Rows of a kind behind a cursor, for another store.
    pub(super) async fn export(&self, part: Part, after: String, limit: usize) -> Result<(Rows, Option<String>)> {
        self.readers.ask(move |conn| export::page(conn, part, &after, limit)).await
    }

    /// What tells whether anybody worked on the file.
    pub(super) async fn fingerprint(&self) -> Result<String> {
        self.readers.ask(export::fingerprint).await
    }

    async fn submit_some(&self, jobs: Vec<NewJob>) -> Result<Vec<Submitted>> {
        self.writer.ask(jobs.len(), move |session| session.submit(&jobs)).await
    }
}

/// Opens the writer's connection.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    tune(&conn, WRITER_CACHE)?;
    // Deleted prompts are overwritten, not just unlinked.
    conn.pragma_update(None, "secure_delete", true)?;
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "journal_size_limit", LOG_KEPT)?;
    Ok(conn)
}

/// What all connections have in common.
fn tune(conn: &Connection, cache_kib: i64) -> rusqlite::Result<()> {
    conn.busy_timeout(LOCK_WAIT)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    // Plans follow from the text of a statement alone; otherwise some would be compiled anew with every parameter.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    conn.pragma_update(None, "cache_size", -cache_kib)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.pragma_update(None, "foreign_keys", false)?;
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(())
}

/// Counts this start, and reads or makes the node id of this file.
fn begin_epoch(conn: &mut Connection) -> Result<(NodeId, u64), Trouble> {
    let change = conn.transaction()?;
    change.execute(
        "INSERT INTO meta (key, value) VALUES ('node', ?1) ON CONFLICT DO NOTHING",
        [NodeId::generate().as_bytes()],
    )?;
    change
        .execute("INSERT INTO meta (key, value) VALUES ('epoch', 1) ON CONFLICT DO UPDATE SET value = value + 1", [])?;
    let node = change.query_row("SELECT value FROM meta WHERE key = 'node'", [], |row| row.get(0))?;
    let epoch = change.query_row("SELECT value FROM meta WHERE key = 'epoch'", [], |row| row.get(0))?;
    change.commit()?;
    Ok((NodeId::from_bytes(node), codes::unsigned(epoch)))
}

#[async_trait]
impl Store for SqliteStore {
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
        let mut answers = Vec::with_capacity(jobs.len());
        let mut some = Vec::with_capacity(jobs.len().min(SUBMIT_JOBS));
        let mut bytes = 0;
        for job in jobs {
            if some.len() >= SUBMIT_JOBS || (bytes > 0 && bytes + job.body.len() > SUBMIT_BYTES) {
                answers.extend(self.submit_some(std::mem::take(&mut some)).await?);
                bytes = 0;
            }
            bytes += job.body.len();
            some.push(job);
        }
        if !some.is_empty() {
            answers.extend(self.submit_some(some).await?);
        }
        Ok(answers)
    }

    async fn submit_running(&self, job: NewJob, node: NodeId, intent: Intent) -> Result<()> {
        self.writer.ask(1, move |session| session.submit_running(&job, node, &intent)).await
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>> {
        self.writer.ask(request.max as usize, move |session| session.claim(&request)).await
    }

    async fn begin(&self, intents: Vec<Intent>) -> Result<Vec<bool>> {
        self.writer.ask(intents.len(), move |session| session.begin(&intents)).await
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<Vec<Settled>> {
        self.writer.ask(settlements.len(), move |session| session.settle(&settlements)).await
    }

    async fn cancel(&self, jobs: Vec<JobId>) -> Result<Vec<Cancelled>> {
        let mut answers = Vec::with_capacity(jobs.len());
        for some in jobs.chunks(SUBMIT_JOBS) {
            let some = some.to_vec();
            answers.extend(self.writer.ask(some.len(), move |session| session.cancel(&some)).await?);
        }
        Ok(answers)
    }

    async fn release(&self, pipeline: Option<PipelineName>, limit: u32) -> Result<u64> {
        self.writer.ask(limit as usize, move |session| session.release(pipeline.as_ref(), limit)).await
    }

    async fn promote(&self, now: Timestamp, limit: u32) -> Result<Promoted> {
        self.writer.ask(limit as usize, move |session| session.promote(now, limit)).await
    }

    async fn expire(&self, before: BTreeMap<PipelineName, Timestamp>, limit: u32) -> Result<Vec<JobId>> {
        self.writer.ask(limit as usize, move |session| session.expire(&before, limit)).await
    }

    async fn register(&self, node: NodeId) -> Result<Recovered> {
        self.writer.ask(1, move |session| session.register(node)).await
    }

    async fn heartbeat(&self, node: NodeId) -> Result<()> {
        self.writer.ask(1, move |session| session.seen(node).map(drop)).await
    }

    async fn reclaim(&self, lease: Duration) -> Result<Recovered> {
        self.writer.ask(1, move |session| session.reclaim(lease)).await
    }

    async fn deregister(&self, node: NodeId) -> Result<()> {
        self.writer.ask(1, move |session| session.deregister(node)).await
    }

    async fn nodes(&self) -> Result<BTreeMap<NodeId, Option<Timestamp>>> {
        self.readers.ask(list::nodes).await
    }

    async fn prune(&self, cut: PruneCut, limit: u32) -> Result<Pruned> {
        self.writer.ask(limit as usize, move |session| session.prune(&cut, limit)).await
    }

    async fn job(&self, id: JobId) -> Result<Option<JobRecord>> {
        self.readers.ask(move |conn| rows::record(conn, id)).await
    }

    async fn job_by_key(&self, pipeline: &PipelineName, caller: &str, key: &str) -> Result<Option<JobId>> {
        let (pipeline, caller, key) = (pipeline.clone(), caller.to_owned(), key.to_owned());
        self.readers.ask(move |conn| list::by_key(conn, &pipeline, &caller, &key)).await
    }

    async fn list(&self, query: JobQuery) -> Result<JobPage> {
        self.readers.ask(move |conn| list::list(conn, &query)).await
    }

    async fn counts(&self) -> Result<BTreeMap<(PipelineName, State), u64>> {
        Ok(self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    async fn oldest_queued(&self) -> Result<BTreeMap<PipelineName, Timestamp>> {
        self.readers.ask(list::oldest_queued).await
    }

    async fn batch_counts(&self, batch: &str) -> Result<BTreeMap<State, u64>> {
        let batch = batch.to_owned();
        self.readers.ask(move |conn| list::batch_counts(conn, &batch)).await
    }

    async fn spending(&self, since: Timestamp) -> Result<BTreeMap<PipelineName, Usd>> {
        self.readers.ask(move |conn| list::spending(conn, since)).await
    }

    async fn traffic(&self, since: Timestamp) -> Result<BTreeMap<TrafficKey, Traffic>> {
        self.readers.ask(move |conn| list::traffic(conn, since)).await
    }

    async fn spending_by_caller(&self, since: Timestamp) -> Result<BTreeMap<String, Usd>> {
        self.readers.ask(move |conn| list::spending_by_caller(conn, since)).await
    }

    async fn recorded(&self, query: RecordedQuery) -> Result<RecordedPage> {
        self.readers.ask(move |conn| past::recorded(conn, &query)).await
    }

    async fn ledger(&self, query: LedgerQuery) -> Result<LedgerPage> {
        self.readers.ask(move |conn| past::ledger(conn, &query)).await
    }

    async fn ends(&self, since: Timestamp) -> Result<BTreeMap<(PipelineName, State), u64>> {
        self.readers.ask(move |conn| past::ends(conn, since)).await
    }

    async fn outcomes(&self, jobs: Vec<JobId>) -> Result<Vec<Option<JobOutcome>>> {
        self.readers.ask(move |conn| jobs.into_iter().map(|id| rows::outcome(conn, id)).collect()).await
    }

    async fn apply_if(
        &self,
        conditions: Vec<Condition>,
        changes: Vec<DocumentChange>,
        audit: Option<AuditEntry>,
    ) -> Result<bool> {
        self.writer.ask(changes.len(), move |session| session.apply(&conditions, &changes, audit.as_ref())).await
    }

    async fn revision(&self) -> Result<u64> {
        // One process has the file, so what it has seen is all there is.
        Ok(*self.hints.document_changes().borrow())
    }

    fn document_changes(&self) -> watch::Receiver<u64> {
        self.hints.document_changes()
    }

    async fn lead(&self, name: &str, node: NodeId, lease: Duration) -> Result<Option<Lead>> {
        let name = name.to_owned();
        self.writer.ask(1, move |session| session.lead(&name, node, lease)).await
    }

    async fn resign(&self, lead: &Lead) -> Result<()> {
        let lead = lead.clone();
        self.writer.ask(1, move |session| session.resign(&lead)).await
    }

    async fn documents(&self, kind: DocumentKind) -> Result<BTreeMap<String, serde_json::Value>> {
        self.readers.ask(move |conn| documents::documents(conn, kind)).await
    }

    async fn document(&self, kind: DocumentKind, key: &str) -> Result<Option<serde_json::Value>> {
        let key = key.to_owned();
        self.readers.ask(move |conn| documents::document(conn, kind, &key)).await
    }

    async fn documents_page(&self, page: DocumentPage) -> Result<Vec<(String, serde_json::Value)>> {
        self.readers.ask(move |conn| documents::page(conn, &page)).await
    }

    async fn audit(&self, since: Timestamp, limit: u32) -> Result<Vec<AuditEntry>> {
        self.readers.ask(move |conn| documents::audit(conn, since, limit)).await
    }

    async fn observe(&self, observations: Vec<NewObservation>) -> Result<()> {
        self.writer.ask(observations.len(), move |session| session.observe_all(&observations)).await
    }

    async fn observations(&self, query: ObservationQuery) -> Result<Vec<Observation>> {
        self.readers.ask(move |conn| observe::read(conn, &query)).await
    }

    async fn last_observation(&self, pipeline: &PipelineName, rollout: &RolloutName) -> Result<u64> {
        let (pipeline, rollout) = (pipeline.clone(), rollout.clone());
        self.readers.ask(move |conn| observe::last(conn, &pipeline, &rollout)).await
    }

    async fn forget_observations(
        &self,
        pipeline: &PipelineName,
        rollout: &RolloutName,
        through: u64,
        limit: u32,
    ) -> Result<u64> {
        let (pipeline, rollout) = (pipeline.clone(), rollout.clone());
        let act = move |session: &mut Session| session.forget_observations(&pipeline, &rollout, through, limit);
        self.writer.ask(limit as usize, act).await
    }

    async fn write_content(&self, id: &str, at: u64, bytes: Bytes) -> Result<()> {
        self.blobs.write(id, at, bytes).await
    }

    async fn seal_content(&self, id: &str) -> Result<()> {
        self.blobs.seal(id).await
    }

    async fn read_content(&self, id: &str, at: u64, most: usize) -> Result<Option<Bytes>> {
        self.blobs.read(id, at, most).await
    }

    async fn delete_content(&self, id: &str) -> Result<()> {
        self.blobs.delete(id).await
    }

    async fn contents(&self) -> Result<Vec<String>> {
        self.blobs.ids().await
    }
}
