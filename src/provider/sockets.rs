//! Connections to one provider: HTTP/1.1, one connection a call in flight, kept and used again.
//!
//! Why not HTTP/2: clients keep one HTTP/2 connection a host, servers allow about 100 calls on it at a time, and calls
//! to models last seconds to minutes: the hundred-and-first would wait for the first. A connection a call costs a file
//! descriptor and some 40 KiB, queues behind nobody, and takes no other call down when it breaks.
//!
//! Invariant: no retries, no redirects, and every failure tells whether anything of the request may have left. Knows
//! nothing of what is sent.

use std::{
    error::Error,
    fmt::Write,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use rustls::pki_types::CertificateDer;
use tower::{limit::ConcurrencyLimitLayer, timeout::TimeoutLayer};

use crate::{
    job::Fault,
    wire::faults::{Classified, MAX_MESSAGE},
};

/// Connections that are being made at a time. A wave of calls shakes hands in turns, so that the timeout below measures
/// the network and not this machine's own processors.
const HANDSHAKES: usize = 128;
/// To a connection that can be written to, TLS included, once it is its turn.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Idle connections close before servers and load balancers close them (most do after 60 s): a request on a connection
/// that the other side is just closing would be a call whose end nobody saw.
const IDLE_TIMEOUT: Duration = Duration::from_secs(45);
/// Idle connections kept to one host: enough for a wave of calls to use again, bounded for memory's sake.
const MAX_IDLE: usize = 512;
/// Gateways forget connections that are silent for 350 s, and a call may well be silent for longer.
const KEEPALIVE: Duration = Duration::from_mins(1);
/// Longest answer that is read, in bytes. The longest completions are some hundred thousand tokens.
pub(super) const MAX_ANSWER: usize = 32 * 1024 * 1024;

/// How to reach the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Through {
    /// The proxy that the environment names, if any (`HTTPS_PROXY`, `NO_PROXY`…).
    Environment,
    /// No proxy: for addresses that only this machine can reach.
    Direct,
}

impl Through {
    /// How to reach `host`: this machine's own addresses, those of its cloud's metadata included, are never asked for
    /// through a proxy.
    pub(super) fn to(host: &str) -> Self {
        const EC2_AND_EKS: [&str; 2] = ["fd00:ec2::254", "fd00:ec2::23"];
        let own = match host.trim_start_matches('[').trim_end_matches(']').parse() {
            Ok(IpAddr::V4(address)) => address.is_link_local() || address.is_loopback(),
            Ok(IpAddr::V6(address)) => {
                address.is_loopback() || EC2_AND_EKS.iter().any(|known| known.parse() == Ok(address))
            }
            Err(_) => host == "localhost",
        };
        if own { Self::Direct } else { Self::Environment }
    }
}

/// A pool of connections.
#[derive(Debug, Clone)]
pub(super) struct Sockets {
    client: reqwest::Client,
}

/// An answer whose body has yet to be read.
pub(super) type Answer = http::Response<Limited<reqwest::Body>>;

impl Sockets {
    /// A pool that trusts the machine's certificates and `extra_roots`.
    pub(super) fn open(through: Through, extra_roots: &[CertificateDer<'static>]) -> Result<Self, String> {
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(extra_roots)?)
            .http1_only()
            .connector_layer(TimeoutLayer::new(CONNECT_TIMEOUT))
            .connector_layer(ConcurrencyLimitLayer::new(HANDSHAKES))
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE)
            .tcp_nodelay(true)
            .tcp_keepalive(KEEPALIVE)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false);
        let builder = if through == Through::Direct { builder.no_proxy() } else { builder };
        let client = builder.build().map_err(|error| format!("no HTTP client: {}", chain(&error)))?;
        Ok(Self { client })
    }

    /// Sends a request and waits for the head of the answer. Dropping the future closes the connection.
    pub(super) async fn send(
        &self,
        mut request: reqwest::Request,
        body: Bytes,
        departure: &Departure,
    ) -> Result<Answer, Lost> {
        *request.body_mut() = Some(reqwest::Body::wrap(Marked { bytes: body, departure: departure.clone() }));
        match self.client.execute(request).await {
            Ok(response) => Ok(http::Response::from(response).map(|body| Limited::new(body, MAX_ANSWER))),
            Err(error) => Err(Lost::of(&error, departure)),
        }
    }
}

