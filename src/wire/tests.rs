//! What a request becomes, target by target.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::{
    catalog::Catalog,
    job::FidelityAction,
    names::{ProviderName, TargetName},
    spec::{Fidelity, Residency, SystemMode, SystemPrompt},
};

pub(super) const CLAUDE: &str = "us.anthropic.claude-haiku-4-5-20251001-v1:0";

pub(super) fn target(api: Api, model: &str) -> Target {
    Target {
        name: TargetName::new("there").unwrap(),
        provider: ProviderName::new("somebody").unwrap(),
        api,
        model: model.to_owned(),
        region: None,
        residency: Residency::Unknown,
        timeout: Duration::from_mins(1),
        idle_timeout: Duration::from_mins(1),
        stream: false,
        invoke: None,
        defaults: serde_json::Map::new(),
        overrides: serde_json::Map::new(),
        cap: serde_json::Map::new(),
        system: None,
        fidelity: Fidelity::Warn,
    }
}

fn model(id: &str, refuses: &[&str], together: &[(&str, &str)]) -> Model {
    Model {
        context_window: Some(200_000),
        max_output_tokens: Some(64_000),
        default_max_tokens: 8_192,
        burndown: 5,
        refuses: refuses.iter().map(|name| (*name).to_owned()).collect(),
        refuses_together: together.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
        ..Model::new(Api::Bedrock, id)
    }
}

pub(super) fn parameters(value: Value) -> serde_json::Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// What is sent, as JSON.
pub(super) fn sent(prepared: &Prepared) -> Value {
    match &prepared.payload {
        Payload::OpenAi(body) => serde_json::from_slice(body).unwrap(),
        Payload::Converse(request) | Payload::Invoke(_, request) => serde_json::to_value(request).unwrap(),
    }
}

fn user(text: &str) -> Value {
    json!([{ "role": "user", "content": text }])
}

#[test]
fn requests_are_carried_to_converse() {
    let cases = [
        ("plain", json!({ "model": "gpt-4o-mini", "messages": user("Hi"), "max_tokens": 100 })),
        (
            "whole_conversation",
            json!({
                "messages": [
                    { "role": "system", "content": "Be brief." },
                    { "role": "developer", "content": [{ "type": "text", "text": "Be kind." }] },
                    { "role": "user", "content": "One" },
                    { "role": "user", "content": [{ "type": "text", "text": "Two" }, { "type": "text", "text": "\n" },
                                                  { "type": "text", "text": "Three" }] },
                    { "role": "assistant", "content": "Yes?", "refusal": null, "tool_calls": [], "annotations": [] },
                    { "role": "assistant", "content": null },
                    { "role": "user", "content": "Go on", "name": "ann" },
                ],
                "max_completion_tokens": 256, "temperature": 0.7, "stop": ["END", ""], "seed": 7, "user": "u-1",
                "metadata": { "order": "17", "odd": "ü" }, "n": 1, "logprobs": false, "response_format": { "type": "text" },
                "presence_penalty": 0, "frequency_penalty": 0.5, "store": false, "service_tier": "auto", "top_k": 40,
            }),
        ),
        ("range_of_temperature", json!({ "messages": user("Hi"), "max_tokens": 10, "temperature": 1.7, "top_p": 0.9 })),
        (
            "system_inside",
            json!({ "max_tokens": 10, "messages": [
                { "role": "user", "content": "Hi" }, { "role": "assistant", "content": "Hello" },
                { "role": "system", "content": "Speak French now." }, { "role": "user", "content": "Again" },
            ] }),
        ),
        (
            "assistant_first_and_last",
            json!({ "max_tokens": 10, "messages": [
                { "role": "assistant", "content": "Hello" }, { "role": "user", "content": "Say a" },
                { "role": "assistant", "content": [{ "type": "refusal", "refusal": "No" }, { "type": "text", "text": "a, b, " }] },
            ] }),
        ),
        (
            "no_bound_and_blank_stop",
            json!({ "messages": user("Hi"), "stop": "\n", "stream": true, "stream_options": {} }),
        ),
    ];
    for (name, body) in cases {
        let prepared = prepare(&target(Api::Bedrock, CLAUDE), None, &body).unwrap();
        let max_output_tokens = prepared.max_output_tokens;
        insta::assert_json_snapshot!(
            name,
            json!({ "sent": sent(&prepared), "reserves": max_output_tokens, "fidelity": prepared.fidelity })
        );
    }
}

