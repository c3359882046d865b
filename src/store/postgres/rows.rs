//! Jobs as they are read: summaries, records, pages.
//!
//! Invariant: each answer is read from one state of the database, so a job that moves to history is seen once.

use std::collections::HashMap;

use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    columns::{self, get, hash, job_id, metadata, some_time, text, time, uuid},
    ledger,
    link::{Link, Tx, params},
    names::Names,
    trouble::Trouble,
};
use crate::{
    ids::JobId,
    job::State,
    names::PipelineName,
    store::{JobOutcome, JobPage, JobQuery, JobRecord, JobSummary, codes, paging::Pager},
    usage::Usage,
};

/// Rows that are looked at in one go.
const CHUNK: usize = 1_000;

const SUMMARIES: &str = "SELECT j.id, j.pipeline, j.state, j.hold, j.run_at, j.priority, j.created_at, j.finished_at, j.suspect, \
      c.deadline, c.key, c.batch, c.retry_of, c.caller FROM (\
        SELECT id, pipeline, state, hold, run_at, priority, created_at, NULL::bigint AS finished_at, suspect \
        FROM landbridge.jobs WHERE id = ANY($1) \
        UNION ALL SELECT id, pipeline, state, NULL, NULL, priority, created_at, finished_at, suspect \
        FROM landbridge.history WHERE id = ANY($1)) AS j \
      JOIN landbridge.contents c ON c.id = j.id AND c.id = ANY($1)";

async fn summaries(
    tx: &Tx<'_>,
    link: &Link,
    names: &Names,
    ids: &[Uuid],
) -> Result<HashMap<JobId, JobSummary>, Trouble> {
    let rows = tx.query(SUMMARIES, params![ids => UUID_ARRAY]).await?;
    let numbers = rows.iter().map(|row| get::<i32>(row, 1)).collect::<Result<Vec<_>, _>>()?;
    let names = names.names(link, numbers).await?;
    let mut found = HashMap::with_capacity(rows.len());
    for row in &rows {
        let summary = summary(row, &names).map_err(|trouble| match get::<Uuid>(row, 0) {
            Ok(id) => trouble.about(job_id(id)),
            Err(_) => trouble,
        })?;
        found.insert(summary.id, summary);
    }
    let sql = "SELECT job, count(*) OVER w, generation, target FROM (\
          SELECT job, id, began_at, generation, target FROM landbridge.attempts WHERE job = ANY($1) \
          UNION ALL SELECT job, id, began_at, generation, target FROM landbridge.calls WHERE job = ANY($1)) AS a \
        WINDOW w AS (PARTITION BY job ORDER BY began_at, id) ORDER BY job, began_at, id";
    for row in tx.query(sql, params![ids => UUID_ARRAY]).await? {
        // The last one of a job is its newest.
        if let Some(summary) = found.get_mut(&job_id(get(&row, 0)?)) {
            summary.attempts = u32::try_from(get::<i64>(&row, 1)?).unwrap_or(u32::MAX);
            summary.generation = codes::unsigned(get(&row, 2)?);
            summary.target = Some(codes::parse(get(&row, 3)?)?);
        }
    }
    Ok(found)
}

fn summary(row: &Row, names: &HashMap<i32, PipelineName>) -> Result<JobSummary, Trouble> {
    let pipeline: i32 = get(row, 1)?;
    Ok(JobSummary {
        id: job_id(get(row, 0)?),
        pipeline: names
            .get(&pipeline)
            .cloned()
            .ok_or_else(|| Trouble::Row(format!("{pipeline} is the number of no pipeline")))?,
        state: columns::state(row, 2)?,
        hold: get::<Option<&str>>(row, 3)?.map(codes::parse).transpose()?,
        until: some_time(row, 4)?,
        priority: get(row, 5)?,
        created_at: time(row, 6)?,
        finished_at: some_time(row, 7)?,
        deadline: time(row, 9)?,
        idempotency_key: get::<Option<Vec<u8>>>(row, 10)?.map(text).transpose()?,
        batch: get::<Option<Vec<u8>>>(row, 11)?.map(text).transpose()?,
        retry_of: get::<Option<Uuid>>(row, 12)?.map(job_id),
        caller: text(get(row, 13)?)?,
        suspect: get(row, 8)?,
        attempts: 0,
        generation: 0,
        target: None,
    })
}

