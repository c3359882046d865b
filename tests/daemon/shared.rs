//! Several daemons on one PostgreSQL: they behave as one.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    flow::slow,
    site::{SPEC, Site, eventually, job},
};

#[path = "../../src/store/postgres/tests/server.rs"]
mod server;

async fn shared(server: &server::Server) -> Site {
    let mut site = Site::new(SPEC).await;
    site.set("LANDBRIDGE_STORE", &server.url(&server.database()));
    site.set("LANDBRIDGE_LEASE", "2s");
    site
}

#[tokio::test(flavor = "multi_thread")]
async fn two_daemons_share_queue_levers_and_each_others_fate() {
    let server = server::Server::start();
    let site = shared(&server).await;
    let [first, second] = [site.start().await, site.start().await];
    let ids = first.submit_lines(&(0..60).map(job).collect::<Vec<_>>()).await.unwrap();
    for id in &ids {
        assert_eq!(second.ended_job(id).await["state"], "succeeded");
    }
    // The same key is the same job, wherever it is sent.
    assert_eq!(second.submit_lines(&[job(7)]).await.unwrap(), [ids[7].clone()]);

    let started = Instant::now();
    first.post("/v1/ops/flags", json!({ "flag": "PAUSE", "value": true, "reason": "a test" })).await;
    let held = || async {
        second.get("/v1/ops/flags").await.to_string().contains("PAUSE")
            && second.text("/metrics").await.contains("landbridge_flag_active{flag=\"PAUSE\",scope=\"all\"} 1")
    };
    eventually("the other daemon knows the flag", held).await;
    println!("a flag was seen elsewhere after {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(1));
    let paused = second.submit_lines(&(100..110).map(job).collect::<Vec<_>>()).await.unwrap();
    first.post("/v1/ops/flags", json!({ "flag": "PAUSE", "value": false, "reason": "a test" })).await;
    for id in &paused {
        assert_eq!(first.ended_job(id).await["state"], "succeeded");
    }

    // One dies with calls in flight: the other takes them when its lease has run out.
    slow(&site, "3s");
    let more = first.submit_lines(&(200..240).map(job).collect::<Vec<_>>()).await.unwrap();
    site.simulation.until_in_flight(20).await;
    first.kill();
    slow(&site, "5ms");
    let mut unseen = 0;
    for id in &more {
        let job = second.ended_job(id).await;
        assert_eq!(job["state"], "succeeded", "{job}");
        unseen += job["attempts"].as_array().unwrap().iter().filter(|call| call["outcome"] == "unknown").count();
    }
    assert!(unseen > 0, "the daemon that died had nothing in flight");
    let jobs = second.jobs("").await;
    assert_eq!(jobs.len(), 110);
    assert!(jobs.iter().all(|job: &Value| job["state"] == "succeeded"));

    // Started again, it knows itself, and both stop in good order.
    let first = site.start().await;
    first.stop();
    second.stop();
    assert_eq!(server.sql("d0", "SELECT count(*) FROM landbridge.nodes"), "2");
    assert_eq!(server.sql("d0", "SELECT count(*) FROM landbridge.jobs"), "0");
    assert_eq!(server.sql("d0", "SELECT count(*) FROM landbridge.calls"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_moves_from_a_file_to_a_database_and_goes_on() {
    let server = server::Server::start();
    let mut site = Site::new(SPEC).await;
    let daemon = site.start().await;
    let done = daemon.submit_lines(&(0..10).map(job).collect::<Vec<_>>()).await.unwrap();
    for id in &done {
        daemon.ended_job(id).await;
    }
    daemon.post("/v1/ops/flags", json!({ "flag": "PAUSE", "value": true, "reason": "moving" })).await;
    let left = daemon.submit_lines(&(10..30).map(job).collect::<Vec<_>>()).await.unwrap();
    let copy = site.path().join("copy.db");
    let copied = site.command(&["store", "backup", copy.to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8_lossy(&copied.stdout).into_owned();
    assert!(copied.status.success() && said.contains("30 jobs"), "{said}{}", String::from_utf8_lossy(&copied.stderr));
    let refused = site.command(&["store", "backup", copy.to_str().unwrap()]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "a backup replaces nothing");

    let url = server.url(&server.database());
    site.set("TARGET", &url);
    let from = format!("sqlite:{}", site.store_file().display());
    let migrate = || site.command(&["store", "migrate", &from, "env:TARGET"]).output().unwrap();
    let busy = migrate();
    assert!(!busy.status.success() && String::from_utf8_lossy(&busy.stderr).contains("has it"), "the daemon runs");
    daemon.stop();
    let moved = migrate();
    let said = String::from_utf8_lossy(&moved.stdout).into_owned();
    assert!(
        moved.status.success() && said.contains("jobs: 30 rows"),
        "{said}{}",
        String::from_utf8_lossy(&moved.stderr)
    );
    // The copy holds the same.
    let copied = format!("sqlite:{}", copy.display());
    let other = server.url(&server.database());
    site.set("TARGET", &other);
    let moved = site.command(&["store", "migrate", &copied, "env:TARGET"]).output().unwrap();
    assert!(moved.status.success(), "{}", String::from_utf8_lossy(&moved.stderr));

    site.set("LANDBRIDGE_STORE", &url);
    let daemon = site.start().await;
    assert_eq!(daemon.jobs("").await.len(), 30);
    for id in &done {
        assert_eq!(daemon.ended_job(id).await["state"], "succeeded");
    }
    assert!(daemon.jobs("state=queued,held").await.len() >= 20, "the pause moved, too");
    daemon.post("/v1/ops/flags", json!({ "flag": "PAUSE", "value": false, "reason": "moved" })).await;
    for id in &left {
        assert_eq!(daemon.ended_job(id).await["state"], "succeeded");
    }
    daemon.stop();
}
