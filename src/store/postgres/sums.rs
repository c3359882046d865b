//! What is kept instead of counted, and small lookups.

use std::collections::BTreeMap;

use super::{
    columns::{self, get, hash, job_id, time},
    link::{Link, params},
    names::Names,
    trouble::Trouble,
};
use crate::{
    clock::Timestamp,
    ids::JobId,
    job::State,
    names::PipelineName,
    store::{Traffic, TrafficKey, codes, traffic::hour_of},
    usage::Usage,
};

/// The job of an idempotency key.
pub async fn by_key(
    link: &Link,
    names: &Names,
    pipeline: &PipelineName,
    caller: &str,
    key: &str,
) -> Result<Option<JobId>, Trouble> {
    let Some(number) = names.all(link).await?.remove(pipeline) else { return Ok(None) };
    let tx = link.look().await?;
    let sql = "SELECT job FROM landbridge.keys WHERE key_hash = $1 AND pipeline = $2 AND caller_hash = $3";
    let row = tx.query_opt(sql, params![hash(key) => UUID, number => INT4, hash(caller) => UUID]).await?;
    tx.done().await?;
    row.map(|row| Ok(job_id(get(&row, 0)?))).transpose()
}

/// How many jobs of each pipeline stand where.
pub async fn counts(link: &Link) -> Result<BTreeMap<(PipelineName, State), u64>, Trouble> {
    let tx = link.look().await?;
    let sql = "SELECT p.name, s.state, sum(s.n)::bigint FROM (\
          SELECT pipeline, state, n FROM landbridge.counts \
          UNION ALL SELECT pipeline, state, n FROM landbridge.deltas WHERE n IS NOT NULL AND batch IS NULL) AS s \
        JOIN landbridge.pipelines p ON p.id = s.pipeline GROUP BY 1, 2 HAVING sum(s.n) > 0";
    let rows = tx.query(sql, &[]).await?;
    tx.done().await?;
    rows.iter()
        .map(|row| Ok(((codes::parse(get(row, 0)?)?, columns::state(row, 1)?), codes::unsigned(get(row, 2)?))))
        .collect()
}

/// How many jobs of a batch stand where.
pub async fn batch_counts(link: &Link, batch: &str) -> Result<BTreeMap<State, u64>, Trouble> {
    let tx = link.look().await?;
    let sql = "SELECT s.state, sum(s.n)::bigint FROM (\
          SELECT state, n FROM landbridge.batch_counts WHERE batch = $1 \
          UNION ALL SELECT state, n FROM landbridge.deltas WHERE batch = $1) AS s GROUP BY 1 HAVING sum(s.n) > 0";
    let rows = tx.query(sql, params![hash(batch) => UUID]).await?;
    tx.done().await?;
    rows.iter().map(|row| Ok((columns::state(row, 0)?, codes::unsigned(get(row, 1)?)))).collect()
}

/// When the job at the head of each pipeline's ready index was submitted.
pub async fn oldest_queued(link: &Link) -> Result<BTreeMap<PipelineName, Timestamp>, Trouble> {
    let tx = link.look().await?;
    let sql = "SELECT p.name, h.created_at FROM landbridge.pipelines p CROSS JOIN LATERAL (\
          SELECT created_at FROM landbridge.jobs j WHERE j.pipeline = p.id AND j.state = 0 AND NOT j.suspect \
          ORDER BY j.order_key, j.id LIMIT 1) AS h";
    let rows = tx.query(sql, &[]).await?;
    tx.done().await?;
    rows.iter().map(|row| Ok((codes::parse(get(row, 0)?)?, time(row, 1)?))).collect()
}

/// Sums of ended calls, over whole hours.
pub async fn traffic(link: &Link, since: Timestamp) -> Result<BTreeMap<TrafficKey, Traffic>, Trouble> {
    let tx = link.look().await?;
    let sql = "SELECT p.name, s.target, s.provider, s.model, sum(attempts)::bigint, sum(answered)::bigint, sum(billed)::bigint, \
          sum(input)::bigint, sum(output)::bigint, sum(cache_read)::bigint, sum(cache_write)::bigint, sum(reasoning)::bigint, \
          sum(unpriced)::bigint, sum(unbounded)::bigint, sum(cost)::text, sum(possible_cost)::text FROM (\
          SELECT * FROM landbridge.traffic WHERE hour >= $1 \
          UNION ALL SELECT hour, pipeline, target, provider, model, attempts, answered, billed, input, output, cache_read, \
            cache_write, reasoning, unpriced, unbounded, cost, possible_cost FROM landbridge.traffic_deltas WHERE hour >= $1) AS s \
        JOIN landbridge.pipelines p ON p.id = s.pipeline GROUP BY 1, 2, 3, 4 HAVING sum(attempts) > 0";
    let rows = tx.query(sql, params![hour_of(since) => INT8]).await?;
    tx.done().await?;
    let mut sums = BTreeMap::new();
    for row in &rows {
        let key = TrafficKey {
            pipeline: codes::parse(get(row, 0)?)?,
            target: codes::parse(get(row, 1)?)?,
            provider: codes::parse(get(row, 2)?)?,
            model: get(row, 3)?,
        };
        let count = |place| Ok::<u64, Trouble>(codes::unsigned(get(row, place)?));
        let traffic = Traffic {
            attempts: count(4)?,
            answered: count(5)?,
            possibly_billed: count(6)?,
            usage: Usage {
                input: count(7)?,
                output: count(8)?,
                cache_read: count(9)?,
                cache_write: count(10)?,
                reasoning: count(11)?,
            },
            unpriced: count(12)?,
            unbounded: count(13)?,
            cost: codes::parse(get(row, 14)?)?,
            possible_cost: codes::parse(get(row, 15)?)?,
        };
        sums.insert(key, traffic);
    }
    Ok(sums)
}
