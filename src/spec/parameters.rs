//! Request parameters that a spec or a model definition sets: known names, values in range.
//!
//! Invariant: what comes out has OpenAI's names and values that OpenAI's own form allows; whether a model takes them is
//! asked elsewhere.

use rust_decimal::Decimal;
use serde_json::Value as Json;

use super::{keys, model_definition::LONGEST_MODEL, target::Parameters};
use crate::yaml::{Entry, Findings, Keys, Node, Value};

/// Longest text of a parameter.
const LONGEST_TEXT: usize = 1_024;
/// Longest version of a guardrail.
const LONGEST_VERSION: usize = 16;
/// Most tokens that can be asked for: far above any model.
pub(super) const MOST_TOKENS: i64 = 10_000_000;

/// Reads `defaults` or `override`.
pub(super) fn read(node: &Node, findings: &mut Findings) -> Parameters {
    read_with(node, &keys::PARAMETERS, findings)
}

/// Reads a model definition's `parameters`; native names become OpenAI's.
pub(super) fn read_definition(node: &Node, findings: &mut Findings) -> Parameters {
    read_with(node, &keys::DEFINITION_PARAMETERS, findings)
}

fn read_with(node: &Node, keys: &'static Keys, findings: &mut Findings) -> Parameters {
    let mut parameters = Parameters::new();
    let Some(section) = node.section(keys, findings) else { return parameters };
    let mut written: Vec<(&str, &Entry)> = Vec::new();
    for entry in section.entries() {
        let name = openai_name(&entry.key.text);
        if let Some((_, first)) = written.iter().find(|(known, _)| same_meaning(known, name)) {
            findings.error(
                "conflicting-keys",
                entry.key.position,
                format!("`{}` and `{}` set the same thing", first.key.text, entry.key.text),
                "keep one of the two",
            );
            continue;
        }
        written.push((name, entry));
        if let Some(value) = read_value(name, entry, findings) {
            parameters.insert(name.to_owned(), value);
        }
    }
    parameters
}

/// OpenAI's name for a parameter that Claude and Llama name otherwise.
fn openai_name(name: &str) -> &str {
    match name {
        "max_gen_len" | "max_tokens_to_sample" => "max_tokens",
        "stop_sequences" => "stop",
        other => other,
    }
}

/// `max_tokens` was renamed; the two are one.
fn same_meaning(one: &str, other: &str) -> bool {
    let plain = |name: &str| if name == "max_completion_tokens" { "max_tokens".to_owned() } else { name.to_owned() };
    plain(one) == plain(other)
}

fn read_value(name: &str, entry: &Entry, findings: &mut Findings) -> Option<Json> {
    let (node, what) = (&entry.value, entry.key.text.as_str());
    match name {
        "max_tokens" | "max_completion_tokens" => node.integer(what, 1..=MOST_TOKENS, findings).map(Json::from),
        "temperature" => in_range(node, what, 0, 2, findings),
        "top_p" => in_range(node, what, 0, 1, findings),
        "presence_penalty" | "frequency_penalty" => in_range(node, what, -2, 2, findings),
        "top_k" => node.integer(what, 1..=1_000, findings).map(Json::from),
        "n" => node.integer(what, 1..=128, findings).map(Json::from),
        "top_logprobs" => node.integer(what, 0..=20, findings).map(Json::from),
        "seed" => node.integer(what, i64::MIN..=i64::MAX, findings).map(Json::from),
        "logprobs" | "store" | "parallel_tool_calls" => node.boolean(what, findings).map(Json::from),
        "stop" => read_stop(node, what, findings),
        "tool_choice" if matches!(node.value, Value::Text(_)) => node.text(what, findings).map(Json::from),
        "metadata" => {
            let texts = node.texts(what, findings)?;
            Some(Json::Object(texts.into_iter().map(|(key, value)| (key, Json::from(value))).collect()))
        }
        "guardrail" => read_guardrail(node, findings),
        "logit_bias" | "response_format" | "tool_choice" | "additional_model_request_fields" => {
            node.entries(what, findings)?;
            node.json(what, findings)
        }
        "tools" => {
            node.list(what, 128, findings)?;
            node.json(what, findings)
        }
        _ => node.line(what, LONGEST_TEXT, findings).map(Json::from),
    }
}

fn read_guardrail(node: &Node, findings: &mut Findings) -> Option<Json> {
    const TRACES: [(&str, &str); 3] =
        [("enabled", "enabled"), ("disabled", "disabled"), ("enabled_full", "enabled_full")];
    let section = node.section(&keys::GUARDRAIL, findings)?;
    let id = section.require("id", findings).and_then(|node| node.line("id", LONGEST_MODEL, findings));
    let version = section.require("version", findings).and_then(|node| node.line("version", LONGEST_VERSION, findings));
    let trace = section.get("trace").map(|node| node.choice("trace", &TRACES, findings));
    let mut guardrail = serde_json::Map::new();
    guardrail.insert("id".to_owned(), id?.into());
    guardrail.insert("version".to_owned(), version?.into());
    if let Some(trace) = trace {
        guardrail.insert("trace".to_owned(), trace?.into());
    }
    Some(Json::Object(guardrail))
}

fn in_range(node: &Node, what: &str, low: i32, high: i32, findings: &mut Findings) -> Option<Json> {
    node.decimal(what, Decimal::from(low)..=Decimal::from(high), findings)?;
    node.json(what, findings)
}

fn read_stop(node: &Node, what: &str, findings: &mut Findings) -> Option<Json> {
    if matches!(node.value, Value::Text(_)) {
        return node.text(what, findings).filter(|text| !text.is_empty()).map(|text| Json::from(vec![text])).or_else(
            || {
                findings.error("no-value", node.position, format!("`{what}` is empty"), "write the text to stop at");
                None
            },
        );
    }
    let texts: Option<Vec<Json>> = node
        .list(what, 4, findings)?
        .iter()
        .map(|item| {
            let text = item.text(what, findings)?;
            if text.is_empty() {
                findings.error("no-value", item.position, format!("`{what}` holds an empty text"), "remove it");
                return None;
            }
            Some(Json::from(text))
        })
        .collect();
    texts.map(Json::Array)
}

/// Reads `cap`.
pub(super) fn read_cap(node: &Node, findings: &mut Findings) -> Parameters {
    let mut cap = Parameters::new();
    let Some(section) = node.section(&keys::CAP, findings) else { return cap };
    for entry in section.entries() {
        if let Some(value) = read_value(&entry.key.text, entry, findings) {
            cap.insert(entry.key.text.clone(), value);
        }
    }
    cap
}
