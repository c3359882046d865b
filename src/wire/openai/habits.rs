//! What a model takes on an OpenAI-form endpoint: OpenAI's own, or Bedrock's for the models that it serves in this form.
//!
//! Invariant: only what the catalogue (or, on Bedrock, the endpoint) is known to refuse is touched; everything else goes
//! as the job wrote it, known to us or not.

use std::borrow::Cow;

use serde_json::Value;

use crate::{
    catalog::{Model, Sampling, id::bedrock_id},
    job::FidelityAction,
    spec::{Api, Target},
    wire::{
        Reading, Refusal,
        effort::{self, Effort},
        fidelity::Ledger,
        parameters::{Effective, LIMIT_NAMES, OutputLimit, TARGETS_OWN, says_nothing, stops},
    },
};

/// Refused by a model, these may go; anything else is part of what the answer promises.
const MAY_GO: [&str; 13] = [
    "temperature",
    "top_p",
    "top_k",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "seed",
    "store",
    "user",
    "metadata",
    "service_tier",
    "verbosity",
    "parallel_tool_calls",
];

/// Taken by most models only while they do not reason.
const WITHOUT_REASONING: [&str; 4] = ["temperature", "top_p", "logprobs", "top_logprobs"];

pub(super) struct Habits<'a> {
    model: Option<&'a Model>,
    /// The id as Bedrock has it, on Bedrock's endpoint.
    on_bedrock: Option<&'a str>,
}

impl<'a> Habits<'a> {
    pub(super) fn of(target: &'a Target, model: Option<&'a Model>) -> Self {
        let base = bedrock_id(&target.model).base;
        let is_bedrock = match model {
            Some(model) => model.api == Api::Bedrock,
            None => ["openai.", "xai."].iter().any(|maker| base.starts_with(maker)),
        };
        Self { model, on_bedrock: is_bedrock.then_some(base) }
    }

    fn is_gpt_oss(&self) -> bool {
        self.on_bedrock.is_some_and(|id| id.starts_with("openai.gpt-oss"))
    }

    /// OpenAI's newer models on Bedrock, which have rules of their own there.
    fn is_gpt_on_bedrock(&self) -> bool {
        self.on_bedrock.is_some_and(|id| id.starts_with("openai.gpt-")) && !self.is_gpt_oss()
    }

    fn efforts(&self) -> &'a [String] {
        self.model.map_or(&[], |model| model.capabilities.efforts.as_slice())
    }

    /// Why a parameter is refused, if it is. `reasons`: whether the model will.
    fn refusal(&self, name: &str, value: &Value, reasons: bool) -> Option<&'static str> {
        if self.is_gpt_on_bedrock() {
            // Converse's refusals of sampling are stricter than this endpoint's.
            if WITHOUT_REASONING.contains(&name) || name.ends_with("_penalty") {
                return reasons.then_some("the model takes it with `reasoning_effort: none` only");
            }
            if name == "service_tier" {
                return Some("the model is served by the standard tier alone");
            }
        }
        if let Some(id) = self.on_bedrock {
            match name {
                "n" if value.as_f64() != Some(1.0) => return Some("Bedrock gives one answer to a request"),
                "logit_bias" if self.is_gpt_oss() => return Some("the model takes no bias on tokens"),
                "presence_penalty" | "frequency_penalty" if id.starts_with("xai.") => {
                    return Some("the model takes no penalties");
                }
                _ => {}
            }
        }
        let model = self.model?;
        if model.refuses(name) && !(self.is_gpt_on_bedrock() && WITHOUT_REASONING.contains(&name)) {
            return Some("the model refuses it");
        }
        let only_without = model.capabilities.sampling == Sampling::WithoutReasoning;
        (only_without && reasons && WITHOUT_REASONING.contains(&name))
            .then_some("the model takes it with `reasoning_effort: none` only")
    }
}

/// The parameters as the model takes them.
pub(super) fn adapt<'e>(
    habits: &Habits<'_>,
    effective: &'e Effective<'_>,
    reading: &mut Reading,
    ledger: &mut Ledger<'_>,
) -> Result<Vec<(&'e str, Cow<'e, Value>)>, Refusal> {
    if let Some(name) = TARGETS_OWN.into_iter().find(|name| effective.get(name).is_some()) {
        let message = format!("{name}: only Bedrock Converse has it: remove it from this target");
        return Err(Refusal::of(name, message));
    }
    let asked = match effective.get("reasoning_effort") {
        // A word that is newer than this release passes as it is.
        Some(value) if habits.model.is_some() || habits.on_bedrock.is_some() => effort::read(value).ok(),
        _ => None,
    };
    let mut sent = asked;
    if let Some(wanted) = asked {
        sent = effort_for(habits, wanted, ledger)?;
    }
    let has_tools = ["tools", "functions"]
        .into_iter()
        .any(|name| effective.get(name).is_some_and(|value| !says_nothing(name, value)));
    if has_tools && habits.is_gpt_on_bedrock() && sent != Some(Effort::None) {
        let still = Effort::None.nearest(habits.efforts());
        if still != Effort::None {
            let detail = "Bedrock's OpenAI-form endpoint takes tools from models that do not reason, and this one always \
                          does; Converse (a provider with `api: bedrock`) takes both";
            return Err(ledger.impossible("tools", detail));
        }
        let said = asked.map_or_else(|| "nothing was said, and goes".to_owned(), |wanted| format!("{wanted} goes"));
        let detail =
            format!("{said} as none: this endpoint takes tools from models that do not reason; Converse takes both");
        ledger.inexact("reasoning_effort", FidelityAction::Approximated, detail)?;
        sent = Some(still);
    }
    let can_be_still = habits.efforts().iter().any(|effort| effort == "none");
    // OpenAI's models that can be still are, unless told otherwise; on Bedrock they must be told.
    let reasons = sent.map_or(habits.is_gpt_on_bedrock() || !can_be_still, |effort| effort != Effort::None);
    let mut parameters = Vec::with_capacity(effective.parameters.len() + 1);
    for (name, value) in &effective.parameters {
        if *name == "reasoning_effort" && (asked.is_some() || sent.is_some()) {
            continue;
        }
        let refused = if value.is_null() { None } else { habits.refusal(name, value, reasons) };
        match refused {
            None => parameters.push((*name, Cow::Borrowed(value.as_ref()))),
            Some(_) if says_nothing(name, value) => {}
            Some(_) if *name == "stop" => {
                reading.local_stop = stops(effective)?.into_iter().map(str::to_owned).collect();
                if !reading.local_stop.is_empty() {
                    let detail = "the model does not take stop sequences: the answer is cut at them after it came, and \
                                  what was cut is billed";
                    ledger.inexact("stop", FidelityAction::Emulated, detail)?;
                }
            }
            Some(why) if MAY_GO.contains(name) => ledger.inexact(*name, FidelityAction::Dropped, why)?,
            Some(why) => ledger.breach(*name, why)?,
        }
    }
    if let Some(effort) = sent {
        let word: &'static str = effort.into();
        parameters.push(("reasoning_effort", Cow::Owned(word.into())));
    }
    reading.inline_reasoning = habits.is_gpt_oss();
    reading.mint_call_ids = has_tools && habits.on_bedrock.is_some();
    Ok(parameters)
}

