//! The ledger as it is read: what was called, what became of it, and which calls are open.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    change::attempt_id,
    columns::{get, job_id, some_time, text, time},
    link::{Tx, params},
    trouble::Trouble,
};
use crate::{
    clock::Timestamp,
    ids::{AttemptId, JobId},
    job::{Attempt, FidelityNote, Outcome},
    money::Usd,
    names::PipelineName,
    store::codes,
    usage::Usage,
};

/// A row of the ledger.
#[derive(Debug)]
pub struct Call {
    /// What everybody sees.
    pub attempt: Attempt,
    /// What was inexact.
    pub fidelity: Vec<FidelityNote>,
}

macro_rules! ledger {
    ($decision:literal) => {
        concat!(
            "SELECT job, id, n, target, provider, model, outcome, fault, message, started_at, ended_at, input, output, ",
            "cache_read, cache_write, reasoning, cost::text, billed, began_at, fidelity, ",
            $decision,
            ", CASE WHEN billed THEN most_cost::text END FROM landbridge.attempts WHERE job = ANY($1) UNION ALL ",
            "SELECT job, id, n, target, provider, model, 0::smallint, NULL, NULL, started_at, NULL, NULL, NULL, ",
            "NULL, NULL, NULL, NULL, false, began_at, fidelity, ",
            $decision,
            ", NULL FROM landbridge.calls WHERE job = ANY($1) ORDER BY began_at, id"
        )
    };
}

/// The attempts of jobs, oldest first, with decisions if wanted.
pub async fn of_jobs(tx: &Tx<'_>, jobs: &[Uuid], decisions: bool) -> Result<BTreeMap<JobId, Vec<Call>>, Trouble> {
    let sql = if decisions { ledger!("decision") } else { ledger!("NULL::text") };
    let mut found: BTreeMap<JobId, Vec<Call>> = BTreeMap::new();
    for row in tx.query(sql, params![jobs => UUID_ARRAY]).await? {
        let job = job_id(get(&row, 0)?);
        found.entry(job).or_default().push(call(&row).map_err(|trouble| trouble.about(job))?);
    }
    Ok(found)
}

fn call(row: &Row) -> Result<Call, Trouble> {
    let count = |place| Ok::<u64, Trouble>(codes::unsigned(get::<Option<i64>>(row, place)?.unwrap_or(0)));
    let usage = match get::<Option<i64>>(row, 11)? {
        None => None,
        Some(input) => Some(Usage {
            input: codes::unsigned(input),
            output: count(12)?,
            cache_read: count(13)?,
            cache_write: count(14)?,
            reasoning: count(15)?,
        }),
    };
    let decision = get::<Option<&str>>(row, 20)?.and_then(|text| serde_json::from_str(text).ok());
    let fidelity = get::<Option<&str>>(row, 19)?.map(serde_json::from_str).transpose()?.unwrap_or_default();
    Ok(Call {
        attempt: Attempt {
            id: attempt_id(get(row, 1)?),
            n: u32::try_from(get::<i32>(row, 2)?).unwrap_or(0),
            target: codes::parse(get(row, 3)?)?,
            provider: codes::parse(get(row, 4)?)?,
            model: get(row, 5)?,
            outcome: outcome(get(row, 6)?)?,
            fault: get::<Option<&str>>(row, 7)?.map(codes::parse).transpose()?,
            message: get(row, 8)?,
            started_at: time(row, 9)?,
            ended_at: some_time(row, 10)?,
            usage,
            cost_usd: get::<Option<&str>>(row, 16)?.map(codes::parse).transpose()?,
            possibly_billed: get(row, 17)?,
            possible_cost_usd: get::<Option<&str>>(row, 21)?.map(codes::parse).transpose()?,
            decision,
        },
        fidelity,
    })
}

fn outcome(code: i16) -> Result<Outcome, Trouble> {
    Ok(codes::outcome(i64::from(code))?)
}

/// The ids of ended attempts of jobs.
pub async fn ids(tx: &Tx<'_>, jobs: &[Uuid]) -> Result<BTreeSet<AttemptId>, Trouble> {
    let mut found = BTreeSet::new();
    for row in tx.query("SELECT id FROM landbridge.attempts WHERE job = ANY($1)", params![jobs => UUID_ARRAY]).await? {
        found.insert(attempt_id(get(&row, 0)?));
    }
    Ok(found)
}

/// Spending of each pipeline: sums of whole hours, and the rows of the hour that has begun.
pub async fn spending(tx: &Tx<'_>, since: Timestamp) -> Result<BTreeMap<PipelineName, Usd>, Trouble> {
    use crate::store::traffic::HOUR;
    let since = since.as_micros();
    let first_hour = since.div_euclid(HOUR) + i64::from(since.rem_euclid(HOUR) != 0);
    let sql = "SELECT p.name, sum(s.cost)::text FROM (\
          SELECT pipeline, cost FROM landbridge.spending WHERE hour >= $2 \
          UNION ALL SELECT pipeline, cost FROM landbridge.deltas WHERE cost IS NOT NULL AND hour >= $2 \
          UNION ALL SELECT pipeline, cost FROM landbridge.attempts WHERE ended_at >= $1 AND ended_at < $3 AND cost IS NOT NULL) s \
        JOIN landbridge.pipelines p ON p.id = s.pipeline GROUP BY p.name";
    let until = first_hour.saturating_mul(HOUR);
    let mut spent = BTreeMap::new();
    for row in tx.query(sql, params![since => INT8, first_hour => INT8, until => INT8]).await? {
        let cost: Usd = codes::parse(get(&row, 1)?)?;
        if cost != Usd::ZERO {
            spent.insert(codes::parse(get(&row, 0)?)?, cost);
        }
    }
    Ok(spent)
}

/// Spending of each caller, over attempts of jobs that are kept.
pub async fn spending_by_caller(tx: &Tx<'_>, since: Timestamp) -> Result<BTreeMap<String, Usd>, Trouble> {
    let sql = "SELECT c.caller, sum(a.cost)::text FROM landbridge.attempts a JOIN landbridge.contents c ON c.id = a.job \
               WHERE a.ended_at >= $1 AND a.cost <> 0 AND c.caller <> ''::bytea GROUP BY 1";
    let mut spent = BTreeMap::new();
    for row in tx.query(sql, params![since.as_micros() => INT8]).await? {
        spent.insert(text(get(&row, 0)?)?, codes::parse(get(&row, 1)?)?);
    }
    Ok(spent)
}
