//! What the simulated models say to prompts of the kinds that people send.

use serde_json::{Value, json};

use super::*;
use crate::simulate::prompt::{ForcedTool, Listener, Speaker};

fn prompt(system: &str, question: &str) -> Prompt {
    let mut listener = Listener::default();
    if !system.is_empty() {
        listener.message(Speaker::System);
        listener.text(Speaker::System, system);
    }
    listener.message(Speaker::User);
    listener.text(Speaker::User, question);
    Prompt { model: "m".to_owned(), ..listener.into_prompt() }
}

const PACKAGE: &str = "Package: mtr-tiny\nDescription: Full screen ncurses traceroute tool. It combines traceroute \
                       and ping in a single network diagnostic tool.\nFor network people.";

#[test]
fn a_prompt_that_lists_labels_gets_one_of_them() {
    for system in [
        "Classify the package. Answer with one of: admin, games, net, utils.",
        "Choose one of these labels: admin | games | net | utils",
        "Sections:\n- admin\n- games\n- net\n- utils\n\nAnswer with the section alone.",
        "Pick one of admin, games, net or utils.",
        "The labels: \"admin\", \"games\", \"net\", or \"utils\".",
    ] {
        let said = answer(&prompt(system, PACKAGE));
        assert_eq!((said.text.as_str(), said.stop), ("net", Stop::End), "{system}");
        assert_eq!(said.output_tokens, 1);
    }
}

#[test]
fn models_agree_on_most_labels_and_not_on_all() {
    let system = "Answer with one of: admin, games, net, utils, web, x11.";
    let label = |model: &str, n: usize| {
        let prompt = Prompt { model: model.to_owned(), ..prompt(system, &format!("Text number {n}, about nothing.")) };
        assert_eq!(answer(&prompt).text, answer(&prompt).text);
        answer(&prompt).text
    };
    let differing = (0..500).filter(|n| label("a", *n) != label("b", *n)).count();
    assert!((10..=90).contains(&differing), "{differing}");
}

#[test]
fn a_summary_is_the_first_sentence() {
    let said = answer(&prompt("Summarize the description in one sentence.", PACKAGE));
    assert_eq!(said.text, "Full screen ncurses traceroute tool.");
}

#[test]
fn an_extraction_is_json_with_the_fields_asked_for() {
    let system = "Extract facts. Answer with a JSON object with the keys name, purpose, tags (array of strings), \
                  is_graphical (true or false), words (number). No prose.";
    let said: Value = serde_json::from_str(&answer(&prompt(system, PACKAGE)).text).unwrap();
    assert_eq!(said["name"], "mtr-tiny");
    assert_eq!(said["purpose"], "Full screen ncurses traceroute tool.");
    assert_eq!(said["tags"], json!(["screen", "ncurses", "traceroute"]));
    assert!(said["is_graphical"].is_boolean() && said["words"].is_number());
    let shown = "Answer as JSON, like {\"title\": \"…\", \"section\": \"…\"}, with one of these sections: net, games.";
    let said: Value = serde_json::from_str(&answer(&prompt(shown, PACKAGE)).text).unwrap();
    assert_eq!(said, json!({"title": "mtr-tiny", "section": "net"}));
}

#[test]
fn a_schema_is_kept() {
    let schema = json!({
        "type": "object",
        "properties": {
            "section": {"enum": ["net", "games"]},
            "name": {"type": "string"},
            "size": {"type": "integer", "minimum": 3},
            "free": {"type": ["null", "boolean"]},
            "parts": {"type": "array", "items": {"$ref": "#/$defs/part"}},
            "either": {"anyOf": [{"type": "null"}, {"const": 7}]},
        },
        "$defs": {"part": {"type": "object", "properties": {"tags": {"type": "array", "items": {"type": "string"}}}}},
    });
    let wanted = Prompt { format: Format::Schema(schema.clone()), ..prompt("", PACKAGE) };
    let said: Value = serde_json::from_str(&answer(&wanted).text).unwrap();
    assert_eq!(said["section"], "net");
    assert_eq!(said["name"], "mtr-tiny");
    assert_eq!(said["size"], 3);
    assert_eq!(said["either"], 7);
    assert!(said["free"].is_boolean());
    assert_eq!(said["parts"][0]["tags"][0], "screen");
    let tool = Prompt { tool: Some(ForcedTool { name: "file".to_owned(), schema }), ..prompt("", PACKAGE) };
    let said = answer(&tool);
    assert_eq!((said.stop, said.tool.unwrap().input["size"].clone()), (Stop::Tool, json!(3)));
}

#[test]
fn a_schema_without_end_has_an_end() {
    let properties: serde_json::Map<String, Value> = (0..50).map(|n| (format!("p{n}"), json!({"$ref": "#"}))).collect();
    let endless = json!({"type": "object", "properties": properties});
    let wanted = Prompt { format: Format::Schema(endless), ..prompt("", PACKAGE) };
    assert!(answer(&wanted).text.len() < 100_000);
}

#[test]
fn answers_end_where_the_request_says() {
    let long = Prompt { max_output: Some(3), ..prompt("Summarize.", PACKAGE) };
    let said = answer(&long);
    assert_eq!((said.text.as_str(), said.stop, said.output_tokens), ("Full screen ", Stop::Length, 3));
    let stopped = Prompt { stops: vec!["traceroute".to_owned()], ..prompt("Summarize.", PACKAGE) };
    let said = answer(&stopped);
    assert_eq!((said.text.as_str(), said.stop), ("Full screen ncurses ", Stop::Sequence));
}

#[test]
fn odd_texts_are_answered() {
    for (system, question) in [
        ("", ""),
        ("one of", "x"),
        ("one of:", "é"),
        ("Answer in JSON with the keys", "…"),
        ("labels: , , ,", "ü. ä"),
        ("one of:\n\n\n", "💥💥💥"),
        ("keys: (((", "a\u{0}b"),
        ("İİ one of İ, ß or ẞ", "ﬃ"),
    ] {
        let _ = answer(&Prompt { max_output: Some(1), ..prompt(system, question) });
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn any_text_is_answered(system in "\\PC{0,80}", question in "\\PC{0,80}") {
        for system in [format!("one of: {system}"), format!("JSON with the keys: {system}"), format!("summary {system}")] {
            let prompt = prompt(&system, &question);
            proptest::prop_assert_eq!(answer(&prompt), answer(&prompt));
        }
    }
}
