//! Rollouts with steps, from the first job to the last step, in simulated time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use super::rig::{Rig, fault};
use crate::{
    clock::{SharedClock, TokioClock},
    engine::{
        levers::{Act as Operator, FlagChange},
        rollouts::{RolloutAct, RolloutError, RolloutView, Scored},
    },
    ids::JobId,
    job::{Fault, State as JobState},
    names::{PipelineName, ProviderName, RolloutName},
    rollout::State,
    routing::Arm,
    spec::Flag,
    store::{Store, memory::MemoryStore},
};

fn spec(course: &str) -> String {
    format!(
        "version: 1\nname: triage\ntargets:\n  \
         bedrock: {{ provider: bedrock, model: us.anthropic.claude-haiku-4-5-20251001-v1:0, region: us-east-1, timeout: 30s, defaults: {{ max_tokens: 64 }} }}\n  \
         openai: {{ provider: openai, model: gpt-5.4-mini, timeout: 30s }}\n\
         route:\n  - {{ name: all, rollout: to-bedrock }}\n\
         rollouts:\n  to-bedrock:\n    baseline: openai\n    candidate: bedrock\n    key: job.metadata.customer\n    outcome_within: 1m\n{course}\
         fallback: [openai]\nretry: {{ attempts: 1, initial_delay: 1s, max_delay: 4s }}\n"
    )
}

const STEPS: &str = "    steps:
      - { percent: 20, min_duration: 1m, min_jobs: 20 }
      - { percent: 50, min_duration: 1m, min_jobs: 20 }
      - { percent: 100, min_duration: 1m }
    gates:
      - { metric: failure, max_increase: 10pp }
";

fn pipeline() -> PipelineName {
    "triage".parse().unwrap()
}

fn rollout() -> RolloutName {
    "to-bedrock".parse().unwrap()
}

fn operator(reason: &str) -> Operator {
    Operator { actor: "ann".to_owned(), reason: Some(reason.to_owned()), ..Operator::default() }
}

fn share(view: &RolloutView) -> String {
    format!("{} %", view.percent)
}

async fn view(rig: &Rig) -> RolloutView {
    rig.engine.rollout_view(&pipeline(), &rollout()).await.unwrap()
}

async fn act(rig: &Rig, what: RolloutAct) -> Result<RolloutView, RolloutError> {
    rig.engine.move_rollout(&pipeline(), &rollout(), what, &operator("test")).await
}

/// Submits a job of a customer of its own. By number, not by the job's random id: chance has no part in these tests.
async fn submit(rig: &Rig) -> JobId {
    static CUSTOMERS: AtomicU32 = AtomicU32::new(0);
    let customer = CUSTOMERS.fetch_add(1, Ordering::Relaxed).to_string();
    rig.submit(&[("customer", &customer)]).await
}

