//! ConverseStream's events, and a whole answer as if it were a stream, to the events of [`crate::wire::stream`].
//!
//! Invariant: a whole answer goes the same way as a streamed one, so both say the same. The end of a message is an end
//! that OpenAI has a word for, or a fault; an unknown one is an end like another, with a remark.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::answer::{Answer, AnswerBlock, BlockDelta, BlockStart, Citation, StreamEvent, TokenUsage};
use crate::{
    job::Fault,
    usage::Usage,
    wire::{
        Reading,
        faults::Classified,
        stream::{Delta, Event, FinishReason, MAX_CALLS, MAX_STREAM, Undo, ended_early, too_long},
    },
};

/// Reads a stream of Converse, with the request's [`Reading`] applied.
#[derive(Debug, Clone)]
pub struct Stream {
    undo: Undo,
    open: BTreeMap<u32, Open>,
    calls: u32,
    /// Characters of text so far: where citations stand.
    written: u64,
    ended: bool,
    reasoning_tokens: u64,
    size: usize,
}

/// A block that has begun.
#[derive(Debug, Clone, Default)]
struct Open {
    call: Option<Call>,
    thought: String,
    signature: String,
    citations: Vec<Citation>,
    /// Where its text began.
    start: u64,
    unread: bool,
}

#[derive(Debug, Clone, Copy)]
struct Call {
    index: u32,
    has_arguments: bool,
}

impl Stream {
    /// A stream whose answer will have this id.
    pub fn new(reading: &Reading, id: &str) -> Self {
        Self {
            undo: Undo::new(reading, id),
            open: BTreeMap::new(),
            calls: 0,
            written: 0,
            ended: false,
            reasoning_tokens: 0,
            size: 0,
        }
    }

    /// Takes one event; what it means goes to `out`.
    ///
    /// # Errors
    /// [`Classified`] when the model's output is malformed by the service's own word, or longer than anyone reads.
    pub fn push(&mut self, event: StreamEvent, out: &mut Vec<Event>) -> Result<(), Classified> {
        match event {
            StreamEvent::MessageStart | StreamEvent::Unknown => {}
            StreamEvent::BlockStart { index, start } => match start {
                BlockStart::ToolUse { id, name } => self.begin_call(index, id, name, out)?,
                BlockStart::Unread(kind) => self.unread(index, kind, out)?,
            },
            StreamEvent::BlockDelta { index, delta } => self.delta(index, delta, out)?,
            StreamEvent::BlockStop { index } => {
                if let Some(open) = self.open.remove(&index) {
                    self.close(open, out);
                }
            }
            StreamEvent::MessageStop { stop_reason, additional_fields } => {
                for (_, open) in std::mem::take(&mut self.open) {
                    self.close(open, out);
                }
                if !std::mem::replace(&mut self.ended, true) {
                    self.reasoning_tokens = additional_fields.as_ref().map_or(0, reasoning_tokens);
                    let (reason, remark) = finish_reason(&stop_reason)?;
                    out.extend(remark.map(Event::Remark));
                    self.undo.push(Event::Finish { choice: 0, reason }, out);
                }
            }
            StreamEvent::Metadata { usage, service_tier, guardrail } => {
                out.extend(service_tier.map(|tier| Event::field("service_tier", tier)));
                out.extend(guardrail.map(|why| Event::Remark(format!("the guardrail acted: {why}"))));
                out.extend(usage.map(|counts| Event::Usage(self.usage(counts))));
            }
        }
        Ok(())
    }

    /// The stream is over.
    ///
    /// # Errors
    /// [`Classified`] when the answer has no end.
    pub fn finish(self) -> Result<(), Classified> {
        if self.ended { Ok(()) } else { Err(ended_early("the message has no end")) }
    }

