//! The table of faults, row by row: what burns an attempt, and what comes next.

use std::time::Duration;

use super::rig::{Rig, fault, spec, throttled};
use crate::job::{Fault, HoldReason, Outcome, State};

const CHAIN: &str = "fallback: [openai]\n";

#[tokio::test(start_paused = true)]
async fn a_transient_fault_burns_attempts_at_its_target_and_then_the_next_one_serves() {
    let rig = Rig::start(&spec(CHAIN)).await;
    rig.provider.script("bedrock", [fault(Fault::Transient), fault(Fault::Transient), fault(Fault::Transient)]);
    let job = rig.submit(&[]).await;
    let record = rig.until(job, State::Succeeded).await;
    assert_eq!(rig.provider.targets(), ["bedrock", "bedrock", "bedrock", "openai"]);
    assert_eq!(record.attempts.len(), 4);
    assert!(record.attempts[..3].iter().all(|attempt| attempt.fault == Some(Fault::Transient)));
    assert!(record.result.unwrap().contains("openai"));
}

#[tokio::test(start_paused = true)]
async fn attempts_run_out_when_every_target_failed() {
    let rig = Rig::start(&spec("")).await;
    rig.provider.script("bedrock", (0..9).map(|_| fault(Fault::Transient)));
    let job = rig.submit(&[]).await;
    let record = rig.until(job, State::Failed).await;
    assert_eq!(rig.provider.targets().len(), 3);
    let error = record.error.unwrap();
    assert_eq!(error.reason_code, "attempts_exhausted");
    assert!(error.message.contains("a scripted transient"), "{}", error.message);
}

#[tokio::test(start_paused = true)]
async fn an_unavailable_target_is_left_at_once() {
    let rig = Rig::start(&spec(CHAIN)).await;
    rig.provider.script("bedrock", [fault(Fault::Unavailable)]);
    let job = rig.submit(&[]).await;
    rig.until(job, State::Succeeded).await;
    assert_eq!(rig.provider.targets(), ["bedrock", "openai"]);
    let times = rig.provider.times();
    assert!(times[1].since(times[0]) < Duration::from_millis(100), "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn a_throttle_burns_nothing_and_waits_as_long_as_it_is_told() {
    let rig = Rig::start(&spec(CHAIN)).await;
    rig.provider.script("bedrock", (0..5).map(|_| throttled(Duration::from_secs(7))));
    let job = rig.submit(&[]).await;
    let record = rig.until(job, State::Succeeded).await;
    assert_eq!(rig.provider.targets(), ["bedrock"; 6]);
    let times = rig.provider.times();
    assert!(times.windows(2).all(|pair| pair[1].since(pair[0]) >= Duration::from_secs(7)), "{times:?}");
    assert_eq!(record.attempts.len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_prompt_that_does_not_fit_goes_to_a_larger_window_or_fails() {
    let larger = Rig::start(&spec(CHAIN)).await;
    larger.provider.script("bedrock", [fault(Fault::TooLong)]);
    let job = larger.submit(&[]).await;
    larger.until(job, State::Succeeded).await;
    assert_eq!(larger.provider.targets(), ["bedrock", "openai"]);

    let none = Rig::start(&spec("")).await;
    none.provider.script("bedrock", [fault(Fault::TooLong)]);
    let job = none.submit(&[]).await;
    assert_eq!(none.until(job, State::Failed).await.error.unwrap().reason_code, "too_long");
}

#[tokio::test(start_paused = true)]
async fn a_misconfigured_target_is_parked_and_the_next_one_serves_everybody() {
    let rig = Rig::start(&spec(CHAIN)).await;
    rig.provider.script("bedrock", [fault(Fault::Misconfigured)]);
    let first = rig.submit(&[]).await;
    rig.until(first, State::Succeeded).await;
    let second = rig.submit(&[]).await;
    rig.until(second, State::Succeeded).await;
    assert_eq!(rig.provider.targets(), ["bedrock", "openai", "openai"]);
}

#[tokio::test(start_paused = true)]
async fn with_every_target_parked_jobs_are_held_until_one_is_mended() {
    let rig = Rig::start(&spec("")).await;
    rig.provider.script("bedrock", [fault(Fault::Misconfigured)]);
    let job = rig.submit(&[]).await;
    let record = rig.until(job, State::Held).await;
    assert_eq!(record.summary.hold, Some(HoldReason::TargetsParked));
    // The provider answers again: a probe finds out by itself.
    let record = rig.until(job, State::Succeeded).await;
    let waited = record.summary.finished_at.unwrap().since(record.summary.created_at);
    assert!(waited >= Duration::from_mins(1) && waited < Duration::from_secs(90), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_job_fails_with_the_providers_words() {
    let rig = Rig::start(&spec(CHAIN)).await;
    rig.provider.script("bedrock", [fault(Fault::Refused)]);
    let job = rig.submit(&[]).await;
    let error = rig.until(job, State::Failed).await.error.unwrap();
    assert_eq!((error.reason_code.as_str(), error.message.as_str()), ("refused", "a scripted refused"));
    assert_eq!(rig.provider.targets(), ["bedrock"]);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_end_burns_an_attempt_and_is_listed_as_possibly_billed() {
    let rig = Rig::start(&spec("")).await;
    rig.provider.script("bedrock", [fault(Fault::Unknown)]);
    let job = rig.submit(&[]).await;
    let record = rig.until(job, State::Succeeded).await;
    assert_eq!(record.attempts.len(), 2);
    assert!(record.attempts[0].possibly_billed && !record.attempts[1].possibly_billed);
}

#[tokio::test(start_paused = true)]
async fn a_panic_fails_the_job_and_nothing_else() {
    let rig = Rig::start(&spec("")).await;
    rig.provider.script("bedrock", [super::rig::Act::Panic]);
    let first = rig.submit(&[]).await;
    assert_eq!(rig.until(first, State::Failed).await.error.unwrap().reason_code, "crashed_worker");
    let second = rig.submit(&[]).await;
    let record = rig.until(second, State::Succeeded).await;
    assert_eq!(record.attempts[0].outcome, Outcome::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_breaker_sends_the_next_jobs_elsewhere_and_closes_again() {
    let rig = Rig::start(&spec(CHAIN)).await;
    rig.provider.script("bedrock", (0..40).map(|_| fault(Fault::Unavailable)));
    for _ in 0..40 {
        let job = rig.submit(&[]).await;
        rig.until(job, State::Succeeded).await;
    }
    let spared = rig.provider.targets().iter().filter(|target| *target == "bedrock").count();
    assert!(spared < 40, "the breaker never opened");
    tokio::time::sleep(Duration::from_mins(30)).await;
    rig.provider.script("bedrock", []);
    for _ in 0..60 {
        let job = rig.submit(&[]).await;
        rig.until(job, State::Succeeded).await;
        tokio::time::sleep(Duration::from_mins(5)).await;
    }
    assert_eq!(rig.provider.targets().last().map(String::as_str), Some("bedrock"));
}
