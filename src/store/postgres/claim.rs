//! Claiming jobs, and writing intents.
//!
//! Invariant: a claim looks at the heads of the ready index alone and skips what others are claiming, so its cost does not
//! grow with the queue and daemons do not wait for each other.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use uuid::Uuid;

use super::{
    change::{Call, Change, News},
    columns::{Standing, get, hash, job_id, metadata, node, text, time, uuid},
    ledger,
    link::{Link, Pace, Tx, params},
    names::Names,
    submit,
    tally::Tally,
    trouble::Trouble,
    write,
};
use crate::{
    ids::{JobId, NodeId},
    job::State,
    names::PipelineName,
    store::{ClaimRequest, Claimed, Fence, Intent, NewJob, Next, Settlement, codes},
};

/// Jobs of one claim at most, whatever is asked for: a transaction of a few milliseconds.
const CLAIM_MAX: u32 = 1_024;

/// A node that works is not gone, whether it said so or not.
const WORKS: &str = "INSERT INTO landbridge.nodes AS n (node, seen_at) VALUES ($1, $2) \
    ON CONFLICT (node) DO UPDATE SET seen_at = excluded.seen_at WHERE n.seen_at IS NULL";

/// First looks how many jobs of each pipeline are among the next ones over all, then locks that many of each.
const TAKE: &str = "WITH want AS (SELECT * FROM unnest($1::int[], $2::bigint[]) AS w (pipeline, places)), \
    peek AS MATERIALIZED (\
      SELECT w.pipeline FROM want w CROSS JOIN LATERAL (\
        SELECT j.order_key, j.id FROM landbridge.jobs j \
        WHERE j.pipeline = w.pipeline AND j.state = 0 AND NOT j.suspect ORDER BY j.order_key, j.id LIMIT w.places) AS h \
      ORDER BY h.order_key, h.id LIMIT $3), \
    share AS (SELECT pipeline, count(*) AS places FROM peek GROUP BY pipeline), \
    heads AS MATERIALIZED (\
      SELECT h.id FROM share s CROSS JOIN LATERAL (\
        SELECT j.id FROM landbridge.jobs j \
        WHERE j.pipeline = s.pipeline AND j.state = 0 AND NOT j.suspect ORDER BY j.order_key, j.id LIMIT s.places \
        FOR NO KEY UPDATE SKIP LOCKED) AS h) \
    UPDATE landbridge.jobs AS j SET state = 3, fence = j.fence + 1, node = $4 FROM heads h WHERE j.id = h.id \
    RETURNING j.id, j.pipeline, j.fence, j.priority, j.created_at, j.expiry_key, j.assignment, j.suspect, j.batch, \
    j.order_key";

const TAKE_SUSPECT: &str = "WITH want AS (SELECT unnest($1::int[]) AS pipeline), \
    heads AS MATERIALIZED (\
      SELECT j.id FROM landbridge.jobs j \
      WHERE j.suspect AND j.state = 0 AND j.pipeline IN (SELECT pipeline FROM want) \
      AND NOT EXISTS (SELECT 1 FROM landbridge.jobs b WHERE b.suspect AND b.state = 3 AND b.node = $2) \
      ORDER BY j.order_key, j.id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) \
    UPDATE landbridge.jobs AS j SET state = 3, fence = j.fence + 1, node = $2 FROM heads h WHERE j.id = h.id \
    RETURNING j.id, j.pipeline, j.fence, j.priority, j.created_at, j.expiry_key, j.assignment, j.suspect, j.batch, \
    j.order_key";

