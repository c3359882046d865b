//! A request in Anthropic's form: `anthropic_version`, `messages`.
//!
//! Invariant: what the Converse form holds in Claude's own words (`additionalModelRequestFields`) goes out under the same
//! names, beside what is written here.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use crate::wire::{
    Refusal,
    converse::{Block, Request, Role, Source, Tool, ToolChoice},
};

const VERSION: &str = "bedrock-2023-05-31";

pub(super) fn write(request: &Request) -> Result<Value, Refusal> {
    let mut body = Map::new();
    body.insert("anthropic_version".to_owned(), VERSION.into());
    body.insert("max_tokens".to_owned(), request.inference_config.max_tokens.into());
    if !request.system.is_empty() {
        body.insert("system".to_owned(), blocks("messages", &request.system)?);
    }
    let messages = request.messages.iter().map(|message| {
        let role = match message.role {
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::System => "system",
        };
        Ok(json!({ "role": role, "content": blocks("messages", &message.content)? }))
    });
    body.insert("messages".to_owned(), messages.collect::<Result<_, Refusal>>()?);
    let inference = &request.inference_config;
    for (name, number) in [("temperature", inference.temperature), ("top_p", inference.top_p)] {
        if let Some(number) = number {
            body.insert(name.to_owned(), number.into());
        }
    }
    if !inference.stop_sequences.is_empty() {
        body.insert("stop_sequences".to_owned(), inference.stop_sequences.clone().into());
    }
    if let Some(config) = &request.tool_config {
        body.insert("tools".to_owned(), config.tools.iter().map(tool).collect());
        let choice = match &config.tool_choice {
            None => None,
            Some(ToolChoice::Auto) => Some(json!({ "type": "auto" })),
            Some(ToolChoice::Any) => Some(json!({ "type": "any" })),
            Some(ToolChoice::Tool(name)) => Some(json!({ "type": "tool", "name": name })),
        };
        body.extend(choice.map(|choice| ("tool_choice".to_owned(), choice)));
    }
    if let Some(output) = &request.output_config {
        let format = json!({ "type": "json_schema", "schema": output.schema });
        body.insert("output_config".to_owned(), json!({ "format": format }));
    }
    for (name, value) in &request.additional_model_request_fields {
        match (body.get_mut(name).and_then(Value::as_object_mut), value) {
            (Some(known), Value::Object(more)) => known.extend(more.clone()),
            _ => {
                body.insert(name.clone(), value.clone());
            }
        }
    }
    // On Converse a choice may say nothing but how many tools at once; here it must say which.
    if let Some(choice) = body.get_mut("tool_choice").and_then(Value::as_object_mut)
        && !choice.contains_key("type")
    {
        choice.insert("type".to_owned(), "auto".into());
    }
    Ok(Value::Object(body))
}

fn tool(tool: &Tool) -> Value {
    let mut written = json!({
        "name": tool.name, "description": tool.description, "input_schema": tool.input_schema
    });
    if let (Some(strict), Some(fields)) = (tool.strict, written.as_object_mut()) {
        fields.insert("strict".to_owned(), strict.into());
    }
    written
}

fn blocks(param: &str, content: &[Block]) -> Result<Value, Refusal> {
    content.iter().map(|content| block(param, content)).collect()
}

fn block(param: &str, block: &Block) -> Result<Value, Refusal> {
    Ok(match block {
        Block::Text(text) => json!({ "type": "text", "text": text }),
        Block::Image(image) => {
            let kind = format!("image/{}", image.format);
            json!({ "type": "image", "source": base64(param, "image", &kind, &image.source)? })
        }
        Block::Document(document) => {
            let source = match (document.format.as_str(), &document.source) {
                ("pdf", source) => base64(param, "document", "application/pdf", source)?,
                ("txt" | "md" | "csv" | "html", Source::Bytes(bytes)) => {
                    json!({ "type": "text", "media_type": "text/plain", "data": String::from_utf8_lossy(bytes) })
                }
                (format, _) => {
                    let message = format!(
                        "{param}: Claude takes PDF and plain text by InvokeModel, not {format:?} from there: send it as \
                         one of these, or use Converse"
                    );
                    return Err(Refusal::of(param, message));
                }
            };
            json!({ "type": "document", "source": source, "title": document.name })
        }
        Block::ToolUse(call) => {
            json!({ "type": "tool_use", "id": call.tool_use_id, "name": call.name, "input": call.input })
        }
        Block::ToolResult(result) => {
            let content = blocks(param, &result.content)?;
            json!({ "type": "tool_result", "tool_use_id": result.tool_use_id, "content": content })
        }
    })
}

fn base64(param: &str, what: &str, kind: &str, source: &Source) -> Result<Value, Refusal> {
    match source {
        Source::Bytes(bytes) => Ok(json!({ "type": "base64", "media_type": kind, "data": STANDARD.encode(bytes) })),
        Source::Remote(url) => {
            let message = format!("{param}: the {what} at {url} was not fetched before the request was written");
            Err(Refusal::of(param, message))
        }
        Source::S3(uri) => {
            let message = format!(
                "{param}: InvokeModel cannot take the {what} at {uri}: Claude's form holds the bytes themselves: send \
                 them, or use Converse"
            );
            Err(Refusal::of(param, message))
        }
    }
}
