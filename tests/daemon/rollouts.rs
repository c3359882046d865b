//! Rollouts with steps on the real program, its endpoints simulated and its steps seconds long.

use std::time::{Duration, Instant};

use landbridge::spec::Api;
use rand::Rng as _;
use serde_json::{Value, json};

use super::{
    flow::configure,
    site::{Daemon, Site, eventually},
};

const SPEC: &str = r"version: 1
name: triage
targets:
  openai: { provider: openai, model: gpt-5.4-mini, timeout: 20s }
  bedrock: { provider: bedrock, model: us.anthropic.claude-haiku-4-5-20251001-v1:0, timeout: 20s, defaults: { max_tokens: 64 } }
route:
  - { name: migrate, rollout: to-bedrock }
rollouts:
  to-bedrock:
    baseline: openai
    candidate: bedrock
    outcome_within: 5s
    steps:
      - { percent: 20, min_duration: 1s, min_jobs: 40 }
      - { percent: 50, min_duration: 1s, min_jobs: 40 }
      - { percent: 100, min_duration: 1s, min_jobs: 40 }
    gates:
      - { metric: failure, max_increase: 8pp }
fallback: [openai]
retry: { attempts: 1, initial_delay: 50ms, max_delay: 500ms }
limits: { concurrency: 16 }
";

const WHICH: &str = "triage/to-bedrock";

fn job(n: usize) -> Value {
    json!({ "pipeline": "triage", "body": { "messages": [{ "role": "user", "content": format!("ticket number {n}") }] } })
}

