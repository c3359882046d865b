//! Levers from the command line, on a daemon under load.

use std::time::{Duration, Instant};

use landbridge::spec::Api;
use serde_json::json;

use super::{
    flow::{configure, slow},
    site::{Daemon, SPEC, Site, eventually, job},
};

/// Runs a client command against a daemon; its output.
fn landbridge(site: &Site, daemon: &Daemon, arguments: &[&str]) -> (Option<i32>, String) {
    let output = site.command(arguments).env("LANDBRIDGE_URL", daemon.url()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

/// Calls that have ended at a provider.
fn calls(site: &Site, api: Api) -> u64 {
    site.simulation.counts().by_model.iter().filter(|row| row.api == api).map(|row| row.calls).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kill_switch_takes_a_second_and_survives_a_restart() {
    let site = Site::new(SPEC).await;
    slow(&site, "20ms");
    let daemon = site.start().await;
    daemon.submit_lines(&(0..2_000).map(job).collect::<Vec<_>>()).await.unwrap();
    eventually("Bedrock is called", || async { calls(&site, Api::Bedrock) > 20 }).await;
    let (code, text) = landbridge(&site, &daemon, &["flag", "set", "FORCE_OPENAI_PROVIDER", "--reason", "drill"]);
    assert_eq!(code, Some(0), "{text}");
    // Calls that had begun may end; nothing new begins.
    let switched = Instant::now();
    let mut last = calls(&site, Api::Bedrock);
    let mut still = Instant::now();
    while still.elapsed() < Duration::from_millis(500) {
        let now = calls(&site, Api::Bedrock);
        if now != last {
            (last, still) = (now, Instant::now());
        }
        assert!(switched.elapsed() < Duration::from_secs(30), "Bedrock is still called");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    daemon.kill();
    let daemon = site.start().await;
    let id = daemon.post("/v1/jobs", job(9_999)).await["id"].as_str().unwrap().to_owned();
    assert_eq!(daemon.ended_job(&id).await["target"], "openai");
    assert_eq!(calls(&site, Api::Bedrock), last);
    let (code, text) = landbridge(&site, &daemon, &["flag", "list"]);
    assert!(code == Some(0) && text.contains("FORCE_OPENAI_PROVIDER") && text.contains("drill"), "{text}");
    let (code, text) = landbridge(&site, &daemon, &["flag", "clear", "FORCE_OPENAI_PROVIDER", "--reason", "over"]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = landbridge(&site, &daemon, &["audit"]);
    assert!(code == Some(0) && text.contains("flag.set") && text.contains("flag.clear"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rollback_and_resume_from_the_command_line() {
    let site = Site::new(SPEC).await;
    let daemon = site.start().await;
    let (code, text) = landbridge(&site, &daemon, &["rollback", "triage", "--reason", "quality"]);
    assert!(code == Some(0) && text.contains("openai"), "{text}");
    let ids = daemon.submit_lines(&(0..40).map(job).collect::<Vec<_>>()).await.unwrap();
    for id in &ids {
        assert_eq!(daemon.ended_job(id).await["target"], "openai");
    }
    let state = daemon
        .metric("landbridge_rollout_state{pipeline=\"triage\",rollout=\"to-bedrock\",state=\"rolled_back\"}")
        .await;
    assert_eq!(state, Some(1.0));
    let (code, text) = landbridge(&site, &daemon, &["resume", "triage", "--reason", "mended"]);
    assert_eq!(code, Some(0), "{text}");
    let ids = daemon.submit_lines(&(100..140).map(job).collect::<Vec<_>>()).await.unwrap();
    let mut targets = Vec::new();
    for id in &ids {
        targets.push(daemon.ended_job(id).await["target"].as_str().unwrap().to_owned());
    }
    assert!(targets.iter().any(|target| target == "bedrock"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flag_that_strands_a_pipeline_says_so_and_holds_its_jobs() {
    let spec = "version: 1\nname: triage\ntargets:\n  bedrock: { provider: bedrock, model: us.anthropic.claude-haiku-4-5-20251001-v1:0, defaults: { max_tokens: 64 } }\n";
    let site = Site::new(spec).await;
    let daemon = site.start().await;
    let answer = daemon
        .post("/v1/ops/flags", json!({ "flag": "FORCE_OPENAI_PROVIDER", "value": true, "reason": "drill" }))
        .await;
    assert!(answer["message"].as_str().unwrap().contains("no openai target"), "{answer}");
    let id = daemon.post("/v1/jobs", job(1)).await["id"].as_str().unwrap().to_owned();
    let held = daemon.get(&format!("/v1/jobs/{id}")).await;
    assert_eq!((&held["state"], &held["reason_code"]), (&json!("held"), &json!("forced_provider_has_no_target")));
    let (status, refused) =
        daemon.post_any("/v1/ops/flags", json!({ "flag": "FORCE_BEDROCK_PROVIDER", "value": true }).to_string()).await;
    assert_eq!(status, 409, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_bridged_by_the_fallback() {
    let site = Site::new(SPEC).await;
    configure(&site, |config| config.faults = vec!["bedrock=overloaded".parse().unwrap()]);
    let daemon = site.start().await;
    let ids = daemon.submit_lines(&(0..60).map(job).collect::<Vec<_>>()).await.unwrap();
    for id in &ids {
        let job = daemon.ended_job(id).await;
        assert_eq!((&job["state"], &job["target"]), (&json!("succeeded"), &json!("openai")), "{job}");
    }
    let rescued = daemon
        .metric("landbridge_fallbacks_total{fault=\"unavailable\",from=\"bedrock\",pipeline=\"triage\",to=\"openai\"}")
        .await;
    assert!(rescued.is_some_and(|count| count > 0.0), "{}", daemon.text("/metrics").await);
    assert_eq!(daemon.get("/readyz").await["ready"], true);
}
