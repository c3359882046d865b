//! What happens to a rollout, and what comes of it.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Controller, Plan};
use crate::{
    clock::Timestamp,
    money::BasisPoints,
    rollout::{evidence::Evidence, gate::Verdict},
};

/// Where a rollout stands.
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
    strum::IntoStaticStr,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[schemars(rename = "RolloutState")]
pub enum State {
    /// It advances when it may.
    Running,
    /// An operator has stopped it for now.
    Paused,
    /// It waits for an operator, or for a kill switch to be cleared.
    Held,
    /// The evidence sent everybody back to the baseline.
    RolledBack,
    /// An operator sent everybody back to the baseline.
    Aborted,
    /// Its last step has held.
    Done,
}

/// The evidence at one moment.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Readings {
    /// The revision that it is evidence for; of another one, it is ignored.
    pub revision: u32,
    /// The gates' verdicts by name; a gate without one is undecided.
    pub verdicts: BTreeMap<String, Verdict>,
    /// Jobs of the candidate that were counted in this revision.
    pub jobs: u64,
    /// Pairs that were counted in this revision.
    pub pairs: u64,
    /// Whether the jobs are not split as they were asked to be.
    pub split_is_off: bool,
}

impl Readings {
    /// What `evidence` of a revision says now.
    pub fn of(revision: u32, evidence: &Evidence) -> Self {
        Self {
            revision,
            verdicts: evidence.verdicts(),
            jobs: evidence.candidate_jobs(),
            pairs: evidence.pairs(),
            split_is_off: evidence.split_is_off(),
        }
    }
}

/// What happens to a rollout.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// Time passed, evidence came in.
    Tick(&'a Readings),
    /// An operator sends it to its next step.
    Promote(&'a Readings),
    /// An operator stops it for now.
    Pause,
    /// An operator lets it go on.
    Resume(&'a Readings),
    /// An operator sends everybody back to the baseline.
    Abort,
    /// An operator lets it begin again; jobs up to this number are no evidence.
    Retry(u64),
    /// An operator approves of leaving the step.
    Approve,
    /// A kill switch that touches its pipeline was set.
    SwitchOn,
    /// The last one was cleared.
    SwitchOff,
    /// Its spec was saved; what counts anew counts jobs after this number.
    Edited(&'a Plan, u64),
    /// So many of the candidate's last ends were failures.
    BreakerTripped(u32),
}

/// The kind of a change, for audit and notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, strum::Display, strum::EnumString)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Change {
    /// It went to its next step by itself.
    Advanced,
    /// An operator sent it there.
    Promoted,
    /// It is paused.
    Paused,
    /// It goes on.
    Resumed,
    /// It waits for an operator.
    Held,
    /// Everybody is back at the baseline.
    RolledBack,
    /// An operator sent everybody back.
    Aborted,
    /// It begins again.
    Retried,
    /// An operator approved.
    Approved,
    /// It is done.
    Done,
    /// It follows another plan.
    Edited,
    /// It has other targets, and begins anew.
    Revised,
    /// A kill switch is on.
    SwitchedOn,
    /// The kill switch is cleared.
    SwitchedOff,
}

/// One change, as the audit keeps it. Who caused it is known to the caller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transition {
    /// What kind.
    pub change: Change,
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
    /// The candidate's share before.
    pub percent_before: BasisPoints,
    /// The candidate's share after.
    pub percent_after: BasisPoints,
    /// Why, in words.
    pub reason: String,
}

/// What comes of an event.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// The rollout from now on. Without a transition only its memory of when evidence last came in is new.
    pub controller: Controller,
    /// What changed; to be stored together with the controller, if its generation is still the one before.
    pub transition: Option<Transition>,
}

/// An event that cannot be followed, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// What a rollout waits for before it leaves its step.
#[derive(Debug, Clone, PartialEq)]
pub enum Wait {
    /// More time in the step.
    Time(Duration),
    /// More jobs of the candidate.
    Jobs(u64),
    /// More pairs.
    Pairs(u64),
    /// A gate.
    Gate {
        /// Its name.
        name: String,
        /// What it says.
        verdict: Verdict,
    },
    /// A split that is what it should be.
    Split,
    /// An operator's approval.
    Approval,
    /// A window, which opens then.
    Window(Option<Timestamp>),
}
