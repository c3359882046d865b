//! Reads a chat completion request as strictly as OpenAI does.
//!
//! Invariant: a field is looked at only when it is there; an unknown one is refused, because a client that sends it is
//! wrong about the protocol.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::field::Field;
use crate::simulate::{
    prompt::{ForcedTool, Format, Listener, Prompt, Speaker, job_hint},
    reply::Refused,
};

/// An object's fields, unread.
struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::with_capacity(8);
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    role: Option<Cow<'a, str>>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_calls: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_call_id: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
}

/// Reads a request body.
pub(in crate::simulate) fn read(body: &[u8]) -> Result<Prompt, Refused> {
    let fields: Fields<'_> = serde_json::from_slice(body).map_err(|error| {
        Refused::new(400, None, format!("We could not parse the JSON body of your request: {error}."))
    })?;
    let named = |name: &str| {
        let found = fields.0.iter().rev().find(|(key, _)| key == name);
        found.map(|(key, raw)| Field { name: key, raw }).filter(|field| !field.is_null())
    };
    let model: String = named("model").ok_or_else(|| missing("model"))?.read("a string")?;
    if model.is_empty() {
        return Err(missing("model"));
    }
    let mut prompt = messages(named("messages").ok_or_else(|| missing("messages"))?)?;
    prompt.model = model;
    let mut tools = None;
    let mut choice = None;
    let mut options = None;
    for (key, raw) in &fields.0 {
        let field = Field { name: key, raw };
        match field.name {
            "tools" if !field.is_null() => tools = Some(field),
            "tool_choice" if !field.is_null() => choice = Some(field),
            "stream_options" if !field.is_null() => options = Some(field),
            _ => option(field, &mut prompt)?,
        }
    }
    if let Some(options) = options {
        stream_options(options, &mut prompt)?;
    }
    let may_call = choice.is_none_or(|choice| choice.raw.get() != "\"none\"");
    if let (Some(tools), true) = (tools, may_call) {
        let tools: Vec<serde_json::Value> = tools.read("an array of objects")?;
        prompt.tools = tools.iter().filter_map(|tool| tool.get("function")).map(offered).collect();
    }
    if let Some(choice) = choice {
        prompt.tool = forced_tool(choice, tools)?;
    }
    Ok(prompt)
}

fn missing(name: &'static str) -> Refused {
    Refused::new(400, "missing_required_parameter", format!("Missing required parameter: '{name}'.")).param(name)
}

