//! Reading back what happened: recorded jobs, the ledger, how jobs ended.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    columns::{get, job_id, metadata, state, text, time, uuid},
    link::{Link, params},
    names::Names,
    trouble::Trouble,
};
use crate::{
    clock::Timestamp,
    job::{Outcome, State},
    names::PipelineName,
    store::{
        LEDGER_MAX, LedgerCursor, LedgerPage, LedgerQuery, LedgerRow, RECORDED_BYTES, RECORDED_MAX, RecordedJob,
        RecordedPage, RecordedQuery, TrafficKey, codes, ledger::CLOCKS_APART,
    },
    usage::Usage,
};

/// Rows of recorded jobs read at once when they come with bodies, which may be long.
const WITH_BODIES: usize = 200;
/// Rows that a page looks at.
const LOOK_MAX: usize = 10_000;

const RECORDED: &str = "SELECT l.id, l.pipeline, l.priority, l.created_at, c.metadata, c.body IS NULL, \
      CASE WHEN l.pipeline = ANY($3) THEN c.body END FROM (\
        (SELECT id, pipeline, priority, created_at FROM landbridge.jobs WHERE id < $1 ORDER BY id DESC LIMIT $2) \
        UNION ALL \
        (SELECT id, pipeline, priority, created_at FROM landbridge.history WHERE id < $1 ORDER BY id DESC LIMIT $2) \
        ORDER BY id DESC LIMIT $2) AS l \
      JOIN landbridge.contents c ON c.id = l.id ORDER BY l.id DESC";

const LEDGER: &str = "SELECT a.id, a.ended_at, a.pipeline, a.target, a.provider, a.model, a.started_at, a.first_token, a.outcome, \
      a.fault, a.input, a.output, a.cache_read, a.cache_write, a.reasoning, a.prompt_estimate, a.cost::text, a.billed, \
      CASE WHEN a.billed THEN a.most_cost::text END, \
      CASE WHEN a.n > 1 THEN EXISTS (SELECT 1 FROM landbridge.attempts b WHERE b.job = a.job AND b.target <> a.target \
        AND (b.began_at, b.id) < (a.began_at, a.id)) ELSE false END \
      FROM landbridge.attempts a WHERE a.ended_at >= $1 AND (a.ended_at, a.id) > ($1, $2) ORDER BY a.ended_at, a.id LIMIT $3";

/// Recorded jobs newest first.
pub async fn recorded(link: &Link, names: &Names, query: &RecordedQuery) -> Result<RecordedPage, Trouble> {
    let numbers = names.all(link).await?;
    let known: HashMap<i32, &PipelineName> = numbers.iter().map(|(name, number)| (*number, name)).collect();
    let within: Vec<i32> = query.within.iter().filter_map(|name| numbers.get(name).copied()).collect();
    let bodies: Vec<i32> = query.bodies.iter().filter_map(|name| numbers.get(name).copied()).collect();
    let limit = query.limit.clamp(1, RECORDED_MAX) as usize;
    let chunk = if bodies.is_empty() { limit } else { limit.min(WITH_BODIES) };
    let mut after = query.after.map_or(Uuid::max(), uuid);
    let mut page = RecordedPage::default();
    let (mut bytes, mut looked) = (0, 0);
    let tx = link.look().await?;
    'pages: loop {
        let few = i64::try_from(chunk).unwrap_or(i64::MAX);
        let rows = tx.query(RECORDED, params![after => UUID, few => INT8, bodies => INT4_ARRAY]).await?;
        for row in &rows {
            let created_at = time(row, 3)?;
            if query.since.is_some_and(|since| created_at + CLOCKS_APART < since) {
                break 'pages;
            }
            if page.jobs.len() >= limit || bytes >= RECORDED_BYTES || looked >= LOOK_MAX {
                page.next = Some(job_id(after));
                break 'pages;
            }
            looked += 1;
            after = get(row, 0)?;
            let pipeline: i32 = get(row, 1)?;
            let wanted = query.since.is_none_or(|since| created_at >= since)
                && (query.within.is_empty() || within.contains(&pipeline));
            let (true, Some(name)) = (wanted, known.get(&pipeline)) else { continue };
            let body = get::<Option<Vec<u8>>>(row, 6)?.map(text).transpose()?;
            bytes += body.as_ref().map_or(0, String::len);
            page.jobs.push(RecordedJob {
                id: job_id(after),
                pipeline: (*name).clone(),
                priority: get(row, 2)?,
                created_at,
                metadata: metadata(get(row, 4)?)?,
                body,
                blanked: get(row, 5)?,
            });
        }
        if rows.len() < chunk {
            break;
        }
    }
    tx.done().await?;
    Ok(page)
}

