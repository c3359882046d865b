//! Answers in pieces, and the further doors of Bedrock, as the bare AWS SDK and a bare HTTP client see them.

use aws_sdk_bedrockruntime::{
    Client,
    config::{BehaviorVersion, Credentials, Region, retry::RetryConfig},
    error::ProvideErrorMetadata,
    primitives::Blob,
    types::{
        ContentBlock, ContentBlockDelta, ConversationRole, ConverseStreamOutput, ConverseTokensRequest,
        CountTokensInput, InvokeModelTokensRequest, Message, ResponseStream, StopReason,
        error::ConverseStreamOutputError,
    },
};

use super::*;
use crate::{
    catalog::Catalog,
    simulate::{Outcome, model::Latency},
};

const HAIKU: &str = "eu.anthropic.claude-haiku-4-5-20251001-v1:0";
const IMPORTED: &str = "arn:aws:bedrock:us-east-1:123456789012:imported-model/a1b2c3";

fn client(simulation: &Simulation) -> Client {
    let config = aws_sdk_bedrockruntime::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new("AKIDSIMULATED", "secret", None, None, "tests"))
        .retry_config(RetryConfig::disabled())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(simulation.bedrock_endpoint_url())
        .build();
    Client::from_conf(config)
}

fn question() -> Message {
    let text = "Hello there. How are you?".to_owned();
    Message::builder().role(ConversationRole::User).content(ContentBlock::Text(text)).build().unwrap()
}

fn data(text: &str) -> Vec<Value> {
    let events = text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap());
    events.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
}

fn streaming() -> Value {
    let mut body = hello();
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    body
}

#[tokio::test]
async fn openais_pieces_make_the_whole() {
    let simulation = simulation(&[], &[]).await;
    let whole = chat(&simulation, hello()).await.json();
    let reply = chat(&simulation, streaming()).await;
    assert_eq!(reply.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert!(reply.text.ends_with("data: [DONE]\n\n"), "{}", reply.text);
    let chunks = data(&reply.text);
    let text: String = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, whole["choices"][0]["message"]["content"]);
    let (last, rest) = chunks.split_last().unwrap();
    assert_eq!((&last["usage"], &last["choices"]), (&whole["usage"], &json!([])));
    assert_eq!(rest.last().unwrap()["choices"][0]["finish_reason"], "stop");
    assert!(rest.iter().all(|chunk| chunk["object"] == "chat.completion.chunk" && chunk["usage"].is_null()));
    // Nobody asked: nothing is said.
    let mut bare = streaming();
    bare.as_object_mut().unwrap().remove("stream_options");
    assert!(!chat(&simulation, bare).await.text.contains("usage"));
    let mut alone = hello();
    alone["stream_options"] = json!({});
    assert_eq!(chat(&simulation, alone).await.json()["error"]["param"], "stream_options");
    simulation.until_ended(4).await;
    assert!(simulation.journal(0, 9).data[1].output_tokens > 0);
}

#[tokio::test]
async fn converse_streams_as_the_sdk_reads_it() {
    let simulation = simulation(&[], &[]).await;
    let mut output = client(&simulation).converse_stream().model_id(HAIKU).messages(question()).send().await.unwrap();
    let (mut text, mut stop, mut usage) = (String::new(), None, None);
    while let Some(event) = output.stream.recv().await.unwrap() {
        match event {
            ConverseStreamOutput::ContentBlockDelta(event) => match event.delta.unwrap() {
                ContentBlockDelta::Text(more) => text += &more,
                other => panic!("{other:?}"),
            },
            ConverseStreamOutput::MessageStop(event) => stop = Some(event.stop_reason),
            ConverseStreamOutput::Metadata(event) => usage = event.usage,
            _ => {}
        }
    }
    assert_eq!((text.as_str(), stop), ("Simulated answer: Hello there.", Some(StopReason::EndTurn)));
    assert!(usage.unwrap().output_tokens() > 0);
}

