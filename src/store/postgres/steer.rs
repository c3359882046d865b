//! Cancel, release, promote, expire.
//!
//! Invariant: several daemons may do the same at once: each takes jobs that no other has in hand.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{
    change::{Change, News},
    columns::{Standing, get, job_id, standing, uuid},
    link::{Link, Pace, Tx, params},
    names::Names,
    trouble::Trouble,
    write,
};
use crate::{
    clock::Timestamp,
    ids::JobId,
    job::{State, state::Event},
    names::PipelineName,
    store::{Cancelled, MOVE_MAX, Promoted},
};

/// Cancels live jobs; for each, what was found.
pub async fn cancel(link: &Link, jobs: &[JobId]) -> Result<(Vec<Cancelled>, News), Trouble> {
    let tx = link.begin(Pace::Quick).await?;
    let mut change = Change::new(tx.now);
    let mut ids: Vec<Uuid> = jobs.iter().map(|id| uuid(*id)).collect();
    ids.sort_unstable();
    ids.dedup();
    change.take(&tx, &ids).await?;
    change.take_past(&tx, &ids).await?;
    let mut answers = Vec::with_capacity(jobs.len());
    for id in jobs {
        let was = change.live.get(id).map(|held| held.row.state);
        answers.push(match (was, change.past.get(id)) {
            (Some(was), _) if was.is_terminal() => Cancelled::AlreadyEnded(was),
            (Some(was), _) => {
                change.amend(*id, |row| row.fence += 1);
                change.step(*id, Event::Cancel)?;
                Cancelled::Done { was }
            }
            (None, Some(past)) => Cancelled::AlreadyEnded(past.state),
            (None, None) => Cancelled::Unknown,
        });
    }
    Ok((answers, write::commit(tx, change).await?))
}

const HELD_OF: &str = concat!(
    "SELECT ",
    standing!(),
    " FROM landbridge.jobs WHERE hold IS NOT NULL AND pipeline = $2 ORDER BY id LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED"
);
const HELD: &str = concat!(
    "SELECT ",
    standing!(),
    " FROM landbridge.jobs WHERE hold IS NOT NULL ORDER BY pipeline, id LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED"
);

/// Puts held jobs back into the queue; how many.
pub async fn release(
    link: &Link,
    names: &Names,
    pipeline: Option<&PipelineName>,
    limit: u32,
) -> Result<(u64, News), Trouble> {
    let limit = i64::from(limit.min(MOVE_MAX));
    let number = match pipeline {
        None => None,
        Some(name) => names.numbers(link, [name]).await?.into_values().next(),
    };
    // Asked every half second, and mostly for nothing: looked at before anything is locked.
    let look = link.look().await?;
    let any = match number {
        Some(number) => {
            let sql = "SELECT 1 FROM landbridge.jobs WHERE hold IS NOT NULL AND pipeline = $1 LIMIT 1";
            look.query_opt(sql, params![number => INT4]).await?
        }
        None => look.query_opt("SELECT 1 FROM landbridge.jobs WHERE hold IS NOT NULL LIMIT 1", &[]).await?,
    };
    look.done().await?;
    if any.is_none() {
        return Ok((0, News::default()));
    }
    let tx = link.begin(Pace::Quick).await?;
    let rows = match number {
        Some(number) => tx.query(HELD_OF, params![limit => INT8, number => INT4]).await?,
        None => tx.query(HELD, params![limit => INT8]).await?,
    };
    let mut change = Change::new(tx.now);
    step_all(&tx, &mut change, &rows, Event::Release).await?;
    Ok((rows.len() as u64, write::commit(tx, change).await?))
}

/// Takes rows of `standing!` that are locked into hand, and has each take a step.
async fn step_all(tx: &Tx<'_>, change: &mut Change, rows: &[tokio_postgres::Row], event: Event) -> Result<(), Trouble> {
    let mut ids = Vec::with_capacity(rows.len());
    for row in rows {
        let row = Standing::read(row)?;
        ids.push(row.id);
        change.hold(row);
    }
    change.read_open(tx).await?;
    for id in ids {
        change.step(id, event)?;
    }
    Ok(())
}

const DUE: &str = concat!(
    "SELECT ",
    standing!(),
    " FROM landbridge.jobs WHERE run_at <= $1 ORDER BY run_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED"
);
const NEXT_DUE: &str = "SELECT run_at FROM landbridge.jobs WHERE run_at IS NOT NULL ORDER BY run_at LIMIT 1";