/// Runs a client command against a daemon; its exit code and what it wrote.
fn landbridge(site: &Site, daemon: &Daemon, arguments: &[&str]) -> (Option<i32>, String) {
    let output = site.command(arguments).env("LANDBRIDGE_URL", daemon.url()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

async fn rollout(daemon: &Daemon) -> Value {
    daemon.get(&format!("/v1/ops/rollouts/{WHICH}")).await
}

fn calls(site: &Site, api: Api) -> u64 {
    site.simulation.counts().by_model.iter().filter(|row| row.api == api).map(|row| row.calls).sum()
}

/// Keeps a daemon supplied until its rollout is there; all jobs that were accepted.
async fn feed(daemon: &Daemon, mut there: impl FnMut(&Value) -> bool) -> (Value, Vec<String>) {
    let deadline = Instant::now() + Duration::from_mins(2);
    let mut jobs = Vec::new();
    loop {
        let standing = rollout(daemon).await;
        if there(&standing) {
            return (standing, jobs);
        }
        assert!(Instant::now() < deadline, "never there: {standing:#}\n{}", daemon.log());
        let next: Vec<Value> = (0..25).map(|n| job(jobs.len() + n)).collect();
        jobs.extend(daemon.submit_lines(&next).await.unwrap());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_candidate_reaches_everybody_untouched() {
    let site = Site::new(SPEC).await;
    let daemon = site.start().await;
    let mut highest = 0.0;
    let (done, jobs) = feed(&daemon, |standing| {
        let percent = standing["percent"].as_f64().unwrap();
        assert!(percent >= highest, "a share is never taken back: {standing:#}");
        highest = percent;
        standing["state"] == "done"
    })
    .await;
    assert_eq!((&done["percent"], &done["gates"][0]["verdict"]), (&json!(100.0), &json!("pass")), "{done:#}");
    for id in jobs.iter().rev().take(20) {
        let job = daemon.ended_job(id).await;
        assert_eq!((&job["state"], &job["target"]), (&json!("succeeded"), &json!("bedrock")), "{job}");
    }
    let (code, text) = landbridge(&site, &daemon, &["rollout", "show", WHICH]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with("triage/to-bedrock: done at 100 %, from openai to bedrock\n"), "{text}");
    assert!(text.contains("failure") && text.contains("pass") && text.contains("candidate 0.00 %"), "{text}");
    let (code, text) = landbridge(&site, &daemon, &["audit"]);
    assert_eq!(code, Some(0));
    assert_eq!(text.matches("rollout.advanced").count(), 3, "{text}");
    let percent = daemon.metric("landbridge_rollout_percent{pipeline=\"triage\",rollout=\"to-bedrock\"}").await;
    assert_eq!(percent, Some(100.0));
    let state =
        daemon.metric("landbridge_rollout_state{pipeline=\"triage\",rollout=\"to-bedrock\",state=\"done\"}").await;
    assert_eq!(state, Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_candidate_rolls_back_and_every_job_finishes_on_the_baseline() {
    let site = Site::new(SPEC).await;
    configure(&site, |config| config.faults = vec!["bedrock=overloaded,probability=0.6".parse().unwrap()]);
    let daemon = site.start().await;
    let (back, mut jobs) = feed(&daemon, |standing| standing["state"] == "rolled_back").await;
    assert_eq!((&back["percent"], &back["gates"][0]["verdict"]), (&json!(0.0), &json!("fail")), "{back:#}");
    jobs.extend(daemon.submit_lines(&(0..50).map(job).collect::<Vec<_>>()).await.unwrap());
    let last = jobs[jobs.len() - 1].clone();
    assert_eq!(daemon.ended_job(&last).await["target"], "openai");
    let settled = calls(&site, Api::Bedrock);
    for id in &jobs {
        let job = daemon.ended_job(id).await;
        assert_eq!(job["state"], "succeeded", "{job}");
    }
    assert_eq!(calls(&site, Api::Bedrock), settled, "nobody goes to the candidate any more");
    // Neither a restart nor saving the file launches it again; an operator does, and says why.
    daemon.stop();
    let daemon = site.start().await;
    site.save("pipelines/triage.yaml", &format!("{SPEC}priority: 1\n"));
    daemon.post("/v1/ops/reload", json!({})).await;
    let more = daemon.submit_lines(&(0..50).map(|n| job(jobs.len() + n)).collect::<Vec<_>>()).await.unwrap();
    for id in &more {
        assert_eq!(daemon.ended_job(id).await["target"], "openai");
    }
    assert_eq!(rollout(&daemon).await["state"], "rolled_back");
    let (code, text) = landbridge(&site, &daemon, &["rollout", "promote", WHICH, "--reason", "hope"]);
    assert!(code == Some(1) && text.contains("retry lets it begin again"), "{text}");
    let (code, text) = landbridge(&site, &daemon, &["rollout", "retry", WHICH, "--reason", "quota raised"]);
    assert!(code == Some(0) && text.starts_with("triage/to-bedrock: running at 0 %"), "{text}");
    let (_, text) = landbridge(&site, &daemon, &["audit"]);
    assert!(
        text.contains("rollout.rolled_back") && text.contains("rollout.retried") && text.contains("quota raised"),
        "{text}"
    );
}

/// Kills the daemon at random moments, all the way through a rollout.
async fn through_kills(site: &Site, end: &str) -> (Value, usize) {
    let mut kills = 0;
    let mut revision_jobs = 0;
    loop {
        let daemon = site.start().await;
        let life = Duration::from_millis(rand::rng().random_range(300..3_500));
        let born = Instant::now();
        let mut last = Value::Null;
        while born.elapsed() < life {
            last = rollout(&daemon).await;
            if last["state"] == end {
                return (last, kills);
            }
            assert!(matches!(last["state"].as_str(), Some("running")), "{last:#}");
            daemon.submit_lines(&(0..20).map(job).collect::<Vec<_>>()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let counted = last["candidate_jobs"].as_u64().unwrap_or(0);
        // Each life counts on from where the last one was, once it has read what is written.
        assert!(
            born.elapsed() < Duration::from_secs(1) || counted + 200 >= revision_jobs,
            "{counted} < {revision_jobs}"
        );
        revision_jobs = revision_jobs.max(counted);
        daemon.kill();
        kills += 1;
        assert!(kills < 100, "never {end}: {last:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_random_moments_change_no_verdict() {
    let good = Site::new(SPEC).await;
    let (done, kills) = through_kills(&good, "done").await;
    assert_eq!(done["gates"][0]["verdict"], "pass");
    assert!(kills >= 1);
    let bad = Site::new(SPEC).await;
    configure(&bad, |config| config.faults = vec!["bedrock=overloaded,probability=0.5".parse().unwrap()]);
    let (back, _) = through_kills(&bad, "rolled_back").await;
    assert_eq!((&back["percent"], &back["gates"][0]["verdict"]), (&json!(0.0), &json!("fail")), "{back:#}");
    // Not one job was lost on the way.
    let daemon = bad.start().await;
    eventually("every job has ended", || async {
        daemon.jobs("state=queued&state=running&state=waiting").await.is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_changes_in_the_middle_is_refused_and_the_old_file_serves() {
    let site = Site::new(SPEC).await;
    let daemon = site.start().await;
    eventually("the rollout has begun", || async { rollout(&daemon).await["step"] == 1 }).await;
    site.save("pipelines/triage.yaml", &SPEC.replace("outcome_within: 5s", "key: job.metadata.customer"));
    let (status, report) = daemon.post_any("/v1/ops/reload", "{}").await;
    assert_eq!(status, 422, "{report}");
    let said = report.to_string();
    assert!(said.contains("rollout-has-begun") && said.contains("give the rollout another name"), "{said}");
    // Another name is another rollout; a restart on the broken file keeps the old one.
    daemon.kill();
    let daemon = site.start().await;
    assert_eq!(rollout(&daemon).await["key"], "job.id");
    let renamed = SPEC.replace("outcome_within: 5s", "key: job.metadata.customer").replace("to-bedrock", "by-customer");
    site.save("pipelines/triage.yaml", &renamed);
    daemon.post("/v1/ops/reload", json!({})).await;
    eventually("the other rollout begins", || async {
        daemon.get("/v1/ops/rollouts/triage/by-customer").await["step"] == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rollback_holds_a_rollout_and_resume_lets_it_go_on() {
    let site = Site::new(SPEC).await;
    let daemon = site.start().await;
    feed(&daemon, |standing| standing["step"] == 1).await;
    let (code, text) = landbridge(&site, &daemon, &["rollback", "triage", "--reason", "drill"]);
    assert_eq!(code, Some(0), "{text}");
    eventually("it is held", || async { rollout(&daemon).await["state"] == "held" }).await;
    let held = rollout(&daemon).await;
    assert!(held["reason"].as_str().unwrap().contains("kill switch"), "{held:#}");
    let (code, text) = landbridge(&site, &daemon, &["resume", "triage", "--reason", "over"]);
    assert_eq!(code, Some(0), "{text}");
    let (after, _) = feed(&daemon, |standing| standing["state"] == "running" && standing["step"] == 2).await;
    assert_eq!(after["percent"], 50.0);
}
