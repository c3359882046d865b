//! A server on a private port, plain or TLS, that remembers what it was asked.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;

/// Calls that one HTTP/2 connection may carry at a time, as most servers have it.
const STREAMS: u32 = 100;

pub(super) type Answer = Response<Full<Bytes>>;
pub(super) type Handler = Arc<dyn Fn(Request<Bytes>) -> BoxFuture<'static, Answer> + Send + Sync>;

#[derive(Default)]
pub(super) struct Seen {
    in_flight: AtomicUsize,
    pub(super) peak: AtomicUsize,
    pub(super) connections: AtomicUsize,
    pub(super) requests: Mutex<Vec<Request<Bytes>>>,
}

pub(super) struct Server {
    pub(super) url: String,
    pub(super) roots: Vec<CertificateDer<'static>>,
    pub(super) seen: Arc<Seen>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// The only request that came.
    pub(super) fn only_request(&self) -> Request<Bytes> {
        let mut requests = self.seen.requests.lock().unwrap();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.pop().unwrap()
    }
}

/// Answers every request in the same way.
pub(super) async fn always(status: u16, headers: &[(&'static str, &'static str)], body: impl Into<Bytes>) -> Server {
    let body: Bytes = body.into();
    let headers = headers.to_vec();
    start(false, move |_| {
        let mut response = Response::builder().status(status);
        for (name, value) in &headers {
            response = response.header(*name, *value);
        }
        response.body(Full::new(body.clone())).unwrap()
    })
    .await
}

pub(super) async fn start(tls: bool, answer: impl Fn(Request<Bytes>) -> Answer + Send + Sync + 'static) -> Server {
    let answer = Arc::new(answer);
    start_async(
        tls,
        Arc::new(move |request| {
            let answer = answer.clone();
            Box::pin(async move { answer(request) })
        }),
    )
    .await
}

pub(super) async fn start_async(tls: bool, handler: Handler) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (url, roots, acceptor) = if tls {
        let (root, acceptor) = certified();
        (format!("https://localhost:{port}"), vec![root], Some(acceptor))
    } else {
        (format!("http://127.0.0.1:{port}"), Vec::new(), None)
    };
    let seen = Arc::new(Seen::default());
    let task = tokio::spawn({
        let seen = seen.clone();
        async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                seen.connections.fetch_add(1, Ordering::Relaxed);
                let (seen, handler, acceptor) = (seen.clone(), handler.clone(), acceptor.clone());
                connections.spawn(async move {
                    match acceptor {
                        None => serve(stream, seen, handler).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(stream, seen, handler).await;
                            }
                        }
                    }
                });
            }
        }
    });
    Server { url, roots, seen, task }
}

async fn serve<S>(stream: S, seen: Arc<Seen>, handler: Handler)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let (seen, handler) = (seen.clone(), handler.clone());
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            seen.requests.lock().unwrap().push(Request::from_parts(head.clone(), body.clone()));
            let now = seen.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
            seen.peak.fetch_max(now, Ordering::SeqCst);
            let answer = handler(Request::from_parts(head, body)).await;
            seen.in_flight.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, Infallible>(answer)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http2().max_concurrent_streams(STREAMS);
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

fn certified() -> (CertificateDer<'static>, tokio_rustls::TlsAcceptor) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let root = made.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![root.clone()], key.into())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    (root, tokio_rustls::TlsAcceptor::from(Arc::new(config)))
}
