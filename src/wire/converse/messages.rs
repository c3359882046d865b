//! The conversation: OpenAI's messages to Converse's alternating turns.
//!
//! Invariant: every character of text that the job sent is in the request, in its order, or the request is refused;
//! blank pieces, which Converse rejects, are joined to their neighbours. Roles alternate, the user first and last
//! (unless the model is known to go on from its own message).

use serde_json::Value;

use super::{Block, Message, Request, Role, family::Habits};
use crate::{
    job::FidelityAction,
    wire::{
        Refusal,
        fidelity::Ledger,
        parameters::{Messages, short},
    },
};

/// Stands where Converse wants a user to have spoken first.
const OPENING: &str = "(The conversation begins with your message.)";
/// Stands where Converse wants a user to have spoken last.
const GO_ON: &str = "(Please continue.)";
/// Marks system text inside the conversation as not the user's own.
const OPERATOR: &str = "Note from the operator of this conversation: ";

/// Fields of an assistant message that a caller may send back as it got them, and that add nothing to the prompt.
const ECHOES: [&str; 4] = ["annotations", "reasoning", "reasoning_content", "reasoning_details"];
/// Fields that say nothing when they are null, false or empty.
const TOOL_FIELDS: [&str; 3] = ["tool_calls", "function_call", "audio"];

pub(super) fn carry(
    messages: &Messages<'_>,
    habits: Habits<'_>,
    ledger: &mut Ledger<'_>,
    request: &mut Request,
) -> Result<(), Refusal> {
    if let Some(text) = messages.added_system() {
        request.system.push(Block::Text(text.to_owned()));
    }
    for (index, message) in messages.iter() {
        let Some(fields) = message.as_object() else {
            return Err(Refusal::of(format!("messages[{index}]"), format!("messages[{index}]: must be an object")));
        };
        let role = fields.get("role").and_then(Value::as_str).unwrap_or_default();
        check_fields(index, role, fields, ledger)?;
        match role {
            "system" | "developer" => {
                let texts = texts(index, role, message, ledger)?;
                if request.messages.is_empty() {
                    request.system.extend(texts.into_iter().map(Block::Text));
                } else if !texts.is_empty() {
                    ledger.inexact(
                        format!("messages[{index}]"),
                        FidelityAction::Emulated,
                        "system text inside the conversation goes as a marked user message in the same place",
                    )?;
                    let marked = texts.into_iter().map(|text| format!("{OPERATOR}{text}")).collect();
                    append(request, Role::User, marked);
                }
            }
            "user" => {
                let texts = texts(index, role, message, ledger)?;
                if texts.is_empty() {
                    let param = format!("messages[{index}].content");
                    let message = format!("{param}: is blank, which Bedrock rejects: send text, or leave it out");
                    return Err(Refusal::of(param, message));
                }
                append(request, Role::User, texts);
            }
            "assistant" => {
                let texts = texts(index, role, message, ledger)?;
                if !texts.is_empty() && request.messages.is_empty() {
                    ledger.inexact(
                        format!("messages[{index}]"),
                        FidelityAction::Emulated,
                        "a conversation must start with the user on Bedrock: a line saying so goes before it",
                    )?;
                    append(request, Role::User, vec![OPENING.to_owned()]);
                }
                append(request, Role::Assistant, texts);
            }
            "tool" | "function" => {
                return Err(ledger.impossible(
                    format!("messages[{index}].role"),
                    "this release cannot carry tool messages to Bedrock Converse",
                ));
            }
            _ => {
                let param = format!("messages[{index}].role");
                let message = format!("{param}: must be system, developer, user or assistant");
                return Err(Refusal::of(param, message));
            }
        }
    }
    close(messages, habits, ledger, request)
}

/// The rules for the end of a conversation.
fn close(
    messages: &Messages<'_>,
    habits: Habits<'_>,
    ledger: &mut Ledger<'_>,
    request: &mut Request,
) -> Result<(), Refusal> {
    let place = messages.iter().last().map_or(0, |(index, _)| index);
    let Some(last) = request.messages.last_mut() else {
        return Err(Refusal::of(
            "messages",
            "messages: Bedrock needs at least one message that is not system text: send the task as a user message",
        ));
    };
    if last.role == Role::User {
        return Ok(());
    }
    if habits.continues_own_message() {
        ledger.inexact(
            format!("messages[{place}]"),
            FidelityAction::Approximated,
            "the model goes on from the last assistant message instead of answering it with a new one",
        )?;
        if let Some(Block::Text(text)) = last.content.last_mut() {
            // The service rejects a prefill that ends in whitespace.
            text.truncate(text.trim_end().len());
        }
    } else {
        ledger.inexact(
            format!("messages[{place}]"),
            FidelityAction::Emulated,
            "the last message must be the user's on this model: a line asking to continue goes after it",
        )?;
        append(request, Role::User, vec![GO_ON.to_owned()]);
    }
    Ok(())
}