#[test]
fn models_with_habits_get_what_they_take() {
    let body = json!({
        "messages": [{ "role": "user", "content": "Hi" }, { "role": "assistant", "content": "Well " }],
        "max_tokens": 5, "temperature": 0.2, "top_p": 0.5, "stop": ["END"], "top_k": 3,
    });
    let catalog = Catalog::builtin();
    for (name, id) in [
        ("claude_one_of_two", CLAUDE),
        ("claude_without_sampling", "us.anthropic.claude-opus-5-5"),
        ("nova", "us.amazon.nova-lite-v1:0"),
        ("openai_on_bedrock", "us.openai.gpt-6-astra"),
        ("llama", "us.meta.llama3-3-70b-instruct-v1:0"),
        ("unknown", "example.model-of-tomorrow"),
    ] {
        let model = catalog.find(Api::Bedrock, id);
        assert_eq!(model.is_some(), name != "unknown", "{id}");
        let prepared = prepare(&target(Api::Bedrock, id), model, &body).unwrap();
        assert!(matches!(prepared.payload, Payload::Converse(_)));
        insta::assert_json_snapshot!(
            name,
            json!({ "sent": sent(&prepared), "local_stop": prepared.reading.local_stop, "fidelity": prepared.fidelity })
        );
    }
}

#[test]
fn requests_to_openai_pass_as_they_are() {
    let body = json!({
        "model": "whatever", "temperature": 1.9, "messages": user("Hi"), "max_tokens": 100, "stream": true,
        "stream_options": { "include_usage": true }, "tools": [{ "type": "function", "function": { "name": "f" } }],
        "new_parameter": { "deep": [1, 2.5, null] }, "seed": null,
    });
    let mut openai = target(Api::OpenAi, "gpt-4o-mini");
    let prepared = prepare(&openai, None, &body).unwrap();
    assert_eq!(
        sent(&prepared),
        json!({
            "model": "gpt-4o-mini", "messages": user("Hi"), "temperature": 1.9, "max_tokens": 100,
            "tools": [{ "type": "function", "function": { "name": "f" } }],
            "new_parameter": { "deep": [1, 2.5, null] }, "seed": null,
        })
    );
    assert_eq!(prepared.max_output_tokens, Some(100));
    assert_eq!(prepared.fidelity.len(), 1, "only the stream is noted: {:?}", prepared.fidelity);

    openai.fidelity = Fidelity::Strict;
    assert!(prepare(&openai, None, &body).is_ok(), "no fidelity forbids how a job is called");

    // The name of the bound is the model's affair.
    let plain = json!({ "messages": user("Hi"), "max_tokens": 100 });
    for (id, model, name) in [
        ("gpt-4o-mini", None, "max_tokens"),
        ("gpt-5.4-mini", None, "max_completion_tokens"),
        ("o3", None, "max_completion_tokens"),
        (
            "mystery",
            Some(Model { api: Api::OpenAi, ..model("mystery", &["max_tokens"], &[]) }),
            "max_completion_tokens",
        ),
        (
            "gpt-5-old",
            Some(Model { api: Api::OpenAi, ..model("gpt-5-old", &["max_completion_tokens"], &[]) }),
            "max_tokens",
        ),
    ] {
        let prepared = prepare(&target(Api::OpenAi, id), model.as_ref(), &plain).unwrap();
        assert_eq!(sent(&prepared), json!({ "model": id, "messages": user("Hi"), name: 100 }), "{id}");
    }
}

