//! Requests whose callers wait.

use std::time::Duration;

use super::{
    quotas::quota,
    rig::{Act, Rig, fault, spec, throttled, whole_answer},
};
use crate::{
    engine::live::{LiveCall, LiveEnd, LiveFault, Said},
    job::{Fault, HoldReason, Outcome, State},
    wire::stream::{Delta, Event},
};

const PATIENCE: Duration = Duration::from_mins(1);

async fn end(mut call: LiveCall) -> LiveEnd {
    loop {
        match call.next().await {
            Some(Said::Ended(end)) => return *end,
            Some(_) => {}
            None => panic!("the call ended without an end"),
        }
    }
}

async fn fault_of(call: LiveCall) -> (LiveFault, LiveEnd) {
    let end = end(call).await;
    (end.outcome.as_ref().unwrap_err().fault, end)
}

#[tokio::test(start_paused = true)]
async fn an_answer_comes_from_the_routed_target_and_is_on_record() {
    let rig = Rig::start(&spec("")).await;
    let end = end(rig.live(PATIENCE)).await;
    assert!(end.outcome.unwrap().contains("bedrock"));
    assert_eq!((end.head.target.unwrap().as_str(), end.head.attempts), ("bedrock", 1));
    let record = rig.until(end.head.job, State::Succeeded).await;
    assert_eq!((record.attempts.len(), record.attempts[0].outcome), (1, Outcome::Succeeded));
    assert!(record.result.is_some() && record.body.is_some() && record.summary.generation > 0);
    rig.drain().await;
}

#[tokio::test(start_paused = true)]
async fn faults_are_retried_and_fallen_back_from_within_the_deadline() {
    let rig = Rig::start(&spec("fallback: [openai]\n")).await;
    rig.provider.script("bedrock", [fault(Fault::Transient), fault(Fault::Unavailable)]);
    let ended = end(rig.live(PATIENCE)).await;
    assert!(ended.outcome.unwrap().contains("openai"));
    assert_eq!((ended.head.attempts, rig.provider.targets().len()), (3, 3));
    assert_eq!(rig.until(ended.head.job, State::Succeeded).await.attempts.len(), 3);
    rig.drain().await;
}

