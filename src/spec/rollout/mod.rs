//! What a gated rollout's spec says: steps, gates and their margins, patience, windows.
//!
//! Invariant: plain values that were checked; how they are followed is another room's matter. A plan that fails
//! [`Plan::check`] never leaves the reader.

mod gate;
mod plan;
mod windows;

pub use gate::{CostOf, Criterion, GateSpec, InvalidGate, LatencyOf, Margin, OnFail, Source};
pub use plan::{
    BreakerRule, Identity, InvalidPlan, MOST_GATES, MOST_STEPS, OnNoData, OnUndecided, Patience, Plan, Require, Step,
};
pub use windows::{InvalidWindow, Windows, Written};
