//! The chunks of InvokeModelWithResponseStream, each a JSON text of its own, to the events of [`crate::wire::stream`].
//!
//! Invariant: a chunk becomes events of Converse first, so both APIs read alike. Counts are the last ones said; those of
//! the service itself fill in where the model says none.

use serde_json::Value;

use super::{claude_answer, llama};
use crate::{
    job::Fault,
    wire::{
        Form, Reading,
        converse::{self, BlockDelta, BlockStart, StreamEvent, TokenUsage},
        faults::{Classified, bedrock, excerpt},
        stream::Event,
    },
};

/// What the service itself adds to the last chunk.
const METRICS: &str = "amazon-bedrock-invocationMetrics";

/// Reads a stream of chunks, with the request's [`Reading`] applied.
#[derive(Debug, Clone)]
pub struct Stream {
    form: Form,
    inner: converse::Stream,
    usage: TokenUsage,
    /// What the service counted.
    measured: Option<TokenUsage>,
    counted: bool,
    tier: Option<String>,
    stop_reason: Option<String>,
    details: Option<Value>,
    ended: bool,
}

impl Stream {
    /// A stream whose answer will have this id.
    pub fn new(form: Form, reading: &Reading, id: &str) -> Self {
        Self {
            form,
            inner: converse::Stream::new(reading, id),
            usage: TokenUsage::default(),
            measured: None,
            counted: false,
            tier: None,
            stop_reason: None,
            details: None,
            ended: false,
        }
    }

