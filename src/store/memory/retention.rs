//! Deleting what is old enough to go. Jobs that have not ended are never touched.

use super::table::Table;
use crate::{
    clock::Timestamp,
    ids::{AttemptId, JobId},
    store::{PruneCut, Pruned, traffic::hour_of},
};

impl Table {
    pub fn prune(&mut self, cut: &PruneCut, limit: u32) -> Pruned {
        let limit = limit as usize;
        let jobs = self.ended_before(limit, |pipeline| *cut.results.get(pipeline).unwrap_or(&cut.default_results));
        for id in &jobs {
            self.delete(*id);
        }
        let mut prompts =
            self.ended_before(usize::MAX, |pipeline| *cut.prompts.get(pipeline).unwrap_or(&cut.default_prompts));
        prompts.retain(|id| self.get(*id).is_some_and(|job| job.body.is_some()));
        prompts.truncate(limit);
        for id in &prompts {
            self.change(*id, |job| job.body = None);
        }
        let live = |id: &JobId| self.get(*id).is_some_and(|job| !job.state.is_terminal());
        let old = self.ledger.iter().take_while(|((at, _), _)| *at < cut.ledger);
        let old: Vec<(Timestamp, AttemptId, JobId)> = old
            .filter(|(_, row)| !live(&row.job))
            .map(|((at, attempt), row)| (*at, *attempt, row.job))
            .take(limit)
            .collect();
        for (at, attempt, job) in &old {
            self.ledger.remove(&(*at, *attempt));
            self.change(*job, |job| job.attempts.retain(|call| call.attempt.id != *attempt));
        }
        let hour = hour_of(cut.ledger);
        self.traffic.retain(|(at, _), _| *at >= hour);
        let audit = self.audit.iter().filter(|entry| entry.at < cut.audit).count().min(limit);
        let mut left = audit;
        self.audit.retain(|entry| {
            let goes = left > 0 && entry.at < cut.audit;
            left -= usize::from(goes);
            !goes
        });
        Pruned {
            prompts: prompts.len() as u64,
            jobs: jobs.len() as u64,
            attempts: old.len() as u64,
            audit: audit as u64,
        }
    }

    /// Ended jobs whose worker has reported, older than their pipeline's moment.
    fn ended_before(&self, limit: usize, moment: impl Fn(&crate::names::PipelineName) -> Timestamp) -> Vec<JobId> {
        self.ended_at
            .iter()
            .flat_map(|(pipeline, jobs)| {
                let moment = moment(pipeline);
                jobs.iter().take_while(move |(at, _)| *at < moment)
            })
            .map(|(_, id)| *id)
            .filter(|id| self.get(*id).is_some_and(|job| job.node.is_none()))
            .take(limit)
            .collect()
    }
}
