//! Connections that can be cut in the middle of an answer, as failing networks cut them.
//!
//! Invariant: a connection that nobody cuts is a plain TCP connection.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};

/// No cut is ordered.
const WHOLE: u64 = u64::MAX;

/// The scissors of one connection.
#[derive(Debug, Clone)]
pub(super) struct Scissors(Arc<AtomicU64>);

impl Scissors {
    /// Lets `bytes` more through, then resets the connection.
    pub fn cut_after(&self, bytes: u64) {
        self.0.store(bytes.min(WHOLE - 1), Ordering::Release);
    }
}

/// A connection with scissors.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    left: Arc<AtomicU64>,
}

impl Wire {
    /// How many of `length` bytes may still go.
    fn allowance(&self, length: usize) -> io::Result<usize> {
        match self.left.load(Ordering::Acquire) {
            WHOLE => Ok(length),
            0 if length > 0 => {
                // The peer is to see a reset, not an orderly end.
                let _ = self.stream.set_zero_linger();
                Err(io::ErrorKind::ConnectionReset.into())
            }
            left => Ok(length.min(usize::try_from(left).unwrap_or(usize::MAX))),
        }
    }

    fn spent(&self, bytes: usize) {
        let left = self.left.load(Ordering::Acquire);
        if left != WHOLE {
            self.left.store(left.saturating_sub(bytes as u64), Ordering::Release);
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let allowed = self.allowance(bytes.len())?;
        let written = Pin::new(&mut self.stream).poll_write(context, bytes.get(..allowed).unwrap_or(bytes));
        if let Poll::Ready(Ok(count)) = written {
            self.spent(count);
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.left.load(Ordering::Acquire) == WHOLE {
            return Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        }
        let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
        self.poll_write(context, first)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Accepts connections with scissors.
#[derive(Debug)]
pub(super) struct WireListener(pub TcpListener);

impl Listener for WireListener {
    type Io = Wire;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Wire, Self::Addr) {
        let (stream, peer) = Listener::accept(&mut self.0).await;
        // Small answers must not wait for an acknowledgement.
        let _ = stream.set_nodelay(true);
        (Wire { stream, left: Arc::new(AtomicU64::new(WHOLE)) }, peer)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

impl Connected<IncomingStream<'_, WireListener>> for Scissors {
    fn connect_info(connection: IncomingStream<'_, WireListener>) -> Self {
        Self(Arc::clone(&connection.io().left))
    }
}
