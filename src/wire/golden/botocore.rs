//! The suite's requests against the service's own model, as AWS publishes it with botocore.
//!
//! Needs Python 3 with botocore; without it the test fails and says what to install.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

const HOW: &str = "run ./scripts/test once, or: python3 -m venv target/test-python && \
                   target/test-python/bin/pip install -r tests/botocore/requirements.txt";

fn python() -> PathBuf {
    let of_this_tree = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-python/bin/python");
    let python = std::env::var_os("LANDBRIDGE_TEST_PYTHON").map_or_else(of_this_tree, PathBuf::from);
    assert!(python.exists(), "{} is missing: {HOW}", python.display());
    python
}

/// What the script says of these requests, one line each.
fn checked<'a>(requests: impl IntoIterator<Item = (&'a str, Value)>) -> Vec<String> {
    let mut process = Command::new(python())
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/botocore/check.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("Python cannot be run ({error}): {HOW}"));
    let lines: String =
        requests.into_iter().map(|(name, body)| json!({ "name": name, "body": body }).to_string() + "\n").collect();
    let mut input = process.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = process.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "the check did not run; {HOW}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn requests_fit_the_services_model() {
    let requests = super::converse_requests();
    assert!(requests.len() > 200, "{} requests", requests.len());
    let bodies = requests.iter().map(|(name, request)| (name.as_str(), serde_json::to_value(request).unwrap()));
    let mut said = checked(bodies);
    let last = said.pop().unwrap_or_default();
    assert_eq!(said, Vec::<String>::new());
    assert_eq!(last, format!("{} requests checked", requests.len()));
}

#[test]
fn the_check_sees_what_is_wrong() {
    let message = |block: Value| json!({ "messages": [{ "role": "user", "content": [block] }] });
    for (wrong, word) in [
        (json!({ "messages": [{ "role": "critic", "content": [{ "text": "x" }] }] }), "enum"),
        (json!({ "messages": [], "maxTokens": 1 }), "maxTokens"),
        (json!({ "inferenceConfig": { "temperature": 1.5 } }), "1.5"),
        (json!({ "system": [{ "text": "" }] }), "length"),
        (message(json!({ "toolUse": { "toolUseId": "a b", "name": "x", "input": {} } })), "pattern"),
        (message(json!({ "text": "x", "image": { "format": "png", "source": { "bytes": "AAAA" } } })), "one"),
        (message(json!({ "image": { "format": "bmp", "source": { "bytes": "AAAA" } } })), "enum"),
        (json!({ "requestMetadata": { "k": "ü" } }), "pattern"),
    ] {
        let said = checked([("wrong", wrong.clone())]);
        assert!(said.len() > 1 && said.concat().contains(word), "{wrong}: {said:?}");
    }
}
