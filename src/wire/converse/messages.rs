//! The conversation: OpenAI's messages to Converse's alternating turns.
//!
//! Invariant: everything that the job said is in the request, in its order (tool results before the text of their
//! turn), or noted or refused. Roles alternate, the user first and last (unless the model is known to go on from its own
//! message); every tool call has its result, and the other way round.

use serde_json::Value;

use super::{
    Block, Message, Request, Role, ToolResult,
    calls::{self, Answers, Pending},
    content::{self, Speaker},
    family::Habits,
    media::Media,
};
use crate::{
    job::FidelityAction,
    wire::{Refusal, fidelity::Ledger, parameters::Messages},
};

/// Stands where Converse wants a user to have spoken first.
const OPENING: &str = "(The conversation begins with your message.)";
/// Stands where Converse wants a user to have spoken last.
const GO_ON: &str = "(Please continue.)";
/// Stands between a tool's results and the user's words, for models that take them in turns of their own only.
const RESULTS_SEEN: &str = "(I have the results.)";
/// Stands for a result that says nothing, which Converse rejects.
const NO_OUTPUT: &str = "(no output)";
/// Marks system text inside the conversation as not the user's own.
const OPERATOR: &str = "Note from the operator of this conversation: ";

/// Fields of an assistant message that a caller may send back as it got them, and that add nothing to the prompt.
const ECHOES: [&str; 4] = ["annotations", "reasoning", "reasoning_content", "reasoning_details"];

/// Messages that are looked at to see who speaks after system text.
const LOOK_AHEAD: usize = 8;

/// How a conversation is told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Telling {
    /// Tool calls and results go as text, because the request offers no tools.
    pub calls_as_text: bool,
    /// The model thinks, so it cannot go on from a message of its own.
    pub thinks: bool,
}

pub(super) fn carry(
    messages: &Messages<'_>,
    habits: Habits<'_>,
    telling: Telling,
    ledger: &mut Ledger<'_>,
    request: &mut Request,
) -> Result<(), Refusal> {
    if let Some(text) = messages.added_system() {
        request.system.push(Block::Text(text.to_owned()));
    }
    let mut teller = Teller { habits, telling, ledger, request, media: Media::default(), pending: Pending::default() };
    for (index, message) in messages.iter() {
        let Some(fields) = message.as_object() else {
            return Err(Refusal::of(format!("messages[{index}]"), format!("messages[{index}]: must be an object")));
        };
        let role = fields.get("role").and_then(Value::as_str).unwrap_or_default();
        check_fields(index, role, fields, teller.ledger)?;
        match role {
            "system" | "developer" => {
                let mut next = messages.roles_after(index).take(LOOK_AHEAD);
                teller.system(index, message, next.find(|role| !matches!(*role, "system" | "developer")))?;
            }
            "user" => teller.user(index, message)?,
            "assistant" => teller.assistant(index, message)?,
            "tool" | "function" => teller.result(index, role, message)?,
            _ => {
                let param = format!("messages[{index}].role");
                let message = format!("{param}: must be system, developer, user, assistant or tool");
                return Err(Refusal::of(param, message));
            }
        }
    }
    teller.pending.close()?;
    teller.close(messages)
}

/// Whether the conversation ends in the result of a tool.
pub(super) fn ends_in_results(messages: &Messages<'_>) -> bool {
    messages.iter().last().is_some_and(|(_, message)| matches!(role_of(message), "tool" | "function"))
}

fn role_of(message: &Value) -> &str {
    message.get("role").and_then(Value::as_str).unwrap_or_default()
}

struct Teller<'t, 'a> {
    habits: Habits<'t>,
    telling: Telling,
    ledger: &'t mut Ledger<'a>,
    request: &'t mut Request,
    media: Media,
    /// The calls that wait for their results.
    pending: Pending,
}

impl Teller<'_, '_> {
    fn blocks(&mut self, index: usize, speaker: Speaker, message: &Value) -> Result<Vec<Block>, Refusal> {
        content::blocks(index, speaker, message, self.habits, &mut self.media, self.ledger)
    }

