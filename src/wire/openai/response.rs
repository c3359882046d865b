//! Reading what an OpenAI endpoint answered with status 200.
//!
//! Invariant: the text is kept as it came, byte for byte, unless the request's [`Reading`] asks for more; then only what
//! that names is changed. A 200 that holds no completion is a fault, and one that was possibly billed.

use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value};

use super::usage::Counts;
use crate::{
    job::Fault,
    wire::{
        Completion, Reading,
        faults::{Classified, Hints, excerpt, openai},
        stream::{Delta, Event, FinishReason, MAX_CHOICES, Undo},
    },
};

#[derive(Deserialize)]
struct Chat {
    choices: Option<Vec<IgnoredAny>>,
    usage: Option<Counts>,
    error: Option<IgnoredAny>,
}

/// Reads a completion with the request's `reading` applied.
///
/// # Errors
/// [`Classified`] when it is none: an error object, invalid JSON, or an object without `choices`.
pub fn read(body: &[u8], reading: &Reading) -> Result<Completion, Classified> {
    let unreadable = |why: String| {
        let message = format!("the provider answered 200 with something else than a chat completion: {why}");
        Classified::billed(Fault::Transient, message).with_code("invalid_response").with_status(200)
    };
    let text = std::str::from_utf8(body).map_err(|error| unreadable(format!("not UTF-8 ({error})")))?;
    let chat: Chat = serde_json::from_str(text)
        .map_err(|error| unreadable(format!("{error}; it begins {:?}", excerpt(text, 80))))?;
    if chat.error.is_some() {
        // Some gateways put an error in the body of a success.
        return Err(Classified { possibly_billed: true, ..openai::classify(200, &Hints::default(), body) });
    }
    if chat.choices.is_none_or(|choices| choices.is_empty()) {
        return Err(unreadable("it has no choices".to_owned()));
    }
    let (json, remarks) = if reading.is_empty() {
        (text.to_owned(), Vec::new())
    } else {
        reread(text, reading).map_err(|error| unreadable(error.to_string()))?
    };
    Ok(Completion { json, usage: chat.usage.and_then(Counts::usage), unread_blocks: 0, remarks })
}

/// Undoes in every choice what the request's reading says; all else stays as the provider wrote it.
fn reread(text: &str, reading: &Reading) -> Result<(String, Vec<String>), serde_json::Error> {
    let mut chat: Value = serde_json::from_str(text)?;
    let seed = chat.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut undo = Undo::new(reading, &seed);
    let mut remarks = Vec::new();
    for (place, choice) in
        (0..MAX_CHOICES).zip(chat.get_mut("choices").and_then(Value::as_array_mut).into_iter().flatten())
    {
        let number = choice.get("index").and_then(Value::as_u64).and_then(|index| u32::try_from(index).ok());
        let number = number.unwrap_or_else(|| u32::try_from(place).unwrap_or(u32::MAX));
        let Some(choice) = choice.as_object_mut() else { continue };
        let finish = choice.get("finish_reason").and_then(Value::as_str).unwrap_or("stop");
        let known: Option<FinishReason> = finish.parse().ok();
        let Some(message) = choice.get_mut("message").and_then(Value::as_object_mut) else { continue };
        let mut events = Vec::new();
        for delta in deltas(message) {
            undo.push(Event::Delta { choice: number, delta }, &mut events);
        }
        undo.push(Event::Finish { choice: number, reason: known.unwrap_or(FinishReason::Stop) }, &mut events);
        let reason = write_back(message, events, reading, &mut remarks);
        if let (Some(before), Some(after)) = (known, reason)
            && before != after
        {
            choice.insert("finish_reason".to_owned(), after.to_string().into());
        }
    }
    Ok((chat.to_string(), remarks))
}

/// What a message says, as a stream would.
fn deltas(message: &Map<String, Value>) -> Vec<Delta> {
    let mut deltas = Vec::new();
    deltas.extend(message.get("content").and_then(Value::as_str).map(|text| Delta::Text(text.to_owned())));
    let calls = message.get("tool_calls").and_then(Value::as_array).into_iter().flatten();
    for (index, call) in (0..).zip(calls) {
        let text = |path: &str| call.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        deltas.push(Delta::ToolCall { index, id: text("/id"), name: text("/function/name") });
        deltas.push(Delta::ToolArguments { index, text: text("/function/arguments") });
    }
    deltas
}

