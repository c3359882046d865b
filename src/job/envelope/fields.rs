//! The fields of an envelope, as given and then checked.
//!
//! Invariant: every refusal names the field and says what to send instead.

use std::collections::BTreeMap;

use serde_json::Value;
use strum::{EnumCount, IntoEnumIterator};

use super::{
    Envelope, EnvelopeError, MAX_BATCH_NAME, MAX_CALLBACK, MAX_IDEMPOTENCY_KEY, MAX_METADATA_KEY, MAX_METADATA_PAIRS,
    MAX_METADATA_VALUE, MAX_MODEL_NAME, PRIORITIES,
};
use crate::{
    clock::Timestamp,
    names::{PipelineName, nearest},
};

/// What a job may say.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, strum::EnumString, strum::IntoStaticStr, strum::EnumIter, strum::EnumCount,
)]
#[strum(serialize_all = "snake_case")]
pub(super) enum Field {
    Pipeline,
    IdempotencyKey,
    Batch,
    Metadata,
    Priority,
    NotBefore,
    Deadline,
    Callback,
    Body,
    CustomId,
    Method,
    Url,
}

impl Field {
    pub(super) fn name(self) -> &'static str {
        self.into()
    }
}

/// The fields as given, not yet checked. A field that is `null` is absent.
#[derive(Default)]
pub(super) struct Fields {
    values: [Option<Value>; Field::COUNT],
    seen: [bool; Field::COUNT],
}

/// Takes a value apart.
pub(super) fn from_value(value: Value) -> Result<Fields, EnvelopeError> {
    let Value::Object(map) = value else {
        return Err(refuse(None, format!("a job is a JSON object, not {}", kind(&value))));
    };
    let mut fields = Fields::default();
    for (key, value) in map {
        let field = recognise(&key)?;
        fields.put(field, value)?;
    }
    Ok(fields)
}

impl Fields {
    pub(super) fn put(&mut self, field: Field, value: Value) -> Result<(), EnvelopeError> {
        if std::mem::replace(&mut self.seen[field as usize], true) {
            return Err(refuse(Some(field.name()), format!("`{}` is given twice; give it once", field.name())));
        }
        self.values[field as usize] = Some(value).filter(|value| !value.is_null());
        Ok(())
    }

    fn take(&mut self, field: Field) -> Option<Value> {
        self.values[field as usize].take()
    }

    fn has(&self, field: Field) -> bool {
        self.values[field as usize].is_some()
    }

    /// Checks each field and the few rules between them.
    pub(super) fn check(mut self) -> Result<Envelope, EnvelopeError> {
        let custom_id = self.batch_line()?;
        let pipeline = match self.text(Field::Pipeline, 80)? {
            None => None,
            Some(name) => Some(
                PipelineName::new(&name).map_err(|error| refuse(Some("pipeline"), format!("`pipeline`: {error}")))?,
            ),
        };
        let idempotency_key = match custom_id {
            Some(key) => Some(key),
            None => self.text(Field::IdempotencyKey, MAX_IDEMPOTENCY_KEY)?,
        };
        let envelope = Envelope {
            pipeline,
            idempotency_key,
            batch: self.text(Field::Batch, MAX_BATCH_NAME)?,
            metadata: self.metadata()?,
            priority: self.priority()?,
            not_before: self.time(Field::NotBefore)?,
            deadline: self.time(Field::Deadline)?,
            callback: self.callback()?,
            body: self.body()?,
        };
        match (envelope.not_before, envelope.deadline) {
            (Some(start), Some(end)) if end <= start => Err(refuse(
                Some("deadline"),
                format!("`deadline` ({end}) is not after `not_before` ({start}): the job would expire unasked"),
            )),
            _ => Ok(envelope),
        }
    }

    /// The key of an OpenAI batch line; `None` for a native job.
    fn batch_line(&mut self) -> Result<Option<String>, EnvelopeError> {
        let parts = [Field::CustomId, Field::Method, Field::Url];
        if !parts.iter().any(|part| self.has(*part)) {
            return Ok(None);
        }
        if self.has(Field::IdempotencyKey) {
            return Err(refuse(
                Some("idempotency_key"),
                "`idempotency_key` and `custom_id` are the same thing; give one of them".into(),
            ));
        }
        let key = self.text(Field::CustomId, MAX_IDEMPOTENCY_KEY)?;
        for (field, expected) in [(Field::Method, "POST"), (Field::Url, "/v1/chat/completions")] {
            let name = field.name();
            match self.text(field, 2_048)? {
                Some(given) if given == expected => {}
                Some(given) => {
                    return Err(refuse(
                        Some(name),
                        format!("`{name}` of a batch line must be {expected:?}, not {:?}", cut(&given)),
                    ));
                }
                None => return Err(refuse(Some(name), format!("a batch line needs `{name}`: {expected:?}"))),
            }
        }
        match key {
            Some(key) => Ok(Some(key)),
            None => Err(refuse(Some("custom_id"), "a batch line needs a `custom_id`".into())),
        }
    }

