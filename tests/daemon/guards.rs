//! What keeps a save from doing harm: the policy, its override, and the way back to an earlier generation.

use serde_json::{Value, json};

use super::site::{Daemon, SPEC, Site, eventually};

fn landbridge(site: &Site, daemon: &Daemon, arguments: &[&str]) -> (Option<i32>, String) {
    let output = site.command(arguments).env("LANDBRIDGE_URL", daemon.url()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

fn at(percent: &str) -> String {
    SPEC.replace("percent: 50", &format!("percent: {percent}"))
}

async fn percent(daemon: &Daemon) -> Value {
    daemon.get("/v1/ops/pipelines").await["data"][0]["rollouts"][0]["percent"].clone()
}

async fn generation(daemon: &Daemon) -> u64 {
    daemon.get("/readyz").await["generation"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_is_followed_hot_and_overridden_with_a_reason() {
    let site = Site::new(&at("5")).await;
    let daemon = site.start().await;
    let before = generation(&daemon).await;
    site.save("config/policy.yaml", "version: 1\nmax_increase_percent: 10\n");
    eventually("the policy is in force", || async { generation(&daemon).await > before }).await;
    site.save("pipelines/triage.yaml", &at("50"));
    eventually("the file is refused", || async { daemon.get("/readyz").await["degraded"] == true }).await;
    assert_eq!(percent(&daemon).await, "5 %");
    let (code, text) = landbridge(&site, &daemon, &["reload"]);
    assert!(code == Some(1) && text.contains("error[policy]") && text.contains("triage.yaml:9:64"), "{text}");
    let (code, text) = landbridge(&site, &daemon, &["plan"]);
    assert!(code == Some(1) && text.contains("error[policy]"), "a plan tells it ahead: {text}");
    assert_eq!(landbridge(&site, &daemon, &["reload", "--override", " "]).0, Some(64));

    let (code, text) = landbridge(&site, &daemon, &["reload", "--override", "incident 42"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(percent(&daemon).await, "50 %");
    let (_, audit) = landbridge(&site, &daemon, &["audit", "--format", "json"]);
    let entry = audit
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|entry| entry["action"] == "reload.override")
        .unwrap_or_else(|| panic!("{audit}"));
    assert_eq!((&entry["actor"], &entry["reason"]), (&json!("local"), &json!("incident 42")));
    assert!(entry["at"].is_string() && entry["detail"]["violations"][0].as_str().unwrap().contains("in one save"));
    daemon.stop();
    let daemon = site.start().await;
    assert_eq!(percent(&daemon).await, "50 %", "over a restart");

    // Without a daemon, `check` holds what it can against the policy.
    site.save("config/policy.yaml", "version: 1\nforbidden_models: [\"gpt-*\"]\n");
    let output = site.command(&["check"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.code() == Some(1) && text.contains("error[policy]") && text.contains("is forbidden"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_generation_is_gone_back_to_and_left_again() {
    let site = Site::new(&at("5")).await;
    site.save("pipelines/other.yaml", &SPEC.replace("name: triage", "name: other"));
    let daemon = site.start().await;
    let first = generation(&daemon).await;
    site.save("pipelines/triage.yaml", &at("20"));
    eventually("the second generation", || async { generation(&daemon).await > first }).await;
    let (code, text) = landbridge(&site, &daemon, &["config", "history"]);
    assert!(code == Some(0) && text.contains("goes from 5 % to 20 %") && text.contains(&format!("{first} ")), "{text}");
    let (code, text) = landbridge(&site, &daemon, &["config", "diff", &first.to_string()]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("\n-  to-bedrock: { baseline: openai, candidate: bedrock, percent: 5,"), "{text}");
    assert!(text.contains("\n+  to-bedrock: { baseline: openai, candidate: bedrock, percent: 20,"), "{text}");

    let back = ["config", "rollback", &first.to_string(), "--reason", "labels went wrong"];
    let (code, text) = landbridge(&site, &daemon, &back);
    assert!(code == Some(0) && text.contains("specs/triage.yaml"), "{text}");
    let triage = |answer: &Value| -> Value {
        let lines = answer["data"].as_array().unwrap();
        lines.iter().find(|line| line["name"] == "triage").unwrap()["rollouts"][0]["percent"].clone()
    };
    let now = |daemon: Daemon| async move {
        let answer = daemon.get("/v1/ops/pipelines").await;
        (daemon, triage(&answer))
    };
    let (daemon, is) = now(daemon).await;
    assert_eq!(is, "5 %");
    let ready = daemon.get("/readyz").await;
    assert_eq!((&ready["degraded"], &ready["pinned"]["generation"]), (&json!(true), &json!(first)));
    // It holds over a reload, a restart, and a save of another file.
    assert_eq!(landbridge(&site, &daemon, &["reload"]).0, Some(0));
    daemon.kill();
    let daemon = site.start().await;
    let before = generation(&daemon).await;
    site.save(
        "pipelines/other.yaml",
        &SPEC.replace("name: triage", "name: other").replace("percent: 50", "percent: 60"),
    );
    eventually("the other file is followed", || async { generation(&daemon).await > before }).await;
    let (daemon, is) = now(daemon).await;
    assert_eq!(is, "5 %");
    // Saving the file itself is a decision about it.
    site.save("pipelines/triage.yaml", &at("21"));
    eventually("the saved file is followed", || async { daemon.get("/readyz").await["pinned"].is_null() }).await;
    let (daemon, is) = now(daemon).await;
    assert_eq!(is, "21 %");

    // And by hand.
    assert_eq!(landbridge(&site, &daemon, &back).0, Some(0));
    let (code, text) = landbridge(&site, &daemon, &["config", "rollback", "--clear", "--reason", "mended"]);
    assert_eq!(code, Some(0), "{text}");
    let (daemon, is) = now(daemon).await;
    assert_eq!(is, "21 %");
    let (_, audit) = landbridge(&site, &daemon, &["audit"]);
    for expected in ["config.rollback", "labels went wrong", "config.follow", "mended"] {
        assert!(audit.contains(expected), "{expected}: {audit}");
    }
    let (code, text) = landbridge(&site, &daemon, &["config", "rollback", "999"]);
    assert!(code == Some(1) && text.contains("generation 999 is not kept"), "{text}");
    assert_eq!(landbridge(&site, &daemon, &["config", "rollback", "--clear"]).0, Some(1));
    assert_eq!(landbridge(&site, &daemon, &["config", "rollback"]).0, Some(64));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_rollout_is_collapsed_by_a_patch() {
    let spec = "# Tickets: ask the support team.\n".to_owned()
        + &SPEC
            .replace("percent: 50", "percent: 100")
            .replace("fallback: [openai, bedrock]", "fallback: [bedrock] # nobody else");
    let site = Site::new(&spec).await;
    let finish = |arguments: &[&str]| {
        let output = site.command(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, diff, noted) = finish(&["rollout", "finish", "triage/to-bedrock"]);
    assert_eq!(code, Some(0), "{noted}");
    assert!(noted.contains("target `openai` goes too") && noted.contains("FORCE_OPENAI_PROVIDER"), "{noted}");
    std::fs::write(site.path().join("finish.diff"), &diff).unwrap();
    let patched = std::process::Command::new("patch")
        .args(["-p1", "-i", "finish.diff"])
        .current_dir(site.path())
        .output()
        .expect("the Debian package `patch` is installed");
    assert!(patched.status.success(), "{diff}\n{}", String::from_utf8_lossy(&patched.stdout));
    let text = std::fs::read_to_string(site.spec_file()).unwrap();
    assert!(text.starts_with("# Tickets") && text.contains("# nobody else") && text.contains("to: bedrock"), "{text}");
    assert!(!text.contains("rollout") && !text.contains("openai"), "{text}");
    assert_eq!(finish(&["check"]).0, Some(0));
    let (code, _, noted) = finish(&["rollout", "finish", "triage/to-bedrock"]);
    assert!(code == Some(1) && noted.contains("it has none"), "{noted}");
    std::fs::write(site.spec_file(), SPEC).unwrap();
    let (code, _, noted) = finish(&["rollout", "finish", "triage/to-bedrock"]);
    assert!(code == Some(1) && noted.contains("is at 50 %"), "{noted}");
    assert_eq!(finish(&["rollout", "finish", "triage"]).0, Some(64));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_names_who_did_it_and_why() {
    let site = Site::new(SPEC).await;
    let daemon = site.start().await;
    let made = site.command(&["key", "create", "--name", "oncall", "--scope", "operate,read", "--format", "json"]);
    let made = { made }.env("LANDBRIDGE_URL", daemon.url()).output().unwrap();
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let key = made["token"].as_str().unwrap();
    let ask = |arguments: &[&str]| {
        let output =
            site.command(arguments).env("LANDBRIDGE_URL", daemon.url()).env("LANDBRIDGE_KEY", key).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    };
    ask(&["flag", "set", "PAUSE", "--reason", "a drill"]);
    ask(&["jobs", "cancel", "--pipeline", "triage", "--reason", "wrong prompts"]);
    ask(&["quota", "set", "openai", "gpt-5.4-mini", "--requests-per-minute", "100", "--reason", "granted"]);
    site.save("pipelines/triage.yaml", &at("60"));
    ask(&["reload"]);
    let audit: Vec<Value> =
        ask(&["audit", "--format", "json"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (action, reason) in
        [("flag.set", Some("a drill")), ("jobs.cancel", Some("wrong prompts")), ("quota.set", Some("granted"))]
    {
        let entry =
            audit.iter().find(|entry| entry["action"] == action).unwrap_or_else(|| panic!("{action}: {audit:?}"));
        assert_eq!((entry["actor"].as_str(), entry["reason"].as_str()), (Some("oncall"), reason), "{entry}");
        assert!(entry["at"].is_string());
    }
    // Whichever saw the file first: the watcher, or the one who asked.
    let reload = audit.iter().find(|entry| entry["action"] == "reload").unwrap_or_else(|| panic!("{audit:?}"));
    assert!(["oncall", "landbridge"].contains(&reload["actor"].as_str().unwrap()), "{reload}");
}
