//! The states of a job and the one function that moves it between them.
//!
//! Invariant: a terminal state is never left; any other event is a typed error. Stores apply what this decides.

use serde::{Deserialize, Serialize};

/// Where a job stands.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::EnumIter,
    strum::IntoStaticStr,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum State {
    /// Ready to be dispatched.
    Queued,
    /// Between attempts, or not before its time.
    Waiting,
    /// Cannot go on until something changes.
    Held,
    /// Claimed by a daemon.
    Running,
    /// Ended with a result.
    Succeeded,
    /// Ended without one.
    Failed,
    /// Ended by its owner.
    Cancelled,
    /// Ended by its deadline.
    Expired,
}

impl State {
    /// Whether nothing can happen to the job any more.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::Expired)
    }
}

/// Why a job is held. The text form is its `reason_code`.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::EnumIter,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum HoldReason {
    /// `PAUSE` is set.
    Paused,
    /// The pipeline's budget is spent.
    Budget,
    /// No target of the chain keeps the data where it must stay.
    Confined,
    /// No spec defines the pipeline.
    PipelineRemoved,
    /// A forced provider has no target in the pipeline.
    ForcedProviderHasNoTarget,
    /// Two different providers are forced at once.
    ForcedProvidersConflict,
    /// Every target of the chain waits for an operator.
    TargetsParked,
    /// A rule or rollout needs a value that the job lacks, and says `hold`.
    MissingValue,
}

/// What happens to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, strum::Display, strum::EnumIter)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Event {
    /// A daemon claims it.
    Claim,
    /// It goes back to the queue.
    Requeue,
    /// It waits for a time.
    Wait,
    /// Its time has come.
    Promote,
    /// It is held.
    Hold,
    /// Its hold is lifted.
    Release,
    /// A result came.
    Succeed,
    /// It is given up.
    Fail,
    /// Its owner cancels it.
    Cancel,
    /// Its deadline passed.
    Expire,
}

/// An event that cannot happen in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a {state} job cannot {event}")]
pub struct IllegalEvent {
    /// Where the job stood.
    pub state: State,
    /// What was to happen.
    pub event: Event,
}

/// The next state.
///
/// # Errors
/// [`IllegalEvent`] for every pair that is not a step of a job's life.
pub fn next(state: State, event: Event) -> Result<State, IllegalEvent> {
    use Event as E;
    use State as S;
    match (state, event) {
        (S::Queued, E::Claim) => Ok(S::Running),
        (S::Queued | S::Running, E::Wait) => Ok(S::Waiting),
        (S::Queued | S::Running, E::Hold) => Ok(S::Held),
        (S::Running, E::Requeue) | (S::Waiting, E::Promote) | (S::Held, E::Release) => Ok(S::Queued),
        (S::Running, E::Succeed) => Ok(S::Succeeded),
        (S::Queued | S::Running, E::Fail) => Ok(S::Failed),
        (S::Queued | S::Waiting | S::Held | S::Running, E::Cancel) => Ok(S::Cancelled),
        (S::Queued | S::Waiting | S::Held | S::Running, E::Expire) => Ok(S::Expired),
        _ => Err(IllegalEvent { state, event }),
    }
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;

    #[test]
    fn terminal_states_are_never_left() {
        for state in State::iter().filter(|state| state.is_terminal()) {
            for event in Event::iter() {
                assert_eq!(next(state, event), Err(IllegalEvent { state, event }));
            }
        }
    }

    #[test]
    fn every_live_state_can_be_cancelled_and_expire() {
        for state in State::iter().filter(|state| !state.is_terminal()) {
            assert_eq!(next(state, Event::Cancel), Ok(State::Cancelled));
            assert_eq!(next(state, Event::Expire), Ok(State::Expired));
        }
    }

    #[test]
    fn only_queued_jobs_are_claimed_and_only_running_ones_succeed() {
        for state in State::iter() {
            assert_eq!(next(state, Event::Claim).is_ok(), state == State::Queued, "{state}");
            assert_eq!(next(state, Event::Succeed).is_ok(), state == State::Running, "{state}");
        }
    }
}
