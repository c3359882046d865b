//! Reading back what happened: recorded jobs, the ledger, how jobs ended.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use rusqlite::{Connection, Row, params};

use super::{rows, trouble::Trouble};
use crate::{
    clock::Timestamp,
    ids::JobId,
    job::{Outcome, State},
    names::PipelineName,
    store::{
        LEDGER_MAX, LedgerCursor, LedgerPage, LedgerQuery, LedgerRow, RECORDED_BYTES, RECORDED_MAX, RecordedJob,
        RecordedPage, RecordedQuery, TrafficKey, codes, ledger::CLOCKS_APART,
    },
    usage::Usage,
};

/// Rows that a page of recorded jobs looks at: some tens of milliseconds of one reader.
const LOOK_MAX: u32 = 10_000;
/// Sorts after every id.
const AFTER_ALL: [u8; 17] = [0xff; 17];

/// Recorded jobs newest first. Bodies lie on pages of their own, which are only read where the second parameter, a list of
/// numbers between commas, names the job's pipeline.
pub fn recorded(conn: &Connection, query: &RecordedQuery) -> Result<RecordedPage, Trouble> {
    let names = pipelines(conn)?;
    let number = |wanted: &PipelineName| names.iter().find(|(_, name)| *name == wanted).map(|(number, _)| *number);
    let within: Vec<i64> = query.within.iter().filter_map(number).collect();
    let mut bodies = ",".to_owned();
    for number in query.bodies.iter().filter_map(number) {
        let _ = write!(bodies, "{number},");
    }
    let limit = query.limit.clamp(1, RECORDED_MAX) as usize;
    let after = query.after.as_ref().map_or(AFTER_ALL.as_slice(), |id| id.as_bytes().as_slice());
    let mut statement = conn.prepare_cached(
        "SELECT j.id, j.pipeline, j.priority, j.created_at, j.blanked, c.metadata, \
         CASE WHEN instr(?2, ',' || j.pipeline || ',') > 0 THEN c.body END \
         FROM jobs j INDEXED BY jobs_id JOIN contents c ON c.seq = j.seq WHERE j.id < ?1 ORDER BY j.id DESC",
    )?;
    let mut rows = statement.query(params![after, bodies])?;
    let mut page = RecordedPage::default();
    let (mut bytes, mut looked, mut last) = (0, 0, query.after);
    while let Some(row) = rows.next()? {
        let created_at = Timestamp::from_micros(row.get(3)?);
        if query.since.is_some_and(|since| created_at + CLOCKS_APART < since) {
            return Ok(page);
        }
        if page.jobs.len() >= limit || bytes >= RECORDED_BYTES || looked >= LOOK_MAX {
            page.next = last;
            return Ok(page);
        }
        looked += 1;
        let id = JobId::from_bytes(row.get(0)?);
        last = Some(id);
        let pipeline: i64 = row.get(1)?;
        let wanted = query.since.is_none_or(|since| created_at >= since)
            && (query.within.is_empty() || within.contains(&pipeline));
        let (true, Some(pipeline)) = (wanted, names.get(&pipeline)) else { continue };
        let body: Option<String> = row.get(6)?;
        bytes += body.as_ref().map_or(0, String::len);
        page.jobs.push(RecordedJob {
            id,
            pipeline: pipeline.clone(),
            priority: row.get(2)?,
            created_at,
            metadata: rows::metadata(row.get_ref(5)?.as_str_or_null().map_err(rusqlite::Error::from)?)?,
            body,
            blanked: row.get(4)?,
        });
    }
    Ok(page)
}

fn pipelines(conn: &Connection) -> Result<BTreeMap<i64, PipelineName>, Trouble> {
    let mut statement = conn.prepare_cached("SELECT id, name FROM pipelines")?;
    let mut rows = statement.query([])?;
    let mut names = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(1)?;
        names.insert(row.get(0)?, codes::parse(&name)?);
    }
    Ok(names)
}

