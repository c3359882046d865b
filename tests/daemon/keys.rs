//! Keys: who is let in, how far, and how long.

use std::process::Command;

use serde_json::{Value, json};

use crate::site::{Daemon, SPEC, Site, eventually, job};

/// Runs a key command; what it printed.
fn key(site: &Site, with: Option<&str>, daemon: Option<&Daemon>, arguments: &[&str]) -> Result<String, String> {
    let mut command: Command = site.command(&["key"]);
    command.args(arguments);
    if let Some(key) = with {
        command.env("LANDBRIDGE_KEY", key);
    }
    if let Some(daemon) = daemon {
        command.env("LANDBRIDGE_URL", daemon.url());
    }
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Asks with a key; the status and the answer.
async fn ask(daemon: &Daemon, with: &str, line: &str, body: Option<Value>) -> (u16, Value) {
    let (method, path) = line.split_once(' ').unwrap();
    let client = reqwest::Client::new();
    let mut request = client.request(method.parse().unwrap(), daemon.url() + path);
    if !with.is_empty() {
        request = request.bearer_auth(with);
    }
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

const OTHER: &str = "version: 1\nname: other\ntargets:\n  openai: { provider: openai, model: gpt-5.4-mini }\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_key_opens_what_its_scopes_and_pipelines_say() {
    let site = Site::new(SPEC).await;
    site.save("pipelines/other.yaml", OTHER);
    // The first key needs no daemon.
    let bound =
        key(&site, None, None, &["create", "--name", "bound", "--scope", "submit", "--pipeline", "triage"]).unwrap();
    assert!(bound.starts_with("lbk_"), "{bound}");
    let reader = key(&site, None, None, &["create", "--name", "reader", "--scope", "read"]).unwrap();
    let operator =
        key(&site, None, None, &["create", "--name", "op", "--scope", "operate,read,content,submit"]).unwrap();
    let daemon = site.start().await;

    let other = json!({ "pipeline": "other", "body": { "messages": [{ "role": "user", "content": "hi" }] } });
    for (with, line, body, expected) in [
        ("", "GET /healthz", None, 200),
        ("", "GET /readyz", None, 200),
        ("", "GET /metrics", None, 401),
        ("", "GET /v1/jobs", None, 401),
        ("lbk_wrong", "GET /v1/jobs", None, 401),
        ("", "GET /nowhere", None, 401),
        (&reader, "GET /metrics", None, 200),
        (&reader, "GET /v1/jobs", None, 200),
        (&reader, "POST /v1/jobs", Some(job(1)), 403),
        (&reader, "POST /v1/ops/reload", None, 403),
        (&bound, "GET /v1/jobs", None, 403),
        (&bound, "GET /metrics", None, 403),
        (&bound, "POST /v1/jobs", Some(other.clone()), 403),
        (&bound, "POST /v1/jobs", Some(job(1)), 202),
        (&operator, "POST /v1/jobs", Some(other.clone()), 202),
        (&operator, "POST /v1/ops/reload", None, 200),
        (&operator, "GET /nowhere", None, 404),
    ] {
        let (status, answer) = ask(&daemon, with, line, body).await;
        assert_eq!(status, expected, "{line}: {answer}");
        if status == 401 || status == 403 {
            let error = answer["error"].as_object().unwrap();
            assert_eq!(error.keys().collect::<Vec<_>>(), ["message", "type", "param", "code"], "{answer}");
        }
    }

    // The same key is the same caller; another's is another: its job is another job.
    let (status, mine) = ask(&daemon, &bound, "POST /v1/jobs", Some(job(7))).await;
    assert_eq!(status, 202);
    let (status, again) = ask(&daemon, &bound, "POST /v1/jobs", Some(job(7))).await;
    assert_eq!((status, &again["id"]), (200, &mine["id"]));
    let (status, theirs) = ask(&daemon, &operator, "POST /v1/jobs", Some(job(7))).await;
    assert_eq!(status, 202);
    assert_ne!(theirs["id"], mine["id"]);

    // Its own job it sees whole; another's not at all; a reader sees all but the text.
    let mine = format!("GET /v1/jobs/{}?wait=30s", mine["id"].as_str().unwrap());
    let theirs = format!("GET /v1/jobs/{}?wait=30s", theirs["id"].as_str().unwrap());
    let (status, whole) = ask(&daemon, &bound, &mine, None).await;
    assert!(status == 200 && whole["result"].is_object(), "{whole}");
    assert_eq!(ask(&daemon, &bound, &theirs, None).await.0, 404);
    let (status, seen) = ask(&daemon, &reader, &mine, None).await;
    assert!(status == 200 && seen.get("result").is_none() && seen["state"] == "succeeded", "{seen}");

    // Through the daemon that has the store: it wants a key with `operate`. A revoked key opens nothing at once.
    let refused = key(&site, None, Some(&daemon), &["list"]).unwrap_err();
    assert!(refused.contains("wants a key"), "{refused}");
    let listed = key(&site, Some(&operator), Some(&daemon), &["list"]).unwrap();
    assert!(listed.contains("bound") && listed.contains("triage") && !listed.contains("lbk_"), "{listed}");
    key(&site, Some(&operator), Some(&daemon), &["revoke", "bound"]).unwrap();
    let (status, answer) = ask(&daemon, &bound, "POST /v1/jobs", Some(job(8))).await;
    assert!(status == 401 && answer["error"]["message"].as_str().unwrap().contains("revoked"), "{answer}");
    // Nobody gives what they do not have.
    let refused = key(&site, Some(&operator), Some(&daemon), &["create", "--scope", "approve"]).unwrap_err();
    assert!(refused.contains("no scope `approve`"), "{refused}");
    let (_, audit) = ask(&daemon, &operator, "GET /v1/ops/audit", None).await;
    let revoked = audit["data"].as_array().unwrap().iter().find(|entry| entry["action"] == "key.revoke").unwrap();
    assert_eq!((&revoked["actor"], &revoked["subject"]), (&json!("op"), &json!("bound")));
    daemon.stop();
    // No text of a key is anywhere on the disk.
    for entry in std::fs::read_dir(site.store_file().parent().unwrap()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap_or_default();
        for token in [&bound, &reader, &operator] {
            assert!(!bytes.windows(token.len()).any(|window| window == token.as_bytes()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_key_has_its_hash_in_a_file_and_its_limits() {
    let site = Site::new(SPEC).await;
    let file = site.path().join("ci.sha256");
    let hash = |text: &str| landbridge::access::KeyHash::of(text).to_string();
    std::fs::write(&file, hash("first")).unwrap();
    site.add_settings(&format!(
        "keys:\n  - {{ name: ci, scopes: [submit, read], hash: {{ file: '{}' }}, requests_per_minute: 3 }}\n  - {{ name: spent, scopes: [submit], hash: {{ file: '{}' }}, usd_per_day: 0 }}\n",
        file.display(),
        site.path().join("spent.sha256").display(),
    ));
    std::fs::write(site.path().join("spent.sha256"), hash("spent")).unwrap();
    let daemon = site.start().await;
    for n in 0..3 {
        assert_eq!(ask(&daemon, "first", "GET /v1/jobs", None).await.0, 200, "{n}");
    }
    let client = reqwest::Client::new();
    let response = client.get(daemon.url() + "/v1/jobs").bearer_auth("first").send().await.unwrap();
    assert_eq!(response.status(), 429);
    let header = |name: &str| response.headers()[name].to_str().unwrap().parse::<u64>().unwrap();
    assert!((1..=20).contains(&header("retry-after")) && (1..=20_000).contains(&header("retry-after-ms")));
    assert!(response.headers().contains_key("x-request-id"));
    // What is queued is held, and says why; who waits is told.
    let (status, answer) = ask(&daemon, "spent", "POST /v1/jobs", Some(job(1))).await;
    assert_eq!(status, 202, "{answer}");
    let path = format!("GET /v1/jobs/{}", answer["id"].as_str().unwrap());
    eventually("it is held", || async { ask(&daemon, "spent", &path, None).await.1["state"] == "held" }).await;
    let (_, held) = ask(&daemon, "spent", &path, None).await;
    assert_eq!(held["reason_code"], "budget");
    let reason = held["reason"].as_str().unwrap();
    assert!(
        reason.contains("key \"spent\" has spent 0 of its 0 US dollars") && reason.contains("opens again at"),
        "{reason}"
    );
    let chat = json!({ "model": "triage", "messages": [{ "role": "user", "content": "hi" }] });
    let (status, answer) = ask(&daemon, "spent", "POST /v1/chat/completions", Some(chat)).await;
    assert_eq!((status, &answer["error"]["code"]), (429, &json!("insufficient_quota")), "{answer}");
    // A new hash in the file takes over.
    std::fs::write(&file, hash("second")).unwrap();
    eventually("the new key opens", || async { ask(&daemon, "second", "GET /v1/jobs", None).await.0 != 401 }).await;
    assert_eq!(ask(&daemon, "first", "GET /v1/jobs", None).await.0, 401);
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_this_machine_nobody_is_served_without_a_key() {
    let site = Site::new(SPEC).await;
    let path = site.path().join("config/landbridge.yaml");
    let settings = std::fs::read_to_string(&path)
        .unwrap()
        .replace("listen: 127.0.0.1:0", "listen: 0.0.0.0:0\nops_listen: 127.0.0.1:0");
    std::fs::write(&path, settings).unwrap();
    let (code, said) = site.start_refused();
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("open-listener") && said.contains("landbridge key create"), "{said}");
    key(&site, None, None, &["create", "--scope", "submit"]).unwrap();
    let daemon = site.start().await;
    let port = daemon.url().rsplit_once(':').unwrap().1.to_owned();
    let status = reqwest::get(format!("http://127.0.0.1:{port}/v1/jobs")).await.unwrap().status();
    assert_eq!(status, 401);
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_is_served_over_tls() {
    let site = Site::new(SPEC).await;
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    std::fs::write(site.path().join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(site.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    site.add_settings(&format!("tls: {{ cert: '{0}/cert.pem', key: '{0}/key.pem' }}\n", site.path().display()));
    let daemon = site.start().await;
    let certificate = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([certificate]).build().unwrap();
    let url = daemon.url().replace("http://", "https://");
    let answer = client.get(url + "/healthz").send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (200, "ok\n"));
    assert!(reqwest::get(daemon.url() + "/healthz").await.is_err(), "plain HTTP is not answered");
    daemon.stop();
}
