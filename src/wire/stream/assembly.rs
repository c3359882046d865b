//! The events of a stream put together: the completion that the same answer is when it comes whole.
//!
//! Invariant: an answer without its end is no completion, and what is put together stays below [`MAX_STREAM`].

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Delta, Event, FinishReason, MAX_CALLS, MAX_CHOICES, MAX_STREAM, ended_early, merge::merge};
use crate::{
    job::Fault,
    usage::Usage,
    wire::{Completion, faults::Classified},
};

/// Remarks that are kept of one answer.
const MAX_REMARKS: usize = 32;

/// Puts a completion together.
#[derive(Debug, Clone, Default)]
pub struct Assembly {
    fields: Map<String, Value>,
    choices: BTreeMap<u32, Choice>,
    usage: Option<Usage>,
    remarks: Vec<String>,
    unread: usize,
    size: usize,
}

#[derive(Debug, Clone, Default)]
struct Choice {
    text: Option<String>,
    reasoning: String,
    refusal: Option<String>,
    calls: BTreeMap<u32, Call>,
    logprobs: Option<Value>,
    extra: Map<String, Value>,
    finish: Option<FinishReason>,
}

#[derive(Debug, Clone, Default)]
struct Call {
    id: String,
    name: String,
    arguments: String,
}

impl Assembly {
    /// An answer of `model` with the given id, made `created` seconds after 1970; what the stream itself says of these
    /// counts more.
    pub fn new(id: &str, model: &str, created: i64) -> Self {
        let mut fields = Map::new();
        fields.insert("id".to_owned(), id.into());
        fields.insert("object".to_owned(), "chat.completion".into());
        fields.insert("created".to_owned(), created.into());
        fields.insert("model".to_owned(), model.into());
        Self { fields, ..Self::default() }
    }

    /// Takes one event.
    ///
    /// # Errors
    /// [`Classified`] when the answer grows beyond what is kept of one.
    pub fn push(&mut self, event: Event) -> Result<(), Classified> {
        self.size = self.size.saturating_add(size(&event));
        if self.size > MAX_STREAM {
            return Err(too_long(&format!("{MAX_STREAM} bytes")));
        }
        match event {
            Event::Field { name, value } => {
                self.fields.insert(name, value);
            }
            Event::Usage(usage) => self.usage = Some(usage),
            Event::Remark(remark) => {
                if self.remarks.len() < MAX_REMARKS && !self.remarks.contains(&remark) {
                    self.remarks.push(remark);
                }
            }
            Event::Finish { choice, reason } => self.choice(choice)?.finish = Some(reason),
            Event::Delta { choice, delta: Delta::Unread(kind) } => {
                self.choice(choice)?;
                self.unread = self.unread.saturating_add(1);
                self.push(Event::Remark(format!(
                    "content of a kind that this release cannot read is left out: {kind}"
                )))?;
            }
            Event::Delta { choice, delta } => self.choice(choice)?.add(delta)?,
        }
        Ok(())
    }

    fn choice(&mut self, number: u32) -> Result<&mut Choice, Classified> {
        if self.choices.len() >= MAX_CHOICES && !self.choices.contains_key(&number) {
            return Err(too_long(&format!("{MAX_CHOICES} choices")));
        }
        Ok(self.choices.entry(number).or_default())
    }

    /// The completion.
    ///
    /// # Errors
    /// [`Classified`] when a choice, or all of them, did not end.
    pub fn finish(mut self) -> Result<Completion, Classified> {
        if self.choices.is_empty() {
            return Err(ended_early("it holds no choices"));
        }
        let mut choices = Vec::with_capacity(self.choices.len());
        for (number, choice) in self.choices {
            let Some(reason) = choice.finish else {
                return Err(ended_early(&format!("choice {number} has no end")));
            };
            choices.push(choice.written(number, reason));
        }
        let counted = self.fields.remove("usage").or_else(|| self.usage.map(counts));
        self.fields.insert("choices".to_owned(), choices.into());
        if let Some(counted) = counted {
            self.fields.insert("usage".to_owned(), counted);
        }
        self.fields.entry("system_fingerprint").or_insert(Value::Null);
        let json = Value::Object(self.fields).to_string();
        Ok(Completion { json, usage: self.usage, unread_blocks: self.unread, remarks: self.remarks })
    }
}

