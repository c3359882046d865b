//! Answers that come in pieces: how long to wait for the next one, what an end means, and putting them together again.
//!
//! Invariant: a stream yields events and then ends, or yields one fault and then ends. One that ends before its answer
//! has is a fault, and one that fails after output began may have been billed. Dropping a stream closes its connection.

use std::{collections::VecDeque, time::Duration};

use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};

use tokio::time::Instant;

use super::{Call, CallError, RateLimit, Reply};
use crate::{
    clock::format_span,
    job::Fault,
    usage::Usage,
    wire::{
        faults::Classified,
        stream::{Assembly, Event, ended_early},
    },
};

/// An answer that comes in pieces.
pub struct ChatStream {
    /// Its pieces. After a fault nothing follows.
    pub events: BoxStream<'static, Result<Event, CallError>>,
    /// An answer without pieces yet: put together in here, they are the completion.
    pub assembly: Assembly,
    /// The provider's own id of the request.
    pub provider_request_id: Option<String>,
    /// What the provider says of its quota.
    pub rate_limit: RateLimit,
}

/// Where pieces come from: a connection and the decoder of its protocol.
pub(super) trait Source: Send + 'static {
    /// What the next piece holds, which may be nothing; `None` after the last one.
    fn next(&mut self) -> impl Future<Output = Result<Option<Vec<Event>>, Classified>> + Send;
}

/// How long a call waits: to its end, and for the next piece once the first has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    until: Instant,
    whole: Duration,
    idle: Duration,
}

impl Patience {
    pub(super) fn of(call: &Call) -> Self {
        Self { until: Instant::now() + call.timeout, whole: call.timeout, idle: call.idle_timeout }
    }

    /// What is left of the whole.
    pub(super) fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    async fn wait<T>(&self, begun: bool, piece: impl Future<Output = T>) -> Result<T, Classified> {
        let left = self.left();
        // A model may think for long before it says its first word: only the whole bounds that.
        let (wait, silent) = if begun && self.idle < left { (self.idle, true) } else { (left, false) };
        tokio::time::timeout(wait, piece).await.map_err(|_| {
            if silent {
                let message = format!("the stream was silent for {} (`idle_timeout`)", format_span(self.idle));
                Classified::billed(Fault::Unknown, message).with_code("stream_idle")
            } else {
                let message = format!("no complete answer within {}", format_span(self.whole));
                Classified::billed(Fault::Unknown, message).with_code("timeout")
            }
        })
    }
}

struct Running<S, E> {
    /// Gone after the end, and with it the connection.
    source: Option<S>,
    pending: VecDeque<Event>,
    patience: Patience,
    begun: bool,
    said: bool,
    finished: bool,
    shape: E,
}

/// The events of a source. `shape` makes a call's error of a fault.
pub(super) fn events<S, E>(source: S, patience: Patience, shape: E) -> BoxStream<'static, Result<Event, CallError>>
where
    S: Source,
    E: Fn(Classified) -> CallError + Send + 'static,
{
    let running = Running {
        source: Some(source),
        pending: VecDeque::new(),
        patience,
        begun: false,
        said: false,
        finished: false,
        shape,
    };
    stream::unfold(running, |mut running| async move { running.next().await.map(|event| (event, running)) }).boxed()
}

impl<S: Source, E: Fn(Classified) -> CallError> Running<S, E> {
    async fn next(&mut self) -> Option<Result<Event, CallError>> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                self.said |= event.is_output();
                self.finished |= matches!(event, Event::Finish { .. });
                return Some(Ok(event));
            }
            let source = self.source.as_mut()?;
            let fault = match self.patience.wait(self.begun, source.next()).await {
                Ok(Ok(Some(events))) => {
                    self.begun = true;
                    self.pending.extend(events);
                    continue;
                }
                Ok(Ok(None)) if self.finished => {
                    self.source = None;
                    return None;
                }
                Ok(Ok(None)) => ended_early("it never said why it stopped"),
                Ok(Err(fault)) | Err(fault) => fault,
            };
            self.source = None;
            let possibly_billed = fault.possibly_billed || self.said;
            return Some(Err((self.shape)(Classified { possibly_billed, ..fault })));
        }
    }
}

/// What became of a call that was followed to its end.
#[derive(Debug)]
pub struct Gathered {
    /// The whole answer, or the fault that ended it.
    pub outcome: Result<Reply, CallError>,
    /// From the given start to the first piece of output, if any came.
    pub first_token: Option<Duration>,
    /// What the call consumed, as far as it was said, even when it failed.
    pub usage: Option<Usage>,
}

impl Gathered {
    /// A call that was not streamed, or did not come so far.
    pub fn whole(outcome: Result<Reply, CallError>) -> Self {
        let usage = outcome.as_ref().ok().and_then(|reply| reply.usage);
        Self { outcome, first_token: None, usage }
    }
}

impl ChatStream {
    /// Follows the stream to its end and puts the answer together. `began` is what time to the first token counts from.
    pub async fn gather(self, began: Instant) -> Gathered {
        let Self { mut events, mut assembly, provider_request_id, rate_limit } = self;
        let (mut first_token, mut usage) = (None, None);
        let failed = loop {
            match events.next().await {
                None => break None,
                Some(Err(error)) => break Some(error),
                Some(Ok(event)) => {
                    if first_token.is_none() && event.is_output() {
                        first_token = Some(began.elapsed());
                    }
                    if let Event::Usage(counts) = event {
                        usage = Some(counts);
                    }
                    if let Err(fault) = assembly.push(event) {
                        break Some(CallError { rate_limit, ..fault.into() });
                    }
                }
            }
        };
        let outcome = match failed {
            Some(error) => Err(error),
            None => match assembly.finish() {
                Ok(completion) => {
                    Ok(Reply { completion: completion.json, usage: completion.usage, provider_request_id, rate_limit })
                }
                Err(fault) => Err(CallError { rate_limit, ..fault.into() }),
            },
        };
        Gathered { outcome, first_token, usage }
    }
}
