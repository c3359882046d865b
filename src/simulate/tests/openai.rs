//! OpenAI's protocol.

use super::*;
use crate::catalog::Catalog;

#[tokio::test]
async fn a_completion_has_the_shape_of_the_real_one() {
    let simulation = simulation(&[], &[]).await;
    let reply = chat(&simulation, hello()).await;
    assert_eq!(reply.status, 200);
    let body = reply.json();
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["model"], "gpt-5.4-mini");
    assert!(body["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!(body["choices"][0]["finish_reason"], "stop");
    assert_eq!(body["choices"][0]["message"]["role"], "assistant");
    assert_eq!(body["choices"][0]["message"]["content"], "Simulated answer: Hello there.");
    let usage = &body["usage"];
    assert_eq!(usage["prompt_tokens"], 13);
    assert_eq!(usage["completion_tokens"], 8);
    assert_eq!(usage["total_tokens"], 21);
    assert!(reply.header("x-request-id").unwrap().starts_with("req_"));
    assert!(reply.header("openai-processing-ms").unwrap().parse::<u64>().is_ok());
    assert_eq!(reply.header("x-ratelimit-limit-requests"), None);
    simulation.stop().await;
}

#[tokio::test]
async fn wrong_requests_are_refused_as_openai_refuses_them() {
    let simulation = simulation(&[], &[]).await;
    let with = |key: &str, value: Value| {
        let mut body = hello();
        body[key] = value;
        body
    };
    let user = |content: Value| json!([{"role": "user", "content": content}]);
    let cases = [
        (json!([]), 400, Value::Null, Value::Null, "could not parse the JSON body"),
        (json!({"messages": []}), 400, json!("model"), json!("missing_required_parameter"), "'model'"),
        (json!({"model": "m"}), 400, json!("messages"), json!("missing_required_parameter"), "'messages'"),
        (with("messages", json!([])), 400, json!("messages"), json!("empty_array"), "minimum length 1"),
        (with("messages", json!("hi")), 400, json!("messages"), json!("invalid_type"), "got a string instead"),
        (
            with("messages", json!([{"content": "x"}])),
            400,
            json!("messages[0].role"),
            json!("missing_required_parameter"),
            "role",
        ),
        (
            with("messages", json!([{"role": "boss", "content": "x"}])),
            400,
            json!("messages[0].role"),
            json!("invalid_value"),
            "'boss'",
        ),
        (
            with("messages", json!([{"role": "user"}])),
            400,
            json!("messages[0].content"),
            json!("invalid_type"),
            "got null",
        ),
        (with("messages", user(json!(7))), 400, json!("messages[0].content"), json!("invalid_type"), "got a number"),
        (
            with("messages", user(json!([{"type": "text"}]))),
            400,
            json!("messages[0].content"),
            json!("invalid_value"),
            "every part",
        ),
        (with("temperature", json!(2.5)), 400, json!("temperature"), json!("decimal_above_max_value"), "but got 2.5"),
        (with("temperature", json!("hot")), 400, json!("temperature"), json!("invalid_type"), "expected a decimal"),
        (with("max_tokens", json!(0)), 400, json!("max_tokens"), json!("integer_below_min_value"), ">= 1"),
        (with("top_p", json!(-1)), 400, json!("top_p"), json!("decimal_below_min_value"), "-1"),
        (
            with("stop", json!(["a", "b", "c", "d", "e"])),
            400,
            json!("stop"),
            json!("array_above_max_length"),
            "length 5",
        ),
        (
            with("max_token", json!(5)),
            400,
            json!("max_token"),
            json!("unknown_parameter"),
            "Unknown parameter: 'max_token'",
        ),
        (with("response_format", json!({"type": "json_object"})), 400, json!("messages"), Value::Null, "'json'"),
        (
            with("response_format", json!({"type": "xml"})),
            400,
            json!("response_format.type"),
            json!("invalid_value"),
            "'xml'",
        ),
        (
            with("tool_choice", json!("required")),
            400,
            json!("tool_choice"),
            json!("invalid_value"),
            "only allowed when 'tools'",
        ),
        (with("stream", json!(7)), 400, json!("stream"), json!("invalid_type"), "expected a boolean"),
        (
            with("logprobs", json!(true)),
            400,
            json!("logprobs"),
            json!("unsupported_parameter"),
            "does not do 'logprobs'",
        ),
    ];
    for (body, status, param, code, message) in cases {
        let reply = chat(&simulation, body.clone()).await;
        let error = &reply.json()["error"];
        assert_eq!((reply.status, &error["param"], &error["code"]), (status, &param, &code), "{body}: {error}");
        assert_eq!(error["type"], "invalid_request_error", "{body}");
        assert!(error["message"].as_str().unwrap().contains(message), "{body}: {error}");
    }
    let raw = chat_request(&simulation, &json!({})).body("{\"model\": ");
    assert_eq!(send(raw).await.status, 400);
    let nulls = with("temperature", Value::Null);
    assert_eq!(chat(&simulation, nulls).await.status, 200);
}

#[tokio::test]
async fn other_paths_and_methods_are_refused_in_openais_shape() {
    let simulation = simulation(&[], &[]).await;
    let embeddings = send(http().post(format!("{}/embeddings", simulation.openai_base_url()))).await;
    assert_eq!((embeddings.status, embeddings.json()["error"]["code"].clone()), (404, json!("unknown_url")));
    let get = send(http().get(format!("{}/chat/completions", simulation.openai_base_url()))).await;
    assert_eq!((get.status, get.json()["error"]["type"].clone()), (405, json!("invalid_request_error")));
    let models = send(http().get(format!("{}/models", simulation.openai_base_url()))).await;
    assert_eq!((models.status, models.json()["object"].clone()), (200, json!("list")));
}

#[tokio::test]
async fn tools_choices_and_json_are_answered_in_their_shapes() {
    let simulation = simulation(&[], &[]).await;
    let mut body = hello();
    body["tools"] = json!([{"type": "function", "function": {"name": "greet",
        "parameters": {"type": "object", "properties": {"mood": {"enum": ["fine", "ill"]}}}}}]);
    body["tool_choice"] = json!({"type": "function", "function": {"name": "greet"}});
    let choice = chat(&simulation, body).await.json()["choices"][0].clone();
    assert_eq!((&choice["finish_reason"], &choice["message"]["content"]), (&json!("tool_calls"), &Value::Null));
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!(call["function"]["name"], "greet");
    let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
    assert!(["fine", "ill"].contains(&arguments["mood"].as_str().unwrap()));

    let mut body = hello();
    body["n"] = json!(3);
    let reply = chat(&simulation, body).await.json();
    assert_eq!(reply["choices"].as_array().unwrap().len(), 3);
    assert_eq!(reply["usage"]["completion_tokens"], 24);
}

#[tokio::test]
async fn quotas_show_in_headers_and_refusals() {
    let simulation = simulation(&[], &["openai=rpm=60,tpm=60000"]).await;
    let first = chat(&simulation, hello()).await;
    assert_eq!(first.status, 200);
    assert_eq!(first.header("x-ratelimit-limit-requests"), Some("60"));
    assert_eq!(first.header("x-ratelimit-remaining-requests"), Some("0"));
    assert_eq!(first.header("x-ratelimit-limit-tokens"), Some("60000"));
    assert_eq!(first.header("x-ratelimit-remaining-tokens"), Some("987"));
    assert_eq!(first.header("x-ratelimit-reset-tokens"), Some("13ms"));
    let second = chat(&simulation, hello()).await;
    let error = &second.json()["error"];
    assert_eq!((second.status, &error["code"]), (429, &json!("rate_limit_exceeded")));
    assert_eq!(second.header("retry-after"), Some("1"));
    let wait: u64 = second.header("retry-after-ms").unwrap().parse().unwrap();
    assert!((1..=1_000).contains(&wait), "{wait}");
    assert!(error["message"].as_str().unwrap().contains("requests per min (RPM): Limit 60"), "{error}");

    let mut large = hello();
    large["max_completion_tokens"] = json!(70_000);
    tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
    let reply = chat(&simulation, large).await;
    assert_eq!((reply.status, reply.json()["error"]["type"].clone()), (429, json!("tokens")));
    assert_eq!(reply.header("retry-after"), None);
}

#[tokio::test]
async fn faults_have_openais_shapes() {
    let cases = [
        ("throttled", 429, "rate_limit_error", json!("rate_limit_exceeded")),
        ("quota-exhausted", 429, "insufficient_quota", json!("insufficient_quota")),
        ("server-error", 500, "server_error", Value::Null),
        ("overloaded", 503, "service_unavailable_error", json!("server_is_overloaded")),
        ("unauthorized", 401, "invalid_request_error", json!("invalid_api_key")),
        ("forbidden", 403, "invalid_request_error", json!("model_not_found")),
        ("model-not-found", 404, "invalid_request_error", json!("model_not_found")),
        ("end-of-life", 404, "invalid_request_error", json!("model_not_found")),
        ("context-length", 400, "invalid_request_error", json!("context_length_exceeded")),
        ("refused", 400, "invalid_request_error", json!("content_policy_violation")),
    ];
    for (fault, status, kind, code) in cases {
        let simulation = simulation(&[&format!("openai={fault}")], &[]).await;
        let reply = chat(&simulation, hello()).await;
        let error = &reply.json()["error"];
        assert_eq!((reply.status, &error["type"], &error["code"]), (status, &json!(kind), &code), "{fault}");
        assert_eq!(reply.header("retry-after"), None, "{fault}");
        assert_eq!(simulation.journal(0, 10).data[0].fault, Some(fault));
    }
    let hinted = simulation(&["all=throttled,retry_after=1500ms"], &[]).await;
    let reply = chat(&hinted, hello()).await;
    assert_eq!((reply.header("retry-after"), reply.header("retry-after-ms")), (Some("2"), Some("1500")));
}

#[tokio::test]
async fn credentials_are_wanted_where_that_is_set() {
    let simulation =
        Simulation::start(SimulateOptions { require_auth: true, ..SimulateOptions::default() }).await.unwrap();
    assert_eq!(chat(&simulation, hello()).await.status, 401);
    assert_eq!(send(chat_request(&simulation, &hello()).bearer_auth("sk-any")).await.status, 200);
}

#[test]
fn spans_are_written_as_go_writes_them() {
    use std::time::Duration;
    for (millis, text) in
        [(0, "0ms"), (120, "120ms"), (1_000, "1s"), (1_500, "1.5s"), (360_000, "6m0s"), (3_723_000, "1h2m3s")]
    {
        assert_eq!(super::super::openai::go_duration(Duration::from_millis(millis)), text);
    }
}

#[tokio::test]
async fn what_the_catalogue_says_of_models_holds() {
    let simulation =
        Simulation::start(SimulateOptions { catalog: Catalog::builtin(), ..options(&[], &[]) }).await.unwrap();
    let ask = |model: &str, key: &str, value: Value| {
        let mut body = hello();
        body["model"] = json!(model);
        body[key] = value;
        chat(&simulation, body)
    };
    for (model, key, value, status, code) in [
        ("gpt-4o-mini", "temperature", json!(0), 200, Value::Null),
        ("gpt-4o-mini", "max_tokens", json!(16_385), 400, json!("invalid_value")),
        ("gpt-4o", "max_tokens", json!(10), 200, Value::Null),
        ("gpt-7-imagined", "max_tokens", json!(10), 404, json!("model_not_found")),
        ("gpt-4", "max_tokens", json!(10), 404, json!("model_not_found")),
        ("gpt-4o-2024-08-06", "max_tokens", json!(10), 200, Value::Null),
        ("gpt-5.4-mini", "temperature", json!(0.2), 200, Value::Null),
        ("o3", "temperature", json!(0.2), 400, json!("unsupported_value")),
        ("o3", "temperature", json!(1), 200, Value::Null),
        ("ft:gpt-4o-mini:ours", "max_tokens", json!(10), 200, Value::Null),
    ] {
        let reply = ask(model, key, value).await;
        assert_eq!((reply.status, reply.json()["error"]["code"].clone()), (status, code), "{model} {key}");
    }
}

#[tokio::test]
async fn sampling_and_reasoning_exclude_each_other_where_the_catalogue_says_so() {
    let simulation =
        Simulation::start(SimulateOptions { catalog: Catalog::builtin(), ..options(&[], &[]) }).await.unwrap();
    for (effort, status) in [("none", 200), ("high", 400)] {
        let mut body = hello();
        body["reasoning_effort"] = json!(effort);
        body["temperature"] = json!(0.2);
        assert_eq!(chat(&simulation, body).await.status, status, "{effort}");
    }
}

#[tokio::test]
async fn models_are_listed_with_the_day_they_end() {
    let simulation =
        Simulation::start(SimulateOptions { catalog: Catalog::builtin(), ..options(&[], &[]) }).await.unwrap();
    let list = send(http().get(format!("{}/models", simulation.openai_base_url()))).await.json();
    let listed = |id: &str| list["data"].as_array().unwrap().iter().find(|model| model["id"] == id);
    assert_eq!(listed("gpt-5.4-mini").unwrap()["shutdown_date"], Value::Null);
    assert!(listed("gpt-4").is_none());
    assert!(list["data"].as_array().unwrap().iter().any(|model| model["shutdown_date"].is_string()));
}