    fn callback(&mut self) -> Result<Option<String>, EnvelopeError> {
        let url = self.text(Field::Callback, MAX_CALLBACK)?;
        if let Some(url) = &url
            && !["https://", "http://"].iter().any(|scheme| url.starts_with(scheme))
        {
            let message =
                format!("`callback` must be an address that begins with https:// (or http://), not {:?}", cut(url));
            return Err(refuse(Some("callback"), message));
        }
        Ok(url)
    }

    /// A string of 1 to `most` characters, none of them a control character.
    fn text(&mut self, field: Field, most: usize) -> Result<Option<String>, EnvelopeError> {
        let name = field.name();
        let text = match self.take(field) {
            None => return Ok(None),
            Some(Value::String(text)) => text,
            Some(other) => return Err(refuse(Some(name), format!("`{name}` must be a string, not {}", kind(&other)))),
        };
        if text.is_empty() {
            return Err(refuse(Some(name), format!("`{name}` is empty; leave it out or give it a value")));
        }
        bounded(name, &text, most)?;
        if text.chars().any(char::is_control) {
            return Err(refuse(Some(name), format!("`{name}` holds a control character: {:?}", cut(&text))));
        }
        Ok(Some(text))
    }

    fn metadata(&mut self) -> Result<BTreeMap<String, String>, EnvelopeError> {
        let map = match self.take(Field::Metadata) {
            None => return Ok(BTreeMap::new()),
            Some(Value::Object(map)) => map,
            Some(other) => {
                return Err(refuse(
                    Some("metadata"),
                    format!("`metadata` must be an object of strings, not {}", kind(&other)),
                ));
            }
        };
        if map.len() > MAX_METADATA_PAIRS {
            return Err(refuse(
                Some("metadata"),
                format!("`metadata` has {} pairs; at most {MAX_METADATA_PAIRS} are taken", map.len()),
            ));
        }
        let mut metadata = BTreeMap::new();
        for (key, value) in map {
            if key.is_empty() || key.chars().nth(MAX_METADATA_KEY).is_some() || key.chars().any(char::is_control) {
                return Err(refuse(
                    Some("metadata"),
                    format!(
                        "{:?} is no key of `metadata`: use 1 to {MAX_METADATA_KEY} characters, none a control character",
                        cut(&key)
                    ),
                ));
            }
            let param = format!("metadata.{key}");
            let Value::String(value) = value else {
                return Err(refuse(
                    Some(&param),
                    format!("`{param}` must be a string, not {}; write it in quotes", kind(&value)),
                ));
            };
            bounded(&param, &value, MAX_METADATA_VALUE)?;
            if value.contains('\0') {
                return Err(refuse(Some(&param), format!("`{param}` holds a NUL character, which no store can keep")));
            }
            metadata.insert(key, value);
        }
        Ok(metadata)
    }

    fn priority(&mut self) -> Result<Option<i32>, EnvelopeError> {
        let Some(value) = self.take(Field::Priority) else { return Ok(None) };
        let priority = value.as_i64().and_then(|number| i32::try_from(number).ok());
        match priority.filter(|priority| PRIORITIES.contains(priority)) {
            Some(priority) => Ok(Some(priority)),
            None => Err(refuse(
                Some("priority"),
                format!(
                    "`priority` must be a whole number from {} to {}, not {}",
                    PRIORITIES.start(),
                    PRIORITIES.end(),
                    cut(&value.to_string())
                ),
            )),
        }
    }

    fn time(&mut self, field: Field) -> Result<Option<Timestamp>, EnvelopeError> {
        let name = field.name();
        let Some(value) = self.take(field) else { return Ok(None) };
        let time = value.as_str().filter(|text| is_rfc_3339(text)).and_then(|text| text.parse().ok());
        match time {
            Some(time) => Ok(Some(time)),
            None => Err(refuse(
                Some(name),
                format!(
                    "`{name}` must be a time in RFC 3339, such as \"2026-11-22T18:30:00Z\", not {}",
                    cut(&value.to_string())
                ),
            )),
        }
    }

