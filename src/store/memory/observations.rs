//! What happens to rollouts with steps.

use super::table::Table;
use crate::{
    clock::Timestamp,
    ids::JobId,
    names::{PipelineName, RolloutName},
    store::{Assignment, NewObservation, Observation, ObservationQuery, Observed, Told},
};

impl Table {
    /// Writes one thing down. Its number.
    pub fn observe(&mut self, pipeline: &PipelineName, job: Option<JobId>, told: Told, now: Timestamp) -> u64 {
        let rows = self.observations.entry((pipeline.clone(), told.rollout)).or_default();
        let number = rows.last_key_value().map_or(0, |(last, _)| *last) + 1;
        rows.insert(number, Observation { number, at: now, job, what: told.what });
        number
    }

    /// Writes several things down.
    pub fn observe_all(&mut self, observations: Vec<NewObservation>, now: Timestamp) {
        for NewObservation { pipeline, job, told } in observations {
            self.observe(&pipeline, job, told, now);
        }
    }

    /// The assignment as the job keeps it: with the number of its dispatch, where that is evidence.
    pub fn numbered(
        &mut self,
        pipeline: &PipelineName,
        job: JobId,
        assignment: &Assignment,
        now: Timestamp,
    ) -> Assignment {
        let mut assignment = assignment.clone();
        if let (Some(counted), Some(told)) = (assignment.counted, assignment.dispatched()) {
            let number = Some(self.observe(pipeline, Some(job), told, now));
            assignment.counted = Some(crate::routing::Counted { number, ..counted });
        }
        assignment
    }

    pub fn read_observations(&self, query: &ObservationQuery) -> Vec<Observation> {
        let rows = self.observations.get(&(query.pipeline.clone(), query.rollout.clone()));
        let behind = rows.into_iter().flat_map(|rows| rows.range(query.after.saturating_add(1)..));
        behind.take(query.limit as usize).map(|(_, row)| row.clone()).collect()
    }

    pub fn last_observation(&self, pipeline: &PipelineName, rollout: &RolloutName) -> u64 {
        let rows = self.observations.get(&(pipeline.clone(), rollout.clone()));
        rows.and_then(|rows| rows.last_key_value()).map_or(0, |(last, _)| *last)
    }

    /// Forgets the oldest; the newest stays, whose number the next one's follows.
    pub fn forget_observations(
        &mut self,
        pipeline: &PipelineName,
        rollout: &RolloutName,
        through: u64,
        limit: u32,
    ) -> u64 {
        let Some(rows) = self.observations.get_mut(&(pipeline.clone(), rollout.clone())) else { return 0 };
        let mut gone = 0;
        while gone < u64::from(limit)
            && rows.len() > 1
            && let Some(first) = rows.first_entry().filter(|first| *first.key() <= through)
        {
            first.remove();
            gone += 1;
        }
        gone
    }
}

impl Assignment {
    /// What is written down at the first dispatch, where that is evidence.
    pub(in crate::store) fn dispatched(&self) -> Option<Told> {
        let counted = self.counted.filter(|_| self.evidence)?;
        let what = Observed::Dispatched {
            revision: counted.revision,
            arm: self.arm,
            share: counted.share,
            bucket: self.bucket,
        };
        Some(Told { rollout: self.rollout.clone(), what })
    }
}
