//! Jobs under quotas: they go as fast as they may, in whose turn it is, and by whom the spec permits.

use std::{sync::Arc, time::Duration};

use serde_json::json;

use super::rig::{Act as Deed, Rig, fault, spec};
use crate::{
    clock::{SharedClock, TokioClock},
    engine::{SetQuota, levers::Act},
    ids::JobId,
    job::{Envelope, Fault, State},
    names::ProviderName,
    quota::{Limit, Source},
    settings::QuotaSetting,
    store::{DocumentKind, Store},
};

/// A quota of bedrock's, by the minute.
pub(super) fn quota(requests_per_minute: u64) -> QuotaSetting {
    QuotaSetting {
        provider: ProviderName::new("bedrock").unwrap(),
        model: "*".to_owned(),
        region: None,
        requests_per_minute: Some(requests_per_minute),
        tokens_per_minute: None,
        tokens_per_day: None,
        concurrency: None,
        profile: None,
        burst: Duration::from_secs(1),
        ramp: None,
        share: rust_decimal::Decimal::ONE,
        pool: false,
        from_aws: false,
    }
}

async fn submit(rig: &Rig, count: usize) -> Vec<JobId> {
    let mut jobs = Vec::new();
    for _ in 0..count {
        jobs.push(rig.submit(&[]).await);
    }
    jobs
}

async fn all_succeed(rig: &Rig, jobs: Vec<JobId>) -> Duration {
    let started = rig.engine.now();
    for job in jobs {
        rig.until(job, State::Succeeded).await;
    }
    rig.engine.now().since(started)
}

