//! A job's life: waiting, cancelling, draining, being taken up again.

use std::time::Duration;

use super::rig::{Act, Rig, spec};
use crate::{
    job::{Fault, HoldReason, Outcome, State},
    store::Store,
};

#[tokio::test(start_paused = true)]
async fn a_job_waits_for_its_time() {
    let rig = Rig::start(&spec("")).await;
    let start = rig.engine.now() + Duration::from_mins(10);
    let job = rig.submit_with(&[], |envelope| envelope.not_before = Some(start)).await;
    assert_eq!(rig.job(job).await.summary.state, State::Waiting);
    let record = rig.until(job, State::Succeeded).await;
    let first = record.attempts[0].started_at;
    assert!(first >= start && first.since(start) < Duration::from_secs(2), "{first} for {start}");
}

#[tokio::test(start_paused = true)]
async fn a_cancel_stops_the_call_and_keeps_its_bill() {
    let rig = Rig::start(&spec("")).await;
    rig.provider.script("bedrock", [Act::Answer(Duration::from_secs(25))]);
    let job = rig.submit(&[]).await;
    rig.until(job, State::Running).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    rig.engine.cancel(vec![job]).await.unwrap();
    assert_eq!(rig.job(job).await.summary.state, State::Cancelled);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let record = rig.job(job).await;
    assert_eq!(record.attempts[0].outcome, Outcome::Interrupted);
    assert!(record.attempts[0].possibly_billed && record.result.is_none());
    assert_eq!(rig.engine.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_drain_lets_calls_finish_and_puts_the_rest_back() {
    let rig = Rig::start(&spec("limits: { concurrency: 2 }\n")).await;
    rig.provider.script("bedrock", [Act::Answer(Duration::from_secs(10)), Act::Answer(Duration::from_secs(25))]);
    let (quick, slow, queued) = (rig.submit(&[]).await, rig.submit(&[]).await, rig.submit(&[]).await);
    rig.until(slow, State::Running).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let store = rig.drain().await;
    let read = async |id| store.job(id).await.unwrap().unwrap();
    assert_eq!(read(quick).await.summary.state, State::Succeeded);
    let slow = read(slow).await;
    assert_eq!((slow.summary.state, slow.attempts[0].fault), (State::Queued, Some(Fault::Interrupted)));
    assert!(!slow.summary.suspect);
    assert_eq!(read(queued).await.summary.state, State::Queued);
}

#[tokio::test(start_paused = true)]
async fn a_rule_may_hold_jobs_that_lack_a_value_until_the_spec_changes() {
    let rule = "{ name: eu, when: job.metadata.region == \"eu\", on_missing: hold, to: openai }\n  - { name: all, to: bedrock }";
    let rig = Rig::start(&spec("").replace("{ name: all, to: bedrock }", rule)).await;
    let lacking = rig.submit(&[]).await;
    let having = rig.submit(&[("region", "eu")]).await;
    assert_eq!(rig.until(lacking, State::Held).await.summary.hold, Some(HoldReason::MissingValue));
    rig.until(having, State::Succeeded).await;
    rig.reload(&spec(""));
    rig.until(lacking, State::Succeeded).await;
    assert_eq!(rig.provider.targets(), ["openai", "bedrock"]);
}

#[tokio::test(start_paused = true)]
async fn concurrency_is_bounded_by_the_spec() {
    let rig = Rig::start(&spec("limits: { concurrency: 5 }\n")).await;
    rig.provider.script("bedrock", (0..50).map(|_| Act::Answer(Duration::from_secs(10))));
    let mut jobs = Vec::new();
    for _ in 0..50 {
        jobs.push(rig.submit(&[]).await);
    }
    let started = rig.engine.now();
    for job in jobs {
        rig.until(job, State::Succeeded).await;
    }
    let took = rig.engine.now().since(started);
    assert!(took >= Duration::from_secs(100) && took < Duration::from_secs(110), "{took:?}");
}
