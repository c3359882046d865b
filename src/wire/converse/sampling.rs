//! Bounds, sampling and stop sequences, and what becomes of every parameter that Converse has no field for.
//!
//! Invariant: each parameter of the request is carried, found to say nothing, noted or refused: the match below ends
//! in a refusal by name, so a parameter that nobody thought of cannot slip through.

use serde_json::Value;

use super::{Request, family::Habits, metadata};
use crate::{
    job::FidelityAction,
    spec::Target,
    wire::{
        Reading, Refusal,
        fidelity::Ledger,
        parameters::{Effective, OutputLimit, short},
    },
};

/// Sampling and bookkeeping: an answer without them is still the answer asked for.
const MAY_GO: [(&str, &str); 12] = [
    ("seed", "Converse has no seed: answers are not repeatable"),
    ("presence_penalty", "Converse has no penalties"),
    ("frequency_penalty", "Converse has no penalties"),
    ("logit_bias", "Converse has no bias on tokens"),
    ("store", "Bedrock stores no completions"),
    ("service_tier", "the call is served by the standard tier"),
    ("prediction", "Converse has no predicted output; the answer is the same, only slower"),
    ("prompt_cache_key", "Bedrock's cache has no keys"),
    ("prompt_cache_retention", "Bedrock's cache is not steered by this"),
    ("prompt_cache_options", "Bedrock's cache is not steered by this"),
    ("top_a", "Converse has no such parameter"),
    ("min_p", "Converse has no such parameter"),
];

pub(super) fn carry(
    effective: &Effective<'_>,
    habits: Habits<'_>,
    target: &Target,
    reading: &mut Reading,
    ledger: &mut Ledger<'_>,
    request: &mut Request,
) -> Result<(), Refusal> {
    request.inference_config.max_tokens = max_tokens(effective.output_limit, habits, target, ledger)?;
    temperature(effective, habits, ledger, request)?;
    top_p(effective, habits, ledger, request)?;
    stop(effective, habits, reading, ledger, request)?;
    top_k(effective, habits, ledger, request)?;
    for (name, value) in &effective.parameters {
        if matches!(*name, "temperature" | "top_p" | "stop" | "top_k")
            || metadata::is_bookkept(name)
            || says_nothing(name, value)
        {
            continue;
        }
        match MAY_GO.iter().find(|(known, _)| known == name) {
            Some((_, detail)) => ledger.inexact(*name, FidelityAction::Dropped, *detail)?,
            None => ledger.breach(*name, "this release cannot carry this parameter to Bedrock Converse")?,
        }
    }
    Ok(())
}

/// The values by which a request asks for what it would get anyway.
fn says_nothing(name: &str, value: &Value) -> bool {
    if value.is_null() {
        return true;
    }
    match name {
        "n" => value.as_f64() == Some(1.0),
        "logprobs" | "store" => value == &Value::Bool(false),
        "top_logprobs" | "presence_penalty" | "frequency_penalty" => value.as_f64() == Some(0.0),
        "logit_bias" => value.as_object().is_some_and(serde_json::Map::is_empty),
        "tools" | "functions" => value.as_array().is_some_and(Vec::is_empty),
        "service_tier" => matches!(value.as_str(), Some("auto" | "default")),
        "response_format" => value.get("type").and_then(Value::as_str) == Some("text"),
        "modalities" => value.as_array().is_some_and(|list| list.iter().all(|kind| kind == "text")),
        "verbosity" => value == "medium",
        // Tools themselves are refused by name; without any, how to choose among them says nothing.
        "parallel_tool_calls" => true,
        "tool_choice" | "function_call" => matches!(value.as_str(), Some("auto" | "none")),
        _ => false,
    }
}

fn max_tokens(
    limit: Option<OutputLimit>,
    habits: Habits<'_>,
    target: &Target,
    ledger: &mut Ledger<'_>,
) -> Result<u64, Refusal> {
    let most = habits.most_max_tokens().unwrap_or(u64::MAX).min(i32::MAX as u64);
    let Some(OutputLimit { tokens, name }) = limit else {
        let tokens = habits.default_max_tokens().clamp(1, most);
        ledger.note_always(
            "max_completion_tokens",
            FidelityAction::Approximated,
            format!(
                "nobody said how long the answer may be: bounded to {tokens} tokens, which Bedrock reserves against \
                 its quota; set `defaults: {{ max_tokens: … }}` on target {:?} to choose",
                target.name.as_str()
            ),
        );
        return Ok(tokens);
    };
    let least = habits.least_max_tokens();
    let sent = tokens.min(most).max(least);
    if sent != tokens {
        let why = if sent > tokens { "the least that the model takes" } else { "the most that the model writes" };
        ledger.inexact(name, FidelityAction::Approximated, format!("{tokens} goes as {sent}, {why}"))?;
    }
    Ok(sent)
}

