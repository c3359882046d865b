//! What another maintained translator, LiteLLM, makes of plain requests for Bedrock Converse, held against ours.
//!
//! Its answers are kept in `differential/litellm.json` (renewed by `litellm_oracle.py` beside it). Every difference is in `explained.json` with
//! the reason for it; one that is not, or an explanation without a difference, fails.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{prepare, sent, target};
use crate::{
    catalog::Catalog,
    spec::{Api, Fidelity, Target},
};

#[derive(Deserialize)]
struct Request {
    name: String,
    body: Value,
}

#[derive(Deserialize)]
struct Oracle {
    answers: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    name: String,
    models: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Explained {
    /// The request's name, or `*` for all.
    request: String,
    /// A part of the model's id, or `*` for all.
    model: String,
    /// Where the two differ.
    path: String,
    /// Why.
    because: String,
}

fn read<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/wire/golden/differential").join(name);
    serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn ours(model: &str, body: &Value) -> Value {
    let target = Target { fidelity: Fidelity::Loose, ..target(Api::Bedrock, model) };
    match prepare(&target, Catalog::builtin().find(Api::Bedrock, model), body) {
        Ok(prepared) => sent(&prepared),
        Err(refusal) => serde_json::json!({ "refused": refusal.message }),
    }
}

/// The paths at which two values differ, deepest first where both are objects or lists of one length.
fn differences(path: &str, ours: &Value, theirs: &Value, found: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for name in names {
                let (a, b) = (a.get(name).unwrap_or(&Value::Null), b.get(name).unwrap_or(&Value::Null));
                differences(&format!("{path}/{name}"), a, b, found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (place, (a, b)) in a.iter().zip(b).enumerate() {
                differences(&format!("{path}/{place}"), a, b, found);
            }
        }
        (Value::Number(a), Value::Number(b)) if a.as_f64() == b.as_f64() => {}
        (a, b) if a == b => {}
        // An empty object says as little as none.
        (Value::Null, Value::Object(map)) | (Value::Object(map), Value::Null) if map == &Map::new() => {}
        _ => found.push(path.to_owned()),
    }
}

#[test]
fn every_difference_from_another_translator_is_explained() {
    let requests: Vec<Request> = read("requests.json");
    let oracle: Oracle = read("litellm.json");
    let explained: Vec<Explained> = read("explained.json");
    let mut used = vec![false; explained.len()];
    let mut unexplained = Vec::new();
    let mut compared = 0;
    for request in &requests {
        let answer = oracle.answers.iter().find(|answer| answer.name == request.name).unwrap();
        for (model, theirs) in &answer.models {
            compared += 1;
            let ours = ours(model, &request.body);
            let mut found = Vec::new();
            if ours.get("refused").is_some() == theirs.get("refused").is_some() {
                differences("", &ours, theirs, &mut found);
            } else {
                found.push("/refused".to_owned());
            }
            for path in found {
                let known = explained.iter().position(|one| {
                    (one.request == "*" || one.request == request.name)
                        && (one.model == "*" || model.contains(&one.model))
                        && one.path == path
                        && !one.because.is_empty()
                });
                if let Some(place) = known {
                    used[place] = true;
                } else {
                    let at = |value: &Value| value.pointer(&path).unwrap_or(&Value::Null).to_string();
                    let (ours, theirs) = (at(&ours), at(theirs));
                    unexplained.push(format!("{} on {model}: {path}: ours {ours}, theirs {theirs}", request.name));
                }
            }
        }
    }
    assert!(compared >= 60, "{compared}");
    assert!(unexplained.is_empty(), "not explained:\n{}", unexplained.join("\n"));
    let stale: Vec<&str> =
        explained.iter().zip(&used).filter(|(_, used)| !**used).map(|(one, _)| one.path.as_str()).collect();
    assert!(stale.is_empty(), "explained, but no difference any more: {stale:?}");
}
