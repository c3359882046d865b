//! Tool calls and their results in the conversation.
//!
//! Invariant: both ends of a call go by the same id; arguments, which OpenAI writes as text, become one object a call.
//! Which result answers which call is kept here, so that the service never meets a call without its result.

use serde_json::{Map, Value, json};

use super::{Block, ToolUse, labels};
use crate::{
    job::FidelityAction,
    wire::{Refusal, fidelity::Ledger},
};

/// Objects that one call's arguments may hold, one behind the other.
const MOST_OBJECTS: usize = 16;

/// Calls that one turn may make: far above any model's, little enough to look each result's call up in a list.
const MOST_CALLS: usize = 1_000;

/// A call as the conversation has it.
pub(super) struct Call<'a> {
    /// The id as the caller wrote it, or one made up for the older form, which has none.
    pub id: String,
    pub name: &'a str,
    pub arguments: Arguments<'a>,
    /// Where it stands.
    pub param: String,
}

pub(super) enum Arguments<'a> {
    Text(&'a str),
    Object(&'a Map<String, Value>),
}

/// The calls of an assistant's message, in both of OpenAI's forms.
pub(super) fn of<'a>(index: usize, message: &'a Value, ledger: &mut Ledger<'_>) -> Result<Vec<Call<'a>>, Refusal> {
    let mut calls = Vec::new();
    match message.get("tool_calls") {
        None | Some(Value::Null) => {}
        Some(Value::Array(list)) => {
            for (place, call) in list.iter().enumerate() {
                let param = format!("messages[{index}].tool_calls[{place}]");
                calls.push(read(param, call, ledger)?);
            }
        }
        Some(_) => {
            let param = format!("messages[{index}].tool_calls");
            return Err(Refusal::of(param.as_str(), format!("{param}: must be a list")));
        }
    }
    if let Some(call) = message.get("function_call").filter(|call| !call.is_null()) {
        let param = format!("messages[{index}].function_call");
        let detail = "the older form of a tool call goes as the newer";
        ledger.inexact(param.as_str(), FidelityAction::Emulated, detail)?;
        calls.push(function(param, made_up_id(index), call)?);
    }
    Ok(calls)
}

/// The id of a call in the older form, by the place of its message.
fn made_up_id(index: usize) -> String {
    format!("call_{index}")
}

fn read<'a>(param: String, call: &'a Value, ledger: &mut Ledger<'_>) -> Result<Call<'a>, Refusal> {
    let Some(fields) = call.as_object() else {
        return Err(Refusal::of(param.as_str(), format!("{param}: must be an object")));
    };
    match fields.get("type").and_then(Value::as_str) {
        None | Some("function") => {}
        Some(kind) => {
            let detail = format!("Converse has no calls of type {kind:?}");
            return Err(ledger.impossible(format!("{param}.type"), &detail));
        }
    }
    for (name, _) in fields.iter().filter(|(_, value)| !value.is_null()) {
        if !matches!(name.as_str(), "id" | "type" | "function" | "index") {
            let detail = "Converse has no such field on a tool call";
            ledger.inexact(format!("{param}.{name}"), FidelityAction::Dropped, detail)?;
        }
    }
    let Some(id) = fields.get("id").and_then(Value::as_str) else {
        return Err(Refusal::of(format!("{param}.id"), format!("{param}.id: must be a string")));
    };
    function(format!("{param}.function"), id.to_owned(), fields.get("function").unwrap_or(&Value::Null))
}

fn function(param: String, id: String, function: &Value) -> Result<Call<'_>, Refusal> {
    let Some(name) = function.get("name").and_then(Value::as_str) else {
        return Err(Refusal::of(format!("{param}.name"), format!("{param}.name: must be a string")));
    };
    let arguments = match function.get("arguments") {
        None | Some(Value::Null) => Arguments::Text(""),
        Some(Value::String(text)) => Arguments::Text(text),
        Some(Value::Object(fields)) => Arguments::Object(fields),
        Some(_) => {
            let param = format!("{param}.arguments");
            return Err(Refusal::of(param.as_str(), format!("{param}: must be JSON in a string")));
        }
    };
    Ok(Call { id, name, arguments, param })
}

