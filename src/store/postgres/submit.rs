//! Adding jobs.
//!
//! Invariant: a job is its contents: where they are, the job is known, live or ended.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use uuid::Uuid;

use super::{
    change::News,
    columns::{self, get, hash, job_id, uuid},
    link::{Link, Pace, Tx, params},
    names::Names,
    tally::Tally,
    trouble::Trouble,
};
use crate::{
    clock::Timestamp,
    ids::JobId,
    job::State,
    store::{NewJob, Submitted},
};

const KEYS: &str = "INSERT INTO landbridge.keys (key_hash, pipeline, caller_hash, job, digest) \
    SELECT * FROM unnest($1::uuid[], $2::int[], $3::uuid[], $4::uuid[], $5::bytea[]) \
    ON CONFLICT DO NOTHING RETURNING job";

const KNOWN_KEYS: &str = "SELECT k.key_hash, k.pipeline, k.caller_hash, k.job, k.digest FROM landbridge.keys k \
    JOIN unnest($1::uuid[], $2::int[], $3::uuid[]) AS u (key_hash, pipeline, caller_hash) USING (key_hash, pipeline, caller_hash)";

const ADD: &str = "WITH c AS (\
      INSERT INTO landbridge.contents (id, deadline, retry_of, key_hash, caller_hash, caller, key, batch, metadata, body, callback) \
      SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::uuid[], $5::uuid[], $6::bytea[], $7::bytea[], \
      $8::bytea[], $9::text[], $10::bytea[], $19::text[]) ON CONFLICT DO NOTHING RETURNING id) \
    INSERT INTO landbridge.jobs (id, pipeline, state, order_key, expiry_key, created_at, priority, run_at, batch, calls_back) \
    SELECT u.id, u.pipeline, u.state, u.order_key, u.expiry_key, u.created_at, u.priority, u.run_at, u.batch, \
      u.callback IS NOT NULL FROM unnest($1::uuid[], $11::int[], $12::smallint[], $13::bigint[], $14::bigint[], $15::bigint[], \
      $16::int[], $17::bigint[], $18::uuid[], $19::text[]) \
      AS u (id, pipeline, state, order_key, expiry_key, created_at, priority, run_at, batch, callback) JOIN c USING (id) \
    RETURNING id";

const STATES: &str = "SELECT id, state FROM landbridge.jobs WHERE id = ANY($1) \
    UNION ALL SELECT id, state FROM landbridge.history WHERE id = ANY($1)";

/// An idempotency key as the database knows it.
type KeyHash = (Uuid, i32, Uuid);

/// Where a job's answer comes from, until all is known.
enum Sort {
    /// It may be new.
    Fresh,
    /// The same as an earlier one of the group.
    SameAs(JobId),
    /// Its key belongs to an earlier one of the group, or to a job that was there.
    Keyed(KeyHash),
}

/// Adds jobs; one answer for each, and what to tell.
pub async fn submit(link: &Link, names: &Names, jobs: &[NewJob]) -> Result<(Vec<Submitted>, News), Trouble> {
    let numbers = names.numbers(link, jobs.iter().map(|job| &job.pipeline)).await?;
    let pipeline = |job: &NewJob| numbers.get(&job.pipeline).copied().unwrap_or_default();
    let tx = link.begin(Pace::Quick).await?;
    let (mut sorts, mut ids, mut keys) = (Vec::with_capacity(jobs.len()), HashSet::new(), BTreeMap::new());
    for job in jobs {
        let key = job.idempotency_key.as_deref().map(|key| (hash(key), pipeline(job), hash(&job.caller)));
        if let Some(key) = key
            && keys.contains_key(&key)
        {
            sorts.push(Sort::Keyed(key));
        } else if ids.contains(&job.id) {
            sorts.push(Sort::SameAs(job.id));
        } else {
            ids.insert(job.id);
            if let Some(key) = key {
                keys.insert(key, (job.id, job.digest));
            }
            sorts.push(Sort::Fresh);
        }
    }
    let taken = take_keys(&tx, &mut keys).await?;
    let now = tx.now;
    let mut fresh: Vec<(&NewJob, State)> = Vec::new();
    for (job, sort) in jobs.iter().zip(&mut sorts) {
        if !matches!(sort, Sort::Fresh) {
            continue;
        }
        let key = job.idempotency_key.as_deref().map(|key| (hash(key), pipeline(job), hash(&job.caller)));
        match key.filter(|key| taken.contains(key)) {
            Some(key) => *sort = Sort::Keyed(key),
            None => fresh.push((job, first_state(job, now))),
        }
    }
    let added = add(&tx, &fresh, pipeline).await?;
    let known = states(&tx, &sorts, &keys, &fresh, &added).await?;

    let mut tally = Tally::default();
    let mut news = News::default();
    let mut answers = Vec::with_capacity(jobs.len());
    for (job, sort) in jobs.iter().zip(sorts) {
        let state = |id: JobId| added.get(&id).or_else(|| known.get(&id)).copied();
        let first = first_state(job, now);
        answers.push(match sort {
            Sort::Fresh => match added.get(&job.id) {
                Some(state) => {
                    tally.shift(pipeline(job), job.batch.as_deref().map(hash), *state, 1);
                    news.ready |= *state == State::Queued;
                    Submitted::New(*state)
                }
                None => Submitted::Existing(job.id, state(job.id).unwrap_or(first)),
            },
            Sort::SameAs(id) => Submitted::Existing(id, state(id).unwrap_or(first)),
            Sort::Keyed(key) => match keys.get(&key) {
                Some((id, digest)) if *digest == job.digest => Submitted::Existing(*id, state(*id).unwrap_or(first)),
                Some((id, _)) => Submitted::Conflict(*id),
                None => return Err(Trouble::Row("an idempotency key is gone while it is asked for".to_owned())),
            },
        });
    }
    let rows = tally.rows();
    let last: Vec<_> = rows.statement().into_iter().collect();
    tx.commit_with(&last).await?;
    Ok((answers, news))
}

