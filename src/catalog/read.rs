//! The catalogue's file: a mapping of models for each protocol, read over the entries that are already known.
//!
//! Invariant: what a file does not say stays as it was; a file with an error changes nothing.

use jiff::civil::Date;
use rust_decimal::Decimal;

use super::{
    Api, Catalog,
    model::{CountTokens, Input, Lifecycle, Model, Reasoning, Sampling, Schema, Tokenizer, ToolChoice},
    prices::{LongPrices, Prices, TierPrices},
};
use crate::{
    diagnostic::Diagnostic,
    yaml::{self, Findings, Keys, Node, Section, Value},
};

const FILE: Keys = Keys::new("the catalogue", &["version", "openai", "bedrock"]);
const MODEL: Keys = Keys::new(
    "a model",
    &[
        "context_window",
        "max_input_tokens",
        "max_output_tokens",
        "default_max_tokens",
        "prices",
        "global_prices",
        "burndown",
        "refuses",
        "refuses_together",
        "tokenizer",
        "profiles",
        "needs_profile",
        "input",
        "tools",
        "tool_choice",
        "strict_tools",
        "tool_result_images",
        "schema",
        "reasoning",
        "efforts",
        "sampling",
        "assistant_prefill",
        "mid_conversation_system",
        "least_max_tokens",
        "chat_completions",
        "count_tokens",
        "lifecycle",
        "replacement",
        "substitutes",
    ],
);
const PRICES: Keys = Keys::new(
    "prices",
    &[
        "input",
        "output",
        "cache_read",
        "cache_write",
        "cache_write_1h",
        "batch_input",
        "batch_output",
        "flex",
        "priority",
        "long",
    ],
);
const TIER: Keys = Keys::new("prices of a service tier", &["input", "output", "cache_read"]);
const LONG: Keys = Keys::new("prices of long prompts", &["above", "input", "output", "cache_read"]);
const LIFECYCLE: Keys = Keys::new("a lifecycle", &["ends", "ended"]);

/// Most tokens of anything: far above every window, small enough for every sum.
const MAX_TOKENS: i64 = 1_000_000_000;
/// Most names in a list.
const MAX_NAMES: usize = 100;
/// Longest id of a model: an ARN fits.
const MAX_ID: usize = 2_048;

/// Reads a file over `base`.
pub(super) fn read(file: &str, bytes: &[u8], base: &Catalog) -> (Option<Catalog>, Vec<Diagnostic>) {
    let document = match yaml::parse(file, bytes) {
        Ok(document) => document,
        Err(problem) => return (None, vec![*problem]),
    };
    let mut findings = Findings::new(file, &document.text);
    let mut catalog = base.clone();
    if !document.root.is_null()
        && let Some(section) = document.root.section(&FILE, &mut findings)
    {
        if let Some(version) = section.get("version") {
            version.integer("version", 1..=1, &mut findings);
        }
        for (key, api) in [("openai", Api::OpenAi), ("bedrock", Api::Bedrock)] {
            let Some(entries) = section.get(key).and_then(|node| node.entries(key, &mut findings)) else { continue };
            for entry in entries {
                let id = entry.key.text.as_str();
                if id.is_empty() || id.len() > MAX_ID || id.contains(char::is_whitespace) {
                    let at = entry.key.position;
                    findings.error("bad-model-id", at, "this is no model id", "write it as the provider does");
                    continue;
                }
                // Written with a geography or inside an ARN, it is still the model itself that is described.
                let known = base.find(api, id).filter(|known| known.api == api);
                let id = if api == Api::Bedrock { super::id::bedrock_id(id).base } else { id };
                let mut model = known.cloned().unwrap_or_else(|| Model::new(api, id));
                read_model(&entry.value, &mut model, &mut findings);
                catalog.put(model);
            }
        }
    }
    let catalog = (!findings.has_errors()).then_some(catalog);
    (catalog, findings.finish())
}

fn read_model(node: &Node, model: &mut Model, findings: &mut Findings) {
    let Some(section) = node.section(&MODEL, findings) else { return };
    let mut tokens = |key: &str, lowest: i64| {
        let value = section.get(key)?.integer(key, lowest..=MAX_TOKENS, findings)?;
        u64::try_from(value).ok()
    };
    model.context_window = tokens("context_window", 1).or(model.context_window);
    model.max_input_tokens = tokens("max_input_tokens", 1).or(model.max_input_tokens);
    model.max_output_tokens = tokens("max_output_tokens", 1).or(model.max_output_tokens);
    model.default_max_tokens = tokens("default_max_tokens", 1).unwrap_or(model.default_max_tokens);
    let capabilities = &mut model.capabilities;
    capabilities.least_max_tokens = tokens("least_max_tokens", 1).unwrap_or(capabilities.least_max_tokens);

    if let Some(burndown) = section.get("burndown").and_then(|node| node.integer("burndown", 1..=1_000, findings)) {
        model.burndown = u32::try_from(burndown).unwrap_or(1);
    }
    for (key, prices) in [("prices", &mut model.prices), ("global_prices", &mut model.global_prices)] {
        if let Some(node) = section.get(key) {
            *prices = read_prices(node, key, prices.as_ref(), findings);
        }
    }
    for (key, names) in [
        ("refuses", &mut model.refuses),
        ("profiles", &mut model.profiles),
        ("efforts", &mut model.capabilities.efforts),
        ("substitutes", &mut model.substitutes),
    ] {
        if let Some(read) = section.get(key).and_then(|node| read_names(node, key, findings)) {
            *names = read;
        }
    }
    if let Some(node) = section.get("refuses_together") {
        read_pairs(node, &mut model.refuses_together, findings);
    }
    if let Some(node) = section.get("replacement") {
        model.replacement = node.line("replacement", MAX_ID, findings).map(str::to_owned);
    }
    if let Some(node) = section.get("lifecycle")
        && let Some(lifecycle) = read_lifecycle(node, findings)
    {
        model.lifecycle = lifecycle;
    }
    read_capabilities(&section, model, findings);
}

