//! Cancel, release, promote, expire.

use std::collections::BTreeMap;

use super::table::Table;
use crate::{
    clock::Timestamp,
    ids::JobId,
    job::state::Event,
    names::PipelineName,
    store::{Cancelled, Promoted, Result},
};

impl Table {
    pub fn cancel(&mut self, id: JobId, now: Timestamp) -> Result<Cancelled> {
        let cancelled = self.change(id, |job| {
            if job.state.is_terminal() {
                return Ok(Cancelled::AlreadyEnded(job.state));
            }
            let was = job.state;
            job.step(Event::Cancel, now)?;
            job.fence += 1;
            Ok(Cancelled::Done { was })
        });
        cancelled.unwrap_or(Ok(Cancelled::Unknown))
    }

    pub fn release(&mut self, pipeline: Option<&PipelineName>, limit: u32, now: Timestamp) -> Result<u64> {
        let chosen: Vec<JobId> = self
            .held
            .iter()
            .filter(|(name, _)| pipeline.is_none_or(|wanted| wanted == *name))
            .flat_map(|(_, jobs)| jobs.iter().copied())
            .take(limit as usize)
            .collect();
        self.step_all(&chosen, Event::Release, now)
    }

    pub fn promote(&mut self, now: Timestamp, limit: u32) -> Result<Promoted> {
        let due = self.waiting.iter().take_while(|(at, _)| *at <= now).take(limit as usize);
        let chosen: Vec<JobId> = due.map(|(_, id)| *id).collect();
        let moved = self.step_all(&chosen, Event::Promote, now)?;
        Ok(Promoted { moved, next_due: self.waiting.first().map(|(at, _)| *at) })
    }

    pub fn expire(
        &mut self,
        before: &BTreeMap<PipelineName, Timestamp>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<JobId>> {
        let chosen: Vec<JobId> = before
            .iter()
            .filter_map(|(pipeline, moment)| Some((self.expiring.get(pipeline)?, *moment)))
            .flat_map(|(jobs, moment)| jobs.iter().take_while(move |(key, _)| *key <= moment))
            .map(|(_, id)| *id)
            .take(limit as usize)
            .collect();
        for id in &chosen {
            self.change(*id, |job| {
                job.fence += 1;
                job.step(Event::Expire, now)
            })
            .transpose()?;
        }
        Ok(chosen)
    }

    fn step_all(&mut self, jobs: &[JobId], event: Event, now: Timestamp) -> Result<u64> {
        for id in jobs {
            self.change(*id, |job| job.step(event, now)).transpose()?;
        }
        Ok(jobs.len() as u64)
    }
}
