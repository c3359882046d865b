//! Rollouts: which side of a split a key falls to, what the two sides' outcomes prove, and where a rollout goes next.
//!
//! Invariant: pure. Time is an argument, and there is no chance at all: the same rows of the ledger, killed, doubled or
//! shuffled, give the same verdicts, and the same events give the same course. Nothing here knows how rows are stored,
//! who the operators are, or how a job is routed and called.
//!
//! | file | noun |
//! |---|---|
//! | [`split`] | the bucket of a key |
//! | [`evidence`] | rows of the ledger, put into order and into blocks |
//! | [`process`] | what can be concluded from them, at any moment, with a stated error rate |
//! | [`gate`] | one requirement of a rollout, and its verdict |
//! | [`controller`] | the course of a rollout: steps, holds, rollbacks |
//! | [`breaker`] | the run of failures that needs no statistics |
//! | [`casebook`] | what was written down, read in order |
//!
//! `docs/rollouts.md` tells operators the same in their words.

mod beta;
mod bits;
pub mod breaker;
pub mod casebook;
pub mod controller;
pub mod evidence;
pub mod gate;
pub mod process;
pub mod rehearsal;
pub mod split;

pub use breaker::{Breaker, BreakerRule};
pub use casebook::Casebook;
pub use controller::{Controller, Event, Plan, Readings, Refusal, State, Step, Transition, Turn};
pub use evidence::{Evidence, Horizon, Outcome, Pair, Score};
pub use gate::{Criterion, GateSpec, OnFail, Verdict};
pub use split::{bucket, is_candidate};
