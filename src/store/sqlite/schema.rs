//! The shape of the file, and how a file of an older shape becomes one of today's.
//!
//! The layout serves the hot path: `jobs` is narrow; texts live in `contents` and `results`; every index is partial or only
//! ever appended to. An index's condition names columns that a claim does not write, so that a claim touches two of them.
//! A job's attempts stand together: an attempt's number is its job's, times [`PLACES`], plus its place among them.

use rusqlite::Connection;

use super::trouble::Trouble;
use crate::store::{Result, StoreError};

/// Marks a SQLite file as ours: "lbrq".
pub const APPLICATION: i32 = 0x6c62_7271;

/// Attempts that one job can have: a job whose every attempt lasts a second gets there in twelve days, and retries wait.
pub const PLACES: i64 = 1 << 20;

/// The attempts of the job whose number is the first parameter.
macro_rules! of_job {
    () => {
        "seq >= ?1 << 20 AND seq < (?1 + 1) << 20"
    };
}
pub(super) use of_job;

/// Each step from one version of the file to the next. Steps that were ever released are never edited.
const STEPS: &[&str] = &[FIRST, TRAFFIC, REPORTED, CALLBACKS, OBSERVATIONS];

const FIRST: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID;
CREATE TABLE pipelines (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE batches (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE nodes (id INTEGER PRIMARY KEY, node BLOB NOT NULL UNIQUE, seen_at INTEGER) STRICT;

CREATE TABLE jobs (
  seq INTEGER PRIMARY KEY,
  id BLOB NOT NULL,
  pipeline INTEGER NOT NULL,
  state INTEGER NOT NULL,
  fence INTEGER NOT NULL DEFAULT 0,
  order_key INTEGER NOT NULL,
  expiry_key INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  priority INTEGER NOT NULL,
  node INTEGER,
  run_at INTEGER,
  hold TEXT,
  held_at INTEGER,
  finished_at INTEGER,
  crashes INTEGER NOT NULL DEFAULT 0,
  suspect INTEGER NOT NULL DEFAULT 0,
  blanked INTEGER NOT NULL DEFAULT 0,
  live INTEGER NOT NULL DEFAULT 0,
  batch INTEGER,
  assignment TEXT
) STRICT;
CREATE UNIQUE INDEX jobs_id ON jobs (id);
CREATE INDEX jobs_ready ON jobs (pipeline, order_key) WHERE state = 0 AND suspect = 0;
CREATE INDEX jobs_suspect ON jobs (pipeline, order_key) WHERE suspect = 1 AND finished_at IS NULL;
CREATE INDEX jobs_waiting ON jobs (run_at) WHERE run_at IS NOT NULL;
CREATE INDEX jobs_held ON jobs (pipeline, id) WHERE hold IS NOT NULL;
CREATE INDEX jobs_expiry ON jobs (pipeline, expiry_key) WHERE finished_at IS NULL AND hold IS NULL;
CREATE INDEX jobs_busy ON jobs (node) WHERE node IS NOT NULL;
CREATE INDEX jobs_ended ON jobs (blanked, pipeline, finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX jobs_batch ON jobs (batch, id) WHERE batch IS NOT NULL;

CREATE TABLE contents (
  seq INTEGER PRIMARY KEY,
  deadline INTEGER NOT NULL,
  caller TEXT NOT NULL,
  key TEXT,
  retry_of BLOB,
  metadata TEXT,
  body TEXT
) STRICT;
CREATE TABLE results (seq INTEGER PRIMARY KEY, result TEXT, error TEXT) STRICT;
CREATE TABLE keys (
  key TEXT NOT NULL, pipeline INTEGER NOT NULL, caller TEXT NOT NULL, job INTEGER NOT NULL, digest BLOB NOT NULL,
  PRIMARY KEY (key, pipeline, caller)
) STRICT, WITHOUT ROWID;

CREATE TABLE attempts (
  seq INTEGER PRIMARY KEY,
  id BLOB NOT NULL,
  job_id BLOB NOT NULL,
  pipeline INTEGER NOT NULL,
  n INTEGER NOT NULL,
  target TEXT NOT NULL,
  provider TEXT NOT NULL,
  model TEXT NOT NULL,
  region TEXT,
  generation INTEGER NOT NULL,
  started_at INTEGER NOT NULL,
  ended_at INTEGER,
  outcome INTEGER NOT NULL DEFAULT 0,
  fault TEXT,
  message TEXT,
  input INTEGER, output INTEGER, cache_read INTEGER, cache_write INTEGER, reasoning INTEGER,
  cost TEXT,
  billed INTEGER NOT NULL DEFAULT 0,
  request TEXT,
  fidelity TEXT,
  decision TEXT
) STRICT;
CREATE INDEX attempts_ended ON attempts (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE counts (
  pipeline INTEGER NOT NULL, state INTEGER NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (pipeline, state)
) STRICT, WITHOUT ROWID;
CREATE TABLE batch_counts (
  batch INTEGER NOT NULL, state INTEGER NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (batch, state)
) STRICT, WITHOUT ROWID;
CREATE TABLE spending (
  hour INTEGER NOT NULL, pipeline INTEGER NOT NULL, cost TEXT NOT NULL, PRIMARY KEY (hour, pipeline)
) STRICT, WITHOUT ROWID;

CREATE TABLE documents (
  kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE audit (
  seq INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  actor TEXT NOT NULL,
  action TEXT NOT NULL,
  subject TEXT NOT NULL,
  reason TEXT,
  detail TEXT NOT NULL
) STRICT;
CREATE INDEX audit_at ON audit (at);
";

/// The most that a call may cost, and sums of ended calls by hour: they begin with this version of the file.
const TRAFFIC: &str = "
ALTER TABLE attempts ADD COLUMN most_cost TEXT;
CREATE TABLE traffic (
  hour INTEGER NOT NULL, pipeline INTEGER NOT NULL, target TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL,
  attempts INTEGER NOT NULL, answered INTEGER NOT NULL, billed INTEGER NOT NULL,
  input INTEGER NOT NULL, output INTEGER NOT NULL, cache_read INTEGER NOT NULL, cache_write INTEGER NOT NULL,
  reasoning INTEGER NOT NULL,
  cost TEXT NOT NULL, unpriced INTEGER NOT NULL, possible_cost TEXT NOT NULL, unbounded INTEGER NOT NULL,
  PRIMARY KEY (hour, pipeline, target, provider, model)
) STRICT, WITHOUT ROWID;
";

/// What reports tell besides: they begin with this version of the file.
const REPORTED: &str = "
ALTER TABLE attempts ADD COLUMN first_token INTEGER;
ALTER TABLE attempts ADD COLUMN prompt_estimate INTEGER;
";

/// Who is told of a job's end.
const CALLBACKS: &str = "
ALTER TABLE jobs ADD COLUMN calls_back INTEGER NOT NULL DEFAULT 0;
ALTER TABLE contents ADD COLUMN callback TEXT;
";

/// What happens to rollouts with steps.
const OBSERVATIONS: &str = "
CREATE TABLE observations (
  pipeline INTEGER NOT NULL, rollout TEXT NOT NULL, number INTEGER NOT NULL, at INTEGER NOT NULL, job BLOB, what TEXT NOT NULL,
  PRIMARY KEY (pipeline, rollout, number)
) STRICT, WITHOUT ROWID;
";

/// Brings the file to today's shape. `name` is for messages.
pub fn ensure(conn: &mut Connection, name: &str) -> Result<(), SchemaTrouble> {
    let application: i32 = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application != APPLICATION && (tables > 0 || version != 0) {
        return Err(SchemaTrouble::Store(StoreError::Unusable(format!(
            "{name} is a SQLite file of another program; choose another `store:`"
        ))));
    }
    let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    let Some(done) = usize::try_from(version).ok().filter(|done| *done <= STEPS.len()) else {
        return Err(SchemaTrouble::Store(StoreError::Unusable(format!(
            "{name} was written by a newer landbridge (its version is {version}, this program knows up to {known}): run \
             that one, or restore a backup from before the upgrade"
        ))));
    };
    if done == STEPS.len() {
        return Ok(());
    }
    let change = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    for step in STEPS.iter().skip(done) {
        change.execute_batch(step)?;
    }
    change.pragma_update(None, "application_id", APPLICATION)?;
    change.pragma_update(None, "user_version", known)?;
    change.commit()?;
    Ok(())
}

/// Why the shape could not be ensured.
#[derive(Debug)]
pub enum SchemaTrouble {
    /// The file is not for us.
    Store(StoreError),
    /// SQLite failed.
    Sql(Trouble),
}

impl From<rusqlite::Error> for SchemaTrouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error.into())
    }
}