/// Ended calls by the time of their end.
pub fn ledger(conn: &Connection, query: &LedgerQuery) -> Result<LedgerPage, Trouble> {
    let names = pipelines(conn)?;
    let limit = query.limit.clamp(1, LEDGER_MAX);
    let (from, seq) = match query.after {
        None => (query.since.as_micros(), -1),
        Some(after) => (after.ended_at.as_micros(), i64::try_from(after.place).unwrap_or(i64::MAX)),
    };
    let mut statement = conn.prepare_cached(
        "SELECT a.seq, a.ended_at, a.pipeline, a.target, a.provider, a.model, a.started_at, a.first_token, a.outcome, \
         a.fault, a.input, a.output, a.cache_read, a.cache_write, a.reasoning, a.prompt_estimate, a.cost, a.billed, \
         CASE WHEN a.billed THEN a.most_cost END, \
         a.seq & 1048575 > 0 AND EXISTS (SELECT 1 FROM attempts b WHERE b.seq >= (a.seq >> 20) << 20 \
           AND b.seq < a.seq AND b.target != a.target) \
         FROM attempts a INDEXED BY attempts_ended \
         WHERE a.ended_at >= ?1 AND (a.ended_at > ?1 OR a.seq > ?2) ORDER BY a.ended_at, a.seq LIMIT ?3",
    )?;
    let mut rows = statement.query(params![from, seq, limit])?;
    let mut page = LedgerPage::default();
    // Where calls went, with the pipeline's number: calls of one place mostly follow each other.
    let mut places: Vec<i64> = Vec::new();
    let mut recent = 0;
    let mut last = None;
    while let Some(row) = rows.next()? {
        let pipeline: i64 = row.get(2)?;
        let Some(name) = names.get(&pipeline) else { continue };
        let text = |place| row.get_ref(place).and_then(|text| Ok(text.as_str()?));
        let (target, provider, model) = (text(3)?, text(4)?, text(5)?);
        let same = |key: &TrafficKey, number: i64| {
            number == pipeline
                && key.target.as_str() == target
                && key.provider.as_str() == provider
                && key.model == model
        };
        let is_recent = page.places.get(recent).zip(places.get(recent)).is_some_and(|(key, n)| same(key, *n));
        if !is_recent {
            let known = page.places.iter().zip(&places).position(|(key, number)| same(key, *number));
            recent = if let Some(place) = known {
                place
            } else {
                places.push(pipeline);
                page.places.push(TrafficKey {
                    pipeline: name.clone(),
                    target: codes::parse(target)?,
                    provider: codes::parse(provider)?,
                    model: model.to_owned(),
                });
                page.places.len() - 1
            };
        }
        let found = ledger_row(row, recent)?;
        last = Some(LedgerCursor {
            ended_at: found.ended_at,
            place: u128::try_from(row.get::<_, i64>(0)?).unwrap_or_default(),
        });
        page.rows.push(found);
    }
    page.next = last.filter(|_| page.rows.len() >= limit as usize);
    Ok(page)
}

fn ledger_row(row: &Row<'_>, place: usize) -> Result<LedgerRow, Trouble> {
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
    let text = |place| row.get_ref(place).and_then(|text| Ok(text.as_str_or_null()?));
    let ended_at = Timestamp::from_micros(row.get(1)?);
    let outcome = codes::outcome(row.get(8)?)?;
    Ok(LedgerRow {
        place,
        ended_at,
        took: ended_at.since(Timestamp::from_micros(row.get(6)?)),
        first_token: row.get::<_, Option<i64>>(7)?.map(|after| Duration::from_micros(codes::unsigned(after))),
        outcome,
        fault: text(9)?.map(codes::parse).transpose()?,
        usage,
        prompt_estimate: row.get::<_, Option<i64>>(15)?.map(codes::unsigned),
        cost: text(16)?.map(codes::parse).transpose()?,
        possibly_billed: row.get(17)?,
        possible_cost: text(18)?.map(codes::parse).transpose()?,
        rescued: outcome == Outcome::Succeeded && row.get(19)?,
    })
}

/// How jobs that are kept ended since a moment.
pub fn ends(conn: &Connection, since: Timestamp) -> Result<BTreeMap<(PipelineName, State), u64>, Trouble> {
    let mut ends = BTreeMap::new();
    let mut statement = conn.prepare_cached(
        "SELECT state, count(*) FROM jobs INDEXED BY jobs_ended \
         WHERE blanked = ?1 AND pipeline = ?2 AND finished_at >= ?3 AND finished_at IS NOT NULL GROUP BY state",
    )?;
    for (number, name) in pipelines(conn)? {
        for blanked in [0, 1] {
            let mut rows = statement.query(params![blanked, number, since.as_micros()])?;
            while let Some(row) = rows.next()? {
                let state: State = codes::state(row.get(0)?)?;
                *ends.entry((name.clone(), state)).or_default() += codes::unsigned(row.get(1)?);
            }
        }
    }
    Ok(ends)
}