/// Reads the rest of an answer.
pub(super) async fn read(body: Limited<reqwest::Body>) -> Result<Bytes, Lost> {
    match body.collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) => Err(Lost::reading(error.as_ref())),
    }
}

pub(super) fn tls(extra_roots: &[CertificateDer<'static>]) -> Result<rustls::ClientConfig, String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots.add_parsable_certificates(extra_roots.iter().cloned());
    if roots.is_empty() {
        tracing::warn!(
            "this machine trusts no certificate authority: https will fail; install ca-certificates or set \
             SSL_CERT_FILE"
        );
    }
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("no TLS: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Whether anything of a request may have left. Set when a connection takes the request, before its first byte.
#[derive(Debug, Clone, Default)]
pub(super) struct Departure(Arc<AtomicBool>);

impl Departure {
    pub(super) fn has_left(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// What a call that ran out of time means.
    pub(super) fn timed_out(&self, after: Duration) -> Classified {
        let after = crate::clock::format_span(after);
        if self.has_left() {
            Classified::billed(Fault::Unknown, format!("no complete answer within {after}")).with_code("timeout")
        } else {
            Classified::unbilled(Fault::Transient, format!("no connection within {after}")).with_code("timeout")
        }
    }
}

/// A body that tells when it is taken. A connection takes it only once it writes the request's head.
struct Marked {
    bytes: Bytes,
    departure: Departure,
}

impl Body for Marked {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.departure.0.store(true, Ordering::Release);
        let bytes = std::mem::take(&mut self.bytes);
        Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.len() as u64)
    }
}

/// A call without a complete answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", .0.message)]
pub(super) struct Lost(pub Classified);

impl Lost {
    fn of(error: &reqwest::Error, departure: &Departure) -> Self {
        let words = chain(error);
        let untrusted =
            find::<rustls::Error>(error).is_some_and(|error| matches!(error, rustls::Error::InvalidCertificate(_)));
        Self(if departure.has_left() {
            Classified::billed(Fault::Unknown, format!("the connection was lost during the call: {words}"))
                .with_code("connection_lost")
        } else if untrusted {
            Classified::unbilled(Fault::Misconfigured, format!("the server's certificate is not trusted: {words}"))
                .with_code("certificate_not_trusted")
                .with_advice(
                    "check the provider's address; for a certificate authority of your own, set SSL_CERT_FILE to a file \
                     with it",
                )
        } else {
            Classified::unbilled(Fault::Transient, format!("no connection: {words}")).with_code("connection_failed")
        })
    }

    fn reading(error: &(dyn Error + 'static)) -> Self {
        Self(if find::<LengthLimitError>(error).is_some() {
            let message = format!("the answer is longer than {MAX_ANSWER} bytes, the most that is read");
            Classified::billed(Fault::Refused, message).with_code("answer_too_long")
        } else {
            let message = format!("the connection was lost during the answer: {}", chain(error));
            Classified::billed(Fault::Unknown, message).with_code("connection_lost")
        })
    }

    /// From the error that the SDK made of a failed read.
    pub(super) fn of_read(error: &(dyn Error + 'static)) -> Self {
        Self::reading(error)
    }
}

/// An error and what caused it, in one line.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next.filter(|_| words.len() < MAX_MESSAGE) {
        let text = cause.to_string();
        if !words.ends_with(&text) {
            let _ = write!(words, ": {text}");
        }
        next = cause.source();
    }
    words
}

/// The first error of type `E` in a chain, looking inside I/O errors too.
pub(super) fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    /// Longer chains are loops.
    const LONGEST: usize = 32;
    let mut next = Some(error);
    for _ in 0..LONGEST {
        let here = next?;
        if let Some(found) = here.downcast_ref::<E>() {
            return Some(found);
        }
        next = match here.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => here.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::Through;

    #[test]
    fn a_machines_own_addresses_are_known() {
        for host in [
            "127.0.0.1",
            "localhost",
            "[::1]",
            "169.254.169.254",
            "169.254.170.2",
            "169.254.170.23",
            "[fd00:ec2::254]",
            "[fd00:ec2::23]",
        ] {
            assert_eq!(Through::to(host), Through::Direct, "{host}");
        }
        for host in ["sts.us-east-1.amazonaws.com", "10.0.0.1", "[2001:db8::1]", ""] {
            assert_eq!(Through::to(host), Through::Environment, "{host}");
        }
    }
}