fn read_capabilities(section: &Section<'_>, model: &mut Model, findings: &mut Findings) {
    let capabilities = &mut model.capabilities;
    for (key, flag) in [
        ("needs_profile", &mut model.needs_profile),
        ("tools", &mut capabilities.tools),
        ("strict_tools", &mut capabilities.strict_tools),
        ("tool_result_images", &mut capabilities.tool_result_images),
        ("assistant_prefill", &mut capabilities.assistant_prefill),
        ("mid_conversation_system", &mut capabilities.mid_conversation_system),
        ("chat_completions", &mut capabilities.chat_completions),
    ] {
        if let Some(value) = section.get(key).and_then(|node| node.boolean(key, findings)) {
            *flag = value;
        }
    }
    choose(
        section,
        "tokenizer",
        &mut model.tokenizer,
        &[
            ("o200k", Tokenizer::O200k),
            ("o200k_assumed", Tokenizer::O200kAssumed),
            ("cl100k", Tokenizer::Cl100k),
            ("claude_4", Tokenizer::Claude4),
            ("claude_5", Tokenizer::Claude5),
            ("nova", Tokenizer::Nova),
            ("llama", Tokenizer::Llama),
            ("other", Tokenizer::Other),
        ],
        findings,
    );
    choose(
        section,
        "tool_choice",
        &mut capabilities.tool_choice,
        &[("none", ToolChoice::None), ("auto", ToolChoice::Auto), ("any", ToolChoice::Any)],
        findings,
    );
    choose(
        section,
        "schema",
        &mut capabilities.schema,
        &[
            ("none", Schema::None),
            ("tool", Schema::Tool),
            ("native", Schema::Native),
            ("native_with_reasoning", Schema::NativeWithReasoning),
        ],
        findings,
    );
    choose(
        section,
        "reasoning",
        &mut capabilities.reasoning,
        &[
            ("none", Reasoning::None),
            ("effort", Reasoning::Effort),
            ("reasoning_effort", Reasoning::ReasoningEffort),
            ("budget", Reasoning::Budget),
            ("adaptive", Reasoning::Adaptive),
            ("always", Reasoning::Always),
            ("nova", Reasoning::Nova),
        ],
        findings,
    );
    choose(
        section,
        "sampling",
        &mut capabilities.sampling,
        &[("free", Sampling::Free), ("without_reasoning", Sampling::WithoutReasoning), ("refused", Sampling::Refused)],
        findings,
    );
    choose(
        section,
        "count_tokens",
        &mut capabilities.count_tokens,
        &[("none", CountTokens::None), ("runtime", CountTokens::Runtime), ("mantle", CountTokens::Mantle)],
        findings,
    );
    if let Some(items) = section.get("input").and_then(|node| node.list("input", 8, findings)) {
        let mut input = Input::default();
        for item in items {
            // Every model takes text; it may be listed for completeness.
            match item.choice("input", &[("text", 't'), ("image", 'i'), ("document", 'd'), ("video", 'v')], findings) {
                Some('i') => input.image = true,
                Some('d') => input.document = true,
                Some('v') => input.video = true,
                _ => {}
            }
        }
        capabilities.input = input;
    }
}

fn choose<T: Copy>(section: &Section<'_>, key: &str, field: &mut T, choices: &[(&str, T)], findings: &mut Findings) {
    if let Some(value) = section.get(key).and_then(|node| node.choice(key, choices, findings)) {
        *field = value;
    }
}

