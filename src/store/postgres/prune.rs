//! Deleting what is old enough to go. Jobs that have not ended are never touched; the ledger outlives its jobs.
//!
//! Days that are wholly past their time are dropped, see [`super::drop_days`]. What goes earlier, because its pipeline
//! keeps it for less time than others, or because its day is small, goes row by row.
//!
//! Invariant: one daemon prunes at a time; another that comes meanwhile finds nothing to do.

use std::collections::BTreeMap;

use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    columns::{self, get},
    days::{self, HISTORY, Piece},
    drop_days,
    link::{Link, Pace, Tx, params},
    names::Names,
    tally::Tally,
    trouble::Trouble,
};
use crate::{
    clock::Timestamp,
    names::PipelineName,
    store::{MOVE_MAX, PruneCut, Pruned, traffic::hour_of},
};

/// Marks the transactions that prune.
pub const PRUNING: i64 = 0x6c62_7271_0003;

/// Ended jobs that make a day so big that it is worth waiting until all of it can be dropped.
const BIG_DAY: f32 = 20_000.0;

/// How long after its end a big day is waited for: its last jobs may have ended later.
const WAIT_DAYS: i64 = 2;

/// How long it may be asked whether a transaction was committed, in microseconds: much longer than anybody asks.
const RECEIPTS: i64 = 600_000_000;

/// A moment for each pipeline, column by column.
struct Moments {
    pipelines: Vec<i32>,
    before: Vec<i64>,
    /// For pipelines that keep their jobs longest: big days wait to be dropped.
    patient: Vec<bool>,
}

impl Moments {
    fn of(all: &BTreeMap<PipelineName, i32>, own: &BTreeMap<PipelineName, Timestamp>, default: Timestamp) -> Self {
        let mut moments = Self { pipelines: Vec::new(), before: Vec::new(), patient: Vec::new() };
        for (name, number) in all {
            moments.pipelines.push(*number);
            moments.before.push(own.get(name).copied().unwrap_or(default).as_micros());
        }
        let first = moments.before.iter().copied().min();
        moments.patient = moments.before.iter().map(|before| Some(*before) == first).collect();
        moments
    }

    fn first(&self) -> Option<Timestamp> {
        self.before.iter().copied().min().map(Timestamp::from_micros)
    }
}

/// Deletes jobs, blanks prompts, deletes ledger rows and audit entries; at most `limit` of each, or a whole day.
pub async fn prune(link: &Link, names: &Names, cut: &PruneCut, limit: u32) -> Result<Pruned, Trouble> {
    let limit = i64::from(limit.min(MOVE_MAX));
    let all = names.all(link).await?;
    let results = Moments::of(&all, &cut.results, cut.default_results);
    let prompts = Moments::of(&all, &cut.prompts, cut.default_prompts);
    let mut pruned = Pruned::default();
    if let Some(first) = results.first() {
        pruned.jobs = drop_days::jobs(link, &results.pipelines, &results.before, first).await?;
    }
    pruned.attempts = drop_days::ledger(link, cut.ledger).await?;
    if pruned != Pruned::default() {
        return Ok(pruned);
    }
    let tx = link.begin(Pace::Long).await?;
    if tx.query_opt("SELECT 1 WHERE pg_try_advisory_xact_lock($1)", params![PRUNING => INT8]).await?.is_none() {
        tx.done_without_receipt().await?;
        return Ok(Pruned::default());
    }
    let mut tally = Tally::default();
    pruned.jobs = delete_jobs(&tx, &results, limit, &mut tally).await?;
    pruned.prompts = blank(&tx, &prompts, limit).await?;
    pruned.attempts = tx
        .execute(
            "DELETE FROM landbridge.attempts a USING (SELECT job, id FROM landbridge.attempts o WHERE ended_at < $1 \
             AND NOT EXISTS (SELECT 1 FROM landbridge.jobs j WHERE j.id = o.job) ORDER BY ended_at LIMIT $2) AS old \
             WHERE a.job = old.job AND a.id = old.id",
            params![cut.ledger.as_micros() => INT8, limit => INT8],
        )
        .await?;
    let hour = hour_of(cut.ledger);
    tx.execute("DELETE FROM landbridge.spending WHERE hour < $1", params![hour => INT8]).await?;
    tx.execute("DELETE FROM landbridge.traffic WHERE hour < $1 OR attempts = 0", params![hour => INT8]).await?;
    tx.execute("DELETE FROM landbridge.batch_counts WHERE n = 0", &[]).await?;
    let receipts = tx.now.as_micros().saturating_sub(RECEIPTS);
    tx.execute("DELETE FROM landbridge.receipts WHERE at < $1", params![receipts => INT8]).await?;
    pruned.audit = tx
        .execute(
            "DELETE FROM landbridge.audit WHERE seq IN \
             (SELECT seq FROM landbridge.audit WHERE at < $1 ORDER BY at, seq LIMIT $2)",
            params![cut.audit.as_micros() => INT8, limit => INT8],
        )
        .await?;
    let rows = tally.rows();
    let last: Vec<_> = rows.statement().into_iter().collect();
    tx.commit_with(&last).await?;
    Ok(pruned)
}

