//! What a target makes of a job's parameters: defaults, then the job's, then overrides, and caps over all of them; and
//! whose system text leads.
//!
//! Invariant: the job's body is borrowed, never changed. `max_tokens` and `max_completion_tokens` are one parameter
//! here; a JSON null means that nothing was said. Knows no provider.

use std::borrow::Cow;

use serde::{Serialize, Serializer, ser::SerializeSeq};
use serde_json::{Map, Value};

use super::Refusal;
use crate::spec::{SystemMode, Target};

/// The two names of the output bound, the newer first.
pub(super) const LIMIT_NAMES: [&str; 2] = ["max_completion_tokens", "max_tokens"];

/// Fields of the model's own, which a target adds to its Bedrock calls.
pub(super) const ADDITIONAL_FIELDS: &str = "additional_model_request_fields";
/// The guardrail of a target's Bedrock calls.
pub(super) const GUARDRAIL: &str = "guardrail";
/// What only a target may set: a job must not choose who watches over it.
pub(super) const TARGETS_OWN: [&str; 2] = [ADDITIONAL_FIELDS, GUARDRAIL];

/// Handled on their own, or not a matter of parameters at all.
const SET_APART: [&str; 6] = ["model", "messages", "stream", "stream_options", LIMIT_NAMES[0], LIMIT_NAMES[1]];

/// A request as the target wants it, still in OpenAI's words.
pub(super) struct Effective<'a> {
    /// Everything but the model, the messages, streaming and the output bound.
    pub parameters: Vec<(&'a str, Cow<'a, Value>)>,
    /// The output bound, if anybody gave one.
    pub output_limit: Option<OutputLimit>,
    /// The conversation.
    pub messages: Messages<'a>,
    /// The job asked for a stream.
    pub streams: bool,
    /// What the job set though only a target may; not among the parameters.
    pub uninvited: Vec<&'a str>,
}

/// How many tokens the answer may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OutputLimit {
    /// The bound.
    pub tokens: u64,
    /// The name it was given by: one of [`LIMIT_NAMES`].
    pub name: &'static str,
}

impl Effective<'_> {
    /// A parameter's value; `None` when absent or null.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.parameters
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.as_ref())
            .filter(|value| !value.is_null())
    }
}

/// The conversation with the target's system text in its place.
pub(super) struct Messages<'a> {
    added: Option<AddedSystem<'a>>,
    hide_system: bool,
    items: &'a [Value],
}

#[derive(Serialize)]
struct AddedSystem<'a> {
    role: &'static str,
    content: &'a str,
}

impl<'a> Messages<'a> {
    /// The target's own system text, which stands before everything else.
    pub(super) fn added_system(&self) -> Option<&'a str> {
        self.added.as_ref().map(|added| added.content)
    }

    /// The job's messages that remain, with their places in the job.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &'a Value)> {
        let hide = self.hide_system;
        self.items.iter().enumerate().filter(move |(_, message)| !(hide && is_system(message)))
    }
}

impl Messages<'_> {
    /// The roles of the messages behind the one at `index`, all of them.
    pub(super) fn roles_after(&self, index: usize) -> impl Iterator<Item = &str> {
        self.items.iter().skip(index.saturating_add(1)).map(|message| role(message).unwrap_or_default())
    }
}

impl Serialize for Messages<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        if let Some(added) = &self.added {
            list.serialize_element(added)?;
        }
        for (_, message) in self.iter() {
            list.serialize_element(message)?;
        }
        list.end()
    }
}

