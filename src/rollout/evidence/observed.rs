//! What happens to a rollout, one thing at a time, as it is written down in the order in which it happens.
//!
//! Invariant: an observation says only what was known when it was written; what it means is found when all are read in order.

use serde::{Deserialize, Serialize};

use super::row::Arm;
use crate::money::{BasisPoints, Usd};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observed {
    /// A job was dispatched for the first time, and chance alone chose its arm.
    Dispatched {
        /// The launch of the rollout that it belongs to.
        revision: u32,
        /// Its arm.
        arm: Arm,
        /// The candidate's share then.
        share: BasisPoints,
        /// Its bucket, where its key gave it one.
        bucket: Option<u16>,
    },
    /// The job's first leg ended: all attempts at its arm's target.
    Ended(Ended),
    /// The job was taken from its arm before the leg had ended, by an operator or by another spec: no evidence.
    Withdrawn,
    /// A kill switch was set: legs that had not ended by then are no evidence.
    Switched,
    /// Somebody posted a number for the job.
    Scored {
        /// What is scored.
        name: String,
        /// The number.
        value: f64,
        /// The launch that the job belongs to.
        revision: u32,
        /// The job's own number.
        sequence: u64,
        /// The job's arm.
        arm: Arm,
        /// The candidate's share when the job was dispatched.
        share: BasisPoints,
    },
}

/// How a leg ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// Without an answer. A fallback's rescue changes nothing.
    pub failed: bool,
    /// With an answer whose JSON or tool arguments do not validate.
    #[serde(default)]
    pub invalid: bool,
    /// How long the answering call took, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micros: Option<u64>,
    /// What the leg cost, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Usd>,
}
