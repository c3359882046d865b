//! An answer in Anthropic's form.
//!
//! Invariant: every block has a place in the answer; those of other kinds than we know are counted there.

use serde_json::{Value, json};

use crate::wire::converse::{Answer, AnswerBlock, Citation, TokenUsage};

pub(super) fn read(mut body: Value) -> Option<Answer> {
    let content = body.get_mut("content").and_then(Value::as_array_mut).map(std::mem::take)?;
    let stop_reason = body.get("stop_reason").and_then(Value::as_str).unwrap_or("end_turn").to_owned();
    let usage = body.get("usage").and_then(counts);
    Some(Answer {
        content: content.iter().map(block).collect(),
        stop_reason,
        usage,
        service_tier: body.pointer("/usage/service_tier").and_then(Value::as_str).map(str::to_owned),
        additional_fields: details(body.get("usage")),
        guardrail: None,
    })
}

/// The account of output tokens, as Converse hands it back.
pub(super) fn details(usage: Option<&Value>) -> Option<Value> {
    let details = usage?.get("output_tokens_details").filter(|details| !details.is_null())?;
    Some(json!({ "usage": { "output_tokens_details": details } }))
}

pub(super) fn counts(usage: &Value) -> Option<TokenUsage> {
    let count = |name: &str| usage.get(name).and_then(Value::as_u64);
    Some(TokenUsage {
        input: count("input_tokens")?,
        output: count("output_tokens")?,
        cache_read: count("cache_read_input_tokens").unwrap_or(0),
        cache_write: count("cache_creation_input_tokens").unwrap_or(0),
    })
}

fn block(block: &Value) -> AnswerBlock {
    let text = |name: &str| block.get(name).and_then(Value::as_str).map(str::to_owned);
    let known = match block.get("type").and_then(Value::as_str).unwrap_or_default() {
        "text" => text("text").map(|text| {
            let citations: Vec<Citation> =
                block.get("citations").and_then(Value::as_array).into_iter().flatten().map(citation).collect();
            if citations.is_empty() { AnswerBlock::Text(text) } else { AnswerBlock::Cited { text, citations } }
        }),
        "thinking" => text("thinking").map(|thought| AnswerBlock::Reasoning {
            text: thought,
            signature: text("signature").filter(|signature| !signature.is_empty()),
        }),
        "redacted_thinking" => text("data").map(AnswerBlock::Redacted),
        "tool_use" => text("id").zip(text("name")).map(|(id, name)| AnswerBlock::ToolUse {
            id,
            name,
            input: block.get("input").cloned().unwrap_or_default(),
        }),
        _ => None,
    };
    known.unwrap_or_else(|| AnswerBlock::Unread(unread(block)))
}

/// The name of a kind that we do not read.
pub(super) fn unread(block: &Value) -> &'static str {
    match block.get("type").and_then(Value::as_str).unwrap_or_default() {
        "server_tool_use" => "a tool that the provider ran",
        kind if kind.ends_with("_tool_result") => "the result of a tool that the provider ran",
        "image" => "image",
        _ => "a block of Claude's own",
    }
}

/// A citation in Converse's terms.
pub(super) fn citation(citation: &Value) -> Citation {
    let text = |name: &str| citation.get(name).and_then(Value::as_str).map(str::to_owned);
    let range = |start: &str, end: &str| {
        json!({
            "documentIndex": citation.get("document_index"), "start": citation.get(start), "end": citation.get(end)
        })
    };
    let location = match citation.get("type").and_then(Value::as_str).unwrap_or_default() {
        "char_location" => Some(json!({ "documentChar": range("start_char_index", "end_char_index") })),
        "page_location" => Some(json!({ "documentPage": range("start_page_number", "end_page_number") })),
        "content_block_location" => Some(json!({ "documentChunk": range("start_block_index", "end_block_index") })),
        "web_search_result_location" => text("url").map(|url| json!({ "web": { "url": url } })),
        _ => None,
    };
    Citation {
        title: text("document_title").or_else(|| text("title")),
        source: text("source").or_else(|| text("url")),
        quote: text("cited_text").unwrap_or_default(),
        location,
    }
}
