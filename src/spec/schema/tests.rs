//! The committed schema, the types and the reader agree, and every good spec fits.

use std::{collections::BTreeSet, fs, path::PathBuf};

use serde_json::Value;

use super::pipeline_schema;
use crate::{
    spec::keys::{self, PIPELINE},
    yaml::{self, Keys},
};

const GOOD: &str = "tests/fixtures/specs/good";

/// The files of a folder of this repository.
fn fixtures(folder: &str) -> impl Iterator<Item = (PathBuf, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(folder);
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).map(|path| (path.clone(), fs::read(path).unwrap()))
}

/// Set `LANDBRIDGE_BLESS=1` to write the file anew after changing the types.
#[test]
fn the_committed_schema_is_the_generated_one() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config/pipeline.schema.json");
    let generated = serde_json::to_string_pretty(&pipeline_schema()).unwrap() + "\n";
    if std::env::var_os("LANDBRIDGE_BLESS").is_some() {
        fs::write(&path, &generated).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == generated,
        "config/pipeline.schema.json is not what the types say: LANDBRIDGE_BLESS=1 cargo test schema"
    );
}

#[test]
fn reader_and_schema_know_the_same_keys() {
    let schema = pipeline_schema();
    let shapes: [(&str, &Keys); 23] = [
        ("", &PIPELINE),
        ("Accept", &keys::ACCEPT),
        ("Target", &keys::TARGET),
        ("Parameters", &keys::PARAMETERS),
        ("Guardrail", &keys::GUARDRAIL),
        ("Caps", &keys::CAP),
        ("System", &keys::SYSTEM),
        ("Rule", &keys::RULE),
        ("Confine", &keys::CONFINE),
        ("Rollout", &keys::ROLLOUT),
        ("Step", &keys::STEP),
        ("Gate", &keys::GATE),
        ("Undecided", &keys::PATIENCE),
        ("NoData", &keys::PATIENCE),
        ("Breaker", &keys::BREAKER),
        ("Windows", &keys::WINDOWS),
        ("Retry", &keys::RETRY),
        ("Limits", &keys::LIMITS),
        ("Budget", &keys::BUDGET),
        ("Retention", &keys::RETENTION),
        ("Test", &keys::TEST),
        ("TestJob", &keys::TEST_JOB),
        ("Expect", &keys::EXPECT),
    ];
    for (name, keys) in shapes {
        let shape = if name.is_empty() { &schema } else { &schema["definitions"][name] };
        let properties = shape["properties"].as_object().unwrap_or_else(|| panic!("no shape {name}"));
        let described: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
        let read: BTreeSet<&str> = keys.known.iter().copied().collect();
        assert_eq!(described, read, "{}", keys.of);
        assert_eq!(shape["additionalProperties"], false, "{}", keys.of);
        for (key, property) in properties {
            assert!(property["description"].is_string(), "{name}.{key} is not explained");
        }
        for (unbuilt, _) in keys.unbuilt {
            assert!(!read.contains(unbuilt), "{unbuilt} is both read and refused");
        }
    }
    let structs = schema["definitions"].as_object().unwrap().values().filter(|shape| shape["properties"].is_object());
    assert_eq!(structs.count() + 1, shapes.len(), "a shape without keys to hold it to");
}

#[test]
fn a_model_definition_takes_every_parameter() {
    for key in keys::PARAMETERS.known {
        assert!(keys::DEFINITION_PARAMETERS.known.contains(key), "{key}");
    }
}

#[test]
fn the_schema_accepts_every_good_spec() {
    let validator = jsonschema::validator_for(&pipeline_schema()).unwrap();
    let mut seen = 0;
    for (path, text) in fixtures(GOOD).chain(fixtures("pipelines")) {
        let spec = yaml::parse("x", &text).unwrap().root.to_json().unwrap();
        let faults: Vec<String> =
            validator.iter_errors(&spec).map(|fault| format!("{}: {fault}", fault.instance_path())).collect();
        assert!(faults.is_empty(), "{}: {faults:#?}", path.display());
        seen += 1;
    }
    assert!(seen >= 8);
}

#[test]
fn the_schema_refuses_what_it_can_of_the_bad_ones() {
    let validator = jsonschema::validator_for(&pipeline_schema()).unwrap();
    // Faults of shape, which an editor can show while one types.
    for stem in [
        "unknown-key",
        "missing-keys",
        "names",
        "rule-shapes",
        "empty-route",
        "rollout-values",
        "not-in-this-release",
        "repeated-fallback",
        "parameters",
        "target-shapes",
        "flags",
        "values",
        "tests",
        "version",
    ] {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/specs/bad/{stem}.yaml"));
        let spec = yaml::parse("x", &fs::read(path).unwrap()).unwrap().root.to_json().unwrap();
        assert!(!validator.is_valid(&spec), "{stem}");
    }
}

/// The same values as another YAML reader gives: the tree invents nothing and loses nothing.
#[test]
fn another_parser_reads_the_same_values() {
    for (path, text) in fixtures(GOOD).chain(fixtures("pipelines")) {
        let ours = yaml::parse("x", &text).unwrap().root.to_json().unwrap();
        let mut theirs: serde_yaml::Value = serde_yaml::from_slice(&text).unwrap();
        theirs.apply_merge().unwrap();
        let theirs: Value = serde_json::to_value(&theirs).unwrap();
        assert_eq!(ours, theirs, "{}", path.display());
    }
}
