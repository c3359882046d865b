//! Rows as records.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row};

use super::{codes, schema::of_job, trouble::Trouble};
use crate::{
    clock::Timestamp,
    ids::{AttemptId, JobId},
    job::Attempt,
    store::{JobError, JobOutcome, JobRecord, JobSummary},
    usage::Usage,
};

/// Metadata as the column holds it; empty is NULL.
pub fn metadata(text: Option<&str>) -> Result<BTreeMap<String, String>, Trouble> {
    Ok(text.map(serde_json::from_str).transpose()?.unwrap_or_default())
}

macro_rules! attempt_columns {
    () => {
        "id, n, target, provider, model, outcome, fault, message, started_at, ended_at, input, output, cache_read, \
         cache_write, reasoning, cost, billed, most_cost"
    };
}

/// A job's ledger, oldest first, without decisions.
pub fn attempts(conn: &Connection, seq: i64) -> Result<Vec<Attempt>, Trouble> {
    let mut statement = conn.prepare_cached(concat!(
        "SELECT ",
        attempt_columns!(),
        " FROM attempts WHERE ",
        of_job!(),
        " ORDER BY seq"
    ))?;
    let mut rows = statement.query([seq])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(attempt(row)?);
    }
    Ok(found)
}

fn attempt(row: &Row<'_>) -> Result<Attempt, Trouble> {
    let count = |place| row.get::<_, Option<i64>>(place).map(|count| codes::unsigned(count.unwrap_or(0)));
    let usage = match row.get::<_, Option<i64>>(10)? {
        None => None,
        Some(input) => Some(Usage {
            input: codes::unsigned(input),
            output: count(11)?,
            cache_read: count(12)?,
            cache_write: count(13)?,
            reasoning: count(14)?,
        }),
    };
    let possibly_billed: bool = row.get(16)?;
    let most_cost = if possibly_billed { codes::parse_some(row.get(17)?)? } else { None };
    Ok(Attempt {
        id: AttemptId::from_bytes(row.get(0)?),
        n: row.get(1)?,
        target: codes::parse(text(row, 2)?)?,
        provider: codes::parse(text(row, 3)?)?,
        model: row.get(4)?,
        outcome: codes::outcome(row.get(5)?)?,
        fault: codes::parse_some(row.get(6)?)?,
        message: row.get(7)?,
        started_at: Timestamp::from_micros(row.get(8)?),
        ended_at: row.get::<_, Option<i64>>(9)?.map(Timestamp::from_micros),
        usage,
        cost_usd: codes::parse_some(row.get(15)?)?,
        possibly_billed,
        possible_cost_usd: most_cost,
        decision: None,
    })
}

fn text<'a>(row: &'a Row<'_>, place: usize) -> Result<&'a str, Trouble> {
    Ok(row.get_ref(place)?.as_str().map_err(rusqlite::Error::from)?)
}

/// A job without its contents.
pub fn summary(conn: &Connection, seq: i64) -> Result<Option<JobSummary>, Trouble> {
    let mut statement = conn.prepare_cached(
        "SELECT j.id, p.name, j.state, j.hold, j.run_at, j.priority, j.created_at, j.finished_at, c.deadline, c.key, \
         b.name, c.retry_of, j.suspect, (SELECT count(*) FROM attempts WHERE seq >= j.seq << 20 AND seq < (j.seq + 1) << 20), a.generation, a.target, c.caller \
         FROM jobs j JOIN pipelines p ON p.id = j.pipeline JOIN contents c ON c.seq = j.seq \
         LEFT JOIN batches b ON b.id = j.batch \
         LEFT JOIN attempts a ON a.seq = (SELECT max(seq) FROM attempts WHERE seq >= j.seq << 20 AND seq < (j.seq + 1) << 20) WHERE j.seq = ?1",
    )?;
    let mut rows = statement.query([seq])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let time = |place| row.get::<_, Option<i64>>(place).map(|at| at.map(Timestamp::from_micros));
    Ok(Some(JobSummary {
        id: JobId::from_bytes(row.get(0)?),
        pipeline: codes::parse(text(row, 1)?)?,
        caller: row.get(16)?,
        state: codes::state(row.get(2)?)?,
        hold: codes::parse_some(row.get(3)?)?,
        until: time(4)?,
        priority: row.get(5)?,
        created_at: Timestamp::from_micros(row.get(6)?),
        finished_at: time(7)?,
        deadline: Timestamp::from_micros(row.get(8)?),
        idempotency_key: row.get(9)?,
        batch: row.get(10)?,
        retry_of: row.get::<_, Option<[u8; 16]>>(11)?.map(JobId::from_bytes),
        suspect: row.get(12)?,
        attempts: row.get(13)?,
        generation: codes::unsigned(row.get::<_, Option<i64>>(14)?.unwrap_or(0)),
        target: codes::parse_some(row.get(15)?)?,
    }))
}

