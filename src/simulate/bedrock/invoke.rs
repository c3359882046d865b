//! InvokeModel: requests and answers in the models' own forms, Claude's messages and Llama's prompt.
//!
//! Invariant: the form is told by the body alone, as the service tells it; a form that is not the model's is refused.

use axum::http::HeaderMap;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{frames::event, validation};
use crate::{
    catalog::id::bedrock_id,
    simulate::{
        answer::{Answer, Stop, text_pieces},
        form::Form,
        prompt::{ForcedTool, Listener, Prompt, Speaker},
        reply::{Refused, Reply},
    },
};

/// What Claude's form says of itself.
const VERSION: &str = "bedrock-2023-05-31";

fn malformed(why: &str) -> Refused {
    validation(format!("Malformed input request: {why}, please reformat your input and try again."))
}

/// Reads a request body for `model`.
pub(in crate::simulate) fn read(model: String, body: &[u8]) -> Result<(Form, Prompt), Refused> {
    let body: Value = serde_json::from_slice(body).map_err(|error| malformed(&error.to_string()))?;
    let form = if body.get("prompt").is_some() { Form::Llama } else { Form::Claude };
    let maker = if form == Form::Llama { "meta" } else { "anthropic" };
    let base = bedrock_id(&model).base;
    if !base.starts_with("arn:") && base.contains('.') && !base.starts_with(maker) {
        return Err(malformed("#: required keys are missing for this model"));
    }
    let mut prompt = if form == Form::Llama { llama(body)? } else { claude(body)? };
    prompt.model = model;
    Ok((form, prompt))
}

#[derive(Deserialize)]
struct Llama {
    prompt: String,
    max_gen_len: Option<u64>,
    temperature: Option<f64>,
    top_p: Option<f64>,
}

fn llama(body: Value) -> Result<Prompt, Refused> {
    const KNOWN: [&str; 5] = ["prompt", "max_gen_len", "temperature", "top_p", "images"];
    if let Some(extra) = body.as_object().and_then(|body| body.keys().find(|key| !KNOWN.contains(&key.as_str()))) {
        return Err(malformed(&format!("#: extraneous key [{extra}] is not permitted")));
    }
    let request: Llama = serde_json::from_value(body).map_err(|error| malformed(&error.to_string()))?;
    within("temperature", request.temperature)?;
    within("top_p", request.top_p)?;
    let mut listener = Listener::default();
    for turn in request.prompt.split("<|start_header_id|>").skip(1) {
        let (role, said) = turn.split_once("<|end_header_id|>").unwrap_or(("", turn));
        let said = said.trim_start_matches('\n').split("<|eot_id|>").next().unwrap_or_default();
        hear(&mut listener, role, said);
    }
    // Llama 2: no headers, one instruction.
    if !request.prompt.contains("<|start_header_id|>") {
        let said = request.prompt.replace("<s>", "").replace("[INST]", "").replace("[/INST]", "");
        let (system, said) = match said.split_once("<</SYS>>") {
            Some((system, said)) => (system.replace("<<SYS>>", ""), said.to_owned()),
            None => (String::new(), said),
        };
        hear(&mut listener, "system", system.trim());
        hear(&mut listener, "user", said.trim());
    }
    let mut prompt = listener.into_prompt();
    // The prompt ends where the model is to begin: that is no prefill.
    prompt.parameters.clear();
    if prompt.question.trim().is_empty() {
        return Err(malformed("#/prompt: expected minLength: 1, actual: 0"));
    }
    // The service's own bound where the request names none.
    prompt.max_output = Some(request.max_gen_len.unwrap_or(512));
    Ok(prompt)
}

fn hear(listener: &mut Listener, role: &str, said: &str) {
    let speaker = match role {
        "system" => Speaker::System,
        "user" => Speaker::User,
        _ => Speaker::Other,
    };
    if !said.is_empty() {
        listener.message(speaker);
        listener.text(speaker, said);
    }
}

#[derive(Deserialize)]
struct Claude {
    anthropic_version: Option<String>,
    max_tokens: Option<u64>,
    messages: Option<Vec<Turn>>,
    system: Option<Value>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    #[serde(default)]
    stop_sequences: Vec<String>,
    #[serde(default)]
    tools: Vec<Value>,
    tool_choice: Option<Value>,
}

