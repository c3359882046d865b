//! The shape of the database, and how one of an older shape becomes one of today's.
//!
//! The layout serves the hot path: `jobs` holds live jobs alone and is narrow; contents stand apart; what has ended moves
//! to `history`, which is cut by day of submission, as `contents` is, so that old days go by dropping a table. Open calls
//! stand apart from the ledger, which is only ever appended to (but for bills that come late). Sums are kept as changes
//! (`deltas`), so that daemons do not wait for each other's rows; they are folded now and then.
//!
//! Invariant: a daemon works with its own version's schema and the next one's: steps only add, as long as two versions may
//! run side by side.

use super::{
    link::{Link, Pace, Tx, params},
    trouble::Trouble,
};

/// Each step from one version to the next. Steps that were ever released are never edited. The second number is the oldest
/// program (by number of steps) that can work on the result.
const STEPS: &[(&str, i64)] = &[(FIRST, 1), (REPORTED, 1), (CALLBACKS, 3), (OBSERVATIONS, 3)];

/// Chosen once; marks the transactions that change the shape.
const SHAPING: i64 = 0x6c62_7271_0001;

const FIRST: &str = r#"
CREATE TABLE landbridge.pipelines (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE landbridge.nodes (node uuid PRIMARY KEY, seen_at bigint);
CREATE TABLE landbridge.receipts (id uuid PRIMARY KEY, at bigint NOT NULL, void boolean NOT NULL DEFAULT false);

CREATE TABLE landbridge.jobs (
  id uuid PRIMARY KEY,
  fence bigint NOT NULL DEFAULT 0,
  order_key bigint NOT NULL,
  expiry_key bigint NOT NULL,
  created_at bigint NOT NULL,
  run_at bigint,
  held_at bigint,
  node uuid,
  batch uuid,
  pipeline int NOT NULL,
  priority int NOT NULL,
  crashes int NOT NULL DEFAULT 0,
  state smallint NOT NULL,
  suspect boolean NOT NULL DEFAULT false,
  live boolean NOT NULL DEFAULT false,
  hold text,
  assignment text
);
CREATE INDEX jobs_ready ON landbridge.jobs (pipeline, order_key, id) WHERE state = 0 AND NOT suspect;
CREATE INDEX jobs_suspect ON landbridge.jobs (pipeline, order_key, id) WHERE suspect;
CREATE INDEX jobs_waiting ON landbridge.jobs (run_at) WHERE run_at IS NOT NULL;
CREATE INDEX jobs_held ON landbridge.jobs (pipeline, id) WHERE hold IS NOT NULL;
CREATE INDEX jobs_expiry ON landbridge.jobs (pipeline, expiry_key) WHERE state <= 1;
CREATE INDEX jobs_busy ON landbridge.jobs (node) WHERE node IS NOT NULL;
CREATE INDEX jobs_batch ON landbridge.jobs (batch, id) WHERE batch IS NOT NULL;

CREATE TABLE landbridge.contents (
  id uuid PRIMARY KEY,
  deadline bigint NOT NULL,
  retry_of uuid,
  key_hash uuid,
  caller_hash uuid,
  caller bytea NOT NULL,
  key bytea,
  batch bytea,
  metadata text,
  body bytea
) PARTITION BY RANGE (id);
CREATE TABLE landbridge.contents_rest PARTITION OF landbridge.contents DEFAULT;

CREATE TABLE landbridge.history (
  id uuid PRIMARY KEY,
  finished_at bigint NOT NULL,
  created_at bigint NOT NULL,
  node uuid,
  batch uuid,
  pipeline int NOT NULL,
  priority int NOT NULL,
  state smallint NOT NULL,
  suspect boolean NOT NULL,
  blanked boolean NOT NULL DEFAULT false,
  assignment text,
  error text,
  result bytea
) PARTITION BY RANGE (id);
CREATE INDEX history_ended ON landbridge.history (pipeline, finished_at) WHERE node IS NULL;
CREATE INDEX history_prompts ON landbridge.history (pipeline, finished_at) WHERE NOT blanked AND node IS NULL;
CREATE INDEX history_busy ON landbridge.history (node) WHERE node IS NOT NULL;
CREATE INDEX history_batch ON landbridge.history (batch, id) WHERE batch IS NOT NULL;
CREATE TABLE landbridge.history_rest PARTITION OF landbridge.history DEFAULT;

CREATE TABLE landbridge.keys (
  key_hash uuid NOT NULL, pipeline int NOT NULL, caller_hash uuid NOT NULL, job uuid NOT NULL, digest bytea NOT NULL,
  PRIMARY KEY (key_hash, pipeline, caller_hash)
);

CREATE TABLE landbridge.calls (
  job uuid NOT NULL,
  id uuid NOT NULL,
  began_at bigint NOT NULL,
  started_at bigint NOT NULL,
  generation bigint NOT NULL,
  pipeline int NOT NULL,
  n int NOT NULL,
  target text NOT NULL,
  provider text NOT NULL,
  model text NOT NULL,
  region text,
  fidelity text,
  decision text,
  most_cost numeric,
  PRIMARY KEY (job, id)
);
CREATE TABLE landbridge.attempts (
  job uuid NOT NULL,
  id uuid NOT NULL,
  began_at bigint NOT NULL,
  started_at bigint NOT NULL,
  ended_at bigint NOT NULL,
  generation bigint NOT NULL,
  pipeline int NOT NULL,
  n int NOT NULL,
  outcome smallint NOT NULL,
  billed boolean NOT NULL,
  target text NOT NULL,
  provider text NOT NULL,
  model text NOT NULL,
  region text,
  fidelity text,
  decision text,
  fault text,
  message text,
  input bigint, output bigint, cache_read bigint, cache_write bigint, reasoning bigint,
  cost numeric,
  most_cost numeric,
  request text,
  PRIMARY KEY (job, id)
) PARTITION BY RANGE (job);
CREATE INDEX attempts_ended ON landbridge.attempts (ended_at);
CREATE TABLE landbridge.attempts_rest PARTITION OF landbridge.attempts DEFAULT;

CREATE TABLE landbridge.deltas (
  seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  pipeline int, state smallint, batch uuid, hour bigint, n bigint, cost numeric
);
CREATE TABLE landbridge.counts (pipeline int, state smallint, n bigint NOT NULL, PRIMARY KEY (pipeline, state));
CREATE TABLE landbridge.batch_counts (batch uuid, state smallint, n bigint NOT NULL, PRIMARY KEY (batch, state));
CREATE INDEX batch_counts_empty ON landbridge.batch_counts (batch) WHERE n = 0;
CREATE TABLE landbridge.spending (hour bigint, pipeline int, cost numeric NOT NULL, PRIMARY KEY (hour, pipeline));

CREATE TABLE landbridge.traffic (
  hour bigint, pipeline int, target text, provider text, model text,
  attempts bigint NOT NULL, answered bigint NOT NULL, billed bigint NOT NULL,
  input bigint NOT NULL, output bigint NOT NULL, cache_read bigint NOT NULL, cache_write bigint NOT NULL,
  reasoning bigint NOT NULL, unpriced bigint NOT NULL, unbounded bigint NOT NULL,
  cost numeric NOT NULL, possible_cost numeric NOT NULL,
  PRIMARY KEY (hour, pipeline, target, provider, model)
);
CREATE TABLE landbridge.traffic_deltas (
  seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  hour bigint, pipeline int, target text, provider text, model text,
  attempts bigint, answered bigint, billed bigint, input bigint, output bigint, cache_read bigint, cache_write bigint,
  reasoning bigint, unpriced bigint, unbounded bigint, cost numeric, possible_cost numeric
);

CREATE TABLE landbridge.documents (
  kind text, key text COLLATE "C", value text NOT NULL, PRIMARY KEY (kind, key)
);
CREATE TABLE landbridge.shelf (id text COLLATE "C" PRIMARY KEY, size bigint NOT NULL, sealed boolean NOT NULL);
CREATE TABLE landbridge.pieces (id text, at bigint, bytes bytea NOT NULL, PRIMARY KEY (id, at));
ALTER TABLE landbridge.pieces ALTER bytes SET STORAGE EXTERNAL;
CREATE TABLE landbridge.revision (one boolean PRIMARY KEY DEFAULT true CHECK (one), number bigint NOT NULL);
INSERT INTO landbridge.revision (number) VALUES (0);
CREATE TABLE landbridge.audit (
  seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at bigint NOT NULL,
  actor text NOT NULL,
  action text NOT NULL,
  subject text NOT NULL,
  reason text,
  detail text NOT NULL
);
CREATE INDEX audit_at ON landbridge.audit (at, seq);
CREATE TABLE landbridge.leads (name text PRIMARY KEY, token bigint NOT NULL, node uuid, until bigint NOT NULL);
CREATE TABLE landbridge.moves (source text, part text, after text, rows bigint NOT NULL, sum text NOT NULL, PRIMARY KEY (source, part));

ALTER TABLE landbridge.jobs SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
  autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.1, autovacuum_analyze_threshold = 1000);