/// Claims ready jobs, or one suspect.
pub async fn claim(
    link: &Link,
    names: &Names,
    orphans: &Orphans,
    request: &ClaimRequest,
) -> Result<Vec<Claimed>, Trouble> {
    if request.is_empty() {
        return Ok(Vec::new());
    }
    let max = request.max.min(CLAIM_MAX);
    let wanted = request.pipelines.iter().filter(|(_, places)| *places > 0);
    let wanted: Vec<(&PipelineName, u32)> = wanted.map(|(name, places)| (name, (*places).min(max))).collect();
    let numbers = names.numbers(link, wanted.iter().map(|(name, _)| *name)).await?;
    let (mut pipelines, mut places) = (Vec::new(), Vec::new());
    for (name, limit) in &wanted {
        if let Some(number) = numbers.get(*name) {
            pipelines.push(*number);
            places.push(i64::from(*limit));
        }
    }
    let tx = link.begin(Pace::Quick).await?;
    let (who, now) = (node(request.node), tx.now.as_micros());
    tx.execute(WORKS, params![who => UUID, now => INT8]).await?;
    let rows = if request.suspects {
        // One after the other for a node: two claims at once would each see no suspect in flight.
        tx.execute("SELECT 1 FROM landbridge.nodes WHERE node = $1 FOR UPDATE", params![who => UUID]).await?;
        tx.query(TAKE_SUSPECT, params![pipelines => INT4_ARRAY, who => UUID]).await?
    } else {
        let params = params![pipelines => INT4_ARRAY, places => INT8_ARRAY, i64::from(max) => INT8, who => UUID];
        tx.query(TAKE, params).await?
    };
    if rows.is_empty() {
        tx.done_without_receipt().await?;
        return Ok(Vec::new());
    }
    let by_number: HashMap<i32, &PipelineName> = numbers.iter().map(|(name, number)| (*number, name)).collect();
    let mut tally = Tally::default();
    let mut claimed = Vec::with_capacity(rows.len());
    for row in &rows {
        let id = job_id(get(row, 0)?);
        let pipeline: i32 = get(row, 1)?;
        let fence: i64 = get(row, 2)?;
        let batch: Option<Uuid> = get(row, 8)?;
        tally.shift(pipeline, batch, State::Queued, -1);
        tally.shift(pipeline, batch, State::Running, 1);
        let assignment = get::<Option<&str>>(row, 6)?.map(serde_json::from_str).transpose();
        let name = by_number.get(&pipeline).copied().cloned();
        let job = Claimed {
            id,
            pipeline: name.ok_or_else(|| Trouble::Row(format!("{id} is of another pipeline than asked for")))?,
            fence: Fence(codes::unsigned(fence)),
            priority: get(row, 3)?,
            created_at: time(row, 4)?,
            expiry_key: time(row, 5)?,
            metadata: std::collections::BTreeMap::new(),
            body: String::new(),
            caller: String::new(),
            assignment: assignment.map_err(|error| Trouble::from(error).about(id))?,
            attempts: Vec::new(),
            suspect: get(row, 7)?,
        };
        claimed.push((get::<i64>(row, 9)?, id, job));
    }
    claimed.sort_by_key(|(order_key, id, _)| (*order_key, *id));
    let mut claimed: Vec<Claimed> = claimed.into_iter().map(|(_, _, job)| job).collect();
    fill(&tx, &mut claimed).await?;
    let rows = tally.rows();
    let last: Vec<_> = rows.statement().into_iter().collect();
    match tx.commit_with(&last).await {
        Ok(()) => Ok(claimed),
        Err(trouble) => {
            if let Trouble::InDoubt { receipt, .. } = &trouble {
                orphans.add(*receipt, claimed.iter().map(|job| (job.id, job.fence)).collect());
            }
            Err(trouble)
        }
    }
}

/// What one transaction claimed, by its receipt.
type Orphaned = (Uuid, Vec<(JobId, Fence)>);

/// Claims that nobody got because it could not be found out in time whether they were committed.
#[derive(Debug, Default)]
pub struct Orphans(Mutex<Vec<Orphaned>>);

impl Orphans {
    fn add(&self, receipt: Uuid, jobs: Vec<(JobId, Fence)>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((receipt, jobs));
    }

    /// The settlements that put such jobs back, once it is known that they were claimed.
    pub async fn found(&self, link: &Link) -> Vec<Settlement> {
        let waiting = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut found = Vec::new();
        for (receipt, jobs) in waiting {
            match link.was_committed(receipt).await {
                Ok(true) => found.extend(jobs.into_iter().map(|(job, fence)| Settlement {
                    job,
                    fence,
                    ended: None,
                    next: Next::Queue,
                    told: None,
                })),
                Ok(false) => {}
                Err(_) => self.add(receipt, jobs),
            }
        }
        found
    }
}

