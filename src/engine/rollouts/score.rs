//! Numbers that users post for jobs: evidence for the gates `score.NAME`.
//!
//! Invariant: a score is written down before it is acknowledged, and belongs to the arm that its job fell to.

use crate::{
    engine::Engine,
    store::{JobRecord, NewObservation, Observed, StoreError, Told},
};

/// What became of a score.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scored {
    /// It is evidence.
    Counted,
    /// It is not, and why.
    Not(&'static str),
}

impl Engine {
    /// Writes down a score of a job.
    ///
    /// # Errors
    /// [`StoreError`]; it was not written down then.
    pub async fn score(&self, record: &JobRecord, scores: Vec<(String, f64)>) -> Result<Scored, StoreError> {
        let Some(assignment) = &record.assignment else {
            return Ok(Scored::Not("the job has not been dispatched to a rollout"));
        };
        let Some((counted, sequence)) = assignment.counted.and_then(|counted| Some((counted, counted.number?))) else {
            return Ok(Scored::Not(
                "the job is no evidence: its rollout has no steps, or it had no key, was confined, or a kill switch was on",
            ));
        };
        let observations = scores.into_iter().map(|(name, value)| NewObservation {
            pipeline: record.summary.pipeline.clone(),
            job: Some(record.summary.id),
            told: Told {
                rollout: assignment.rollout.clone(),
                what: Observed::Scored {
                    name,
                    value,
                    revision: counted.revision,
                    sequence,
                    arm: assignment.arm,
                    share: counted.share,
                },
            },
        });
        self.store.observe(observations.collect()).await?;
        Ok(Scored::Counted)
    }
}
