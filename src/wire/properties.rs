//! What holds for every request: no panic, and no text lost.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    Reading, prepare,
    tests::{CLAUDE, sent, target},
};
use crate::{
    catalog::Catalog,
    spec::{Api, Fidelity, Target},
};

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        prop::sample::select(vec![
            "function",
            "tool",
            "required",
            "none",
            "json_schema",
            "json_object",
            "object",
            "image_url",
            "file",
            "text",
            "data:image/png;base64,iVBORw0KGgo=",
            "#",
            "#/$defs/a",
            "{}{}",
            "high",
            "call_1",
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key(), inner), 0..6).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec![
            "role", "content", "type", "text", "refusal", "name", "tool_calls", "max_tokens", "temperature", "stop",
            "metadata", "messages", "top_p", "top_k", "user", "tools", "tool_choice", "function", "parameters", "id",
            "arguments", "tool_call_id", "response_format", "json_schema", "schema", "$ref", "$defs", "properties",
            "reasoning_effort", "image_url", "url", "file", "file_data", "filename", "functions", "function_call",
            "guardrail", "service_tier", "stream",
        ]).prop_map(str::to_owned),
        1 => ".{0,6}".prop_map(String::from),
    ]
}

fn message() -> impl Strategy<Value = Value> {
    let role = prop::sample::select(vec!["system", "developer", "user", "assistant", "tool", "function", "x"]);
    prop_oneof![
        (role, json_value()).prop_map(|(role, content)| json!({ "role": role, "content": content })),
        json_value(),
    ]
}

fn text_message() -> impl Strategy<Value = Value> {
    let role = prop::sample::select(vec!["user", "assistant"]);
    let text = "[a-z ]{0,4}[a-z]\n?";
    prop_oneof![
        (role.clone(), text).prop_map(|(role, text)| json!({ "role": role, "content": text })),
        (role, prop::collection::vec(text, 1..4)).prop_map(|(role, texts)| {
            let parts: Vec<Value> = texts.into_iter().map(|text| json!({ "type": "text", "text": text })).collect();
            json!({ "role": role, "content": parts })
        }),
    ]
}

/// The conversation's text by turns, blocks joined.
fn turns(messages: &Value) -> Vec<(String, String)> {
    let mut turns: Vec<(String, String)> = Vec::new();
    for message in messages.as_array().unwrap() {
        let role = message["role"].as_str().unwrap().to_owned();
        let text = match &message["content"] {
            Value::String(text) => text.clone(),
            parts => parts.as_array().unwrap().iter().map(|part| part["text"].as_str().unwrap()).collect(),
        };
        match turns.last_mut() {
            Some((last, texts)) if *last == role => texts.push_str(&text),
            _ => turns.push((role, text)),
        }
    }
    turns
}

proptest! {
    #[test]
    fn no_body_makes_the_translator_panic(
        body in json_value(),
        messages in prop::collection::vec(message(), 0..5),
        own in json_value(),
        (api, model) in models(),
    ) {
        for (api, model) in [(Api::Bedrock, CLAUDE), (Api::OpenAi, "m"), (api, model)] {
            for fidelity in [Fidelity::Warn, Fidelity::Loose] {
                let mut there = target(api, model);
                there.fidelity = fidelity;
                if let Value::Object(own) = &own {
                    (there.defaults, there.overrides, there.cap) = (own.clone(), own.clone(), own.clone());
                }
                let catalog = Catalog::builtin();
                let model = catalog.find(api, model).filter(|_| fidelity == Fidelity::Loose);
                let _ = prepare(&there, model, &body);
                let mut body = body.as_object().cloned().unwrap_or_default();
                body.insert("messages".to_owned(), messages.clone().into());
                let _ = prepare(&there, model, &Value::Object(body));
            }
        }
    }

    #[test]
    fn text_survives_whole_and_in_order(mut messages in prop::collection::vec(text_message(), 0..6)) {
        messages.insert(0, json!({ "role": "user", "content": "first" }));
        messages.push(json!({ "role": "user", "content": "last" }));
        let messages = Value::from(messages);
        let body = json!({ "messages": messages, "max_tokens": 10 });
        let prepared = prepare(&target(Api::Bedrock, CLAUDE), None, &body).unwrap();
        prop_assert_eq!(&prepared.fidelity, &vec![]);
        let got = sent(&prepared);
        prop_assert_eq!(turns(&got["messages"]), turns(&messages));
        let roles: Vec<&Value> = got["messages"].as_array().unwrap().iter().map(|turn| &turn["role"]).collect();
        prop_assert!(roles.windows(2).all(|pair| pair[0] != pair[1]), "roles alternate");
        for block in got["messages"].as_array().unwrap().iter().flat_map(|turn| turn["content"].as_array().unwrap()) {
            prop_assert!(!block["text"].as_str().unwrap().trim().is_empty());
        }
        let openai = sent(&prepare(&target(Api::OpenAi, "m"), None, &body).unwrap());
        prop_assert_eq!(&openai["messages"], &messages);
    }
}

