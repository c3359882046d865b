//! Streams over real sockets: cut anywhere, silent, broken, and hung up on.

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

use super::*;
use crate::{job::Fault, wire::stream::Event};

/// What a connection does with one request.
#[derive(Debug, Clone)]
struct Script {
    kind: &'static str,
    /// Written one after the other, each in packets of its own.
    writes: Vec<Vec<u8>>,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    /// The body ends as HTTP says it does.
    Orderly,
    /// The connection closes in the middle of it.
    Closed,
    /// Nothing more comes.
    Silence,
}

/// Answers every connection by the next script; tells when the other side hangs up on the last.
struct Scripted {
    url: String,
    hung_up: oneshot::Receiver<()>,
    asked: Arc<std::sync::Mutex<Vec<u8>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn scripted(script: Script) -> Scripted {
    scripted_all(vec![script]).await
}

async fn scripted_all(scripts: Vec<Script>) -> Scripted {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (tell, hung_up) = oneshot::channel();
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let task = tokio::spawn({
        let asked = asked.clone();
        async move {
            for script in scripts {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                *asked.lock().unwrap() = read_request(&mut stream).await;
                play(&mut stream, &script).await;
                if script.end == End::Silence {
                    let _gone = stream.read_to_end(&mut Vec::new()).await;
                }
            }
            let _told = tell.send(());
        }
    });
    Scripted { url, hung_up, asked, task }
}

async fn play(stream: &mut TcpStream, script: &Script) {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {}\r\nx-request-id: req_9\r\nx-amzn-requestid: req_9\r\nconnection: close\r\n\
         transfer-encoding: chunked\r\n\r\n",
        script.kind
    );
    let mut all = vec![head.into_bytes()];
    for write in &script.writes {
        all.push([format!("{:x}\r\n", write.len()).as_bytes(), write, b"\r\n"].concat());
    }
    if script.end == End::Orderly {
        all.push(b"0\r\n\r\n".to_vec());
    }
    for write in all {
        if stream.write_all(&write).await.is_err() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

async fn read_request(stream: &mut TcpStream) -> Vec<u8> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"ping") {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            break;
        }
    }
    request
}

