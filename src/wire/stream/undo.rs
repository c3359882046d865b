//! A [`Reading`] applied to a stream: what was emulated on the way out is undone on the way back.
//!
//! Invariant: what comes out does not depend on how the answer was cut into pieces; a whole answer passes through here
//! as a stream of few pieces. Tool calls come out numbered from 0, each with an id of its own.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::{
    Delta, Event, FinishReason,
    json::{self, Found},
    stops::Stops,
    tags::{Piece, Tags},
};
use crate::wire::Reading;

/// Applies a reading to the events of one answer.
#[derive(Debug, Clone)]
pub(in crate::wire) struct Undo {
    reading: Reading,
    /// What made-up ids are made from: the answer's own id.
    seed: String,
    ids: BTreeSet<String>,
    choices: BTreeMap<u32, Choice>,
}

#[derive(Debug, Clone)]
struct Choice {
    tags: Tags,
    stops: Stops,
    /// Text that waits for the end, where the answer must be JSON.
    held: String,
    /// A stop sequence was met: nothing after it counts.
    stopped: bool,
    /// The calls that came in, by their place there, and where they go.
    calls: BTreeMap<u32, Call>,
    /// Calls that went on.
    forwarded: u32,
    /// The answer came as the input of the tool that stands for a schema.
    answered: bool,
}

#[derive(Debug, Clone, Copy)]
enum Call {
    /// Goes on, at this place.
    Forwarded(u32),
    /// Its input is the answer's text.
    Answer,
    /// A second answer: left out.
    LeftOut,
}

impl Undo {
    /// `seed` is the answer's id, where it is known beforehand.
    pub(in crate::wire) fn new(reading: &Reading, seed: &str) -> Self {
        Self { reading: reading.clone(), seed: seed.to_owned(), ids: BTreeSet::new(), choices: BTreeMap::new() }
    }

    /// Takes one event; what it becomes goes to `out`.
    pub(in crate::wire) fn push(&mut self, event: Event, out: &mut Vec<Event>) {
        match event {
            Event::Field { name, value } => {
                if let (true, "id", Some(id)) = (self.seed.is_empty(), name.as_str(), value.as_str()) {
                    id.clone_into(&mut self.seed);
                }
                out.push(Event::Field { name, value });
            }
            Event::Delta { choice, delta } => {
                let (reading, seed, ids) = (&self.reading, &self.seed, &mut self.ids);
                let state = self.choices.entry(choice).or_insert_with(|| Choice::new(reading));
                if !state.stopped {
                    let mut say = |delta| out.push(Event::Delta { choice, delta });
                    state.delta(
                        reading,
                        delta,
                        &mut |place, id| unique(ids, reading, seed, choice, place, id),
                        &mut say,
                    );
                }
            }
            Event::Finish { choice, reason } => {
                let reading = &self.reading;
                let mut state = self.choices.remove(&choice).unwrap_or_else(|| Choice::new(reading));
                state.finish(reading, choice, reason, out);
            }
            event @ (Event::Usage(_) | Event::Remark(_)) => out.push(event),
        }
    }
}

impl Choice {
    fn new(reading: &Reading) -> Self {
        Self {
            tags: Tags::new(reading.inline_reasoning),
            stops: Stops::new(&reading.local_stop),
            held: String::new(),
            stopped: false,
            calls: BTreeMap::new(),
            forwarded: 0,
            answered: false,
        }
    }

    fn delta(
        &mut self,
        reading: &Reading,
        delta: Delta,
        name_id: &mut dyn FnMut(u32, String) -> String,
        say: &mut dyn FnMut(Delta),
    ) {
        match delta {
            Delta::Text(text) => {
                for piece in self.tags.push(text) {
                    self.piece(reading, piece, say);
                }
            }
            Delta::ToolCall { index, id, name } => {
                self.end_text(reading, say);
                if self.stopped {
                    return;
                }
                let call = if reading.json_tool.as_deref() != Some(name.as_str()) {
                    let place = self.forwarded;
                    self.forwarded += 1;
                    let id = name_id(place, id);
                    let name = reading.tool_names.get(&name).cloned().unwrap_or(name);
                    say(Delta::ToolCall { index: place, id, name });
                    Call::Forwarded(place)
                } else if self.answered {
                    Call::LeftOut
                } else {
                    self.answered = true;
                    Call::Answer
                };
                self.calls.insert(index, call);
            }
            Delta::ToolArguments { index, text } => match self.calls.get(&index) {
                Some(Call::Forwarded(place)) => say(Delta::ToolArguments { index: *place, text }),
                Some(Call::Answer) => say(Delta::Text(text)),
                Some(Call::LeftOut) | None => {}
            },
            delta => say(delta),
        }
    }