/// The effort to send; `None` to say nothing.
fn effort_for(habits: &Habits<'_>, wanted: Effort, ledger: &mut Ledger<'_>) -> Result<Option<Effort>, Refusal> {
    const NAME: &str = "reasoning_effort";
    if habits.model.is_some_and(|model| model.refuses(NAME)) {
        if wanted != Effort::None {
            ledger.inexact(NAME, FidelityAction::Dropped, "the model does not reason")?;
        }
        return Ok(None);
    }
    let sent = wanted.nearest(habits.efforts());
    if sent != wanted {
        let detail = format!("{wanted} goes as {sent}, the nearest that the model takes");
        ledger.inexact(NAME, FidelityAction::Approximated, detail)?;
    }
    Ok(Some(sent))
}

/// The output bound, and the name under which the model takes it.
pub(super) fn bound(
    habits: &Habits<'_>,
    target: &Target,
    limit: Option<OutputLimit>,
    ledger: &mut Ledger<'_>,
) -> Result<Option<(&'static str, u64)>, Refusal> {
    let [newer, _] = LIMIT_NAMES;
    if habits.on_bedrock.is_none() {
        return Ok(limit.map(|limit| (limit_name(&target.model, habits.model, limit.name), limit.tokens)));
    }
    let Some(OutputLimit { tokens, name }) = limit else {
        let tokens = habits.model.map_or(Model::DEFAULT_MAX_TOKENS, |model| model.default_max_tokens);
        let detail = format!(
            "nobody said how long the answer may be: bounded to {tokens} tokens, which Bedrock reserves against its \
             quota; set `defaults: {{ max_tokens: … }}` on target {:?} to choose",
            target.name.as_str()
        );
        ledger.note_always(newer, FidelityAction::Approximated, detail);
        return Ok(Some((newer, tokens)));
    };
    let least = habits.model.map_or(1, |model| model.capabilities.least_max_tokens);
    let most = habits.model.and_then(|model| model.max_output_tokens).unwrap_or(u64::MAX);
    let sent = tokens.min(most).max(least);
    if sent != tokens {
        let why = if sent > tokens { "the least that the model takes" } else { "the most that the model writes" };
        ledger.inexact(name, FidelityAction::Approximated, format!("{tokens} goes as {sent}, {why}"))?;
    }
    Ok(Some((newer, sent)))
}

/// The name under which the model takes an output bound that was given as `given`.
fn limit_name(id: &str, model: Option<&Model>, given: &'static str) -> &'static str {
    /// Models that reject the older name.
    const REASONING: [&str; 6] = ["o1", "o3", "o4", "gpt-5", "gpt-6", "gpt-7"];
    let [newer, older] = LIMIT_NAMES;
    let refuses = |name: &str| model.is_some_and(|model| model.refuses(name));
    if refuses(older) {
        newer
    } else if refuses(newer) {
        older
    } else if REASONING.iter().any(|prefix| id.starts_with(prefix)) {
        newer
    } else {
        given
    }
}

/// Bedrock's endpoint fetches nothing.
pub(super) fn refuse_remote_images(
    habits: &Habits<'_>,
    effective: &Effective<'_>,
    ledger: &Ledger<'_>,
) -> Result<(), Refusal> {
    if habits.on_bedrock.is_none() {
        return Ok(());
    }
    for (index, message) in effective.messages.iter() {
        let parts = message.get("content").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for (place, part) in parts.iter().enumerate() {
            let url = part.pointer("/image_url/url").and_then(Value::as_str).unwrap_or_default();
            if url.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http")) {
                let detail = "Bedrock's OpenAI-form endpoint fetches no images; it takes data URIs, and by Converse (a \
                              provider with `api: bedrock`) the daemon fetches them";
                return Err(ledger.impossible(format!("messages[{index}].content[{place}]"), detail));
            }
        }
    }
    Ok(())
}