fn sse() -> Vec<Vec<u8>> {
    let chunk = |delta: Value, reason: Value| {
        json!({"id": "chatcmpl-7", "object": "chat.completion.chunk", "created": 7, "model": "gpt-4o-mini-2024",
            "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})
    };
    let usage = json!({"id": "chatcmpl-7", "object": "chat.completion.chunk", "created": 7, "model": "gpt-4o-mini-2024",
        "choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}});
    let mut events: Vec<String> = [
        chunk(json!({"role": "assistant", "content": ""}), Value::Null),
        chunk(json!({"content": "pö"}), Value::Null),
        chunk(json!({"content": "ng"}), Value::Null),
        chunk(json!({}), json!("stop")),
        usage,
    ]
    .iter()
    .map(|data| format!("data: {data}\n\n"))
    .collect();
    events.insert(1, ": keep-alive\n\n".to_owned());
    events.push("data: [DONE]\n\n".to_owned());
    events.into_iter().map(String::into_bytes).collect()
}

fn frame(headers: [(&'static str, &'static str); 2], payload: &Value) -> Vec<u8> {
    let headers = headers.map(|(name, value)| Header::new(name, HeaderValue::String(value.into())));
    let mut headers = headers.to_vec();
    headers.push(Header::new(":content-type", HeaderValue::String("application/json".into())));
    let mut bytes = Vec::new();
    write_message_to(&Message::new_from_parts(headers, payload.to_string().into_bytes()), &mut bytes).unwrap();
    bytes
}

fn event(name: &'static str, payload: Value) -> Vec<u8> {
    frame([(":message-type", "event"), (":event-type", name)], &payload)
}

fn exception(name: &'static str, payload: Value) -> Vec<u8> {
    frame([(":message-type", "exception"), (":exception-type", name)], &payload)
}

fn frames() -> Vec<Vec<u8>> {
    vec![
        event("messageStart", json!({"role": "assistant"})),
        event("contentBlockDelta", json!({"contentBlockIndex": 0, "delta": {"text": "pö"}})),
        event("newerThanThisRelease", json!({"x": 1})),
        event("contentBlockDelta", json!({"contentBlockIndex": 0, "delta": {"text": "ng"}})),
        event("contentBlockStop", json!({"contentBlockIndex": 0})),
        event("messageStop", json!({"stopReason": "end_turn"})),
        event(
            "metadata",
            json!({"usage": {"inputTokens": 12, "outputTokens": 3, "totalTokens": 15}, "metrics": {"latencyMs": 5}}),
        ),
    ]
}

fn whole(api: Api) -> (&'static str, Vec<Vec<u8>>) {
    match api {
        Api::OpenAi => ("text/event-stream", sse()),
        Api::Bedrock => ("application/vnd.amazon.eventstream", frames()),
    }
}

async fn gathered(provider: &dyn Provider, api: Api) -> Gathered {
    let stream = provider.stream(call(api)).await.unwrap();
    stream.gather(tokio::time::Instant::now()).await
}

async fn gathered_of(api: Api, script: Script) -> Gathered {
    let server = scripted(script).await;
    gathered(&*provider(api, &server.url, &[]).await, api).await
}

#[tokio::test]
async fn a_stream_is_asked_for_and_put_together() {
    for api in [Api::OpenAi, Api::Bedrock] {
        let (kind, writes) = whole(api);
        let server = scripted(Script { kind, writes, end: End::Orderly }).await;
        let provider = provider(api, &server.url, &[]).await;
        let stream = provider.stream(call(api)).await.unwrap();
        assert_eq!(stream.provider_request_id.as_deref(), Some("req_9"), "{api}");
        let Gathered { outcome, first_token, usage } = stream.gather(tokio::time::Instant::now()).await;
        let reply = outcome.unwrap();
        let completion: Value = serde_json::from_str(&reply.completion).unwrap();
        assert_eq!(completion["object"], "chat.completion", "{api}");
        assert_eq!(completion["choices"][0]["message"]["content"], "pöng", "{api}");
        assert_eq!(completion["choices"][0]["finish_reason"], "stop", "{api}");
        assert_eq!(completion["usage"]["total_tokens"], 15, "{api}");
        assert_eq!(reply.usage, Some(Usage { input: 12, output: 3, ..Usage::default() }), "{api}");
        assert_eq!((usage, first_token.is_some()), (reply.usage, true), "{api}");
        let asked = String::from_utf8(server.asked.lock().unwrap().clone()).unwrap();
        match api {
            Api::OpenAi => {
                assert_eq!((&completion["id"], &completion["created"]), (&json!("chatcmpl-7"), &json!(7)));
                assert_eq!(completion["model"], "gpt-4o-mini-2024");
                assert!(asked.contains("accept: text/event-stream"), "{asked}");
                let body: Value = serde_json::from_str(asked.split("\r\n\r\n").nth(1).unwrap()).unwrap();
                assert_eq!((&body["stream"], &body["stream_options"]["include_usage"]), (&json!(true), &json!(true)));
                assert_eq!(body["max_tokens"], 10, "what was prepared is there as well: {body}");
            }
            Api::Bedrock => {
                let line = "POST /model/us.anthropic.claude-haiku-4-5-20251001-v1%3A0/converse-stream HTTP/1.1";
                assert!(asked.starts_with(line), "{asked}");
                assert!(asked.contains("/eu-west-3/bedrock/aws4_request"), "{asked}");
            }
        }
    }
}

#[tokio::test]
async fn packets_do_not_matter() {
    for api in [Api::OpenAi, Api::Bedrock] {
        let (kind, writes) = whole(api);
        let bytes = writes.concat();
        let mut boundaries: Vec<usize> = writes
            .iter()
            .scan(0, |at, write| {
                *at += write.len();
                Some(*at)
            })
            .collect();
        // Every frame's end, and all over the frames.
        boundaries.extend((1..bytes.len()).step_by(5));
        boundaries.retain(|cut| (1..bytes.len()).contains(cut));
        let script = |cut: &usize| {
            let writes = vec![bytes[..*cut].to_vec(), bytes[*cut..].to_vec()];
            Script { kind, writes, end: End::Orderly }
        };
        let server = scripted_all(boundaries.iter().map(script).collect()).await;
        let provider = provider(api, &server.url, &[]).await;
        for cut in boundaries {
            let reply = gathered(&*provider, api)
                .await
                .outcome
                .unwrap_or_else(|error| panic!("{api}, cut at {cut}: {error:?}"));
            let completion: Value = serde_json::from_str(&reply.completion).unwrap();
            assert_eq!(completion["choices"][0]["message"]["content"], "pöng", "{api}, cut at {cut}");
            assert_eq!(reply.usage.unwrap().output, 3, "{api}, cut at {cut}");
        }
    }
}

#[tokio::test]
async fn a_stream_that_is_cut_is_never_an_answer() {
    for (api, end) in [
        (Api::OpenAi, End::Closed),
        (Api::OpenAi, End::Orderly),
        (Api::Bedrock, End::Closed),
        (Api::Bedrock, End::Orderly),
    ] {
        let (kind, writes) = whole(api);
        let bytes = writes.concat();
        // The answer has its end with the event that says why: what is cut after it is another matter.
        let ended = match api {
            // The blank line after an event may be missing at the end.
            Api::OpenAi => sse()[..5].concat().len() - 2,
            Api::Bedrock => frames()[..6].concat().len(),
        };
        let lengths: Vec<usize> = (0..ended).step_by(7).chain([ended - 1]).collect();
        let script = |length: &usize| {
            let writes = if *length == 0 { Vec::new() } else { vec![bytes[..*length].to_vec()] };
            Script { kind, writes, end }
        };
        let server = scripted_all(lengths.iter().map(script).collect()).await;
        let provider = provider(api, &server.url, &[]).await;
        for length in lengths {
            let error = gathered(&*provider, api).await.outcome.unwrap_err();
            let label = format!("{api} {end:?} after {length}: {error:?}");
            let code = error.code.as_deref().unwrap_or_default();
            let expected = match error.fault {
                Fault::Unknown => &["connection_lost", "stream_ended_early"][..],
                // Ended in good order in the middle of an event.
                Fault::Transient if end == End::Orderly => &["invalid_response"],
                _ => &[],
            };
            assert!(expected.contains(&code) && error.possibly_billed, "{label}");
        }
    }
}

#[tokio::test]
async fn silence_is_waited_for_only_so_long() {
    for api in [Api::OpenAi, Api::Bedrock] {
        let (kind, writes) = whole(api);
        let idle = Duration::from_millis(200);
        // After the first words: the idle time. Before them, a model may think: only the whole time bounds it.
        for (count, code) in [(4, "stream_idle"), (0, "timeout")] {
            let script = Script { kind, writes: writes[..count].to_vec(), end: End::Silence };
            let server = scripted(script).await;
            let timeout = if count == 0 { Duration::from_millis(600) } else { PATIENCE };
            let asked = Call { idle_timeout: idle, timeout, ..call(api) };
            let began = tokio::time::Instant::now();
            let stream = provider(api, &server.url, &[]).await.stream(asked).await.unwrap();
            let Gathered { outcome, first_token, .. } = stream.gather(began).await;
            let error = outcome.unwrap_err();
            assert_eq!((error.fault, error.possibly_billed), (Fault::Unknown, true), "{api}: {error:?}");
            assert_eq!(error.code.as_deref(), Some(code), "{api}: {error:?}");
            assert_eq!(first_token.is_some(), count > 0, "{api}");
            let least = if count == 0 { Duration::from_millis(500) } else { idle };
            assert!(began.elapsed() >= least, "{api}: {:?}", began.elapsed());
        }
    }
}

#[tokio::test]
async fn a_dropped_stream_hangs_up() {
    for api in [Api::OpenAi, Api::Bedrock] {
        let (kind, writes) = whole(api);
        let mut server = scripted(Script { kind, writes: writes[..3].to_vec(), end: End::Silence }).await;
        let provider = provider(api, &server.url, &[]).await;
        let mut stream = provider.stream(call(api)).await.unwrap();
        loop {
            match stream.events.next().await.unwrap().unwrap() {
                event if event.is_output() => break,
                Event::Field { .. } => {}
                event => panic!("{event:?}"),
            }
        }
        assert!(server.hung_up.try_recv().is_err(), "{api}: too early");
        drop(stream);
        tokio::time::timeout(PATIENCE, &mut server.hung_up)
            .await
            .unwrap_or_else(|_| panic!("{api}: still open"))
            .unwrap();
    }
}

#[tokio::test]
async fn exceptions_in_a_stream_are_faults() {
    let plain = |text: &str| json!({"message": text});
    for (name, payload, fault, code) in [
        ("internalServerException", plain("oops"), Fault::Transient, "InternalServerException"),
        ("throttlingException", plain("Too many tokens, please wait"), Fault::Throttled, "ThrottlingException"),
        ("serviceUnavailableException", plain("busy"), Fault::Unavailable, "ServiceUnavailableException"),
        ("validationException", plain("Input is too long for requested model."), Fault::TooLong, "ValidationException"),
        (
            "modelStreamErrorException",
            json!({"message": "bad", "originalStatusCode": 500, "originalMessage": "m"}),
            Fault::Transient,
            "ModelStreamErrorException",
        ),
    ] {
        let mut writes = frames()[..2].to_vec();
        writes.push(exception(name, payload));
        let kind = "application/vnd.amazon.eventstream";
        let gathered = gathered_of(Api::Bedrock, Script { kind, writes, end: End::Orderly }).await;
        let error = gathered.outcome.unwrap_err();
        assert_eq!((error.fault, error.code.as_deref()), (fault, Some(code)), "{name}: {error:?}");
        assert!(error.possibly_billed, "{name}");
    }
    let mut writes = sse()[..3].to_vec();
    writes.push(b"data: {\"error\":{\"message\":\"over\",\"type\":\"server_error\",\"code\":null}}\n\n".to_vec());
    let script = Script { kind: "text/event-stream", writes, end: End::Orderly };
    let error = gathered_of(Api::OpenAi, script).await.outcome.unwrap_err();
    assert_eq!((error.fault, error.possibly_billed), (Fault::Transient, true), "{error:?}");
    assert_eq!(error.message, "over");
}

#[tokio::test]
async fn what_is_refused_before_the_first_piece_is_an_error_at_once() {
    for (api, status, headers, body, fault, billed) in [
        (
            Api::OpenAi,
            429,
            &[("retry-after", "7")][..],
            r#"{"error":{"message":"Rate limit reached","code":"rate_limit_exceeded"}}"#,
            Fault::Throttled,
            false,
        ),
        (
            Api::Bedrock,
            429,
            &[("x-amzn-errortype", "ThrottlingException"), ("retry-after", "7")][..],
            r#"{"message":"Too many tokens, please wait before trying again."}"#,
            Fault::Throttled,
            false,
        ),
        (Api::Bedrock, 503, &[("retry-after", "7")][..], "busy", Fault::Unavailable, false),
    ] {
        let server = server::always(status, headers, body).await;
        let error = provider(api, &server.url, &[]).await.stream(call(api)).await.err().unwrap();
        assert_eq!((error.fault, error.possibly_billed), (fault, billed), "{api}: {error:?}");
        assert_eq!(error.retry_after, Some(Duration::from_secs(7)), "{api}: {error:?}");
    }
    // A server that does not stream says so by what it sends: the operator is told.
    let server = server::always(200, &[("content-type", "application/json")], COMPLETION).await;
    let error = provider(Api::OpenAi, &server.url, &[]).await.stream(call(Api::OpenAi)).await.err().unwrap();
    assert_eq!((error.fault, error.possibly_billed), (Fault::Misconfigured, true), "{error:?}");
    assert_eq!(error.code.as_deref(), Some("not_streamed"));
    assert!(error.advice.unwrap().contains("stream: false"));
}

#[tokio::test]
async fn a_connection_serves_again_after_a_stream() {
    let body = Bytes::from(sse().concat());
    let server = server::always(200, &[("content-type", "text/event-stream")], body).await;
    let provider = provider(Api::OpenAi, &server.url, &[]).await;
    for _ in 0..4 {
        let stream = provider.stream(call(Api::OpenAi)).await.unwrap();
        stream.gather(tokio::time::Instant::now()).await.outcome.unwrap();
    }
    assert_eq!(server.seen.connections.load(std::sync::atomic::Ordering::SeqCst), 1);
}
