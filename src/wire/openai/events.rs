//! OpenAI's stream of chunks, as bytes cut anywhere, to the events of [`crate::wire::stream`].
//!
//! Invariant: the same bytes give the same events however they are cut. A choice ends once, after all of its deltas;
//! usage comes last. What holds no chunk is passed over; an error in the stream is a fault, and so is a stream that stops
//! before its answer does.

use std::collections::BTreeMap;

use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::usage::Counts;
use crate::{
    job::Fault,
    usage::Usage,
    wire::{
        Reading,
        faults::{Classified, excerpt, openai},
        stream::{
            Delta, Event, FinishReason, MAX_CALLS, MAX_CHOICES, MAX_STREAM, Undo, ended_early,
            sse::{self, MAX_EVENT},
            too_long,
        },
    },
};

/// Reads a stream, with the request's [`Reading`] applied.
#[derive(Debug, Clone)]
pub struct Stream {
    bytes: sse::Events,
    undo: Option<Undo>,
    fields: Map<String, Value>,
    choices: BTreeMap<u32, Choice>,
    usage: Option<Usage>,
    size: usize,
    done: bool,
}

#[derive(Debug, Clone, Default)]
struct Choice {
    calls: Vec<Call>,
    finish: Option<String>,
}

/// A tool call that has begun; it goes on once its name is known.
#[derive(Debug, Clone, Default)]
struct Call {
    /// The provider's place for it.
    place: u64,
    id: String,
    name: String,
    /// Arguments that came before the name.
    early: String,
    said: bool,
}

impl Stream {
    /// A stream that has not begun.
    pub fn new(reading: &Reading) -> Self {
        Self {
            bytes: sse::Events::default(),
            undo: (!reading.is_empty()).then(|| Undo::new(reading, "")),
            fields: Map::new(),
            choices: BTreeMap::new(),
            usage: None,
            size: 0,
            done: false,
        }
    }

