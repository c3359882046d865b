//! Saving a file changes routing; a broken file changes nothing.

use serde_json::json;

use super::site::{Daemon, SPEC, Site, eventually, job};

async fn target_of_new_job(daemon: &Daemon, n: usize) -> String {
    let id = daemon.post("/v1/jobs", job(n)).await["id"].as_str().unwrap().to_owned();
    daemon.ended_job(&id).await["target"].as_str().unwrap().to_owned()
}

async fn generation(daemon: &Daemon) -> u64 {
    daemon.get("/readyz").await["generation"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn saving_a_percentage_moves_traffic_without_a_restart() {
    let site = Site::new(&SPEC.replace("percent: 50", "percent: 0")).await;
    let daemon = site.start().await;
    let before = generation(&daemon).await;
    assert_eq!(target_of_new_job(&daemon, 1).await, "openai");
    site.save("pipelines/triage.yaml", &SPEC.replace("percent: 50", "percent: 100"));
    eventually("the new generation", || async { generation(&daemon).await > before }).await;
    assert_eq!(target_of_new_job(&daemon, 2).await, "bedrock");
    assert_eq!(
        daemon.metric("landbridge_rollout_percent{pipeline=\"triage\",rollout=\"to-bedrock\"}").await,
        Some(100.0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_keeps_its_last_good_version_even_over_a_restart() {
    let site = Site::new(&SPEC.replace("percent: 50", "percent: 0")).await;
    let daemon = site.start().await;
    site.save("pipelines/triage.yaml", "version: 1\nname: triage\ntragets: {}\n");
    let invalid = "landbridge_config_file_valid{file=\"triage.yaml\"}";
    eventually("the file is known to be broken", || async { daemon.metric(invalid).await == Some(0.0) }).await;
    assert_eq!(target_of_new_job(&daemon, 1).await, "openai");
    daemon.kill();
    let daemon = site.start().await;
    let ready = daemon.get("/readyz").await;
    assert_eq!(
        (&ready["ready"], &ready["degraded"], &ready["stale_pipelines"]),
        (&json!(true), &json!(true), &json!(["triage"]))
    );
    assert!(ready["broken_files"].to_string().contains("tragets"), "{ready}");
    assert!(daemon.log().contains("did you mean"), "{}", daemon.log());
    assert_eq!(target_of_new_job(&daemon, 2).await, "openai");
    let (status, report) = daemon.post_any("/v1/ops/reload", "").await;
    assert_eq!(status, 422, "{report}");
    // A kill switch in a file that is broken otherwise still gets through.
    site.save("config/flags.yaml", "flags:\n  FORCE_BEDROCK_PROVIDER: true\n  NO_SUCH_FLAG: true\n");
    let (status, report) = daemon.post_any("/v1/ops/reload", "").await;
    assert_eq!(status, 422, "{report}");
    assert_eq!(target_of_new_job(&daemon, 3).await, "bedrock");
    std::fs::remove_file(site.path().join("config/flags.yaml")).unwrap();
    site.save("pipelines/triage.yaml", &SPEC.replace("percent: 50", "percent: 0"));
    eventually("all is well again", || async { daemon.get("/readyz").await["degraded"] == false }).await;
    assert_eq!(target_of_new_job(&daemon, 4).await, "openai");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_switch_in_a_half_edited_spec_gets_through() {
    let site = Site::new(&SPEC.replace("percent: 50", "percent: 100")).await;
    let daemon = site.start().await;
    assert_eq!(target_of_new_job(&daemon, 1).await, "bedrock");
    let half = SPEC.replace("percent: 50", "percent: ten") + "flags: { FORCE_OPENAI_PROVIDER: true }\n";
    site.save("pipelines/triage.yaml", &half);
    let (status, report) = daemon.post_any("/v1/ops/reload", "").await;
    assert_eq!(status, 422, "{report}");
    assert_eq!(target_of_new_job(&daemon, 2).await, "openai");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_pipeline_holds_its_jobs_and_a_new_one_works_at_once() {
    let site = Site::new(&format!("{SPEC}flags: {{ PAUSE: true }}\n")).await;
    site.save("pipelines/other.yaml", &SPEC.replace("name: triage", "name: other"));
    let daemon = site.start().await;
    let id = daemon.post("/v1/jobs", job(1)).await["id"].as_str().unwrap().to_owned();
    std::fs::remove_file(site.spec_file()).unwrap();
    daemon.post("/v1/ops/reload", json!({})).await;
    let held = daemon.get(&format!("/v1/jobs/{id}")).await;
    assert_eq!((&held["state"], &held["reason_code"]), (&json!("held"), &json!("pipeline_removed")));
    let (status, refused) = daemon.post_any("/v1/jobs", job(2).to_string()).await;
    assert_eq!(status, 404, "{refused}");
    site.save("pipelines/moved/triage.yml", SPEC);
    daemon.post("/v1/ops/reload", json!({})).await;
    assert_eq!(daemon.ended_job(&id).await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reloads() {
    let site = Site::new(SPEC).await;
    let daemon = site.start().await;
    daemon.signal("HUP");
    let reloads = "landbridge_config_reloads_total{result=\"success\",trigger=\"signal\"}";
    eventually("the reload is counted", || async { daemon.metric(reloads).await == Some(1.0) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_need_a_restart_say_so_and_quotas_do_not() {
    let site = Site::new(SPEC).await;
    let daemon = site.start().await;
    let file = site.path().join("config/landbridge.yaml");
    let settings = std::fs::read_to_string(&file).unwrap();
    let edited = settings.replace("listen: 127.0.0.1:0", "listen: 127.0.0.1:4999")
        + "quotas:\n  - { provider: openai, model: \"gpt-*\", requests_per_minute: 600 }\n";
    site.save("config/landbridge.yaml", &edited);
    let report = daemon.post("/v1/ops/reload", json!({})).await;
    assert_eq!(report["needs_restart"], json!(["listen"]));
    let id = daemon.post("/v1/jobs", job(3)).await["id"].as_str().unwrap().to_owned();
    daemon.ended_job(&id).await;
    let metrics = daemon.text("/metrics").await;
    assert!(
        metrics.contains("landbridge_quota_utilization_ratio{kind=\"requests_per_minute\",model=\"gpt-5.4-mini\""),
        "{metrics}"
    );
}
