//! Listening: connections, their number, their patience, and TLS.
//!
//! Invariant: a connection that says nothing costs a place for a minute and no more, and for seconds when few are left; what
//! is more than the places waits outside. Requests under way finish when the daemon stops.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::tls::Tls;

/// To send a request's head, or to be idle between requests.
const HEAD_TIMEOUT: Duration = Duration::from_mins(1);
/// The same for a connection that came when only a quarter of the places was left, so that a crowd that says nothing does
/// not keep everybody else outside.
const CROWDED_HEAD_TIMEOUT: Duration = Duration::from_secs(3);
/// To agree on TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer on HTTP/2 is asked this often whether it is there.
const ASK_PEER: Duration = Duration::from_secs(20);
/// When the system has no more open files, this long passes before the next try.
const BREATHE: Duration = Duration::from_millis(200);

/// How a listener serves.
#[derive(Clone)]
pub struct Serving {
    /// Connections at once.
    pub connections: usize,
    /// What it shows; plain HTTP without.
    pub tls: Option<Arc<Tls>>,
}

/// Serves until `stop`; then lets requests under way finish.
///
/// # Errors
/// The listener's own, which end the daemon.
pub async fn serve(listener: TcpListener, router: Router, serving: Serving, stop: CancellationToken) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(serving.connections));
    let graceful = GracefulShutdown::new();
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => break,
            place = places.clone().acquire_owned() => place.map_err(io::Error::other)?,
        };
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) if is_the_peers(&error) => continue,
                Err(error) => {
                    tracing::error!(%error, "a connection could not be taken; is the limit of open files too low?");
                    tokio::time::sleep(BREATHE).await;
                    continue;
                }
            },
        };
        // Small answers go at once; where that cannot be had they are only later.
        let _set = stream.set_nodelay(true);
        let crowded = places.available_permits() < serving.connections / 4;
        let patience = if crowded { CROWDED_HEAD_TIMEOUT } else { HEAD_TIMEOUT };
        let (router, tls, watcher) = (router.clone(), serving.tls.clone(), graceful.watcher());
        tokio::spawn(async move {
            match tls {
                None => talk(stream, router, watcher, patience).await,
                Some(tls) => {
                    if let Some(stream) = agree(stream, &tls).await {
                        talk(stream, router, watcher, patience).await;
                    }
                }
            }
            drop(place);
        });
    }
    drop(listener);
    graceful.shutdown().await;
    Ok(())
}

fn is_the_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

async fn agree(stream: TcpStream, tls: &Tls) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    let agreed = tokio::time::timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(tls.server()).accept(stream)).await;
    match agreed {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%error, "no TLS came about");
            None
        }
        Err(_) => None,
    }
}

async fn talk<S>(stream: S, router: Router, watcher: hyper_util::server::graceful::Watcher, patience: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(patience);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(ASK_PEER);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(error, "a connection ended badly");
    }
}
