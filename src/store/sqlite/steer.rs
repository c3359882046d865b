//! Cancel, release, promote, expire.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension, params};

use super::{
    codes,
    session::{Session, standing_columns},
    settle::node_kept,
    trouble::Trouble,
};
use crate::{
    clock::Timestamp,
    ids::JobId,
    job::state::Event,
    names::PipelineName,
    store::{Cancelled, MOVE_MAX, Promoted},
};

impl Session {
    /// Cancels live jobs; for each, what was found.
    pub fn cancel(&mut self, jobs: &[JobId]) -> Result<Vec<Cancelled>, Trouble> {
        jobs.iter().map(|job| self.cancel_one(*job)).collect()
    }

    fn cancel_one(&mut self, id: JobId) -> Result<Cancelled, Trouble> {
        let Some(job) = self.standing(id)? else { return Ok(Cancelled::Unknown) };
        if job.state.is_terminal() {
            return Ok(Cancelled::AlreadyEnded(job.state));
        }
        self.end_by(&job, Event::Cancel)?;
        Ok(Cancelled::Done { was: job.state })
    }

    /// Ends a live job from outside, whoever has it.
    fn end_by(&mut self, job: &super::session::Standing, event: Event) -> Result<(), Trouble> {
        let state = codes::state_code(self.step(job, event)?);
        let now = self.now().as_micros();
        self.execute(
            concat!(
                "UPDATE jobs SET state = ?2, finished_at = ?3, fence = fence + 1, run_at = NULL, hold = NULL, ",
                "expiry_key = expiry_key + iif(held_at IS NULL, 0, max(0, ?3 - held_at)), held_at = NULL, ",
                node_kept!(),
                " WHERE seq = ?1"
            ),
            params![job.seq, state, now],
        )
        .map(drop)
    }

    /// Puts held jobs back into the queue; how many.
    pub fn release(&mut self, pipeline: Option<&PipelineName>, limit: u32) -> Result<u64, Trouble> {
        let limit = limit.min(MOVE_MAX);
        let held = match pipeline {
            Some(name) => {
                let Some(number) = self.names.known_pipeline(name) else { return Ok(0) };
                self.standings(
                    concat!(
                        "SELECT ",
                        standing_columns!(),
                        " FROM jobs INDEXED BY jobs_held WHERE hold IS NOT NULL AND pipeline = ?1 ORDER BY id LIMIT ?2"
                    ),
                    params![number, limit],
                )?
            }
            None => self.standings(
                concat!(
                    "SELECT ",
                    standing_columns!(),
                    " FROM jobs INDEXED BY jobs_held WHERE hold IS NOT NULL LIMIT ?1"
                ),
                [limit],
            )?,
        };
        let now = self.now().as_micros();
        for job in &held {
            let state = codes::state_code(self.step(job, Event::Release)?);
            self.execute(
                "UPDATE jobs SET state = ?2, hold = NULL, \
                 expiry_key = expiry_key + max(0, ?3 - coalesce(held_at, ?3)), held_at = NULL WHERE seq = ?1",
                params![job.seq, state, now],
            )?;
        }
        Ok(held.len() as u64)
    }

    /// Moves waiting jobs whose time has come into the queue.
    pub fn promote(&mut self, now: Timestamp, limit: u32) -> Result<Promoted, Trouble> {
        let due = self.standings(
            concat!(
                "SELECT ",
                standing_columns!(),
                " FROM jobs INDEXED BY jobs_waiting WHERE run_at <= ?1 ORDER BY run_at LIMIT ?2"
            ),
            params![now.as_micros(), limit.min(MOVE_MAX)],
        )?;
        for job in &due {
            let state = codes::state_code(self.step(job, Event::Promote)?);
            self.execute("UPDATE jobs SET state = ?2, run_at = NULL WHERE seq = ?1", params![job.seq, state])?;
        }
        let next: Option<i64> = self
            .conn
            .prepare_cached(
                "SELECT run_at FROM jobs INDEXED BY jobs_waiting WHERE run_at IS NOT NULL ORDER BY run_at LIMIT 1",
            )?
            .query_row([], |row| row.get(0))
            .optional()?;
        Ok(Promoted { moved: due.len() as u64, next_due: next.map(Timestamp::from_micros) })
    }

    /// Expires live jobs, each pipeline by its own moment.
    pub fn expire(&mut self, before: &BTreeMap<PipelineName, Timestamp>, limit: u32) -> Result<Vec<JobId>, Trouble> {
        let limit = limit.min(MOVE_MAX);
        let mut expired: Vec<JobId> = Vec::new();
        for (name, moment) in before {
            let left = limit.saturating_sub(u32::try_from(expired.len()).unwrap_or(u32::MAX));
            let Some(number) = self.names.known_pipeline(name).filter(|_| left > 0) else { continue };
            let late = self.standings(
                concat!(
                    "SELECT ",
                    standing_columns!(),
                    " FROM jobs INDEXED BY jobs_expiry WHERE finished_at IS NULL AND hold IS NULL ",
                    "AND pipeline = ?1 AND expiry_key <= ?2 ORDER BY expiry_key LIMIT ?3"
                ),
                params![number, moment.as_micros(), left],
            )?;
            for job in &late {
                self.end_by(job, Event::Expire)?;
                expired.push(job.id);
            }
        }
        Ok(expired)
    }
}
