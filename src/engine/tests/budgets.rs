//! Budgets: reserved before a call, settled after it, held or thrifty at the limit, and never a reason to fail.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use serde_json::json;

use super::rig::{Act, Rig, fault, spec};
use crate::{
    access::{Caller, Key, KeyLimits},
    clock::{SharedClock, Timestamp, TokioClock},
    engine::live::{LiveFault, Said},
    ids::JobId,
    job::{Envelope, Fault, HoldReason, State},
    money::Usd,
    names::PipelineName,
    store::Store,
};

/// What a scripted answer costs at `bedrock`: 1,000 tokens in, 100 out.
const BILL: &str = "0.00165";

fn usd(text: &str) -> Usd {
    text.parse().unwrap()
}

fn pipeline() -> PipelineName {
    PipelineName::new("triage").unwrap()
}

/// Calls that may cost more than they do, so that much is reserved.
fn dear(extra: &str) -> String {
    spec(extra).replace("max_tokens: 64", "max_tokens: 2000")
}

async fn submit(rig: &Rig, count: usize) -> Vec<JobId> {
    let mut jobs = Vec::new();
    for _ in 0..count {
        jobs.push(rig.submit(&[]).await);
    }
    jobs
}

fn key(name: &str, limits: KeyLimits) -> Key {
    Key {
        id: format!("key_{name}"),
        name: name.to_owned(),
        scopes: BTreeSet::new(),
        pipelines: BTreeSet::new(),
        limits,
        created_at: None,
        expires_at: None,
        revoked_at: None,
    }
}

async fn submit_as(rig: &Rig, key: &Key, count: usize) -> Vec<JobId> {
    let caller = Caller::holding(Arc::new(key.clone()));
    let body = json!({ "pipeline": "triage", "body": { "messages": [{ "role": "user", "content": "hi" }] } });
    let envelopes = vec![Envelope::from_value(body).unwrap(); count];
    rig.engine.submit(&caller, envelopes).await.into_iter().map(|taken| taken.unwrap().id).collect()
}

async fn states(rig: &Rig, jobs: &[JobId], state: State) -> usize {
    let mut count = 0;
    for job in jobs {
        count += usize::from(rig.job(*job).await.summary.state == state);
    }
    count
}

#[tokio::test(start_paused = true)]
async fn a_scripted_answer_costs_what_these_tests_count_with() {
    let rig = Rig::start(&spec("")).await;
    let job = rig.submit(&[]).await;
    let record = rig.until(job, State::Succeeded).await;
    assert_eq!(record.attempts[0].cost_usd, Some(usd(BILL)));
    assert_eq!(rig.engine.spent(&pipeline()), (usd(BILL), usd(BILL)));
}

#[tokio::test(start_paused = true)]
async fn what_calls_in_flight_may_cost_is_kept_free() {
    // The most that a call may cost is 2,000 tokens of output: a little over 0.011.
    let rig = Rig::start(&dear("budget: { usd_per_day: 0.05 }\n")).await;
    rig.provider.script("bedrock", vec![Act::Answer(Duration::from_secs(2)); 200]);
    let jobs = submit(&rig, 60).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(rig.provider.targets().len(), 4, "four may cost 0.044, a fifth does not fit");
    let story = rig.engine.story(&rig.job(jobs[30]).await).join("\n");
    assert!(story.contains("calls in flight may cost"), "{story}");
    tokio::time::sleep(Duration::from_hours(1)).await;
    let (spent, _) = rig.engine.spent(&pipeline());
    assert!(spent >= usd("0.05") && spent <= usd("0.05") + usd(BILL), "{spent}");
    assert_eq!(states(&rig, &jobs, State::Succeeded).await, 31);
    assert_eq!(states(&rig, &jobs, State::Failed).await, 0);
    assert_eq!(rig.engine.hold_of(&pipeline()), Some(HoldReason::Budget));
    let words = rig.engine.budget_in_words(&pipeline(), "", Usd::ZERO).unwrap();
    assert!(words.contains("has spent 0.05115 of its 0.05 US dollars for this day (UTC)"), "{words}");
    assert!(words.contains("opens again at 2026-11-23T00:00:00"), "{words}");
    rig.until(jobs[59], State::Succeeded).await;
    assert_eq!(rig.engine.now().date().to_string(), "2026-11-23");
}

#[tokio::test(start_paused = true)]
async fn a_month_is_held_until_the_next_and_a_larger_budget_opens_at_once() {
    let rig = Rig::start(&dear("deadline: 30d\nbudget: { usd_per_month: 0.003 }\n")).await;
    let jobs = submit(&rig, 20).await;
    tokio::time::sleep(Duration::from_hours(15)).await;
    assert_eq!(states(&rig, &jobs, State::Succeeded).await, 2);
    let words = rig.engine.budget_in_words(&pipeline(), "", Usd::ZERO).unwrap();
    assert!(words.contains("this month") && words.contains("2026-12-01T00:00:00"), "{words}");
    rig.reload(&dear("deadline: 30d\nbudget: { usd_per_month: 0.0099 }\n"));
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(states(&rig, &jobs, State::Succeeded).await, 6);
    rig.reload(&dear("deadline: 30d\n"));
    rig.until(jobs[19], State::Succeeded).await;
}