/// Applies a target to a job's body.
pub(super) fn effective<'a>(target: &'a Target, body: &'a Value) -> Result<Effective<'a>, Refusal> {
    let Some(body) = body.as_object() else {
        return Err(Refusal { param: None, message: "body: must be a JSON object in OpenAI's chat form".to_owned() });
    };
    let uninvited =
        TARGETS_OWN.into_iter().filter(|name| body.get(*name).is_some_and(|value| !value.is_null())).collect();
    let mut parameters: Vec<(&str, Cow<'_, Value>)> = body
        .iter()
        .filter(|(name, _)| !SET_APART.contains(&name.as_str()) && !TARGETS_OWN.contains(&name.as_str()))
        .map(|(name, value)| (name.as_str(), Cow::Borrowed(value)))
        .collect();
    for (name, value) in own(&target.defaults) {
        match parameters.iter_mut().find(|(known, _)| *known == name) {
            Some((_, said)) if said.is_null() => *said = Cow::Borrowed(value),
            Some(_) => {}
            None => parameters.push((name, Cow::Borrowed(value))),
        }
    }
    for (name, value) in own(&target.overrides) {
        match parameters.iter_mut().find(|(known, _)| *known == name) {
            Some((_, said)) => *said = Cow::Borrowed(value),
            None => parameters.push((name, Cow::Borrowed(value))),
        }
    }
    for (name, bound) in own(&target.cap) {
        if let Some((_, said)) = parameters.iter_mut().find(|(known, said)| *known == name && !said.is_null()) {
            cap(target, name, said, bound)?;
        }
    }
    let streams = matches!(body.get("stream"), Some(Value::Bool(true)));
    let output_limit = output_limit(target, body)?;
    Ok(Effective { parameters, output_limit, messages: messages(target, body)?, streams, uninvited })
}

/// A target's parameters under OpenAI's names, the output bound apart.
fn own(parameters: &Map<String, Value>) -> impl Iterator<Item = (&str, &Value)> {
    parameters.iter().map(|(name, value)| (canonical(name), value)).filter(|(name, _)| !SET_APART.contains(name))
}

/// OpenAI's name for what model definitions may call otherwise.
fn canonical(name: &str) -> &str {
    match name {
        "max_gen_len" | "max_tokens_to_sample" | "max_output_tokens" | "maxTokens" | "maxTokenCount" => "max_tokens",
        "stop_sequences" | "stopSequences" => "stop",
        "topP" => "top_p",
        "topK" => "top_k",
        _ => name,
    }
}

fn cap<'a>(target: &Target, name: &str, said: &mut Cow<'a, Value>, bound: &'a Value) -> Result<(), Refusal> {
    let Some(most) = bound.as_f64() else { return Ok(()) };
    match said.as_f64() {
        Some(number) if number > most => {
            *said = Cow::Borrowed(bound);
            Ok(())
        }
        Some(_) => Ok(()),
        None => Err(Refusal::of(
            name,
            format!("{name}: must be a number, since target {:?} caps it at {bound}", target.name.as_str()),
        )),
    }
}

fn output_limit(target: &Target, body: &Map<String, Value>) -> Result<Option<OutputLimit>, Refusal> {
    let chosen = match limit_in(&target.overrides)? {
        Override::Says(limit) => Some(limit),
        Override::Clears => None,
        Override::Silent => match limit_in(body)? {
            Override::Says(limit) => Some(limit),
            Override::Clears | Override::Silent => limit_in(&target.defaults)?.said(),
        },
    };
    Ok(match (chosen, limit_in(&target.cap)?.said()) {
        (Some(limit), Some(cap)) => Some(OutputLimit { tokens: limit.tokens.min(cap.tokens), ..limit }),
        // Without a bound the answer may be as long as the model allows, which is above any cap.
        (limit, cap) => limit.or(cap),
    })
}

enum Override {
    Says(OutputLimit),
    Clears,
    Silent,
}

impl Override {
    fn said(self) -> Option<OutputLimit> {
        match self {
            Self::Says(limit) => Some(limit),
            Self::Clears | Self::Silent => None,
        }
    }
}

fn limit_in(parameters: &Map<String, Value>) -> Result<Override, Refusal> {
    let mut found = Override::Silent;
    for (given, value) in parameters {
        let Some(name) = LIMIT_NAMES.into_iter().find(|name| canonical(given) == *name) else { continue };
        if value.is_null() {
            if matches!(found, Override::Silent) {
                found = Override::Clears;
            }
            continue;
        }
        let tokens = whole_number(value).filter(|tokens| *tokens > 0).ok_or_else(|| {
            Refusal::of(given.as_str(), format!("{given}: must be a whole number of at least 1, not {}", short(value)))
        })?;
        match found {
            Override::Says(other) if other.tokens != tokens => {
                let message = format!(
                    "{given}: says {tokens} where {} says {}; they are one parameter, so send one of them",
                    other.name, other.tokens
                );
                return Err(Refusal::of(given.as_str(), message));
            }
            Override::Says(other) if other.name == LIMIT_NAMES[0] => {}
            _ => found = Override::Says(OutputLimit { tokens, name }),
        }
    }
    Ok(found)
}

