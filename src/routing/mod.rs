//! Where a job goes, and why: rules, confinement, rollouts, flags, fallback chain.
//!
//! Invariant: a decision depends on its arguments alone, so it can be explained, predicted and replayed. `confine` is
//! stronger than everything; a kill switch is stronger than everything else.

pub mod decision;
pub mod flags;

pub use decision::{Arm, ArmChoice, Decision, DecisionRecord, Question, Reason, Route, decide};
pub use flags::{EffectiveFlags, FlagLevels, FlagSource, ForcedProviders};
