//! A completion in pieces: server-sent events, each a `chat.completion.chunk`.
//!
//! Invariant: put together, the pieces say what the whole completion says.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{finish_reason, usage};
use crate::{
    clock::Timestamp,
    simulate::{
        answer::{Answer, text_pieces},
        prompt::Prompt,
    },
};

fn event(data: &Value) -> Bytes {
    Bytes::from(format!("data: {data}\n\n"))
}

/// The pieces of an answer, the end mark among them.
pub(in crate::simulate) fn chunks(prompt: &Prompt, answer: &Answer, id: &str, now: Timestamp) -> Vec<Bytes> {
    let bare = id.trim_start_matches("req_");
    let chunk = |choices: Value, usage: Value| {
        let mut chunk = json!({
            "id": format!("chatcmpl-{bare}"),
            "object": "chat.completion.chunk",
            "created": now.as_micros() / 1_000_000,
            "model": prompt.model,
            "service_tier": "default",
            "system_fingerprint": null,
            "choices": choices,
        });
        // Asked for, the field is there from the first piece on.
        if let (true, Some(chunk)) = (prompt.with_usage, chunk.as_object_mut()) {
            chunk.insert("usage".to_owned(), usage);
        }
        event(&chunk)
    };
    let piece = |index: u64, delta: Value, reason: Value| {
        chunk(json!([{"index": index, "delta": delta, "logprobs": null, "finish_reason": reason}]), Value::Null)
    };
    let mut chunks = Vec::new();
    for index in 0..prompt.choices {
        let content = if answer.tool.is_some() { Value::Null } else { json!("") };
        chunks.push(piece(index, json!({"role": "assistant", "content": content, "refusal": null}), Value::Null));
        if let Some(call) = &answer.tool {
            let function = json!({"name": call.name, "arguments": ""});
            let begin =
                json!([{"index": 0, "id": format!("call_{bare}{index}"), "type": "function", "function": function}]);
            chunks.push(piece(index, json!({"tool_calls": begin}), Value::Null));
            for text in text_pieces(&call.input.to_string()) {
                let more = json!([{"index": 0, "function": {"arguments": text}}]);
                chunks.push(piece(index, json!({"tool_calls": more}), Value::Null));
            }
        } else {
            chunks.extend(text_pieces(&answer.text).map(|text| piece(index, json!({"content": text}), Value::Null)));
        }
        chunks.push(piece(index, json!({}), json!(finish_reason(answer.stop))));
    }
    if prompt.with_usage {
        chunks.push(chunk(json!([]), usage(prompt, answer)));
    }
    chunks.push(Bytes::from_static(b"data: [DONE]\n\n"));
    chunks
}

/// An error in the middle of a stream.
pub(in crate::simulate) fn error_chunk() -> Bytes {
    event(&json!({"error": {
        "message": "The server had an error processing your request. Sorry about that!",
        "type": "server_error", "param": null, "code": null,
    }}))
}
