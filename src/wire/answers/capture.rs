//! Captured answers, read from their files.

use std::{fs, path::Path};

use serde_json::{Map, Value};

use crate::wire::{
    Completion, Form, Reading,
    converse::{Answer, AnswerBlock, BlockDelta, BlockStart, Citation, Stream, StreamEvent, TokenUsage},
    faults::Classified,
    invoke::{self, HeaderCounts},
    openai::{completion, events, response},
    stream::{Assembly, Event},
};

const ID: &str = "0123";
const CREATED: i64 = 1_790_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    Converse,
    OpenAi,
    Claude,
    Llama,
}

#[derive(Debug, Clone)]
pub(super) struct Capture {
    /// The file's name.
    pub name: String,
    /// The name without what tells the kind.
    pub stem: String,
    pub family: Family,
    pub is_stream: bool,
    pub reading: Reading,
    /// The file, without the reading.
    pub bytes: Vec<u8>,
    headers: HeaderCounts,
}

impl Capture {
    pub(super) fn all() -> Vec<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/wire/answers/captured");
        let mut names: Vec<String> =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names.into_iter().map(|name| Self::read(&name, &fs::read_to_string(folder.join(&name)).unwrap())).collect()
    }

    fn read(name: &str, text: &str) -> Self {
        let parts: Vec<&str> = name.split('.').collect();
        let family = match parts[1] {
            "converse" => Family::Converse,
            "claude" => Family::Claude,
            "llama" => Family::Llama,
            "openai" | "sse" => Family::OpenAi,
            _ => panic!("{name}: of no known family"),
        };
        let is_stream = parts.last() != Some(&"json");
        let mut headers = HeaderCounts::default();
        let (read, bytes) = if is_stream {
            let (first, rest) = text.split_once('\n').unwrap();
            let read = match first.strip_prefix(": reading ") {
                Some(read) => Some(serde_json::from_str(read).unwrap()),
                None => serde_json::from_str::<Value>(first).ok().and_then(|row| row.get("reading").cloned()),
            };
            let bytes = if read.is_some() { rest } else { text };
            (read.unwrap_or_default(), bytes.as_bytes().to_vec())
        } else {
            let whole: Value = serde_json::from_str(text).unwrap();
            headers = HeaderCounts::read(whole["headers"]["input"].as_str(), whole["headers"]["output"].as_str());
            (whole["reading"].clone(), whole["answer"].to_string().into_bytes())
        };
        let reading = reading(&read);
        let stem = parts[0].to_owned();
        Self { name: name.to_owned(), stem, family, is_stream, reading, bytes, headers }
    }

    fn form(&self) -> Form {
        if self.family == Family::Llama { Form::Llama } else { Form::Claude }
    }

    /// The answer that came whole.
    pub(super) fn whole(&self) -> Result<Completion, Classified> {
        let answer = match self.family {
            Family::OpenAi => return response::read(&self.bytes, &self.reading),
            Family::Converse => answer(&serde_json::from_slice(&self.bytes).unwrap()),
            Family::Claude | Family::Llama => invoke::read(self.form(), self.headers, &self.bytes)?,
        };
        completion::from_converse("m", &self.reading, answer, ID, CREATED)
    }

    /// The events of a stream, and whether it came to its end.
    pub(super) fn streamed(&self) -> (Vec<Event>, Result<(), Classified>) {
        self.streamed_in(&[&self.bytes])
    }

    /// The same, in pieces. A line of events is one piece, however its bytes are cut.
    pub(super) fn streamed_in(&self, pieces: &[&[u8]]) -> (Vec<Event>, Result<(), Classified>) {
        let mut out = Vec::new();
        let end = self.run(pieces, &mut out);
        (out, end)
    }

    fn run(&self, pieces: &[&[u8]], out: &mut Vec<Event>) -> Result<(), Classified> {
        if self.family == Family::OpenAi {
            let mut stream = events::Stream::new(&self.reading);
            for piece in pieces {
                stream.push(piece, out)?;
            }
            return stream.finish(out);
        }
        let whole = pieces.concat();
        let lines = whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        if self.family == Family::Converse {
            let mut stream = Stream::new(&self.reading, ID);
            for line in lines {
                stream.push(event(&serde_json::from_slice(line).unwrap()), out)?;
            }
            return stream.finish();
        }
        let mut stream = invoke::Stream::new(self.form(), &self.reading, ID);
        for line in lines {
            stream.push(line, out)?;
        }
        stream.finish(out)
    }

    /// The stream put together.
    pub(super) fn assembled(&self) -> Result<Completion, Classified> {
        let (events, end) = self.streamed();
        self.assemble(events, end)
    }

    pub(super) fn assemble(&self, events: Vec<Event>, end: Result<(), Classified>) -> Result<Completion, Classified> {
        let mut assembly = match self.family {
            Family::OpenAi => Assembly::new("", "", 0),
            _ => completion::of_converse("m", ID, CREATED),
        };
        for event in events {
            assembly.push(event)?;
        }
        end?;
        assembly.finish()
    }
}

fn reading(value: &Value) -> Reading {
    let list = |name: &str| -> Vec<String> {
        value[name].as_array().into_iter().flatten().map(|item| item.as_str().unwrap().to_owned()).collect()
    };
    let names = value["tool_names"].as_object().cloned().unwrap_or_default();
    Reading {
        local_stop: list("local_stop"),
        json_tool: value["json_tool"].as_str().map(str::to_owned),
        json_text: value["json_text"] == true,
        tool_names: names.into_iter().map(|(sent, name)| (sent, name.as_str().unwrap().to_owned())).collect(),
        inline_reasoning: value["inline_reasoning"] == true,
        mint_call_ids: value["mint_call_ids"] == true,
    }
}

