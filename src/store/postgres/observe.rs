//! What happens to rollouts with steps, in the transactions of what happens to jobs.
//!
//! Invariant: a rollout's numbers come from one row that is locked until the transaction ends, so they become visible in their
//! order. Rows are taken in the order of their names, after those of jobs, so that daemons never wait in a circle. Pipelines
//! without such rollouts come here never.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{
    change::Change,
    columns::{get, job_id, time, uuid},
    link::{Link, Pace, Tx, params},
    names::Names,
    trouble::Trouble,
};
use crate::{
    ids::JobId,
    names::{PipelineName, RolloutName},
    routing::Counted,
    store::{Assignment, NewObservation, Observation, ObservationQuery, Observed, Told, codes},
};

const COUNT: &str = "INSERT INTO landbridge.numbers AS n (pipeline, rollout, last) VALUES ($1, $2, $3) \
    ON CONFLICT (pipeline, rollout) DO UPDATE SET last = n.last + excluded.last RETURNING last";

pub(super) const WRITE: &str = "INSERT INTO landbridge.observations (pipeline, rollout, number, at, job, what) \
    SELECT pipeline, rollout, number, $1, job, what \
    FROM unnest($2::int[], $3::text[], $4::bigint[], $5::uuid[], $6::text[]) AS u (pipeline, rollout, number, job, what)";

/// What a transaction has to say of rollouts, in order.
#[derive(Debug, Default)]
pub struct Sayings {
    dispatched: Vec<(i32, JobId, Assignment)>,
    told: Vec<(i32, Option<JobId>, Told)>,
}

impl Sayings {
    /// A job's first dispatch; whether it is one to be numbered.
    pub fn assign(&mut self, pipeline: i32, job: JobId, assignment: &Assignment) -> bool {
        let counts = assignment.dispatched().is_some();
        if counts {
            self.dispatched.push((pipeline, job, assignment.clone()));
        }
        counts
    }

    /// Anything else.
    pub fn tell(&mut self, pipeline: i32, job: Option<JobId>, told: Told) {
        self.told.push((pipeline, job, told));
    }

    fn is_empty(&self) -> bool {
        self.dispatched.is_empty() && self.told.is_empty()
    }
}

/// Numbered rows, column by column.
#[derive(Debug, Default)]
pub struct Numbered {
    pub at: i64,
    pub pipelines: Vec<i32>,
    pub rollouts: Vec<String>,
    pub numbers: Vec<i64>,
    pub jobs: Vec<Option<Uuid>>,
    pub whats: Vec<String>,
}

/// Gives everything that a change says its number; assignments learn theirs.
pub async fn number(tx: &Tx<'_>, change: &mut Change) -> Result<Numbered, Trouble> {
    let sayings = std::mem::take(&mut change.sayings);
    let mut rows = Numbered { at: change.now.as_micros(), ..Numbered::default() };
    if sayings.is_empty() {
        return Ok(rows);
    }
    let mut places: BTreeMap<(i32, RolloutName), i64> = BTreeMap::new();
    let rollouts = sayings.dispatched.iter().map(|(pipeline, _, assignment)| (*pipeline, &assignment.rollout));
    for (pipeline, rollout) in rollouts.chain(sayings.told.iter().map(|(pipeline, _, told)| (*pipeline, &told.rollout)))
    {
        *places.entry((pipeline, rollout.clone())).or_default() += 1;
    }
    for ((pipeline, rollout), count) in &mut places {
        let params = params![*pipeline => INT4, rollout.as_str() => TEXT, *count => INT8];
        let last: i64 = match tx.query_opt(COUNT, params).await? {
            Some(row) => get(&row, 0)?,
            None => return Err(Trouble::Row(format!("rollout {rollout} gave no number"))),
        };
        // From here on: the number before the first of this transaction.
        *count = last - *count;
    }
    let mut add = |pipeline: i32, rollout: &RolloutName, job: Option<JobId>, what: &Observed| -> Result<i64, Trouble> {
        let number = places.entry((pipeline, rollout.clone())).or_default();
        *number += 1;
        rows.pipelines.push(pipeline);
        rows.rollouts.push(rollout.to_string());
        rows.numbers.push(*number);
        rows.jobs.push(job.map(uuid));
        rows.whats.push(serde_json::to_string(what)?);
        Ok(*number)
    };
    for (pipeline, job, mut assignment) in sayings.dispatched {
        let Some(told) = assignment.dispatched() else { continue };
        let number = add(pipeline, &told.rollout, Some(job), &told.what)?;
        if let Some(counted) = assignment.counted {
            assignment.counted = Some(Counted { number: Some(codes::unsigned(number)), ..counted });
        }
        change.assignments.insert(job, serde_json::to_string(&assignment)?);
    }
    for (pipeline, job, told) in &sayings.told {
        add(*pipeline, &told.rollout, *job, &told.what)?;
    }
    Ok(rows)
}

