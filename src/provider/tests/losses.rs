//! Calls that end without an answer: what is said of them decides whether they may have been billed.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

/// What the other side does with a connection.
#[derive(Debug, Clone, Copy)]
enum Mischief {
    /// Nobody listens.
    Refuse,
    /// The name does not resolve.
    NoSuchHost,
    /// Takes the connection and says nothing to its TLS.
    MuteTls,
    /// Shows a certificate that nobody vouches for.
    Stranger,
    /// Reads the request and hangs up.
    HangUp,
    /// Reads the request and never answers.
    Silence,
    /// Promises more than it sends.
    HalfAnAnswer,
    /// Answers what is not HTTP.
    Gibberish,
}

/// Serves connections until it is dropped.
async fn troublemaker(mischief: Mischief) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut kept = Vec::new();
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { continue };
            if !matches!(mischief, Mischief::MuteTls) {
                let mut request = Vec::new();
                while !request.windows(4).any(|end| end == b"ping") {
                    if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                        break;
                    }
                }
            }
            let said: &[u8] = match mischief {
                Mischief::HalfAnAnswer => b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"choices\":[",
                Mischief::Gibberish => b"what?\r\n\r\n",
                _ => b"",
            };
            let _ = stream.write_all(said).await;
            if matches!(mischief, Mischief::Silence | Mischief::MuteTls) {
                kept.push(stream);
            }
        }
    });
    (format!("http://{address}"), task)
}

#[tokio::test]
async fn a_lost_call_says_whether_it_may_have_been_billed() {
    use Mischief::{Gibberish, HalfAnAnswer, HangUp, MuteTls, NoSuchHost, Refuse, Silence, Stranger};
    for api in [Api::OpenAi, Api::Bedrock] {
        for (mischief, timeout, fault, billed, code) in [
            (Refuse, PATIENCE, Fault::Transient, false, "connection_failed"),
            (NoSuchHost, PATIENCE, Fault::Transient, false, "connection_failed"),
            (MuteTls, Duration::from_millis(300), Fault::Transient, false, "timeout"),
            (Stranger, PATIENCE, Fault::Misconfigured, false, "certificate_not_trusted"),
            (HangUp, PATIENCE, Fault::Unknown, true, "connection_lost"),
            (Silence, Duration::from_millis(300), Fault::Unknown, true, "timeout"),
            (HalfAnAnswer, PATIENCE, Fault::Unknown, true, "connection_lost"),
            (Gibberish, PATIENCE, Fault::Unknown, true, "connection_lost"),
        ] {
            let (mut url, task) = troublemaker(mischief).await;
            let stranger = server::always(200, &[], "").await;
            let tls = server::start(true, |_| unreachable!("nobody gets through")).await;
            match mischief {
                Refuse => {
                    task.abort();
                    let _ = (&stranger, task.await);
                }
                NoSuchHost => "http://no-such-host.invalid:9".clone_into(&mut url),
                MuteTls => url = url.replace("http://", "https://"),
                Stranger => url.clone_from(&tls.url),
                _ => {}
            }
            let error = provider(api, &url, &[]).await.chat(Call { timeout, ..call(api) }).await.unwrap_err();
            let label = format!("{api} {mischief:?}: {error:?}");
            assert_eq!((error.fault, error.possibly_billed), (fault, billed), "{label}");
            assert_eq!(error.code.as_deref(), Some(code), "{label}");
            assert_eq!(error.advice.is_some(), fault == Fault::Misconfigured, "{label}");
        }
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut() {
    let long = format!("{{\"choices\":[{{}}],\"filler\":\"{}\"}}", "x".repeat(sockets::MAX_ANSWER));
    for api in [Api::OpenAi, Api::Bedrock] {
        let server = server::always(200, &[("content-type", "application/json")], long.clone()).await;
        let error = provider(api, &server.url, &[]).await.chat(call(api)).await.unwrap_err();
        assert_eq!((error.fault, error.possibly_billed), (Fault::Refused, true), "{api}: {error:?}");
        assert_eq!(error.code.as_deref(), Some("answer_too_long"), "{api}: {error:?}");
    }
}

#[tokio::test]
async fn a_dropped_call_hangs_up() {
    for api in [Api::OpenAi, Api::Bedrock] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let provider = provider(api, &format!("http://{}", listener.local_addr().unwrap()), &[]).await;
        let asked = tokio::spawn(async move { provider.chat(call(api)).await });
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.windows(4).any(|end| end == b"ping") {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "{api}");
        }
        asked.abort();
        let rest = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut request)).await;
        assert!(rest.is_ok(), "{api}: the connection stays open");
    }
}