/// What a completion says, without how its JSON is written.
pub(super) fn meaning(completion: &Completion) -> Value {
    let mut remarks = completion.remarks.clone();
    remarks.sort();
    serde_json::json!({
        "json": plain(serde_json::from_str(&completion.json).unwrap()),
        "usage": completion.usage, "unread": completion.unread_blocks, "remarks": remarks,
    })
}

/// JSON in texts read, nothing where there is nothing.
fn plain(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| (name, plain(value)));
            let mut fields: Map<String, Value> =
                fields.filter(|(_, value)| !value.is_null() && *value != serde_json::json!([])).collect();
            fields.sort_keys();
            Value::Object(fields)
        }
        Value::Array(items) => items.into_iter().map(plain).collect(),
        Value::String(text) => match serde_json::from_str::<Value>(&text) {
            Ok(inner @ (Value::Object(_) | Value::Array(_))) => plain(inner),
            _ => Value::String(text),
        },
        value => value,
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn usage(value: &Value) -> Option<TokenUsage> {
    let count = |name: &str| value[name].as_u64().unwrap_or(0);
    value.is_object().then(|| TokenUsage {
        input: count("inputTokens"),
        output: count("outputTokens"),
        cache_read: count("cacheReadInputTokens"),
        cache_write: count("cacheWriteInputTokens"),
    })
}

fn option(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn filled(value: &Value) -> Option<Value> {
    (!value.is_null()).then(|| value.clone())
}

/// A Converse answer as the service writes it.
pub(super) fn answer(value: &Value) -> Answer {
    Answer {
        content: value["output"]["message"]["content"].as_array().unwrap().iter().map(block).collect(),
        stop_reason: text(&value["stopReason"]),
        usage: usage(&value["usage"]),
        additional_fields: filled(&value["additionalModelResponseFields"]),
        service_tier: option(&value["serviceTier"]["type"]),
        guardrail: option(&value["trace"]["guardrail"]["actionReason"]),
    }
}

fn block(value: &Value) -> AnswerBlock {
    let (kind, of) = value.as_object().unwrap().iter().next().unwrap();
    match kind.as_str() {
        "text" => AnswerBlock::Text(text(of)),
        "toolUse" => {
            AnswerBlock::ToolUse { id: text(&of["toolUseId"]), name: text(&of["name"]), input: of["input"].clone() }
        }
        "reasoningContent" => match option(&of["redactedContent"]) {
            Some(data) => AnswerBlock::Redacted(data),
            None => AnswerBlock::Reasoning {
                text: text(&of["reasoningText"]["text"]),
                signature: option(&of["reasoningText"]["signature"]),
            },
        },
        "citationsContent" => AnswerBlock::Cited {
            text: of["content"].as_array().unwrap().iter().map(|piece| text(&piece["text"])).collect(),
            citations: of["citations"].as_array().unwrap().iter().map(citation).collect(),
        },
        _ => AnswerBlock::Unread("image"),
    }
}

fn citation(value: &Value) -> Citation {
    let quotes = value["sourceContent"].as_array().into_iter().flatten();
    Citation {
        title: option(&value["title"]),
        source: option(&value["source"]),
        quote: quotes.map(|piece| text(&piece["text"])).collect(),
        location: filled(&value["location"]),
    }
}

/// An event of ConverseStream as the service writes it.
fn event(value: &Value) -> StreamEvent {
    let (kind, of) = value.as_object().unwrap().iter().next().unwrap();
    let index = u32::try_from(of["contentBlockIndex"].as_u64().unwrap_or(0)).unwrap();
    match kind.as_str() {
        "messageStart" => StreamEvent::MessageStart,
        "contentBlockStart" => {
            let tool = &of["start"]["toolUse"];
            let start = if tool.is_object() {
                BlockStart::ToolUse { id: text(&tool["toolUseId"]), name: text(&tool["name"]) }
            } else {
                BlockStart::Unread("image")
            };
            StreamEvent::BlockStart { index, start }
        }
        "contentBlockDelta" => StreamEvent::BlockDelta { index, delta: delta(&of["delta"]) },
        "contentBlockStop" => StreamEvent::BlockStop { index },
        "messageStop" => StreamEvent::MessageStop {
            stop_reason: text(&of["stopReason"]),
            additional_fields: filled(&of["additionalModelResponseFields"]),
        },
        "metadata" => StreamEvent::Metadata {
            usage: usage(&of["usage"]),
            service_tier: option(&of["serviceTier"]["type"]),
            guardrail: option(&of["trace"]["guardrail"]["actionReason"]),
        },
        _ => StreamEvent::Unknown,
    }
}

fn delta(value: &Value) -> BlockDelta {
    let (kind, of) = value.as_object().unwrap().iter().next().unwrap();
    match kind.as_str() {
        "text" => BlockDelta::Text(text(of)),
        "toolUse" => BlockDelta::ToolInput(text(&of["input"])),
        "reasoningContent" => {
            let (kind, of) = of.as_object().unwrap().iter().next().unwrap();
            match kind.as_str() {
                "text" => BlockDelta::Reasoning(text(of)),
                "signature" => BlockDelta::Signature(text(of)),
                _ => BlockDelta::Redacted(text(of)),
            }
        }
        "citation" => BlockDelta::Citation(citation(of)),
        _ => BlockDelta::Unread("image"),
    }
}
