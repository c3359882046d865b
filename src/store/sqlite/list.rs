//! Lists and sums for readers.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Statement, params};

use super::{codes, rows, tally, trouble::Trouble};
use crate::{
    clock::Timestamp,
    ids::{JobId, NodeId},
    job::State,
    money::Usd,
    names::PipelineName,
    store::{
        JobPage, JobQuery, Traffic, TrafficKey,
        paging::Pager,
        traffic::{HOUR, hour_of},
    },
};

/// Sorts after every id.
const AFTER_ALL: [u8; 17] = [0xff; 17];

/// What a list looks at before it reads a job in full.
macro_rules! scan {
    ($from:literal) => {
        concat!(
            "SELECT jobs.seq, jobs.id, jobs.pipeline, jobs.state, jobs.batch, contents.key, contents.metadata FROM ",
            $from,
            " JOIN contents ON contents.seq = jobs.seq"
        )
    };
}

/// Jobs newest first.
pub fn list(conn: &Connection, query: &JobQuery) -> Result<JobPage, Trouble> {
    let mut pager = Pager::new(query);
    let number = |sql: &str, name: &str| -> Result<Option<i64>, Trouble> {
        Ok(conn.prepare_cached(sql)?.query_row([name], |row| row.get(0)).optional()?)
    };
    let pipeline = match &query.pipeline {
        None => None,
        Some(name) => match number("SELECT id FROM pipelines WHERE name = ?1", name.as_str())? {
            None => return Ok(pager.finish()),
            known => known,
        },
    };
    let batch = match &query.batch {
        None => None,
        Some(name) => match number("SELECT id FROM batches WHERE name = ?1", name)? {
            None => return Ok(pager.finish()),
            known => known,
        },
    };
    let mut within: Vec<i64> = Vec::with_capacity(query.within.len());
    for name in &query.within {
        within.extend(number("SELECT id FROM pipelines WHERE name = ?1", name.as_str())?);
    }
    let after = query.after.as_ref().map_or(AFTER_ALL.as_slice(), |id| id.as_bytes().as_slice());
    let mut statement: rusqlite::CachedStatement<'_>;
    let mut found = if let Some(key) = &query.idempotency_key {
        statement = conn.prepare_cached(concat!(
            scan!("keys CROSS JOIN jobs ON jobs.seq = keys.job"),
            " WHERE keys.key = ?2 AND jobs.id < ?1 ORDER BY jobs.id DESC"
        ))?;
        statement.query(params![after, key])?
    } else if let Some(batch) = batch {
        statement = conn.prepare_cached(concat!(
            scan!("jobs INDEXED BY jobs_batch"),
            " WHERE jobs.batch = ?2 AND jobs.id < ?1 ORDER BY jobs.id DESC"
        ))?;
        statement.query(params![after, batch])?
    } else {
        statement = conn
            .prepare_cached(concat!(scan!("jobs INDEXED BY jobs_id"), " WHERE jobs.id < ?1 ORDER BY jobs.id DESC"))?;
        statement.query([after])?
    };
    while let Some(row) = found.next()? {
        if pager.full() {
            break;
        }
        let matches = pipeline.is_none_or(|wanted| row.get(2) == Ok(wanted))
            && (query.within.is_empty() || within.contains(&row.get(2)?))
            && (query.states.is_empty() || query.states.contains(&codes::state(row.get(3)?)?))
            && batch.is_none_or(|wanted| row.get(4) == Ok(Some(wanted)))
            && (query.metadata.is_empty() || {
                let metadata = rows::metadata(row.get::<_, Option<String>>(6)?.as_deref())?;
                query.metadata.iter().all(|(key, value)| metadata.get(key) == Some(value))
            });
        let summary = if matches { rows::summary(conn, row.get(0)?)? } else { None };
        pager.look(JobId::from_bytes(row.get(1)?), summary);
    }
    Ok(pager.finish())
}

/// The job of an idempotency key.
pub fn by_key(conn: &Connection, pipeline: &PipelineName, caller: &str, key: &str) -> Result<Option<JobId>, Trouble> {
    let found = conn
        .prepare_cached(
            "SELECT jobs.id FROM keys JOIN jobs ON jobs.seq = keys.job WHERE keys.key = ?1 \
             AND keys.pipeline = (SELECT id FROM pipelines WHERE name = ?2) AND keys.caller = ?3",
        )?
        .query_row([key, pipeline.as_str(), caller], |row| row.get(0).map(JobId::from_bytes))
        .optional()?;
    Ok(found)
}

/// When the job at the head of each pipeline's ready index was submitted.
pub fn oldest_queued(conn: &Connection) -> Result<BTreeMap<PipelineName, Timestamp>, Trouble> {
    let mut statement = conn.prepare_cached(
        "SELECT p.name, j.created_at FROM pipelines p JOIN jobs j ON j.seq = \
         (SELECT seq FROM jobs INDEXED BY jobs_ready WHERE pipeline = p.id AND state = 0 AND suspect = 0 \
          ORDER BY order_key, seq LIMIT 1)",
    )?;
    by_name(&mut statement, [], |row| row.get(1).map(Timestamp::from_micros))
}

