//! What happens to rollouts with steps, in the transactions of what happens to jobs.
//!
//! Invariant: one writer, so numbers are in the order of commits. The newest row of a rollout is never deleted: its number is
//! what the next one's follows.

use rusqlite::{Connection, OptionalExtension, params};

use super::{codes, session::Session, trouble::Trouble};
use crate::{
    clock::Timestamp,
    ids::JobId,
    names::{PipelineName, RolloutName},
    routing::Counted,
    store::{Assignment, NewObservation, Observation, ObservationQuery, Told},
};

const LAST: &str = "SELECT max(number) FROM observations WHERE pipeline = ?1 AND rollout = ?2";

impl Session {
    /// Writes several things down.
    pub fn observe_all(&mut self, observations: &[NewObservation]) -> Result<(), Trouble> {
        for NewObservation { pipeline, job, told } in observations {
            let pipeline = self.names.pipeline(&self.conn, pipeline)?;
            self.observe(pipeline, *job, told)?;
        }
        Ok(())
    }

    /// Writes one thing down.
    pub fn observe(&mut self, pipeline: i64, job: Option<JobId>, told: &Told) -> Result<(), Trouble> {
        let number = self.next_number(pipeline, &told.rollout)?;
        self.execute(
            "INSERT INTO observations (pipeline, rollout, number, at, job, what) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                pipeline,
                told.rollout.as_str(),
                codes::signed(number),
                self.now().as_micros(),
                job.as_ref().map(JobId::as_bytes),
                serde_json::to_string(&told.what)?,
            ],
        )?;
        self.numbers.insert((pipeline, told.rollout.clone()), number);
        Ok(())
    }

    /// Writes the assignment of a job's first dispatch, once; with it, where that is evidence, the observation.
    pub fn assign(&mut self, seq: i64, pipeline: i64, job: JobId, assignment: &Assignment) -> Result<(), Trouble> {
        let told = assignment.dispatched();
        let mut assignment = assignment.clone();
        if let (Some(counted), Some(told)) = (assignment.counted, &told) {
            let number = Some(self.next_number(pipeline, &told.rollout)?);
            assignment.counted = Some(Counted { number, ..counted });
        }
        let changed = self.execute(
            "UPDATE jobs SET assignment = ?2 WHERE seq = ?1 AND assignment IS NULL",
            params![seq, serde_json::to_string(&assignment)?],
        )?;
        match told.filter(|_| changed > 0) {
            Some(told) => self.observe(pipeline, Some(job), &told),
            None => Ok(()),
        }
    }

    fn next_number(&mut self, pipeline: i64, rollout: &RolloutName) -> Result<u64, Trouble> {
        if let Some(last) = self.numbers.get(&(pipeline, rollout.clone())) {
            return Ok(last + 1);
        }
        let last: Option<i64> =
            self.conn.prepare_cached(LAST)?.query_row(params![pipeline, rollout.as_str()], |row| row.get(0))?;
        Ok(last.map_or(0, codes::unsigned) + 1)
    }

    /// Forgets the oldest; how many.
    pub fn forget_observations(
        &mut self,
        pipeline: &PipelineName,
        rollout: &RolloutName,
        through: u64,
        limit: u32,
    ) -> Result<u64, Trouble> {
        let Some(pipeline) = self.names.known_pipeline(pipeline) else { return Ok(0) };
        let gone = self.execute(
            "DELETE FROM observations WHERE pipeline = ?1 AND rollout = ?2 AND number IN (SELECT number FROM observations \
             WHERE pipeline = ?1 AND rollout = ?2 AND number <= ?3 AND number < \
             (SELECT max(number) FROM observations WHERE pipeline = ?1 AND rollout = ?2) ORDER BY number LIMIT ?4)",
            params![pipeline, rollout.as_str(), codes::signed(through), limit],
        )?;
        Ok(gone as u64)
    }
}

/// A rollout's observations behind a number, in order.
pub fn read(conn: &Connection, query: &ObservationQuery) -> Result<Vec<Observation>, Trouble> {
    let mut statement = conn.prepare_cached(
        "SELECT number, at, job, what FROM observations WHERE pipeline = (SELECT id FROM pipelines WHERE name = ?1) \
         AND rollout = ?2 AND number > ?3 ORDER BY number LIMIT ?4",
    )?;
    let mut rows = statement.query(params![
        query.pipeline.as_str(),
        query.rollout.as_str(),
        codes::signed(query.after),
        query.limit
    ])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(Observation {
            number: codes::unsigned(row.get(0)?),
            at: Timestamp::from_micros(row.get(1)?),
            job: row.get::<_, Option<[u8; 16]>>(2)?.map(JobId::from_bytes),
            what: serde_json::from_str(row.get_ref(3)?.as_str().map_err(rusqlite::Error::from)?)?,
        });
    }
    Ok(found)
}

/// The number of a rollout's newest observation.
pub fn last(conn: &Connection, pipeline: &PipelineName, rollout: &RolloutName) -> Result<u64, Trouble> {
    let pipeline: Option<i64> = conn
        .prepare_cached("SELECT id FROM pipelines WHERE name = ?1")?
        .query_row([pipeline.as_str()], |row| row.get(0))
        .optional()?;
    let Some(pipeline) = pipeline else { return Ok(0) };
    let last: Option<i64> =
        conn.prepare_cached(LAST)?.query_row(params![pipeline, rollout.as_str()], |row| row.get(0))?;
    Ok(last.map_or(0, codes::unsigned))
}