#[test]
fn defaults_yield_and_overrides_win_and_caps_bound_both() {
    let mut there = target(Api::OpenAi, "m");
    there.defaults = parameters(json!({ "max_gen_len": 1_000, "temperature": 0.3, "top_p": 0.8 }));
    there.overrides = parameters(json!({ "temperature": 1.5, "seed": 1 }));
    there.cap = parameters(json!({ "max_tokens": 500, "temperature": 1, "presence_penalty": 0 }));
    for (said, expected) in [
        (json!({}), json!({ "max_tokens": 500, "temperature": 1, "top_p": 0.8, "seed": 1 })),
        (
            json!({ "max_completion_tokens": 50, "temperature": 0, "top_p": null }),
            json!({ "max_completion_tokens": 50, "temperature": 1, "top_p": 0.8, "seed": 1 }),
        ),
        (
            json!({ "max_tokens": 9_999.0, "top_p": 0.1, "seed": 3, "presence_penalty": 2 }),
            json!({ "max_tokens": 500, "temperature": 1, "top_p": 0.1, "seed": 1, "presence_penalty": 0 }),
        ),
        (json!({ "max_tokens": null }), json!({ "max_tokens": 500, "temperature": 1, "top_p": 0.8, "seed": 1 })),
    ] {
        let mut body = parameters(said);
        body.insert("messages".to_owned(), user("Hi"));
        let mut got = sent(&prepare(&there, None, &Value::Object(body)).unwrap());
        got.as_object_mut().unwrap().retain(|name, _| name != "model" && name != "messages");
        assert_eq!(got, expected);
    }

    there.overrides = parameters(json!({ "max_tokens": null }));
    there.cap = serde_json::Map::new();
    let prepared = prepare(&there, None, &json!({ "messages": user("Hi"), "max_tokens": 7 })).unwrap();
    assert_eq!(prepared.max_output_tokens, None, "an override may clear the bound");

    there.cap = parameters(json!({ "max_tokens": 100 }));
    there.overrides = serde_json::Map::new();
    let prepared = prepare(&there, None, &json!({ "messages": user("Hi") })).unwrap();
    assert_eq!(prepared.max_output_tokens, Some(100), "no bound is above any cap");
}

#[test]
fn system_text_meets_the_jobs_own() {
    let own = json!([{ "role": "system", "content": "Job's." }, { "role": "user", "content": "Hi" }]);
    let developer = json!([{ "role": "developer", "content": "Job's." }, { "role": "user", "content": "Hi" }]);
    let blank = json!([{ "role": "system", "content": " " }, { "role": "user", "content": "Hi" }]);
    for (mode, messages, first_role, systems) in [
        (SystemMode::Prepend, &own, "system", vec!["Ours.", "Job's."]),
        (SystemMode::Prepend, &developer, "developer", vec!["Ours.", "Job's."]),
        (SystemMode::Prepend, &user("Hi"), "system", vec!["Ours."]),
        (SystemMode::Replace, &own, "system", vec!["Ours."]),
        (SystemMode::Replace, &developer, "system", vec!["Ours."]),
        (SystemMode::Fallback, &own, "system", vec!["Job's."]),
        (SystemMode::Fallback, &user("Hi"), "system", vec!["Ours."]),
        (SystemMode::Fallback, &blank, "system", vec!["Ours."]),
    ] {
        let body = json!({ "messages": messages, "max_tokens": 1 });
        let mut there = target(Api::Bedrock, CLAUDE);
        there.system = Some(SystemPrompt { text: "Ours.".to_owned(), mode });
        let converse = sent(&prepare(&there, None, &body).unwrap());
        let texts: Vec<&str> =
            converse["system"].as_array().unwrap().iter().map(|block| block["text"].as_str().unwrap()).collect();
        assert_eq!(texts, systems, "{mode} {messages}");

        there.api = Api::OpenAi;
        let openai = sent(&prepare(&there, None, &body).unwrap());
        assert_eq!(openai["messages"][0]["role"], first_role, "{mode} {messages}");
        let texts: Vec<&str> = openai["messages"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|message| message["role"] != "user")
            .map(|message| message["content"].as_str().unwrap().trim())
            .filter(|text| !text.is_empty())
            .collect();
        assert_eq!(texts, systems, "{mode} {messages}");
    }
}