/// Submits jobs, some each second, until the rollout is where it should be.
async fn until(rig: &Rig, mut there: impl FnMut(&RolloutView) -> bool) -> (RolloutView, Vec<JobId>) {
    let mut jobs = Vec::new();
    for _ in 0..4_000 {
        let view = view(rig).await;
        if there(&view) {
            return (view, jobs);
        }
        for _ in 0..5 {
            jobs.push(submit(rig).await);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("never there: {:#?}", view(rig).await);
}

async fn actions(rig: &Rig) -> Vec<String> {
    let begin = "2026-11-22T00:00:00Z".parse().unwrap();
    rig.store.audit(begin, 1_000).await.unwrap().into_iter().map(|entry| entry.action).collect()
}

#[tokio::test(start_paused = true)]
async fn a_good_candidate_reaches_everybody_untouched() {
    let rig = Rig::start(&spec(STEPS)).await;
    let (view, jobs) = until(&rig, |view| view.state == State::Done).await;
    assert_eq!((view.percent, view.step, view.gates[0].verdict), (100.0, Some(3), "pass"), "{view:#?}");
    assert!(view.gates[0].decided_after.is_some_and(|after| after < 200), "{view:#?}");
    assert_eq!(
        actions(&rig).await,
        ["rollout.begun", "rollout.advanced", "rollout.advanced", "rollout.advanced", "rollout.done"]
    );
    for job in jobs {
        rig.until(job, JobState::Succeeded).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_candidate_rolls_back_and_its_jobs_finish_on_the_baseline() {
    let rig = Rig::start(&spec(STEPS)).await;
    rig.provider.script("bedrock", vec![fault(Fault::Unavailable); 500]);
    let (view, mut jobs) = until(&rig, |view| view.state == State::RolledBack).await;
    assert_eq!((view.percent, view.gates[0].verdict), (0.0, "fail"), "{view:#?}");
    let reason = view.reason.unwrap();
    assert_eq!(reason, "gate `failure` failed: the candidate is worse than its margin allows");
    let calls = rig.provider.targets().iter().filter(|target| *target == "bedrock").count();
    for _ in 0..20 {
        jobs.push(submit(&rig).await);
    }
    let mut rescued = 0;
    for job in jobs {
        let record = rig.until(job, JobState::Succeeded).await;
        assert_eq!(record.summary.target.map(|target| target.to_string()).as_deref(), Some("openai"));
        rescued += usize::from(record.assignment.is_some_and(|assignment| assignment.arm == Arm::Candidate));
    }
    assert!(rescued > 0, "the arm that a job fell to stays with it");
    let after = rig.provider.targets().iter().filter(|target| *target == "bedrock").count();
    assert_eq!(after, calls, "nobody goes to the candidate any more");
    // Reading the file again launches nothing; an operator does.
    rig.reload(&spec(STEPS));
    rig.reload(&(spec(STEPS) + "priority: 1\n"));
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!(self::view(&rig).await.state, State::RolledBack);
    let view = act(&rig, RolloutAct::Retry).await.unwrap();
    assert_eq!((view.state, view.revision, view.candidate_jobs), (State::Running, Some(2), 0));
}

#[tokio::test(start_paused = true)]
async fn the_breaker_needs_no_statistics() {
    let course = format!("{STEPS}    breaker: {{ last: 8, failures: 8 }}\n").replace("10pp", "50pp");
    let rig = Rig::start(&spec(&course)).await;
    rig.provider.script("bedrock", vec![fault(Fault::Unavailable); 500]);
    let (view, _) = until(&rig, |view| view.state == State::RolledBack).await;
    assert_eq!(view.reason.as_deref(), Some("the breaker tripped: 8 of the candidate's last 8 jobs failed"));
}

#[tokio::test(start_paused = true)]
async fn a_kill_switch_holds_and_what_it_touches_is_no_evidence() {
    let rig = Rig::start(&spec(STEPS)).await;
    let (before, _) = until(&rig, |view| view.candidate_jobs >= 5).await;
    let force = Flag::Force(ProviderName::new("openai").unwrap());
    let set = |value| FlagChange { flag: force.clone(), pipeline: None, value, clear_after: None };
    rig.engine.change_flag(set(Some(true)), operator("drill")).await.unwrap();
    let mut jobs = Vec::new();
    for _ in 0..100 {
        jobs.push(submit(&rig).await);
    }
    tokio::time::sleep(Duration::from_mins(5)).await;
    let held = view(&rig).await;
    assert_eq!((held.state, held.percent), (State::Held, 20.0));
    for job in jobs {
        let record = rig.until(job, JobState::Succeeded).await;
        assert!(record.assignment.is_some_and(|assignment| !assignment.evidence));
    }
    rig.engine.change_flag(set(None), operator("over")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    let after = view(&rig).await;
    assert_eq!((after.state, after.percent), (State::Running, 20.0));
    assert!(after.candidate_jobs <= before.candidate_jobs + 5, "{after:#?}");
    assert!(after.waits.iter().any(|wait| wait.contains("more in this step")), "a fresh minimum time: {after:#?}");
    until(&rig, |view| view.percent > 20.0).await;
}

#[tokio::test(start_paused = true)]
async fn operators_move_it_and_are_written_down() {
    let course = STEPS.replace(
        "min_duration: 1m, min_jobs: 20 }\n      - { percent: 50",
        "min_duration: 100h }\n      - { percent: 50, approval: true",
    );
    let rig = Rig::start(&spec(&course)).await;
    let (view, _) = until(&rig, |view| view.step == Some(1)).await;
    assert!(view.waits[0].contains("more in this step"), "{view:?}");
    assert!(act(&rig, RolloutAct::Approve).await.unwrap_err().to_string().contains("asks for no approval"));
    assert_eq!(act(&rig, RolloutAct::Pause).await.unwrap().state, State::Paused);
    assert!(act(&rig, RolloutAct::Promote).await.unwrap_err().to_string().contains("resume it first"));
    assert_eq!(act(&rig, RolloutAct::Resume).await.unwrap().state, State::Running);
    assert_eq!(share(&act(&rig, RolloutAct::Promote).await.unwrap()), "50 %");
    assert!(act(&rig, RolloutAct::Promote).await.unwrap_err().to_string().contains("approve it first"));
    act(&rig, RolloutAct::Approve).await.unwrap();
    let view = act(&rig, RolloutAct::Abort).await.unwrap();
    assert_eq!((view.state, view.percent), (State::Aborted, 0.0));
    assert!(act(&rig, RolloutAct::Promote).await.is_err(), "abort beats promote");
    let said = actions(&rig).await;
    let expected = ["rollout.paused", "rollout.resumed", "rollout.promoted", "rollout.approved", "rollout.aborted"];
    assert!(said.ends_with(&expected.map(str::to_owned)), "{said:?}");
    let begin = "2026-11-22T00:00:00Z".parse().unwrap();
    let last = rig.store.audit(begin, 1_000).await.unwrap().pop().unwrap();
    assert_eq!((last.actor.as_str(), last.reason.as_deref()), ("ann", Some("test")));
    let unknown =
        rig.engine.move_rollout(&pipeline(), &"to-bedrok".parse().unwrap(), RolloutAct::Pause, &operator("x")).await;
    assert!(unknown.unwrap_err().to_string().contains("did you mean to-bedrock?"));
}

#[tokio::test(start_paused = true)]
async fn edits_in_the_middle_follow_the_rules() {
    let rig = Rig::start(&spec(STEPS)).await;
    until(&rig, |view| share(view) == "50 %").await;
    // Other steps: the share stays.
    let other = STEPS.replace("percent: 50, min_duration: 1m", "percent: 60, min_duration: 5m");
    rig.reload(&spec(&other));
    tokio::time::sleep(Duration::from_secs(10)).await;
    let edited = view(&rig).await;
    assert_eq!((edited.percent, edited.step), (50.0, Some(1)), "{edited:#?}");
    assert!(edited.candidate_jobs > 0, "the evidence stays");
    // Another candidate: nobody goes there on the old one's evidence, not for a moment.
    let nova = spec(&other).replace("us.anthropic.claude-haiku-4-5-20251001-v1:0", "us.anthropic.claude-sonnet-4-6");
    rig.reload(&nova);
    let standing = rig.engine.world().lane(&pipeline()).unwrap().standings.get(crate::spec::RolloutIx(0));
    assert_eq!(standing.percent.get(), 0);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let revised = view(&rig).await;
    assert_eq!((revised.revision, revised.candidate_jobs), (Some(2), 0), "{revised:#?}");
}

#[tokio::test(start_paused = true)]
async fn another_life_goes_on_where_the_last_one_was() {
    let clock: SharedClock = Arc::new(TokioClock::starting_at("2026-11-22T10:00:00Z".parse().unwrap()));
    let mut store = Arc::new(MemoryStore::new(clock.clone()));
    let mut last: Option<RolloutView> = None;
    let mut lives = 0;
    loop {
        let rig = Rig::start_on(store.clone(), clock.clone(), &spec(STEPS)).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let now = view(&rig).await;
        if let Some(before) = &last {
            assert_eq!((now.percent, now.step), (before.percent, before.step), "a restart moves nothing");
            assert!(now.candidate_jobs >= before.candidate_jobs, "nothing counted is lost: {before:#?} {now:#?}");
        }
        lives += 1;
        let mut seconds = 0;
        let (now, _) = until(&rig, |view| {
            seconds += 1;
            view.state == State::Done || seconds > 25
        })
        .await;
        let done = now.state == State::Done;
        last = Some(now);
        store = rig.drain().await;
        if done {
            break;
        }
        assert!(lives < 100);
    }
    assert!(lives > 5);
    let last = last.unwrap();
    assert_eq!((last.percent, last.gates[0].verdict), (100.0, "pass"));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_never_ends_is_a_failure_and_a_slow_candidate_fails() {
    let course = STEPS.replace("10pp }", "10pp }\n      - { metric: latency, max_ratio: 1.5, on_fail: rollback }");
    let rig = Rig::start(&spec(&course)).await;
    let slow = super::rig::Act::Answer(Duration::from_millis(500));
    rig.provider.script("bedrock", vec![slow; 2_000]);
    let (view, _) = until(&rig, |view| view.state == State::RolledBack).await;
    assert!(view.reason.unwrap().contains("`latency`"));
    let figures = view.gates[1].figures.clone().unwrap();
    assert!(figures.starts_with("candidate at ") && view.gates[1].verdict == "fail", "{figures}");
}

#[tokio::test(start_paused = true)]
async fn scores_are_evidence_of_the_arm_that_a_job_fell_to() {
    let course =
        STEPS.replace("10pp }", "10pp }\n      - { metric: score.quality, max_decrease: 0.1, on_fail: rollback }");
    let rig = Rig::start(&spec(&course)).await;
    let mut told = false;
    for _ in 0..200 {
        let job = submit(&rig).await;
        let record = rig.until(job, JobState::Succeeded).await;
        let arm = record.assignment.as_ref().unwrap().arm;
        let value = if arm == Arm::Candidate { 0.2 } else { 0.9 };
        let scored = rig.engine.score(&record, vec![("quality".to_owned(), value)]).await.unwrap();
        told |= scored == Scored::Counted;
        tokio::time::sleep(Duration::from_secs(1)).await;
        if view(&rig).await.state == State::RolledBack {
            break;
        }
    }
    let view = view(&rig).await;
    assert!(told && view.state == State::RolledBack, "{view:#?}");
    assert!(view.reason.unwrap().contains("`score.quality`"));
}

#[tokio::test(start_paused = true)]
async fn a_percentage_in_the_file_writes_nothing_down() {
    let rig = Rig::start(&spec("    percent: 50\n").replace("    outcome_within: 1m\n", "")).await;
    for _ in 0..20 {
        let job = submit(&rig).await;
        rig.until(job, JobState::Succeeded).await;
    }
    assert_eq!(rig.store.last_observation(&pipeline(), &rollout()).await.unwrap(), 0);
    let refused = act(&rig, RolloutAct::Promote).await.unwrap_err().to_string();
    assert!(refused.contains("follows the `percent` in triage.yaml"), "{refused}");
    assert_eq!(share(&view(&rig).await), "50 %");
}