/// Models of every kind.
fn models() -> impl Strategy<Value = (Api, &'static str)> {
    prop::sample::select(super::golden::FAMILIES.map(|(_, api, model)| (api, model)).to_vec())
}

/// A parameter with a value that says something.
fn parameter() -> impl Strategy<Value = (&'static str, Value)> {
    let schema = json!({ "name": "s", "schema": { "type": "object", "properties": { "a": { "type": "string" } },
                         "required": ["a"], "additionalProperties": false }, "strict": true });
    let tools = json!([{ "type": "function", "function": { "name": "look", "parameters": { "type": "object" } } },
                       { "type": "function", "function": { "name": "do.it", "description": "Does it." } }]);
    prop::sample::select(vec![
        ("temperature", json!(0.25)),
        ("temperature", json!(1.5)),
        ("top_p", json!(0.5)),
        ("top_p", json!(0.96)),
        ("top_k", json!(3)),
        ("stop", json!("END")),
        ("stop", json!(["\n", "END"])),
        ("seed", json!(1)),
        ("presence_penalty", json!(0.5)),
        ("frequency_penalty", json!(-0.5)),
        ("logit_bias", json!({ "1": 5 })),
        ("logprobs", json!(true)),
        ("top_logprobs", json!(2)),
        ("n", json!(2)),
        ("user", json!("u")),
        ("safety_identifier", json!("ü")),
        ("store", json!(true)),
        ("metadata", json!({ "a": "b" })),
        ("metadata", json!({ "a": "ü" })),
        ("response_format", json!({ "type": "json_object" })),
        ("response_format", json!({ "type": "json_schema", "json_schema": schema })),
        ("tools", tools.clone()),
        ("tools", tools),
        ("tool_choice", json!("required")),
        ("tool_choice", json!({ "type": "function", "function": { "name": "do.it" } })),
        ("reasoning_effort", json!("low")),
        ("reasoning_effort", json!("xhigh")),
        ("verbosity", json!("low")),
        ("service_tier", json!("flex")),
        ("prompt_cache_key", json!("k")),
        ("prediction", json!({ "type": "content", "content": "x" })),
        ("web_search_options", json!({})),
        ("modalities", json!(["audio"])),
        ("max_tokens", json!(3_000)),
        ("stream", json!(true)),
        ("guardrail", json!({ "id": "g", "version": "1" })),
        ("brand_new", json!(1)),
    ])
}

/// A message of a conversation that the service may see, with fields that say something.
fn said() -> impl Strategy<Value = Vec<Value>> {
    let image = json!({ "type": "image_url", "image_url": { "url": "https://example.com/a.png", "detail": "low" } });
    prop::sample::select(vec![
        vec![json!({ "role": "user", "content": "Hi", "name": "ann" })],
        vec![json!({ "role": "user", "content": [{ "type": "text", "text": "Look" }, image] })],
        vec![json!({ "role": "developer", "content": "Hm" })],
        vec![json!({ "role": "assistant", "content": "Hello", "refusal": "No", "reasoning_content": "so" })],
        vec![
            json!({ "role": "assistant", "content": "Hello", "unheard_of": 1 }),
            json!({ "role": "user", "content": "x" }),
        ],
        vec![
            json!({ "role": "assistant", "content": "Wait", "tool_calls": [
                { "id": "a|b", "type": "function", "function": { "name": "do.it", "arguments": "{\"x\":1}" } }] }),
            json!({ "role": "tool", "tool_call_id": "a|b", "content": "done", "name": "do.it" }),
        ],
        vec![
            json!({ "role": "assistant", "content": null, "function_call": { "name": "look", "arguments": "[]" } }),
            json!({ "role": "function", "name": "look", "content": "seen" }),
        ],
    ])
}