/// Reads what claimed jobs hold, and their past.
async fn fill(tx: &Tx<'_>, claimed: &mut [Claimed]) -> Result<(), Trouble> {
    let ids: Vec<Uuid> = claimed.iter().map(|job| uuid(job.id)).collect();
    let places: HashMap<JobId, usize> = claimed.iter().enumerate().map(|(place, job)| (job.id, place)).collect();
    let sql = "SELECT id, metadata, body, caller FROM landbridge.contents WHERE id = ANY($1)";
    for row in tx.query(sql, params![ids => UUID_ARRAY]).await? {
        let id = job_id(get(&row, 0)?);
        if let Some(job) = places.get(&id).and_then(|place| claimed.get_mut(*place)) {
            job.metadata = metadata(get(&row, 1)?).map_err(|trouble| trouble.about(id))?;
            job.body = text(get::<Option<Vec<u8>>>(&row, 2)?.unwrap_or_default()).map_err(|bad| bad.about(id))?;
            job.caller = text(get(&row, 3)?).map_err(|bad| bad.about(id))?;
        }
    }
    // Only a job that was claimed before can have a past.
    let again: Vec<Uuid> = claimed.iter().filter(|job| job.fence.0 > 1).map(|job| uuid(job.id)).collect();
    if !again.is_empty() {
        for (id, attempts) in ledger::of_jobs(tx, &again, false).await? {
            if let Some(job) = places.get(&id).and_then(|place| claimed.get_mut(*place)) {
                job.attempts = attempts.into_iter().map(|row| row.attempt).collect();
            }
        }
    }
    Ok(())
}

/// Writes intents; for each, whether the fence held.
pub async fn begin(link: &Link, intents: &[Intent]) -> Result<(Vec<bool>, News), Trouble> {
    let tx = link.begin(Pace::Quick).await?;
    let mut change = Change::new(tx.now);
    let mut ids: Vec<Uuid> = intents.iter().map(|intent| uuid(intent.job)).collect();
    ids.sort_unstable();
    ids.dedup();
    change.take(&tx, &ids).await?;
    // An intent that comes again may belong to an attempt that has ended already.
    let again: Vec<Uuid> =
        change.live.values().filter(|held| held.row.fence > 1).map(|held| uuid(held.row.id)).collect();
    let mut answers = Vec::with_capacity(intents.len());
    let ended = if again.is_empty() { std::collections::BTreeSet::new() } else { ledger::ids(&tx, &again).await? };
    for intent in intents {
        let Some(held) = change.live.get_mut(&intent.job) else {
            answers.push(false);
            continue;
        };
        if held.row.state != State::Running || held.row.fence != codes::signed(intent.fence.0) {
            answers.push(false);
            continue;
        }
        answers.push(true);
        if let Some(assignment) = &intent.assignment
            && !held.row.assigned
        {
            held.row.assigned = true;
            if !change.sayings.assign(held.row.pipeline, intent.job, assignment) {
                change.assignments.insert(intent.job, serde_json::to_string(assignment)?);
            }
        }
        if !ended.contains(&intent.attempt) && !held.open.contains_key(&intent.attempt) {
            held.open.insert(intent.attempt, Call::of(intent, held.row.pipeline));
            if let Some(told) = &intent.told {
                change.sayings.tell(held.row.pipeline, Some(intent.job), told.clone());
            }
            change.intents.push((intent.clone(), held.row.pipeline));
        }
    }
    Ok((answers, write::commit(tx, change).await?))
}

/// Adds a job that runs here already, with its first attempt.
pub async fn submit_running(
    link: &Link,
    names: &Names,
    job: &NewJob,
    by: NodeId,
    intent: &Intent,
) -> Result<(), Trouble> {
    let pipeline = names.numbers(link, [&job.pipeline]).await?.into_values().next().unwrap_or_default();
    let tx = link.begin(Pace::Quick).await?;
    let (who, id) = (node(by), uuid(job.id));
    tx.execute(WORKS, params![who => UUID, tx.now.as_micros() => INT8]).await?;
    let mut change = Change::new(tx.now);
    if !submit::add(&tx, &[(job, State::Running)], |_| pipeline).await?.is_empty() {
        let fence = codes::signed(Fence::FIRST.0);
        let sql = "UPDATE landbridge.jobs SET live = true, fence = $2, node = $3 WHERE id = $1";
        tx.execute(sql, params![id => UUID, fence => INT8, who => UUID]).await?;
        change.tally.shift(pipeline, job.batch.as_deref().map(hash), State::Running, 1);
    }
    change.take(&tx, &[id]).await?;
    let runs = |row: &Standing| row.state == State::Running && row.fence == codes::signed(intent.fence.0);
    if let Some(held) = change.live.get(&job.id).filter(|held| runs(&held.row))
        && !held.open.contains_key(&intent.attempt)
    {
        if let Some(assignment) = intent.assignment.as_ref().filter(|_| !held.row.assigned)
            && !change.sayings.assign(held.row.pipeline, job.id, assignment)
        {
            change.assignments.insert(job.id, serde_json::to_string(assignment)?);
        }
        if let Some(told) = &intent.told {
            change.sayings.tell(held.row.pipeline, Some(job.id), told.clone());
        }
        change.intents.push((intent.clone(), held.row.pipeline));
    }
    write::commit(tx, change).await.map(drop)
}
