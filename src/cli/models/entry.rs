//! One model of the catalogue as JSON, and in words.

use serde_json::{Value, json};

use crate::catalog::{
    Catalog, CountTokens, Lifecycle, LongPrices, Model, Prices, Reasoning, Sampling, Schema, TierPrices, ToolChoice,
};

/// Whether a model still serves, in words.
pub(super) fn lifecycle(model: &Model) -> String {
    match model.lifecycle {
        Lifecycle::Active => "active".to_owned(),
        Lifecycle::EndsOn(day) => format!("ends {day}"),
        Lifecycle::Ended(Some(day)) => format!("ended {day}"),
        Lifecycle::Ended(None) => "ended".to_owned(),
    }
}

/// Everything that is known of a model, by the name that it is called by.
pub(super) fn entry(catalog: &Catalog, name: &str, model: &Model) -> Value {
    json!({
        "model": name,
        "api": model.api,
        "context_window": model.context_window,
        "max_input_tokens": model.max_input_tokens,
        "max_output_tokens": model.max_output_tokens,
        "default_max_tokens": model.default_max_tokens,
        "prices_per_million": catalog.prices(model.api, name).map(prices),
        "global_prices_per_million": model.global_prices.as_ref().map(prices),
        "burndown": model.burndown,
        "refuses": model.refuses,
        "refuses_together": model.refuses_together,
        "profiles": model.profiles,
        "needs_profile": model.needs_profile,
        "capabilities": capabilities(model),
        "lifecycle": lifecycle(model),
        "replacement": model.replacement,
        "substitutes": catalog.substitutes(model.api, name),
    })
}

fn prices(list: &Prices) -> Value {
    let tier = |tier: Option<TierPrices>| {
        tier.map(|tier| json!({ "input": tier.input, "output": tier.output, "cache_read": tier.cache_read }))
    };
    let long = |long: LongPrices| json!({ "above": long.above, "input": long.input, "output": long.output, "cache_read": long.cache_read });
    json!({
        "input": list.input,
        "output": list.output,
        "cache_read": list.cache_read,
        "cache_write": list.cache_write,
        "cache_write_1h": list.cache_write_1h,
        "batch_input": list.batch_input,
        "batch_output": list.batch_output,
        "flex": tier(list.flex),
        "priority": tier(list.priority),
        "long": list.long.map(long),
    })
}

fn capabilities(model: &Model) -> Value {
    let can = &model.capabilities;
    json!({
        "image": can.input.image,
        "document": can.input.document,
        "video": can.input.video,
        "tools": can.tools,
        "tool_choice": match can.tool_choice {
            ToolChoice::None => "none",
            ToolChoice::Auto => "auto",
            ToolChoice::Any => "any",
        },
        "schema": match can.schema {
            Schema::None => "none",
            Schema::Tool => "tool",
            Schema::Native => "native",
            Schema::NativeWithReasoning => "native_with_reasoning",
        },
        "reasoning": match can.reasoning {
            Reasoning::None => "none",
            Reasoning::Effort => "effort",
            Reasoning::ReasoningEffort => "reasoning_effort",
            Reasoning::Budget => "budget",
            Reasoning::Adaptive => "adaptive",
            Reasoning::Always => "always",
            Reasoning::Nova => "nova",
        },
        "efforts": can.efforts,
        "sampling": match can.sampling {
            Sampling::Free => "free",
            Sampling::WithoutReasoning => "without_reasoning",
            Sampling::Refused => "refused",
        },
        "assistant_prefill": can.assistant_prefill,
        "chat_completions": can.chat_completions,
        "count_tokens": match can.count_tokens {
            CountTokens::None => "none",
            CountTokens::Runtime => "runtime",
            CountTokens::Mantle => "mantle",
        },
    })
}