/// More calls in one turn than anybody looks up.
fn crowd() -> Value {
    let call = |n: usize| json!({ "id": format!("c{n}"), "type": "function", "function": { "name": "f" } });
    let calls: Vec<Value> = (0..=1_000).map(call).collect();
    let tools = json!([{ "type": "function", "function": { "name": "f" } }]);
    json!({ "messages": [{ "role": "user", "content": "Hi" }, { "role": "assistant", "tool_calls": calls }],
            "tools": tools, "max_tokens": 10 })
}

/// Bodies that Converse cannot carry, the parameter named, and whether a loose target takes them.
fn uncarried() -> Vec<(Value, &'static str, bool)> {
    let with = |name: &str, value: Value| {
        let mut body = parameters(json!({ "messages": user("Hi"), "max_tokens": 10 }));
        body.insert(name.to_owned(), value);
        Value::Object(body)
    };
    let message =
        |message: Value| json!({ "messages": [{ "role": "user", "content": "Hi" }, message], "max_tokens": 10 });
    vec![
        (with("tools", json!([{ "type": "function" }])), "tools[0].function.name", false),
        (with("tools", json!([{ "type": "custom" }])), "tools[0]", true),
        (with("tools", json!({})), "tools", false),
        (with("tools", vec![json!({ "type": "custom" }); 1_001].into()), "tools", false),
        (with("functions", json!({})), "functions", false),
        (with("tool_choice", json!("required")), "tool_choice", false),
        (with("parallel_tool_calls", json!("no")), "parallel_tool_calls", false),
        (with("response_format", json!({ "type": "xml" })), "response_format.type", false),
        (with("reasoning_effort", json!("galactic")), "reasoning_effort", false),
        (with("service_tier", json!("rocket")), "service_tier", false),
        (with("guardrail", json!({ "id": "g", "version": "1" })), "guardrail", true),
        (with("additional_model_request_fields", json!({ "x": 1 })), "additional_model_request_fields", true),
        (with("n", json!(2)), "n", true),
        (with("logprobs", json!(true)), "logprobs", true),
        (with("top_logprobs", json!(3)), "top_logprobs", true),
        (with("modalities", json!(["text", "audio"])), "modalities", true),
        (with("audio", json!({ "voice": "alloy" })), "audio", true),
        (with("web_search_options", json!({})), "web_search_options", true),
        (with("invented_yesterday", json!(1)), "invented_yesterday", true),
        (message(json!({ "role": "user", "content": "Hi", "invented": 1 })), "messages[1].invented", true),
        (message(json!({ "role": "tool", "content": "x" })), "messages[1].tool_call_id", false),
        (crowd(), "messages[1].tool_calls[1000].function", false),
        (message(json!({ "role": "critic", "content": "x" })), "messages[1].role", false),
        (message(json!({ "content": "x" })), "messages[1].role", false),
        (message(json!("x")), "messages[1]", false),
        (
            message(json!({ "role": "assistant", "content": null, "tool_calls": [{ "id": "1" }] })),
            "messages[1].tool_calls[0].function.name",
            false,
        ),
        (message(json!({ "role": "assistant", "audio": { "id": "a" } })), "messages[1].audio", false),
        (
            message(json!({ "role": "user", "content": [{ "type": "image_url", "image_url": { "url": "data:" } }] })),
            "messages[1].content[0].image_url.url",
            false,
        ),
        (message(json!({ "role": "user", "content": [{ "type": "input_audio" }] })), "messages[1].content[0]", false),
        (message(json!({ "role": "user", "content": [{ "type": "file" }] })), "messages[1].content[0]", false),
        (message(json!({ "role": "user", "content": [{ "type": "text" }] })), "messages[1].content[0].text", false),
        (message(json!({ "role": "user", "content": ["x"] })), "messages[1].content[0].type", false),
        (message(json!({ "role": "user", "content": 7 })), "messages[1].content", false),
        (message(json!({ "role": "user", "content": " \n" })), "messages[1].content", false),
        (json!({ "messages": [{ "role": "system", "content": "x" }], "max_tokens": 1 }), "messages", false),
        (json!({ "messages": [], "max_tokens": 1 }), "messages", false),
        (json!({ "max_tokens": 1 }), "messages", false),
        (with("max_tokens", json!(0)), "max_tokens", false),
        (with("max_tokens", json!("many")), "max_tokens", false),
        (with("max_completion_tokens", json!(11)), "max_completion_tokens", false),
        (with("temperature", json!(2.1)), "temperature", false),
        (with("temperature", json!("hot")), "temperature", false),
        (with("top_p", json!(-0.1)), "top_p", false),
        (with("stop", json!([1])), "stop", false),
        (with("stop", json!({})), "stop", false),
        (with("top_k", json!(0.5)), "top_k", false),
        (with("metadata", json!([])), "metadata", false),
    ]
}