ALTER TABLE landbridge.calls SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
  autovacuum_vacuum_cost_delay = 0);
ALTER TABLE landbridge.deltas SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
  autovacuum_vacuum_cost_delay = 0);
ALTER TABLE landbridge.traffic_deltas SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
  autovacuum_vacuum_cost_delay = 0);
ALTER TABLE landbridge.receipts SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
  autovacuum_vacuum_cost_delay = 0);
ALTER TABLE landbridge.counts SET (fillfactor = 50, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_cost_delay = 0);
"#;

/// What reports tell besides. A program of the first version knows nothing of these columns, and need not.
const REPORTED: &str = "
ALTER TABLE landbridge.calls ADD COLUMN prompt_estimate bigint;
ALTER TABLE landbridge.attempts ADD COLUMN prompt_estimate bigint, ADD COLUMN first_token bigint;
";

/// Who is told of a job's end. A program that does not know of it would end jobs and tell nobody.
const CALLBACKS: &str = "
ALTER TABLE landbridge.jobs ADD COLUMN calls_back boolean NOT NULL DEFAULT false;
ALTER TABLE landbridge.contents ADD COLUMN callback text;
";

/// What happens to rollouts with steps. An older program does not write it, and so has no such rollouts.
const OBSERVATIONS: &str = "
CREATE TABLE landbridge.numbers (pipeline int, rollout text, last bigint NOT NULL, PRIMARY KEY (pipeline, rollout));
CREATE TABLE landbridge.observations (
  pipeline int, rollout text, number bigint, at bigint NOT NULL, job uuid, what text NOT NULL,
  PRIMARY KEY (pipeline, rollout, number)
);
ALTER TABLE landbridge.numbers SET (fillfactor = 50, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_cost_delay = 0);
";