#[tokio::test(start_paused = true)]
async fn a_known_quota_is_filled_and_never_exceeded() {
    let rig = Rig::start(&spec("")).await;
    rig.quotas(&[quota(600)]);
    rig.provider.grant("bedrock", 600, false);
    let jobs = submit(&rig, 300).await;
    let took = all_succeed(&rig, jobs).await;
    assert_eq!(rig.provider.turned_away("bedrock"), 0);
    assert!((28.5..31.0).contains(&took.as_secs_f64()), "{took:?} for 300 at 10/s");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_quota_is_learned_and_outlives_a_restart() {
    let rig = Rig::start(&spec("")).await;
    rig.provider.grant("bedrock", 600, false);
    let jobs = submit(&rig, 600).await;
    let took = all_succeed(&rig, jobs).await;
    let away = rig.provider.turned_away("bedrock");
    assert!(away <= 45, "{away} turned away");
    assert!(took < Duration::from_secs(66), "{took:?} for 600 at 10/s");
    let learned = &rig.engine.health().quotas(rig.engine.now())[0];
    assert_eq!(learned.limits[0].source, Source::Learned, "{learned:?}");
    assert!((480.0..720.0).contains(&learned.limits[0].in_force), "{learned:?}");
    let store = rig.drain().await;
    let written = store.documents(DocumentKind::Quota).await.unwrap();
    assert_eq!(written.len(), 1, "{written:?}");

    let clock: SharedClock = Arc::new(TokioClock::starting_at("2026-11-22T11:00:00Z".parse().unwrap()));
    let again = Rig::start_on(store, clock, &spec("")).await;
    again.provider.grant("bedrock", 600, false);
    let jobs = submit(&again, 100).await;
    all_succeed(&again, jobs).await;
    let away = again.provider.turned_away("bedrock");
    assert!(away <= 5, "{away} turned away by what was known");
}

#[tokio::test(start_paused = true)]
async fn headers_tell_the_quota() {
    let rig = Rig::start(&spec("")).await;
    rig.provider.grant("bedrock", 600, true);
    let jobs = submit(&rig, 200).await;
    all_succeed(&rig, jobs).await;
    let told = &rig.engine.health().quotas(rig.engine.now())[0];
    assert_eq!((told.limits[0].limit, told.limits[0].source), (Limit::RequestsPerMinute, Source::Headers), "{told:?}");
    assert!((told.limits[0].in_force - 600.0).abs() < 1.0, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_raised_quota_takes_effect_at_once() {
    let rig = Rig::start(&spec("")).await;
    rig.quotas(&[quota(6)]);
    let jobs = submit(&rig, 50).await;
    rig.until(jobs[0], State::Succeeded).await;
    rig.quotas(&[quota(6_000)]);
    let took = all_succeed(&rig, jobs).await;
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn jobs_in_line_take_no_place_from_jobs_that_can_go() {
    let routes = "{ name: eu, when: job.metadata.to == \"openai\", to: openai }\n  - { name: all, to: bedrock }";
    let text = spec("limits: { concurrency: 2 }\n").replace("{ name: all, to: bedrock }", routes);
    let rig = Rig::start(&text).await;
    rig.quotas(&[quota(6)]);
    let slow = submit(&rig, 20).await;
    let mut quick = Vec::new();
    for _ in 0..20 {
        quick.push(rig.submit(&[("to", "openai")]).await);
    }
    let took = all_succeed(&rig, quick).await;
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert!(rig.provider.targets().iter().filter(|target| *target == "bedrock").count() <= 2);
    all_succeed(&rig, slow).await;
}

const TWO_REGIONS: &str = "version: 1
name: triage
targets:
  bedrock: { provider: bedrock, model: us.anthropic.claude-haiku-4-5-20251001-v1:0, region: us-east-1, equivalents: [west], defaults: { max_tokens: 64 } }
  west: { provider: bedrock, model: us.anthropic.claude-haiku-4-5-20251001-v1:0, region: us-west-2, concurrency: 3, defaults: { max_tokens: 64 } }
route:
  - { name: east only, when: job.metadata.stay == \"yes\", confine: { regions: [us-east-1, us-east-2, us-west-1] }, to: bedrock }
  - { name: all, to: bedrock }
retry: { spill_after: 10s }
";

#[tokio::test(start_paused = true)]
async fn what_is_exhausted_for_long_spills_to_an_equal_target() {
    // A profile of the whole geography cannot be confined to a part of it: plain models for this one.
    let text = TWO_REGIONS.replace("us.anthropic", "anthropic");
    let rig = Rig::start(&text).await;
    let east = QuotaSetting { region: Some("us-east-1".parse().unwrap()), ..quota(60) };
    let west = QuotaSetting { region: Some("us-west-2".parse().unwrap()), ..quota(120) };
    rig.quotas(&[east, west]);
    let mut jobs = Vec::new();
    for _ in 0..5 {
        jobs.push(rig.submit(&[("stay", "yes")]).await);
    }
    let staying = jobs.clone();
    jobs.extend(submit(&rig, 60).await);
    let first = rig.engine.now();
    all_succeed(&rig, jobs).await;
    let times = rig.provider.times();
    let targets = rig.provider.targets();
    let spilled: Vec<Duration> =
        times.iter().zip(&targets).filter(|(_, target)| *target == "west").map(|(time, _)| time.since(first)).collect();
    assert!(spilled.len() > 10, "{targets:?}");
    assert!(spilled[0] >= Duration::from_secs(9), "spilled after {:?} already", spilled[0]);
    for job in staying {
        let record = rig.job(job).await;
        assert!(record.attempts.iter().all(|attempt| attempt.target.as_str() == "bedrock"), "{:?}", record.attempts);
    }
}

#[tokio::test(start_paused = true)]
async fn keys_inside_a_pipeline_take_turns() {
    let rig = Rig::start(&spec("limits: { fair_by: job.metadata.customer }\n")).await;
    rig.quotas(&[quota(600)]);
    let mut greedy = Vec::new();
    for _ in 0..60 {
        greedy.push(rig.submit(&[("customer", "greedy")]).await);
    }
    let mut modest = Vec::new();
    for _ in 0..5 {
        modest.push(rig.submit(&[("customer", "modest")]).await);
    }
    let took = all_succeed(&rig, modest).await;
    assert!(took < Duration::from_secs(3), "waited {took:?} behind sixty of another's");
    all_succeed(&rig, greedy).await;
}

#[tokio::test(start_paused = true)]
async fn panics_and_cancels_give_their_places_back() {
    let rig = Rig::start(&spec("limits: { concurrency: 1 }\n")).await;
    rig.provider.script("bedrock", [Deed::Panic, Deed::Answer(Duration::from_secs(20))]);
    let panics = rig.submit(&[]).await;
    rig.until(panics, State::Failed).await;
    let cancelled = rig.submit(&[]).await;
    rig.until(cancelled, State::Running).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    rig.engine.cancel(vec![cancelled]).await.unwrap();
    let job = rig.submit(&[]).await;
    let took = all_succeed(&rig, vec![job]).await;
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_everybody_is_served_soon_and_nobody_has_failed() {
    let rig = Rig::start(&spec("")).await;
    rig.quotas(&[quota(6_000)]);
    rig.provider.script("bedrock", (0..12).map(|_| fault(Fault::Unavailable)));
    let jobs = submit(&rig, 200).await;
    let took = all_succeed(&rig, jobs).await;
    // Seven tries, with pauses of up to eight seconds: 39 s before the provider is found well again.
    assert!(took < Duration::from_mins(1), "{took:?}");
    let calls = rig.provider.targets().len();
    assert!(calls <= 215, "{calls} calls for 200 jobs and 12 failures");
}

fn act() -> Act {
    Act { actor: "local".to_owned(), reason: Some("a test".to_owned()), dry_run: false, interrupt: false }
}

#[tokio::test(start_paused = true)]
async fn an_operator_sets_and_resets_a_quota_for_good() {
    let rig = Rig::start(&spec("")).await;
    let set: SetQuota =
        serde_json::from_value(json!({ "provider": "bedrock", "model": "*haiku*", "requests_per_minute": 6 })).unwrap();
    let name = rig.engine.set_quota(set.clone(), act()).await.unwrap();
    assert_eq!(name, "bedrock/*haiku*");
    let jobs = submit(&rig, 20).await;
    tokio::time::sleep(Duration::from_secs(15)).await;
    let went = rig.provider.targets().len();
    assert!((2..=3).contains(&went), "{went} in 15 s at one in ten");
    let store = rig.drain().await;

    let clock: SharedClock = Arc::new(TokioClock::starting_at("2026-11-22T11:00:00Z".parse().unwrap()));
    let again = Rig::start_on(store, clock, &spec("")).await;
    assert_eq!(again.engine.quotas().1, [set], "kept over a restart");
    let wrong = again.engine.reset_quota("bedrock/*haku*", act()).await.unwrap_err().to_string();
    assert!(wrong.contains("did you mean bedrock/*haiku*?"), "{wrong}");
    again.engine.reset_quota(&name, act()).await.unwrap();
    let took = all_succeed(&again, jobs).await;
    assert!(took < Duration::from_secs(35), "{took:?} once it is taken back");
    let audited = again.store.audit(crate::clock::Timestamp::from_micros(0), 10).await.unwrap();
    let actions: Vec<&str> = audited.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["quota.set", "quota.reset"]);
    for refused in [
        json!({ "provider": "bedrock", "model": "*" }),
        json!({ "provider": "bedrock", "model": "[", "concurrency": 1 }),
        json!({ "provider": "bedrock", "model": "*", "requests_per_minute": 0 }),
        json!({ "provider": "bedrok", "model": "*", "concurrency": 1 }),
    ] {
        let set = serde_json::from_value(refused.clone()).unwrap();
        assert!(again.engine.set_quota(set, act()).await.is_err(), "{refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_in_line_says_what_it_waits_for_and_until_when() {
    let rig = Rig::start(&spec("")).await;
    rig.quotas(&[quota(6)]);
    let jobs = submit(&rig, 4).await;
    rig.until(jobs[0], State::Succeeded).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let story = rig.engine.story(&rig.job(jobs[3]).await).join("\n");
    assert!(story.contains("in line for the quota bedrock/us-east-1/geo/anthropic.claude-haiku-4-5"), "{story}");
    assert!(story.contains("the provider's requests per minute lets the next one go at 2026-11-22T10:00:"), "{story}");
    assert!(story.contains("its own turn is expected by about"), "{story}");
}

#[tokio::test(start_paused = true)]
async fn a_forecast_counts_what_is_queued_and_what_would_come() {
    let rig = Rig::start(&spec("")).await;
    rig.quotas(&[quota(60)]);
    submit(&rig, 30).await;
    let job = json!({ "pipeline": "triage", "body": { "messages": [{ "role": "user", "content": "hi" }] } });
    let envelopes = vec![Envelope::from_value(job).unwrap(); 90];
    let forecast = rig.engine.forecast(&envelopes).await.unwrap();
    let seconds = rig.engine.now().until(forecast.done_at.unwrap()).as_secs();
    assert!((110..=121).contains(&seconds), "{forecast:?}");
    assert!(forecast.cost_at_most_usd.is_some_and(|cost| cost > crate::money::Usd::ZERO), "{forecast:?}");
    assert_eq!(forecast.not_dispatched, 0);
}
