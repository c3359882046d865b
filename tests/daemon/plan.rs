//! Plans and reports, from the real binary: what specs at hand would change, and what the ledger says.

use serde_json::{Value, json};

use super::{
    flow::configure,
    site::{Daemon, SPEC, Site, job},
};

/// Runs a client command against a daemon: its exit code, what it printed, what it noted.
fn landbridge(site: &Site, daemon: &Daemon, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = site.command(arguments).env("LANDBRIDGE_URL", daemon.url()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// A site whose jobs have all been answered.
async fn answered(site: &Site, jobs: usize) -> Daemon {
    let daemon = site.start().await;
    let ids = daemon.submit_lines(&(0..jobs).map(job).collect::<Vec<_>>()).await.unwrap();
    for id in &ids {
        assert_eq!(daemon.ended_job(id).await["state"], "succeeded");
    }
    daemon
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_tells_who_moves_before_anything_does() {
    let site = Site::new(SPEC).await;
    let daemon = answered(&site, 400).await;
    let (code, text, _) = landbridge(&site, &daemon, &["plan", "--detailed-exitcode"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("nothing changes") && text.contains("0 of 400 jobs"), "{text}");

    // Specs that are not in the watched folder: nothing is applied.
    site.save("next/triage.yaml", &SPEC.replace("percent: 50", "percent: 80"));
    let (code, text, _) = landbridge(&site, &daemon, &["plan", "next", "--format", "json", "--detailed-exitcode"]);
    assert_eq!(code, Some(2), "{text}");
    let plan: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(plan["changed"], true);
    assert_eq!(plan["jobs"]["count"], 400);
    let moved = plan["jobs"]["moved"].as_u64().unwrap();
    let line = &plan["pipelines"][0];
    assert_eq!((&line["pipeline"], &line["change"]), (&json!("triage"), &json!("changed")));
    assert_eq!(line["moves"].as_array().unwrap().len(), 1, "{line}");
    let way = &line["moves"][0];
    assert_eq!((&way["from"], &way["to"], &way["rule"]), (&json!("openai"), &json!("bedrock"), &json!("migrate")));
    assert_eq!(way["basis"], "ledger");
    assert!(way["cost_change_usd"].is_string() && way["p95_after_ms"].is_number(), "{way}");
    let rollout = &line["rollouts"][0];
    assert_eq!(rollout["keys"], 400);
    assert_eq!(rollout["keys_to_candidate"].as_u64(), Some(moved), "one key a job here");
    assert_eq!(rollout["keys_to_baseline"], 0, "raising a percentage only adds keys");
    assert!(!text.contains("ticket number"), "no word of a prompt leaves the daemon");

    // What the plan said is what happens.
    site.save("pipelines/triage.yaml", &SPEC.replace("percent: 50", "percent: 80"));
    daemon.post("/v1/ops/reload", json!({})).await;
    let explained = |n: usize| {
        let mut job = job(n);
        job.as_object_mut().unwrap().remove("idempotency_key");
        json!({ "job": job })
    };
    let mut to_bedrock = 0;
    for n in 0..400 {
        let answer = daemon.post("/v1/ops/explain", explained(n)).await;
        to_bedrock += u64::from(answer["decision"]["chain"][0] == "bedrock");
    }
    let was = daemon.jobs("pipeline=triage").await.iter().filter(|job| job["target"] == "bedrock").count() as u64;
    assert_eq!(to_bedrock, was + moved);
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_look_at_prompts_only_where_rules_do_and_say_which_are_gone() {
    let by_prompt = SPEC.replace(
        "route:\n",
        "route:\n  - { name: long, when: 'job.body.messages[0].content.contains(\"7\")', to: bedrock }\n",
    );
    let site = Site::new(&(SPEC.to_owned() + "retention: { prompts: 0s, results: 30d }\n")).await;
    let daemon = answered(&site, 60).await;
    site.save("next/triage.yaml", &by_prompt);
    site.save("next/other.yaml", &SPEC.replace("name: triage", "name: other"));
    // Prompts go when upkeep comes by: first thing after a start.
    daemon.stop();
    let daemon = site.start().await;
    super::site::eventually("prompts are gone", || async {
        let (code, text, _) = landbridge(&site, &daemon, &["plan", "next", "--format", "json"]);
        assert_eq!(code, Some(0), "{text}");
        let plan: Value = serde_json::from_str(&text).unwrap();
        plan["jobs"]["cannot_tell"] == 60
    })
    .await;
    let (_, text, _) = landbridge(&site, &daemon, &["plan", "next"]);
    assert!(text.contains("60 jobs cannot be told: their prompt is gone"), "{text}");
    assert!(text.contains("other (added)"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_of_broken_files_says_what_is_broken() {
    let site = Site::new(SPEC).await;
    let daemon = answered(&site, 5).await;
    site.save("next/triage.yaml", &SPEC.replace("baseline: openai", "baseline: opnai"));
    let (code, text, _) = landbridge(&site, &daemon, &["plan", "next"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("triage.yaml:9:") && text.contains("did you mean `openai`"), "{text}");
    let (code, text, _) = landbridge(&site, &daemon, &["plan", "next", "--format", "markdown"]);
    assert!(code == Some(1) && text.contains("### landbridge plan") && text.contains("^^^^^"), "{text}");
    let (code, _, noted) = landbridge(&site, &daemon, &["plan", "nowhere"]);
    assert!(code == Some(1) && noted.contains("nowhere is not a folder"), "{noted}");
    let (code, _, _) = landbridge(&site, &daemon, &["plan", "--last", "5", "--since", "1h"]);
    assert_eq!(code, Some(64));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_scope_plan_sees_figures_alone() {
    let site = Site::new(SPEC).await;
    let daemon = answered(&site, 5).await;
    site.save("next/triage.yaml", &SPEC.replace("percent: 50", "percent: 100"));
    let (code, made, noted) = landbridge(&site, &daemon, &["key", "create", "--scope", "plan", "--format", "json"]);
    assert_eq!(code, Some(0), "{noted}");
    let made: Value = serde_json::from_str(&made).unwrap();
    let key = made["token"].as_str().unwrap();
    let ask = |arguments: &[&str]| {
        let output =
            site.command(arguments).env("LANDBRIDGE_URL", daemon.url()).env("LANDBRIDGE_KEY", key).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, text) = ask(&["plan", "next", "--detailed-exitcode"]);
    assert_eq!(code, Some(2), "{text}");
    assert_eq!(ask(&["report"]).0, Some(1), "a report is no plan");
    assert_eq!(landbridge(&site, &daemon, &["plan", "next"]).0, Some(1), "without a key, nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_comes_in_every_form() {
    let spec = SPEC.replace("fallback: [openai, bedrock]", "fallback: [openai]\nlabels: { team: support }");
    let site = Site::new(&spec).await;
    configure(&site, |config| config.faults.push("bedrock=server-error,probability=0.5".parse().unwrap()));
    let daemon = answered(&site, 300).await;
    let (code, text, noted) = landbridge(&site, &daemon, &["report", "--by", "label.team", "--format", "json"]);
    assert_eq!(code, Some(0), "{noted}");
    let report: Value = serde_json::from_str(&text).unwrap();
    let named = |list: &str, name: &str| -> Value {
        let lines = report[list].as_array().unwrap();
        lines.iter().find(|line| line["name"] == name).unwrap_or_else(|| panic!("{name} in {list}: {report}")).clone()
    };
    let bedrock = named("providers", "bedrock")["figures"].clone();
    let openai = named("providers", "openai")["figures"].clone();
    let answered = bedrock["answered"].as_u64().unwrap() + openai["answered"].as_u64().unwrap();
    assert_eq!(answered, 300, "every job was answered once");
    assert!(bedrock["faults"]["transient"].as_u64().unwrap() > 0, "{bedrock}");
    assert!(bedrock["availability"].as_f64().unwrap() < 1.0 && openai["availability"] == 1.0);
    assert!(openai["response_ms"]["p50"].as_f64().unwrap() <= openai["response_ms"]["p99"].as_f64().unwrap());
    assert!(openai["estimate"]["calls"].as_u64().unwrap() > 0 && openai["window"]["max"].as_f64().unwrap() > 0.0);
    assert_eq!(named("labels", "support")["figures"]["answered"], 300);
    assert_eq!(named("pipelines", "triage")["jobs"]["succeeded"], 300);
    let saving = &report["savings"][0];
    assert_eq!((&saving["baseline"], &saving["basis"]), (&json!("openai"), &json!("ledger")));
    assert_eq!(saving["jobs"], bedrock["answered"]);

    let (code, text, noted) = landbridge(&site, &daemon, &["report", "--by", "label.team"]);
    assert!(code == Some(0) && text.contains("By label.team") && noted.contains("exact to 1.00 %"), "{text}{noted}");
    let (code, text, _) = landbridge(&site, &daemon, &["report", "--format", "markdown"]);
    assert!(code == Some(0) && text.contains("| provider | calls |"), "{text}");
    let (code, page, _) = landbridge(&site, &daemon, &["report", "--format", "html"]);
    assert!(code == Some(0) && page.starts_with("<!DOCTYPE html>") && page.contains("<svg"), "{page}");
    assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("<script"));
    let (code, _, noted) = landbridge(&site, &daemon, &["report", "--by", "team"]);
    assert!(code == Some(1) && noted.contains("label.NAME"), "{noted}");
}
