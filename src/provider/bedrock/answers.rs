//! From the SDK's answers to our plain data: what whole answers and answers in pieces have in common, and the whole ones.
//!
//! Invariant: mechanical; a kind of content without a place of its own is counted, never lost without a word.

use aws_sdk_bedrockruntime::{
    operation::converse::ConverseOutput as Output,
    types::{
        Citation as SdkCitation, CitationGeneratedContent, CitationLocation, CitationSourceContent, ContentBlock,
        ConverseOutput, ReasoningContentBlock, TokenUsage as SdkUsage,
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::convert::value;
use crate::wire::converse::{Answer, AnswerBlock, Citation, TokenUsage};

pub(super) fn answer(output: Output) -> Answer {
    let content = match output.output {
        Some(ConverseOutput::Message(message)) => message.content,
        _ => Vec::new(),
    };
    Answer {
        content: content.into_iter().map(block).collect(),
        stop_reason: output.stop_reason.as_str().to_owned(),
        usage: output.usage.map(usage),
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
            let citations = cited.citations.unwrap_or_default();
            AnswerBlock::Cited { text: texts.collect(), citations: citations.into_iter().map(citation).collect() }
        }
        ContentBlock::ReasoningContent(ReasoningContentBlock::ReasoningText(thought)) => {
            AnswerBlock::Reasoning { text: thought.text, signature: thought.signature }
        }
        ContentBlock::ReasoningContent(ReasoningContentBlock::RedactedContent(sealed)) => {
            AnswerBlock::Redacted(STANDARD.encode(sealed))
        }
        ContentBlock::ToolUse(tool) => {
            AnswerBlock::ToolUse { id: tool.tool_use_id, name: tool.name, input: value(tool.input) }
        }
        ContentBlock::Image(_) => AnswerBlock::Unread("image"),
        ContentBlock::Audio(_) => AnswerBlock::Unread("audio"),
        ContentBlock::Video(_) => AnswerBlock::Unread("video"),
        ContentBlock::Document(_) => AnswerBlock::Unread("document"),
        ContentBlock::ToolResult(_) => AnswerBlock::Unread("tool result"),
        _ => AnswerBlock::Unread("unknown"),
    }
}

fn citation(source: SdkCitation) -> Citation {
    let quotes = source.source_content.unwrap_or_default().into_iter().filter_map(|of| match of {
        CitationSourceContent::Text(text) => Some(text),
        _ => None,
    });
    Citation {
        title: source.title,
        source: source.source,
        quote: quotes.collect(),
        location: source.location.and_then(location),
    }
}

/// The place in a source, as the service writes it.
pub(super) fn location(location: CitationLocation) -> Option<Value> {
    Some(match location {
        CitationLocation::Web(of) => json!({"web": {"url": of.url, "domain": of.domain}}),
        CitationLocation::DocumentChar(of) => {
            json!({"documentChar": {"documentIndex": of.document_index, "start": of.start, "end": of.end}})
        }
        CitationLocation::DocumentPage(of) => {
            json!({"documentPage": {"documentIndex": of.document_index, "start": of.start, "end": of.end}})
        }
        CitationLocation::DocumentChunk(of) => {
            json!({"documentChunk": {"documentIndex": of.document_index, "start": of.start, "end": of.end}})
        }
        CitationLocation::SearchResultLocation(of) => json!({"searchResultLocation":
            {"searchResultIndex": of.search_result_index, "start": of.start, "end": of.end}}),
        _ => return None,
    })
}

pub(super) fn usage(usage: SdkUsage) -> TokenUsage {
    let count = |tokens: i32| u64::try_from(tokens).unwrap_or(0);
    TokenUsage {
        input: count(usage.input_tokens),
        output: count(usage.output_tokens),
        cache_read: count(usage.cache_read_input_tokens.unwrap_or(0)),
        cache_write: count(usage.cache_write_input_tokens.unwrap_or(0)),
    }
}
