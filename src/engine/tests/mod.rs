//! The engine on a simulated clock, against scripted providers and the store in memory.

mod faults;
mod levers;
mod life;
mod quotas;
mod rig;
mod sizes;
mod streams;
