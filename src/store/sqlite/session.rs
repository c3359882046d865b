//! What a command works with: the writer's connection, and what must change in step with it.
//!
//! Invariant: sums, names and hints follow the transaction: kept when it commits, forgotten when it does not.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::{Connection, params};

use super::{codes, names::Names, tally::Tally, trouble::Trouble};
use crate::{
    clock::{SharedClock, Timestamp},
    ids::{AttemptId, JobId, NodeId},
    job::{
        State,
        state::{Event, next},
    },
    names::{PipelineName, RolloutName},
    store::{Notice, hints::Hints},
};

/// How many jobs stand where, for whoever asks.
pub type Counts = Arc<Mutex<BTreeMap<(PipelineName, State), u64>>>;

/// The writer's side of the database.
pub struct Session {
    pub conn: Connection,
    pub clock: SharedClock,
    pub names: Names,
    pub tally: Tally,
    pub local: NodeId,
    totals: HashMap<(i64, State), i64>,
    /// What this process has claimed and not moved on: saves a look at rows before each intent and settlement. Every step
    /// of a job takes it out, and an undone transaction empties the whole.
    in_flight: HashMap<JobId, Flight>,
    counts: Counts,
    hints: Arc<Hints>,
    next_seq: i64,
    /// The number of each rollout's newest observation, as far as they were asked for.
    pub numbers: HashMap<(i64, RolloutName), u64>,
    became_ready: bool,
    ended: Vec<JobId>,
    documents_changed: bool,
    /// The disk error that a commit meets, after so many that meet none.
    #[cfg(test)]
    pub fail_commit_after: Option<(u32, std::ffi::c_int)>,
}

/// What every command needs to know of a job.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    pub seq: i64,
    pub id: JobId,
    pub pipeline: i64,
    pub state: State,
    pub fence: i64,
    pub batch: Option<i64>,
    pub crashes: i64,
    pub suspect: bool,
    /// Somebody is told of its end.
    pub calls_back: bool,
}

/// A job that this process has in flight, with all that is to be known of its attempts.
#[derive(Debug, Clone, Copy)]
pub struct Flight {
    pub job: Standing,
    /// Attempts so far: the next one's place among them.
    pub places: i64,
    /// The attempt that is open, with its number; no other one is.
    pub open: Option<(AttemptId, i64)>,
}

/// The columns of [`Standing`], for `SELECT` and `RETURNING`.
macro_rules! standing_columns {
    () => {
        "seq, id, pipeline, state, fence, batch, crashes, suspect, calls_back"
    };
}
pub(super) use standing_columns;

impl Standing {
    /// From a row of [`standing_columns`].
    pub fn read(row: &rusqlite::Row<'_>) -> Result<Self, Trouble> {
        Ok(Self {
            seq: row.get(0)?,
            id: JobId::from_bytes(row.get(1)?),
            pipeline: row.get(2)?,
            state: codes::state(row.get(3)?)?,
            fence: row.get(4)?,
            batch: row.get(5)?,
            crashes: row.get(6)?,
            suspect: row.get(7)?,
            calls_back: row.get(8)?,
        })
    }
}

impl Session {
    /// A session over an open file of today's shape.
    pub fn new(
        conn: Connection,
        clock: SharedClock,
        local: NodeId,
        counts: Counts,
        hints: Arc<Hints>,
    ) -> Result<Self, Trouble> {
        let names = Names::load(&conn)?;
        let mut totals = HashMap::new();
        let mut published = BTreeMap::new();
        {
            let mut rows = conn.prepare("SELECT pipeline, state, n FROM counts WHERE n > 0")?;
            let mut rows = rows.query([])?;
            while let Some(row) = rows.next()? {
                let (pipeline, state, n) = (row.get(0)?, codes::state(row.get(1)?)?, row.get(2)?);
                totals.insert((pipeline, state), n);
                if let Some(name) = names.pipeline_name(pipeline) {
                    published.insert((name.clone(), state), codes::unsigned(n));
                }
            }
        }
        // Ledger rows outlive their jobs: a number that any of them names is not given again.
        let next_seq: i64 = conn.query_row(
            "SELECT 1 + max((SELECT coalesce(max(seq), 0) FROM jobs), (SELECT coalesce(max(seq), 0) >> 20 FROM attempts))",
            [],
            |row| row.get(0),
        )?;
        *counts.lock().unwrap_or_else(PoisonError::into_inner) = published;
        Ok(Self {
            conn,
            clock,
            names,
            tally: Tally::default(),
            local,
            totals,
            in_flight: HashMap::new(),
            counts,
            hints,
            next_seq,
            numbers: HashMap::new(),
            became_ready: false,
            ended: Vec::new(),
            documents_changed: false,
            #[cfg(test)]
            fail_commit_after: None,
        })
    }