/// Brings the database to today's shape, one daemon at a time.
pub async fn ensure(link: &Link) -> Result<(), Trouble> {
    let tx = link.begin(Pace::Long).await?;
    tx.execute("SELECT pg_advisory_xact_lock($1)", params![SHAPING => INT8]).await?;
    let version: i32 = match tx.query_opt("SELECT current_setting('server_version_num')::int", &[]).await? {
        Some(row) => row.try_get(0)?,
        None => 0,
    };
    if version < 140_000 {
        return Err(Trouble::Unusable(format!(
            "this server is PostgreSQL {}, and 14 or newer is needed",
            version / 10_000
        )));
    }
    let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    let (done, oldest) = standing(&tx).await?;
    if oldest > known {
        return Err(Trouble::Unusable(format!(
            "it was changed by a newer landbridge (its shape is {done}, this program knows up to {known}): run that one"
        )));
    }
    if done >= known {
        return tx.done_without_receipt().await;
    }
    if done == 0 {
        tx.batch(
            "CREATE SCHEMA IF NOT EXISTS landbridge;
             CREATE TABLE landbridge.meta (key text PRIMARY KEY, value bigint NOT NULL);
             INSERT INTO landbridge.meta VALUES ('shape', 0), ('oldest', 0)",
        )
        .await?;
    }
    for (sql, oldest) in STEPS.iter().skip(usize::try_from(done).unwrap_or(usize::MAX)) {
        tx.batch(sql).await?;
        tx.execute("UPDATE landbridge.meta SET value = $1 WHERE key = 'oldest'", params![*oldest => INT8]).await?;
    }
    tx.execute("UPDATE landbridge.meta SET value = $1 WHERE key = 'shape'", params![known => INT8]).await?;
    tx.commit().await
}

/// The database's version, and the oldest program that can work on it.
async fn standing(tx: &Tx<'_>) -> Result<(i64, i64), Trouble> {
    let there = tx.query_opt("SELECT 1 WHERE to_regclass('landbridge.meta') IS NOT NULL", &[]).await?;
    if there.is_none() {
        return Ok((0, 0));
    }
    let mut found = (0, 0);
    for row in tx.query("SELECT key, value FROM landbridge.meta", &[]).await? {
        let (key, value): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
        match key.as_str() {
            "shape" => found.0 = value,
            "oldest" => found.1 = value,
            _ => {}
        }
    }
    Ok(found)
}
