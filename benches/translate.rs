//! What a translation costs: a conversation of twenty messages to each kind of target, with and without tools.
//!
//! `cargo bench --bench translate`. The plain conversation to Converse is to stay under 50 µs.

#![expect(missing_docs, reason = "criterion's macros make functions without docs")]

use std::{collections::BTreeMap, hint::black_box, sync::Arc};

use criterion::{Criterion, criterion_group, criterion_main};
use landbridge::{
    catalog::Catalog,
    spec::{Api, ProviderFacts, Providers, Target, read::read},
    wire::prepare,
};
use serde_json::{Value, json};

/// One target of each kind, as a spec makes them.
fn targets() -> Vec<Arc<Target>> {
    let providers: Providers = [("openai", Api::OpenAi), ("bedrock", Api::Bedrock)]
        .into_iter()
        .map(|(name, api)| {
            let region = (api == Api::Bedrock).then(|| "us-east-1".parse().expect("a region"));
            let facts = ProviderFacts { api, family: None, region, data_regions: Vec::new() };
            (name.parse().expect("a name"), facts)
        })
        .collect();
    let spec = "version: 1\nname: bench\ntargets:\n  openai: { provider: openai, model: gpt-5.4-mini }\n  \
                claude: { provider: bedrock, model: us.anthropic.claude-haiku-4-5-20251001-v1:0 }\n  \
                nova: { provider: bedrock, model: us.amazon.nova-2-lite-v1:0 }\n\
                route:\n  - to: claude\nfallback: [nova, openai]\n";
    let context = landbridge::spec::read::Context {
        providers: &providers,
        models: &BTreeMap::new(),
        catalog: &Catalog::builtin(),
        today: jiff::civil::date(2026, 11, 22),
    };
    let outcome = read("bench.yaml", spec.as_bytes(), &context);
    outcome.pipeline.unwrap_or_else(|| panic!("{:#?}", outcome.diagnostics)).targets
}

/// Twenty messages of a few sentences.
fn conversation() -> Value {
    let line = "The customer writes that the second order of this month has not arrived, and asks what to do. ";
    let mut messages = vec![json!({ "role": "system", "content": "You help the staff of a shop." })];
    for n in 0..19 {
        let role = if n % 2 == 0 { "user" } else { "assistant" };
        messages.push(json!({ "role": role, "content": line.repeat(4) }));
    }
    json!({ "model": "gpt-4o-mini", "messages": messages, "max_tokens": 800, "temperature": 0.2, "stop": ["END"] })
}

/// The same with tools, calls and results.
fn with_tools() -> Value {
    let mut body = conversation();
    let tool = |name: &str| {
        json!({ "type": "function", "function": { "name": name, "description": "Looks something up.", "parameters": {
            "type": "object", "properties": { "order": { "type": "string" }, "deep": { "type": "boolean" } },
            "required": ["order"] } } })
    };
    body["tools"] = json!([tool("find_order"), tool("find_parcel"), tool("write_mail")]);
    let messages = body["messages"].as_array_mut().expect("a list");
    for n in [2, 6, 10] {
        let id = format!("call_{n}");
        messages[n] = json!({ "role": "assistant", "content": null, "tool_calls": [
            { "id": id, "type": "function", "function": { "name": "find_order", "arguments": "{\"order\":\"17\"}" } }] });
        messages[n + 1] = json!({ "role": "tool", "tool_call_id": id, "content": "sent on Monday" });
    }
    body
}

fn translate(criterion: &mut Criterion) {
    let catalog = Catalog::builtin();
    for (what, body) in [("text", conversation()), ("tools", with_tools())] {
        for target in targets() {
            let model = catalog.find(target.api, &target.model);
            let name = format!("20 messages of {what} for {}", target.name);
            criterion.bench_function(&name, |bencher| {
                bencher.iter(|| prepare(black_box(&target), model, black_box(&body)).expect("carried"));
            });
        }
    }
}

criterion_group!(benches, translate);
criterion_main!(benches);
