//! Simulated endpoints: OpenAI's and Bedrock's wire protocols over HTTP, for rehearsing before spending.
//!
//! The real clients call them as they call the providers. A call is read as strictly as the provider reads it
//! ([`openai`], [`bedrock`]), its fate is decided by a [`model`] of the provider's behaviour (latency, quotas, faults),
//! and its answer is made from the prompt alone ([`answer`]), so that the same prompt gets the same answer. What happened
//! is counted ([`journal`]) and can be asked and changed at run time ([`admin`]).
//!
//! The protocols: OpenAI's chat completions (on a path of their own and, signed, on Bedrock's), Converse, InvokeModel as
//! Claude and Llama have it, each whole or in pieces, and CountTokens.
//!
//! Invariant: nothing here is used by the daemon itself; it stands on the other side of the wire.

mod admin;
mod answer;
mod bedrock;
mod call;
mod capability;
mod config;
mod flight;
mod form;
mod journal;
pub mod model;
mod openai;
mod options;
mod pieces;
mod prompt;
pub mod rehearsal;
mod reply;
mod server;
#[cfg(test)]
mod tests;
mod wire_cut;

pub use config::{ModelPolicy, SimulationConfig};
pub use journal::{Counts, Entry, JournalPage, ModelCount, Outcome, Repeated, Tallies};
pub use options::SimulateOptions;
pub use server::{Simulation, SimulationError};
