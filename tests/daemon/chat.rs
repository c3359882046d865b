//! Chat completions while the caller waits.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    flow::slow,
    site::{Daemon, SPEC, Site, eventually},
};

const ACCEPTS: &str = "accept: { models: [\"gpt-4o-mini\", \"gpt-5*\"] }\n";

async fn chat(daemon: &Daemon, path: &str, body: &Value) -> reqwest::Response {
    let client = reqwest::Client::new();
    client.post(daemon.url() + path).json(body).send().await.unwrap()
}

fn header(response: &reqwest::Response, name: &str) -> String {
    response.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

fn asking(model: &str) -> Value {
    json!({ "model": model, "messages": [{ "role": "user", "content": "hi" }], "metadata": { "customer": "c-2" }, "user": "u-1" })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_answers_like_a_model() {
    let site = Site::new(&format!("{SPEC}{ACCEPTS}")).await;
    let daemon = site.start().await;
    for (path, model) in [
        ("/v1/chat/completions", "triage"),
        ("/v1/chat/completions", "gpt-4o-mini"),
        ("/v1/chat/completions", "gpt-5-something"),
        ("/p/triage/v1/chat/completions", "whatever"),
    ] {
        let response = chat(&daemon, path, &asking(model)).await;
        assert_eq!(response.status(), 200, "{path} {model}");
        let job = header(&response, "x-landbridge-job");
        assert!(header(&response, "x-request-id").len() > 8);
        assert!(["openai", "bedrock"].contains(&&*header(&response, "x-landbridge-target")));
        assert_eq!(
            (header(&response, "x-landbridge-attempts"), header(&response, "x-landbridge-generation")),
            ("1".into(), "1".into())
        );
        let answer: Value = response.json().await.unwrap();
        assert_eq!(
            (&answer["object"], &answer["choices"][0]["message"]["role"]),
            (&json!("chat.completion"), &json!("assistant"))
        );
        assert!(answer["usage"]["total_tokens"].as_u64().unwrap() > 0, "{answer}");
        // The same ledger, the same evidence, as for a queued job.
        let record = daemon.ended_job(&job).await;
        assert_eq!(
            (&record["state"], &record["attempts"].as_array().unwrap().len()),
            (&json!("succeeded"), &1),
            "{record}"
        );
        assert_eq!((&record["metadata"]["customer"], &record["metadata"]["user"]), (&json!("c-2"), &json!("u-1")));
        assert_eq!(record["arm"], "candidate", "the sticky key is the same");
    }
    let models = daemon.get("/v1/models").await;
    let ids: Vec<&str> = models["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!((ids, &models["object"]), (vec!["triage", "gpt-4o-mini"], &json!("list")));
    assert_eq!(daemon.get("/v1/models/gpt-5-x").await["object"], "model");
    assert_eq!(daemon.get_any("/p/triage/v1/models/nope").await.0, 404);
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_are_told_what_is_wrong() {
    let site = Site::new(&format!("{SPEC}{ACCEPTS}")).await;
    let daemon = site.start().await;
    let hi = json!([{ "role": "user", "content": "hi" }]);
    for (path, body, status, param, code) in [
        ("/v1/chat/completions", "{".to_owned(), 400, Value::Null, "invalid_json"),
        ("/v1/chat/completions", "[]".to_owned(), 400, Value::Null, "invalid_request"),
        ("/v1/chat/completions", "\u{0}".to_owned(), 400, Value::Null, "invalid_json"),
        (
            "/v1/chat/completions",
            json!({ "messages": hi }).to_string(),
            400,
            json!("model"),
            "missing_required_parameter",
        ),
        (
            "/v1/chat/completions",
            json!({ "model": "triag", "messages": hi }).to_string(),
            404,
            json!("model"),
            "model_not_found",
        ),
        (
            "/v1/chat/completions",
            json!({ "model": "no/such model", "messages": hi }).to_string(),
            404,
            json!("model"),
            "model_not_found",
        ),
        ("/v1/chat/completions", json!({ "model": "triage" }).to_string(), 400, json!("messages"), "invalid_request"),
        (
            "/v1/chat/completions",
            json!({ "model": "triage", "messages": [] }).to_string(),
            400,
            json!("messages"),
            "invalid_request",
        ),
        (
            "/v1/chat/completions",
            json!({ "model": "triage", "messages": hi, "stream": 3 }).to_string(),
            400,
            json!("stream"),
            "invalid_request",
        ),
        (
            "/v1/chat/completions",
            json!({ "model": "triage", "messages": hi, "stream_options": {} }).to_string(),
            400,
            json!("stream_options"),
            "invalid_request",
        ),
        (
            "/v1/chat/completions",
            json!({ "model": "triage", "messages": hi, "metadata": { "a": 1 } }).to_string(),
            400,
            json!("metadata.a"),
            "invalid_request",
        ),
        (
            "/p/nope/v1/chat/completions",
            json!({ "model": "x", "messages": hi }).to_string(),
            404,
            json!("pipeline"),
            "pipeline_not_found",
        ),
    ] {
        let (given, answer) = daemon.post_any(path, body.clone()).await;
        let error = &answer["error"];
        assert_eq!((given, &error["param"], &error["code"]), (status, &param, &json!(code)), "{body}: {answer}");
        assert_eq!(error.as_object().unwrap().len(), 4);
    }
    // Not UTF-8.
    let (status, _) = daemon.post_any("/v1/chat/completions", vec![b'{', 0xff, b'}']).await;
    assert_eq!(status, 400);
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_cancels_the_call() {
    let site = Site::new(SPEC).await;
    slow(&site, "10s");
    let daemon = site.start().await;
    let client = reqwest::Client::builder().timeout(Duration::from_millis(1_500)).build().unwrap();
    let sent = client.post(daemon.url() + "/v1/chat/completions").json(&asking("triage")).send().await;
    assert!(sent.unwrap_err().is_timeout());
    eventually("the job is cancelled", || async { daemon.jobs("state=cancelled").await.len() == 1 }).await;
    let job = daemon.jobs("state=cancelled").await.remove(0);
    let record = daemon.get(&format!("/v1/jobs/{}", job["id"].as_str().unwrap())).await;
    eventually("the attempt is closed", || async {
        let record = daemon.get(&format!("/v1/jobs/{}", job["id"].as_str().unwrap())).await;
        record["attempts"][0]["outcome"] == "interrupted"
    })
    .await;
    assert_eq!(record["attempts"].as_array().unwrap().len(), 1);
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_live_when_the_daemon_died_is_not_called_again() {
    let site = Site::new(SPEC).await;
    slow(&site, "30s");
    let daemon = site.start().await;
    let url = daemon.url();
    let asked = tokio::spawn(async move {
        reqwest::Client::new().post(url + "/v1/chat/completions").json(&asking("triage")).send().await
    });
    eventually("the call is under way", || async { daemon.jobs("state=running").await.len() == 1 }).await;
    daemon.kill();
    assert!(asked.await.unwrap().is_err());
    let daemon = site.start().await;
    let jobs = daemon.jobs("").await;
    assert_eq!((jobs.len(), &jobs[0]["state"]), (1, &json!("failed")));
    let record = daemon.get(&format!("/v1/jobs/{}", jobs[0]["id"].as_str().unwrap())).await;
    assert_eq!((&record["reason_code"], &record["attempts"][0]["outcome"]), (&json!("caller_gone"), &json!("unknown")));
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_streamed() {
    let site = Site::new(SPEC).await;
    let daemon = site.start().await;
    for include_usage in [false, true] {
        let mut body = asking("triage");
        body["stream"] = json!(true);
        if include_usage {
            body["stream_options"] = json!({ "include_usage": true });
        }
        let response = chat(&daemon, "/v1/chat/completions", &body).await;
        assert!(header(&response, "content-type").starts_with("text/event-stream"));
        let job = header(&response, "x-landbridge-job");
        assert_eq!(header(&response, "x-landbridge-attempts"), "1");
        let text = response.text().await.unwrap();
        let mut events: Vec<&str> = text.split("\n\n").filter(|event| !event.is_empty()).collect();
        assert_eq!(events.pop(), Some("data: [DONE]"), "{text}");
        let chunks: Vec<Value> =
            events.iter().map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap()).collect();
        assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
        assert!(chunks.iter().all(|chunk| chunk["object"] == "chat.completion.chunk" && chunk["model"] == "triage"));
        let said: String = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(chunks.last().unwrap()["usage"]["total_tokens"].is_u64(), include_usage, "{text}");
        let record = daemon.ended_job(&job).await;
        assert_eq!(record["result"]["choices"][0]["message"]["content"], json!(said), "{record}");
        assert!(record["usage"].is_object());
    }
    daemon.stop();
}
