//! Quotas and breakers: how much may be sent to a provider, when the next call may go, and when to leave it alone.
//!
//! Invariant: pure arithmetic over rates and balances; the time is an argument. A clock that jumps backwards delays
//! nothing for longer than it would have taken anyway. Nothing here knows jobs, pipelines or who asks.

pub mod breaker;
pub mod bucket;
pub mod limiter;

pub use breaker::{Breaker, BreakerPhase, BreakerPolicy};
pub use bucket::Bucket;
pub use limiter::{Admission, Demand, Limiter, Rates, Utilization};