    /// Takes a whole answer as a stream of few pieces.
    ///
    /// # Errors
    /// As [`Stream::push`].
    pub fn whole(mut self, answer: Answer, out: &mut Vec<Event>) -> Result<(), Classified> {
        for (index, block) in (0..).zip(answer.content) {
            let mut delta = |delta| self.push(StreamEvent::BlockDelta { index, delta }, out);
            match block {
                AnswerBlock::Text(text) => delta(BlockDelta::Text(text))?,
                AnswerBlock::Cited { text, citations } => {
                    delta(BlockDelta::Text(text))?;
                    for citation in citations {
                        delta(BlockDelta::Citation(citation))?;
                    }
                }
                AnswerBlock::Reasoning { text, signature } => {
                    delta(BlockDelta::Reasoning(text))?;
                    if let Some(signature) = signature {
                        delta(BlockDelta::Signature(signature))?;
                    }
                }
                AnswerBlock::Redacted(data) => delta(BlockDelta::Redacted(data))?,
                AnswerBlock::ToolUse { id, name, input } => {
                    self.push(StreamEvent::BlockStart { index, start: BlockStart::ToolUse { id, name } }, out)?;
                    if !input.is_null() {
                        let delta = BlockDelta::ToolInput(input.to_string());
                        self.push(StreamEvent::BlockDelta { index, delta }, out)?;
                    }
                }
                AnswerBlock::Unread(kind) => {
                    self.push(StreamEvent::BlockStart { index, start: BlockStart::Unread(kind) }, out)?;
                }
            }
            self.push(StreamEvent::BlockStop { index }, out)?;
        }
        let Answer { stop_reason, usage, additional_fields, service_tier, guardrail, .. } = answer;
        self.push(StreamEvent::MessageStop { stop_reason, additional_fields }, out)?;
        self.push(StreamEvent::Metadata { usage, service_tier, guardrail }, out)
    }

    fn begin_call(&mut self, index: u32, id: String, name: String, out: &mut Vec<Event>) -> Result<(), Classified> {
        let call = Call { index: self.calls, has_arguments: false };
        self.calls = self.calls.saturating_add(1);
        self.block(index)?.call = Some(call);
        self.grow(id.len() + name.len())?;
        self.undo.push(Event::first(Delta::ToolCall { index: call.index, id, name }), out);
        Ok(())
    }

    fn delta(&mut self, index: u32, delta: BlockDelta, out: &mut Vec<Event>) -> Result<(), Classified> {
        let block = self.block(index)?;
        match delta {
            BlockDelta::Text(text) => {
                self.grow(text.len())?;
                self.written = self.written.saturating_add(text.chars().count() as u64);
                self.undo.push(Event::first(Delta::Text(text)), out);
            }
            BlockDelta::ToolInput(text) => {
                let Some(call) = &mut block.call else {
                    return self.unread(index, "arguments of no tool", out);
                };
                call.has_arguments |= !text.is_empty();
                let index = call.index;
                self.grow(text.len())?;
                if !text.is_empty() {
                    self.undo.push(Event::first(Delta::ToolArguments { index, text }), out);
                }
            }
            BlockDelta::Reasoning(text) => {
                block.thought.push_str(&text);
                self.grow(text.len())?;
                if !text.is_empty() {
                    self.undo.push(Event::first(Delta::Reasoning(text)), out);
                }
            }
            BlockDelta::Signature(text) => {
                block.signature.push_str(&text);
                self.grow(text.len())?;
            }
            BlockDelta::Redacted(data) => {
                self.grow(data.len())?;
                let detail = json!([{ "type": "reasoning.encrypted", "data": data }]);
                self.undo.push(Event::first(Delta::Extra { field: DETAILS.to_owned(), value: detail }), out);
            }
            BlockDelta::Citation(citation) => {
                let size = citation.quote.len() + citation.location.as_ref().map_or(0, |place| place.to_string().len());
                block.citations.push(citation);
                self.grow(size)?;
            }
            BlockDelta::Unread(kind) => self.unread(index, kind, out)?,
        }
        Ok(())
    }

    fn block(&mut self, index: u32) -> Result<&mut Open, Classified> {
        if self.open.len() >= MAX_CALLS && !self.open.contains_key(&index) {
            return Err(too_long(&format!("{MAX_CALLS} blocks at once")));
        }
        let start = self.written;
        Ok(self.open.entry(index).or_insert_with(|| Open { start, ..Open::default() }))
    }

