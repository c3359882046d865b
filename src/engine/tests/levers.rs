//! Flags, rollback and edits while jobs are under way.

use std::time::Duration;

use super::rig::{Act, Rig, fault, spec};
use crate::{
    engine::levers::{Act as Operator, FlagChange, LeverError},
    job::{Fault, HoldReason, State},
    names::{PipelineName, ProviderName},
    spec::Flag,
    store::Store,
};

fn force(provider: &str) -> Flag {
    Flag::Force(ProviderName::new(provider).unwrap())
}

fn set(flag: Flag) -> FlagChange {
    FlagChange { flag, pipeline: None, value: Some(true), clear_after: None }
}

fn operator() -> Operator {
    Operator { actor: "local".to_owned(), reason: Some("test".to_owned()), ..Operator::default() }
}

#[tokio::test(start_paused = true)]
async fn a_kill_switch_takes_jobs_that_wait_between_attempts() {
    let rig = Rig::start(&spec("")).await;
    rig.provider.script("bedrock", [fault(Fault::Transient)]);
    let job = rig.submit(&[]).await;
    rig.until(job, State::Waiting).await;
    let touched = rig.engine.change_flag(set(force("openai")), operator()).await.unwrap();
    assert_eq!(touched.pipelines.len(), 1);
    rig.until(job, State::Succeeded).await;
    assert_eq!(rig.provider.targets(), ["bedrock", "openai"]);
}

#[tokio::test(start_paused = true)]
async fn pause_holds_without_writing_rows_and_held_time_does_not_count() {
    let rig = Rig::start(&spec("deadline: 1h\n")).await;
    rig.engine.change_flag(set(Flag::Pause), operator()).await.unwrap();
    let job = rig.submit(&[]).await;
    tokio::time::sleep(Duration::from_hours(5)).await;
    let record = rig.job(job).await;
    assert_eq!(record.summary.state, State::Queued);
    assert_eq!(rig.engine.hold_of(&record.summary.pipeline), Some(HoldReason::Paused));
    let cleared = FlagChange { value: None, ..set(Flag::Pause) };
    rig.engine.change_flag(cleared, operator()).await.unwrap();
    rig.until(job, State::Succeeded).await;
}

