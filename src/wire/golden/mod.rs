//! The golden suite: one OpenAI request a file, one snapshot of what it becomes for each family of targets.
//!
//! To add a case, add a file under `requests/` and accept its snapshot (`INSTA_UPDATE=always cargo test golden`).

mod botocore;
mod differential;

use std::{collections::BTreeMap, fs, path::PathBuf};

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    Payload, Prepared, Reading, Refusal,
    converse::{Block, Request, Source},
    prepare,
    tests::{parameters, sent, target},
};
use crate::{
    catalog::Catalog,
    spec::{Api, Target},
};

/// A target of each family.
pub(crate) const FAMILIES: [(&str, Api, &str); 9] = [
    ("claude 4.5", Api::Bedrock, "us.anthropic.claude-haiku-4-5-20251001-v1:0"),
    ("claude 5.5", Api::Bedrock, "us.anthropic.claude-haiku-5-5"),
    ("claude 5.5, always reasoning", Api::Bedrock, "us.anthropic.claude-opus-5-5"),
    ("nova", Api::Bedrock, "us.amazon.nova-2-lite-v1:0"),
    ("llama", Api::Bedrock, "us.meta.llama3-3-70b-instruct-v1:0"),
    ("gpt by converse", Api::Bedrock, "us.openai.gpt-6-sol"),
    ("gpt by bedrock's openai form", Api::OpenAi, "us.openai.gpt-6-sol"),
    ("gpt-oss by bedrock's openai form", Api::OpenAi, "openai.gpt-oss-120b-1:0"),
    ("openai", Api::OpenAi, "gpt-5.4-mini"),
];

/// The requests by name.
pub(crate) fn requests() -> BTreeMap<String, Value> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/wire/golden/requests");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let case = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), case)
        })
        .collect()
}

fn target_for(case: &Value, api: Api, model: &str) -> Target {
    let mut target = target(api, model);
    if let Some(own) = case.get("target") {
        if let Some(fidelity) = own["fidelity"].as_str() {
            target.fidelity = fidelity.parse().unwrap();
        }
        for (name, place) in [("defaults", &mut target.defaults), ("override", &mut target.overrides)] {
            if let Some(own) = own.get(name) {
                *place = parameters(own.clone());
            }
        }
    }
    target
}

fn prepared(case: &Value, api: Api, model: &str) -> Result<Prepared, Refusal> {
    prepare(&target_for(case, api, model), Catalog::builtin().find(api, model), &case["body"])
}

/// Every Converse request that comes of the suite, its remote media as if they had been fetched.
pub(crate) fn converse_requests() -> Vec<(String, Request)> {
    let mut all = Vec::new();
    for (name, case) in requests() {
        for (family, api, model) in FAMILIES {
            if let Ok(Prepared { payload: Payload::Converse(mut request), .. }) = prepared(&case, api, model) {
                for block in request.messages.iter_mut().flat_map(|message| &mut message.content) {
                    fetch(block);
                }
                all.push((format!("{name} for {family}"), *request));
            }
        }
    }
    all
}

fn fetch(block: &mut Block) {
    let (format, source, known) = match block {
        Block::Image(image) => (&mut image.format, &mut image.source, "png"),
        Block::Document(document) => (&mut document.format, &mut document.source, "pdf"),
        Block::ToolResult(result) => return result.content.iter_mut().for_each(fetch),
        Block::Text(_) | Block::ToolUse(_) => return,
    };
    if matches!(source, Source::Remote(_)) {
        *source = Source::Bytes(Bytes::from_static(b"bytes"));
        known.clone_into(format);
    }
}

/// What the answer's reader is told, where it is told anything.
fn reading(reading: &Reading) -> serde_json::Map<String, Value> {
    let told = json!({
        "local_stop": reading.local_stop, "json_tool": reading.json_tool, "json_text": reading.json_text,
        "tool_names": reading.tool_names, "inline_reasoning": reading.inline_reasoning,
        "mint_call_ids": reading.mint_call_ids,
    });
    let mut told = parameters(told);
    told.retain(|_, value| ![json!([]), json!({}), json!(false), json!(null)].contains(value));
    told
}

#[test]
fn every_request_becomes_what_it_should() {
    let requests = requests();
    assert!(requests.len() >= 60, "{} requests", requests.len());
    for (name, case) in requests {
        let mut became = serde_json::Map::new();
        for (family, api, model) in FAMILIES {
            assert!(Catalog::builtin().find(api, model).is_some(), "{model} has left the catalogue");
            let outcome = match prepared(&case, api, model) {
                Ok(prepared) => {
                    let mut outcome = json!({ "sent": sent(&prepared), "reserves": prepared.max_output_tokens });
                    if !prepared.fidelity.is_empty() {
                        let said = |note: &crate::job::FidelityNote| {
                            format!("{} {}: {}", note.parameter, note.action, note.detail)
                        };
                        outcome["fidelity"] = prepared.fidelity.iter().map(said).collect();
                    }
                    let reading = reading(&prepared.reading);
                    if !reading.is_empty() {
                        outcome["reading"] = reading.into();
                    }
                    outcome
                }
                Err(refusal) => json!({ "refused": refusal.message, "param": refusal.param }),
            };
            became.insert(family.to_owned(), outcome);
        }
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_json_snapshot!(name, Value::Object(became));
        });
    }
}

#[test]
fn notes_are_sentences_and_refusals_name_their_parameter() {
    for (name, case) in requests() {
        for (family, api, model) in FAMILIES {
            match prepared(&case, api, model) {
                Ok(prepared) => {
                    for note in prepared.fidelity {
                        assert!(!note.parameter.is_empty() && !note.detail.is_empty(), "{name} for {family}");
                        assert!(!note.detail.ends_with('.'), "{name} for {family}: {}", note.detail);
                    }
                }
                Err(refusal) => {
                    let param = refusal.param.unwrap_or_default();
                    assert!(
                        !param.is_empty() && refusal.message.contains(&param),
                        "{name} for {family}: {}",
                        refusal.message
                    );
                }
            }
        }
    }
}
