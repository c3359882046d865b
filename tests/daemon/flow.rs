//! Jobs from submit to result.

use std::collections::BTreeSet;

use landbridge::simulate::SimulationConfig;
use serde_json::{Value, json};

use super::site::{SPEC, Site, eventually, job};

#[tokio::test(flavor = "multi_thread")]
async fn jobs_go_where_their_bucket_says_and_come_back_with_cost_and_reasons() {
    let site = Site::new(SPEC).await;
    let daemon = site.start().await;
    let ids = daemon.submit_lines(&(0..200).map(job).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 200);
    let mut candidates = 0;
    for (n, id) in ids.iter().enumerate() {
        let job = daemon.ended_job(id).await;
        assert_eq!(job["state"], "succeeded", "{job}");
        let bucket = landbridge::rollout::bucket("triage/to-bedrock", &format!("c-{n}"));
        let expected = if bucket < 5_000 { "bedrock" } else { "openai" };
        assert_eq!(job["target"], expected, "{job}");
        assert_eq!(job["result"]["object"], "chat.completion");
        let cost: f64 = job["cost_usd"].as_str().unwrap().parse().unwrap();
        assert!(cost > 0.0);
        candidates += usize::from(expected == "bedrock");
    }
    assert!((70..130).contains(&candidates), "{candidates} of 200 at 50 %");
    let why = daemon.get(&format!("/v1/jobs/{}/why", ids[0])).await;
    let steps = why["steps"].as_array().unwrap();
    assert!(steps.iter().any(|step| step.as_str().unwrap().contains("migrate")), "{why}");
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_is_the_same_job_and_another_envelope_conflicts() {
    let site = Site::new(SPEC).await;
    let daemon = site.start().await;
    let (status, first) = daemon.post_any("/v1/jobs", job(1).to_string()).await;
    assert_eq!(status, 202);
    let (status, again) = daemon.post_any("/v1/jobs", job(1).to_string()).await;
    assert_eq!((status, &again["id"]), (200, &first["id"]));
    let mut other = job(1);
    other["priority"] = json!(3);
    let (status, refused) = daemon.post_any("/v1/jobs", other.to_string()).await;
    assert_eq!((status, &refused["error"]["param"]), (409, &json!("idempotency_key")));
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_takes_the_good_lines_and_names_the_bad() {
    let site = Site::new(SPEC).await;
    let daemon = site.start().await;
    let line = json!({ "custom_id": "b-1", "method": "POST", "url": "/v1/chat/completions",
        "body": { "model": "m", "messages": [{ "role": "user", "content": "x" }] } });
    let body = format!(
        "{}\nnot json\n{{\"pipeline\":\"triaje\",\"body\":{{\"messages\":[{{\"role\":\"user\",\"content\":\"x\"}}]}}}}\n\n{line}\n",
        job(1)
    );
    let client = reqwest::Client::new();
    let response = client
        .post(daemon.url() + "/v1/jobs")
        .header("content-type", "application/x-ndjson")
        .body(body)
        .send()
        .await
        .unwrap();
    let lines: Vec<Value> =
        response.text().await.unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|line| line["line"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3, 5]);
    assert!(lines[0]["id"].is_string());
    assert!(lines[1]["error"]["message"].is_string());
    assert!(lines[2]["error"]["message"].as_str().unwrap().contains("triage"), "{}", lines[2]);
    // A batch line names no pipeline, and no spec accepts its model.
    assert_eq!(lines[3]["error"]["code"], "pipeline_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_counted_cancelled_and_tried_again() {
    let site = Site::new(&format!("{SPEC}flags: {{ PAUSE: true }}\n")).await;
    let daemon = site.start().await;
    let jobs: Vec<Value> = (0..30)
        .map(|n| {
            let mut job = job(n);
            job["batch"] = json!("nightly");
            job
        })
        .collect();
    let ids = daemon.submit_lines(&jobs).await.unwrap();
    let held = daemon.get(&format!("/v1/jobs/{}", ids[0])).await;
    assert_eq!((&held["state"], &held["reason_code"]), (&json!("held"), &json!("paused")));
    assert_eq!(daemon.jobs("state=held&batch=nightly").await.len(), 30);
    let answer = daemon.post("/v1/ops/cancel", json!({ "batch": "nightly" })).await;
    assert_eq!(answer["cancelled"], 30);
    let batch = daemon.get("/v1/ops/batches/nightly").await;
    assert_eq!((&batch["counts"]["cancelled"], &batch["ended"]), (&json!(30), &json!(true)));
    site.save("pipelines/triage.yaml", SPEC);
    let again = daemon.post(&format!("/v1/jobs/{}/retry", ids[0]), json!({})).await;
    assert_eq!(again["retry_of"], ids[0].as_str());
    let job = daemon.ended_job(again["id"].as_str().unwrap()).await;
    assert_eq!(job["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_calls_finish_and_a_second_one_does_not() {
    let site = Site::new(SPEC).await;
    slow(&site, "2s");
    let mut daemon = site.start().await;
    let ids = daemon.submit_lines(&(0..8).map(job).collect::<Vec<_>>()).await.unwrap();
    running(&daemon, 8).await;
    daemon.signal("TERM");
    assert!(daemon.ended().success());
    let mut daemon = site.start().await;
    for id in &ids {
        let job = daemon.ended_job(id).await;
        assert_eq!((&job["state"], &job["attempts"].as_array().unwrap().len()), (&json!("succeeded"), &1), "{job}");
    }
    slow(&site, "15s");
    let ids = daemon.submit_lines(&(100..104).map(job).collect::<Vec<_>>()).await.unwrap();
    running(&daemon, 4).await;
    daemon.signal("TERM");
    eventually("the first signal is heard", || async { daemon.log().contains("draining") }).await;
    daemon.signal("TERM");
    assert!(daemon.ended().success());
    slow(&site, "1ms");
    let daemon = site.start().await;
    for id in &ids {
        let job = daemon.ended_job(id).await;
        let attempts = job["attempts"].as_array().unwrap();
        assert_eq!((&job["state"], attempts.len()), (&json!("succeeded"), 2), "{job}");
        assert_eq!((&attempts[0]["outcome"], &attempts[0]["possibly_billed"]), (&json!("interrupted"), &json!(true)));
    }
}

/// Gives every call this latency.
pub fn slow(site: &Site, latency: &str) {
    configure(site, |config| config.latency = vec![format!("all={latency}").parse().unwrap()]);
}

/// Changes how the endpoints behave.
pub fn configure(site: &Site, change: impl FnOnce(&mut SimulationConfig)) {
    let mut config = site.simulation.config();
    change(&mut config);
    site.simulation.configure(config).unwrap();
}

/// Waits until so many jobs are at a provider.
pub async fn running(daemon: &super::site::Daemon, count: usize) {
    eventually("the calls are in flight", || async {
        let jobs = daemon.jobs("state=running").await;
        jobs.iter().filter(|job| job["attempt_count"] == 1).count() >= count
    })
    .await;
}