    /// Counts a block once, however many pieces it comes in.
    fn unread(&mut self, index: u32, kind: &str, out: &mut Vec<Event>) -> Result<(), Classified> {
        if !std::mem::replace(&mut self.block(index)?.unread, true) {
            out.push(Event::first(Delta::Unread(kind.to_owned())));
        }
        Ok(())
    }

    fn grow(&mut self, bytes: usize) -> Result<(), Classified> {
        /// What an event costs beside its text.
        const FRAME: usize = 16;
        self.size = self.size.saturating_add(bytes).saturating_add(FRAME);
        if self.size > MAX_STREAM { Err(too_long(&format!("{MAX_STREAM} bytes"))) } else { Ok(()) }
    }

    fn close(&mut self, open: Open, out: &mut Vec<Event>) {
        if let Some(Call { index, has_arguments: false }) = open.call {
            // A call without arguments is one with an empty object of them.
            self.undo.push(Event::first(Delta::ToolArguments { index, text: "{}".to_owned() }), out);
        }
        if !open.signature.is_empty() {
            let detail = json!([{ "type": "reasoning.text", "text": open.thought, "signature": open.signature }]);
            self.undo.push(Event::first(Delta::Extra { field: DETAILS.to_owned(), value: detail }), out);
        }
        if !open.citations.is_empty() {
            let span = (open.start, self.written);
            let notes: Value = open.citations.into_iter().map(|citation| annotation(citation, span)).collect();
            self.undo.push(Event::first(Delta::Extra { field: "annotations".to_owned(), value: notes }), out);
        }
    }

    fn usage(&self, counts: TokenUsage) -> Usage {
        Usage {
            input: counts.input,
            output: counts.output,
            cache_read: counts.cache_read,
            cache_write: counts.cache_write,
            reasoning: self.reasoning_tokens.min(counts.output),
        }
    }
}

/// Where thoughts stand with what the model needs to be shown them again.
const DETAILS: &str = "reasoning_details";

/// A source in OpenAI's form; where that has none (a page of a document), in one of the same shape.
fn annotation(citation: Citation, (start, end): (u64, u64)) -> Value {
    let url = citation.location.as_ref().and_then(|place| place.pointer("/web/url")).and_then(Value::as_str);
    match url {
        Some(url) => json!({
            "type": "url_citation",
            "url_citation": {
                "start_index": start, "end_index": end, "title": citation.title.as_deref().unwrap_or(url), "url": url
            },
        }),
        None => json!({
            "type": "document_citation",
            "document_citation": {
                "start_index": start, "end_index": end, "title": citation.title, "source": citation.source,
                "quote": citation.quote, "location": citation.location,
            },
        }),
    }
}

/// Tokens spent on thinking, from the model's own account of its usage.
fn reasoning_tokens(fields: &Value) -> u64 {
    let details = ["/usage/output_tokens_details", "/output_tokens_details"]
        .iter()
        .find_map(|path| fields.pointer(path).or_else(|| fields.get(path)));
    let count = details.and_then(|details| details.get("thinking_tokens").or_else(|| details.get("reasoning_tokens")));
    count.and_then(Value::as_u64).unwrap_or(0)
}

fn finish_reason(stop_reason: &str) -> Result<(FinishReason, Option<String>), Classified> {
    let reason = match stop_reason {
        "end_turn" | "stop_sequence" => FinishReason::Stop,
        "max_tokens" | "model_context_window_exceeded" => FinishReason::Length,
        "tool_use" => FinishReason::ToolCalls,
        "guardrail_intervened" | "content_filtered" | "refusal" => FinishReason::ContentFilter,
        "malformed_model_output" | "malformed_tool_use" => {
            let message = format!("Bedrock says that the model's output is malformed ({stop_reason})");
            return Err(Classified::billed(Fault::Transient, message).with_code(stop_reason));
        }
        // The answer came whole, so it is an end like another.
        _ => {
            let remark =
                format!("the answer ended by {stop_reason:?}, which this release does not know: taken for stop");
            return Ok((FinishReason::Stop, Some(remark)));
        }
    };
    let remark = (stop_reason == "guardrail_intervened").then(|| "a guardrail intervened".to_owned());
    Ok((reason, remark))
}