fn append(request: &mut Request, role: Role, texts: Vec<String>) {
    if texts.is_empty() {
        return;
    }
    let blocks = texts.into_iter().map(Block::Text);
    match request.messages.last_mut() {
        Some(last) if last.role == role => last.content.extend(blocks),
        _ => request.messages.push(Message { role, content: blocks.collect() }),
    }
}

fn check_fields(
    index: usize,
    role: &str,
    fields: &serde_json::Map<String, Value>,
    ledger: &mut Ledger<'_>,
) -> Result<(), Refusal> {
    for (name, value) in fields {
        let says_nothing = match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(items) => items.is_empty(),
            _ => false,
        };
        match name.as_str() {
            "role" | "content" => {}
            "refusal" if role == "assistant" => {}
            _ if says_nothing => {}
            // The message is refused for its role; no need to name a field of it first.
            _ if matches!(role, "tool" | "function") => {}
            "name" => ledger.inexact(
                format!("messages[{index}].name"),
                FidelityAction::Dropped,
                "Converse has no names on messages",
            )?,
            name if TOOL_FIELDS.contains(&name) => {
                return Err(ledger.impossible(
                    format!("messages[{index}].{name}"),
                    "this release cannot carry tool calls or audio to Bedrock Converse",
                ));
            }
            name if ECHOES.contains(&name) => ledger.inexact(
                format!("messages[{index}].{name}"),
                FidelityAction::Dropped,
                "what an earlier answer carried beside its text is not sent back",
            )?,
            name => ledger.breach(
                format!("messages[{index}].{name}"),
                "this release does not know how to carry this field to Bedrock Converse",
            )?,
        }
    }
    Ok(())
}

/// The message's text, blank pieces joined to their neighbours; empty when there is nothing but blanks.
fn texts(index: usize, role: &str, message: &Value, ledger: &mut Ledger<'_>) -> Result<Vec<String>, Refusal> {
    let mut pieces: Vec<&str> = Vec::new();
    match message.get("content") {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) => pieces.push(text),
        Some(Value::Array(parts)) => {
            for (place, part) in parts.iter().enumerate() {
                pieces.push(part_text(&format!("messages[{index}].content[{place}]"), role, part, ledger)?);
            }
        }
        Some(other) => {
            let param = format!("messages[{index}].content");
            let message = format!("{param}: must be text or a list of parts, not {}", short(other));
            return Err(Refusal::of(param, message));
        }
    }
    if let Some(refusal) = message.get("refusal").and_then(Value::as_str).filter(|_| role == "assistant") {
        ledger.inexact(
            format!("messages[{index}].refusal"),
            FidelityAction::Approximated,
            "an earlier refusal goes as plain text",
        )?;
        pieces.push(refusal);
    }
    Ok(join_blanks(&pieces))
}

fn part_text<'a>(param: &str, role: &str, part: &'a Value, ledger: &mut Ledger<'_>) -> Result<&'a str, Refusal> {
    let kind = part.get("type").and_then(Value::as_str).unwrap_or_default();
    let field = match (kind, role) {
        ("text", _) => "text",
        ("refusal", "assistant") => {
            ledger.inexact(param, FidelityAction::Approximated, "an earlier refusal goes as plain text")?;
            "refusal"
        }
        ("image_url", _) => {
            return Err(ledger.impossible(param, "this release cannot carry images to Bedrock Converse"));
        }
        ("input_audio", _) => {
            return Err(ledger.impossible(param, "this release cannot carry audio to Bedrock Converse"));
        }
        ("file", _) => return Err(ledger.impossible(param, "this release cannot carry files to Bedrock Converse")),
        _ => {
            let message = format!("{param}.type: must be \"text\", not {kind:?}");
            return Err(Refusal::of(format!("{param}.type"), message));
        }
    };
    for (name, _) in part.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
        if name != "type" && name != field {
            let detail = "Converse has no such field on a piece of text";
            ledger.inexact(format!("{param}.{name}"), FidelityAction::Dropped, detail)?;
        }
    }
    part.get(field).and_then(Value::as_str).ok_or_else(|| {
        let param = format!("{param}.{field}");
        let message = format!("{param}: must be a string");
        Refusal::of(param, message)
    })
}

/// Joins blank pieces to the piece before them (or after, at the start), so that no character is lost.
fn join_blanks(pieces: &[&str]) -> Vec<String> {
    let mut joined: Vec<String> = Vec::with_capacity(pieces.len());
    let mut leading = String::new();
    for piece in pieces {
        if piece.trim().is_empty() {
            joined.last_mut().unwrap_or(&mut leading).push_str(piece);
        } else {
            joined.push(std::mem::take(&mut leading) + piece);
        }
    }
    joined
}