/// The values by which a request asks for what it would get anyway.
pub(super) fn says_nothing(name: &str, value: &Value) -> bool {
    if value.is_null() {
        return true;
    }
    match name {
        "n" | "temperature" | "top_p" => value.as_f64() == Some(1.0),
        "logprobs" | "store" => value == &Value::Bool(false),
        "top_logprobs" | "presence_penalty" | "frequency_penalty" => value.as_f64() == Some(0.0),
        "logit_bias" => value.as_object().is_some_and(Map::is_empty),
        "stop" | "tools" | "functions" => value.as_array().is_some_and(Vec::is_empty),
        "service_tier" => matches!(value.as_str(), Some("auto" | "default")),
        "response_format" => value.get("type").and_then(Value::as_str) == Some("text"),
        "modalities" => value.as_array().is_some_and(|list| list.iter().all(|kind| kind == "text")),
        "verbosity" => value == "medium",
        "reasoning_effort" => value == "none",
        "parallel_tool_calls" => value == &Value::Bool(true),
        "tool_choice" | "function_call" => value == "auto",
        _ => false,
    }
}

/// The stop sequences that say something.
pub(super) fn stops<'a>(effective: &'a Effective<'_>) -> Result<Vec<&'a str>, Refusal> {
    let Some(value) = effective.get("stop") else { return Ok(Vec::new()) };
    let malformed =
        || Refusal::of("stop", format!("stop: must be a string or a list of strings, not {}", short(value)));
    let given: Vec<&str> = match value {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().map(|one| one.as_str().ok_or_else(malformed)).collect::<Result<_, _>>()?,
        _ => return Err(malformed()),
    };
    Ok(given.into_iter().filter(|sequence| !sequence.is_empty()).collect())
}

/// A number without a fraction; `100.0` counts.
pub(super) fn whole_number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let number = value.as_f64()?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked: whole, not negative, and within the exact range of f64"
        )]
        (number.fract() == 0.0 && (0.0..9.0e15).contains(&number)).then_some(number as u64)
    })
}

/// A value as an error message may show it.
pub(super) fn short(value: &Value) -> String {
    const SHOWN: usize = 60;
    let text = value.to_string();
    if text.chars().count() <= SHOWN { text } else { text.chars().take(SHOWN).chain(['…']).collect() }
}

fn messages<'a>(target: &'a Target, body: &'a Map<String, Value>) -> Result<Messages<'a>, Refusal> {
    let items = match body.get("messages") {
        Some(Value::Array(items)) if !items.is_empty() => items.as_slice(),
        _ => return Err(Refusal::of("messages", "messages: must be a list of at least one message")),
    };
    let Some(system) = &target.system else {
        return Ok(Messages { added: None, hide_system: false, items });
    };
    let job_has_one = || items.iter().any(|message| is_system(message) && !is_blank(message));
    let (add, hide_system) = match system.mode {
        SystemMode::Prepend => (true, false),
        SystemMode::Replace => (true, true),
        SystemMode::Fallback => (!job_has_one(), false),
    };
    // Newer models take one of the two roles in a request, not both.
    let developer = !hide_system && items.iter().any(|message| role(message) == Some("developer"));
    let role = if developer { "developer" } else { "system" };
    let added = (add && !system.text.trim().is_empty()).then_some(AddedSystem { role, content: system.text.as_str() });
    Ok(Messages { added, hide_system, items })
}

fn role(message: &Value) -> Option<&str> {
    message.get("role").and_then(Value::as_str)
}

fn is_system(message: &Value) -> bool {
    matches!(role(message), Some("system" | "developer"))
}

fn is_blank(message: &Value) -> bool {
    match message.get("content") {
        Some(Value::String(text)) => text.trim().is_empty(),
        Some(Value::Array(parts)) => {
            parts.iter().all(|part| part.get("text").and_then(Value::as_str).is_some_and(|text| text.trim().is_empty()))
        }
        _ => true,
    }
}