/// Writes what became of a message into it, and says how it ends now.
fn write_back(
    message: &mut Map<String, Value>,
    events: Vec<Event>,
    reading: &Reading,
    remarks: &mut Vec<String>,
) -> Option<FinishReason> {
    let (mut content, mut reasoning, mut calls, mut finish) = (String::new(), String::new(), Vec::new(), None);
    for event in events {
        match event {
            Event::Delta { delta, .. } => match delta {
                Delta::Text(text) => content.push_str(&text),
                Delta::Reasoning(text) => reasoning.push_str(&text),
                Delta::ToolCall { id, name, .. } => calls.push((id, name)),
                _ => {}
            },
            Event::Finish { reason, .. } => finish = Some(reason),
            Event::Remark(remark) => remarks.push(remark),
            Event::Field { .. } | Event::Usage(_) => {}
        }
    }
    let said = message.get("content").is_some_and(Value::is_string);
    if said || !content.is_empty() {
        let only_calls = content.is_empty() && !calls.is_empty();
        message.insert("content".to_owned(), if only_calls { Value::Null } else { content.into() });
    }
    if !reasoning.is_empty() {
        let before = message.get("reasoning_content").and_then(Value::as_str).unwrap_or_default();
        let whole = format!("{before}{reasoning}");
        message.insert("reasoning_content".to_owned(), whole.into());
    }
    if let Some(Value::Array(before)) = message.remove("tool_calls") {
        // Calls go on in their order; only the tool that stands for a schema is none.
        let name = |call: &Value| call.pointer("/function/name").and_then(Value::as_str).map(str::to_owned);
        let real = before.into_iter().filter(|call| reading.json_tool.is_none() || name(call) != reading.json_tool);
        let after: Vec<Value> = real.zip(calls).map(|(call, (id, name))| renamed(call, id, name)).collect();
        if !after.is_empty() {
            message.insert("tool_calls".to_owned(), after.into());
        }
    }
    finish
}

fn renamed(mut call: Value, id: String, name: String) -> Value {
    if let Some(fields) = call.as_object_mut() {
        fields.insert("id".to_owned(), id.into());
    }
    if let Some(function) = call.get_mut("function").and_then(Value::as_object_mut) {
        function.insert("name".to_owned(), name.into());
    }
    call
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::Usage;

    fn read(body: &[u8]) -> Result<Completion, Classified> {
        super::read(body, &Reading::default())
    }

    #[test]
    fn counts_are_read_term_by_term() {
        let whole = br#"{"id":"x","choices":[{"index":0}],"usage":{"prompt_tokens":100,"completion_tokens":50,
            "total_tokens":150,"prompt_tokens_details":{"cached_tokens":40,"audio_tokens":0},
            "completion_tokens_details":{"reasoning_tokens":30}}}"#;
        let completion = read(whole).unwrap();
        assert_eq!(completion.json.as_bytes(), whole);
        assert_eq!(
            completion.usage,
            Some(Usage { input: 60, output: 50, cache_read: 40, cache_write: 0, reasoning: 30 })
        );
        let cases: [(&str, Option<Usage>); 4] = [
            (r#"{"choices":[{}]}"#, None),
            (r#"{"choices":[{}],"usage":null}"#, None),
            (r#"{"choices":[{}],"usage":{"prompt_tokens":1}}"#, None),
            (
                r#"{"choices":[{}],"usage":{"prompt_tokens":1,"completion_tokens":2,"prompt_tokens_details":null}}"#,
                Some(Usage { input: 1, output: 2, ..Usage::default() }),
            ),
        ];
        for (body, usage) in cases {
            assert_eq!(read(body.as_bytes()).unwrap().usage, usage, "{body}");
        }
    }

    #[test]
    fn a_success_without_a_completion_is_a_fault() {
        for body in ["", "{}", "[]", "null", r#"{"choices":[]}"#, r#"{"choices":[{}"#, "<html>", "\u{0}"] {
            let fault = read(body.as_bytes()).unwrap_err();
            assert_eq!((fault.fault, fault.possibly_billed), (Fault::Transient, true), "{body}");
            assert_eq!(fault.code.as_deref(), Some("invalid_response"), "{body}");
        }
        let fault = read(&[0xff, 0xfe]).unwrap_err();
        assert_eq!(fault.fault, Fault::Transient);
        let fault = read(br#"{"error":{"message":"over","code":"server_error"},"choices":null}"#).unwrap_err();
        assert_eq!((fault.message.as_str(), fault.possibly_billed), ("over", true));
    }
}
