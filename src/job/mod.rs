//! A job: what was asked, where it stands, what was tried, and what comes next.
//!
//! Invariant: everything here is a pure decision; time and chance are arguments. Nothing is stored or sent from here.

pub mod attempt;
pub mod envelope;
pub mod fault;
pub mod retry;
pub mod state;

pub use attempt::{Attempt, FidelityAction, FidelityNote, Outcome};
pub use envelope::{Envelope, EnvelopeError};
pub use fault::Fault;
pub use state::{Event, HoldReason, IllegalEvent, State};