#[tokio::test(start_paused = true)]
async fn without_a_hold_the_deadline_holds() {
    let rig = Rig::start(&spec("deadline: 1h\n")).await;
    rig.provider.script("bedrock", [super::rig::throttled(Duration::from_hours(3))]);
    let job = rig.submit(&[]).await;
    let record = rig.until(job, State::Expired).await;
    assert_eq!(record.attempts.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_flag_clears_itself() {
    let rig = Rig::start(&spec("")).await;
    let change = FlagChange { clear_after: Some(Duration::from_hours(2)), ..set(Flag::Pause) };
    rig.engine.change_flag(change, operator()).await.unwrap();
    let job = rig.submit(&[]).await;
    let record = rig.until(job, State::Succeeded).await;
    let waited = record.summary.finished_at.unwrap().since(record.summary.created_at);
    assert!(
        waited >= Duration::from_hours(2) && waited < Duration::from_hours(2) + Duration::from_secs(5),
        "{waited:?}"
    );
    let audit = rig.store.audit(record.summary.created_at - Duration::from_hours(1), 10).await.unwrap();
    assert_eq!(audit.iter().map(|entry| entry.action.as_str()).collect::<Vec<_>>(), ["flag.set", "flag.clear"]);
}

#[tokio::test(start_paused = true)]
async fn a_second_forced_provider_is_refused() {
    let rig = Rig::start(&spec("")).await;
    rig.engine.change_flag(set(force("openai")), operator()).await.unwrap();
    let error = rig.engine.change_flag(set(force("bedrock")), operator()).await.unwrap_err();
    assert!(matches!(error, LeverError::Conflict(_)), "{error}");
    assert!(error.to_string().contains("FORCE_OPENAI_PROVIDER"), "{error}");
    let job = rig.submit(&[]).await;
    rig.until(job, State::Succeeded).await;
    assert_eq!(rig.provider.targets(), ["openai"]);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_changes_nothing() {
    let rig = Rig::start(&spec("")).await;
    let act = Operator { dry_run: true, ..operator() };
    let touched = rig.engine.change_flag(set(Flag::Pause), act).await.unwrap();
    assert_eq!(touched.pipelines[0].would_hold, Some(HoldReason::Paused));
    let job = rig.submit(&[]).await;
    rig.until(job, State::Succeeded).await;
}

const ROLLOUT: &str =
    "rollouts:\n  to-bedrock: { baseline: openai, candidate: bedrock, percent: 100, key: job.metadata.customer }\n";

fn rolling() -> String {
    spec(ROLLOUT).replace("{ name: all, to: bedrock }", "{ name: all, rollout: to-bedrock }")
}

#[tokio::test(start_paused = true)]
async fn rollback_serves_the_baseline_and_resume_undoes_exactly_that() {
    let rig = Rig::start(&rolling()).await;
    let pipeline = PipelineName::new("triage").unwrap();
    let before = rig.engine.runtime();
    let touched = rig.engine.roll_back(Some(pipeline.clone()), operator()).await.unwrap();
    assert_eq!(touched.pipelines[0].provider, Some(ProviderName::new("openai").unwrap()));
    let job = rig.submit(&[("customer", "c-1")]).await;
    rig.until(job, State::Succeeded).await;
    rig.engine.resume(None, operator()).await.unwrap();
    assert_eq!(rig.engine.runtime().flags, before.flags);
    let job = rig.submit(&[("customer", "c-1")]).await;
    rig.until(job, State::Succeeded).await;
    assert_eq!(rig.provider.targets(), ["openai", "bedrock"]);
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_takes_calls_back_and_bills_them_as_possible() {
    let rig = Rig::start(&spec("")).await;
    rig.provider.script("bedrock", [Act::Answer(Duration::from_secs(25))]);
    let job = rig.submit(&[]).await;
    rig.until(job, State::Running).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let act = Operator { interrupt: true, ..operator() };
    let touched = rig.engine.change_flag(set(force("openai")), act).await.unwrap();
    assert_eq!(touched.interrupted, 1);
    let record = rig.until(job, State::Succeeded).await;
    assert_eq!(rig.provider.targets(), ["bedrock", "openai"]);
    assert_eq!(record.attempts[0].fault, Some(Fault::Interrupted));
    assert!(record.attempts[0].possibly_billed);
}

#[tokio::test(start_paused = true)]
async fn an_edit_reroutes_jobs_that_wait() {
    let rig = Rig::start(&spec("")).await;
    rig.provider.script("bedrock", [fault(Fault::Transient)]);
    let job = rig.submit(&[]).await;
    rig.until(job, State::Waiting).await;
    rig.reload(&spec("").replace("to: bedrock", "to: openai"));
    rig.until(job, State::Succeeded).await;
    assert_eq!(rig.provider.targets(), ["bedrock", "openai"]);
}

#[tokio::test(start_paused = true)]
async fn a_spent_budget_holds_until_the_next_day() {
    let rig = Rig::start(&spec("budget: { usd_per_day: 0.0001 }\n")).await;
    let first = rig.submit(&[]).await;
    rig.until(first, State::Succeeded).await;
    let second = rig.submit(&[]).await;
    tokio::time::sleep(Duration::from_hours(1)).await;
    let record = rig.job(second).await;
    assert_eq!(rig.engine.hold_of(&record.summary.pipeline), Some(HoldReason::Budget));
    let record = rig.until(second, State::Succeeded).await;
    assert_eq!(record.summary.finished_at.unwrap().date().to_string(), "2026-11-23");
}
