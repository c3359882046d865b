//! What happens to rollouts with steps: written with what happens to the jobs, read in order.
//!
//! Invariant: the observations of one rollout are numbered from 1 without a gap, in the order in which they become visible:
//! whoever has read up to a number has read everything up to it, and nothing will come before it any more. A number is never
//! given twice.

use crate::{
    clock::Timestamp,
    ids::JobId,
    names::{PipelineName, RolloutName},
};

pub use crate::rollout::evidence::{Ended, Observed};

/// Something that happened to a job's rollout.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// The rollout, of the job's pipeline.
    pub rollout: RolloutName,
    /// What.
    pub what: Observed,
}

/// Something that happens beside the life of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct NewObservation {
    /// The pipeline.
    pub pipeline: PipelineName,
    /// The job that it is about, if it is about one.
    pub job: Option<JobId>,
    /// The rollout, and what.
    pub told: Told,
}

/// An observation as it was written down.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// Its number.
    pub number: u64,
    /// When, by the store's clock.
    pub at: Timestamp,
    /// The job that it is about, if it is about one.
    pub job: Option<JobId>,
    /// What.
    pub what: Observed,
}

/// Which observations to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservationQuery {
    /// The pipeline.
    pub pipeline: PipelineName,
    /// Its rollout.
    pub rollout: RolloutName,
    /// Behind this number.
    pub after: u64,
    /// At most.
    pub limit: u32,
}