/// One job with its contents and attempts.
pub async fn record(link: &Link, names: &Names, id: JobId) -> Result<Option<JobRecord>, Trouble> {
    let tx = link.look().await?;
    let ids = [uuid(id)];
    let Some(summary) = summaries(&tx, link, names, &ids).await?.remove(&id) else {
        tx.done().await?;
        return Ok(None);
    };
    let sql = "SELECT c.metadata, c.body, j.result, j.error, j.assignment, c.callback FROM landbridge.contents c, (\
          SELECT NULL::bytea AS result, NULL::text AS error, assignment FROM landbridge.jobs WHERE id = $1 \
          UNION ALL SELECT result, error, assignment FROM landbridge.history WHERE id = $1) AS j WHERE c.id = $1";
    let row = tx.query_opt(sql, params![ids[0] => UUID]).await?;
    let row = row.ok_or_else(|| Trouble::Row(format!("{id} has no contents")))?;
    let calls = ledger::of_jobs(&tx, &ids, true).await?.remove(&id).unwrap_or_default();
    tx.done().await?;
    let read = || -> Result<JobRecord, Trouble> {
        Ok(JobRecord {
            metadata: metadata(get(&row, 0)?)?,
            body: get::<Option<Vec<u8>>>(&row, 1)?.map(text).transpose()?,
            result: get::<Option<Vec<u8>>>(&row, 2)?.map(text).transpose()?,
            error: get::<Option<&str>>(&row, 3)?.map(serde_json::from_str).transpose()?,
            assignment: get::<Option<&str>>(&row, 4)?.map(serde_json::from_str).transpose()?,
            callback: get(&row, 5)?,
            fidelity: calls.last().map(|call| call.fidelity.clone()).unwrap_or_default(),
            attempts: Vec::new(),
            summary,
        })
    };
    let record = read().map_err(|trouble| trouble.about(id))?;
    Ok(Some(JobRecord { attempts: calls.into_iter().map(|call| call.attempt).collect(), ..record }))
}

/// How jobs ended, for each.
pub async fn outcomes(link: &Link, jobs: &[JobId]) -> Result<Vec<Option<JobOutcome>>, Trouble> {
    let ids: Vec<Uuid> = jobs.iter().map(|id| uuid(*id)).collect();
    let tx = link.look().await?;
    let sql = "SELECT id, state, NULL::bytea, NULL::text FROM landbridge.jobs WHERE id = ANY($1) \
               UNION ALL SELECT id, state, result, error FROM landbridge.history WHERE id = ANY($1)";
    let mut found = HashMap::new();
    for row in tx.query(sql, params![ids => UUID_ARRAY]).await? {
        let id = job_id(get(&row, 0)?);
        let outcome = JobOutcome {
            state: columns::state(&row, 1)?,
            result: get::<Option<Vec<u8>>>(&row, 2)?.map(text).transpose()?,
            error: get::<Option<&str>>(&row, 3)?.map(serde_json::from_str).transpose()?,
            usage: Usage::default(),
        };
        found.insert(id, outcome);
    }
    let sql = "SELECT job, sum(input)::bigint, sum(output)::bigint, sum(cache_read)::bigint, sum(cache_write)::bigint, \
               sum(reasoning)::bigint FROM landbridge.attempts WHERE job = ANY($1) GROUP BY job";
    for row in tx.query(sql, params![ids => UUID_ARRAY]).await? {
        let count = |place| Ok::<u64, Trouble>(codes::unsigned(get::<Option<i64>>(&row, place)?.unwrap_or(0)));
        if let Some(outcome) = found.get_mut(&job_id(get(&row, 0)?)) {
            outcome.usage = Usage {
                input: count(1)?,
                output: count(2)?,
                cache_read: count(3)?,
                cache_write: count(4)?,
                reasoning: count(5)?,
            };
        }
    }
    tx.done().await?;
    Ok(jobs.iter().map(|id| found.get(id).cloned()).collect())
}

/// What a list looks at before it reads a job in full.
struct Looked {
    id: JobId,
    pipeline: i32,
    state: State,
    metadata: Option<String>,
}