    /// Takes more bytes; what they mean goes to `out`.
    ///
    /// # Errors
    /// [`Classified`] at an error in the stream, at what is no such stream, or beyond what is read of one.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<Event>) -> Result<(), Classified> {
        self.size = self.size.saturating_add(bytes.len());
        if self.size > MAX_STREAM {
            return Err(too_long(&format!("{MAX_STREAM} bytes")));
        }
        let mut messages = Vec::new();
        let read = self.bytes.push(bytes, &mut messages);
        for message in messages {
            self.message(&message, out)?;
        }
        read.map_err(|sse::Overlong| too_long(&format!("{MAX_EVENT} bytes in one event")))
    }

    /// The bytes are over.
    ///
    /// # Errors
    /// [`Classified`] when the answer is not.
    pub fn finish(mut self, out: &mut Vec<Event>) -> Result<(), Classified> {
        let mut messages = Vec::new();
        std::mem::take(&mut self.bytes).finish(&mut messages);
        for message in messages {
            self.message(&message, out)?;
        }
        if self.done {
            return Ok(());
        }
        // Some servers leave out the mark at the end.
        if self.choices.is_empty() || self.choices.values().any(|choice| choice.finish.is_none()) {
            return Err(ended_early("there is no end of the answer and no [DONE]"));
        }
        self.close(out)
    }

    /// Whether the stream has said that it is over: nothing more need be read.
    pub fn is_done(&self) -> bool {
        self.done
    }

    fn message(&mut self, message: &sse::Message, out: &mut Vec<Event>) -> Result<(), Classified> {
        if self.done {
            return Ok(());
        }
        if message.data.trim_ascii() == b"[DONE]" {
            return self.close(out);
        }
        let chunk: Value = serde_json::from_slice(&message.data).map_err(|error| {
            let beginning = excerpt(&String::from_utf8_lossy(message.data.get(..400).unwrap_or(&message.data)), 80);
            unreadable(&format!("{error}; the event begins {beginning:?}"))
        })?;
        let Value::Object(mut chunk) = chunk else { return Ok(()) };
        if message.event == "error" || chunk.get("error").is_some_and(|error| !error.is_null()) || is_error(&chunk) {
            return Err(openai::in_stream(&message.data));
        }
        let usage = chunk.remove("usage").filter(|usage| !usage.is_null());
        let Some(Value::Array(choices)) = chunk.remove("choices").or(usage.is_some().then(|| Value::Array(vec![])))
        else {
            return Ok(());
        };
        for (name, value) in chunk {
            // The object is a chunk's, and padding says nothing.
            let says = !value.is_null() && name != "object" && name != "obfuscation";
            if says && self.fields.get(&name) != Some(&value) {
                self.fields.insert(name.clone(), value.clone());
                self.say(Event::Field { name, value }, out);
            }
        }
        for choice in choices {
            self.choice(choice, out)?;
        }
        if let Some(usage) = usage {
            self.usage = Counts::deserialize(&usage).ok().and_then(Counts::usage).or(self.usage);
            self.fields.insert("usage".to_owned(), usage);
        }
        Ok(())
    }

    fn choice(&mut self, choice: Value, out: &mut Vec<Event>) -> Result<(), Classified> {
        let Value::Object(mut choice) = choice else { return Ok(()) };
        let number = choice.get("index").and_then(Value::as_u64).unwrap_or(0);
        let number = u32::try_from(number).ok().filter(|number| (*number as usize) < MAX_CHOICES);
        let number = number.ok_or_else(|| too_long(&format!("{MAX_CHOICES} choices")))?;
        let state = self.choices.entry(number).or_default();
        if let Some(reason) = choice.get("finish_reason").and_then(Value::as_str) {
            state.finish = Some(reason.to_owned());
        }
        let mut said = Vec::new();
        // Some servers send the whole message in one piece.
        if let Some(Value::Object(delta)) = choice.remove("delta").or_else(|| choice.remove("message")) {
            state.delta(delta, &mut said)?;
        }
        said.extend(choice.remove("logprobs").filter(|logprobs| !logprobs.is_null()).map(Delta::LogProbs));
        for delta in said {
            self.say(Event::Delta { choice: number, delta }, out);
        }
        Ok(())
    }

    /// The answer is whole: its ends, then its usage.
    fn close(&mut self, out: &mut Vec<Event>) -> Result<(), Classified> {
        self.done = true;
        if self.choices.is_empty() {
            return Err(unreadable("it has no choices"));
        }
        for (number, mut choice) in std::mem::take(&mut self.choices) {
            let mut said = Vec::new();
            for (place, call) in (0..).zip(&mut choice.calls) {
                call.say(place, &mut said);
            }
            for delta in said {
                self.say(Event::Delta { choice: number, delta }, out);
            }
            let reason = match choice.finish.as_deref().map(str::parse::<FinishReason>) {
                Some(Ok(reason)) => reason,
                Some(Err(_)) => {
                    let word = excerpt(choice.finish.as_deref().unwrap_or_default(), 40);
                    let remark =
                        format!("the answer ended by {word:?}, which this release does not know: taken for stop");
                    out.push(Event::Remark(remark));
                    FinishReason::Stop
                }
                None => {
                    out.push(Event::Remark("the answer ended without a finish reason: taken for stop".to_owned()));
                    FinishReason::Stop
                }
            };
            self.say(Event::Finish { choice: number, reason }, out);
        }
        if let Some(usage) = self.fields.remove("usage") {
            // As the provider wrote it, with what we do not count.
            self.say(Event::Field { name: "usage".to_owned(), value: usage }, out);
        }
        out.extend(self.usage.map(Event::Usage));
        Ok(())
    }

    fn say(&mut self, event: Event, out: &mut Vec<Event>) {
        match &mut self.undo {
            None => out.push(event),
            Some(undo) => undo.push(event, out),
        }
    }
}

