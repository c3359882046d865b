//! The events of [`crate::wire::stream`] written as OpenAI's stream of chunks, for a caller who listens.
//!
//! Invariant: what is written, read again by [`super::events`], gives the same events. Remarks are not the caller's.

use serde_json::{Map, Value, json};

use crate::{
    job::Fault,
    wire::{
        faults::Classified,
        stream::{Delta, Event, counts},
    },
};

/// Writes chunks.
#[derive(Debug, Clone)]
pub struct Writer {
    head: Map<String, Value>,
    /// Choices that have begun.
    begun: Vec<u32>,
    include_usage: bool,
    /// What the provider wrote of its usage.
    usage: Option<Value>,
}

impl Writer {
    /// Chunks of an answer of `model` with this id, made `created` seconds after 1970. With `include_usage`, the last
    /// chunk says what was consumed.
    pub fn new(id: &str, model: &str, created: i64, include_usage: bool) -> Self {
        let mut head = Map::new();
        head.insert("id".to_owned(), id.into());
        head.insert("object".to_owned(), "chat.completion.chunk".into());
        head.insert("created".to_owned(), created.into());
        head.insert("model".to_owned(), model.into());
        Self { head, begun: Vec::new(), include_usage, usage: None }
    }

    /// Writes one event.
    pub fn write(&mut self, event: &Event, out: &mut Vec<u8>) {
        match event {
            // These are the caller's own.
            Event::Field { name, .. } if matches!(name.as_str(), "id" | "object" | "created" | "model") => {}
            Event::Field { name, value } if name == "usage" => self.usage = Some(value.clone()),
            Event::Field { name, value } => {
                self.head.insert(name.clone(), value.clone());
            }
            Event::Delta { choice, delta } => match delta {
                Delta::Unread(_) => {}
                Delta::LogProbs(logprobs) => self.choice(*choice, json!({}), Some(logprobs), None, out),
                delta => self.choice(*choice, written(delta), None, None, out),
            },
            Event::Finish { choice, reason } => {
                let reason: &'static str = reason.into();
                self.choice(*choice, json!({}), None, Some(reason), out);
            }
            Event::Usage(usage) => {
                if self.include_usage {
                    let usage = self.usage.take().unwrap_or_else(|| counts(*usage));
                    self.chunk(json!([]), usage, out);
                }
            }
            Event::Remark(_) => {}
        }
    }

    /// The answer is whole.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    /// The answer died: the caller is told, and nothing follows.
    pub fn fail(&mut self, fault: &Classified, out: &mut Vec<u8>) {
        let kind = match fault.fault {
            Fault::Throttled => "rate_limit_error",
            Fault::TooLong | Fault::Refused => "invalid_request_error",
            _ => "server_error",
        };
        let error = json!({ "error": {
            "message": fault.message, "type": kind, "param": fault.param, "code": fault.code,
        } });
        event(&error, out);
    }

    fn choice(
        &mut self,
        number: u32,
        delta: Value,
        logprobs: Option<&Value>,
        finish_reason: Option<&str>,
        out: &mut Vec<u8>,
    ) {
        if !self.begun.contains(&number) {
            self.begun.push(number);
            let first = json!({ "role": "assistant", "content": "" });
            self.chunk(json!([{ "index": number, "delta": first, "finish_reason": null }]), Value::Null, out);
        }
        let choice = match logprobs {
            None => json!({ "index": number, "delta": delta, "finish_reason": finish_reason }),
            Some(logprobs) => {
                json!({ "index": number, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason })
            }
        };
        self.chunk(json!([choice]), Value::Null, out);
    }

    fn chunk(&mut self, choices: Value, usage: Value, out: &mut Vec<u8>) {
        let mut chunk = self.head.clone();
        chunk.insert("choices".to_owned(), choices);
        if self.include_usage {
            chunk.insert("usage".to_owned(), usage);
        }
        event(&Value::Object(chunk), out);
    }
}

fn event(value: &Value, out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: ");
    // JSON text has no line ends of its own, so it is one line of data.
    out.extend_from_slice(value.to_string().as_bytes());
    out.extend_from_slice(b"\n\n");
}

fn written(delta: &Delta) -> Value {
    match delta {
        Delta::Text(text) => json!({ "content": text }),
        Delta::Reasoning(text) => json!({ "reasoning_content": text }),
        Delta::Refusal(text) => json!({ "refusal": text }),
        Delta::ToolCall { index, id, name } => json!({ "tool_calls": [
            { "index": index, "id": id, "type": "function", "function": { "name": name, "arguments": "" } }
        ] }),
        Delta::ToolArguments { index, text } => {
            json!({ "tool_calls": [{ "index": index, "function": { "arguments": text } }] })
        }
        Delta::Extra { field, value } => {
            let mut fields = Map::new();
            fields.insert(field.clone(), value.clone());
            Value::Object(fields)
        }
        Delta::LogProbs(_) | Delta::Unread(_) => json!({}),
    }
}
