//! What a request leaves behind for the reading of its answer: everything that was emulated on the way out and must be
//! undone on the way back.

use std::collections::BTreeMap;

/// How to read an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// Stop sequences that the model does not take: the answer is cut at the first of them.
    pub local_stop: Vec<String>,
    /// The tool that stands for a JSON schema: its input is the answer's text.
    pub json_tool: Option<String>,
    /// The answer must be one JSON value: text around it is taken off.
    pub json_text: bool,
    /// Tool names as they were sent, to the names that the caller knows. Only those that differ.
    pub tool_names: BTreeMap<String, String>,
    /// The text may begin with `<reasoning>…</reasoning>`, which is not part of it.
    pub inline_reasoning: bool,
    /// The provider names tool calls by their place alone (`call_0`): each gets an id of its own.
    pub mint_call_ids: bool,
}

impl Reading {
    /// Whether an answer can be taken as it comes.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