/// Moves waiting jobs whose time has come into the queue.
pub async fn promote(link: &Link, now: Timestamp, limit: u32) -> Result<(Promoted, News), Trouble> {
    let limit = i64::from(limit.min(MOVE_MAX));
    let look = link.look().await?;
    let first = next_due(&look).await?;
    look.done().await?;
    if first.is_none_or(|due| due > now) {
        return Ok((Promoted { moved: 0, next_due: first }, News::default()));
    }
    let tx = link.begin(Pace::Quick).await?;
    let rows = tx.query(DUE, params![now.as_micros() => INT8, limit => INT8]).await?;
    let mut change = Change::new(tx.now);
    step_all(&tx, &mut change, &rows, Event::Promote).await?;
    let news = change.news();
    write::write(&tx, &mut change).await?;
    let next_due = next_due(&tx).await?;
    tx.commit().await?;
    Ok((Promoted { moved: rows.len() as u64, next_due }, news))
}

async fn next_due(tx: &Tx<'_>) -> Result<Option<Timestamp>, Trouble> {
    let row = tx.query_opt(NEXT_DUE, &[]).await?;
    row.map(|row| Ok(Timestamp::from_micros(get(&row, 0)?))).transpose()
}

/// Jobs that run are few, and found by who runs them: the index of expiries need not be written when a job is claimed.
const LATE: &str = "SELECT l.id FROM unnest($1::int[], $2::bigint[], $4::int[]) AS m (pipeline, moment, place) \
    CROSS JOIN LATERAL (\
      (SELECT id, expiry_key FROM landbridge.jobs j WHERE j.state <= 1 AND j.pipeline = m.pipeline \
       AND j.expiry_key <= m.moment ORDER BY j.expiry_key LIMIT $3) \
      UNION ALL \
      (SELECT id, expiry_key FROM landbridge.jobs j WHERE j.node IS NOT NULL AND j.state = 3 AND j.pipeline = m.pipeline \
       AND j.expiry_key <= m.moment ORDER BY j.expiry_key LIMIT $3)) AS l \
    ORDER BY m.place, l.expiry_key LIMIT $3";

/// Expires live jobs, each pipeline by its own moment.
pub async fn expire(
    link: &Link,
    names: &Names,
    before: &BTreeMap<PipelineName, Timestamp>,
    limit: u32,
) -> Result<(Vec<JobId>, News), Trouble> {
    if before.is_empty() {
        return Ok(Default::default());
    }
    let limit = i64::from(limit.min(MOVE_MAX));
    let numbers = names.numbers(link, before.keys()).await?;
    let moments: BTreeMap<i32, i64> =
        before.iter().filter_map(|(name, at)| Some((*numbers.get(name)?, at.as_micros()))).collect();
    let (mut pipelines, mut ats, mut places) = (Vec::new(), Vec::new(), Vec::new());
    for (place, (name, at)) in before.iter().enumerate() {
        if let Some(number) = numbers.get(name) {
            pipelines.push(*number);
            ats.push(at.as_micros());
            places.push(i32::try_from(place).unwrap_or(i32::MAX));
        }
    }
    let look = link.look().await?;
    let params = params![pipelines => INT4_ARRAY, ats => INT8_ARRAY, limit => INT8, places => INT4_ARRAY];
    let late = look.query(LATE, params).await?;
    look.done().await?;
    let late = late.iter().map(|row| get(row, 0)).collect::<Result<Vec<Uuid>, _>>()?;
    if late.is_empty() {
        return Ok(Default::default());
    }
    let tx = link.begin(Pace::Quick).await?;
    let mut change = Change::new(tx.now);
    change.take(&tx, &late).await?;
    let mut expired = Vec::with_capacity(late.len());
    for id in late.into_iter().map(job_id) {
        // Looked at before it was locked: it may have moved on.
        let still = |row: &Standing| {
            !row.state.is_terminal()
                && row.state != State::Held
                && moments.get(&row.pipeline).is_some_and(|at| row.expiry_key <= *at)
        };
        if change.live.get(&id).is_some_and(|held| still(&held.row)) {
            change.amend(id, |row| row.fence += 1);
            change.step(id, Event::Expire)?;
            expired.push(id);
        }
    }
    Ok((expired, write::commit(tx, change).await?))
}
