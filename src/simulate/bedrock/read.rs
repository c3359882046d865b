//! Reads a Converse request as strictly as Bedrock does.
//!
//! Invariant: unknown members are passed over, as the service does; wrong ones are named with their place.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::validation;
use crate::simulate::{
    prompt::{ForcedTool, Format, Listener, Prompt, Speaker, job_hint},
    reply::Refused,
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Converse<'a> {
    #[serde(borrow)]
    messages: Option<Vec<Message<'a>>>,
    #[serde(borrow)]
    system: Option<Vec<Block<'a>>>,
    inference_config: Option<InferenceConfig>,
    tool_config: Option<ToolConfig>,
    request_metadata: Option<BTreeMap<String, String>>,
    output_config: Option<Value>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    role: Option<Cow<'a, str>>,
    #[serde(borrow)]
    content: Option<Vec<Block<'a>>>,
}

/// A content block: exactly one member is set.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Block<'a> {
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow)]
    image: Option<&'a RawValue>,
    #[serde(borrow)]
    document: Option<&'a RawValue>,
    #[serde(borrow)]
    video: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_use: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_result: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(borrow)]
    cache_point: Option<&'a RawValue>,
    #[serde(borrow)]
    guard_content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InferenceConfig {
    max_tokens: Option<i64>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    stop_sequences: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToolConfig {
    #[serde(default)]
    tools: Vec<Value>,
    tool_choice: Option<Value>,
}

/// Reads a request body for `model`.
pub(in crate::simulate) fn read(model: String, body: &[u8]) -> Result<Prompt, Refused> {
    let request: Converse<'_> = serde_json::from_slice(body).map_err(|error| {
        let code = if error.is_data() { "SerializationException" } else { "ValidationException" };
        Refused::new(400, code, format!("The request body could not be read: {error}"))
    })?;
    let format = request.output_config.map(output_format).transpose()?.flatten();
    let mut listener = Listener::default();
    for (place, block) in request.system.iter().flatten().enumerate() {
        listener.message(Speaker::System);
        hear(&mut listener, Speaker::System, block, &format!("system.{place}"))?;
    }
    let messages = request.messages.unwrap_or_default();
    conversation(&messages, request.tool_config.is_some())?;
    for (place, message) in messages.iter().enumerate() {
        let answers = message.content.iter().flatten().any(|block| block.tool_result.is_some());
        let speaker = match message.role.as_deref() {
            Some("user") => Speaker::User,
            Some("system") => Speaker::System,
            _ => Speaker::Other,
        };
        listener.message(if answers { Speaker::Tool } else { speaker });
        for (part, block) in message.content.iter().flatten().enumerate() {
            hear(&mut listener, speaker, block, &format!("messages.{place}.content.{part}"))?;
        }
    }
    let mut prompt = listener.into_prompt();
    prompt.model = model;
    prompt.format = format.map_or(Format::Text, Format::Schema);
    if let Some(config) = request.inference_config {
        inference(config, &mut prompt)?;
    }
    if let Some(config) = request.tool_config {
        let specs = config.tools.iter().filter_map(|tool| tool.get("toolSpec"));
        prompt.tools = specs.map(offered).collect();
        prompt.tool = forced_tool(config)?;
    }
    if let Some(metadata) = request.request_metadata {
        prompt.job = job_hint(metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    }
    Ok(prompt)
}

/// The schema that an answer must fit, which travels as text.
fn output_format(config: Value) -> Result<Option<Value>, Refused> {
    let Some(format) = config.get("textFormat") else { return Ok(None) };
    let schema = format.pointer("/structure/jsonSchema/schema").and_then(Value::as_str);
    match schema.and_then(|text| serde_json::from_str(text).ok()) {
        Some(schema @ Value::Object(_)) => Ok(Some(schema)),
        _ => Err(validation("outputConfig.textFormat.structure.jsonSchema.schema is not a valid JSON schema.")),
    }
}