/// Ended calls by the time of their end.
pub async fn ledger(link: &Link, names: &Names, query: LedgerQuery) -> Result<LedgerPage, Trouble> {
    let limit = query.limit.clamp(1, LEDGER_MAX);
    let (from, behind) = match query.after {
        // Nothing is before the first id.
        None => (query.since.as_micros(), Uuid::nil()),
        Some(after) => (after.ended_at.as_micros(), Uuid::from_u128(after.place)),
    };
    let tx = link.look().await?;
    let rows = tx.query(LEDGER, params![from => INT8, behind => UUID, i64::from(limit) => INT8]).await?;
    tx.done().await?;
    let numbers = rows.iter().map(|row| get::<i32>(row, 2)).collect::<Result<Vec<_>, _>>()?;
    let names = names.names(link, numbers).await?;
    let mut page = LedgerPage::default();
    let mut places: HashMap<(i32, String, String, String), usize> = HashMap::new();
    for row in &rows {
        let key: (i32, String, String, String) = (get(row, 2)?, get(row, 3)?, get(row, 4)?, get(row, 5)?);
        let place = if let Some(place) = places.get(&key) {
            *place
        } else {
            let pipeline = names
                .get(&key.0)
                .cloned()
                .ok_or_else(|| Trouble::Row(format!("{} is the number of no pipeline", key.0)))?;
            page.places.push(TrafficKey {
                pipeline,
                target: codes::parse(&key.1)?,
                provider: codes::parse(&key.2)?,
                model: key.3.clone(),
            });
            places.insert(key, page.places.len() - 1);
            page.places.len() - 1
        };
        page.rows.push(ledger_row(row, place)?);
    }
    if rows.len() >= limit as usize
        && let (Some(last), Some(row)) = (page.rows.last(), rows.last())
    {
        page.next = Some(LedgerCursor { ended_at: last.ended_at, place: get::<Uuid>(row, 0)?.as_u128() });
    }
    Ok(page)
}

fn ledger_row(row: &Row, place: usize) -> Result<LedgerRow, Trouble> {
    let count = |place| Ok::<u64, Trouble>(codes::unsigned(get::<Option<i64>>(row, place)?.unwrap_or(0)));
    let usage = match get::<Option<i64>>(row, 10)? {
        None => None,
        Some(input) => Some(Usage {
            input: codes::unsigned(input),
            output: count(11)?,
            cache_read: count(12)?,
            cache_write: count(13)?,
            reasoning: count(14)?,
        }),
    };
    let ended_at = time(row, 1)?;
    let outcome = codes::outcome(i64::from(get::<i16>(row, 8)?))?;
    Ok(LedgerRow {
        place,
        ended_at,
        took: ended_at.since(time(row, 6)?),
        first_token: get::<Option<i64>>(row, 7)?.map(|after| Duration::from_micros(codes::unsigned(after))),
        outcome,
        fault: get::<Option<&str>>(row, 9)?.map(codes::parse).transpose()?,
        usage,
        prompt_estimate: get::<Option<i64>>(row, 15)?.map(codes::unsigned),
        cost: get::<Option<&str>>(row, 16)?.map(codes::parse).transpose()?,
        possibly_billed: get(row, 17)?,
        possible_cost: get::<Option<&str>>(row, 18)?.map(codes::parse).transpose()?,
        rescued: outcome == Outcome::Succeeded && get(row, 19)?,
    })
}

/// How jobs that are kept ended since a moment. Those whose worker has not reported yet have an index of their own.
pub async fn ends(
    link: &Link,
    names: &Names,
    since: Timestamp,
) -> Result<BTreeMap<(PipelineName, State), u64>, Trouble> {
    let numbers = names.all(link).await?;
    let known: HashMap<i32, &PipelineName> = numbers.iter().map(|(name, number)| (*number, name)).collect();
    let all: Vec<i32> = numbers.values().copied().collect();
    let sql = "SELECT pipeline, state, count(*) FROM landbridge.history \
          WHERE pipeline = ANY($1) AND finished_at >= $2 AND node IS NULL GROUP BY pipeline, state \
        UNION ALL SELECT pipeline, state, count(*) FROM landbridge.history \
          WHERE node IS NOT NULL AND finished_at >= $2 GROUP BY pipeline, state";
    let tx = link.look().await?;
    let rows = tx.query(sql, params![all => INT4_ARRAY, since.as_micros() => INT8]).await?;
    tx.done().await?;
    let mut ends = BTreeMap::new();
    for row in &rows {
        if let Some(name) = known.get(&get::<i32>(row, 0)?) {
            *ends.entry(((*name).clone(), state(row, 1)?)).or_default() += codes::unsigned(get(row, 2)?);
        }
    }
    Ok(ends)
}