/// One job with its contents and attempts.
pub fn record(conn: &Connection, id: JobId) -> Result<Option<JobRecord>, Trouble> {
    let seq: Option<i64> = conn
        .prepare_cached("SELECT seq FROM jobs WHERE id = ?1")?
        .query_row([id.as_bytes()], |row| row.get(0))
        .optional()?;
    let Some(seq) = seq else { return Ok(None) };
    let Some(summary) = summary(conn, seq)? else { return Ok(None) };
    let mut statement = conn.prepare_cached(
        "SELECT c.metadata, c.body, r.result, r.error, j.assignment, c.callback FROM jobs j JOIN contents c ON c.seq = j.seq \
         LEFT JOIN results r ON r.seq = j.seq WHERE j.seq = ?1",
    )?;
    let mut rows = statement.query([seq])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let (found, error, assignment): (Option<String>, Option<String>, Option<String>) =
        (row.get(0)?, row.get(3)?, row.get(4)?);
    let mut attempts = attempts(conn, seq)?;
    let fidelity = explain(conn, seq, &mut attempts)?;
    Ok(Some(JobRecord {
        summary,
        metadata: metadata(found.as_deref())?,
        body: row.get(1)?,
        result: row.get(2)?,
        error: error.as_deref().map(serde_json::from_str::<JobError>).transpose()?,
        attempts,
        fidelity,
        assignment: assignment.as_deref().map(serde_json::from_str).transpose()?,
        callback: row.get(5)?,
    }))
}

/// Adds the decisions to a job's attempts; gives the fidelity notes of the newest.
fn explain(conn: &Connection, seq: i64, attempts: &mut [Attempt]) -> Result<Vec<crate::job::FidelityNote>, Trouble> {
    let mut statement =
        conn.prepare_cached(concat!("SELECT decision, fidelity FROM attempts WHERE ", of_job!(), " ORDER BY seq"))?;
    let mut rows = statement.query([seq])?;
    let mut fidelity = None;
    for attempt in attempts {
        let Some(row) = rows.next()? else { break };
        let decision: Option<String> = row.get(0)?;
        attempt.decision = decision.and_then(|text| serde_json::from_str(&text).ok());
        fidelity = row.get::<_, Option<String>>(1)?;
    }
    Ok(fidelity.as_deref().map(serde_json::from_str).transpose()?.unwrap_or_default())
}

/// How a job ended.
pub fn outcome(conn: &Connection, id: JobId) -> Result<Option<JobOutcome>, Trouble> {
    let mut statement = conn.prepare_cached(
        "SELECT j.seq, j.state, r.result, r.error FROM jobs j LEFT JOIN results r ON r.seq = j.seq WHERE j.id = ?1",
    )?;
    let mut rows = statement.query([id.as_bytes()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let error: Option<String> = row.get(3)?;
    let mut sums = conn.prepare_cached(concat!(
        "SELECT sum(input), sum(output), sum(cache_read), sum(cache_write), sum(reasoning) FROM attempts WHERE ",
        of_job!()
    ))?;
    let usage = sums.query_row([row.get::<_, i64>(0)?], |row| {
        let count = |place| row.get::<_, Option<i64>>(place).map(|count| codes::unsigned(count.unwrap_or(0)));
        Ok(Usage {
            input: count(0)?,
            output: count(1)?,
            cache_read: count(2)?,
            cache_write: count(3)?,
            reasoning: count(4)?,
        })
    })?;
    Ok(Some(JobOutcome {
        state: codes::state(row.get(1)?)?,
        result: row.get(2)?,
        error: error.as_deref().map(serde_json::from_str::<JobError>).transpose()?,
        usage,
    }))
}