    fn system(&mut self, index: usize, message: &Value, next: Option<&str>) -> Result<(), Refusal> {
        let mut blocks = self.blocks(index, Speaker::System, message)?;
        if blocks.is_empty() {
            return Ok(());
        }
        let Some(last) = self.request.messages.last_mut() else {
            self.request.system.extend(blocks);
            return Ok(());
        };
        // The model wants it after the user's turn and before its own, in one piece.
        let fits = match last.role {
            Role::System => true,
            Role::User => !self.pending.is_waiting(),
            Role::Assistant => false,
        };
        if self.habits.heeds_system_inside() && fits && matches!(next, None | Some("assistant")) {
            if last.role == Role::System {
                last.content.extend(blocks);
            } else {
                self.request.messages.push(Message { role: Role::System, content: blocks });
            }
            return Ok(());
        }
        self.ledger.inexact(
            format!("messages[{index}]"),
            FidelityAction::Emulated,
            "system text inside the conversation goes as a marked user message in the same place",
        )?;
        for block in &mut blocks {
            if let Block::Text(text) = block {
                text.insert_str(0, OPERATOR);
            }
        }
        self.append(index, Role::User, blocks)
    }

    fn user(&mut self, index: usize, message: &Value) -> Result<(), Refusal> {
        let blocks = self.blocks(index, Speaker::User, message)?;
        if blocks.is_empty() {
            let param = format!("messages[{index}].content");
            let message = format!("{param}: is blank, which Bedrock rejects: send text, or leave it out");
            return Err(Refusal::of(param, message));
        }
        self.append(index, Role::User, blocks)
    }

    fn assistant(&mut self, index: usize, message: &Value) -> Result<(), Refusal> {
        let mut blocks = self.blocks(index, Speaker::Assistant, message)?;
        let calls = calls::of(index, message, self.ledger)?;
        if self.request.messages.last().is_some_and(|last| last.role != Role::Assistant) {
            self.pending.close()?;
        }
        if self.telling.calls_as_text {
            for call in &calls {
                self.ledger.inexact(call.param.as_str(), FidelityAction::Emulated, AS_TEXT)?;
                blocks.push(Block::Text(call.as_text()));
            }
            return self.append(index, Role::Assistant, blocks);
        }
        if !calls.is_empty() && !blocks.is_empty() && self.habits.keeps_tools_apart() {
            let detail = "the model takes text and tool calls in turns of their own: a line goes between them";
            self.ledger.inexact(format!("messages[{index}].content"), FidelityAction::Emulated, detail)?;
            self.append(index, Role::Assistant, std::mem::take(&mut blocks))?;
            self.append(index, Role::User, vec![Block::Text(GO_ON.to_owned())])?;
        }
        for call in &calls {
            let uses = call.uses(self.ledger)?;
            self.pending.add(call, &uses)?;
            blocks.extend(uses.into_iter().map(Block::ToolUse));
        }
        self.append(index, Role::Assistant, blocks)
    }

    fn result(&mut self, index: usize, role: &str, message: &Value) -> Result<(), Refusal> {
        let text = |name: &str| message.get(name).and_then(Value::as_str);
        let name = text("name");
        let id = if role == "tool" {
            let Some(id) = text("tool_call_id") else {
                let param = format!("messages[{index}].tool_call_id");
                return Err(Refusal::of(param.as_str(), format!("{param}: must name the call that is answered")));
            };
            Some(id)
        } else {
            let detail = "the older form of a tool's result goes as the newer";
            self.ledger.inexact(format!("messages[{index}].role"), FidelityAction::Emulated, detail)?;
            None
        };
        let mut blocks = self.blocks(index, Speaker::Tool, message)?;
        if self.telling.calls_as_text {
            self.ledger.inexact(format!("messages[{index}]"), FidelityAction::Emulated, AS_TEXT)?;
            calls::result_as_text(id, name, &mut blocks);
            return self.append(index, Role::User, blocks);
        }
        let sent = match self.pending.answer(id, name) {
            Answers::Call(sent) => sent,
            Answers::Again => {
                let detail = "the call has its result already: the first counts";
                return self.ledger.inexact(format!("messages[{index}]"), FidelityAction::Dropped, detail);
            }
            Answers::Nothing => {
                let param = format!("messages[{index}].{}", if id.is_some() { "tool_call_id" } else { "name" });
                let of = id.or(name).unwrap_or_default();
                let message = format!("{param}: {of:?} is no call of the assistant's message before it");
                return Err(Refusal::of(param, message));
            }
        };
        if blocks.is_empty() {
            let detail = format!("an empty result goes as {NO_OUTPUT:?}");
            self.ledger.inexact(format!("messages[{index}].content"), FidelityAction::Emulated, detail)?;
            blocks.push(Block::Text(NO_OUTPUT.to_owned()));
        }
        // A call that was taken apart is answered once, and once more for each further part.
        let again = sent.first().map(|first| format!("(answered together with {first})")).unwrap_or_default();
        let results = sent.into_iter().enumerate().map(|(place, tool_use_id)| {
            let content = if place == 0 { std::mem::take(&mut blocks) } else { vec![Block::Text(again.clone())] };
            Block::ToolResult(ToolResult { tool_use_id, content })
        });
        self.append(index, Role::User, results.collect())
    }

