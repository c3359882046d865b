//! Targets that are called by streaming.

use std::time::Duration;

use super::rig::{Act, Piece, Rig, fault, spec, whole_answer};
use crate::{
    job::{Fault, Outcome, State},
    provider::CallError,
    usage::Usage,
    wire::{faults::Classified, stream::Event},
};

fn streaming() -> String {
    spec("").replace("defaults: { max_tokens: 64 }", "stream: true, defaults: { max_tokens: 64 }")
}

fn broken(after: Duration) -> Piece {
    let fault = Classified::billed(Fault::Unknown, "the connection was lost during the answer");
    (after, Err(CallError::from(fault)))
}

#[tokio::test(start_paused = true)]
async fn a_streamed_answer_is_kept_whole_and_its_first_token_timed() {
    let rig = Rig::start(&streaming()).await;
    let job = rig.submit(&[]).await;
    let record = rig.until(job, State::Succeeded).await;
    let result: serde_json::Value = serde_json::from_str(&record.result.unwrap()).unwrap();
    assert_eq!(result["choices"][0]["message"]["content"], "pong");
    assert_eq!(result["object"], "chat.completion");
    assert_eq!(record.attempts[0].usage, Some(Usage { input: 1_000, output: 100, ..Usage::default() }));
    let text = rig.engine.metrics().encode();
    let sum = "landbridge_time_to_first_token_seconds_sum{pipeline=\"triage\",target=\"bedrock\"} 0.3";
    assert!(text.contains(sum), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_dies_is_tried_again_whole_and_both_calls_are_in_the_ledger() {
    let rig = Rig::start(&streaming()).await;
    let known = Usage { input: 1_000, output: 7, ..Usage::default() };
    let mut dies: Vec<Piece> = whole_answer().into_iter().take(1).collect();
    dies.push((Duration::ZERO, Ok(Event::Usage(known))));
    dies.push(broken(Duration::from_secs(1)));
    rig.provider.script("bedrock", [Act::Pieces(dies)]);
    let job = rig.submit(&[]).await;
    let record = rig.until(job, State::Succeeded).await;
    let result: serde_json::Value = serde_json::from_str(&record.result.unwrap()).unwrap();
    assert_eq!(result["choices"][0]["message"]["content"], "pong", "nothing of the first try is in the answer");
    let [first, second] = &record.attempts[..] else { panic!("{:?}", record.attempts) };
    assert_eq!((first.outcome, first.fault), (Outcome::Failed, Some(Fault::Unknown)));
    assert_eq!(first.usage, Some(known), "what it said before it died");
    assert!(first.cost_usd.is_some() && !first.possibly_billed, "known, so no possibility: {first:?}");
    assert_eq!((second.outcome, second.possibly_billed), (Outcome::Succeeded, false));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_never_lives_runs_out_of_attempts() {
    let rig = Rig::start(&streaming()).await;
    let dying = || {
        let mut pieces: Vec<Piece> = whole_answer().into_iter().take(1).collect();
        pieces.push(broken(Duration::ZERO));
        Act::Pieces(pieces)
    };
    rig.provider.script("bedrock", [dying(), fault(Fault::Transient), dying(), dying(), dying()]);
    let job = rig.submit(&[]).await;
    let record = rig.until(job, State::Failed).await;
    assert_eq!(record.error.unwrap().reason_code, "attempts_exhausted");
    let billed: Vec<bool> = record.attempts.iter().map(|attempt| attempt.possibly_billed).collect();
    assert_eq!(billed, [true, false, true]);
}
