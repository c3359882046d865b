//! Llama's form: one prompt, written by the template that the model was trained on.
//!
//! Invariant: no text of a message can pass for a mark of the template, so nobody speaks in another's name.

use serde_json::{Map, Value, json};

use crate::{
    catalog::id::bedrock_id,
    wire::{
        Refusal,
        converse::{Answer, Block, Message, Request, Role, TokenUsage},
    },
};

/// The template of a generation of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Template {
    /// `[INST] … [/INST]`.
    Two,
    /// `<|start_header_id|>user<|end_header_id|>`.
    Three,
    /// `<|header_start|>user<|header_end|>`.
    Four,
}

impl Template {
    /// By the model's id. An imported model's ARN tells nothing; those are mostly of the third generation.
    fn of(model: &str) -> Self {
        let id = bedrock_id(model).base;
        if id.contains("llama2") || id.contains("llama-2") {
            Self::Two
        } else if id.contains("llama4") || id.contains("llama-4") {
            Self::Four
        } else {
            Self::Three
        }
    }

    /// Marks that no text may hold.
    fn marks(self) -> &'static [&'static str] {
        match self {
            Self::Two => &["[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<s>", "</s>"],
            Self::Three => &[
                "<|begin_of_text|>",
                "<|end_of_text|>",
                "<|start_header_id|>",
                "<|end_header_id|>",
                "<|eot_id|>",
                "<|eom_id|>",
            ],
            Self::Four => {
                &["<|begin_of_text|>", "<|end_of_text|>", "<|header_start|>", "<|header_end|>", "<|eot|>", "<|eom|>"]
            }
        }
    }

    fn prompt(self, system: &str, turns: &[(Role, String)]) -> String {
        match self {
            Self::Two => two(system, turns),
            Self::Three => headers(system, turns, ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]),
            Self::Four => headers(system, turns, ["<|header_start|>", "<|header_end|>", "<|eot|>"]),
        }
    }
}

fn two(system: &str, turns: &[(Role, String)]) -> String {
    let mut prompt = String::new();
    let mut system = if system.is_empty() { String::new() } else { format!("<<SYS>>\n{system}\n<</SYS>>\n\n") };
    for (place, (role, text)) in turns.iter().enumerate() {
        let last = place + 1 == turns.len();
        match role {
            Role::User | Role::System => {
                prompt.push_str("<s>[INST] ");
                prompt.push_str(&std::mem::take(&mut system));
                prompt.push_str(text.trim());
                prompt.push_str(" [/INST]");
            }
            Role::Assistant => {
                prompt.push(' ');
                prompt.push_str(text.trim());
                // The model goes on from a last message of its own.
                prompt.push_str(if last { "" } else { " </s>" });
            }
        }
    }
    prompt
}

fn headers(system: &str, turns: &[(Role, String)], [start, end, over]: [&str; 3]) -> String {
    let mut prompt = String::from("<|begin_of_text|>");
    let mut turn = |role: &str, text: &str, open: bool| {
        let text = text.trim();
        let over = if open { "" } else { over };
        for piece in [start, role, end, "\n\n", text, over] {
            prompt.push_str(piece);
        }
    };
    if !system.is_empty() {
        turn("system", system, false);
    }
    for (place, (role, text)) in turns.iter().enumerate() {
        match role {
            Role::User => turn("user", text, false),
            Role::Assistant => turn("assistant", text, place + 1 == turns.len()),
            Role::System => turn("system", text, false),
        }
    }
    if turns.last().is_none_or(|(role, _)| *role != Role::Assistant) {
        turn("assistant", "", true);
    }
    prompt
}

pub(super) fn write(model: &str, request: &Request) -> Result<Value, Refusal> {
    if request.tool_config.is_some() {
        return Err(beyond("tools", "tools"));
    }
    if request.output_config.is_some() {
        return Err(beyond("response_format", "an output schema"));
    }
    if !request.inference_config.stop_sequences.is_empty() {
        return Err(beyond("stop", "stop sequences"));
    }
    let template = Template::of(model);
    let system = texts(&request.system, template)?;
    let turns = request.messages.iter().map(|Message { role, content }| Ok((*role, texts(content, template)?)));
    let turns = turns.collect::<Result<Vec<_>, Refusal>>()?;
    let mut body = Map::new();
    body.insert("prompt".to_owned(), template.prompt(system.trim(), &turns).into());
    let inference = &request.inference_config;
    body.insert("max_gen_len".to_owned(), inference.max_tokens.into());
    for (name, number) in [("temperature", inference.temperature), ("top_p", inference.top_p)] {
        if let Some(number) = number {
            body.insert(name.to_owned(), number.into());
        }
    }
    body.extend(request.additional_model_request_fields.clone());
    Ok(Value::Object(body))
}

/// The text of a turn.
fn texts(content: &[Block], template: Template) -> Result<String, Refusal> {
    let mut texts = Vec::with_capacity(content.len());
    for block in content {
        let text = match block {
            Block::Text(text) => text.as_str(),
            Block::Image(_) => return Err(beyond("messages", "images")),
            Block::Document(_) => return Err(beyond("messages", "documents")),
            Block::ToolUse(_) | Block::ToolResult(_) => return Err(beyond("messages", "tool calls and results")),
        };
        if let Some(mark) = template.marks().iter().find(|mark| text.contains(**mark)) {
            let message = format!(
                "messages: the text holds {mark:?}, by which this model tells who speaks, and its prompt form cannot say \
                 that it is only text: take it out, or send such jobs to a model that Converse serves"
            );
            return Err(Refusal::of("messages", message));
        }
        texts.push(text);
    }
    Ok(texts.join("\n"))
}

fn beyond(param: &str, what: &str) -> Refusal {
    let message = format!(
        "{param}: Llama's prompt form of InvokeModel has no place for {what}: leave them out, or send such jobs to a model \
         that Converse serves"
    );
    Refusal::of(param, message)
}

pub(super) fn read(body: Value) -> Option<Answer> {
    let text = body.get("generation")?.as_str()?.to_owned();
    Some(Answer {
        content: vec![crate::wire::converse::AnswerBlock::Text(text)],
        stop_reason: stop_reason(body.get("stop_reason").and_then(Value::as_str).unwrap_or("stop")).to_owned(),
        usage: counts(&body),
        ..Answer::default()
    })
}

/// Converse's word for Llama's.
pub(super) fn stop_reason(word: &str) -> &str {
    match word {
        "stop" => "end_turn",
        "length" => "max_tokens",
        word => word,
    }
}

pub(super) fn counts(body: &Value) -> Option<TokenUsage> {
    let count = |name: &str| body.get(name).and_then(Value::as_u64);
    Some(TokenUsage {
        input: count("prompt_token_count")?,
        output: count("generation_token_count")?,
        ..TokenUsage::default()
    })
}

/// For an error in a chunk's place: Llama has no form of its own for it.
pub(super) fn is_chunk(chunk: &Value) -> bool {
    chunk.get("generation").is_some() || *chunk == json!({}) || chunk.get("amazon-bedrock-invocationMetrics").is_some()
}
