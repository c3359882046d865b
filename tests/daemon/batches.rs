//! Files and batches of the OpenAI form.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    flow::slow,
    site::{Daemon, PATIENCE, SPEC, Site, eventually},
};

const BOUNDARY: &str = "----a-boundary-of-the-test";

fn line(n: usize) -> String {
    json!({ "custom_id": format!("r-{n}"), "method": "POST", "url": "/v1/chat/completions",
        "body": { "model": "triage", "messages": [{ "role": "user", "content": format!("ticket {n}") }] } })
    .to_string()
}

pub fn lines(count: usize) -> String {
    (0..count).map(|n| line(n) + "\n").collect()
}

fn form(content: &[u8], fields: &[(&str, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in fields {
        body.extend(
            format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").bytes(),
        );
    }
    body.extend(
        format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"in.jsonl\"\r\nContent-Type: application/octet-stream\r\n\r\n").bytes(),
    );
    body.extend(content);
    body.extend(format!("\r\n--{BOUNDARY}--\r\n").bytes());
    body
}

async fn send(daemon: &Daemon, body: Vec<u8>) -> (StatusCode, Value) {
    let request = reqwest::Client::new().post(daemon.url() + "/v1/files");
    let request = request.header("content-type", format!("multipart/form-data; boundary={BOUNDARY}"));
    let response = request.body(body).send().await.unwrap();
    let status = response.status();
    (status, response.json().await.unwrap())
}

pub async fn upload(daemon: &Daemon, content: &str) -> String {
    let (status, file) = send(daemon, form(content.as_bytes(), &[("purpose", "batch")])).await;
    assert_eq!(status, 200, "{file}");
    assert_eq!(
        (&file["object"], &file["bytes"], &file["status"]),
        (&json!("file"), &json!(content.len()), &json!("processed"))
    );
    file["id"].as_str().unwrap().to_owned()
}

fn asking(file: &str) -> Value {
    json!({ "input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h", "metadata": { "run": "7" } })
}

async fn make(daemon: &Daemon, file: &str) -> String {
    let batch = daemon.post("/v1/batches", asking(file)).await;
    assert_eq!((&batch["status"], &batch["object"]), (&json!("validating"), &json!("batch")), "{batch}");
    batch["id"].as_str().unwrap().to_owned()
}

async fn ended(daemon: &Daemon, batch: &str) -> Value {
    let path = format!("/v1/batches/{batch}");
    // Longer than other waits: a batch that was killed nine times has suspects, which run one at a time.
    let deadline = Instant::now() + 3 * PATIENCE;
    loop {
        let record = daemon.get(&path).await;
        if matches!(record["status"].as_str(), Some("completed" | "failed" | "expired" | "cancelled")) {
            return record;
        }
        assert!(Instant::now() < deadline, "the batch never ends: {record}\n{}", daemon.get("/v1/ops/pipelines").await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Lines of a file by their `custom_id`, each of which must stand once.
async fn results(daemon: &Daemon, file: &Value) -> BTreeMap<String, Value> {
    let Some(id) = file.as_str() else { return BTreeMap::new() };
    let text = daemon.text(&format!("/v1/files/{id}/content")).await;
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let before = found.insert(line["custom_id"].as_str().unwrap().to_owned(), line);
        assert!(before.is_none(), "{before:?} stands twice");
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_goes_from_file_to_file() {
    let site = Site::new(SPEC).await;
    let daemon = site.start().await;
    let file = upload(&daemon, &lines(40)).await;
    assert_eq!(daemon.text(&format!("/v1/files/{file}/content")).await, lines(40));
    let batch = ended(&daemon, &make(&daemon, &file).await).await;
    assert_eq!(batch["status"], "completed", "{batch}");
    assert_eq!(batch["request_counts"], json!({ "total": 40, "completed": 40, "failed": 0 }));
    assert!(batch["usage"]["total_tokens"].as_u64().unwrap() > 0 && batch["metadata"]["run"] == "7", "{batch}");
    assert!(batch["error_file_id"].is_null() && batch["errors"].is_null());
    for time in ["created_at", "in_progress_at", "finalizing_at", "completed_at", "expires_at"] {
        assert!(batch[time].is_i64(), "{time}: {batch}");
    }
    let output = results(&daemon, &batch["output_file_id"]).await;
    assert_eq!(output.len(), 40);
    let first = &output["r-0"];
    assert_eq!((&first["response"]["status_code"], &first["error"]), (&json!(200), &Value::Null));
    assert_eq!(first["response"]["body"]["object"], "chat.completion");
    let about = daemon.get(&format!("/v1/files/{}", batch["output_file_id"].as_str().unwrap())).await;
    assert_eq!((&about["purpose"], &about["object"]), (&json!("batch_output"), &json!("file")));
    // Its jobs are ordinary jobs.
    let jobs = daemon.jobs(&format!("batch={}", batch["id"].as_str().unwrap())).await;
    assert_eq!(jobs.len(), 40);
    assert!(jobs.iter().all(|job| job["idempotency_key"].as_str().unwrap().contains("/r-")));

    // Lists come in pages, newest first.
    let mut batches = vec![batch["id"].as_str().unwrap().to_owned()];
    for _ in 0..4 {
        batches.insert(0, make(&daemon, &file).await);
    }
    let mut listed = Vec::new();
    let mut after = String::new();
    loop {
        let page = daemon.get(&format!("/v1/batches?limit=2{after}")).await;
        listed.extend(page["data"].as_array().unwrap().iter().map(|batch| batch["id"].as_str().unwrap().to_owned()));
        if !page["has_more"].as_bool().unwrap() {
            break;
        }
        after = format!("&after={}", page["last_id"].as_str().unwrap());
    }
    assert_eq!(listed, batches);
    let files = daemon.get("/v1/files?purpose=batch").await;
    assert_eq!((files["data"].as_array().unwrap().len(), &files["has_more"]), (1, &json!(false)));
    for batch in &batches {
        ended(&daemon, batch).await;
    }
    let client = reqwest::Client::new();
    let url = format!("{}/v1/files/{file}", daemon.url());
    let deleted: Value = client.delete(&url).send().await.unwrap().json().await.unwrap();
    assert_eq!(deleted, json!({ "id": file, "object": "file", "deleted": true }));
    assert_eq!(client.get(&url).send().await.unwrap().status(), 404);
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_is_told_line_by_line() {
    let site = Site::new(SPEC).await;
    let daemon = site.start().await;
    let bad = |change: fn(&mut Value)| {
        let mut value: Value = serde_json::from_str(&line(9)).unwrap();
        change(&mut value);
        value.to_string()
    };
    let text = [
        line(1),
        "{\"custom_id\": ".to_owned(),
        line(1),
        bad(|line| line["method"] = json!("GET")),
        bad(|line| line["url"] = json!("/v1/embeddings")),
        bad(|line| line["body"]["model"] = json!("gpt-nobody-takes")),
        bad(|line| line["custom_id"] = json!(7)),
        bad(|line| {
            line["custom_id"] = json!("no messages");
            line["body"]["messages"] = json!([]);
        }),
        bad(|line| {
            line["custom_id"] = json!("streamed");
            line["body"]["stream"] = json!(true);
        }),
        "[]".to_owned(),
    ]
    .join("\n");
    let mut bytes = text.into_bytes();
    bytes.extend(b"\n{\"custom_id\":\"\xff\"}");
    let (_, file) = send(&daemon, form(&bytes, &[("purpose", "batch")])).await;
    let batch = ended(&daemon, &make(&daemon, file["id"].as_str().unwrap()).await).await;
    assert_eq!((&batch["status"], &batch["errors"]["object"]), (&json!("failed"), &json!("list")), "{batch}");
    let found: Vec<(u64, &str)> = batch["errors"]["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| (error["line"].as_u64().unwrap(), error["code"].as_str().unwrap()))
        .collect();
    let expected = [
        (2, "invalid_json_line"),
        (3, "duplicate_custom_id"),
        (4, "invalid_method"),
        (5, "invalid_url"),
        (6, "model_not_found"),
        (7, "invalid_custom_id"),
        (8, "invalid_request"),
        (9, "invalid_request"),
        (10, "invalid_json_line"),
        (11, "invalid_json_line"),
    ];
    assert_eq!(found, expected, "{batch}");
    assert!(daemon.jobs("").await.is_empty(), "nothing of a bad file becomes a job");
    // An empty file, and what is no batch at all.
    let empty = upload(&daemon, "\n\n").await;
    let batch = ended(&daemon, &make(&daemon, &empty).await).await;
    assert_eq!(batch["errors"]["data"][0]["code"], "empty_file");
    for (change, status, param) in [
        (json!({ "endpoint": "/v1/embeddings" }), 400, json!("endpoint")),
        (json!({ "completion_window": "1 fortnight" }), 400, json!("completion_window")),
        (json!({ "input_file_id": "file-nope" }), 404, json!("input_file_id")),
        (
            json!({ "output_expires_after": { "anchor": "created_at", "seconds": 5 } }),
            400,
            json!("output_expires_after.seconds"),
        ),
    ] {
        let mut body = asking(&empty);
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let (given, answer) = daemon.post_any("/v1/batches", body.to_string()).await;
        assert_eq!((given, &answer["error"]["param"]), (status, &param), "{answer}");
    }
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_batch_gives_what_it_has() {
    let site = Site::new(&format!("{SPEC}limits: {{ concurrency: 4 }}\n")).await;
    slow(&site, "100ms");
    let daemon = site.start().await;
    let file = upload(&daemon, &lines(400)).await;
    let batch = make(&daemon, &file).await;
    let path = format!("/v1/batches/{batch}");
    eventually("some are done", || async {
        daemon.get(&path).await["request_counts"]["completed"].as_u64() >= Some(8)
    })
    .await;
    let (status, _) = daemon.post_any(&format!("/v1/files/{file}"), "").await;
    assert_eq!(status, 405);
    let deleted = reqwest::Client::new().delete(format!("{}/v1/files/{file}", daemon.url())).send().await.unwrap();
    assert_eq!(deleted.status(), 409, "a file that is read stays");
    let cancelling = daemon.post(&format!("{path}/cancel"), json!({})).await;
    assert!(["cancelling", "cancelled"].contains(&cancelling["status"].as_str().unwrap()), "{cancelling}");
    let batch = ended(&daemon, &batch).await;
    assert_eq!(batch["status"], "cancelled");
    let (output, errors) =
        (results(&daemon, &batch["output_file_id"]).await, results(&daemon, &batch["error_file_id"]).await);
    assert!(output.len() >= 8 && output.len() + errors.len() == 400, "{} {}", output.len(), errors.len());
    assert!(errors.values().all(|line| line["error"]["code"] == "batch_cancelled"));
    assert!(output.keys().all(|id| !errors.contains_key(id)));
    assert_eq!(batch["request_counts"]["completed"], output.len());
    let (status, _) = daemon.post_any(&format!("{path}/cancel"), "").await;
    assert_eq!(status, 409);
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_survives_kill_dash_nine_at_every_stage() {
    let site = Site::new(SPEC).await;
    slow(&site, "20ms");
    let mut daemon = site.start().await;
    let file = upload(&daemon, &lines(1_500)).await;
    let batch = make(&daemon, &file).await;
    // Killed while it validates, while its lines become jobs, while they run, and around its end.
    let mut kills = 0;
    for wait in [0, 5, 40, 150, 400, 400, 800, 800, 800] {
        tokio::time::sleep(Duration::from_millis(wait)).await;
        daemon.kill();
        kills += 1;
        daemon = site.start().await;
        if daemon.get(&format!("/v1/batches/{batch}")).await["status"] == "completed" {
            break;
        }
    }
    let record = ended(&daemon, &batch).await;
    assert_eq!(record["status"], "completed", "after {kills} kills: {record}");
    assert_eq!(record["request_counts"], json!({ "total": 1_500, "completed": 1_500, "failed": 0 }));
    let output = results(&daemon, &record["output_file_id"]).await;
    assert_eq!(output.len(), 1_500);
    assert_eq!(daemon.jobs(&format!("batch={batch}")).await.len(), 1_500, "a line is one job");
    let files = daemon.get("/v1/files").await;
    assert_eq!(files["data"].as_array().unwrap().len(), 2, "{files}");
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_came_twice_makes_one_batch() {
    let site = Site::new(SPEC).await;
    let daemon = site.start().await;
    let file = upload(&daemon, &lines(1)).await;
    let client = reqwest::Client::new();
    let ask = |headers: &[(&'static str, &'static str)], body: Value| {
        let mut request = client.post(daemon.url() + "/v1/batches").json(&body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        async move {
            let response = request.send().await.unwrap();
            let status = response.status().as_u16();
            let body: Value = response.json().await.unwrap();
            (status, body["id"].as_str().unwrap_or_default().to_owned())
        }
    };
    let body = asking(&file);
    let (_, first) = ask(&[("x-stainless-retry-count", "0")], body.clone()).await;
    assert_eq!(ask(&[("x-stainless-retry-count", "1")], body.clone()).await, (200, first.clone()));
    let (_, second) = ask(&[], body.clone()).await;
    assert_ne!(second, first, "asked for anew, it is another");
    let (_, keyed) = ask(&[("idempotency-key", "k")], body.clone()).await;
    assert_eq!(ask(&[("idempotency-key", "k")], body.clone()).await, (200, keyed));
    let mut other = body;
    other["completion_window"] = json!("12h");
    assert_eq!(ask(&[("idempotency-key", "k")], other).await.0, 409);
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_are_too_large_or_cut_short_leave_nothing() {
    let site = Site::new(SPEC).await;
    site.add_settings("batches: { max_megabytes: 2, max_requests: 3 }\n");
    let daemon = site.start().await;
    let large = vec![b'x'; 5_000_000];
    // It says itself how large it is; then it does not.
    let (status, answer) = send(&daemon, form(&large, &[("purpose", "batch")])).await;
    assert_eq!((status.as_u16(), &answer["error"]["code"]), (413, &json!("file_too_large")), "{answer}");
    let body = form(&large, &[("purpose", "batch")]);
    let pieces = futures_util::stream::iter(
        body.chunks(60_000).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect::<Vec<_>>(),
    );
    let request = reqwest::Client::new().post(daemon.url() + "/v1/files");
    let request = request.header("content-type", format!("multipart/form-data; boundary={BOUNDARY}"));
    // A server that refuses early may be done before the client is.
    if let Ok(response) = request.body(reqwest::Body::wrap_stream(pieces)).send().await {
        assert_eq!(response.status(), 413);
    }
    // Cut short, without a boundary, of another purpose, with nothing in it.
    let whole = form(&vec![b'y'; 1_900_000], &[("purpose", "batch")]);
    let (status, answer) = send(&daemon, whole[..1_500_000].to_vec()).await;
    assert_eq!((status.as_u16(), &answer["error"]["code"]), (400, &json!("incomplete_upload")), "{answer}");
    let (status, _) = daemon.post_any("/v1/files", "{}").await;
    assert_eq!(status, 400);
    let (status, answer) = send(&daemon, form(b"x", &[("purpose", "fine-tune")])).await;
    assert_eq!((status.as_u16(), &answer["error"]["param"]), (400, &json!("purpose")));
    let (status, _) = send(&daemon, form(b"x", &[])).await;
    assert_eq!(status, 400);
    let (status, _) = send(
        &daemon,
        form(b"x", &[("purpose", "batch"), ("expires_after[anchor]", "created_at"), ("expires_after[seconds]", "60")]),
    )
    .await;
    assert_eq!(status, 400);
    let folder = site.path().join("data/landbridge.db-files");
    eventually("the disk is free again", || async { std::fs::read_dir(&folder).map_or(0, Iterator::count) == 0 }).await;
    // A good one beside them, with a life of its own; a batch of more lines than allowed is refused.
    let (status, file) = send(
        &daemon,
        form(
            lines(4).as_bytes(),
            &[("expires_after[anchor]", "created_at"), ("expires_after[seconds]", "3600"), ("purpose", "batch")],
        ),
    )
    .await;
    assert_eq!(status, 200, "{file}");
    assert_eq!(file["expires_at"].as_i64().unwrap() - file["created_at"].as_i64().unwrap(), 3_600);
    let batch = ended(&daemon, &make(&daemon, file["id"].as_str().unwrap()).await).await;
    assert_eq!(batch["errors"]["data"][0]["code"], "too_many_requests");
    daemon.stop();
}
