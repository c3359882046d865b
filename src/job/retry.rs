//! What follows a fault, and which target of a chain is called next. The table of faults lives here and nowhere else.
//!
//! Invariant: the number of calls a job can cause is bounded: a target is called again only while fewer than
//! `retry.attempts` of its calls burned an attempt, and what burns none waits for a time first.

use std::time::Duration;

use super::{fault::Fault, state::HoldReason};
use crate::{clock::Timestamp, names::TargetName, spec::Retry};

/// One ended call of the job's past, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// The target called.
    pub target: TargetName,
    /// Why it failed. Calls that succeeded end the job and are never past.
    pub fault: Fault,
    /// For [`Fault::Unknown`]: the connection was lost under a living daemon (theirs), so it burned an attempt;
    /// false when the daemon itself died (ours).
    pub theirs: bool,
}

/// A target of the chain, as things stand now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub name: TargetName,
    /// Whether it can be called.
    pub availability: Availability,
    /// The model's context window in tokens, where known.
    pub context_window: Option<u64>,
}

/// Whether a target can be called now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// It can.
    Ready,
    /// Not before this time: its breaker is open or it asked us to wait.
    NotBefore(Timestamp),
    /// Not until an operator acts.
    Parked,
}

/// What to do with the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Call the target at this place of the chain now.
    Call(usize),
    /// Wait; route again then.
    Wait {
        /// Until when.
        until: Timestamp,
    },
    /// Hold until something changes.
    Hold(HoldReason),
    /// Give up: every target of the chain has used its attempts, or none can take the job.
    Fail {
        /// Stable name: `attempts_exhausted`, `refused`, `too_long`.
        reason_code: &'static str,
    },
}

/// Settings of the decision.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// The pipeline's.
    pub retry: Retry,
    /// A throttled target whose wait is longer than this is passed over for the next of the chain.
    pub spill_after: Duration,
}

/// Chooses the next target at dispatch; a wait that the past asked for has been served.
pub fn choose(_chain: &[Candidate], _past: &[Past], _policy: &Policy, _now: Timestamp) -> Step {
    Step::Fail { reason_code: "attempts_exhausted" }
}

/// Decides what follows the newest fault in `past`. `retry_after` is the provider's own hint; `chance` is uniform in
/// [0, 1) and jitters the backoff (full jitter: a uniform share of `initial_delay × 2^(n−1)`, capped at `max_delay`).
pub fn after_fault(
    chain: &[Candidate],
    past: &[Past],
    policy: &Policy,
    now: Timestamp,
    _retry_after: Option<Duration>,
    _chance: f64,
) -> Step {
    choose(chain, past, policy, now)
}