/// Writes things down that happen beside the life of jobs.
pub async fn observe(link: &Link, names: &Names, observations: &[NewObservation]) -> Result<(), Trouble> {
    let numbers = names.numbers(link, observations.iter().map(|row| &row.pipeline)).await?;
    let tx = link.begin(Pace::Quick).await?;
    let mut change = Change::new(tx.now);
    for NewObservation { pipeline, job, told } in observations {
        change.sayings.tell(numbers.get(pipeline).copied().unwrap_or_default(), *job, told.clone());
    }
    super::write::commit(tx, change).await.map(drop)
}

/// A rollout's observations behind a number, in order.
pub async fn read(link: &Link, names: &Names, query: &ObservationQuery) -> Result<Vec<Observation>, Trouble> {
    let numbers = names.numbers(link, [&query.pipeline]).await?;
    let Some(pipeline) = numbers.get(&query.pipeline) else { return Ok(Vec::new()) };
    let tx = link.look().await?;
    let sql = "SELECT number, at, job, what FROM landbridge.observations WHERE pipeline = $1 AND rollout = $2 AND number > $3 \
               ORDER BY number LIMIT $4";
    let (after, limit) = (codes::signed(query.after), i64::from(query.limit));
    let params = params![*pipeline => INT4, query.rollout.as_str() => TEXT, after => INT8, limit => INT8];
    let rows = tx.query(sql, params).await?;
    tx.done().await?;
    rows.iter()
        .map(|row| {
            Ok(Observation {
                number: codes::unsigned(get(row, 0)?),
                at: time(row, 1)?,
                job: get::<Option<Uuid>>(row, 2)?.map(job_id),
                what: serde_json::from_str(get(row, 3)?)?,
            })
        })
        .collect()
}

/// The number of a rollout's newest observation.
pub async fn last(link: &Link, names: &Names, pipeline: &PipelineName, rollout: &RolloutName) -> Result<u64, Trouble> {
    let numbers = names.numbers(link, [pipeline]).await?;
    let Some(pipeline) = numbers.get(pipeline) else { return Ok(0) };
    let tx = link.look().await?;
    let sql = "SELECT last FROM landbridge.numbers WHERE pipeline = $1 AND rollout = $2";
    let row = tx.query_opt(sql, params![*pipeline => INT4, rollout.as_str() => TEXT]).await?;
    tx.done().await?;
    row.map_or(Ok(0), |row| Ok(codes::unsigned(get(&row, 0)?)))
}

/// Forgets the oldest; how many.
pub async fn forget(
    link: &Link,
    names: &Names,
    (pipeline, rollout): (&PipelineName, &RolloutName),
    through: u64,
    limit: u32,
) -> Result<u64, Trouble> {
    let numbers = names.numbers(link, [pipeline]).await?;
    let Some(pipeline) = numbers.get(pipeline) else { return Ok(0) };
    let tx = link.begin(Pace::Quick).await?;
    let sql = "DELETE FROM landbridge.observations WHERE pipeline = $1 AND rollout = $2 AND number IN (\
        SELECT number FROM landbridge.observations WHERE pipeline = $1 AND rollout = $2 AND number <= $3 \
        AND number < (SELECT last FROM landbridge.numbers WHERE pipeline = $1 AND rollout = $2) ORDER BY number LIMIT $4)";
    let params = params![
        *pipeline => INT4, rollout.as_str() => TEXT, codes::signed(through) => INT8, i64::from(limit) => INT8,
    ];
    let gone = tx.execute(sql, params).await?;
    tx.commit().await?;
    Ok(gone)
}