/// Prices over those known; a model without any needs both `input` and `output`.
fn read_prices(node: &Node, what: &str, base: Option<&Prices>, findings: &mut Findings) -> Option<Prices> {
    let section = node.section(&PRICES, findings)?;
    if base.is_none() {
        section.require("input", findings)?;
        section.require("output", findings)?;
    }
    let mut prices = base.copied().unwrap_or_default();
    let mut price = |key: &str| read_price(&section, key, findings);
    prices.input = price("input").unwrap_or(prices.input);
    prices.output = price("output").unwrap_or(prices.output);
    prices.cache_read = price("cache_read").or(prices.cache_read);
    prices.cache_write = price("cache_write").or(prices.cache_write);
    prices.cache_write_1h = price("cache_write_1h").or(prices.cache_write_1h);
    prices.batch_input = price("batch_input").or(prices.batch_input);
    prices.batch_output = price("batch_output").or(prices.batch_output);
    for (key, tier) in [("flex", &mut prices.flex), ("priority", &mut prices.priority)] {
        if let Some(node) = section.get(key) {
            *tier = read_tier(node, *tier, findings);
        }
    }
    if let Some(node) = section.get("long") {
        prices.long = read_long(node, prices.long, findings);
    }
    if let Some(long) = prices.long.filter(|_| section.get("input").is_some() && section.get("long").is_none())
        && long.input < prices.input
    {
        let message = format!("`{what}` of long prompts stay at {}, below the new price", long.input);
        findings.warning("odd-price", node.position, message, "say what `long` costs, too");
    }
    Some(prices)
}

fn read_tier(node: &Node, base: Option<TierPrices>, findings: &mut Findings) -> Option<TierPrices> {
    let section = node.section(&TIER, findings)?;
    if base.is_none() {
        section.require("input", findings)?;
        section.require("output", findings)?;
    }
    let base = base.unwrap_or(TierPrices { input: Decimal::ZERO, output: Decimal::ZERO, cache_read: None });
    Some(TierPrices {
        input: read_price(&section, "input", findings).unwrap_or(base.input),
        output: read_price(&section, "output", findings).unwrap_or(base.output),
        cache_read: read_price(&section, "cache_read", findings).or(base.cache_read),
    })
}

fn read_long(node: &Node, base: Option<LongPrices>, findings: &mut Findings) -> Option<LongPrices> {
    let section = node.section(&LONG, findings)?;
    if base.is_none() {
        for key in ["above", "input", "output"] {
            section.require(key, findings)?;
        }
    }
    let above = section.get("above").and_then(|node| node.integer("above", 1..=MAX_TOKENS, findings));
    let base = base.unwrap_or(LongPrices { above: 0, input: Decimal::ZERO, output: Decimal::ZERO, cache_read: None });
    Some(LongPrices {
        above: above.and_then(|above| u64::try_from(above).ok()).unwrap_or(base.above),
        input: read_price(&section, "input", findings).unwrap_or(base.input),
        output: read_price(&section, "output", findings).unwrap_or(base.output),
        cache_read: read_price(&section, "cache_read", findings).or(base.cache_read),
    })
}

/// Dollars per million tokens, exactly as written.
fn read_price(section: &Section<'_>, key: &str, findings: &mut Findings) -> Option<Decimal> {
    section.get(key)?.decimal(key, Decimal::ZERO..=Decimal::from(1_000_000), findings)
}

fn read_names(node: &Node, what: &str, findings: &mut Findings) -> Option<Vec<String>> {
    let items = node.list(what, MAX_NAMES, findings)?;
    items.iter().map(|item| item.line(what, MAX_ID, findings).map(str::to_owned)).collect()
}

fn read_pairs(node: &Node, pairs: &mut Vec<(String, String)>, findings: &mut Findings) {
    let Some(items) = node.list("refuses_together", MAX_NAMES, findings) else { return };
    let mut read = Vec::with_capacity(items.len());
    for item in items {
        match read_names(item, "refuses_together", findings).as_deref() {
            Some([one, other]) => read.push((one.clone(), other.clone())),
            Some(_) => {
                let help = "write pairs such as `[[temperature, top_p]]`";
                findings.error("wrong-length", item.position, "a pair has two names", help);
            }
            None => {}
        }
    }
    *pairs = read;
}

fn read_lifecycle(node: &Node, findings: &mut Findings) -> Option<Lifecycle> {
    const HELP: &str = "write `active`, `ended`, `{ ends: 2027-01-14 }` or `{ ended: 2027-01-14 }`";
    match &node.value {
        Value::Map(_) => {
            let section = node.section(&LIFECYCLE, findings)?;
            let mut day = |key: &str| {
                let node = section.get(key)?;
                let day: Option<Date> = node.text(key, findings)?.parse().ok();
                if day.is_none() {
                    findings.error("bad-date", node.position, format!("`{key}` is no day"), "write it as 2027-01-14");
                }
                day
            };
            match (day("ends"), day("ended")) {
                (Some(ends), None) => Some(Lifecycle::EndsOn(ends)),
                (None, Some(ended)) => Some(Lifecycle::Ended(Some(ended))),
                (None, None) if section.entries().next().is_some() => None,
                _ => {
                    findings.error("bad-lifecycle", node.position, "a lifecycle is one of `ends` and `ended`", HELP);
                    None
                }
            }
        }
        _ => node.choice("lifecycle", &[("active", Lifecycle::Active), ("ended", Lifecycle::Ended(None))], findings),
    }
}
