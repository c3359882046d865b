//! How a provider behaves: how long it takes, what it grants, and how it fails.
//!
//! Invariant: pure. Time is an argument, chance comes from a seed and the number of the call, so the same calls at the
//! same times meet the same fate, on a server as on a simulated clock. Knows nothing of HTTP, sockets or bodies.

mod behaviour;
mod chance;
mod fault;
mod latency;
mod quota;
mod rule;
#[cfg(test)]
mod tests;

pub use behaviour::{Behaviour, BehaviourConfig, CallFacts, Fate, Plan, Reservation};
pub use chance::Chance;
pub use fault::{FaultKind, FaultRule};
pub use latency::Latency;
pub use quota::{Bucket, Exceeded, Level, Meter, Meters, Quota, Rates};
pub use rule::{InvalidRule, Scope, Scoped};
