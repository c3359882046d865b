//! Every series that dashboards and alert rules name is there once a daemon has worked.

use std::collections::BTreeSet;

use serde_json::json;

use super::{
    flow::configure,
    site::{SPEC, Site, eventually, job},
};

/// Counts calls of models without a price, of which the endpoints have none.
const OF_UNPRICED_MODELS: &str = "landbridge_unpriced_attempts_total";

/// Tells of keys with a budget, of which there are none: with one, everybody would need a key.
const OF_KEYS: &str = "landbridge_key_budget_utilization_ratio";

/// The names of all series in dashboards and rules.
fn series_named() -> BTreeSet<String> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards");
    let mut names = BTreeSet::new();
    for file in ["landbridge.json", "alerts.yaml"] {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        for (at, _) in text.match_indices("landbridge_") {
            let name: String =
                text[at..].chars().take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_').collect();
            names.insert(name);
        }
    }
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_has_worked_exports_every_series_that_is_looked_at() {
    let streamed = SPEC.replace("defaults: { max_tokens: 64 }", "stream: true, defaults: { max_tokens: 64 }");
    let site = Site::new(&format!("{streamed}labels: {{ team: support }}\nbudget: {{ usd_per_day: 1000 }}\n")).await;
    let settings = std::fs::read_to_string(site.path().join("config/landbridge.yaml")).unwrap();
    let quotas = "quotas:\n  - { provider: openai, model: \"gpt-*\", requests_per_minute: 60000 }\n";
    site.save("config/landbridge.yaml", &(settings + quotas));
    configure(&site, |config| {
        config.faults =
            ["bedrock=overloaded,count=3", "openai=reset,count=2"].map(|fault| fault.parse().unwrap()).to_vec();
    });
    let daemon = site.start().await;
    let ids = daemon.submit_lines(&(0..40).map(job).collect::<Vec<_>>()).await.unwrap();
    for id in &ids {
        daemon.ended_job(id).await;
    }
    daemon.post("/v1/ops/reload", json!({})).await;
    // A job that waits in the queue has an age.
    daemon.post("/v1/ops/flags", json!({ "flag": "PAUSE", "value": true, "reason": "test" })).await;
    daemon.post("/v1/jobs", job(1_000)).await;
    let mut named = series_named();
    assert!(named.remove(OF_UNPRICED_MODELS) && named.remove(OF_KEYS) && named.len() > 20, "{named:?}");
    let missing = std::sync::Mutex::new(Vec::new());
    eventually("every series is there", || async {
        let text = daemon.text("/metrics").await;
        let is_there = |name: &&String| {
            text.lines().any(|line| line.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with(['{', ' '])))
        };
        *missing.lock().unwrap() = named.iter().filter(|name| !is_there(name)).cloned().collect();
        missing.lock().unwrap().is_empty()
            || daemon.metric("landbridge_oldest_queued_job_age_seconds{pipeline=\"triage\"}").await.is_some()
    })
    .await;
    assert_eq!(*missing.lock().unwrap(), Vec::<String>::new());
}
