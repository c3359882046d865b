//! Answers in pieces: AWS event streams, binary frames with headers and checksums.
//!
//! Invariant: the frames are encoded by Amazon's own encoder, and put together they say what the whole answer says.

use std::time::Duration;

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{millis, stop_reason, usage};
use crate::simulate::{
    answer::{Answer, text_pieces},
    prompt::Prompt,
};

/// A frame with these headers and a JSON payload.
fn frame(kind: &'static str, name_header: &'static str, name: &'static str, payload: &Value) -> Bytes {
    let header = |name: &'static str, value: &'static str| Header::new(name, HeaderValue::String(value.into()));
    let message = Message::new_from_parts(
        vec![header(name_header, name), header(":content-type", "application/json"), header(":message-type", kind)],
        payload.to_string().into_bytes(),
    );
    let mut bytes = Vec::new();
    // Only headers beyond all bounds cannot be written; an empty frame would then end the stream as a broken one.
    let _written = write_message_to(&message, &mut bytes);
    bytes.into()
}

pub(super) fn event(name: &'static str, payload: &Value) -> Bytes {
    frame("event", ":event-type", name, payload)
}

/// An exception in the middle of a stream.
pub(in crate::simulate) fn exception() -> Bytes {
    let payload = json!({
        "message": "The system encountered an unexpected error during processing. Try your request again.",
        "originalStatusCode": 500, "originalMessage": "simulated",
    });
    frame("exception", ":exception-type", "modelStreamErrorException", &payload)
}

/// The pieces of a Converse answer.
pub(in crate::simulate) fn frames(prompt: &Prompt, answer: &Answer, latency: Duration) -> Vec<Bytes> {
    let mut frames = vec![event("messageStart", &json!({"role": "assistant"}))];
    if let Some(call) = &answer.tool {
        let tool = json!({"toolUseId": format!("tooluse_{}", prompt.hash), "name": call.name});
        frames.push(event("contentBlockStart", &json!({"contentBlockIndex": 0, "start": {"toolUse": tool}})));
        frames.extend(text_pieces(&call.input.to_string()).map(|text| {
            event("contentBlockDelta", &json!({"contentBlockIndex": 0, "delta": {"toolUse": {"input": text}}}))
        }));
    } else {
        frames.extend(
            text_pieces(&answer.text)
                .map(|text| event("contentBlockDelta", &json!({"contentBlockIndex": 0, "delta": {"text": text}}))),
        );
    }
    frames.push(event("contentBlockStop", &json!({"contentBlockIndex": 0})));
    frames.push(event("messageStop", &json!({"stopReason": stop_reason(answer.stop)})));
    let metadata = json!({"usage": usage(prompt, answer), "metrics": {"latencyMs": millis(latency)}});
    frames.push(event("metadata", &metadata));
    frames
}
