//! OpenAI's own chat form: requests on their way out, completions on their way back.
//!
//! Invariant: what the job sent goes to an OpenAI target as it is, apart from what the target says; what an OpenAI
//! target answers is kept as it came.

pub mod chunks;
pub mod completion;
pub mod events;
mod habits;
pub(super) mod request;
pub mod response;
mod usage;
