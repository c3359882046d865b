//! One stream for every provider's answer: what arrives piece by piece, in OpenAI's terms.
//!
//! Invariant: an answer put together from its events says what the same answer says when it comes whole. Pure: how the
//! pieces travel is the provider layer's affair.

mod assembly;
mod early;
mod json;
mod merge;
pub mod sse;
mod stops;
mod tags;
mod undo;

use serde_json::Value;

use crate::usage::Usage;

pub use assembly::Assembly;
pub(in crate::wire) use assembly::{counts, too_long};
pub use early::{ENDED_EARLY, ended_early};
pub(in crate::wire) use undo::Undo;

/// Longest answer that is read from a stream, in bytes: as long as the longest that is read whole.
pub const MAX_STREAM: usize = 32 * 1024 * 1024;
/// Choices of one answer: what OpenAI grants.
pub const MAX_CHOICES: usize = 128;
/// Tool calls of one choice: far more than any model makes, so that made-up ones cannot fill memory.
pub const MAX_CALLS: usize = 1_024;

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A field of the completion itself, such as `id`, `model` or `service_tier`. The last one of a name counts.
    Field {
        /// Its name.
        name: String,
        /// What it says.
        value: Value,
    },
    /// More of what the answer says.
    Delta {
        /// Which of the answer's choices; 0 unless the request asked for several.
        choice: u32,
        /// What.
        delta: Delta,
    },
    /// A choice has ended.
    Finish {
        /// Which.
        choice: u32,
        /// Why.
        reason: FinishReason,
    },
    /// What the call consumed. At most once, last.
    Usage(Usage),
    /// Something that whoever runs this should know of the answer; no part of it.
    Remark(String),
}

impl Event {
    /// Whether the model has begun to speak: time to first token ends here.
    pub fn is_output(&self) -> bool {
        matches!(self, Self::Delta { .. })
    }

    pub(in crate::wire) fn first(delta: Delta) -> Self {
        Self::Delta { choice: 0, delta }
    }

    pub(in crate::wire) fn field(name: &str, value: impl Into<Value>) -> Self {
        Self::Field { name: name.to_owned(), value: value.into() }
    }
}

/// More of one choice.
#[derive(Debug, Clone, PartialEq)]
pub enum Delta {
    /// Text of the answer.
    Text(String),
    /// What the model thinks before it answers.
    Reasoning(String),
    /// Text by which the model declines.
    Refusal(String),
    /// A tool is called; its arguments follow.
    ToolCall {
        /// The call's place among the calls of this choice, from 0.
        index: u32,
        /// The call's id.
        id: String,
        /// The tool.
        name: String,
    },
    /// More of a call's arguments, as JSON text.
    ToolArguments {
        /// The call's place.
        index: u32,
        /// The text.
        text: String,
    },
    /// Log probabilities of the text before, as OpenAI writes them.
    LogProbs(Value),
    /// More of a further field of the message, such as `annotations` or `reasoning_details`: text is joined, lists are
    /// extended, objects are merged, anything else replaces what was there.
    Extra {
        /// The field.
        field: String,
        /// What is added.
        value: Value,
    },
    /// Content of a kind that this release cannot read: it is left out, and counted.
    Unread(String),
}

/// Why a choice has ended, in OpenAI's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::EnumString, strum::IntoStaticStr, strum::Display)]
#[strum(serialize_all = "snake_case")]
pub enum FinishReason {
    /// By itself, or at a stop sequence.
    Stop,
    /// At the output bound or the end of the window.
    Length,
    /// To have tools called.
    ToolCalls,
    /// To have a function called, in the older form.
    FunctionCall,
    /// A filter or the model's own refusal cut it.
    ContentFilter,
}
