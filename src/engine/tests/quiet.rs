//! While nothing can go, nothing spins; and whatever a provider says, jobs are kept and answered in the end.

use std::{sync::atomic::Ordering, time::Duration};

use super::{
    quotas::quota,
    rig::{Act, Rig, fault, spec, throttled},
};
use crate::{
    ids::JobId,
    job::{Fault, HoldReason, State},
    provider::{CallError, RateLimit},
    settings::QuotaSetting,
};

async fn submit(rig: &Rig, count: usize) -> Vec<JobId> {
    let mut jobs = Vec::new();
    for _ in 0..count {
        jobs.push(rig.submit(&[]).await);
    }
    jobs
}

/// Rounds of dispatch and questions to limits, in ten minutes of simulated time.
async fn stir(rig: &Rig) -> (u64, u64) {
    let count = || {
        let rounds = rig.engine.rounds.load(Ordering::Relaxed);
        (rounds, rig.engine.health().questions())
    };
    let (rounds, questions) = count();
    tokio::time::sleep(Duration::from_mins(10)).await;
    let (later, asked) = count();
    (later - rounds, asked - questions)
}

/// Turns the first calls away for good.
fn refuse(rig: &Rig, with: Act) {
    rig.provider.script("bedrock", vec![with; 10_000]);
}

#[tokio::test(start_paused = true)]
async fn waiting_costs_next_to_nothing() {
    for (what, extra) in [
        ("parked", ""),
        ("paused", "flags: { PAUSE: true }\n"),
        ("budget", "budget: { usd_per_day: 0.0001 }\n"),
        ("left alone", ""),
        ("a quota that is used up", ""),
    ] {
        let rig = Rig::start(&spec(extra)).await;
        match what {
            "parked" => refuse(&rig, fault(Fault::Misconfigured)),
            "left alone" => refuse(&rig, throttled(Duration::from_hours(9_000))),
            "a quota that is used up" => {
                let day = QuotaSetting { requests_per_minute: None, tokens_per_day: Some(200), ..quota(1) };
                rig.quotas(&[day]);
            }
            _ => {}
        }
        submit(&rig, 150).await;
        tokio::time::sleep(Duration::from_mins(2)).await;
        let (rounds, questions) = stir(&rig).await;
        // The rig polls twenty times in that time.
        assert!(rounds <= 300 && questions <= 1_000, "{what}: {rounds} rounds, {questions} questions");
        assert_eq!(rig.engine.world().lanes().count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wish_of_a_year_is_an_hour_at_most_and_no_job_is_lost() {
    let rig = Rig::start(&spec("")).await;
    rig.provider.script("bedrock", [throttled(Duration::from_hours(9_000))]);
    let jobs = submit(&rig, 20).await;
    let started = rig.engine.now();
    tokio::time::sleep(Duration::from_mins(1)).await;
    let story = rig.engine.story(&rig.job(jobs[3]).await).join("\n");
    assert!(story.contains("wish to be left alone"), "{story}");
    for job in jobs {
        rig.until(job, State::Succeeded).await;
    }
    let took = rig.engine.now().since(started);
    assert!((Duration::from_mins(59)..Duration::from_mins(65)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn headers_that_lie_slow_nobody_down_for_long() {
    for (limit, remaining, reset) in [
        (Some(0), Some(0), Some(Duration::from_hours(9_000))),
        (Some(u64::MAX), Some(0), Some(Duration::MAX)),
        (Some(1), Some(u64::MAX), None),
        (None, Some(0), Some(Duration::from_hours(24 * 365))),
    ] {
        let rig = Rig::start(&spec("")).await;
        rig.quotas(&[quota(600)]);
        let lies = RateLimit {
            limit_requests: limit,
            remaining_requests: remaining,
            reset_requests: reset,
            limit_tokens: limit,
            remaining_tokens: remaining,
            reset_tokens: reset,
        };
        let Act::Fail(error) = fault(Fault::Transient) else { panic!() };
        rig.provider.script("bedrock", [Act::Fail(CallError { rate_limit: lies, ..error })]);
        let jobs = submit(&rig, 10).await;
        let started = rig.engine.now();
        for job in jobs {
            rig.until(job, State::Succeeded).await;
        }
        let took = rig.engine.now().since(started);
        assert!(took < Duration::from_mins(15), "{lies:?}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_account_that_has_to_be_paid_for_is_left_to_its_operator_and_tried_now_and_then() {
    let rig = Rig::start(&spec("fallback: [openai]\n")).await;
    let Act::Fail(error) = fault(Fault::Misconfigured) else { panic!() };
    let broke = CallError { code: Some("insufficient_quota".to_owned()), ..error };
    rig.provider.script("bedrock", vec![Act::Fail(broke); 3]);
    let jobs = submit(&rig, 30).await;
    for job in jobs {
        rig.until(job, State::Succeeded).await;
    }
    let tried = |rig: &Rig| rig.provider.targets().iter().filter(|target| *target == "bedrock").count();
    assert!(tried(&rig) <= 3, "{}", tried(&rig));
    let before = rig.provider.targets().len();
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_mins(1)).await;
        let job = rig.submit(&[]).await;
        rig.until(job, State::Succeeded).await;
    }
    let last: Vec<String> = rig.provider.targets().split_off(before);
    assert_eq!(last.last().map(String::as_str), Some("bedrock"), "it was paid, and a try found out");
}

#[tokio::test(start_paused = true)]
async fn a_day_that_is_used_up_rests_as_long_as_the_provider_says() {
    for (hint, least, most) in [(Some(7 * 60), 6 * 60, 9 * 60), (None, 13 * 3_600, 15 * 3_600)] {
        let rig = Rig::start(&spec("")).await;
        let Act::Fail(error) = fault(Fault::Throttled) else { panic!() };
        let used_up = CallError {
            message: "Too many tokens per day, please wait before trying again.".to_owned(),
            retry_after: hint.map(Duration::from_secs),
            ..error
        };
        rig.provider.script("bedrock", [Act::Fail(used_up)]);
        let job = rig.submit(&[]).await;
        let started = rig.engine.now();
        rig.until(job, State::Succeeded).await;
        let took = rig.engine.now().since(started).as_secs();
        assert!((least..most).contains(&took), "{hint:?}: {took} s");
        assert_eq!(rig.engine.hold_of(&"triage".parse().unwrap()), None::<HoldReason>);
    }
}

#[tokio::test(start_paused = true)]
async fn answers_without_usage_are_charged_what_was_reserved_and_cost_nothing_that_is_known() {
    let rig = Rig::start(&spec("budget: { usd_per_day: 1 }\n")).await;
    let tokens = QuotaSetting { requests_per_minute: None, tokens_per_minute: Some(6_000), ..quota(1) };
    rig.quotas(&[tokens]);
    rig.provider.script("bedrock", vec![Act::NoUsage; 60]);
    let jobs = submit(&rig, 60).await;
    let started = rig.engine.now();
    for job in jobs {
        let record = rig.until(job, State::Succeeded).await;
        assert!(record.attempts[0].usage.is_none() && record.attempts[0].cost_usd.is_none());
    }
    // Some 70 tokens a call are reserved, and stay charged: neither for nothing, nor for good.
    let took = rig.engine.now().since(started);
    assert!((Duration::from_secs(25)..Duration::from_secs(90)).contains(&took), "{took:?}");
    assert_eq!(rig.engine.spent(&"triage".parse().unwrap()).0, crate::money::Usd::ZERO);
    assert_eq!(rig.engine.health().quotas(rig.engine.now())[0].in_flight, 0);
}
