//! What Converse answers, whole or piece by piece, as plain data.
//!
//! Invariant: nothing of the SDK's types in here; a kind of content that this release does not know has a place of its
//! own, so that it is counted and never lost without a word.

use serde_json::Value;

/// What Converse answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// The message's content, in order.
    pub content: Vec<AnswerBlock>,
    /// Why it ended, in the service's word.
    pub stop_reason: String,
    /// What it consumed.
    pub usage: Option<TokenUsage>,
    /// `additionalModelResponseFields`: what the request asked for of the model's own answer.
    pub additional_fields: Option<Value>,
    /// The tier that served, such as `flex`.
    pub service_tier: Option<String>,
    /// Why the guardrail acted, in its own words, where it was traced.
    pub guardrail: Option<String>,
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum AnswerBlock {
    /// Text.
    Text(String),
    /// Text with its sources.
    Cited {
        /// The text.
        text: String,
        /// Where it comes from.
        citations: Vec<Citation>,
    },
    /// What the model thought.
    Reasoning {
        /// In words.
        text: String,
        /// The proof that the model asks for when it is shown its thought again.
        signature: Option<String>,
    },
    /// What the model thought, sealed: as base64.
    Redacted(String),
    /// A call of a tool.
    ToolUse {
        /// The call's id.
        id: String,
        /// The tool.
        name: String,
        /// Its arguments.
        input: Value,
    },
    /// Of a kind that this release does not read: which.
    Unread(&'static str),
}

/// Where a piece of text comes from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Citation {
    /// The source's title.
    pub title: Option<String>,
    /// Its name or address.
    pub source: Option<String>,
    /// The passage.
    pub quote: String,
    /// The place in it, as the service writes it: `{"web": {"url"}}`, `{"documentPage": {"documentIndex", "start", "end"}}`.
    pub location: Option<Value>,
}

/// What a call consumed, in Converse's terms: `input` excludes what the cache read or wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenUsage {
    /// Uncached prompt tokens.
    pub input: u64,
    /// Generated tokens.
    pub output: u64,
    /// Prompt tokens read from the cache.
    pub cache_read: u64,
    /// Prompt tokens written to the cache.
    pub cache_write: u64,
}

/// An event of ConverseStream. Exceptions in the stream are no events: [`crate::wire::faults::bedrock::in_stream`]
/// reads those.
#[derive(Debug, Clone, PartialEq)]
pub enum StreamEvent {
    /// The answer begins.
    MessageStart,
    /// A block begins. Blocks of text and reasoning may begin without.
    BlockStart {
        /// The block's place.
        index: u32,
        /// What begins.
        start: BlockStart,
    },
    /// More of a block.
    BlockDelta {
        /// The block's place.
        index: u32,
        /// What.
        delta: BlockDelta,
    },
    /// A block is whole.
    BlockStop {
        /// The block's place.
        index: u32,
    },
    /// The answer has ended.
    MessageStop {
        /// Why, in the service's word.
        stop_reason: String,
        /// `additionalModelResponseFields`.
        additional_fields: Option<Value>,
    },
    /// After the end.
    Metadata {
        /// What was consumed.
        usage: Option<TokenUsage>,
        /// The tier that served.
        service_tier: Option<String>,
        /// Why the guardrail acted, where it was traced.
        guardrail: Option<String>,
    },
    /// Newer than this release.
    Unknown,
}

/// How a block begins.
#[derive(Debug, Clone, PartialEq)]
pub enum BlockStart {
    /// A call of a tool.
    ToolUse {
        /// The call's id.
        id: String,
        /// The tool.
        name: String,
    },
    /// Of a kind that this release does not read: which.
    Unread(&'static str),
}

/// More of a block.
#[derive(Debug, Clone, PartialEq)]
pub enum BlockDelta {
    /// Text.
    Text(String),
    /// A tool's arguments, as JSON text.
    ToolInput(String),
    /// What the model thinks.
    Reasoning(String),
    /// The thought's signature.
    Signature(String),
    /// A sealed thought, as base64.
    Redacted(String),
    /// A source of the block's text.
    Citation(Citation),
    /// Of a kind that this release does not read: which.
    Unread(&'static str),
}
