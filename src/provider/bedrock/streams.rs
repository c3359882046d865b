//! Answers of Bedrock in pieces: the SDK's event streams as our plain events.
//!
//! Invariant: mechanical. What an event means is read elsewhere; what an exception in the stream means is in the table
//! of faults.

use aws_sdk_bedrockruntime::{
    error::SdkError,
    operation::{
        converse::ConverseInput,
        converse_stream::{ConverseStreamInput, builders::ConverseStreamInputBuilder},
    },
    primitives::event_stream::EventReceiver,
    types::{
        CitationsDelta, ContentBlockDelta, ContentBlockStart, ConverseStreamOutput, GuardrailStreamConfiguration,
        ReasoningContentBlockDelta, ResponseStream,
        error::{ConverseStreamOutputError, ResponseStreamError},
    },
};
use aws_smithy_types::event_stream::RawMessage;
use base64::{Engine, engine::general_purpose::STANDARD};

use super::{answers, convert};
use crate::{
    provider::{
        sockets::{Lost, chain},
        streaming::Source,
    },
    wire::{
        converse::{self, BlockDelta, BlockStart, StreamEvent},
        faults::{Classified, bedrock},
        invoke,
        stream::{Event, ended_early},
    },
};

/// The same request for the operation that streams.
pub(super) fn input(input: ConverseInput) -> ConverseStreamInputBuilder {
    let guardrail = input.guardrail_config.map(|guardrail| {
        GuardrailStreamConfiguration::builder()
            .guardrail_identifier(guardrail.guardrail_identifier)
            .guardrail_version(guardrail.guardrail_version)
            .trace(guardrail.trace)
            .build()
    });
    ConverseStreamInput::builder()
        .set_model_id(input.model_id)
        .set_messages(input.messages)
        .set_system(input.system)
        .set_inference_config(input.inference_config)
        .set_tool_config(input.tool_config)
        .set_guardrail_config(guardrail)
        .set_additional_model_request_fields(input.additional_model_request_fields)
        .set_additional_model_response_field_paths(input.additional_model_response_field_paths)
        .set_request_metadata(input.request_metadata)
        .set_performance_config(input.performance_config)
        .set_service_tier(input.service_tier)
        .set_output_config(input.output_config)
}

/// The pieces of a Converse answer.
pub(super) struct Converse {
    pub receiver: EventReceiver<ConverseStreamOutput, ConverseStreamOutputError>,
    /// Gone once the stream is over.
    pub decoder: Option<converse::Stream>,
}

impl Source for Converse {
    async fn next(&mut self) -> Result<Option<Vec<Event>>, Classified> {
        let mut out = Vec::new();
        let Some(decoder) = &mut self.decoder else { return Ok(None) };
        match self.receiver.recv().await {
            Ok(Some(event)) => decoder.push(plain(event), &mut out)?,
            Ok(None) => {
                if let Some(decoder) = self.decoder.take() {
                    decoder.finish()?;
                }
                return Ok(None);
            }
            Err(error) => return Err(broken(&error, converse_exception)),
        }
        Ok(Some(out))
    }
}

/// The pieces of an answer in a model family's own form.
pub(super) struct Invoke {
    pub receiver: EventReceiver<ResponseStream, ResponseStreamError>,
    /// Gone once the stream is over.
    pub decoder: Option<invoke::Stream>,
}

impl Source for Invoke {
    async fn next(&mut self) -> Result<Option<Vec<Event>>, Classified> {
        let mut out = Vec::new();
        let Some(decoder) = &mut self.decoder else { return Ok(None) };
        match self.receiver.recv().await {
            Ok(Some(ResponseStream::Chunk(part))) => {
                let bytes = part.bytes.map(aws_smithy_types::Blob::into_inner).unwrap_or_default();
                decoder.push(&bytes, &mut out)?;
            }
            Ok(Some(_)) => {}
            Ok(None) => {
                if let Some(decoder) = self.decoder.take() {
                    decoder.finish(&mut out)?;
                }
            }
            Err(error) => return Err(broken(&error, invoke_exception)),
        }
        Ok(Some(out))
    }
}

/// A stream that ended by an exception, or was cut.
fn broken<E>(error: &SdkError<E, RawMessage>, exception: fn(&E) -> Option<Classified>) -> Classified
where
    E: std::error::Error + 'static,
{
    match error {
        SdkError::ServiceError(context) => exception(context.err())
            // An exception that is newer than this release, or an event that cannot be read.
            .unwrap_or_else(|| bedrock::in_stream("", &chain(context.err()), None)),
        // The last frame is not whole, or its checksum is wrong.
        SdkError::ResponseError(_) => ended_early(&chain(error)),
        _ => Lost::of_read(error).0,
    }
}