/// The daemons that the file has heard of, and when last.
pub fn nodes(conn: &Connection) -> Result<BTreeMap<NodeId, Option<Timestamp>>, Trouble> {
    let mut statement = conn.prepare_cached("SELECT node, seen_at FROM nodes")?;
    let rows = statement.query_map([], |row| {
        Ok((NodeId::from_bytes(row.get(0)?), row.get::<_, Option<i64>>(1)?.map(Timestamp::from_micros)))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// How many jobs of a batch stand where.
pub fn batch_counts(conn: &Connection, batch: &str) -> Result<BTreeMap<State, u64>, Trouble> {
    let mut statement = conn.prepare_cached(
        "SELECT state, n FROM batch_counts WHERE batch = (SELECT id FROM batches WHERE name = ?1) AND n > 0",
    )?;
    let mut rows = statement.query([batch])?;
    let mut counts = BTreeMap::new();
    while let Some(row) = rows.next()? {
        counts.insert(codes::state(row.get(0)?)?, codes::unsigned(row.get(1)?));
    }
    Ok(counts)
}

/// Spending of each pipeline: sums of whole hours, and the rows of the hour that has begun.
pub fn spending(conn: &Connection, since: Timestamp) -> Result<BTreeMap<PipelineName, Usd>, Trouble> {
    let since = since.as_micros();
    let first_hour = since.div_euclid(HOUR) + i64::from(since.rem_euclid(HOUR) != 0);
    let mut spent = BTreeMap::<PipelineName, Usd>::new();
    for (sql, params) in [
        (
            "SELECT p.name, s.cost FROM spending s JOIN pipelines p ON p.id = s.pipeline WHERE s.hour >= ?1 AND ?2 > 0",
            [first_hour, 1],
        ),
        (
            "SELECT p.name, a.cost FROM attempts a INDEXED BY attempts_ended JOIN pipelines p ON p.id = a.pipeline \
             WHERE a.ended_at >= ?1 AND a.ended_at < ?2 AND a.cost IS NOT NULL",
            [since, first_hour.saturating_mul(HOUR)],
        ),
    ] {
        let mut statement = conn.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        while let Some(row) = rows.next()? {
            let (name, cost): (String, String) = (row.get(0)?, row.get(1)?);
            let cost: Usd = codes::parse(&cost)?;
            if cost != Usd::ZERO {
                *spent.entry(codes::parse(&name)?).or_default() += cost;
            }
        }
    }
    Ok(spent)
}

/// Sums of ended calls, over whole hours.
pub fn traffic(conn: &Connection, since: Timestamp) -> Result<BTreeMap<TrafficKey, Traffic>, Trouble> {
    let mut statement = conn.prepare_cached(concat!(
        "SELECT p.name, t.target, t.provider, t.model, ",
        tally::traffic_columns!(),
        " FROM traffic t JOIN pipelines p ON p.id = t.pipeline WHERE t.hour >= ?1"
    ))?;
    let mut rows = statement.query([hour_of(since)])?;
    let mut sums = BTreeMap::<TrafficKey, Traffic>::new();
    while let Some(row) = rows.next()? {
        let (pipeline, target, provider): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let key = TrafficKey {
            pipeline: codes::parse(&pipeline)?,
            target: codes::parse(&target)?,
            provider: codes::parse(&provider)?,
            model: row.get(3)?,
        };
        *sums.entry(key).or_default() += tally::read_traffic(row, 4)?;
    }
    Ok(sums)
}

/// Spending of each caller, over attempts of jobs that are kept.
pub fn spending_by_caller(conn: &Connection, since: Timestamp) -> Result<BTreeMap<String, Usd>, Trouble> {
    let mut statement = conn.prepare_cached(
        "SELECT c.caller, a.cost FROM attempts a INDEXED BY attempts_ended JOIN contents c ON c.seq = a.seq >> 20 \
         WHERE a.ended_at >= ?1 AND a.cost IS NOT NULL AND c.caller != ''",
    )?;
    let mut rows = statement.query([since.as_micros()])?;
    let mut spent = BTreeMap::<String, Usd>::new();
    while let Some(row) = rows.next()? {
        let cost: String = row.get(1)?;
        let cost: Usd = codes::parse(&cost)?;
        if cost != Usd::ZERO {
            *spent.entry(row.get(0)?).or_default() += cost;
        }
    }
    Ok(spent)
}

fn by_name<T>(
    statement: &mut Statement<'_>,
    params: impl rusqlite::Params,
    mut read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> Result<BTreeMap<PipelineName, T>, Trouble> {
    let mut rows = statement.query(params)?;
    let mut found = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        found.insert(codes::parse(&name)?, read(row)?);
    }
    Ok(found)
}
