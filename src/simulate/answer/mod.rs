//! What the simulated models say: plausible answers, made from the prompt alone.
//!
//! A prompt that lists labels gets one of them, one that asks for JSON gets JSON, one that asks for a summary gets a
//! first sentence. Invariant: deterministic; the same prompt gets the same answer from the same model. Models differ a
//! little, as real ones do, so that a comparison of two has something to compare.

mod extraction;
mod instructions;
mod text;

use serde_json::Value;

use super::prompt::{ForcedTool, Format, Prompt, tokens};

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    End,
    Sequence,
    Length,
    Tool,
    Filter,
}

/// A tool call.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ToolCall {
    pub name: String,
    pub input: Value,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    pub text: String,
    pub tool: Option<ToolCall>,
    pub stop: Stop,
    pub output_tokens: u64,
}

/// Answers a prompt.
pub(super) fn answer(prompt: &Prompt) -> Answer {
    let subject = extraction::Subject::of(prompt);
    if let Some(tool) = prompt.tool.as_ref().or_else(|| fitting_tool(prompt)) {
        let input = match extraction::by_schema(&tool.schema, &subject) {
            Value::Object(input) => Value::Object(input),
            _ => Value::Object(serde_json::Map::new()),
        };
        let output_tokens = tokens(input.to_string().len()).max(1);
        let call = ToolCall { name: tool.name.clone(), input };
        return Answer { text: String::new(), tool: Some(call), stop: Stop::Tool, output_tokens };
    }
    bounded(speak(prompt, &subject), prompt)
}

/// The tool that a model would call by itself: one that the question speaks of, unless it has answered already.
fn fitting_tool(prompt: &Prompt) -> Option<&ForcedTool> {
    if prompt.has_tool_answer {
        return None;
    }
    let question = prompt.question.to_ascii_lowercase();
    let spoken = |name: &str| {
        let words = name.split(|letter: char| !letter.is_alphanumeric()).filter(|word| word.len() >= SPOKEN);
        words.map(str::to_ascii_lowercase).any(|word| question.contains(&word))
    };
    prompt.tools.iter().find(|tool| spoken(&tool.name))
}

/// Shorter words of a tool's name (get, set, of) say nothing of what it is for.
const SPOKEN: usize = 4;

/// A text as a model would stream it: a few words at a time, never more pieces than [`MOST_PIECES`].
pub(super) fn text_pieces(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split_inclusive(' ').count();
    let step = words.div_ceil(MOST_PIECES).max(1);
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = rest.match_indices(' ').nth(step - 1).map_or(rest.len(), |(place, _)| place + 1);
        let (piece, after) = rest.split_at(end);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Pieces of one answer.
const MOST_PIECES: usize = 64;

/// The answer that a filter cuts off.
pub(super) fn filtered(prompt: &Prompt) -> Answer {
    let answer = answer(prompt);
    Answer { text: String::new(), tool: None, stop: Stop::Filter, output_tokens: answer.output_tokens.min(1) }
}

fn speak(prompt: &Prompt, subject: &extraction::Subject<'_>) -> String {
    // Without a system text, the question holds its own instructions.
    let told = if prompt.system.trim().is_empty() { &prompt.question } else { &prompt.system };
    let told = instructions::Instructions::of(told);
    match &prompt.format {
        Format::Schema(schema) => return extraction::by_schema(schema, subject).to_string(),
        Format::Json => return extraction::by_fields(&told, subject).to_string(),
        Format::Text => {}
    }
    if told.mention("json") {
        extraction::by_fields(&told, subject).to_string()
    } else if let Some(labels) = instructions::labels(&told) {
        subject.label(&labels).to_owned()
    } else if told.mention("summar") || told.mention("one sentence") {
        text::first_sentence(subject.prose(), 300).to_owned()
    } else {
        format!("Simulated answer: {}", text::first_sentence(subject.prose(), 200))
    }
}

/// Ends a text where the request says.
fn bounded(mut text: String, prompt: &Prompt) -> Answer {
    let mut stop = Stop::End;
    let first_stop = prompt.stops.iter().filter(|stop| !stop.is_empty()).filter_map(|stop| text.find(stop)).min();
    if let Some(place) = first_stop {
        text.truncate(place);
        stop = Stop::Sequence;
    }
    if let Some(most) = prompt.max_output
        && tokens(text.chars().count()) > most
    {
        let characters = usize::try_from(most.saturating_mul(4)).unwrap_or(usize::MAX);
        if let Some((end, _)) = text.char_indices().nth(characters) {
            text.truncate(end);
        }
        stop = Stop::Length;
    }
    let output_tokens = tokens(text.chars().count()).max(1);
    Answer { text, tool: None, stop, output_tokens }
}

#[cfg(test)]
mod tests;
