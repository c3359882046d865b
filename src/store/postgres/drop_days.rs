//! Dropping days that are wholly past their time.
//!
//! Invariant: a day's tables are locked before they are judged, so nothing comes in between; the kept sums lose exactly
//! what was dropped.

use super::{
    columns::{self, get},
    days::{self, CONTENTS, HISTORY, LEDGER, Piece},
    link::{Link, Pace, params},
    prune::PRUNING,
    tally::Tally,
    trouble::Trouble,
};
use crate::clock::Timestamp;

/// Ledger rows that lose their reasons in one transaction.
const REASONS: i64 = 5_000;

/// Drops the oldest day of jobs that may go; how many jobs went. `before` says for each pipeline which ends are old.
pub async fn jobs(link: &Link, pipelines: &[i32], before: &[i64], first: Timestamp) -> Result<u64, Trouble> {
    let look = link.look().await?;
    let (history, contents) = (days::pieces(&look, HISTORY).await?, days::pieces(&look, CONTENTS).await?);
    look.done().await?;
    for piece in history.into_iter().filter(|piece| days::is_past(piece, first)) {
        let twin = contents.iter().find(|other| (other.from, other.to) == (piece.from, piece.to));
        if let Some(dropped) = jobs_of(link, &piece, twin, pipelines, before).await? {
            return Ok(dropped);
        }
    }
    Ok(0)
}

/// Whether anything in the day is still wanted.
fn wanted(piece: &Piece) -> String {
    format!(
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM landbridge.jobs WHERE id >= $3 AND id < $4) \
         OR EXISTS (SELECT 1 FROM landbridge.{} h WHERE h.node IS NOT NULL \
           OR h.finished_at >= coalesce((SELECT m.before FROM unnest($1::int[], $2::bigint[]) AS m (pipeline, before) \
           WHERE m.pipeline = h.pipeline), 0))",
        piece.name
    )
}

async fn jobs_of(
    link: &Link,
    piece: &Piece,
    twin: Option<&Piece>,
    pipelines: &[i32],
    before: &[i64],
) -> Result<Option<u64>, Trouble> {
    let wanted = wanted(piece);
    let asked =
        || params![pipelines => INT4_ARRAY, before => INT8_ARRAY, piece.from => UUID, piece.to => UUID].to_vec();
    let look = link.look().await?;
    let still = look.query_opt(&wanted, &asked()).await?;
    look.done().await?;
    if still.is_some() {
        return Ok(None);
    }
    forget_reasons(link, piece).await?;
    let tx = link.begin(Pace::Long).await?;
    if tx.query_opt("SELECT 1 WHERE pg_try_advisory_xact_lock($1)", params![PRUNING => INT8]).await?.is_none() {
        tx.done_without_receipt().await?;
        return Ok(None);
    }
    let tables: Vec<String> =
        std::iter::once(piece).chain(twin).map(|piece| format!("landbridge.{}", piece.name)).collect();
    tx.batch(&format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", tables.join(", "))).await?;
    if tx.query_opt(&wanted, &asked()).await?.is_some() {
        tx.done_without_receipt().await?;
        return Ok(None);
    }
    let mut tally = Tally::default();
    let mut dropped = 0;
    let sums = format!("SELECT pipeline, state, batch, count(*) FROM landbridge.{} GROUP BY 1, 2, 3", piece.name);
    for row in tx.query(&sums, &[]).await? {
        let n: i64 = get(&row, 3)?;
        tally.shift(get(&row, 0)?, get(&row, 2)?, columns::state(&row, 1)?, -n);
        dropped += u64::try_from(n).unwrap_or(0);
    }
    if let Some(twin) = twin {
        tx.execute(
            &format!(
                "DELETE FROM landbridge.keys k USING landbridge.{} c WHERE k.job = c.id AND k.key_hash = c.key_hash \
                 AND k.caller_hash = c.caller_hash",
                twin.name
            ),
            &[],
        )
        .await?;
    }
    tx.batch(&format!("DROP TABLE {}", tables.join(", "))).await?;
    let rows = tally.rows();
    let last: Vec<_> = rows.statement().into_iter().collect();
    tx.commit_with(&last).await?;
    tracing::info!(day = piece.name, jobs = dropped, "a day of ended jobs was dropped");
    Ok(Some(dropped))
}

/// Takes the reasons out of the ledger rows of a day's jobs: they go with the jobs.
async fn forget_reasons(link: &Link, piece: &Piece) -> Result<(), Trouble> {
    loop {
        let tx = link.begin(Pace::Long).await?;
        let sql = "UPDATE landbridge.attempts a SET decision = NULL, fidelity = NULL FROM (\
              SELECT job, id FROM landbridge.attempts WHERE job >= $1 AND job < $2 \
              AND (decision IS NOT NULL OR fidelity IS NOT NULL) LIMIT $3) AS o \
            WHERE a.job = o.job AND a.id = o.id AND a.job >= $1 AND a.job < $2";
        let blanked = tx.execute(sql, params![piece.from => UUID, piece.to => UUID, REASONS => INT8]).await?;
        tx.commit().await?;
        if blanked < u64::try_from(REASONS).unwrap_or(0) {
            return Ok(());
        }
    }
}

/// Drops a piece of the ledger that is wholly past; how many rows went.
pub async fn ledger(link: &Link, before: Timestamp) -> Result<u64, Trouble> {
    let look = link.look().await?;
    let pieces = days::pieces(&look, LEDGER).await?;
    look.done().await?;
    for piece in pieces.into_iter().filter(|piece| days::is_past(piece, before)) {
        let tx = link.begin(Pace::Long).await?;
        if tx.query_opt("SELECT 1 WHERE pg_try_advisory_xact_lock($1)", params![PRUNING => INT8]).await?.is_none() {
            tx.done_without_receipt().await?;
            return Ok(0);
        }
        tx.batch(&format!("LOCK TABLE landbridge.{} IN ACCESS EXCLUSIVE MODE", piece.name)).await?;
        let wanted = format!(
            "SELECT 1 WHERE EXISTS (SELECT 1 FROM landbridge.jobs WHERE id >= $1 AND id < $2) \
             OR EXISTS (SELECT 1 FROM landbridge.{} WHERE ended_at >= $3)",
            piece.name
        );
        let asked = params![piece.from => UUID, piece.to => UUID, before.as_micros() => INT8];
        if tx.query_opt(&wanted, asked).await?.is_some() {
            tx.done_without_receipt().await?;
            continue;
        }
        let rows = tx.query_opt(&format!("SELECT count(*) FROM landbridge.{}", piece.name), &[]).await?;
        let rows: i64 = rows.map(|row| get(&row, 0)).transpose()?.unwrap_or(0);
        tx.batch(&format!("DROP TABLE landbridge.{}", piece.name)).await?;
        tx.commit().await?;
        return Ok(u64::try_from(rows).unwrap_or(0).max(1));
    }
    Ok(0)
}
