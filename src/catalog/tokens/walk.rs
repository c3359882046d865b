//! Everything in a request that becomes tokens: texts go to a measure, the rest has fixed sums.
//!
//! Invariant: each part of the request is visited once, whatever its shape. A message adds four tokens (its role among
//! them), a name one more, an image a fixed sum, and a file a share of its size.

use serde_json::Value;

/// What a message adds around its contents, and its role.
const PER_MESSAGE: u64 = 4;
/// What a name adds around itself.
const PER_NAME: u64 = 1;
/// What a request adds as a whole: the tokens that open the answer.
const PER_REQUEST: u64 = 3;
/// An image at full detail: the most that current models charge for one that they have scaled down.
const PER_IMAGE: u64 = 1_700;
/// An image at low detail.
const PER_SMALL_IMAGE: u64 = 90;
/// Bytes of an inline file that make a token: documents are mostly layout, fonts and compressed streams.
const FILE_BYTES_PER_TOKEN: u64 = 8;
/// A file that is named but not sent inline: of unknown size.
const PER_UNSEEN_FILE: u64 = 5_000;

/// What counts texts.
pub(super) trait Measure {
    /// Adds a text.
    fn text(&mut self, text: &str);
    /// Adds halves of tokens for the brackets and commas of JSON.
    fn halves(&mut self, halves: u64);
    /// Whether so much is counted that the rest does not matter.
    fn is_enough(&self) -> bool {
        false
    }
}

/// A walk through a request.
pub(super) struct Walk<M> {
    pub(super) measure: M,
    /// Tokens that are there for sure, whatever the family.
    framing: u64,
    /// Tokens that may be there: images and files.
    media: u64,
}

impl<M: Measure> Walk<M> {
    pub(super) fn new(measure: M) -> Self {
        Self { measure, framing: 0, media: 0 }
    }

    /// Tokens around texts.
    pub(super) fn framing(&self) -> u64 {
        self.framing
    }

    /// Tokens of everything but texts.
    pub(super) fn whole(&self) -> u64 {
        self.framing.saturating_add(self.media)
    }

    pub(super) fn request(&mut self, body: &Value) {
        self.framing += PER_REQUEST;
        let messages = body.get("messages").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for message in messages {
            self.framing += PER_MESSAGE;
            self.message(message);
        }
        for part in ["tools", "functions", "response_format"] {
            if let Some(part) = body.get(part) {
                self.json(part);
            }
        }
    }

    pub(super) fn text(&mut self, text: &str) {
        if !self.measure.is_enough() {
            self.measure.text(text);
        }
    }

    fn message(&mut self, message: &Value) {
        match message.get("content") {
            Some(Value::String(text)) => self.text(text),
            Some(Value::Array(parts)) => parts.iter().for_each(|part| self.part(part)),
            Some(Value::Null) | None => {}
            Some(other) => self.json(other),
        }
        for field in ["name", "refusal", "tool_calls", "function_call", "tool_call_id"] {
            match message.get(field) {
                Some(Value::String(text)) => {
                    self.framing += if field == "name" { PER_NAME } else { 0 };
                    self.text(text);
                }
                Some(Value::Null) | None => {}
                Some(other) => self.json(other),
            }
        }
    }

    fn part(&mut self, part: &Value) {
        match part.get("type").and_then(Value::as_str) {
            Some("image_url") => {
                let low = part.pointer("/image_url/detail").and_then(Value::as_str) == Some("low");
                self.media += if low { PER_SMALL_IMAGE } else { PER_IMAGE };
            }
            Some("file") => self.file(part.pointer("/file/file_data")),
            Some("input_audio") => self.file(part.pointer("/input_audio/data")),
            _ => match part.get("text").or_else(|| part.get("refusal")) {
                Some(Value::String(text)) => self.text(text),
                _ => self.json(part),
            },
        }
    }

    fn file(&mut self, data: Option<&Value>) {
        self.media += match data.and_then(Value::as_str) {
            // Base64 carries three bytes in four characters.
            Some(data) => (data.len() as u64 / 4 * 3).div_ceil(FILE_BYTES_PER_TOKEN),
            None => PER_UNSEEN_FILE,
        };
    }

    /// JSON as the model will see it: names, texts and brackets.
    fn json(&mut self, value: &Value) {
        match value {
            Value::Null | Value::Bool(_) => self.measure.halves(2),
            Value::Number(number) => self.text(&number.to_string()),
            Value::String(text) => {
                self.measure.halves(2);
                self.text(text);
            }
            Value::Array(items) => {
                self.measure.halves(2);
                for item in items {
                    self.measure.halves(1);
                    self.json(item);
                }
            }
            Value::Object(map) => {
                self.measure.halves(2);
                for (name, value) in map {
                    self.measure.halves(2);
                    self.text(name);
                    self.json(value);
                }
            }
        }
    }
}
