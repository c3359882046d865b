//! Between our plain Converse data and the SDK's types.
//!
//! Invariant: mechanical: every field goes over as it is, and nothing is decided here. (The SDK holds temperature and
//! top_p in 32 bits: 0.7 goes out as 0.699999988.)

use aws_sdk_bedrockruntime::{
    operation::converse::{ConverseOutput as Output, builders::ConverseFluentBuilder},
    types::{
        CitationGeneratedContent, ContentBlock, ConversationRole, ConverseOutput, InferenceConfiguration, Message,
        ReasoningContentBlock, SystemContentBlock,
    },
};
use aws_smithy_types::{Document, Number};
use serde_json::Value;

use crate::{
    job::Fault,
    wire::{
        converse::{Answer, AnswerBlock, Block, Request, Role, TokenUsage},
        faults::Classified,
    },
};

pub(super) fn request(call: ConverseFluentBuilder, request: Request) -> Result<ConverseFluentBuilder, Classified> {
    let system: Vec<SystemContentBlock> = request
        .system
        .into_iter()
        .filter_map(|block| match block {
            Block::Text(text) => Some(SystemContentBlock::Text(text)),
            _ => None,
        })
        .collect();
    let messages = request.messages.into_iter().map(message).collect::<Result<Vec<_>, _>>()?;
    let inference = request.inference_config;
    #[expect(clippy::cast_possible_truncation, reason = "the SDK's own width; the values lie between 0 and 1")]
    let narrow = |number: f64| number as f32;
    let inference = InferenceConfiguration::builder()
        .max_tokens(i32::try_from(inference.max_tokens).unwrap_or(i32::MAX))
        .set_temperature(inference.temperature.map(narrow))
        .set_top_p(inference.top_p.map(narrow))
        .set_stop_sequences((!inference.stop_sequences.is_empty()).then_some(inference.stop_sequences))
        .build();
    let fields = request.additional_model_request_fields;
    let metadata = request.request_metadata;
    Ok(call
        .set_system((!system.is_empty()).then_some(system))
        .set_messages(Some(messages))
        .inference_config(inference)
        .set_additional_model_request_fields((!fields.is_empty()).then(|| document(Value::Object(fields))))
        .set_request_metadata((!metadata.is_empty()).then(|| metadata.into_iter().collect())))
}

fn message(message: crate::wire::converse::Message) -> Result<Message, Classified> {
    let role = match message.role {
        Role::User => ConversationRole::User,
        Role::Assistant => ConversationRole::Assistant,
    };
    let content = message
        .content
        .into_iter()
        .filter_map(|block| match block {
            Block::Text(text) => Some(ContentBlock::Text(text)),
            _ => None,
        })
        .collect();
    Message::builder()
        .role(role)
        .set_content(Some(content))
        .build()
        .map_err(|error| Classified::unbilled(Fault::Refused, format!("the SDK does not take a message: {error}")))
}

pub(super) fn answer(output: Output) -> Answer {
    let content = match output.output {
        Some(ConverseOutput::Message(message)) => message.content,
        _ => Vec::new(),
    };
    let count = |tokens: i32| u64::try_from(tokens).unwrap_or(0);
    Answer {
        content: content.into_iter().map(block).collect(),
        stop_reason: output.stop_reason.as_str().to_owned(),
        usage: output.usage.map(|usage| TokenUsage {
            input: count(usage.input_tokens),
            output: count(usage.output_tokens),
            cache_read: count(usage.cache_read_input_tokens.unwrap_or(0)),
            cache_write: count(usage.cache_write_input_tokens.unwrap_or(0)),
        }),
        additional_fields: output.additional_model_response_fields.map(value),
        service_tier: output.service_tier.map(|tier| tier.r#type.as_str().to_owned()),
        guardrail: output.trace.and_then(|trace| trace.guardrail?.action_reason),
    }
}

fn block(block: ContentBlock) -> AnswerBlock {
    match block {
        ContentBlock::Text(text) => AnswerBlock::Text(text),
        ContentBlock::CitationsContent(cited) => {
            let texts = cited.content.unwrap_or_default().into_iter().filter_map(|piece| match piece {
                CitationGeneratedContent::Text(text) => Some(text),
                _ => None,
            });
            AnswerBlock::Text(texts.collect())
        }
        ContentBlock::ReasoningContent(ReasoningContentBlock::ReasoningText(thought)) => {
            AnswerBlock::Reasoning { text: thought.text, signature: thought.signature }
        }
        ContentBlock::ToolUse(tool) => {
            AnswerBlock::ToolUse { id: tool.tool_use_id, name: tool.name, input: value(tool.input) }
        }
        _ => AnswerBlock::Unread("another kind than text, reasoning and tool calls"),
    }
}

/// JSON as the SDK holds it.
pub(super) fn document(value: Value) -> Document {
    match value {
        Value::Null => Document::Null,
        Value::Bool(truth) => Document::Bool(truth),
        Value::String(text) => Document::String(text),
        Value::Number(number) => Document::Number(match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => Number::PosInt(number),
            (None, Some(number)) => Number::NegInt(number),
            (None, None) => Number::Float(number.as_f64().unwrap_or(0.0)),
        }),
        Value::Array(items) => Document::Array(items.into_iter().map(document).collect()),
        Value::Object(fields) => {
            Document::Object(fields.into_iter().map(|(name, value)| (name, document(value))).collect())
        }
    }
}

/// JSON as we hold it; the SDK's objects have no order, so names are sorted.
fn value(document: Document) -> Value {
    match document {
        Document::Null => Value::Null,
        Document::Bool(truth) => Value::Bool(truth),
        Document::String(text) => Value::String(text),
        Document::Number(Number::PosInt(number)) => number.into(),
        Document::Number(Number::NegInt(number)) => number.into(),
        Document::Number(Number::Float(number)) => number.into(),
        Document::Array(items) => items.into_iter().map(value).collect(),
        Document::Object(fields) => {
            let mut fields: Vec<(String, Document)> = fields.into_iter().collect();
            fields.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(fields.into_iter().map(|(name, document)| (name, value(document))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_goes_there_and_back() {
        for json in [
            json!(null),
            json!({ "a": [1, -2, 2.5, "x", true, null], "b": { "deep": {} } }),
            json!(u64::MAX),
            json!(i64::MIN),
        ] {
            assert_eq!(value(document(json.clone())), json);
        }
    }
}