#[derive(Deserialize)]
struct Turn {
    role: String,
    content: Value,
}

fn claude(body: Value) -> Result<Prompt, Refused> {
    for foreign in ["model", "stream"] {
        if body.get(foreign).is_some() {
            return Err(malformed(&format!("{foreign}: Extra inputs are not permitted")));
        }
    }
    let request: Claude = serde_json::from_value(body).map_err(|error| malformed(&error.to_string()))?;
    if request.anthropic_version.as_deref() != Some(VERSION) {
        return Err(validation("Invalid API version: anthropic_version must be bedrock-2023-05-31."));
    }
    let Some(most) = request.max_tokens else { return Err(malformed("max_tokens: Field required")) };
    within("temperature", request.temperature)?;
    within("top_p", request.top_p)?;
    let mut listener = Listener::default();
    for text in request.system.iter().flat_map(texts) {
        listener.message(Speaker::System);
        listener.text(Speaker::System, text);
    }
    let turns = request.messages.unwrap_or_default();
    if turns.first().is_none_or(|turn| turn.role != "user") {
        return Err(malformed("messages: first message must use the \"user\" role"));
    }
    for turn in &turns {
        let speaker = if turn.role == "user" { Speaker::User } else { Speaker::Other };
        let blocks = turn.content.as_array().map_or(&[][..], Vec::as_slice);
        let answers = blocks.iter().any(|block| block["type"] == "tool_result");
        listener.message(if answers { Speaker::Tool } else { speaker });
        for text in texts(&turn.content) {
            if text.trim().is_empty() {
                return Err(malformed("messages: text content blocks must be non-empty"));
            }
            listener.text(speaker, text);
        }
        for _ in blocks.iter().filter(|block| block["type"] != "text") {
            listener.attachment();
        }
    }
    let mut prompt = listener.into_prompt();
    prompt.max_output = Some(most);
    prompt.parameters.push("max_tokens");
    for (name, value) in [("temperature", request.temperature), ("top_p", request.top_p)] {
        if value.is_some_and(|value| value < 1.0) {
            prompt.parameters.push(name);
        }
    }
    if !request.stop_sequences.is_empty() {
        prompt.parameters.push("stop");
    }
    prompt.stops = request.stop_sequences;
    prompt.tools = request.tools.iter().map(offered).collect();
    let wanted = request.tool_choice.as_ref().and_then(|choice| choice["type"].as_str());
    prompt.tool = match (wanted, request.tool_choice.as_ref().and_then(|choice| choice["name"].as_str())) {
        (Some("any"), _) => prompt.tools.first().cloned(),
        (Some("tool"), Some(name)) => prompt.tools.iter().find(|tool| tool.name == name).cloned(),
        (Some("none"), _) => {
            prompt.tools.clear();
            None
        }
        _ => None,
    };
    Ok(prompt)
}

fn within(name: &str, value: Option<f64>) -> Result<(), Refused> {
    match value.filter(|value| !(0.0..=1.0).contains(value)) {
        Some(value) => Err(malformed(&format!("#/{name}: {value} is not within 0 and 1"))),
        None => Ok(()),
    }
}

fn offered(tool: &Value) -> ForcedTool {
    ForcedTool {
        name: tool["name"].as_str().unwrap_or_default().to_owned(),
        schema: tool.get("input_schema").cloned().unwrap_or_default(),
    }
}

/// The texts of a content: a string, or blocks.
fn texts(content: &Value) -> Vec<&str> {
    match content {
        Value::String(text) => vec![text],
        Value::Array(blocks) => blocks.iter().filter_map(|block| block["text"].as_str()).collect(),
        _ => Vec::new(),
    }
}

fn claude_stop(stop: Stop) -> &'static str {
    match stop {
        Stop::End => "end_turn",
        Stop::Sequence => "stop_sequence",
        Stop::Length => "max_tokens",
        Stop::Tool => "tool_use",
        Stop::Filter => "refusal",
    }
}

fn llama_stop(stop: Stop) -> &'static str {
    if stop == Stop::Length { "length" } else { "stop" }
}