    /// Adds blocks to the turn of `role`; a new one where the other spoke last.
    fn append(&mut self, index: usize, role: Role, blocks: Vec<Block>) -> Result<(), Refusal> {
        if blocks.is_empty() {
            return Ok(());
        }
        if role == Role::Assistant && self.request.messages.is_empty() {
            self.ledger.inexact(
                format!("messages[{index}]"),
                FidelityAction::Emulated,
                "a conversation must start with the user on Bedrock: a line saying so goes before it",
            )?;
            let content = vec![Block::Text(OPENING.to_owned())];
            self.request.messages.push(Message { role: Role::User, content });
        }
        let Some(last) = self.request.messages.last_mut().filter(|last| last.role == role) else {
            self.request.messages.push(Message { role, content: blocks });
            return Ok(());
        };
        let is_result = |block: &Block| matches!(block, Block::ToolResult(_));
        let results = last.content.iter().take_while(|block| is_result(block)).count();
        if role == Role::User && blocks.iter().all(is_result) {
            last.content.splice(results..results, blocks);
            return Ok(());
        }
        if role == Role::User && results > 0 && self.habits.keeps_tools_apart() {
            let detail = "the model takes text and tool results in turns of their own: a line goes between them";
            self.ledger.inexact(format!("messages[{index}].content"), FidelityAction::Emulated, detail)?;
            let seen = vec![Block::Text(RESULTS_SEEN.to_owned())];
            self.request.messages.push(Message { role: Role::Assistant, content: seen });
            self.request.messages.push(Message { role, content: blocks });
            return Ok(());
        }
        last.content.extend(blocks);
        Ok(())
    }

    /// The rules for the end of a conversation.
    fn close(&mut self, messages: &Messages<'_>) -> Result<(), Refusal> {
        let place = messages.iter().last().map_or(0, |(index, _)| index);
        let Some(last) = self.request.messages.last_mut() else {
            return Err(Refusal::of(
                "messages",
                "messages: Bedrock needs at least one message that is not system text: send the task as a user message",
            ));
        };
        if last.role != Role::Assistant {
            return Ok(());
        }
        if self.habits.continues_own_message() && !self.telling.thinks {
            self.ledger.inexact(
                format!("messages[{place}]"),
                FidelityAction::Approximated,
                "the model goes on from the last assistant message instead of answering it with a new one",
            )?;
            if let Some(Block::Text(text)) = last.content.last_mut() {
                // The service rejects a prefill that ends in whitespace.
                text.truncate(text.trim_end().len());
            }
            return Ok(());
        }
        self.ledger.inexact(
            format!("messages[{place}]"),
            FidelityAction::Emulated,
            "the last message must be the user's on this model: a line asking to continue goes after it",
        )?;
        self.append(place, Role::User, vec![Block::Text(GO_ON.to_owned())])
    }
}

const AS_TEXT: &str = "goes as text, because no tools are offered with it and Bedrock takes no calls without tools";

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
        let param = || format!("messages[{index}].{name}");
        match (name.as_str(), role) {
            ("role" | "content", _) | ("refusal" | "tool_calls" | "function_call", "assistant") => {}
            ("tool_call_id", "tool") | ("name", "function") => {}
            _ if says_nothing => {}
            ("name", _) => ledger.inexact(param(), FidelityAction::Dropped, "Converse has no names on messages")?,
            ("audio", _) => return Err(ledger.impossible(param(), "Converse has no audio of earlier answers")),
            (name, "assistant") if ECHOES.contains(&name) => ledger.inexact(
                param(),
                FidelityAction::Dropped,
                "what an earlier answer carried beside its text is not sent back",
            )?,
            _ => ledger.breach(param(), "this release does not know how to carry this field to Bedrock Converse")?,
        }
    }
    Ok(())
}
