//! Bounds, sampling and stop sequences, and what becomes of every parameter that Converse has no field for.
//!
//! Invariant: each parameter of the request is carried, found to say nothing, noted or refused: the match below ends
//! in a refusal by name, so a parameter that nobody thought of cannot slip through.

use super::{Request, family::Habits, reasoning::Sampling};
use crate::{
    job::FidelityAction,
    spec::Target,
    wire::{
        Reading, Refusal,
        fidelity::Ledger,
        parameters::{Effective, OutputLimit, says_nothing, short, stops, whole_number},
    },
};

/// Sampling and bookkeeping: an answer without them is still the answer asked for.
const MAY_GO: [(&str, &str); 12] = [
    ("seed", "Converse has no seed: answers are not repeatable"),
    ("presence_penalty", "Converse has no penalties"),
    ("frequency_penalty", "Converse has no penalties"),
    ("logit_bias", "Converse has no bias on tokens"),
    ("store", "Bedrock stores no completions"),
    ("verbosity", "Converse has no such parameter; say it in the prompt"),
    ("prediction", "Converse has no predicted output; the answer is the same, only slower"),
    ("prompt_cache_key", "Bedrock's cache has no keys"),
    ("prompt_cache_retention", "Bedrock's cache is not steered by this"),
    ("prompt_cache_options", "Bedrock's cache is not steered by this"),
    ("top_a", "Converse has no such parameter"),
    ("min_p", "Converse has no such parameter"),
];

/// What an answer without them would not keep.
const MUST_STAY: [(&str, &str); 7] = [
    ("n", "Converse gives one answer to a request"),
    ("logprobs", "Converse tells no probabilities"),
    ("top_logprobs", "Converse tells no probabilities"),
    ("modalities", "Converse answers in text alone"),
    ("audio", "Converse answers in text alone"),
    ("web_search_options", "Converse does not search the web"),
    ("moderation", "Bedrock moderates by guardrails: set `guardrail` on the target"),
];

/// Carried here or in the files beside this one.
const CARRIED: [&str; 18] = [
    "temperature",
    "top_p",
    "stop",
    "top_k",
    "tools",
    "functions",
    "tool_choice",
    "function_call",
    "parallel_tool_calls",
    "response_format",
    "reasoning_effort",
    "metadata",
    "user",
    "safety_identifier",
    "service_tier",
    "guardrail",
    "additional_model_request_fields",
    "max_tokens",
];

/// Puts in how long the answer may be.
pub(super) fn bound(
    limit: Option<OutputLimit>,
    habits: Habits<'_>,
    target: &Target,
    ledger: &mut Ledger<'_>,
    request: &mut Request,
) -> Result<(), Refusal> {
    request.inference_config.max_tokens = max_tokens(limit, habits, target, ledger)?;
    Ok(())
}

pub(super) fn carry(
    effective: &Effective<'_>,
    habits: Habits<'_>,
    allowed: Sampling,
    reading: &mut Reading,
    ledger: &mut Ledger<'_>,
    request: &mut Request,
) -> Result<(), Refusal> {
    temperature(effective, habits, allowed, ledger, request)?;
    top_p(effective, habits, allowed, ledger, request)?;
    stop(effective, habits, reading, ledger, request)?;
    top_k(effective, habits, allowed, ledger, request)?;
    for (name, value) in &effective.parameters {
        if CARRIED.contains(name) || says_nothing(name, value) {
            continue;
        }
        if let Some((_, detail)) = MAY_GO.iter().find(|(known, _)| known == name) {
            ledger.inexact(*name, FidelityAction::Dropped, *detail)?;
        } else {
            let known = MUST_STAY.iter().find(|(known, _)| known == name);
            let detail = known.map_or("this release cannot carry this parameter to Bedrock Converse", |(_, why)| why);
            ledger.breach(*name, detail)?;
        }
    }
    Ok(())
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

/// Both sides take 1 when nobody says, so leaving it out changes nothing.
fn is_one(number: f64) -> bool {
    (number - 1.0).abs() < f64::EPSILON
}

fn temperature(
    effective: &Effective<'_>,
    habits: Habits<'_>,
    allowed: Sampling,
    ledger: &mut Ledger<'_>,
    request: &mut Request,
) -> Result<(), Refusal> {
    let Some(temperature) = number(effective, "temperature", 2.0)? else { return Ok(()) };
    let why = if habits.refuses("temperature") {
        "this model takes no temperature"
    } else if allowed != Sampling::Free {
        "this model takes no temperature while it thinks"
    } else {
        if temperature > 1.0 {
            let detail = format!("{temperature} goes as 1: Converse takes 0 to 1");
            ledger.inexact("temperature", FidelityAction::Approximated, detail)?;
        }
        request.inference_config.temperature = Some(temperature.min(1.0));
        return Ok(());
    };
    if is_one(temperature) { Ok(()) } else { ledger.inexact("temperature", FidelityAction::Dropped, why) }
}

fn top_p(
    effective: &Effective<'_>,
    habits: Habits<'_>,
    allowed: Sampling,
    ledger: &mut Ledger<'_>,
    request: &mut Request,
) -> Result<(), Refusal> {
    /// The least that Claude takes while it thinks.
    const LEAST_THINKING: f64 = 0.95;
    let Some(top_p) = number(effective, "top_p", 1.0)? else { return Ok(()) };
    let why = if habits.refuses("top_p") {
        "this model takes no top_p"
    } else if allowed == Sampling::None || allowed == Sampling::Narrow && top_p < LEAST_THINKING {
        "this model does not take this top_p while it thinks"
    } else if request.inference_config.temperature.is_some() && habits.refuses_together("temperature", "top_p") {
        "this model takes temperature or top_p, not both: temperature stays"
    } else {
        request.inference_config.top_p = Some(top_p);
        return Ok(());
    };
    if is_one(top_p) { Ok(()) } else { ledger.inexact("top_p", FidelityAction::Dropped, why) }
}

fn stop(
    effective: &Effective<'_>,
    habits: Habits<'_>,
    reading: &mut Reading,
    ledger: &mut Ledger<'_>,
    request: &mut Request,
) -> Result<(), Refusal> {
    for sequence in stops(effective)? {
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
    allowed: Sampling,
    ledger: &mut Ledger<'_>,
    request: &mut Request,
) -> Result<(), Refusal> {
    let Some(value) = effective.get("top_k") else { return Ok(()) };
    let Some(top_k) = whole_number(value).filter(|top_k| *top_k > 0) else {
        let message = format!("top_k: must be a whole number of at least 1, not {}", short(value));
        return Err(Refusal::of("top_k", message));
    };
    let fields = &mut request.additional_model_request_fields;
    // Models that take no temperature sample as they please.
    let why = if habits.refuses("top_k") || habits.refuses("temperature") {
        "this model takes no top_k"
    } else if allowed != Sampling::Free {
        "this model takes no top_k while it thinks"
    } else if habits.is_claude() {
        fields.insert("top_k".to_owned(), top_k.into());
        return Ok(());
    } else if habits.is_nova() {
        fields.insert("inferenceConfig".to_owned(), serde_json::json!({ "topK": top_k }));
        return Ok(());
    } else {
        "this release does not know the model's name for top_k"
    };
    ledger.inexact("top_k", FidelityAction::Dropped, why)
}