fn first_state(job: &NewJob, now: Timestamp) -> State {
    if job.not_before.is_some_and(|at| at > now) { State::Waiting } else { State::Queued }
}

/// Writes keys that are free; which were taken. Those get the job and digest that they belong to.
async fn take_keys(tx: &Tx<'_>, keys: &mut BTreeMap<KeyHash, (JobId, [u8; 32])>) -> Result<BTreeSet<KeyHash>, Trouble> {
    let mut taken = BTreeSet::new();
    if keys.is_empty() {
        return Ok(taken);
    }
    let columns = |keys: &BTreeMap<KeyHash, (JobId, [u8; 32])>, only: Option<&BTreeSet<KeyHash>>| {
        let (mut hashes, mut pipelines, mut callers) = (Vec::new(), Vec::new(), Vec::new());
        for (key, pipeline, caller) in keys.keys().filter(|key| only.is_none_or(|only| only.contains(key))) {
            hashes.push(*key);
            pipelines.push(*pipeline);
            callers.push(*caller);
        }
        (hashes, pipelines, callers)
    };
    let (hashes, pipelines, callers) = columns(keys, None);
    let jobs: Vec<Uuid> = keys.values().map(|(job, _)| uuid(*job)).collect();
    let digests: Vec<&[u8]> = keys.values().map(|(_, digest)| digest.as_slice()).collect();
    let won = tx
        .query(
            KEYS,
            params![hashes => UUID_ARRAY, pipelines => INT4_ARRAY, callers => UUID_ARRAY, jobs => UUID_ARRAY,
                digests => BYTEA_ARRAY],
        )
        .await?;
    if won.len() == keys.len() {
        return Ok(taken);
    }
    let mut mine = HashSet::new();
    for row in won {
        mine.insert(job_id(get(&row, 0)?));
    }
    taken = keys.iter().filter(|(_, (job, _))| !mine.contains(job)).map(|(key, _)| *key).collect();
    let (hashes, pipelines, callers) = columns(keys, Some(&taken));
    // By a statement of its own, which sees what others committed while ours waited for them.
    let rows =
        tx.query(KNOWN_KEYS, params![hashes => UUID_ARRAY, pipelines => INT4_ARRAY, callers => UUID_ARRAY]).await?;
    for row in rows {
        let digest: &[u8] = get(&row, 4)?;
        let digest: [u8; 32] =
            digest.try_into().map_err(|_| Trouble::Row("a digest is not 32 bytes long".to_owned()))?;
        keys.insert((get(&row, 0)?, get(&row, 1)?, get(&row, 2)?), (job_id(get(&row, 3)?), digest));
    }
    Ok(taken)
}

