//! What a message holds: text, refusals, images and files, as blocks.
//!
//! Invariant: blank text, which Converse rejects, is joined to the text beside it, so that no character is lost while
//! there is any text at all.

use serde_json::Value;

use super::{Block, family::Habits, media::Media};
use crate::{
    job::FidelityAction,
    wire::{Refusal, fidelity::Ledger, parameters::short},
};

/// Stands beside a file, which Converse takes with text only.
const BESIDE_FILE: &str = "(See the attached file.)";

/// Who speaks, as far as it matters for what may be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaker {
    System,
    User,
    Assistant,
    Tool,
}

enum Piece<'a> {
    Text(&'a str),
    Block(Block),
}

/// The message's content; empty when there is nothing but blanks.
pub(super) fn blocks(
    index: usize,
    speaker: Speaker,
    message: &Value,
    habits: Habits<'_>,
    media: &mut Media,
    ledger: &mut Ledger<'_>,
) -> Result<Vec<Block>, Refusal> {
    let mut pieces: Vec<Piece<'_>> = Vec::new();
    match message.get("content") {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) => pieces.push(Piece::Text(text)),
        Some(Value::Array(parts)) => {
            for (place, part) in parts.iter().enumerate() {
                let param = format!("messages[{index}].content[{place}]");
                pieces.push(piece(&param, speaker, part, habits, media, ledger)?);
            }
        }
        Some(other) => {
            let param = format!("messages[{index}].content");
            let message = format!("{param}: must be text or a list of parts, not {}", short(other));
            return Err(Refusal::of(param, message));
        }
    }
    if let Some(refusal) = message.get("refusal").and_then(Value::as_str).filter(|_| speaker == Speaker::Assistant) {
        ledger.inexact(
            format!("messages[{index}].refusal"),
            FidelityAction::Approximated,
            "an earlier refusal goes as plain text",
        )?;
        pieces.push(Piece::Text(refusal));
    }
    let mut blocks = join_blanks(pieces);
    let has = |wanted: fn(&Block) -> bool| blocks.iter().any(wanted);
    if has(|block| matches!(block, Block::Document(_))) && !has(|block| matches!(block, Block::Text(_))) {
        let detail = "Bedrock takes files beside text only: a line pointing at the file goes with it";
        ledger.inexact(format!("messages[{index}].content"), FidelityAction::Emulated, detail)?;
        blocks.push(Block::Text(BESIDE_FILE.to_owned()));
    }
    Ok(blocks)
}

fn piece<'a>(
    param: &str,
    speaker: Speaker,
    part: &'a Value,
    habits: Habits<'_>,
    media: &mut Media,
    ledger: &mut Ledger<'_>,
) -> Result<Piece<'a>, Refusal> {
    let kind = part.get("type").and_then(Value::as_str).unwrap_or_default();
    let field = match (kind, speaker) {
        ("text", _) => "text",
        ("refusal", Speaker::Assistant) => {
            ledger.inexact(param, FidelityAction::Approximated, "an earlier refusal goes as plain text")?;
            "refusal"
        }
        ("image_url", Speaker::User | Speaker::Tool) => "image_url",
        ("image_url", _) => return Err(ledger.impossible(param, "Bedrock takes images from the user alone")),
        ("file", Speaker::User) => "file",
        ("file", _) => return Err(ledger.impossible(param, "Bedrock takes files from the user alone")),
        ("input_audio", _) => {
            return Err(ledger.impossible(param, "this release cannot carry audio to Bedrock Converse"));
        }
        _ => {
            let known = "\"text\", \"image_url\" or \"file\"";
            let message = format!("{param}.type: must be {known}, not {kind:?}");
            return Err(Refusal::of(format!("{param}.type"), message));
        }
    };
    for (name, _) in part.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
        if name != "type" && name != field {
            let detail = "Converse has no such field on a piece of content";
            ledger.inexact(format!("{param}.{name}"), FidelityAction::Dropped, detail)?;
        }
    }
    match field {
        "image_url" => {
            if speaker == Speaker::Tool && !habits.takes_images_in_tool_results() {
                return Err(ledger.impossible(param, "the model takes no images in a tool's result"));
            }
            Ok(Piece::Block(media.image(param, part, habits, ledger)?))
        }
        "file" => Ok(Piece::Block(media.file(param, part, habits, ledger)?)),
        _ => part.get(field).and_then(Value::as_str).map(Piece::Text).ok_or_else(|| {
            let param = format!("{param}.{field}");
            let message = format!("{param}: must be a string");
            Refusal::of(param, message)
        }),
    }
}

/// Joins blank text to the text before it (or after, at the start).
fn join_blanks(pieces: Vec<Piece<'_>>) -> Vec<Block> {
    let mut joined: Vec<Block> = Vec::with_capacity(pieces.len());
    let mut leading = String::new();
    for piece in pieces {
        match piece {
            Piece::Block(block) => joined.push(block),
            Piece::Text(text) if text.trim().is_empty() => {
                let before = joined.iter_mut().rev().find_map(|block| match block {
                    Block::Text(before) => Some(before),
                    _ => None,
                });
                before.unwrap_or(&mut leading).push_str(text);
            }
            Piece::Text(text) => joined.push(Block::Text(std::mem::take(&mut leading) + text)),
        }
    }
    joined
}