/// Jobs newest first.
pub async fn list(link: &Link, names: &Names, query: &JobQuery) -> Result<JobPage, Trouble> {
    let mut pager = Pager::new(query);
    let pipeline = match &query.pipeline {
        None => None,
        Some(name) => match names.all(link).await?.remove(name) {
            None => return Ok(pager.finish()),
            known => known,
        },
    };
    let mut within = Vec::with_capacity(query.within.len());
    if !query.within.is_empty() {
        let all = names.all(link).await?;
        within.extend(query.within.iter().filter_map(|name| all.get(name).copied()));
    }
    let tx = link.look().await?;
    let keyed = match &query.idempotency_key {
        None => None,
        Some(key) => {
            let rows =
                tx.query("SELECT job FROM landbridge.keys WHERE key_hash = $1", params![hash(key) => UUID]).await?;
            Some(rows.iter().map(|row| get(row, 0)).collect::<Result<Vec<Uuid>, _>>()?)
        }
    };
    let mut after = query.after.map_or(Uuid::max(), uuid);
    let mut first = query.after.is_none();
    'pages: loop {
        // Where nothing is sifted out, one row more than the page holds tells whether there is another page.
        let sifted =
            pipeline.is_some() || !query.within.is_empty() || !query.states.is_empty() || !query.metadata.is_empty();
        let chunk = if sifted { CHUNK } else { pager.room() + 1 };
        let found = look(&tx, query, keyed.as_deref(), after, first, chunk).await?;
        let enough = found.len() < chunk;
        let matching: Vec<Uuid> = found
            .iter()
            .filter_map(|row| matches(query, pipeline, &within, row).map(|yes| yes.then(|| uuid(row.id))).transpose())
            .collect::<Result<_, _>>()?;
        // A page holds so many at most: the others are looked at again by the next.
        let some: Vec<Uuid> = matching.into_iter().take(pager.room()).collect();
        let mut summaries = summaries(&tx, link, names, &some).await?;
        for row in &found {
            if pager.full() {
                break 'pages;
            }
            pager.look(row.id, summaries.remove(&row.id));
            after = uuid(row.id);
        }
        first = false;
        if enough {
            break;
        }
    }
    tx.done().await?;
    Ok(pager.finish())
}

async fn look(
    tx: &Tx<'_>,
    query: &JobQuery,
    keyed: Option<&[Uuid]>,
    after: Uuid,
    first: bool,
    chunk: usize,
) -> Result<Vec<Looked>, Trouble> {
    // The greatest id of all is below nothing; ids are made of times, and none is that late.
    let below = if first { "id <= $1" } else { "id < $1" };
    let among = match (keyed, &query.batch) {
        (Some(_), _) => " AND id = ANY($3)",
        (None, Some(_)) => " AND batch = $4",
        (None, None) => "",
    };
    // Contents are only looked into where something is asked of them.
    let metadata = if query.metadata.is_empty() {
        "NULL::text"
    } else {
        "(SELECT c.metadata FROM landbridge.contents c WHERE c.id = l.id)"
    };
    let also_batch = if keyed.is_some() && query.batch.is_some() { " AND batch = $4" } else { "" };
    let part = |table: &str| {
        format!(
            "(SELECT id, pipeline, state FROM landbridge.{table} WHERE {below}{among}{also_batch} \
             AND ($3::uuid[] IS NULL OR true) AND ($4::uuid IS NULL OR true) ORDER BY id DESC LIMIT $2)"
        )
    };
    let sql = format!(
        "SELECT l.id, l.pipeline, l.state, {metadata} FROM ({} UNION ALL {} ORDER BY id DESC LIMIT $2) AS l \
         ORDER BY l.id DESC",
        part("jobs"),
        part("history")
    );
    let batch = query.batch.as_deref().map(hash);
    let chunk = i64::try_from(chunk).unwrap_or(i64::MAX);
    let params = params![after => UUID, chunk => INT8, keyed => UUID_ARRAY, batch => UUID];
    let mut found = Vec::new();
    for row in tx.query(&sql, params).await? {
        found.push(Looked {
            id: job_id(get(&row, 0)?),
            pipeline: get(&row, 1)?,
            state: columns::state(&row, 2)?,
            metadata: get(&row, 3)?,
        });
    }
    Ok(found)
}

fn matches(query: &JobQuery, pipeline: Option<i32>, within: &[i32], row: &Looked) -> Result<bool, Trouble> {
    if pipeline.is_some_and(|wanted| wanted != row.pipeline)
        || !(query.within.is_empty() || within.contains(&row.pipeline))
        || !(query.states.is_empty() || query.states.contains(&row.state))
    {
        return Ok(false);
    }
    if query.metadata.is_empty() {
        return Ok(true);
    }
    let metadata = metadata(row.metadata.as_deref()).map_err(|trouble| trouble.about(row.id))?;
    Ok(query.metadata.iter().all(|(key, value)| metadata.get(key) == Some(value)))
}
