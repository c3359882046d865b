//! Quotas and breakers: how much may be sent to a provider, when the next call may go, and when to leave it alone.
//!
//! Invariant: pure arithmetic over rates and balances; the time is an argument. A clock that jumps backwards delays
//! nothing for longer than it would have taken anyway. Nothing here knows jobs, pipelines or who asks.

pub mod allowance;
pub mod applied;
pub mod breaker;
pub mod bucket;
pub mod budget;
pub mod crowd;
pub mod day;
pub mod fair;
pub mod grant;
pub mod meter;
pub mod pace;
pub mod ramp;
pub mod rate;
pub mod scheduler;

pub use allowance::{Allowance, Ending, Learned, Reservation, Standing, Throttle, Verdict};
pub use breaker::{Breaker, BreakerPhase, BreakerPolicy};
pub use bucket::Bucket;
pub use budget::{Caps, Period, Purse, Short};
pub use grant::{Blocked, Demand, Grant, Limit, ProfileClass, QuotaKey};
pub use rate::{LearnedRate, Source, Told};
pub use scheduler::{Ask, Gate, Granted, LineIx, LineStanding, Scheduler, TicketIx};
