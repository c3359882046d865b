//! Clients that this project did not write: the official ones of OpenAI for Python and Node, LangChain's, and curl.
//!
//! They need what `./scripts/test` installs; without it these tests fail and say so.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::site::{Daemon, SPEC, Site};

const HOW: &str = "run ./scripts/test, which installs the clients that the tests drive";

/// A second pipeline, for what only OpenAI's targets take yet.
const ONLY_OPENAI: &str =
    "version: 1\nname: only-openai\ntargets:\n  openai: { provider: openai, model: gpt-5.4-mini }\n";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// A daemon that wants keys, and a key of scope `submit` alone, as a client has it.
async fn daemon() -> (Site, Daemon, String) {
    let site = Site::new(SPEC).await;
    site.save("pipelines/only-openai.yaml", ONLY_OPENAI);
    let made = site.command(&["key", "create", "--scope", "submit"]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let key = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let daemon = site.start().await;
    (site, daemon, key)
}

async fn drive(mut command: Command, daemon: Daemon, key: String) {
    command.arg(daemon.url()).arg(key);
    let output: Output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("all is well"), "{out}\n{err}\n{}", daemon.log());
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clients_for_python() {
    let python =
        std::env::var("LANDBRIDGE_TEST_PYTHON").unwrap_or_else(|_| panic!("LANDBRIDGE_TEST_PYTHON is not set: {HOW}"));
    let (_site, daemon, key) = daemon().await;
    let mut command = Command::new(python);
    command.arg(folder().join("drive.py")).env("NO_PROXY", "127.0.0.1").env("LANGSMITH_TRACING", "false");
    drive(command, daemon, key).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_for_node() {
    assert!(folder().join("node_modules/openai").exists(), "the client for Node is missing: {HOW}");
    let (_site, daemon, key) = daemon().await;
    let mut command = Command::new("node");
    command.arg(folder().join("drive.mjs"));
    drive(command, daemon, key).await;
}

/// Every `curl` of the README's part on OpenAI clients, as it is written.
#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_the_readme() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let part = readme.split("## Unmodified OpenAI clients").nth(1).unwrap().split("\n## ").next().unwrap();
    let site = Site::new(&SPEC.replace("name: triage", "name: ticket-triage")).await;
    let daemon = site.start().await;
    std::fs::write(
        site.path().join("batch.jsonl"),
        "{\"custom_id\":\"1\",\"method\":\"POST\",\"url\":\"/v1/chat/completions\",\"body\":{\"model\":\"ticket-triage\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}}\n",
    )
    .unwrap();
    let mut ran = 0;
    for block in part.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap();
        let mut script = String::from("set -e\n");
        for line in block.lines().filter(|line| !line.trim_start().starts_with("# ")) {
            script.push_str(line.strip_prefix("$ ").unwrap_or(line));
            script.push('\n');
        }
        if !script.contains("curl") {
            continue;
        }
        let script = script.replace("localhost:4100", &daemon.url());
        let output = Command::new("bash").arg("-c").arg(&script).current_dir(site.path()).output().unwrap();
        let out = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && !out.contains("\"error\":{"),
            "{script}\n{out}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        ran += 1;
    }
    assert!(ran >= 2, "only {ran} examples were found");
    daemon.stop();
}
