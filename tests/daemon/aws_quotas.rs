//! Quotas that the settings leave to AWS, on the real binary.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use landbridge::{catalog::Catalog, simulate::SimulateOptions};
use serde_json::{Value, json};

use crate::site::{Daemon, Site, eventually};

const SPEC: &str = "version: 1\nname: triage\ntargets:\n  \
    bedrock: { provider: bedrock, model: us.anthropic.claude-haiku-4-5-20251001-v1:0, defaults: { max_tokens: 64 } }\n";

fn granting(quota: &str) -> SimulateOptions {
    // Quotas are listed by the models that there are.
    SimulateOptions { quota: vec![quota.parse().unwrap()], catalog: Catalog::builtin(), ..SimulateOptions::default() }
}

fn listed(site: &Site, daemon: &Daemon) -> Value {
    let output = site.command(&["quota", "list", "--format", "json", "--url", &daemon.url()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn granted(site: &Site, daemon: &Daemon) -> Option<(String, f64)> {
    let answer = listed(site, daemon);
    let limits = answer["data"][0]["limits"].as_array()?.clone();
    let limit = limits.iter().find(|limit| limit["limit"] == "requests_per_minute")?;
    Some((limit["source"].as_str()?.to_owned(), limit["in_force"].as_f64()?))
}

fn job(n: usize) -> Value {
    json!({ "pipeline": "triage", "idempotency_key": format!("j-{n}"),
        "body": { "messages": [{ "role": "user", "content": format!("job {n}") }] } })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_aws_grants_counts_and_an_increase_takes_effect_without_a_restart() {
    let options = granting("bedrock=rpm=600");
    let site = Site::with(SPEC, options).await;
    site.add_settings("quotas:\n  - { provider: bedrock, source: aws }\n");
    let daemon = site.start().await;
    let answer = reqwest::Client::new().post(daemon.url() + "/v1/jobs").json(&job(1)).send().await.unwrap();
    assert_eq!(answer.status(), 202);
    eventually("the quota is that of AWS", || async { granted(&site, &daemon) == Some(("granted".to_owned(), 600.0)) })
        .await;
    let mut config = site.simulation.config();
    config.quotas = vec!["bedrock=rpm=6000".parse().unwrap()];
    site.simulation.configure(config).unwrap();
    daemon.signal("HUP");
    eventually("the increase counts", || async { granted(&site, &daemon) == Some(("granted".to_owned(), 6000.0)) })
        .await;
    daemon.stop();
    let output = site.command(&["iam-policy", "--format", "json"]).output().unwrap();
    let policy = String::from_utf8(output.stdout).unwrap();
    assert!(policy.contains("servicequotas:ListServiceQuotas"), "{policy}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_said_and_learned() {
    let site = Site::new(SPEC).await;
    site.add_settings("quotas:\n  - { provider: bedrock, source: aws, region: us-east-1, share: 50% }\n");
    // The simulation grants no quota, so it names none.
    let daemon = site.start().await;
    eventually("it is said", || async { daemon.log().contains("AWS names no quota of us.anthropic.claude-haiku") })
        .await;
    let answer = reqwest::Client::new().post(daemon.url() + "/v1/jobs").json(&job(1)).send().await.unwrap();
    let id = answer.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned();
    let done: Value =
        reqwest::get(format!("{}/v1/jobs/{id}?wait=30s", daemon.url())).await.unwrap().json().await.unwrap();
    assert_eq!(done["state"], "succeeded", "{done}");
    daemon.stop();
}

/// The answers of the simulation, and what is asked, as Amazon's own client reads and writes them.
#[tokio::test(flavor = "multi_thread")]
async fn the_service_is_asked_and_answers_as_botocore_has_it() {
    let of_this_tree = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-python/bin/python");
    let python = std::env::var_os("LANDBRIDGE_TEST_PYTHON").map_or_else(of_this_tree, PathBuf::from);
    assert!(python.exists(), "{} is missing: run ./scripts/test, which installs it", python.display());
    let options = granting("bedrock=rpm=600,tpm=1000");
    let site = Site::with(SPEC, options).await;
    let mut process = Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/botocore/service_quotas.py"))
        .arg(site.simulation.bedrock_endpoint_url())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // What `provider/bedrock/service_quotas.rs` sends.
    let asked = json!({ "ServiceCode": "bedrock", "MaxResults": 100, "NextToken": "100" });
    process.stdin.take().unwrap().write_all(asked.to_string().as_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    let found: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        found["request"],
        json!([asked, "ServiceQuotasV20190624.ListServiceQuotas", "application/x-amz-json-1.1"])
    );
    assert!(found["quotas"].as_u64().unwrap() > 200, "{found}");
    assert_eq!(found["haiku"], json!([600.0, 1000.0]), "{found}");
}