fn converse_exception(error: &ConverseStreamOutputError) -> Option<Classified> {
    use ConverseStreamOutputError as Exception;
    let (name, message, status) = match error {
        Exception::InternalServerException(of) => ("InternalServerException", of.message(), None),
        Exception::ModelStreamErrorException(of) => {
            ("ModelStreamErrorException", of.message(), of.original_status_code())
        }
        Exception::ValidationException(of) => ("ValidationException", of.message(), None),
        Exception::ThrottlingException(of) => ("ThrottlingException", of.message(), None),
        Exception::ServiceUnavailableException(of) => ("ServiceUnavailableException", of.message(), None),
        _ => return None,
    };
    Some(in_stream(name, message, status))
}

fn invoke_exception(error: &ResponseStreamError) -> Option<Classified> {
    use ResponseStreamError as Exception;
    let (name, message, status) = match error {
        Exception::InternalServerException(of) => ("InternalServerException", of.message(), None),
        Exception::ModelStreamErrorException(of) => {
            ("ModelStreamErrorException", of.message(), of.original_status_code())
        }
        Exception::ValidationException(of) => ("ValidationException", of.message(), None),
        Exception::ThrottlingException(of) => ("ThrottlingException", of.message(), None),
        Exception::ModelTimeoutException(of) => ("ModelTimeoutException", of.message(), None),
        Exception::ServiceUnavailableException(of) => ("ServiceUnavailableException", of.message(), None),
        _ => return None,
    };
    Some(in_stream(name, message, status))
}

fn in_stream(name: &str, message: Option<&str>, status: Option<i32>) -> Classified {
    bedrock::in_stream(name, message.unwrap_or_default(), status.and_then(|status| u16::try_from(status).ok()))
}

/// An event as plain data.
fn plain(event: ConverseStreamOutput) -> StreamEvent {
    let place = |index: i32| u32::try_from(index).unwrap_or(0);
    match event {
        ConverseStreamOutput::MessageStart(_) => StreamEvent::MessageStart,
        ConverseStreamOutput::ContentBlockStart(event) => {
            let start = match event.start {
                Some(ContentBlockStart::ToolUse(tool)) => BlockStart::ToolUse { id: tool.tool_use_id, name: tool.name },
                Some(ContentBlockStart::Image(_)) => BlockStart::Unread("image"),
                Some(ContentBlockStart::ToolResult(_)) => BlockStart::Unread("tool result"),
                _ => BlockStart::Unread("unknown"),
            };
            StreamEvent::BlockStart { index: place(event.content_block_index), start }
        }
        ConverseStreamOutput::ContentBlockDelta(event) => {
            let index = place(event.content_block_index);
            event.delta.map_or(StreamEvent::Unknown, |of| StreamEvent::BlockDelta { index, delta: delta(of) })
        }
        ConverseStreamOutput::ContentBlockStop(event) => {
            StreamEvent::BlockStop { index: place(event.content_block_index) }
        }
        ConverseStreamOutput::MessageStop(event) => StreamEvent::MessageStop {
            stop_reason: event.stop_reason.as_str().to_owned(),
            additional_fields: event.additional_model_response_fields.map(convert::value),
        },
        ConverseStreamOutput::Metadata(event) => StreamEvent::Metadata {
            usage: event.usage.map(answers::usage),
            service_tier: event.service_tier.map(|tier| tier.r#type.as_str().to_owned()),
            guardrail: event.trace.and_then(|trace| trace.guardrail?.action_reason),
        },
        _ => StreamEvent::Unknown,
    }
}

fn delta(delta: ContentBlockDelta) -> BlockDelta {
    match delta {
        ContentBlockDelta::Text(text) => BlockDelta::Text(text),
        ContentBlockDelta::ToolUse(tool) => BlockDelta::ToolInput(tool.input),
        ContentBlockDelta::ReasoningContent(thought) => match thought {
            ReasoningContentBlockDelta::Text(text) => BlockDelta::Reasoning(text),
            ReasoningContentBlockDelta::Signature(signature) => BlockDelta::Signature(signature),
            ReasoningContentBlockDelta::RedactedContent(sealed) => BlockDelta::Redacted(STANDARD.encode(sealed)),
            _ => BlockDelta::Unread("reasoning"),
        },
        ContentBlockDelta::Citation(source) => BlockDelta::Citation(citation(source)),
        ContentBlockDelta::Image(_) => BlockDelta::Unread("image"),
        ContentBlockDelta::ToolResult(_) => BlockDelta::Unread("tool result"),
        _ => BlockDelta::Unread("unknown"),
    }
}

fn citation(source: CitationsDelta) -> converse::Citation {
    converse::Citation {
        title: source.title,
        source: source.source,
        quote: source.source_content.unwrap_or_default().into_iter().filter_map(|of| of.text).collect(),
        location: source.location.and_then(answers::location),
    }
}