    /// Takes one chunk's bytes; what they mean goes to `out`.
    ///
    /// # Errors
    /// [`Classified`] at an error in the stream, or what is no chunk.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<Event>) -> Result<(), Classified> {
        let value: Value = serde_json::from_slice(chunk).map_err(|error| {
            let beginning = excerpt(&String::from_utf8_lossy(chunk.get(..400).unwrap_or(chunk)), 80);
            let message = format!("a chunk of the stream is no JSON: {error}; it begins {beginning:?}");
            Classified::billed(Fault::Transient, message).with_code("invalid_response").with_status(200)
        })?;
        if let Some(metrics) = value.get(METRICS) {
            let count = |name: &str| metrics.get(name).and_then(Value::as_u64);
            self.measured = count("inputTokenCount").zip(count("outputTokenCount")).map(|(input, output)| TokenUsage {
                input,
                output,
                cache_read: count("cacheReadInputTokenCount").unwrap_or(0),
                cache_write: count("cacheWriteInputTokenCount").unwrap_or(0),
            });
        }
        match self.form {
            Form::Claude => self.claude(&value, chunk, out),
            Form::Llama => self.llama(&value, chunk, out),
        }
    }

    /// The stream is over.
    ///
    /// # Errors
    /// [`Classified`] when the answer is not.
    pub fn finish(mut self, out: &mut Vec<Event>) -> Result<(), Classified> {
        if self.stop_reason.is_some() {
            self.end(out)?;
        }
        if self.ended {
            let usage = if self.counted { Some(self.usage) } else { self.measured };
            let service_tier = self.tier.take();
            self.inner.push(StreamEvent::Metadata { usage, service_tier, guardrail: None }, out)?;
        }
        self.inner.finish()
    }

    fn end(&mut self, out: &mut Vec<Event>) -> Result<(), Classified> {
        let stop_reason = self.stop_reason.take().unwrap_or_else(|| "end_turn".to_owned());
        self.ended = true;
        self.inner.push(StreamEvent::MessageStop { stop_reason, additional_fields: self.details.take() }, out)
    }

    fn llama(&mut self, chunk: &Value, bytes: &[u8], out: &mut Vec<Event>) -> Result<(), Classified> {
        if !llama::is_chunk(chunk) && (chunk.get("message").is_some() || chunk.get("error").is_some()) {
            return Err(bedrock::in_chunk(bytes));
        }
        if let Some(text) = chunk.get("generation").and_then(Value::as_str).filter(|text| !text.is_empty()) {
            let delta = BlockDelta::Text(text.to_owned());
            self.inner.push(StreamEvent::BlockDelta { index: 0, delta }, out)?;
        }
        // The prompt's count stands in the first chunk alone.
        if let Some(input) = chunk.get("prompt_token_count").and_then(Value::as_u64) {
            self.usage.input = input;
            self.counted = true;
        }
        if let Some(output) = chunk.get("generation_token_count").and_then(Value::as_u64) {
            self.usage.output = output;
        }
        if let Some(word) = chunk.get("stop_reason").and_then(Value::as_str) {
            self.stop_reason = Some(llama::stop_reason(word).to_owned());
        }
        Ok(())
    }

    fn claude(&mut self, chunk: &Value, bytes: &[u8], out: &mut Vec<Event>) -> Result<(), Classified> {
        let index = chunk.get("index").and_then(Value::as_u64).and_then(|index| u32::try_from(index).ok()).unwrap_or(0);
        match chunk.get("type").and_then(Value::as_str).unwrap_or_default() {
            "message_start" => {
                self.counts(chunk.pointer("/message/usage"));
                self.inner.push(StreamEvent::MessageStart, out)
            }
            "content_block_start" => self.claude_start(index, chunk.get("content_block"), out),
            "content_block_delta" => match chunk.get("delta").and_then(claude_delta) {
                Some(delta) => self.inner.push(StreamEvent::BlockDelta { index, delta }, out),
                None => Ok(()),
            },
            "content_block_stop" => self.inner.push(StreamEvent::BlockStop { index }, out),
            "message_delta" => {
                self.counts(chunk.get("usage"));
                if let Some(word) = chunk.pointer("/delta/stop_reason").and_then(Value::as_str) {
                    self.stop_reason = Some(word.to_owned());
                }
                Ok(())
            }
            "message_stop" => self.end(out),
            "error" => Err(bedrock::in_chunk(bytes)),
            // `ping`, and whatever is newer than this release.
            _ => Ok(()),
        }
    }

    fn claude_start(&mut self, index: u32, block: Option<&Value>, out: &mut Vec<Event>) -> Result<(), Classified> {
        let Some(block) = block else { return Ok(()) };
        let text = |name: &str| block.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let event = match text("type").as_str() {
            "text" => StreamEvent::BlockDelta { index, delta: BlockDelta::Text(text("text")) },
            "thinking" => StreamEvent::BlockDelta { index, delta: BlockDelta::Reasoning(text("thinking")) },
            "redacted_thinking" => StreamEvent::BlockDelta { index, delta: BlockDelta::Redacted(text("data")) },
            "tool_use" => {
                let start = BlockStart::ToolUse { id: text("id"), name: text("name") };
                StreamEvent::BlockStart { index, start }
            }
            _ => StreamEvent::BlockStart { index, start: BlockStart::Unread(claude_answer::unread(block)) },
        };
        self.inner.push(event, out)
    }

    /// Counts grow from event to event; the last one of each counts.
    fn counts(&mut self, usage: Option<&Value>) {
        let Some(usage) = usage else { return };
        let mut keep = |name: &str, place: &mut u64| {
            if let Some(count) = usage.get(name).and_then(Value::as_u64) {
                *place = count;
                self.counted = true;
            }
        };
        keep("input_tokens", &mut self.usage.input);
        keep("output_tokens", &mut self.usage.output);
        keep("cache_read_input_tokens", &mut self.usage.cache_read);
        keep("cache_creation_input_tokens", &mut self.usage.cache_write);
        self.details = claude_answer::details(Some(usage)).or(self.details.take());
        if let Some(tier) = usage.get("service_tier").and_then(Value::as_str) {
            self.tier = Some(tier.to_owned());
        }
    }
}

fn claude_delta(delta: &Value) -> Option<BlockDelta> {
    let text = |name: &str| delta.get(name).and_then(Value::as_str).map(str::to_owned);
    match delta.get("type").and_then(Value::as_str).unwrap_or_default() {
        "text_delta" => text("text").map(BlockDelta::Text),
        "input_json_delta" => text("partial_json").map(BlockDelta::ToolInput),
        "thinking_delta" => text("thinking").map(BlockDelta::Reasoning),
        "signature_delta" => text("signature").map(BlockDelta::Signature),
        "citations_delta" => {
            delta.get("citation").map(|citation| BlockDelta::Citation(claude_answer::citation(citation)))
        }
        _ => None,
    }
}