    fn body(&mut self) -> Result<Value, EnvelopeError> {
        let body = match self.take(Field::Body) {
            Some(Value::Object(body)) => body,
            Some(other) => {
                return Err(refuse(
                    Some("body"),
                    format!("`body` must be an object (a chat request), not {}", kind(&other)),
                ));
            }
            None => {
                return Err(refuse(
                    Some("body"),
                    "a job needs a `body`: an OpenAI chat request with `messages`".into(),
                ));
            }
        };
        match body.get("model") {
            None | Some(Value::Null) => {}
            Some(Value::String(model)) => bounded("body.model", model, MAX_MODEL_NAME)?,
            Some(other) => {
                return Err(refuse(Some("body.model"), format!("`body.model` must be a string, not {}", kind(other))));
            }
        }
        let messages = match body.get("messages") {
            Some(Value::Array(messages)) if !messages.is_empty() => messages,
            Some(Value::Array(_)) => {
                return Err(refuse(
                    Some("body.messages"),
                    "`body.messages` is empty; a chat request needs at least one message".into(),
                ));
            }
            Some(other) => {
                return Err(refuse(
                    Some("body.messages"),
                    format!("`body.messages` must be an array of messages, not {}", kind(other)),
                ));
            }
            None => {
                return Err(refuse(
                    Some("body.messages"),
                    "`body` needs `messages`: [{\"role\": \"user\", \"content\": \"…\"}]".into(),
                ));
            }
        };
        for (place, message) in messages.iter().enumerate() {
            let role = message.as_object().map(|message| message.get("role"));
            let problem = match role {
                Some(Some(Value::String(role))) if !role.is_empty() => continue,
                Some(Some(Value::String(_))) => "has an empty `role`".to_owned(),
                Some(Some(other)) => format!("has a `role` that is {}, not a string", kind(other)),
                Some(None) => "has no `role`; say user, assistant, system, developer or tool".to_owned(),
                None => format!("is {}, not an object with `role` and `content`", kind(message)),
            };
            let mut param = format!("body.messages[{place}]");
            let message = format!("`{param}` {problem}");
            if role.is_some() {
                param.push_str(".role");
            }
            return Err(refuse(Some(&param), message));
        }
        Ok(Value::Object(body))
    }
}

pub(super) fn refuse(param: Option<&str>, message: String) -> EnvelopeError {
    EnvelopeError { param: param.map(str::to_owned), message }
}

pub(super) fn recognise(key: &str) -> Result<Field, EnvelopeError> {
    if let Ok(field) = key.parse() {
        return Ok(field);
    }
    let shown = cut(key);
    let known = Field::iter().map(Field::name);
    let advice = match nearest(&shown, known) {
        _ if key == "messages" || key == "model" => {
            format!("the chat request goes under `body`: {{\"body\": {{\"{key}\": …}}}}")
        }
        Some(name) => format!("did you mean `{name}`?"),
        None => {
            "a job has pipeline, idempotency_key, batch, metadata, priority, not_before, deadline, callback and body"
                .to_owned()
        }
    };
    Err(refuse(Some(&shown), format!("unknown field `{shown}`; {advice}")))
}

fn bounded(param: &str, text: &str, most: usize) -> Result<(), EnvelopeError> {
    // Characters are counted only when the bytes leave a doubt.
    if text.len() > most && text.chars().nth(most).is_some() {
        return Err(refuse(
            Some(param),
            format!("`{param}` has {} characters; at most {most} are taken", text.chars().count()),
        ));
    }
    Ok(())
}

/// Enough of a text to recognise it by.
pub(super) fn cut(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The shape of RFC 3339; whether such a day exists is for the calendar to say. (The calendar's own parser is laxer.)
fn is_rfc_3339(text: &str) -> bool {
    let (Some(head), Some(tail)) = (text.as_bytes().get(..19), text.as_bytes().get(19..)) else { return false };
    let shape = |bytes: &[u8], shape: &[u8]| {
        bytes.len() == shape.len()
            && bytes.iter().zip(shape).all(|(byte, expected)| match expected {
                b'0' => byte.is_ascii_digit(),
                b'T' => matches!(byte, b'T' | b't'),
                _ => byte == expected,
            })
    };
    let offset = match tail.split_first() {
        Some((b'.', rest)) => match rest.iter().take_while(|byte| byte.is_ascii_digit()).count() {
            0 => return false,
            digits => rest.get(digits..).unwrap_or_default(),
        },
        _ => tail,
    };
    shape(head, b"0000-00-00T00:00:00")
        && (matches!(offset, b"Z" | b"z") || shape(offset, b"+00:00") || shape(offset, b"-00:00"))
}