#[tokio::test]
async fn tools_are_called_where_the_question_speaks_of_them() {
    let simulation = simulation(&[], &[]).await;
    let tool = json!({"type": "function", "function": {"name": "get_weather", "parameters":
        {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}});
    let ask = |question: &str| json!({"model": "gpt-5.4-mini", "tools": [tool], "messages": [{"role": "user", "content": question}]});
    let mut called = ask("What is the weather in Paris?");
    let whole = chat(&simulation, called.clone()).await.json();
    assert_eq!(whole["choices"][0]["finish_reason"], "tool_calls");
    let call = whole["choices"][0]["message"]["tool_calls"][0].clone();
    assert_eq!(call["function"]["name"], "get_weather");
    called["stream"] = json!(true);
    let chunks = data(&chat(&simulation, called.clone()).await.text);
    let arguments: String = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"].as_str())
        .collect();
    assert_eq!(arguments, call["function"]["arguments"]);
    // The tool has answered: the model speaks. Told not to call, or of something else, it never calls.
    let mut answered = ask("What is the weather in Paris?");
    let turns = answered["messages"].as_array_mut().unwrap();
    turns.push(json!({"role": "assistant", "content": null, "tool_calls": [call]}));
    turns.push(json!({"role": "tool", "tool_call_id": "x", "content": "sunny"}));
    let mut forbidden = ask("What is the weather in Paris?");
    forbidden["tool_choice"] = json!("none");
    for body in [answered, forbidden, ask("Who are you?")] {
        assert_eq!(chat(&simulation, body.clone()).await.json()["choices"][0]["finish_reason"], "stop", "{body}");
    }
}

#[tokio::test]
async fn models_are_invoked_in_their_own_forms() {
    let simulation = simulation(&[], &[]).await;
    let client = client(&simulation);
    let claude = json!({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 50,
        "messages": [{"role": "user", "content": "Hello there. How are you?"}]});
    let llama = json!({"prompt": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHello there. How are you?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n", "max_gen_len": 50});
    for (model, body, text, pieces) in [
        (HAIKU, &claude, "/content/0/text", "/delta/text"),
        (IMPORTED, &claude, "/content/0/text", "/delta/text"),
        (IMPORTED, &llama, "/generation", "/generation"),
        ("us.meta.llama3-3-70b-instruct-v1:0", &llama, "/generation", "/generation"),
    ] {
        let body = Blob::new(body.to_string());
        let reply = client.invoke_model().model_id(model).body(body.clone()).send().await.unwrap();
        let reply: Value = serde_json::from_slice(reply.body.as_ref()).unwrap();
        assert_eq!(reply.pointer(text).unwrap(), "Simulated answer: Hello there.", "{model}: {reply}");
        let mut output = client.invoke_model_with_response_stream().model_id(model).body(body).send().await.unwrap();
        let mut said = String::new();
        let mut last = Value::Null;
        while let Some(event) = output.body.recv().await.unwrap() {
            let ResponseStream::Chunk(part) = event else { panic!("{event:?}") };
            last = serde_json::from_slice(part.bytes.unwrap().as_ref()).unwrap();
            said += last.pointer(pieces).and_then(Value::as_str).unwrap_or_default();
        }
        assert_eq!(said, "Simulated answer: Hello there.", "{model}");
        assert!(last["amazon-bedrock-invocationMetrics"]["outputTokenCount"].as_u64().unwrap() > 0, "{last}");
    }
    for (model, body, says) in [
        (HAIKU, llama, "Malformed input request"),
        (HAIKU, json!({"messages": [], "max_tokens": 1}), "anthropic_version"),
        (HAIKU, json!({"anthropic_version": "bedrock-2023-05-31", "messages": []}), "max_tokens"),
        (IMPORTED, json!({"prompt": "x", "max_tokens": 5}), "extraneous key [max_tokens]"),
    ] {
        let error = client.invoke_model().model_id(model).body(Blob::new(body.to_string())).send().await.unwrap_err();
        assert_eq!(error.code(), Some("ValidationException"), "{body}");
        assert!(error.message().unwrap().contains(says), "{body}: {error:?}");
    }
}

#[tokio::test]
async fn bodies_of_invoke_are_counted_too() {
    let simulation =
        Simulation::start(SimulateOptions { catalog: Catalog::builtin(), ..options(&[], &[]) }).await.unwrap();
    let client = client(&simulation);
    let count = |input| client.count_tokens().model_id(HAIKU.trim_start_matches("eu.")).input(input).send();
    let body = json!({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 50,
        "messages": [{"role": "user", "content": "Hello there. How are you?"}]});
    let invoke = InvokeModelTokensRequest::builder().body(Blob::new(body.to_string())).build().unwrap();
    let converse = ConverseTokensRequest::builder().messages(question()).build();
    let converse = count(CountTokensInput::Converse(converse)).await.unwrap();
    let invoke = count(CountTokensInput::InvokeModel(invoke)).await.unwrap();
    assert_eq!(invoke.input_tokens(), converse.input_tokens());
    assert_eq!(simulation.counts().calls, 0, "counting is no call");
}

#[tokio::test]
async fn bedrock_speaks_openais_form_too() {
    let simulation =
        Simulation::start(SimulateOptions { require_auth: true, ..options(&[], &["bedrock=rpm=60"]) }).await.unwrap();
    let request = |authorization: Option<&str>| {
        let mut body = hello();
        body["model"] = json!("openai.gpt-oss-120b-1:0");
        let request =
            http().post(format!("{}/openai/v1/chat/completions", simulation.bedrock_endpoint_url())).json(&body);
        match authorization {
            Some(value) => request.header("authorization", value),
            None => request,
        }
    };
    let signature =
        "AWS4-HMAC-SHA256 Credential=AKID/20261122/eu-west-1/bedrock/aws4_request, SignedHeaders=host, Signature=0";
    let reply = send(request(Some(signature))).await;
    assert_eq!((reply.status, reply.json()["object"].clone()), (200, json!("chat.completion")));
    assert!(reply.header("x-amzn-requestid").is_some() && reply.header("x-ratelimit-limit-requests").is_none());
    // Quotas are Bedrock's, errors are in OpenAI's shape.
    let reply = send(request(Some(signature))).await;
    assert_eq!((reply.status, reply.json()["error"]["code"].clone()), (429, json!("rate_limit_exceeded")));
    assert_eq!(send(request(None)).await.status, 401);
    let page = simulation.journal(0, 1);
    assert_eq!((page.data[0].api, page.data[0].region.as_deref()), (crate::spec::Api::Bedrock, Some("eu-west-1")));
}

#[tokio::test]
async fn streams_go_wrong_in_every_way() {
    // A whole answer is none of their business.
    let cut = simulation(&["all=stream-cut,pieces=3"], &[]).await;
    assert_eq!(chat(&cut, hello()).await.status, 200);
    let response = chat_request(&cut, &streaming()).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.text().await.is_err(), "the connection is reset");
    let mut output = client(&cut).converse_stream().model_id(HAIKU).messages(question()).send().await.unwrap();
    let mut pieces = 0;
    let error = loop {
        match output.stream.recv().await {
            Ok(Some(_)) => pieces += 1,
            Ok(None) => panic!("no end"),
            Err(error) => break error,
        }
    };
    assert_eq!(pieces, 3, "{error:?}");

    let errs = simulation(&["all=stream-error,pieces=2"], &[]).await;
    let chunks = data(&chat(&errs, streaming()).await.text);
    assert_eq!((chunks.len(), &chunks[2]["error"]["type"]), (3, &json!("server_error")));
    let mut output = client(&errs).converse_stream().model_id(HAIKU).messages(question()).send().await.unwrap();
    let error = loop {
        if let Err(error) = output.stream.recv().await {
            break error.into_service_error();
        }
    };
    assert!(matches!(error, ConverseStreamOutputError::ModelStreamErrorException(_)), "{error:?}");

    let stalls = simulation(&["all=stream-stall,pieces=2"], &[]).await;
    let mut response = chat_request(&stalls, &streaming()).send().await.unwrap();
    response.chunk().await.unwrap().unwrap();
    stalls.until_in_flight(1).await;
    drop(response);
    stalls.until_ended(1).await;
    assert_eq!(stalls.journal(0, 1).data[0].outcome, Outcome::Cancelled);

    let broken = simulation(&["all=broken-json"], &[]).await;
    let text = chat(&broken, streaming()).await.text;
    assert!(!text.contains("[DONE]"), "{text}");
    for simulation in [cut, errs, broken] {
        assert!(simulation.journal(0, 9).data.iter().any(|entry| entry.outcome == Outcome::Failed));
    }
}

#[tokio::test]
async fn pieces_come_at_the_models_pace() {
    let latency: Latency = "400ms".parse().unwrap();
    let simulation =
        Simulation::start(SimulateOptions { openai_latency: Some(latency), ..options(&[], &[]) }).await.unwrap();
    let began = std::time::Instant::now();
    let mut response = chat_request(&simulation, &streaming()).send().await.unwrap();
    let first = began.elapsed();
    while response.chunk().await.unwrap().is_some() {}
    let whole = began.elapsed();
    assert!(first.as_millis() >= 100 && whole.as_millis() >= 400, "{first:?} of {whole:?}");
}
