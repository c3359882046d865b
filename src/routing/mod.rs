//! Where a job goes, and why: rules, confinement, rollouts, flags, fallback chain.
//!
//! Invariant: a decision depends on its arguments alone, so it can be explained, predicted and replayed. `confine` is
//! stronger than everything; a kill switch is stronger than everything else.

pub mod decide;
pub mod decision;
#[cfg(test)]
pub(crate) mod fixture;
pub mod flags;
pub mod prompt;
pub mod standing;
#[cfg(test)]
mod tests;
pub mod words;

pub use decide::{decide, permitted};
pub use decision::{Arm, ArmChoice, Assignment, Counted, Decision, DecisionRecord, Question, Reason, Route};
pub use flags::{EffectiveFlags, FlagLevels, FlagSource, ForcedProviders};
pub use prompt::decide_counting;
pub use standing::{Standing, Standings};
pub use words::{explain, explain_with_flags, flags_in_force, hold_words};
