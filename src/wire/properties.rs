//! What holds for every request: no panic, and no text lost.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    prepare,
    tests::{CLAUDE, sent, target},
};
use crate::spec::{Api, Fidelity};

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
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
            "metadata", "messages", "top_p", "top_k", "user",
        ]).prop_map(str::to_owned),
        1 => ".{0,6}".prop_map(String::from),
    ]
}

fn message() -> impl Strategy<Value = Value> {
    let role = prop::sample::select(vec!["system", "developer", "user", "assistant", "tool", "x"]);
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
    ) {
        for api in [Api::Bedrock, Api::OpenAi] {
            for fidelity in [Fidelity::Warn, Fidelity::Loose] {
                let mut there = target(api, CLAUDE);
                there.fidelity = fidelity;
                if let Value::Object(own) = &own {
                    (there.defaults, there.overrides, there.cap) = (own.clone(), own.clone(), own.clone());
                }
                let _ = prepare(&there, None, &body);
                let mut body = body.as_object().cloned().unwrap_or_default();
                body.insert("messages".to_owned(), messages.clone().into());
                let _ = prepare(&there, None, &Value::Object(body));
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