impl Call<'_> {
    /// The call as text, for a request without tools.
    pub(super) fn as_text(&self) -> String {
        let arguments = match &self.arguments {
            Arguments::Text(text) => (*text).to_owned(),
            Arguments::Object(fields) => json!(fields).to_string(),
        };
        format!("[tool call {}: {}({arguments})]", self.id, self.name)
    }

    /// The call as blocks: one, or as many as there are objects in its arguments.
    pub(super) fn uses(&self, ledger: &mut Ledger<'_>) -> Result<Vec<ToolUse>, Refusal> {
        let inputs = match &self.arguments {
            Arguments::Object(fields) => vec![json!(fields)],
            Arguments::Text(text) => self.inputs(text, ledger)?,
        };
        let name = labels::clean(self.name);
        let one = |(place, input)| ToolUse {
            tool_use_id: labels::clean(&part_id(&self.id, place)),
            name: name.clone(),
            input,
        };
        Ok(inputs.into_iter().enumerate().map(one).collect())
    }

    fn inputs(&self, text: &str, ledger: &mut Ledger<'_>) -> Result<Vec<Value>, Refusal> {
        if text.trim().is_empty() {
            return Ok(vec![json!({})]);
        }
        let param = || format!("{}.arguments", self.param);
        let read: Result<Vec<Value>, _> =
            serde_json::Deserializer::from_str(text).into_iter().take(MOST_OBJECTS + 1).collect();
        let odd = match read {
            Ok(mut values) if values.iter().all(Value::is_object) && values.len() <= MOST_OBJECTS => {
                if values.len() > 1 {
                    let detail = format!("{0} objects one behind the other go as {0} calls", values.len());
                    ledger.inexact(param(), FidelityAction::Emulated, detail)?;
                } else if values.is_empty() {
                    values.push(json!({}));
                }
                return Ok(values);
            }
            Ok(mut values) if values.len() == 1 => values.pop().unwrap_or_default(),
            _ => Value::from(text),
        };
        let detail = "a call's arguments must be an object: what is here goes as its field `arguments`";
        ledger.inexact(param(), FidelityAction::Approximated, detail)?;
        Ok(vec![json!({ "arguments": odd })])
    }
}

/// The id of one part of a call that was taken apart.
fn part_id(id: &str, place: usize) -> String {
    if place == 0 { id.to_owned() } else { format!("{id}_{}", place + 1) }
}

/// The calls of the latest turn that wait for their results.
#[derive(Debug, Default)]
pub(super) struct Pending {
    calls: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    /// As the caller wrote it.
    id: String,
    name: String,
    /// As it was sent: more than one when the call was taken apart.
    sent: Vec<String>,
    answered: bool,
    /// Where the call stands.
    param: String,
}

/// What a result answers.
pub(super) enum Answers {
    /// The call, by the ids that it went under.
    Call(Vec<String>),
    /// A call that was answered before.
    Again,
    /// No call of the latest turn.
    Nothing,
}

impl Pending {
    pub(super) fn add(&mut self, call: &Call<'_>, uses: &[ToolUse]) -> Result<(), Refusal> {
        if self.calls.len() >= MOST_CALLS {
            let message = format!("{}: more than {MOST_CALLS} calls in one turn", call.param);
            return Err(Refusal::of(call.param.as_str(), message));
        }
        let sent = uses.iter().map(|tool| tool.tool_use_id.clone()).collect();
        let (id, name, param) = (call.id.clone(), call.name.to_owned(), call.param.clone());
        self.calls.push(Waiting { id, name, sent, answered: false, param });
        Ok(())
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.calls.iter().any(|call| !call.answered)
    }

    /// Takes the result of the call with this id, or, in the older form, of the function of this name.
    pub(super) fn answer(&mut self, id: Option<&str>, name: Option<&str>) -> Answers {
        let fits = |call: &Waiting| match id {
            Some(id) => call.id == id,
            None => name == Some(call.name.as_str()),
        };
        if let Some(call) = self.calls.iter_mut().find(|call| fits(call) && !call.answered) {
            call.answered = true;
            return Answers::Call(call.sent.clone());
        }
        if self.calls.iter().any(fits) { Answers::Again } else { Answers::Nothing }
    }

    /// The turn is over: every call must have its result, as OpenAI demands, too.
    pub(super) fn close(&mut self) -> Result<(), Refusal> {
        match std::mem::take(&mut self.calls).into_iter().find(|call| !call.answered) {
            None => Ok(()),
            Some(call) => {
                let message = format!(
                    "{}: no tool message answers the call {:?}; send its result, or leave the call out",
                    call.param, call.id
                );
                Err(Refusal::of(call.param, message))
            }
        }
    }
}

/// A result as text, for a request without tools.
pub(super) fn result_as_text(id: Option<&str>, name: Option<&str>, blocks: &mut Vec<Block>) {
    let texts = blocks.extract_if(.., |block| matches!(block, Block::Text(_)));
    let said: Vec<String> = texts
        .filter_map(|block| match block {
            Block::Text(text) => Some(text),
            _ => None,
        })
        .collect();
    let of = id.or(name).unwrap_or_default();
    blocks.insert(0, Block::Text(format!("[tool result for {of}: {}]", said.join("\n"))));
}
