//! Bodies that come too slowly.
//!
//! Invariant: a body has a minute to begin with, and for every byte that came the time that a slow line needs for it. A
//! client that sends a byte now and then holds a connection for that minute and no longer.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::Request,
    middleware::Next,
    response::Response,
};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

/// What every body has.
const GRACE: Duration = Duration::from_mins(1);
/// The slowest line that is served: 16 KiB a second.
const BYTES_A_SECOND: u64 = 16 * 1024;

/// Why a body was given up.
#[derive(Debug, thiserror::Error)]
#[error("it came too slowly: send at least {} KiB a second", BYTES_A_SECOND >> 10)]
struct TooSlow;

struct Paced {
    inner: Body,
    began: Instant,
    received: u64,
    over: Pin<Box<Sleep>>,
}

/// Puts every body under the clock.
pub(super) async fn keep_pace(request: Request, next: Next) -> Response {
    let request = request.map(|inner| {
        if inner.is_end_stream() {
            return inner;
        }
        let began = Instant::now();
        Body::new(Paced { inner, began, received: 0, over: Box::pin(tokio::time::sleep_until(began + GRACE)) })
    });
    next.run(request).await
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) {
            if let Some(Ok(frame)) = &frame
                && let Some(data) = frame.data_ref()
            {
                self.received += data.len() as u64;
                let end = self.began + GRACE + Duration::from_secs(self.received / BYTES_A_SECOND);
                self.over.as_mut().reset(end);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        match self.over.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Some(Err(TooSlow.into()))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt as _, stream};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_trickle_ends_and_a_slow_line_does_not() {
        for (chunk, every, chunks, whole) in [(1, 10, 20, false), (64 * 1024, 3, 400, true), (1, 1, 50, true)] {
            let pieces = stream::iter(0..chunks).then(move |_| async move {
                tokio::time::sleep(Duration::from_secs(every)).await;
                Ok::<_, std::io::Error>(Bytes::from(vec![0; chunk]))
            });
            let began = Instant::now();
            let over = Box::pin(tokio::time::sleep_until(began + GRACE));
            let body = Body::new(Paced { inner: Body::from_stream(pieces), began, received: 0, over });
            let read = axum::body::to_bytes(body, usize::MAX).await;
            assert_eq!(read.is_ok(), whole, "{chunk} bytes every {every} s");
            assert!(whole || began.elapsed() <= GRACE + Duration::from_secs(1));
        }
    }
}