#[tokio::test(start_paused = true)]
async fn at_the_limit_jobs_may_go_on_to_the_cheapest_target() {
    let rules = "{ name: eu, when: job.metadata.stay == \"yes\", confine: { providers: [bedrock] }, to: bedrock }\n  - { name: all, to: bedrock }";
    let text =
        dear("budget: { usd_per_day: 0.004, at_limit: cheapest }\n").replace("{ name: all, to: bedrock }", rules);
    let rig = Rig::start(&text).await;
    let mut jobs = Vec::new();
    for _ in 0..3 {
        let job = rig.submit(&[]).await;
        rig.until(job, State::Succeeded).await;
    }
    assert_eq!(rig.provider.targets(), ["bedrock"; 3]);
    for _ in 0..3 {
        jobs.push(rig.submit(&[]).await);
    }
    let staying = rig.submit(&[("stay", "yes")]).await;
    for job in &jobs {
        let record = rig.until(*job, State::Succeeded).await;
        assert_eq!(record.attempts[0].target.as_str(), "openai");
        let story = rig.engine.story(&record).join("\n");
        assert!(story.contains("budget is spent, so the cheapest target"), "{story}");
    }
    let record = rig.until(staying, State::Succeeded).await;
    assert_eq!(record.attempts[0].target.as_str(), "bedrock", "confined, whatever it costs");
    assert_eq!(rig.engine.hold_of(&pipeline()), None);
}

#[tokio::test(start_paused = true)]
async fn a_key_without_money_holds_its_own_jobs_and_nobody_elses() {
    let rig = Rig::start(&dear("")).await;
    let poor = key("poor", KeyLimits { usd_per_day: Some(usd("0.004")), ..KeyLimits::default() });
    let rich = key("rich", KeyLimits::default());
    rig.engine.follow_keys([&poor, &rich].into_iter());
    let held = submit_as(&rig, &poor, 600).await;
    let others = submit_as(&rig, &rich, 50).await;
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(states(&rig, &held, State::Succeeded).await, 3);
    assert_eq!(states(&rig, &held, State::Held).await, 597);
    assert_eq!(states(&rig, &others, State::Succeeded).await, 50);
    let record = rig.job(held[300]).await;
    assert_eq!(record.summary.hold, Some(HoldReason::Budget));
    let story = rig.engine.story(&record).join("\n");
    assert!(story.contains("key \"poor\" has spent 0.00495 of its 0.004 US dollars for this day (UTC)"), "{story}");
    // Somebody who waits is told instead.
    let caller = Caller::holding(Arc::new(poor.clone()));
    let body = json!({ "pipeline": "triage", "body": { "messages": [{ "role": "user", "content": "hi" }] } });
    let envelope = Envelope::from_value(body).unwrap();
    let mut live = rig.engine.live(&caller, envelope, Duration::from_mins(1), false).unwrap();
    let Some(Said::Ended(end)) = live.next().await else { panic!("no end") };
    let failure = end.outcome.unwrap_err();
    assert_eq!(failure.fault, LiveFault::Held(HoldReason::Budget));
    assert!(failure.error.message.contains("key \"poor\" has spent"), "{:?}", failure.error);
    // A raised limit opens at once, as far as it reaches.
    let less_poor = key("poor", KeyLimits { usd_per_day: Some(usd("0.02")), ..KeyLimits::default() });
    rig.engine.follow_keys([&less_poor, &rich].into_iter());
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(states(&rig, &held, State::Succeeded).await, 13);
    rig.engine.follow_keys([&rich].into_iter());
    rig.until(held[599], State::Succeeded).await;
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_budget_is_reserved_keeps_no_places_from_others() {
    let rig = Rig::start(&dear("")).await;
    rig.provider.script("bedrock", vec![Act::Answer(Duration::from_secs(5)); 2_000]);
    let poor = key("poor", KeyLimits { usd_per_day: Some(usd("0.02")), ..KeyLimits::default() });
    let rich = key("rich", KeyLimits::default());
    rig.engine.follow_keys([&poor].into_iter());
    let slow = submit_as(&rig, &poor, 300).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(rig.provider.targets().len(), 1, "two may cost 0.022");
    let quick = submit_as(&rig, &rich, 60).await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(states(&rig, &quick, State::Succeeded).await, 60);
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!(states(&rig, &slow, State::Succeeded).await, 13);
    assert_eq!(states(&rig, &slow, State::Failed).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_restart_knows_what_was_spent_and_what_may_have_been() {
    let text = dear("budget: { usd_per_day: 0.02, usd_per_month: 5 }\nretry: { attempts: 1 }\n")
        .replace("retry: { attempts: 3, initial_delay: 1s, max_delay: 4s }\n", "");
    let rig = Rig::start(&text).await;
    rig.provider.script("bedrock", [Act::Answer(Duration::from_millis(10)), fault(Fault::Unknown)]);
    let first = rig.submit(&[]).await;
    rig.until(first, State::Succeeded).await;
    let second = rig.submit(&[]).await;
    rig.until(second, State::Failed).await;
    let before = rig.engine.spent(&pipeline());
    assert!(before.0 > usd("0.011") + usd(BILL), "{before:?}: an answer that nobody saw counts at its most");
    let store = rig.drain().await;
    let clock: SharedClock = Arc::new(TokioClock::starting_at("2026-11-22T11:00:00Z".parse().unwrap()));
    let again = Rig::start_on(store, clock, &text).await;
    assert_eq!(again.engine.spent(&pipeline()), before);
    let by_caller = again.store.spending(Timestamp::from_micros(0)).await.unwrap();
    assert_eq!(by_caller[&pipeline()], usd(BILL), "the ledger keeps bills and guesses apart");
}