#[test]
fn what_converse_cannot_carry_is_refused_by_name() {
    for (body, param, loose) in uncarried() {
        let mut there = target(Api::Bedrock, CLAUDE);
        for fidelity in [Fidelity::Strict, Fidelity::Warn, Fidelity::Loose] {
            there.fidelity = fidelity;
            match prepare(&there, None, &body) {
                Err(refusal) => {
                    assert!(!(loose && fidelity == Fidelity::Loose), "{fidelity} {body}: {refusal}");
                    assert_eq!(refusal.param.as_deref(), Some(param), "{fidelity} {body}");
                    assert!(refusal.message.contains(param), "{refusal}");
                }
                Ok(prepared) => {
                    assert!(loose && fidelity == Fidelity::Loose, "{fidelity} {body}");
                    let note = prepared.fidelity.iter().find(|note| note.parameter == param).unwrap();
                    assert_eq!(note.action, FidelityAction::Dropped);
                }
            }
        }
    }
}

#[test]
fn strict_targets_refuse_whatever_is_inexact() {
    let mut there = target(Api::Bedrock, CLAUDE);
    there.fidelity = Fidelity::Strict;
    let exact = json!({ "messages": user("Hi"), "max_tokens": 10, "temperature": 0.5, "stop": "END", "n": 1, "seed": null,
                        "metadata": { "order": "1" }, "response_format": { "type": "text" } });
    assert_eq!(prepare(&there, None, &exact).unwrap().fidelity, []);
    for (name, value) in [
        ("seed", json!(1)),
        ("temperature", json!(1.5)),
        ("user", json!("u")),
        ("metadata", json!({ "order": "ü" })),
        ("stop", json!("\n")),
        ("logit_bias", json!({ "50256": -100 })),
        ("verbosity", json!("low")),
        ("reasoning_effort", json!("low")),
        ("response_format", json!({ "type": "json_object" })),
        ("service_tier", json!("flex")),
    ] {
        let mut body = exact.clone();
        body[name] = value;
        let refusal = prepare(&there, None, &body).unwrap_err();
        assert!(refusal.param.unwrap().starts_with(name), "{name}: {}", refusal.message);
        assert!(refusal.message.contains("strict"), "{}", refusal.message);
    }
}

#[test]
fn bounds_fit_the_model() {
    let ask = |id: &str, model: Option<&Model>, tokens: Option<u64>| {
        let mut body = json!({ "messages": user("Hi") });
        if let Some(tokens) = tokens {
            body["max_tokens"] = tokens.into();
        }
        let prepared = prepare(&target(Api::Bedrock, id), model, &body).unwrap();
        (prepared.max_output_tokens.unwrap(), prepared.fidelity.len())
    };
    let known = model("anthropic.claude-haiku-4-5-20251001-v1:0", &[], &[]);
    assert_eq!(ask(CLAUDE, None, None), (4_096, 1));
    assert_eq!(ask(CLAUDE, Some(&known), None), (8_192, 1));
    assert_eq!(ask(CLAUDE, Some(&known), Some(64_000)), (64_000, 0));
    assert_eq!(ask(CLAUDE, Some(&known), Some(64_001)), (64_000, 1));
    assert_eq!(ask("openai.gpt-oss-120b-1:0", None, Some(5)), (16, 1));
    assert_eq!(ask(CLAUDE, None, Some(u64::MAX)), (2_147_483_647, 1));
}