fn number(effective: &Effective<'_>, name: &str, most: f64) -> Result<Option<f64>, Refusal> {
    let Some(value) = effective.get(name) else { return Ok(None) };
    match value.as_f64() {
        Some(number) if (0.0..=most).contains(&number) => Ok(Some(number)),
        _ => {
            let message = format!("{name}: must be a number from 0 to {most}, not {}", short(value));
            Err(Refusal::of(name, message))
        }
    }
}

fn temperature(
    effective: &Effective<'_>,
    habits: Habits<'_>,
    ledger: &mut Ledger<'_>,
    request: &mut Request,
) -> Result<(), Refusal> {
    let Some(temperature) = number(effective, "temperature", 2.0)? else { return Ok(()) };
    if habits.refuses("temperature") {
        // 1 is what both sides take when nobody says, so leaving it out changes nothing.
        if (temperature - 1.0).abs() > f64::EPSILON {
            ledger.inexact("temperature", FidelityAction::Dropped, "this model takes no temperature")?;
        }
        return Ok(());
    }
    if temperature > 1.0 {
        let detail = format!("{temperature} goes as 1: Converse takes 0 to 1");
        ledger.inexact("temperature", FidelityAction::Approximated, detail)?;
    }
    request.inference_config.temperature = Some(temperature.min(1.0));
    Ok(())
}

fn top_p(
    effective: &Effective<'_>,
    habits: Habits<'_>,
    ledger: &mut Ledger<'_>,
    request: &mut Request,
) -> Result<(), Refusal> {
    let Some(top_p) = number(effective, "top_p", 1.0)? else { return Ok(()) };
    // 1 keeps every token: to leave it out changes nothing.
    let changes_nothing = (top_p - 1.0).abs() < f64::EPSILON;
    let why = if habits.refuses("top_p") {
        "this model takes no top_p"
    } else if request.inference_config.temperature.is_some() && habits.refuses_together("temperature", "top_p") {
        "this model takes temperature or top_p, not both: temperature stays"
    } else {
        request.inference_config.top_p = Some(top_p);
        return Ok(());
    };
    if changes_nothing { Ok(()) } else { ledger.inexact("top_p", FidelityAction::Dropped, why) }
}

fn stop(
    effective: &Effective<'_>,
    habits: Habits<'_>,
    reading: &mut Reading,
    ledger: &mut Ledger<'_>,
    request: &mut Request,
) -> Result<(), Refusal> {
    let Some(value) = effective.get("stop") else { return Ok(()) };
    let malformed =
        || Refusal::of("stop", format!("stop: must be a string or a list of strings, not {}", short(value)));
    let given: Vec<&str> = match value {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().map(|one| one.as_str().ok_or_else(malformed)).collect::<Result<_, _>>()?,
        _ => return Err(malformed()),
    };
    for sequence in given.into_iter().filter(|sequence| !sequence.is_empty()) {
        // Claude rejects stop sequences of whitespace alone.
        let local = habits.refuses("stop") || (habits.is_claude() && sequence.trim().is_empty());
        if local {
            reading.local_stop.push(sequence.to_owned());
        } else {
            request.inference_config.stop_sequences.push(sequence.to_owned());
        }
    }
    if !reading.local_stop.is_empty() {
        ledger.inexact(
            "stop",
            FidelityAction::Emulated,
            "the model does not take this stop sequence: the answer is cut at it after it came, and what was cut is \
             billed",
        )?;
    }
    Ok(())
}

fn top_k(
    effective: &Effective<'_>,
    habits: Habits<'_>,
    ledger: &mut Ledger<'_>,
    request: &mut Request,
) -> Result<(), Refusal> {
    let Some(value) = effective.get("top_k") else { return Ok(()) };
    let Some(top_k) = crate::wire::parameters::whole_number(value).filter(|top_k| *top_k > 0) else {
        let message = format!("top_k: must be a whole number of at least 1, not {}", short(value));
        return Err(Refusal::of("top_k", message));
    };
    let fields = &mut request.additional_model_request_fields;
    // Models that take no temperature sample as they please.
    if habits.refuses("top_k") || habits.refuses("temperature") {
        ledger.inexact("top_k", FidelityAction::Dropped, "this model takes no top_k")?;
    } else if habits.is_claude() {
        fields.insert("top_k".to_owned(), top_k.into());
    } else if habits.is_nova() {
        fields.insert("inferenceConfig".to_owned(), serde_json::json!({ "topK": top_k }));
    } else {
        ledger.inexact("top_k", FidelityAction::Dropped, "this release does not know the model's name for top_k")?;
    }
    Ok(())
}
