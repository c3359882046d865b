//! What survives: `kill -9`, a full disk, a second daemon, a folder that cannot be written.

use std::collections::{BTreeMap, BTreeSet};

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use super::{
    flow::{running, slow},
    site::{PATIENCE, SPEC, Site, eventually, job},
};

/// Crashes in one run.
const KILLS: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_accepted_is_lost_and_no_result_changes_over_random_kills() {
    let site = Site::new(SPEC).await;
    slow(&site, "uniform:5ms,60ms");
    let mut chance = StdRng::seed_from_u64(20_261_122);
    let mut accepted: Vec<String> = Vec::new();
    let mut seen: BTreeMap<String, Value> = BTreeMap::new();
    let mut next = 0;
    for _ in 0..KILLS {
        let daemon = site.start().await;
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_millis(chance.random_range(50..900));
        while tokio::time::Instant::now() < deadline {
            let jobs: Vec<Value> = (next..next + 25).map(job).collect();
            let submitted = tokio::time::timeout_at(deadline, daemon.submit_lines(&jobs)).await;
            // A kill in the middle of a submit leaves it unacknowledged: the same keys are sent again next time.
            let Ok(Ok(ids)) = submitted else { break };
            accepted.extend(ids);
            next += 25;
        }
        for done in daemon.jobs("state=succeeded").await {
            let id = done["id"].as_str().unwrap().to_owned();
            if !seen.contains_key(&id) && seen.len() < 400 {
                let result = daemon.get(&format!("/v1/jobs/{id}")).await["result"].clone();
                seen.insert(id, result);
            }
        }
        accepted.extend(daemon.submit_lines(&(next..next + 100).map(job).collect::<Vec<_>>()).await.unwrap());
        next += 100;
        site.simulation.until_in_flight(3).await;
        daemon.kill();
    }
    let daemon = site.start().await;
    eventually("every job has ended", || async { daemon.jobs("state=queued,waiting,held,running").await.is_empty() })
        .await;
    let ended = daemon.jobs("").await;
    let by_id: BTreeMap<&str, &Value> = ended.iter().map(|job| (job["id"].as_str().unwrap(), job)).collect();
    let lost: Vec<&String> = accepted.iter().filter(|id| !by_id.contains_key(id.as_str())).collect();
    assert!(lost.is_empty(), "{} of {} accepted jobs are lost: {lost:?}", lost.len(), accepted.len());
    let failed: Vec<&&Value> = by_id.values().filter(|job| job["state"] != "succeeded").collect();
    // A job that was in flight alone at three crashes in a row is rightly suspected of causing them.
    assert!(failed.iter().all(|job| job["reason_code"] == "crashed_worker" || job["state"] == "failed"), "{failed:?}");
    assert!(failed.len() <= 2, "{failed:?}");
    for (id, result) in &seen {
        assert_eq!(&daemon.get(&format!("/v1/jobs/{id}")).await["result"], result, "the result of {id} changed");
    }
    let keys: BTreeSet<&str> = ended.iter().map(|job| job["idempotency_key"].as_str().unwrap()).collect();
    assert_eq!(keys.len(), ended.len(), "a key has two jobs");
    let mut unknown = 0;
    for job in ended.iter().filter(|job| job["attempt_count"].as_u64() > Some(1)) {
        let whole = daemon.get(&format!("/v1/jobs/{}", job["id"].as_str().unwrap())).await;
        unknown +=
            whole["attempts"].as_array().unwrap().iter().filter(|attempt| attempt["outcome"] == "unknown").count();
    }
    println!(
        "{KILLS} kills: {} accepted, {} ended, 0 lost, {unknown} calls whose end nobody saw",
        accepted.len(),
        ended.len()
    );
    assert!(unknown > 0, "no kill hit a call: the test proves nothing");
    daemon.stop();
    let database = rusqlite::Connection::open(site.store_file()).unwrap();
    let check: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_in_flight_at_a_crash_are_unknown_possibly_billed_and_made_again_at_once() {
    let site = Site::new(SPEC).await;
    slow(&site, "20s");
    let daemon = site.start().await;
    let ids = daemon.submit_lines(&(0..6).map(job).collect::<Vec<_>>()).await.unwrap();
    running(&daemon, 6).await;
    daemon.kill();
    slow(&site, "1ms");
    let daemon = site.start().await;
    for id in &ids {
        let job = daemon.ended_job(id).await;
        let attempts = job["attempts"].as_array().unwrap();
        assert_eq!((&job["state"], attempts.len()), (&json!("succeeded"), 2), "{job}");
        assert_eq!((&attempts[0]["outcome"], &attempts[0]["possibly_billed"]), (&json!("unknown"), &json!(true)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspect_that_was_held_at_the_start_runs_once_it_may() {
    let site = Site::new(SPEC).await;
    site.save("pipelines/other.yaml", &SPEC.replace("name: triage", "name: other"));
    slow(&site, "15s");
    let daemon = site.start().await;
    let id = daemon.post("/v1/jobs", job(1)).await["id"].as_str().unwrap().to_owned();
    running(&daemon, 1).await;
    daemon.kill();
    let daemon = site.start().await;
    eventually("the job is at a provider again", || async {
        let job = daemon.get(&format!("/v1/jobs/{id}")).await;
        job["state"] == "running" && job["attempt_count"] == 2
    })
    .await;
    daemon.post("/v1/ops/flags", json!({ "flag": "PAUSE", "pipeline": "triage" })).await;
    daemon.kill();
    slow(&site, "1ms");
    let daemon = site.start().await;
    eventually("it is held", || async { daemon.get(&format!("/v1/jobs/{id}")).await["state"] == "held" }).await;
    // When a job of another pipeline has ended, the daemon has looked for suspects, and found that none may run.
    let mut other = job(2);
    other["pipeline"] = json!("other");
    let other = daemon.post("/v1/jobs", other).await["id"].as_str().unwrap().to_owned();
    assert_eq!(daemon.ended_job(&other).await["state"], "succeeded");
    daemon.post("/v1/ops/flags", json!({ "flag": "PAUSE", "pipeline": "triage", "value": false })).await;
    assert_eq!(daemon.ended_job(&id).await["state"], "succeeded");
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_in_flight_at_crash_after_crash_is_quarantined_and_the_others_go_on() {
    let site = Site::new(&format!("{SPEC}limits: {{ concurrency: 1 }}\n")).await;
    slow(&site, "15s");
    let daemon = site.start().await;
    let poison = daemon.post("/v1/jobs", job(1)).await["id"].as_str().unwrap().to_owned();
    running(&daemon, 1).await;
    daemon.kill();
    for attempts in 2..=3 {
        let daemon = site.start().await;
        eventually("the job is at a provider again", || async {
            let job = daemon.get(&format!("/v1/jobs/{poison}")).await;
            job["state"] == "running" && job["attempt_count"] == attempts
        })
        .await;
        daemon.kill();
    }
    slow(&site, "1ms");
    let daemon = site.start().await;
    let job_record = daemon.ended_job(&poison).await;
    assert_eq!(
        (&job_record["state"], &job_record["reason_code"]),
        (&json!("failed"), &json!("crashed_worker")),
        "{job_record}"
    );
    let id = daemon.post("/v1/jobs", job(2)).await["id"].as_str().unwrap().to_owned();
    assert_eq!(daemon.ended_job(&id).await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_on_the_same_store_is_refused() {
    let site = Site::new(SPEC).await;
    let daemon = site.start().await;
    let (code, said) = site.start_refused();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("landbridge.db") && said.contains(&daemon.pid().to_string()), "{said}");
    daemon.stop();
    site.start().await.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_whose_folder_cannot_be_made_is_refused_with_its_path() {
    let site = Site::new(SPEC).await;
    std::fs::write(site.path().join("data"), "a file, not a folder").unwrap();
    let (code, said) = site.start_refused();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("data"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_submits_loses_nothing_and_mends_itself() {
    let site = Site::new(SPEC).await;
    let data = site.path().join("data");
    std::fs::create_dir_all(&data).unwrap();
    let mount = format!("mount -t tmpfs -o size=6m,mode=700 tmpfs {} && exec \"$@\"", data.display());
    let private = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", &mount, "sh"];
    let possible =
        std::process::Command::new("unshare").args(["--user", "--map-root-user", "--mount", "true"]).status();
    assert!(
        possible.is_ok_and(|status| status.success()),
        "this test fills a small file system of its own, for which it needs `unshare` (Debian: util-linux) and user namespaces"
    );
    let daemon = site.start_wrapped(&private).await;
    let mut accepted = Vec::new();
    let mut refused = None;
    let started = tokio::time::Instant::now();
    let mut n = 0;
    while refused.is_none() {
        assert!(started.elapsed() < PATIENCE, "the disk never filled");
        let mut job = job(n);
        n += 1;
        job["body"]["messages"][0]["content"] = json!("x".repeat(60_000));
        let (status, answer) = daemon.post_any("/v1/jobs", job.to_string()).await;
        match status {
            202 => accepted.push(answer["id"].as_str().unwrap().to_owned()),
            503 => refused = Some(answer),
            other => panic!("{other}: {answer}"),
        }
    }
    let refused = refused.unwrap().to_string();
    assert!(refused.contains("full") || refused.contains("space"), "{refused}");
    // Every accepted job is still readable, and the daemon still serves.
    for id in accepted.iter().step_by(7) {
        assert_eq!(daemon.get(&format!("/v1/jobs/{id}")).await["id"], id.as_str());
    }
    assert_eq!(daemon.text("/healthz").await, "ok\n");
    // Space again: the mount grows, and what was accepted ends.
    let grow = std::process::Command::new("nsenter")
        .args(["--user", "--mount", "--preserve-credentials", "-t", &daemon.pid().to_string()])
        .args(["mount", "-o", "remount,size=64m"])
        .arg(&data)
        .output()
        .unwrap();
    assert!(grow.status.success(), "{}", String::from_utf8_lossy(&grow.stderr));
    for id in &accepted {
        let job = daemon.ended_job(id).await;
        assert_eq!(job["state"], "succeeded", "{job}");
    }
    let (status, answer) = daemon.post_any("/v1/jobs", job(1_000_000).to_string()).await;
    assert_eq!(status, 202, "{answer}");
}