/// Checks the order of a conversation. System text may stand behind a user's turn.
fn conversation(messages: &[Message<'_>], has_tools: bool) -> Result<(), Refused> {
    let mut last = None;
    for (place, message) in messages.iter().enumerate() {
        let role = message.role.as_deref().unwrap_or_default();
        if role == "system" && last == Some("user") {
            continue;
        }
        if role != "user" && role != "assistant" {
            return Err(validation(format!(
                "1 validation error detected: Value '{role}' at 'messages.{}.member.role' failed to satisfy constraint: \
                 Member must satisfy enum value set: [user, assistant]",
                place + 1
            )));
        }
        if last.is_none() && role != "user" {
            break;
        }
        if last == Some(role) {
            return Err(validation(
                "A conversation must alternate between user and assistant roles. Make sure the conversation alternates \
                 between user and assistant roles and try again.",
            ));
        }
        last = Some(role);
        let blocks = message.content.as_deref().unwrap_or_default();
        if blocks.is_empty() {
            return Err(validation(format!(
                "The content field in the Message object at messages.{place} is empty. Add a ContentBlock object to the \
                 content field and try again."
            )));
        }
        let speaks_of_tools = blocks.iter().any(|block| block.tool_use.is_some() || block.tool_result.is_some());
        if speaks_of_tools && !has_tools {
            return Err(validation(
                "The toolConfig field must be defined when using toolUse and toolResult content blocks.",
            ));
        }
    }
    match last {
        Some(_) => Ok(()),
        None => Err(validation(
            "A conversation must start with a user message. Try again with a conversation that starts with a user message.",
        )),
    }
}

fn hear(listener: &mut Listener, speaker: Speaker, block: &Block<'_>, place: &str) -> Result<(), Refused> {
    let others = [
        block.image,
        block.document,
        block.video,
        block.tool_use,
        block.tool_result,
        block.reasoning_content,
        block.cache_point,
        block.guard_content,
    ];
    let set = usize::from(block.text.is_some()) + others.iter().flatten().count();
    if set != 1 {
        return Err(validation(format!(
            "The ContentBlock object at {place} must set one of the following keys: text, image, document, video, toolUse, \
             toolResult, reasoningContent, cachePoint, guardContent."
        )));
    }
    match &block.text {
        Some(text) if text.trim().is_empty() => Err(validation(format!(
            "The text field in the ContentBlock object at {place} is blank. Add text to the text field, and try again."
        ))),
        Some(text) => {
            listener.text(speaker, text);
            Ok(())
        }
        None => {
            if block.cache_point.is_none() {
                listener.attachment();
            }
            Ok(())
        }
    }
}

fn inference(config: InferenceConfig, prompt: &mut Prompt) -> Result<(), Refused> {
    let unsatisfied = |value: &dyn std::fmt::Display, field: &str, constraint: &str| {
        validation(format!(
            "1 validation error detected: Value '{value}' at 'inferenceConfig.{field}' failed to satisfy constraint: Member \
             must {constraint}"
        ))
    };
    if let Some(most) = config.max_tokens {
        match u64::try_from(most) {
            Ok(most) if most >= 1 => prompt.max_output = Some(most),
            _ => return Err(unsatisfied(&most, "maxTokens", "have value greater than or equal to 1")),
        }
        prompt.parameters.push("max_tokens");
    }
    let both = config.temperature.is_some() && config.top_p.is_some();
    for (value, field, name) in [(config.temperature, "temperature", "temperature"), (config.top_p, "topP", "top_p")] {
        let Some(value) = value else { continue };
        if value < 0.0 {
            return Err(unsatisfied(&value, field, "have value greater than or equal to 0"));
        }
        if value > 1.0 {
            return Err(unsatisfied(&value, field, "have value less than or equal to 1"));
        }
        // Models without sampling parameters take the value that changes nothing.
        if value < 1.0 || both {
            prompt.parameters.push(name);
        }
    }
    if let Some(stops) = config.stop_sequences {
        if stops.iter().any(String::is_empty) {
            return Err(unsatisfied(&"", "stopSequences", "have length greater than or equal to 1"));
        }
        if !stops.is_empty() {
            prompt.parameters.push("stop");
        }
        prompt.stops = stops;
    }
    Ok(())
}

/// The tool that must be called, if the choice says that one must.
fn forced_tool(config: ToolConfig) -> Result<Option<ForcedTool>, Refused> {
    if config.tools.is_empty() {
        return Err(validation(
            "1 validation error detected: Value at 'toolConfig.tools' failed to satisfy constraint: Member must have length \
             greater than or equal to 1",
        ));
    }
    let Some(choice) = config.tool_choice else { return Ok(None) };
    let wanted = choice.pointer("/tool/name").and_then(Value::as_str);
    if wanted.is_none() && choice.get("any").is_none() {
        return Ok(None);
    }
    let tool = config
        .tools
        .iter()
        .filter_map(|tool| tool.get("toolSpec"))
        .find(|tool| wanted.is_none_or(|wanted| tool.get("name").and_then(Value::as_str) == Some(wanted)));
    let Some(tool) = tool else {
        return Err(validation("The toolChoice names a tool that is not among the tools of toolConfig."));
    };
    Ok(Some(offered(tool)))
}

fn offered(tool: &Value) -> ForcedTool {
    ForcedTool {
        name: tool.get("name").and_then(Value::as_str).unwrap_or_default().to_owned(),
        schema: tool.pointer("/inputSchema/json").cloned().unwrap_or_default(),
    }
}
