//! Rollouts with steps: their state in the store, the leader that moves them, the operators who may.
//!
//! Invariant: a state is changed by compare-and-set alone, on the very document that the change was made from, with its audit
//! entry in the same transaction; by the leader only while it leads. Whatever is lost between two writes is found again in the
//! observations. Every daemon routes by the state that it read last, so one that is cut off keeps its shares and raises none.
//!
//! | file | what |
//! |---|---|
//! | `courses` | what routing asks |
//! | `conduct` | the leader's pass |
//! | `keep` | documents |
//! | `act` | what operators do |
//! | `view` | what they see |
//! | `score` | numbers that users post |

mod act;
mod conduct;
mod courses;
mod keep;
mod score;
mod view;

use std::collections::BTreeMap;

use self::conduct::Book;
pub use self::{
    act::{RolloutAct, RolloutError},
    courses::Courses,
    score::Scored,
    view::{GateView, RolloutView},
};
use crate::{
    clock::Timestamp,
    names::{PipelineName, RolloutName},
    store::Lead,
};

/// Which rollout.
pub(super) type Which = (PipelineName, RolloutName);

/// What this daemon has in hand of rollouts with steps.
#[derive(Default)]
pub(super) struct Rollouts {
    /// While it leads: the lead, when it was taken last, and what was read of each rollout.
    desk: tokio::sync::Mutex<Desk>,
}

/// The leader's desk.
#[derive(Default)]
struct Desk {
    lead: Option<(Lead, Timestamp)>,
    books: BTreeMap<Which, Book>,
}
