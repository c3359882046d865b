//! `GET /openapi.json` held against the real binary, by a client that this project did not write.
//!
//! It needs what `./scripts/test` installs; without it this test fails and says so.

use std::{collections::BTreeSet, path::Path, process::Command};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::site::{SPEC, Site, job};

/// Every path that is described takes the methods that are described, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn the_methods_of_every_path_are_described() {
    let site = Site::new(SPEC).await;
    let daemon = site.start().await;
    let document = daemon.get("/openapi.json").await;
    let client = reqwest::Client::new();
    let mut looked_at = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let described: BTreeSet<String> = item.as_object().unwrap().keys().map(|name| name.to_uppercase()).collect();
        let url =
            daemon.url() + &path.replace("{pipeline}", "triage").replace("{generation}", "1").replace(['{', '}'], "");
        let response = client.request(reqwest::Method::TRACE, url).send().await.unwrap();
        assert_eq!(response.status(), 405, "{path}");
        let allowed = response.headers().get("allow").unwrap_or_else(|| panic!("{path}: no `allow`")).to_str().unwrap();
        // HEAD comes with GET.
        let allowed: BTreeSet<String> =
            allowed.split(',').map(|name| name.trim().to_owned()).filter(|name| name != "HEAD").collect();
        assert_eq!(allowed, described, "{path}");
        looked_at += 1;
    }
    assert!(looked_at > 40, "{looked_at}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_native_api_is_what_its_description_says() {
    let python = std::env::var("LANDBRIDGE_TEST_PYTHON").unwrap_or_else(|_| {
        panic!("LANDBRIDGE_TEST_PYTHON is not set: run ./scripts/test, which installs what the tests drive")
    });
    let site = Site::new(SPEC).await;
    // Declared in the settings, so that no request of the many can revoke it.
    let key = "lbk_a-key-of-this-test-that-nobody-can-revoke-over-the-api";
    let digest = Sha256::digest(key.as_bytes()).iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    site.save("config/whole.sha256", &digest);
    site.add_settings(&format!(
        "keys: [{{ name: whole, scopes: [submit, read, content, plan, operate, approve], hash: {{ file: {}/config/whole.sha256 }} }}]\n",
        site.path().display()
    ));
    let daemon = site.start().await;
    let client = reqwest::Client::new();
    for n in 0..3 {
        let body = job(n).to_string();
        let request =
            client.post(daemon.url() + "/v1/jobs").bearer_auth(key).header("content-type", "application/json");
        let answer: Value = request.body(body).send().await.unwrap().json().await.unwrap();
        assert!(answer["id"].is_string(), "{answer}");
    }
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/schemathesis.toml");
    // Through the interpreter: its own starter script names a path that a moved folder has no more.
    let start = "import sys; from schemathesis.cli import schemathesis; sys.exit(schemathesis())";
    let mut command = Command::new(python);
    command
        .args(["-c", start])
        .arg("--no-color")
        .arg("--config-file")
        .arg(config)
        .args(["run", &format!("{}/openapi.json", daemon.url())])
        .args(["--include-path-regex", "^/(v1/jobs|v1/ops|healthz|readyz|metrics|openapi)"])
        // Their figures are described loosely, and what a plan is given are whole files.
        .args(["--exclude-path-regex", "^/v1/ops/(plan|report|config)"])
        .args([
            "--phases",
            "examples,coverage,fuzzing,stateful",
            "--max-examples",
            "20",
            "--seed",
            "7",
            "--workers",
            "1",
        ])
        .args(["--header", &format!("Authorization: Bearer {key}")])
        .current_dir(site.path())
        .env("NO_PROXY", "127.0.0.1");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}\n{}\n(./scripts/test installs what is missing)",
        String::from_utf8_lossy(&output.stderr)
    );
    // It looked at what it was to look at.
    let tested = said.split("Tested: ").nth(1).and_then(|rest| rest.split_whitespace().next());
    assert!(tested.and_then(|count| count.parse().ok()).is_some_and(|count: u32| count >= 30), "{said}");
    assert!(["✅ Coverage", "✅ Fuzzing", "✅ Stateful"].iter().all(|words| said.contains(words)), "{said}");
    daemon.stop();
}