fn outcome(there: &Target, body: &Value) -> Result<(Value, Reading, Vec<crate::job::FidelityNote>), super::Refusal> {
    let catalog = Catalog::builtin();
    let prepared = prepare(there, catalog.find(there.api, &there.model), body)?;
    Ok((sent(&prepared), prepared.reading, prepared.fidelity))
}

proptest! {
    /// To leave a field out changes what is sent, what the reader is told, what is noted, or whether it is refused: so
    /// no field is passed over in silence.
    #[test]
    fn no_field_is_passed_over_in_silence(
        (api, model) in models(),
        loose in any::<bool>(),
        parameters in prop::collection::vec(parameter(), 0..5),
        conversation in prop::collection::vec(said(), 0..5),
    ) {
        let mut there = target(api, model);
        if loose {
            there.fidelity = Fidelity::Loose;
        }
        let mut messages: Vec<Value> = vec![json!({ "role": "user", "content": "first" })];
        messages.extend(conversation.into_iter().flatten());
        let mut body = serde_json::Map::new();
        body.insert("messages".to_owned(), messages.clone().into());
        body.extend(parameters.into_iter().map(|(name, value)| (name.to_owned(), value)));
        let Ok(whole) = outcome(&there, &Value::Object(body.clone())) else { return Ok(()) };
        for name in body.keys().filter(|name| *name != "messages") {
            let mut without = body.clone();
            without.shift_remove(name);
            let without = outcome(&there, &Value::Object(without));
            prop_assert!(without.as_ref() != Ok(&whole), "{name} of {} for {model}", Value::Object(body.clone()));
        }
        for (place, message) in messages.iter().enumerate() {
            for name in message.as_object().unwrap().keys().filter(|name| *name != "role" && !message[*name].is_null()) {
                let mut messages = messages.clone();
                messages[place].as_object_mut().unwrap().shift_remove(name);
                let mut without = body.clone();
                without.insert("messages".to_owned(), messages.into());
                let without = outcome(&there, &Value::Object(without));
                prop_assert!(without.as_ref() != Ok(&whole), "{name} of {message} for {model}");
            }
        }
    }

    /// There and back: a request of text alone says the same after it has been a Converse request.
    #[test]
    fn text_survives_the_way_there_and_back(
        system in prop::option::of("[a-zü ]{0,8}[a-z]"),
        turns in prop::collection::vec("[a-zé ]{0,8}[a-z]\n?", 1..8),
        max_tokens in 1_u64..60_000,
        temperature in prop::option::of(0.0_f64..=1.0),
        stop in prop::option::of(prop::collection::vec("[A-Z]{1,5}", 1..4)),
    ) {
        let mut messages: Vec<Value> = system.iter().map(|text| json!({ "role": "system", "content": text })).collect();
        let turns = if turns.len() % 2 == 0 { &turns[1..] } else { &turns[..] };
        let speakers = ["user", "assistant"].into_iter().cycle();
        messages.extend(turns.iter().zip(speakers).map(|(text, role)| json!({ "role": role, "content": text })));
        let mut body = json!({ "messages": messages, "max_tokens": max_tokens });
        if let Some(temperature) = temperature {
            body["temperature"] = temperature.into();
        }
        if let Some(stop) = stop {
            body["stop"] = stop.into();
        }
        let prepared = prepare(&target(Api::Bedrock, CLAUDE), None, &body).unwrap();
        prop_assert_eq!(&prepared.fidelity, &vec![]);
        prop_assert_eq!(back(&sent(&prepared)), body);
    }
}

/// A Converse request of text as the OpenAI request that it says the same as.
fn back(converse: &Value) -> Value {
    let text = |block: &Value| block["text"].clone();
    let system = converse["system"].as_array().into_iter().flatten();
    let mut messages: Vec<Value> = system.map(|block| json!({ "role": "system", "content": text(block) })).collect();
    messages.extend(converse["messages"].as_array().unwrap().iter().map(|turn| {
        assert_eq!(turn["content"].as_array().unwrap().len(), 1);
        json!({ "role": turn["role"], "content": text(&turn["content"][0]) })
    }));
    let config = &converse["inferenceConfig"];
    let mut body = json!({ "messages": messages });
    for (name, theirs) in [("max_tokens", "maxTokens"), ("temperature", "temperature"), ("stop", "stopSequences")] {
        if let Some(value) = config.get(theirs) {
            body[name] = value.clone();
        }
    }
    body
}
