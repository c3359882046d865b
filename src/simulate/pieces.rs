//! Answers in pieces, at a model's pace, and the ways in which they go wrong.
//!
//! Invariant: a stream whose every piece was taken is written down as answered; one that its fault ended as failed; one
//! whose caller hung up as cancelled.

use std::{collections::VecDeque, time::Duration};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;

use super::{answer::Answer, flight::Flight, journal::Outcome, model::FaultKind, prompt::Prompt, wire_cut::Scissors};

/// The share of a call's time that passes before the first piece: one in so many.
pub(super) const BEFORE_THE_FIRST: u32 = 4;

/// How a stream ends before its time.
enum Ending {
    /// The connection is reset.
    Cut,
    /// Nothing comes any more.
    Stall,
    /// An error of the provider, and an orderly end.
    Error(Bytes),
    /// An orderly end, though the answer has none.
    Short,
}

struct Playing {
    /// Gone once it is written down.
    flight: Option<Flight>,
    left: VecDeque<Bytes>,
    pause: Duration,
    ending: Option<Ending>,
    output_tokens: u64,
    scissors: Scissors,
}

/// Sends an answer in pieces, `over` so long.
pub(super) fn send(
    flight: Flight,
    prompt: &Prompt,
    answer: &Answer,
    kind: Option<FaultKind>,
    over: Duration,
    scissors: Scissors,
) -> Response {
    let (head, pieces) = flight.form.pieces(prompt, answer, &flight.facts());
    let mut pieces = VecDeque::from(pieces);
    let mut over = over;
    let mut keep = |count: u64| pieces.truncate(usize::try_from(count).unwrap_or(usize::MAX).min(pieces.len()));
    let ending = match kind {
        Some(FaultKind::StreamCut { pieces }) => {
            keep(pieces);
            Some(Ending::Cut)
        }
        Some(FaultKind::StreamStall { pieces }) => {
            keep(pieces);
            Some(Ending::Stall)
        }
        Some(FaultKind::StreamError { pieces }) => {
            keep(pieces);
            Some(Ending::Error(flight.form.broken_piece()))
        }
        Some(FaultKind::Reset { after }) => {
            let whole: usize = pieces.iter().map(Bytes::len).sum();
            scissors.cut_after(after.min(whole as u64));
            Some(Ending::Cut)
        }
        Some(FaultKind::BrokenJson) => {
            if let Some(middle) = pieces.len().checked_div(2).and_then(|middle| pieces.get_mut(middle)) {
                middle.truncate(middle.len() / 2);
            }
            pieces.truncate(pieces.len() / 2 + 1);
            Some(Ending::Short)
        }
        Some(FaultKind::SlowDrip { over: longer }) => {
            over = longer;
            None
        }
        _ => None,
    };
    let pause = over / u32::try_from(pieces.len().max(1)).unwrap_or(u32::MAX);
    let output_tokens = answer.output_tokens.saturating_mul(prompt.choices);
    let mut response = flight.stamp(head).into_response();
    let playing = Playing { flight: Some(flight), left: pieces, pause, ending, output_tokens, scissors };
    *response.body_mut() = Body::from_stream(stream::unfold(playing, |mut playing| async move {
        playing.next().await.map(|piece| (piece, playing))
    }));
    response
}

impl Playing {
    async fn next(&mut self) -> Option<Result<Bytes, std::io::Error>> {
        let flight = self.flight.as_ref()?;
        if let Some(piece) = self.left.pop_front() {
            if flight.wait(self.pause).await.is_err() {
                self.flight = None;
                return Some(Err(std::io::Error::other("the simulation is stopping")));
            }
            if self.left.is_empty() && self.ending.is_none() {
                self.write(Outcome::Answered);
            }
            return Some(Ok(piece));
        }
        match self.ending.take()? {
            Ending::Stall => {
                // Until the caller hangs up, or the simulation stops.
                let _stopping = flight.wait(Duration::MAX).await;
                self.flight = None;
                Some(Err(std::io::Error::other("the simulation is stopping")))
            }
            Ending::Cut => {
                // Pieces that are ready together are written together: these must be out before the scissors close.
                tokio::time::sleep(Duration::from_millis(2)).await;
                self.scissors.cut_after(0);
                self.write(Outcome::Failed);
                // Something to write, so that the scissors are met.
                Some(Ok(Bytes::from_static(b"\n")))
            }
            Ending::Error(piece) => {
                self.write(Outcome::Failed);
                Some(Ok(piece))
            }
            Ending::Short => {
                self.write(Outcome::Failed);
                None
            }
        }
    }

    fn write(&mut self, outcome: Outcome) {
        if let Some(flight) = self.flight.take() {
            flight.write(Some(200), outcome, self.output_tokens);
        }
    }
}