impl Choice {
    fn add(&mut self, delta: Delta) -> Result<(), Classified> {
        match delta {
            Delta::Text(text) => self.text.get_or_insert_default().push_str(&text),
            Delta::Reasoning(text) => self.reasoning.push_str(&text),
            Delta::Refusal(text) => self.refusal.get_or_insert_default().push_str(&text),
            Delta::ToolCall { index, id, name } => {
                if self.calls.len() >= MAX_CALLS {
                    return Err(too_long(&format!("{MAX_CALLS} tool calls")));
                }
                self.calls.insert(index, Call { id, name, arguments: String::new() });
            }
            Delta::ToolArguments { index, text } => {
                if let Some(call) = self.calls.get_mut(&index) {
                    call.arguments.push_str(&text);
                }
            }
            Delta::LogProbs(more) => match &mut self.logprobs {
                None => self.logprobs = Some(more),
                Some(known) => merge(known, more),
            },
            Delta::Extra { field, value } => match self.extra.get_mut(&field) {
                None => {
                    self.extra.insert(field, value);
                }
                Some(known) => merge(known, value),
            },
            Delta::Unread(_) => {}
        }
        Ok(())
    }

    fn written(self, number: u32, reason: FinishReason) -> Value {
        let calls_something = !self.calls.is_empty() || self.extra.contains_key("function_call");
        let content = match self.text {
            Some(text) if !(text.is_empty() && calls_something) => Some(text),
            None if !calls_something && self.refusal.is_none() => Some(String::new()),
            _ => None,
        };
        let mut message = Map::new();
        message.insert("role".to_owned(), "assistant".into());
        message.insert("content".to_owned(), content.into());
        message.insert("refusal".to_owned(), self.refusal.into());
        if !self.reasoning.is_empty() {
            message.insert("reasoning_content".to_owned(), self.reasoning.into());
        }
        if !self.calls.is_empty() {
            let calls = self.calls.into_values().map(|call| {
                json!({ "id": call.id, "type": "function",
                        "function": { "name": call.name, "arguments": call.arguments } })
            });
            message.insert("tool_calls".to_owned(), calls.collect());
        }
        message.extend(self.extra);
        let reason: &'static str = reason.into();
        json!({ "index": number, "message": message, "logprobs": self.logprobs, "finish_reason": reason })
    }
}

/// What a completion says of its tokens.
pub(in crate::wire) fn counts(usage: Usage) -> Value {
    let mut counts = json!({
        "prompt_tokens": usage.prompt(),
        "completion_tokens": usage.output,
        "total_tokens": usage.total(),
        "prompt_tokens_details": { "cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write },
    });
    if let (true, Some(fields)) = (usage.reasoning > 0, counts.as_object_mut()) {
        fields.insert("completion_tokens_details".to_owned(), json!({ "reasoning_tokens": usage.reasoning }));
    }
    counts
}

/// About how much an event keeps in memory.
fn size(event: &Event) -> usize {
    const FRAME: usize = 16;
    FRAME
        + match event {
            Event::Field { name, value } => name.len() + weight(value),
            Event::Delta { delta, .. } => match delta {
                Delta::Text(text) | Delta::Reasoning(text) | Delta::Refusal(text) | Delta::Unread(text) => text.len(),
                Delta::ToolArguments { text, .. } => text.len(),
                Delta::ToolCall { id, name, .. } => id.len() + name.len(),
                Delta::LogProbs(value) => weight(value),
                Delta::Extra { field, value } => field.len() + weight(value),
            },
            Event::Remark(text) => text.len(),
            Event::Finish { .. } | Event::Usage(_) => 0,
        }
}

fn weight(value: &Value) -> usize {
    const LEAF: usize = 8;
    match value {
        Value::String(text) => LEAF + text.len(),
        Value::Array(items) => items.iter().fold(LEAF, |sum, item| sum.saturating_add(weight(item))),
        Value::Object(fields) => {
            fields.iter().fold(LEAF, |sum, (name, value)| sum.saturating_add(name.len() + weight(value)))
        }
        _ => LEAF,
    }
}

pub(in crate::wire) fn too_long(what: &str) -> Classified {
    let message = format!("the answer is longer than {what}, the most that is read");
    Classified::billed(Fault::Refused, message).with_code("answer_too_long").with_status(200)
}
