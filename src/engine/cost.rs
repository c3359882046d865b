//! What a call cost, and the most that one may have cost whose answer nobody saw.
//!
//! Invariant: a cost comes from reported usage and a known price, or there is none; nothing is guessed. The most that a
//! call may cost is an upper estimate, kept apart from costs everywhere.

use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::Value;

use super::{Engine, size::Size};
use crate::{
    catalog::{Model, Tier},
    money::Usd,
    names::ProviderName,
    provider::Reply,
    snapshot::Snapshot,
    spec::Target,
    usage::Usage,
    wire::Prepared,
};

impl Engine {
    /// What a provider's list prices are multiplied by.
    pub(super) fn multiplier(&self, provider: &ProviderName) -> Decimal {
        self.prices.load().get(provider).copied().unwrap_or(Decimal::ONE)
    }

    /// What a call cost, at list price times the provider's negotiated multiplier.
    pub(super) fn cost(&self, snapshot: &Snapshot, target: &Target, reply: &Reply) -> Option<Usd> {
        let (usage, tier) = (reply.usage?, served_tier(&reply.completion));
        snapshot.catalog.cost(target.api, &target.model, &usage, tier, self.multiplier(&target.provider))
    }

    /// What a call cost that failed after it had said what it consumed.
    pub(super) fn known_cost(&self, snapshot: &Snapshot, target: &Target, body: &Value, usage: &Usage) -> Option<Usd> {
        let tier = asked_tier(target, body);
        snapshot.catalog.cost(target.api, &target.model, usage, tier, self.multiplier(&target.provider))
    }

    /// The most that a call may cost.
    pub(super) fn most_cost(
        &self,
        snapshot: &Snapshot,
        target: &Target,
        (size, prepared, body): (&Size, &Prepared, &Value),
        model: Option<&Model>,
    ) -> Option<Usd> {
        let output = prepared.max_output_tokens.or_else(|| model?.max_output_tokens)?;
        self.most_cost_of(snapshot, target, body, (size.prompt.most, output))
    }

    /// The most that so many tokens of prompt and answer may cost.
    pub(super) fn most_cost_of(
        &self,
        snapshot: &Snapshot,
        target: &Target,
        body: &Value,
        tokens: (u64, u64),
    ) -> Option<Usd> {
        let tier = asked_tier(target, body);
        snapshot.catalog.cost_at_most(target.api, &target.model, tokens, tier, self.multiplier(&target.provider))
    }
}

/// The service tier that an answer says it was served by.
fn served_tier(completion: &str) -> Tier {
    #[derive(Deserialize)]
    struct Said<'a> {
        #[serde(borrow, default)]
        service_tier: Option<std::borrow::Cow<'a, str>>,
    }
    // Most answers do not speak of it, and need not be read for it.
    if !completion.contains("\"service_tier\"") {
        return Tier::Standard;
    }
    let said: Option<Said<'_>> = serde_json::from_str(completion).ok();
    said.and_then(|said| said.service_tier).map_or(Tier::Standard, |name| Tier::named(&name))
}

/// The service tier that a request asks for.
fn asked_tier(target: &Target, body: &Value) -> Tier {
    let named = |value: Option<&Value>| value.and_then(Value::as_str).map(Tier::named);
    named(target.overrides.get("service_tier"))
        .or_else(|| named(body.get("service_tier")))
        .or_else(|| named(target.defaults.get("service_tier")))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_say_which_tier_served_them() {
        for (completion, tier) in [
            (r#"{"service_tier":"flex","choices":[]}"#, Tier::Flex),
            (r#"{"service_tier":"default"}"#, Tier::Standard),
            (r#"{"service_tier":null}"#, Tier::Standard),
            (r#"{"service_tier":"scale"}"#, Tier::Other),
            (r#"{"choices":[{"message":{"content":"\"service_tier\": \"flex\""}}]}"#, Tier::Standard),
            ("{}", Tier::Standard),
        ] {
            assert_eq!(served_tier(completion), tier, "{completion}");
        }
    }
}