/// A whole answer in a form.
pub(in crate::simulate) fn complete(form: Form, prompt: &Prompt, answer: &Answer) -> Reply {
    let body = if form == Form::Llama {
        json!({"generation": answer.text, "prompt_token_count": prompt.input_tokens,
            "generation_token_count": answer.output_tokens, "stop_reason": llama_stop(answer.stop)})
    } else {
        let content = match &answer.tool {
            Some(call) => {
                json!([{"type": "tool_use", "id": format!("toolu_{}", prompt.hash), "name": call.name, "input": call.input}])
            }
            None => json!([{"type": "text", "text": answer.text}]),
        };
        json!({"id": format!("msg_bdrk_{}", prompt.hash), "type": "message", "role": "assistant", "model": prompt.model,
            "content": content, "stop_reason": claude_stop(answer.stop), "stop_sequence": null,
            "usage": {"input_tokens": prompt.input_tokens, "output_tokens": answer.output_tokens}})
    };
    Reply::json(200, &body)
        .header("x-amzn-bedrock-input-token-count", prompt.input_tokens.to_string())
        .header("x-amzn-bedrock-output-token-count", answer.output_tokens.to_string())
}

/// The pieces of an answer in a form.
pub(in crate::simulate) fn frames(form: Form, prompt: &Prompt, answer: &Answer) -> Vec<Bytes> {
    let metrics = json!({"inputTokenCount": prompt.input_tokens, "outputTokenCount": answer.output_tokens,
        "invocationLatency": 1, "firstByteLatency": 1});
    let mut pieces = if form == Form::Llama { llama_pieces(prompt, answer) } else { claude_pieces(prompt, answer) };
    if let Some(last) = pieces.last_mut().and_then(Value::as_object_mut) {
        last.insert("amazon-bedrock-invocationMetrics".to_owned(), metrics);
    }
    let chunk = |piece: &Value| event("chunk", &json!({"bytes": STANDARD.encode(piece.to_string())}));
    pieces.iter().map(chunk).collect()
}

fn llama_pieces(prompt: &Prompt, answer: &Answer) -> Vec<Value> {
    let mut pieces: Vec<Value> = text_pieces(&answer.text)
        .enumerate()
        .map(|(place, text)| {
            let asked = if place == 0 { json!(prompt.input_tokens) } else { Value::Null };
            json!({"generation": text, "prompt_token_count": asked, "generation_token_count": place + 1, "stop_reason": null})
        })
        .collect();
    pieces.push(json!({"generation": "", "prompt_token_count": null,
        "generation_token_count": answer.output_tokens, "stop_reason": llama_stop(answer.stop)}));
    pieces
}

fn claude_pieces(prompt: &Prompt, answer: &Answer) -> Vec<Value> {
    let message = json!({"id": format!("msg_bdrk_{}", prompt.hash), "type": "message", "role": "assistant",
        "model": prompt.model, "content": [], "stop_reason": null, "stop_sequence": null,
        "usage": {"input_tokens": prompt.input_tokens, "output_tokens": 1}});
    let mut pieces = vec![json!({"type": "message_start", "message": message})];
    let delta = |delta: Value| json!({"type": "content_block_delta", "index": 0, "delta": delta});
    if let Some(call) = &answer.tool {
        let block = json!({"type": "tool_use", "id": format!("toolu_{}", prompt.hash), "name": call.name, "input": {}});
        pieces.push(json!({"type": "content_block_start", "index": 0, "content_block": block}));
        let input = call.input.to_string();
        pieces.extend(text_pieces(&input).map(|text| delta(json!({"type": "input_json_delta", "partial_json": text}))));
    } else {
        pieces.push(json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}));
        pieces.extend(text_pieces(&answer.text).map(|text| delta(json!({"type": "text_delta", "text": text}))));
    }
    pieces.push(json!({"type": "content_block_stop", "index": 0}));
    pieces.push(json!({"type": "message_delta",
        "delta": {"stop_reason": claude_stop(answer.stop), "stop_sequence": null},
        "usage": {"output_tokens": answer.output_tokens}}));
    pieces.push(json!({"type": "message_stop"}));
    pieces
}

/// Whether the caller takes the answer: `accept` names JSON, anything, or nothing.
pub(in crate::simulate) fn accepts(headers: &HeaderMap) -> Result<(), Refused> {
    let accept = headers.get(axum::http::header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    if accept.contains('*') || accept.contains("json") || accept.contains("eventstream") {
        return Ok(());
    }
    Err(validation("The requested accept type is not supported."))
}