impl Choice {
    fn delta(&mut self, delta: Map<String, Value>, said: &mut Vec<Delta>) -> Result<(), Classified> {
        let thought = delta.contains_key("reasoning_content");
        for (name, value) in delta {
            match (name.as_str(), value) {
                ("role", _) | (_, Value::Null) => {}
                ("content", Value::String(text)) => say_text(text, Delta::Text, said),
                ("content", Value::Array(parts)) => {
                    for part in &parts {
                        match part.get("text").and_then(Value::as_str) {
                            Some(text) => say_text(text.to_owned(), Delta::Text, said),
                            None => said.push(Delta::Unread("a part of the content".to_owned())),
                        }
                    }
                }
                ("refusal", Value::String(text)) => say_text(text, Delta::Refusal, said),
                ("reasoning_content", Value::String(text)) => say_text(text, Delta::Reasoning, said),
                ("reasoning", Value::String(text)) => {
                    // Where both names come, they say the same.
                    if !thought {
                        say_text(text, Delta::Reasoning, said);
                    }
                }
                ("tool_calls", Value::Array(calls)) => {
                    for call in &calls {
                        self.call(call, said)?;
                    }
                }
                (_, value) => said.push(Delta::Extra { field: name, value }),
            }
        }
        Ok(())
    }

    fn call(&mut self, piece: &Value, said: &mut Vec<Delta>) -> Result<(), Classified> {
        let text = |path: &str| piece.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let (id, name, arguments) = (text("/id"), text("/function/name"), text("/function/arguments"));
        let last = self.calls.last().map_or(0, |call| call.place);
        let place = piece.get("index").and_then(Value::as_u64);
        let known = self.calls.iter().rposition(|call| call.place == place.unwrap_or(last)).filter(|known| {
            // Some servers give every call the same place: another id with a name is another call.
            let call = self.calls.get(*known);
            name.is_empty() || id.is_empty() || call.is_none_or(|call| call.id.is_empty() || call.id == id)
        });
        let known = known.unwrap_or(self.calls.len());
        if known >= MAX_CALLS {
            return Err(too_long(&format!("{MAX_CALLS} tool calls")));
        }
        if known == self.calls.len() {
            let place = place.unwrap_or_else(|| if self.calls.is_empty() { 0 } else { last.saturating_add(1) });
            self.calls.push(Call { place, ..Call::default() });
        }
        let index = u32::try_from(known).unwrap_or(u32::MAX);
        let Some(call) = self.calls.get_mut(known) else { return Ok(()) };
        if !call.said {
            if call.id.is_empty() {
                id.clone_into(&mut call.id);
            }
            call.name.push_str(name);
            call.early.push_str(arguments);
            // Arguments follow a whole name; a name without any may have more of it to come.
            if !call.name.is_empty() && (!call.early.is_empty() || !call.id.is_empty()) {
                call.say(index, said);
            }
        } else if !arguments.is_empty() {
            said.push(Delta::ToolArguments { index, text: arguments.to_owned() });
        }
        Ok(())
    }
}

impl Call {
    fn say(&mut self, index: u32, said: &mut Vec<Delta>) {
        if !std::mem::replace(&mut self.said, true) {
            said.push(Delta::ToolCall { index, id: self.id.clone(), name: std::mem::take(&mut self.name) });
            if !self.early.is_empty() {
                said.push(Delta::ToolArguments { index, text: std::mem::take(&mut self.early) });
            }
        }
    }
}

fn say_text(text: String, make: fn(String) -> Delta, said: &mut Vec<Delta>) {
    if !text.is_empty() {
        said.push(make(text));
    }
}

/// An error that is written without the word, as gateways and other providers do.
fn is_error(chunk: &Map<String, Value>) -> bool {
    !chunk.contains_key("choices")
        && chunk.get("message").is_some_and(Value::is_string)
        && (chunk.contains_key("code")
            || chunk.get("type").and_then(Value::as_str).is_some_and(|kind| kind.contains("rror")))
}

fn unreadable(why: &str) -> Classified {
    let message =
        format!("the provider answered 200 with something else than a stream of chat completion chunks: {why}");
    Classified::billed(Fault::Transient, message).with_code("invalid_response").with_status(200)
}
