//! The engine on a simulated clock, against scripted providers and the store in memory.

mod batches;
mod budgets;
mod faults;
mod levers;
mod life;
mod live;
mod quiet;
mod quotas;
mod rig;
mod rollouts;
mod sizes;
mod streams;