/// Writes jobs that are not there; those that were written, with their state.
pub async fn add(
    tx: &Tx<'_>,
    fresh: &[(&NewJob, State)],
    pipeline: impl Fn(&NewJob) -> i32,
) -> Result<HashMap<JobId, State>, Trouble> {
    if fresh.is_empty() {
        return Ok(HashMap::new());
    }
    let column = |of: fn(&NewJob) -> i64| fresh.iter().map(|(job, _)| of(job)).collect::<Vec<i64>>();
    let bytes = |of: fn(&NewJob) -> Option<&str>| {
        fresh.iter().map(|(job, _)| of(job).map(str::as_bytes)).collect::<Vec<Option<&[u8]>>>()
    };
    let hashed = |of: fn(&NewJob) -> Option<Uuid>| fresh.iter().map(|(job, _)| of(job)).collect::<Vec<Option<Uuid>>>();
    let ids: Vec<Uuid> = fresh.iter().map(|(job, _)| uuid(job.id)).collect();
    let deadlines = column(|job| job.deadline.as_micros());
    let retries = hashed(|job| job.retry_of.map(uuid));
    let key_hashes = hashed(|job| job.idempotency_key.as_deref().map(hash));
    let caller_hashes = hashed(|job| job.idempotency_key.as_ref().map(|_| hash(&job.caller)));
    let callers = bytes(|job| Some(&job.caller));
    let keys = bytes(|job| job.idempotency_key.as_deref());
    let batches = bytes(|job| job.batch.as_deref());
    let metadata = fresh
        .iter()
        .map(|(job, _)| if job.metadata.is_empty() { Ok(None) } else { serde_json::to_string(&job.metadata).map(Some) })
        .collect::<Result<Vec<Option<String>>, _>>()?;
    let bodies = bytes(|job| Some(&job.body));
    let pipelines: Vec<i32> = fresh.iter().map(|(job, _)| pipeline(job)).collect();
    let states: Vec<i16> = fresh.iter().map(|(_, state)| columns::state_code(*state)).collect();
    let order_keys = column(NewJob::order_key);
    let expiry_keys = column(|job| job.expiry_key.as_micros());
    let created_ats = column(|job| job.created_at.as_micros());
    let priorities: Vec<i32> = fresh.iter().map(|(job, _)| job.priority).collect();
    let run_ats: Vec<Option<i64>> = fresh
        .iter()
        .map(|(job, state)| job.not_before.filter(|_| *state == State::Waiting).map(Timestamp::as_micros))
        .collect();
    let batch_hashes = hashed(|job| job.batch.as_deref().map(hash));
    let callbacks: Vec<Option<&str>> = fresh.iter().map(|(job, _)| job.callback.as_deref()).collect();
    let rows = tx
        .query(
            ADD,
            params![
                ids => UUID_ARRAY, deadlines => INT8_ARRAY, retries => UUID_ARRAY, key_hashes => UUID_ARRAY,
                caller_hashes => UUID_ARRAY, callers => BYTEA_ARRAY, keys => BYTEA_ARRAY, batches => BYTEA_ARRAY,
                metadata => TEXT_ARRAY, bodies => BYTEA_ARRAY, pipelines => INT4_ARRAY, states => INT2_ARRAY,
                order_keys => INT8_ARRAY, expiry_keys => INT8_ARRAY, created_ats => INT8_ARRAY,
                priorities => INT4_ARRAY, run_ats => INT8_ARRAY, batch_hashes => UUID_ARRAY,
                callbacks => TEXT_ARRAY,
            ],
        )
        .await?;
    let states: HashMap<JobId, State> = fresh.iter().map(|(job, state)| (job.id, *state)).collect();
    let mut added = HashMap::with_capacity(rows.len());
    for row in rows {
        let id = job_id(get(&row, 0)?);
        if let Some(state) = states.get(&id) {
            added.insert(id, *state);
        }
    }
    Ok(added)
}

/// Where the jobs stand that were there before.
async fn states(
    tx: &Tx<'_>,
    sorts: &[Sort],
    keys: &BTreeMap<KeyHash, (JobId, [u8; 32])>,
    fresh: &[(&NewJob, State)],
    added: &HashMap<JobId, State>,
) -> Result<HashMap<JobId, State>, Trouble> {
    let named = sorts.iter().filter_map(|sort| match sort {
        Sort::Fresh => None,
        Sort::SameAs(id) => Some(*id),
        Sort::Keyed(key) => keys.get(key).map(|(id, _)| *id),
    });
    let mut wanted: Vec<Uuid> =
        named.chain(fresh.iter().map(|(job, _)| job.id)).filter(|id| !added.contains_key(id)).map(uuid).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let mut known = HashMap::new();
    if !wanted.is_empty() {
        for row in tx.query(STATES, params![wanted => UUID_ARRAY]).await? {
            known.insert(job_id(get(&row, 0)?), columns::state(&row, 1)?);
        }
    }
    Ok(known)
}
