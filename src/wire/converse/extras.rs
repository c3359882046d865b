//! What a target adds to a call beside OpenAI's parameters (a guardrail, fields of the model's own), and how urgent the
//! call is.
//!
//! Invariant: a target's own fields win over those that the translation made.

use serde_json::{Map, Value};

use super::{Guardrail, Request, ServiceTier, family::Habits};
use crate::{
    job::FidelityAction,
    wire::{
        Refusal,
        fidelity::Ledger,
        parameters::{ADDITIONAL_FIELDS, Effective, GUARDRAIL, short},
    },
};

pub(super) fn carry(
    effective: &Effective<'_>,
    habits: Habits<'_>,
    ledger: &mut Ledger<'_>,
    request: &mut Request,
) -> Result<(), Refusal> {
    service_tier(effective, habits, ledger, request)?;
    if let Some(guardrail) = effective.get(GUARDRAIL) {
        request.guardrail_config = Some(read_guardrail(guardrail)?);
    }
    if let Some(fields) = effective.get(ADDITIONAL_FIELDS) {
        let Some(fields) = fields.as_object() else {
            return Err(Refusal::of(ADDITIONAL_FIELDS, format!("{ADDITIONAL_FIELDS}: must be an object")));
        };
        lay_over(&mut request.additional_model_request_fields, fields);
    }
    Ok(())
}

fn service_tier(
    effective: &Effective<'_>,
    habits: Habits<'_>,
    ledger: &mut Ledger<'_>,
    request: &mut Request,
) -> Result<(), Refusal> {
    const NAME: &str = "service_tier";
    let Some(value) = effective.get(NAME) else { return Ok(()) };
    let tier = match value.as_str() {
        Some("auto" | "default") => return Ok(()),
        Some("flex") => ServiceTier::Flex,
        Some("priority" | "fast") => ServiceTier::Priority,
        Some("reserved") => ServiceTier::Reserved,
        Some("scale") => {
            let detail = "Bedrock's bought capacity is `reserved`: set it on the target where there is some; this call \
                          is served by the standard tier";
            return ledger.inexact(NAME, FidelityAction::Dropped, detail);
        }
        _ => {
            let message = format!("{NAME}: must be auto, default, flex, priority, scale or fast, not {}", short(value));
            return Err(Refusal::of(NAME, message));
        }
    };
    if !habits.has_tiers() {
        let detail = "the model is served by the standard tier alone";
        return ledger.inexact(NAME, FidelityAction::Dropped, detail);
    }
    if value == "fast" {
        ledger.inexact(NAME, FidelityAction::Approximated, "fast goes as priority")?;
    }
    request.service_tier = Some(tier);
    Ok(())
}

fn read_guardrail(value: &Value) -> Result<Guardrail, Refusal> {
    let text = |name: &str| value.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    let missing = |name: &str| {
        let param = format!("{GUARDRAIL}.{name}");
        let message = format!("{param}: must be given: a guardrail is `{{ id: …, version: … }}`");
        Refusal::of(param, message)
    };
    let trace = value.get("trace").filter(|trace| !trace.is_null());
    let word = trace.and_then(Value::as_str).filter(|word| ["enabled", "disabled", "enabled_full"].contains(word));
    if let (Some(trace), None) = (trace, word) {
        let param = format!("{GUARDRAIL}.trace");
        let message = format!("{param}: must be enabled, disabled or enabled_full, not {}", short(trace));
        return Err(Refusal::of(param, message));
    }
    Ok(Guardrail {
        guardrail_identifier: text("id").ok_or_else(|| missing("id"))?,
        guardrail_version: text("version").ok_or_else(|| missing("version"))?,
        trace: word.map(str::to_owned),
    })
}

/// Lays fields over others, object by object.
fn lay_over(under: &mut Map<String, Value>, over: &Map<String, Value>) {
    for (name, value) in over {
        match (under.get_mut(name), value) {
            (Some(Value::Object(under)), Value::Object(over)) => lay_over(under, over),
            _ => {
                under.insert(name.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn own_fields_win() {
        let mut under = json!({ "a": { "b": 1, "c": 2 }, "d": 3 }).as_object().unwrap().clone();
        lay_over(&mut under, json!({ "a": { "b": 9 }, "d": { "e": 1 }, "f": null }).as_object().unwrap());
        assert_eq!(Value::Object(under), json!({ "a": { "b": 9, "c": 2 }, "d": { "e": 1 }, "f": null }));
    }
}