    /// The store's own time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A number for a new job. Numbers of undone transactions are not given again.
    pub fn next_seq(&mut self) -> i64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        seq
    }

    /// Remembers a job in flight, as its rows are now.
    pub fn remember(&mut self, flight: Flight) {
        self.in_flight.insert(flight.job.id, flight);
    }

    /// A job in flight, if it is remembered.
    pub fn flight(&self, id: JobId) -> Option<Flight> {
        self.in_flight.get(&id).copied()
    }

    /// The row changes other than by a step.
    pub fn disremember(&mut self, id: JobId) {
        self.in_flight.remove(&id);
    }

    /// A job's standing, remembered or read.
    pub fn standing(&self, id: JobId) -> Result<Option<Standing>, Trouble> {
        if let Some(flight) = self.in_flight.get(&id) {
            return Ok(Some(flight.job));
        }
        let mut statement =
            self.conn.prepare_cached(concat!("SELECT ", standing_columns!(), " FROM jobs WHERE id = ?1"))?;
        let mut rows = statement.query([id.as_bytes()])?;
        rows.next()?.map(Standing::read).transpose()
    }

    /// Reads the standings that a query of [`standing_columns`] gives.
    pub fn standings(&self, sql: &str, params: impl rusqlite::Params) -> Result<Vec<Standing>, Trouble> {
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(Standing::read(row)?);
        }
        Ok(found)
    }

    /// Runs a statement; how many rows it changed.
    pub fn execute(&self, sql: &str, params: impl rusqlite::Params) -> Result<usize, Trouble> {
        Ok(self.conn.prepare_cached(sql)?.execute(params)?)
    }

    /// Asks the state machine for a job's next state, and keeps sums and hints in step. The caller writes the row.
    pub fn step(&mut self, job: &Standing, event: Event) -> Result<State, Trouble> {
        let state = next(job.state, event).map_err(|illegal| Trouble::Row(format!("{}: {illegal}", job.id)))?;
        self.in_flight.remove(&job.id);
        self.tally.leave(job.pipeline, job.batch, job.state);
        self.tally.enter(job.pipeline, job.batch, state);
        self.became_ready |= state == State::Queued;
        if state.is_terminal() {
            self.ended.push(job.id);
            if job.calls_back {
                self.post_notice(job, state)?;
            }
        }
        Ok(state)
    }

    /// Puts the notice of a job's end into the line.
    fn post_notice(&self, job: &Standing, state: State) -> Result<(), Trouble> {
        let url: Option<String> = self
            .conn
            .prepare_cached("SELECT callback FROM contents WHERE seq = ?1")?
            .query_row([job.seq], |row| row.get(0))?;
        let pipeline = self.names.pipeline_name(job.pipeline);
        let (Some(url), Some(pipeline)) = (url, pipeline) else {
            return Err(Trouble::Row(format!("{} calls back, and nothing says whom", job.id)));
        };
        let (id, notice) = Notice::of_job(job.id, pipeline, state, url, self.now());
        self.write_documents(&notice.posting(&id))
    }

    /// A new job was added.
    pub fn added(&mut self, pipeline: i64, batch: Option<i64>, state: State) {
        self.tally.enter(pipeline, batch, state);
        self.became_ready |= state == State::Queued;
    }

    /// Whether any job of a pipeline is queued, as this transaction sees it.
    pub fn any_queued(&self, pipeline: i64) -> bool {
        let of = |sums: &HashMap<(i64, State), i64>| sums.get(&(pipeline, State::Queued)).copied().unwrap_or(0);
        of(&self.totals) + of(&self.tally.states) > 0
    }

    /// Says that a node lives. Its number.
    pub fn seen(&mut self, node: NodeId) -> Result<i64, Trouble> {
        let number = self.names.node(&self.conn, node)?;
        self.execute("UPDATE nodes SET seen_at = ?2 WHERE id = ?1", params![number, self.now().as_micros()])?;
        Ok(number)
    }

    /// Documents changed.
    pub fn documents_changed(&mut self) {
        self.documents_changed = true;
    }

    /// Makes the transaction durable.
    pub fn commit(&mut self) -> Result<(), Trouble> {
        #[cfg(test)]
        if let Some((after, code)) = self.fail_commit_after.take() {
            if after == 0 {
                return Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None).into());
            }
            self.fail_commit_after = Some((after - 1, code));
        }
        self.execute("COMMIT", []).map(drop)
    }

    /// The transaction is durable: publishes what it did.
    pub fn keep(&mut self) {
        self.names.keep_fresh();
        let tally = std::mem::take(&mut self.tally);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for ((pipeline, state), by) in tally.states {
            let total = self.totals.entry((pipeline, state)).or_default();
            *total += by;
            let Some(name) = self.names.pipeline_name(pipeline) else { continue };
            let key = (name.clone(), state);
            if *total > 0 {
                counts.insert(key, codes::unsigned(*total));
            } else {
                counts.remove(&key);
            }
        }
        drop(counts);
        if std::mem::take(&mut self.became_ready) {
            self.hints.ready();
        }
        if std::mem::take(&mut self.documents_changed) {
            self.hints.documents_changed();
        }
        for job in self.ended.drain(..) {
            self.hints.ended(job);
        }
    }

    /// The transaction is undone.
    pub fn forget(&mut self) {
        self.names.forget_fresh();
        self.in_flight.clear();
        self.numbers.clear();
        self.tally = Tally::default();
        self.became_ready = false;
        self.documents_changed = false;
        self.ended.clear();
    }
}
