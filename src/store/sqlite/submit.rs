//! Adding jobs.

use rusqlite::{OptionalExtension, params};

use super::{codes, session::Session, trouble::Trouble};
use crate::{
    clock::Timestamp,
    ids::{JobId, NodeId},
    job::State,
    store::{Fence, Intent, NewJob, Submitted},
};

impl Session {
    /// Adds jobs; one answer for each.
    pub fn submit(&mut self, jobs: &[NewJob]) -> Result<Vec<Submitted>, Trouble> {
        jobs.iter().map(|job| self.submit_one(job)).collect()
    }

    fn submit_one(&mut self, job: &NewJob) -> Result<Submitted, Trouble> {
        let pipeline = self.names.pipeline(&self.conn, &job.pipeline)?;
        if let Some(key) = &job.idempotency_key
            && let Some(known) = self.known_key(key, pipeline, job)?
        {
            return Ok(known);
        }
        let seq = self.next_seq();
        let batch = job.batch.as_ref().map(|name| self.names.batch(&self.conn, name)).transpose()?;
        let not_before = job.not_before.filter(|at| *at > self.now());
        let state = if not_before.is_some() { State::Waiting } else { State::Queued };
        if !self.insert(job, seq, pipeline, batch, state)? {
            let known = self.standing(job.id)?.map_or(state, |known| known.state);
            return Ok(Submitted::Existing(job.id, known));
        }
        self.added(pipeline, batch, state);
        Ok(Submitted::New(state))
    }

    /// Writes a job's rows; whether its id was new.
    fn insert(
        &mut self,
        job: &NewJob,
        seq: i64,
        pipeline: i64,
        batch: Option<i64>,
        state: State,
    ) -> Result<bool, Trouble> {
        let not_before = job.not_before.filter(|_| state == State::Waiting);
        let added = self.execute(
            "INSERT INTO jobs (seq, id, pipeline, state, order_key, expiry_key, created_at, priority, run_at, batch, calls_back) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT (id) DO NOTHING",
            params![
                seq,
                job.id.as_bytes(),
                pipeline,
                codes::state_code(state),
                job.order_key(),
                job.expiry_key.as_micros(),
                job.created_at.as_micros(),
                job.priority,
                not_before.map(Timestamp::as_micros),
                batch,
                job.callback.is_some(),
            ],
        )?;
        if added == 0 {
            return Ok(false);
        }
        let metadata = if job.metadata.is_empty() { None } else { Some(serde_json::to_string(&job.metadata)?) };
        self.execute(
            "INSERT INTO contents (seq, deadline, caller, key, retry_of, metadata, body, callback) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                seq,
                job.deadline.as_micros(),
                job.caller,
                job.idempotency_key,
                job.retry_of.as_ref().map(JobId::as_bytes),
                metadata,
                job.body,
                job.callback,
            ],
        )?;
        if let Some(key) = &job.idempotency_key {
            self.execute(
                "INSERT INTO keys (key, pipeline, caller, job, digest) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![key, pipeline, job.caller, seq, job.digest],
            )?;
        }
        Ok(true)
    }

    /// Adds a job that runs here already, with its first attempt.
    pub fn submit_running(&mut self, job: &NewJob, node: NodeId, intent: &Intent) -> Result<(), Trouble> {
        let node = self.names.node(&self.conn, node)?;
        self.execute(
            "UPDATE nodes SET seen_at = ?2 WHERE id = ?1 AND seen_at IS NULL",
            params![node, self.now().as_micros()],
        )?;
        let pipeline = self.names.pipeline(&self.conn, &job.pipeline)?;
        if self.standing(job.id)?.is_none() {
            let seq = self.next_seq();
            self.insert(job, seq, pipeline, None, State::Running)?;
            self.execute(
                "UPDATE jobs SET live = 1, fence = ?2, node = ?3 WHERE seq = ?1",
                params![seq, codes::signed(Fence::FIRST.0), node],
            )?;
            self.added(pipeline, None, State::Running);
        }
        self.begin(std::slice::from_ref(intent)).map(drop)
    }

    fn known_key(&self, key: &str, pipeline: i64, job: &NewJob) -> Result<Option<Submitted>, Trouble> {
        let known: Option<([u8; 16], i64, Vec<u8>)> = self
            .conn
            .prepare_cached(
                "SELECT jobs.id, jobs.state, keys.digest FROM keys JOIN jobs ON jobs.seq = keys.job \
                 WHERE keys.key = ?1 AND keys.pipeline = ?2 AND keys.caller = ?3",
            )?
            .query_row(params![key, pipeline, job.caller], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let Some((id, state, digest)) = known else { return Ok(None) };
        let id = JobId::from_bytes(id);
        Ok(Some(if digest == job.digest {
            Submitted::Existing(id, codes::state(state)?)
        } else {
            Submitted::Conflict(id)
        }))
    }
}