async fn delete_jobs(tx: &Tx<'_>, moments: &Moments, limit: i64, tally: &mut Tally) -> Result<u64, Trouble> {
    let waited_for = big_days(tx, moments.first()).await?;
    let (from, to) = waited_for.unwrap_or_default();
    let mut deleted = 0;
    // Those that keep their jobs longest leave big days alone; the others do not.
    for patient in [false, true] {
        let sql = "SELECT h.id, h.pipeline, h.state, h.batch FROM unnest($1::int[], $2::bigint[], $3::boolean[]) \
              AS m (pipeline, before, patient) CROSS JOIN LATERAL (\
              SELECT id, pipeline, state, batch FROM landbridge.history h WHERE h.pipeline = m.pipeline \
              AND h.finished_at < m.before AND h.node IS NULL AND (h.id < $6 OR h.id >= $7) \
              ORDER BY h.finished_at LIMIT $4) AS h WHERE m.patient = $5 LIMIT $4";
        let (skip_from, skip_to) = if patient { (from, to) } else { (Uuid::nil(), Uuid::nil()) };
        let left = limit - deleted;
        let rows = tx
            .query(
                sql,
                params![moments.pipelines => INT4_ARRAY, moments.before => INT8_ARRAY, moments.patient => BOOL_ARRAY,
                    left => INT8, patient => BOOL, skip_from => UUID, skip_to => UUID],
            )
            .await?;
        delete(tx, &rows, tally).await?;
        deleted += i64::try_from(rows.len()).unwrap_or(i64::MAX);
    }
    Ok(u64::try_from(deleted).unwrap_or(0))
}

/// The ids of big days that will be dropped soon.
async fn big_days(tx: &Tx<'_>, first: Option<Timestamp>) -> Result<Option<(Uuid, Uuid)>, Trouble> {
    let Some(first) = first else { return Ok(None) };
    let soon = Timestamp::from_micros(first.as_micros().saturating_sub(WAIT_DAYS * days::DAY));
    let sql = "SELECT c.relname::text FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid \
               WHERE i.inhparent = 'landbridge.history'::regclass AND c.reltuples >= $1";
    let mut big = Vec::new();
    for row in tx.query(sql, params![BIG_DAY => FLOAT4]).await? {
        big.push(get::<String>(&row, 0)?);
    }
    if big.is_empty() {
        return Ok(None);
    }
    let due =
        |piece: &Piece| big.contains(&piece.name) && !days::is_past(piece, soon) && !days::begins_after(piece, first);
    let pieces: Vec<Piece> = days::pieces(tx, HISTORY).await?.into_iter().filter(due).collect();
    Ok(pieces.first().zip(pieces.last()).map(|(first, last)| (first.from, last.to)))
}

async fn delete(tx: &Tx<'_>, rows: &[Row], tally: &mut Tally) -> Result<(), Trouble> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut ids = Vec::with_capacity(rows.len());
    for row in rows {
        ids.push(get::<Uuid>(row, 0)?);
        tally.shift(get(row, 1)?, get(row, 3)?, columns::state(row, 2)?, -1);
    }
    let one = || params![ids => UUID_ARRAY].to_vec();
    tx.execute_all(&[
        (
            "DELETE FROM landbridge.keys k USING landbridge.contents c WHERE c.id = ANY($1) AND k.job = c.id \
             AND k.key_hash = c.key_hash AND k.caller_hash = c.caller_hash",
            one(),
        ),
        ("DELETE FROM landbridge.contents WHERE id = ANY($1)", one()),
        ("DELETE FROM landbridge.history WHERE id = ANY($1)", one()),
        // The ledger keeps the bill; the reasons go with the job that they explain.
        ("UPDATE landbridge.attempts SET decision = NULL, fidelity = NULL WHERE job = ANY($1)", one()),
    ])
    .await
    .map(drop)
}

/// Takes the prompts of ended jobs.
async fn blank(tx: &Tx<'_>, moments: &Moments, limit: i64) -> Result<u64, Trouble> {
    let sql = "SELECT h.id FROM unnest($1::int[], $2::bigint[]) AS m (pipeline, before) CROSS JOIN LATERAL (\
          SELECT id FROM landbridge.history h WHERE h.pipeline = m.pipeline AND h.finished_at < m.before \
          AND h.node IS NULL AND NOT h.blanked ORDER BY h.finished_at LIMIT $3) AS h LIMIT $3";
    let rows =
        tx.query(sql, params![moments.pipelines => INT4_ARRAY, moments.before => INT8_ARRAY, limit => INT8]).await?;
    if rows.is_empty() {
        return Ok(0);
    }
    let ids = rows.iter().map(|row| get(row, 0)).collect::<Result<Vec<Uuid>, _>>()?;
    let one = || params![ids => UUID_ARRAY].to_vec();
    tx.execute_all(&[
        ("UPDATE landbridge.contents SET body = NULL WHERE id = ANY($1)", one()),
        ("UPDATE landbridge.history SET blanked = true WHERE id = ANY($1)", one()),
    ])
    .await?;
    Ok(rows.len() as u64)
}