#[tokio::test(start_paused = true)]
async fn failures_tell_their_kind() {
    for (script, expected, message) in [
        (vec![fault(Fault::Refused)], LiveFault::Refused, "a scripted refused"),
        (vec![fault(Fault::TooLong)], LiveFault::TooLong, "a scripted too_long"),
        (vec![fault(Fault::Transient); 3], LiveFault::Failed, "gave up after 3 attempts"),
    ] {
        let rig = Rig::start(&spec("")).await;
        rig.provider.script("bedrock", script);
        let (fault, end) = fault_of(rig.live(PATIENCE)).await;
        let error = end.outcome.unwrap_err().error;
        assert!(fault == expected && error.message.contains(message), "{fault:?} {error:?}");
        assert_eq!(rig.until(end.head.job, State::Failed).await.error, Some(error));
        rig.drain().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_throttle_beyond_the_deadline_is_said_at_once() {
    let rig = Rig::start(&spec("")).await;
    rig.provider.script("bedrock", [throttled(Duration::from_mins(5))]);
    let asked = rig.engine.now();
    let (fault, end) = fault_of(rig.live(PATIENCE)).await;
    let LiveFault::Throttled(until) = fault else { panic!("{fault:?}") };
    assert!(asked.until(until) >= Duration::from_mins(4) && rig.engine.now().since(asked) < PATIENCE);
    rig.until(end.head.job, State::Failed).await;
    rig.drain().await;
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_a_call() {
    let rig = Rig::start(&spec("")).await;
    rig.provider.script("bedrock", [Act::Answer(Duration::from_hours(1))]);
    let asked = rig.engine.now();
    let (fault, end) = fault_of(rig.live(Duration::from_secs(5))).await;
    assert_eq!(fault, LiveFault::Late);
    assert!(rig.engine.now().since(asked) <= Duration::from_secs(6));
    let record = rig.until(end.head.job, State::Expired).await;
    assert!(record.attempts[0].possibly_billed);
    rig.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_hangs_up_cancels_the_call() {
    let rig = Rig::start(&spec("")).await;
    rig.provider.script("bedrock", [Act::Answer(Duration::from_hours(1))]);
    let call = rig.live(PATIENCE);
    while rig.provider.targets().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let job = rig.provider.jobs()[0];
    drop(call);
    let record = rig.until(job, State::Cancelled).await;
    while rig.engine.in_flight() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(rig.job(job).await.attempts[0].outcome, Outcome::Interrupted, "{record:?}");
    rig.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_held_pipeline_says_so_and_leaves_no_record() {
    let rig = Rig::start(&spec("flags: { PAUSE: true }\n")).await;
    let (fault, end) = fault_of(rig.live(PATIENCE)).await;
    assert_eq!((fault, end.head.attempts), (LiveFault::Held(HoldReason::Paused), 0));
    assert!(rig.store_job(end.head.job).await.is_none());
    rig.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_live_request_goes_before_what_is_queued() {
    let rig = Rig::start(&spec("limits: { concurrency: 1 }\n")).await;
    rig.provider.script("bedrock", vec![Act::Answer(Duration::from_secs(2)); 4]);
    let mut queued = Vec::new();
    for _ in 0..3 {
        queued.push(rig.submit(&[]).await);
    }
    while rig.provider.targets().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let end = end(rig.live(PATIENCE)).await;
    assert!(end.outcome.is_ok());
    let place = rig.provider.jobs().iter().position(|job| *job == end.head.job);
    assert!(place.is_some_and(|place| place <= 2), "{place:?}");
    for job in queued {
        rig.until(job, State::Succeeded).await;
    }
    rig.drain().await;
}

#[tokio::test(start_paused = true)]
async fn under_a_quota_callers_who_wait_go_first_and_the_queue_goes_on() {
    let rig = Rig::start(&spec("")).await;
    rig.quotas(&[quota(600)]);
    let queued = {
        let mut queued = Vec::new();
        for _ in 0..200 {
            queued.push(rig.submit(&[]).await);
        }
        queued
    };
    while rig.provider.targets().len() < 20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Ten a second go, and eighteen seconds of them are in line: who waits does not stand behind them.
    let started = rig.engine.now();
    assert!(end(rig.live(PATIENCE)).await.outcome.is_ok());
    let alone = rig.engine.now().since(started);
    assert!(alone < Duration::from_secs(2), "a caller waited {alone:?} behind the queue");
    let calls: Vec<_> = (0..40).map(|_| rig.live(PATIENCE)).collect();
    let before = rig.provider.targets().len();
    for call in calls {
        assert!(end(call).await.outcome.is_ok());
    }
    // One turn in ten is the queue's, however many callers wait.
    let between = rig.provider.targets().len() - before - 40;
    assert!((2..=12).contains(&between), "{between} queued jobs went while 40 callers waited");
    for job in queued {
        rig.until(job, State::Succeeded).await;
    }
    rig.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_runs_out_interrupts_and_says_so() {
    let rig = Rig::start(&spec("")).await;
    rig.provider.script("bedrock", [Act::Answer(Duration::from_hours(1))]);
    let call = rig.live(Duration::from_hours(1));
    while rig.provider.targets().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let ended = tokio::spawn(fault_of(call));
    rig.drain().await;
    let (fault, _) = ended.await.unwrap();
    assert_eq!(fault, LiveFault::Interrupted);
}

/// What a caller hears of a stream: `begun by TARGET`, texts, and how it ended.
async fn heard(mut call: LiveCall) -> (Vec<String>, LiveEnd) {
    let mut heard = Vec::new();
    loop {
        match call.next().await.expect("an end") {
            Said::Begun(head) => heard.push(format!("begun by {} at attempt {}", head.target.unwrap(), head.attempts)),
            Said::Event(Event::Delta { delta: Delta::Text(text), .. }) => heard.push(text),
            Said::Event(_) => {}
            Said::Ended(end) => return (heard, *end),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_falls_back_until_the_model_speaks() {
    let rig = Rig::start(&spec("fallback: [openai]\n")).await;
    let Act::Fail(broken) = fault(Fault::Unavailable) else { panic!() };
    // A role, and then nothing: that commits to no target.
    let role = Event::Field { name: "system_fingerprint".to_owned(), value: serde_json::json!("fp") };
    rig.provider.script("bedrock", [Act::Pieces(vec![(Duration::ZERO, Ok(role)), (Duration::ZERO, Err(broken))])]);
    let (heard, end) = heard(rig.live_stream()).await;
    assert_eq!(heard, ["begun by openai at attempt 2", "po", "ng"]);
    assert!(end.outcome.unwrap().contains("pong"));
    let record = rig.until(end.head.job, State::Succeeded).await;
    assert!(record.result.unwrap().contains("pong") && record.attempts.len() == 2);
    rig.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_dies_after_the_first_word_ends_with_an_error() {
    let rig = Rig::start(&spec("fallback: [openai]\n")).await;
    let Act::Fail(broken) = fault(Fault::Unknown) else { panic!() };
    let mut pieces = whole_answer();
    pieces.truncate(1);
    pieces.push((Duration::ZERO, Err(broken)));
    rig.provider.script("bedrock", [Act::Pieces(pieces)]);
    let (heard, end) = heard(rig.live_stream()).await;
    assert_eq!(heard, ["begun by bedrock at attempt 1", "po"]);
    let failure = end.outcome.unwrap_err();
    assert_eq!((failure.fault, failure.error.reason_code.as_str()), (LiveFault::Failed, "stream_broken"));
    let record = rig.until(end.head.job, State::Failed).await;
    assert!(record.attempts[0].possibly_billed && record.attempts.len() == 1);
    rig.drain().await;
}

/// Callers never stop coming; still the queue has its turns, one in ten.
#[tokio::test(start_paused = true)]
async fn callers_go_first_in_a_quota_and_the_queue_does_not_starve() {
    let rig = Rig::start(&spec("")).await;
    rig.quotas(&[super::quotas::quota(600)]);
    let mut queued = Vec::new();
    for _ in 0..100 {
        queued.push(rig.submit(&[]).await);
    }
    while rig.provider.targets().len() < 12 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let before = rig.provider.jobs().len();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..40 {
        callers.spawn(end(rig.live(PATIENCE)));
    }
    let mut live = Vec::new();
    while let Some(end) = callers.join_next().await {
        let end = end.unwrap();
        assert!(end.outcome.is_ok());
        live.push(end.head.job);
    }
    let order = rig.provider.jobs();
    let of_queue = |span: &[crate::ids::JobId]| span.iter().filter(|job| !live.contains(job)).count();
    let last = order.iter().rposition(|job| live.contains(job)).unwrap();
    let between = of_queue(&order[before..=last]);
    assert!((4..=6).contains(&between), "{between} of the queue among 40 callers");
    for job in queued {
        rig.until(job, State::Succeeded).await;
    }
    rig.drain().await;
}