    fn piece(&mut self, reading: &Reading, piece: Piece, say: &mut dyn FnMut(Delta)) {
        match piece {
            Piece::Reasoning(text) => say(Delta::Reasoning(text)),
            Piece::Text(_) if self.stopped => {}
            Piece::Text(text) => {
                let (safe, met) = self.stops.push(text);
                self.stopped = met;
                self.text(reading, safe, say);
            }
        }
    }

    fn text(&mut self, reading: &Reading, text: String, say: &mut dyn FnMut(Delta)) {
        if text.is_empty() {
            return;
        }
        if reading.json_text || reading.json_tool.is_some() {
            self.held.push_str(&text);
        } else {
            say(Delta::Text(text));
        }
    }

    /// The text is over, or a tool call interrupts it: what was held back for a tag or a stop sequence was none.
    fn end_text(&mut self, reading: &Reading, say: &mut dyn FnMut(Delta)) {
        if let Some(piece) = self.tags.end() {
            self.piece(reading, piece, say);
        }
        let rest = self.stops.end();
        self.text(reading, rest, say);
    }

    fn finish(&mut self, reading: &Reading, choice: u32, reason: FinishReason, out: &mut Vec<Event>) {
        self.end_text(reading, &mut |delta| out.push(Event::Delta { choice, delta }));
        let held = std::mem::take(&mut self.held);
        let words = held.trim().chars().count();
        if self.answered {
            if words > 0 {
                out.push(Event::Remark(format!("{words} characters of text beside the JSON answer are left out")));
            }
            if self.calls.values().any(|call| matches!(call, Call::LeftOut)) {
                out.push(Event::Remark("the model gave its JSON answer more than once: the first is kept".to_owned()));
            }
        } else if words > 0 {
            let (kept, remark) = if self.forwarded > 0 { (held.as_str(), None) } else { one_value(&held) };
            out.push(Event::Delta { choice, delta: Delta::Text(kept.to_owned()) });
            out.extend(remark.map(Event::Remark));
        }
        let reason = match reason {
            _ if self.stopped => FinishReason::Stop,
            FinishReason::ToolCalls if self.answered && self.forwarded == 0 => FinishReason::Stop,
            reason => reason,
        };
        out.push(Event::Finish { choice, reason });
    }
}

/// What is kept of a text that should be one JSON value, and what to say of it.
fn one_value(text: &str) -> (&str, Option<String>) {
    match json::find(text) {
        Found::Alone(value) => (value, None),
        Found::Among(value) => {
            let around = text.trim().chars().count().saturating_sub(value.chars().count());
            (value, Some(format!("{around} characters of text around the JSON answer are taken off")))
        }
        Found::None => {
            (text, Some("the answer should be one JSON value and holds none: it is kept as it came".to_owned()))
        }
        Found::Several => {
            (text, Some("the answer should be one JSON value and holds several: it is kept as it came".to_owned()))
        }
    }
}

/// An id that no other call of this answer has; where the provider's are mere places, one of our own.
fn unique(ids: &mut BTreeSet<String>, reading: &Reading, seed: &str, choice: u32, place: u32, id: String) -> String {
    if !reading.mint_call_ids && !id.is_empty() && !ids.contains(&id) {
        ids.insert(id.clone());
        return id;
    }
    let digest = Sha256::digest(format!("{seed}\u{1f}{choice}\u{1f}{place}\u{1f}{id}"));
    let digits = digest.iter().take(12).fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
    let minted = format!("call_{digits:024x}");
    ids.insert(minted.clone());
    minted
}
