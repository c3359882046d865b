//! What waits costs nothing, and what is not queued yet is told of.

use std::{fs, time::Duration};

use landbridge::simulate::SimulateOptions;
use serde_json::{Value, json};

use crate::site::{Daemon, Site, eventually};

const SPEC: &str = "version: 1\nname: triage\ntargets:\n  \
    bedrock: { provider: bedrock, model: us.anthropic.claude-haiku-4-5-20251001-v1:0, defaults: { max_tokens: 64 } }\n";

fn lines(count: usize) -> String {
    (0..count)
        .map(|n| {
            json!({ "pipeline": "triage", "idempotency_key": format!("j-{n}"),
                "body": { "messages": [{ "role": "user", "content": format!("job {n}") }] } })
            .to_string()
                + "\n"
        })
        .collect()
}

/// Processor time of a process so far.
fn processor(daemon: &Daemon) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // The 14th and 15th field of all, in hundredths of a second.
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

async fn count(daemon: &Daemon, state: &str) -> u64 {
    let text = reqwest::get(daemon.url() + "/metrics").await.unwrap().text().await.unwrap();
    let series = format!("landbridge_jobs{{pipeline=\"triage\",state=\"{state}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_jobs_that_cannot_go_leave_the_processor_idle() {
    for (settings, fault, spec) in [
        // Every target is parked.
        ("", Some("bedrock=forbidden"), ""),
        // The provider wants to be left alone.
        ("", Some("bedrock=throttled,retry_after=1h"), ""),
        // The quota of the day is used up.
        ("quotas:\n  - { provider: bedrock, model: \"*\", tokens_per_day: 300 }\n", None, ""),
        // The budget is spent.
        ("", None, "budget: { usd_per_month: 0.000001 }\n"),
    ] {
        let fault = fault.into_iter().map(|fault| fault.parse().unwrap()).collect();
        let site = Site::with(&format!("{SPEC}{spec}"), SimulateOptions { fault, ..SimulateOptions::default() }).await;
        site.add_settings(settings);
        fs::write(site.path().join("jobs.jsonl"), lines(1_000)).unwrap();
        let daemon = site.start().await;
        let submitted = site.command(&["submit", "jobs.jsonl", "--url", &daemon.url()]).output().unwrap();
        assert!(submitted.status.success(), "{}", String::from_utf8_lossy(&submitted.stderr));
        let mut before = site.simulation.counts().calls;
        eventually("calls have stopped", || {
            let calls = site.simulation.counts().calls;
            let still = calls > 0 && calls == std::mem::replace(&mut before, calls);
            async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                still
            }
        })
        .await;
        let used = processor(&daemon);
        tokio::time::sleep(Duration::from_secs(5)).await;
        let used = processor(&daemon).saturating_sub(used);
        // Of 5 seconds, in a build that is not optimized, under a machine's load.
        assert!(used <= Duration::from_millis(500), "{settings}{spec}: {used:?} of processor time in 5 s");
        let waiting = count(&daemon, "queued").await
            + count(&daemon, "held").await
            + count(&daemon, "waiting").await
            + count(&daemon, "running").await;
        let ended = count(&daemon, "succeeded").await;
        assert_eq!(waiting + ended, 1_000, "no job is lost, and none failed");
        assert!(waiting > 900, "{waiting}");
        daemon.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_tells_when_and_for_how_much_and_queues_nothing() {
    let site = Site::new(&format!("{SPEC}budget: {{ usd_per_day: 0.01 }}\n")).await;
    site.add_settings("quotas:\n  - { provider: bedrock, model: \"*\", requests_per_minute: 60 }\n");
    let bad = "{\"pipeline\":\"triag\",\"body\":{}}\nnonsense\n";
    fs::write(site.path().join("jobs.jsonl"), lines(2_400) + bad).unwrap();
    let daemon = site.start().await;
    let run = |arguments: &[&str]| {
        let all: Vec<&str> = ["submit", "jobs.jsonl", "--dry-run"].iter().chain(arguments).copied().collect();
        let url = daemon.url();
        let output = site.command(&all).env("LANDBRIDGE_URL", url).output().unwrap();
        let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        (output.status.code(), out, err)
    };
    let (code, out, err) = run(&["--format", "json"]);
    assert_eq!(code, Some(1), "{err}");
    let said: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&said["jobs"], &said["refused"]), (&json!(2_401), &json!(2)), "{said}");
    let quota = said["quotas"].as_object().unwrap().values().next().unwrap();
    assert_eq!((&quota["jobs"], &quota["seconds"]), (&json!(2_400), &json!(2_400)), "{said}");
    let cost: f64 = said["cost_at_most_usd"].as_str().unwrap().parse().unwrap();
    assert!(cost > 0.5 && cost < 2.0, "{said}");
    assert!(err.contains("jobs.jsonl:2401:") && err.contains("jobs.jsonl:2402:"), "{err}");
    let (_, out, _) = run(&[]);
    assert!(out.contains("nothing was queued") && out.contains("the last one goes at about"), "{out}");
    assert!(out.contains("pipeline triage has 0.01 US dollars left for this day"), "{out}");
    assert_eq!(count(&daemon, "queued").await + count(&daemon, "running").await, 0);
    assert_eq!(site.simulation.counts().calls, 0);
    daemon.stop();
}