/// Reads one of the fields that may be left out.
fn option(field: Field<'_>, prompt: &mut Prompt) -> Result<(), Refused> {
    if field.is_null() {
        return Ok(());
    }
    match field.name {
        "model" | "messages" => {}
        "max_tokens" => bound(prompt, "max_tokens", field.whole(1)?),
        "max_completion_tokens" => bound(prompt, "max_completion_tokens", field.whole(1)?),
        "temperature" => unless_neutral(prompt, "temperature", field.number(0.0, 2.0)?, 1.0),
        "top_p" => unless_neutral(prompt, "top_p", field.number(0.0, 1.0)?, 1.0),
        "presence_penalty" => unless_neutral(prompt, "presence_penalty", field.number(-2.0, 2.0)?, 0.0),
        "frequency_penalty" => unless_neutral(prompt, "frequency_penalty", field.number(-2.0, 2.0)?, 0.0),
        "n" => {
            prompt.choices = field.whole(1)?;
            if prompt.choices > MOST_CHOICES {
                return Err(field.not_simulated("at most 128 choices are made"));
            }
            if prompt.choices > 1 {
                prompt.parameters.push("n");
            }
        }
        "stop" => stops(field, prompt)?,
        "seed" => {
            field.read::<i64>("an integer")?;
            prompt.parameters.push("seed");
        }
        "stream" => {
            prompt.streamed = field.read("a boolean")?;
        }
        "logprobs" => {
            if field.read("a boolean")? {
                return Err(field.not_simulated("send the request without it"));
            }
        }
        "response_format" => format(field, prompt)?,
        "metadata" => {
            let metadata: std::collections::BTreeMap<String, String> = field.read("an object of strings")?;
            prompt.job = job_hint(metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        }
        "reasoning_effort" => {
            prompt.effort = Some(field.read("a string")?);
            prompt.parameters.push("reasoning_effort");
        }
        "user" | "safety_identifier" | "prompt_cache_key" | "prompt_cache_retention" | "service_tier" | "verbosity" => {
            field.read::<String>("a string")?;
        }
        "store" | "parallel_tool_calls" => {
            field.read::<bool>("a boolean")?;
        }
        "logit_bias" => {
            field.read::<std::collections::BTreeMap<String, f64>>("an object of numbers")?;
            prompt.parameters.push("logit_bias");
        }
        "top_logprobs" | "modalities" | "audio" | "prediction" | "web_search_options" | "functions"
        | "function_call" => return Err(field.not_simulated("send the request without it")),
        name => {
            return Err(Refused::new(400, "unknown_parameter", format!("Unknown parameter: '{name}'.")).param(name));
        }
    }
    Ok(())
}

/// What belongs to a stream alone.
fn stream_options(field: Field<'_>, prompt: &mut Prompt) -> Result<(), Refused> {
    if !prompt.streamed {
        let message = "The 'stream_options' parameter is only allowed when 'stream' is enabled.";
        return Err(Refused::new(400, "invalid_parameter", message).param("stream_options"));
    }
    let options: serde_json::Value = field.read("an object")?;
    prompt.with_usage = options.get("include_usage").and_then(serde_json::Value::as_bool).unwrap_or(false);
    Ok(())
}

fn offered(function: &serde_json::Value) -> ForcedTool {
    ForcedTool {
        name: function.get("name").and_then(|name| name.as_str()).unwrap_or_default().to_owned(),
        schema: function.get("parameters").cloned().unwrap_or_default(),
    }
}

/// Choices in one answer at most.
const MOST_CHOICES: u64 = 128;

fn bound(prompt: &mut Prompt, name: &'static str, most: u64) {
    prompt.max_output = Some(most);
    prompt.parameters.push(name);
}

#[expect(clippy::float_cmp, reason = "only the very default is neutral")]
fn unless_neutral(prompt: &mut Prompt, name: &'static str, value: f64, neutral: f64) {
    if value != neutral {
        prompt.parameters.push(name);
    }
}

fn stops(field: Field<'_>, prompt: &mut Prompt) -> Result<(), Refused> {
    prompt.stops = if field.raw.get().starts_with('[') {
        field.read("a string or an array of strings")?
    } else {
        vec![field.read("a string or an array of strings")?]
    };
    if prompt.stops.len() > 4 {
        let count = prompt.stops.len();
        return Err(Refused::new(
            400,
            "array_above_max_length",
            format!("Invalid 'stop': array too long. Expected an array with maximum length 4, but got an array with length {count} instead."),
        )
        .param("stop"));
    }
    if !prompt.stops.is_empty() {
        prompt.parameters.push("stop");
    }
    Ok(())
}

fn format(field: Field<'_>, prompt: &mut Prompt) -> Result<(), Refused> {
    let format: serde_json::Value = field.read("an object")?;
    let kind = format.get("type").and_then(serde_json::Value::as_str).unwrap_or_default();
    prompt.format = match kind {
        "text" => Format::Text,
        "json_object" => Format::Json,
        "json_schema" => {
            let schema = format.pointer("/json_schema/schema").filter(|schema| schema.is_object());
            Format::Schema(schema.cloned().ok_or_else(|| {
                Refused::new(
                    400,
                    "missing_required_parameter",
                    "Missing required parameter: 'response_format.json_schema.schema'.",
                )
                .param("response_format.json_schema.schema")
            })?)
        }
        _ => {
            return Err(Refused::new(
                400,
                "invalid_value",
                format!("Invalid value: '{kind}'. Supported values are: 'text', 'json_object', and 'json_schema'."),
            )
            .param("response_format.type"));
        }
    };
    if !matches!(prompt.format, Format::Text) {
        prompt.parameters.push("response_format");
    }
    let says_json = |text: &str| text.to_ascii_lowercase().contains("json");
    if matches!(prompt.format, Format::Json) && !says_json(&prompt.system) && !says_json(&prompt.question) {
        return Err(Refused::new(
            400,
            None,
            "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.",
        )
        .param("messages"));
    }
    Ok(())
}

/// The tool that must be called, if `choice` says that one must.
fn forced_tool(choice: Field<'_>, tools: Option<Field<'_>>) -> Result<Option<ForcedTool>, Refused> {
    let Some(tools) = tools else {
        return Err(Refused::new(
            400,
            "invalid_value",
            "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified.",
        )
        .param("tool_choice"));
    };
    let tools: Vec<serde_json::Value> = tools.read("an array of objects")?;
    let choice: serde_json::Value = choice.read("a string or an object")?;
    let wanted = choice.pointer("/function/name").and_then(serde_json::Value::as_str);
    let forced = wanted.is_some() || choice.as_str() == Some("required");
    if !forced {
        return Ok(None);
    }
    let function = tools.iter().filter_map(|tool| tool.get("function")).find(|function| {
        wanted.is_none_or(|wanted| function.get("name").and_then(|name| name.as_str()) == Some(wanted))
    });
    let Some(function) = function else {
        return Err(Refused::new(
            400,
            "invalid_value",
            "Invalid value for 'tool_choice': the function is not among the 'tools'.",
        )
        .param("tool_choice"));
    };
    Ok(Some(offered(function)))
}

fn messages(field: Field<'_>) -> Result<Prompt, Refused> {
    let messages: Vec<Message<'_>> =
        serde_json::from_str(field.raw.get()).map_err(|_| field.mistyped("an array of objects"))?;
    if messages.is_empty() {
        return Err(Refused::new(
            400,
            "empty_array",
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
        )
        .param("messages"));
    }
    let mut listener = Listener::default();
    for (place, message) in messages.iter().enumerate() {
        hear(&mut listener, place, message)?;
    }
    Ok(listener.into_prompt())
}

fn hear(listener: &mut Listener, place: usize, message: &Message<'_>) -> Result<(), Refused> {
    let role = message.role.as_deref().unwrap_or_default();
    let speaker = match role {
        "system" | "developer" => Speaker::System,
        "user" => Speaker::User,
        "tool" | "function" => Speaker::Tool,
        "assistant" => Speaker::Other,
        "" => {
            let name = format!("messages[{place}].role");
            return Err(Refused::new(
                400,
                "missing_required_parameter",
                format!("Missing required parameter: '{name}'."),
            )
            .param(name));
        }
        _ => {
            let name = format!("messages[{place}].role");
            return Err(Refused::new(
                400,
                "invalid_value",
                format!(
                    "Invalid value: '{role}'. Supported values are: 'system', 'assistant', 'user', 'function', 'tool', \
                     and 'developer'."
                ),
            )
            .param(name));
        }
    };
    if role == "tool" && message.tool_call_id.is_none() {
        let name = format!("messages[{place}].tool_call_id");
        return Err(Refused::new(400, "missing_required_parameter", format!("Missing required parameter: '{name}'."))
            .param(name));
    }
    listener.message(speaker);
    let name = format!("messages[{place}].content");
    match message.content.filter(|content| content.get() != "null") {
        Some(raw) => content(listener, speaker, Field { name: &name, raw }),
        None if role == "assistant" && message.tool_calls.is_some() => Ok(()),
        None => Err(Refused::new(
            400,
            "invalid_type",
            format!("Invalid value for 'content': expected a string, got null. ('{name}')"),
        )
        .param(name)),
    }
}

fn content(listener: &mut Listener, speaker: Speaker, field: Field<'_>) -> Result<(), Refused> {
    let mistyped = |_| field.mistyped("one of a string or an array of objects");
    if !field.raw.get().starts_with('[') {
        let text: Cow<'_, str> = serde_json::from_str(field.raw.get()).map_err(mistyped)?;
        listener.text(speaker, &text);
        return Ok(());
    }
    let parts: Vec<Part<'_>> = serde_json::from_str(field.raw.get()).map_err(mistyped)?;
    for part in parts {
        match (part.kind.as_deref(), part.text) {
            (Some("text"), Some(text)) => listener.text(speaker, &text),
            (Some("image_url" | "input_audio" | "file"), _) => listener.attachment(),
            (Some("refusal"), _) => {}
            _ => {
                return Err(Refused::new(
                    400,
                    "invalid_value",
                    format!("Invalid value in '{}': every part has a known 'type' and what belongs to it.", field.name),
                )
                .param(field.name));
            }
        }
    }
    Ok(())
}
