//! One stream for every provider's answer: what arrives piece by piece, in OpenAI's terms.
//!
//! Invariant: an answer put together from its events says what the same answer says when it comes whole. Pure: how the
//! pieces travel is the provider layer's affair.

use crate::usage::Usage;

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
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
    LogProbs(serde_json::Value),
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
    /// A filter or the model's own refusal cut it.
    ContentFilter,
}
