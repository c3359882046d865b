//! A thousand slow calls to one host are a thousand calls in flight.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{sync::Barrier, task::JoinSet};

use super::*;

const CALLS: usize = 1_000;

/// The server offers HTTP/2 with 100 calls a connection, and holds every call until all of them have come: through one
/// HTTP/2 connection the first hundred would wait for ever for the rest.
async fn all_in_flight(api: Api, answer: &'static str) {
    let needed = 2 * CALLS as u64 + 200;
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let _refused = setrlimit(Resource::Nofile, raised);
    let enough = getrlimit(Resource::Nofile).current.is_none_or(|allowed| allowed >= needed);
    assert!(enough, "this test needs {needed} open files: raise `ulimit -Hn`");
    let gate = Arc::new(Barrier::new(CALLS));
    let server = server::start_async(
        true,
        Arc::new(move |_| {
            let gate = gate.clone();
            Box::pin(async move {
                gate.wait().await;
                Response::new(Full::new(Bytes::from_static(answer.as_bytes())))
            })
        }),
    )
    .await;
    let provider = provider(api, &server.url, &server.roots).await;
    let mut calls = JoinSet::new();
    for _ in 0..CALLS {
        let provider = provider.clone();
        calls.spawn(async move { provider.chat(call(api)).await });
    }
    while let Some(reply) = calls.join_next().await {
        reply.unwrap().unwrap();
    }
    assert_eq!(server.seen.peak.load(Ordering::SeqCst), CALLS);
    assert_eq!(server.seen.connections.load(Ordering::SeqCst), CALLS, "one connection a call, none in vain");
}

/// One after the other: two thousand handshakes at a time are too many for a small machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_calls_are_in_flight_at_once() {
    all_in_flight(Api::OpenAi, COMPLETION).await;
    all_in_flight(Api::Bedrock, CONVERSED).await;
}

#[tokio::test]
async fn connections_serve_again() {
    for (api, answer) in [(Api::OpenAi, COMPLETION), (Api::Bedrock, CONVERSED)] {
        let server =
            server::start(true, move |_| Response::new(Full::new(Bytes::from_static(answer.as_bytes())))).await;
        let provider = provider(api, &server.url, &server.roots).await;
        for _ in 0..5 {
            provider.chat(call(api)).await.unwrap();
        }
        assert_eq!(server.seen.connections.load(Ordering::SeqCst), 1, "{api}");
    }
}
