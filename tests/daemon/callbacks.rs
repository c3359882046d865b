//! Callbacks from the real binary to a receiver that checks signatures with the official library.
//!
//! It needs what `./scripts/test` installs; without it these tests fail and say so.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use super::{
    batches::{lines, upload},
    flow::slow,
    site::{SPEC, Site, eventually, job},
};

const SECRETS: [&str; 2] = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"];

/// The receiver, and what it was told.
struct Receiver {
    child: Child,
    port: u16,
    told: Arc<Mutex<Vec<Value>>>,
    answers: PathBuf,
}

impl Receiver {
    fn start(site: &Site) -> Self {
        let python = std::env::var("LANDBRIDGE_TEST_PYTHON").unwrap_or_else(|_| {
            panic!("LANDBRIDGE_TEST_PYTHON is not set: run ./scripts/test, which installs what the tests drive")
        });
        let answers = site.path().join("answer");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/receiver.py");
        let mut child =
            Command::new(python).arg(script).arg(&answers).args(SECRETS).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.next().unwrap().unwrap().trim().parse().unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        std::thread::spawn({
            let told = told.clone();
            move || {
                for line in lines.map_while(Result::ok) {
                    told.lock().unwrap().push(serde_json::from_str(&line).unwrap());
                }
            }
        });
        Self { child, port, told, answers }
    }

    fn answer(&self, status: u16) {
        let beside = self.answers.with_extension("new");
        std::fs::write(&beside, status.to_string()).unwrap();
        std::fs::rename(beside, &self.answers).unwrap();
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/in", self.port)
    }

    fn told(&self) -> Vec<Value> {
        let told = self.told.lock().unwrap().clone();
        assert!(told.iter().all(|call| call.get("refused").is_none()), "a call did not verify: {told:?}");
        told
    }

    async fn until_told(&self, count: usize) -> Vec<Value> {
        eventually(&format!("{count} calls came"), || async { self.told().len() >= count }).await;
        self.told()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A site that may call the receiver, and signs with both secrets.
async fn site_and_receiver() -> (Site, Receiver) {
    let site = Site::new(SPEC).await;
    let receiver = Receiver::start(&site);
    for (name, secret) in ["new", "old"].into_iter().zip(SECRETS) {
        std::fs::write(site.path().join(name), secret).unwrap();
    }
    let places = ["new", "old"].map(|name| format!("{{ file: {}/{name} }}", site.path().display())).join(", ");
    site.add_settings(&format!(
        "callbacks: {{ secret: [{places}], allow: [\"http://127.0.0.1:{}\"], timeout: 5s }}\n",
        receiver.port
    ));
    (site, receiver)
}

fn job_calling(n: usize, url: &str) -> Value {
    let mut job = job(n);
    job["callback"] = url.into();
    job
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_told_once_signed_by_every_secret_and_without_contents() {
    let (site, receiver) = site_and_receiver().await;
    let daemon = site.start().await;
    let mut done = job_calling(1, &receiver.url());
    done["batch"] = "nightly".into();
    let done = daemon.post("/v1/jobs", done).await["id"].as_str().unwrap().to_owned();
    let told = receiver.until_told(1).await;
    let record = daemon.ended_job(&done).await;
    let (call, body) = (&told[0], &told[0]["body"]);
    assert_eq!((&call["id"], &body["id"]), (&json!(done.replace("job_", "msg_")), &call["id"]));
    assert_eq!((&body["type"], &body["object"]), (&json!("job.succeeded"), &json!("event")));
    let data = &body["data"];
    for (name, expected) in [
        ("id", json!(done)),
        ("pipeline", json!("triage")),
        ("state", json!("succeeded")),
        ("batch", json!("nightly")),
        ("idempotency_key", json!("k-1")),
        ("finished_at", record["finished_at"].clone()),
        ("usage", record["usage"].clone()),
        ("cost_usd", record["cost_usd"].clone()),
        ("target", record["target"].clone()),
    ] {
        assert_eq!(data[name], expected, "{name}: {data}");
    }
    let answer = record["result"]["choices"][0]["message"]["content"].as_str().unwrap();
    let words = body.to_string();
    assert!(!words.contains("ticket number") && !words.contains(answer), "contents left by the callback: {words}");
    eventually("the callback is known to be delivered", || async {
        daemon.get(&format!("/v1/jobs/{done}")).await["callback"]["state"] == "delivered"
    })
    .await;

    let mut cancelled = job_calling(2, &receiver.url());
    cancelled["not_before"] = "2999-01-01T00:00:00Z".into();
    cancelled["deadline"] = "2999-01-02T00:00:00Z".into();
    let cancelled = daemon.post("/v1/jobs", cancelled).await["id"].as_str().unwrap().to_owned();
    assert_eq!(daemon.get(&format!("/v1/jobs/{cancelled}")).await["callback"]["state"], "waiting");
    daemon.post(&format!("/v1/jobs/{cancelled}/cancel"), json!({})).await;
    let told = receiver.until_told(2).await;
    assert_eq!(
        (&told[1]["body"]["type"], &told[1]["body"]["data"]["id"]),
        (&json!("job.cancelled"), &json!(cancelled))
    );
    let shown = site.command(&["jobs", "show", &done, "--url", &daemon.url()]).output().unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains(&format!("callback    {}: delivered", receiver.url())), "{shown}");
    assert_eq!(daemon.metric("landbridge_callbacks_total{outcome=\"delivered\"}").await, Some(2.0));
    daemon.stop();
    assert_eq!(receiver.told().len(), 2, "nothing is told twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_the_settings_do_not_name_is_refused_at_submit() {
    let (site, receiver) = site_and_receiver().await;
    let daemon = site.start().await;
    for url in
        ["http://127.0.0.1:1/in", "https://hooks.example.com/in", "http://169.254.169.254/latest", "gopher://x", "x"]
    {
        let (status, answer) = daemon.post_any("/v1/jobs", job_calling(1, url).to_string()).await;
        assert_eq!((status, &answer["error"]["param"]), (400, &json!("callback")), "{url}: {answer}");
    }
    let (status, answer) = daemon.post_any("/v1/jobs", job_calling(1, "https://hooks.example.com").to_string()).await;
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(status == 400 && message.contains("callbacks: { allow: […] }"), "{message}");
    daemon.stop();

    let bare = Site::new(SPEC).await;
    let daemon = bare.start().await;
    let (status, answer) = daemon.post_any("/v1/jobs", job_calling(1, &receiver.url()).to_string()).await;
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(status == 400 && message.contains("callbacks: { secret:"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_an_end_and_its_callback_neither_loses_nor_invents_one() {
    let (site, receiver) = site_and_receiver().await;
    slow(&site, "uniform:5ms,40ms");
    // Nothing is delivered before the kills: what is told afterwards comes from the store.
    receiver.answer(503);
    let mut accepted = Vec::new();
    for round in 0..3 {
        let daemon = site.start().await;
        let jobs: Vec<Value> = (0..40).map(|n| job_calling(round * 40 + n, &receiver.url())).collect();
        accepted.extend(daemon.submit_lines(&jobs).await.unwrap());
        eventually("some have ended", || async { daemon.jobs("state=succeeded").await.len() > round * 30 + 5 }).await;
        daemon.kill();
    }
    receiver.answer(204);
    let before = receiver.told().len();
    let daemon = site.start().await;
    eventually("every callback is delivered", || async {
        let told = receiver.told();
        let taken = told.iter().filter(|call| call["status"] == 204).map(|call| call["id"].as_str().unwrap());
        taken.collect::<std::collections::BTreeSet<_>>().len() == accepted.len()
    })
    .await;
    let told = receiver.told();
    let known: std::collections::BTreeSet<String> = accepted.iter().map(|id| id.replace("job_", "msg_")).collect();
    for call in &told {
        let id = call["id"].as_str().unwrap();
        assert!(known.contains(id), "a callback that nobody asked for: {call}");
        assert_eq!(call["body"]["data"]["id"].as_str().unwrap().replace("job_", "msg_"), id);
    }
    eventually("no notice is left", || async { daemon.metric("landbridge_callback_delay_seconds").await == Some(0.0) })
        .await;
    let after = told.len() - before;
    println!("{} jobs, {before} refused calls before, {after} calls after the last kill", accepted.len());
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_fails_is_asked_again_and_one_that_wants_no_more_is_not() {
    let (site, receiver) = site_and_receiver().await;
    receiver.answer(302);
    let daemon = site.start().await;
    let id = daemon.post("/v1/jobs", job_calling(1, &receiver.url())).await["id"].as_str().unwrap().to_owned();
    receiver.until_told(1).await;
    eventually("the failure is shown", || async {
        let callback = daemon.get(&format!("/v1/jobs/{id}")).await["callback"].clone();
        callback["state"] == "due" && callback["last_error"].as_str().is_some_and(|why| why.contains("HTTP 302"))
    })
    .await;
    receiver.answer(204);
    let told = receiver.until_told(2).await;
    assert!(told.iter().all(|call| call["path"] == "/in"), "a redirect was followed: {told:?}");
    assert_eq!(
        (&told[0]["id"], &told[0]["body"]),
        (&told[1]["id"], &told[1]["body"]),
        "the same notice, word for word"
    );
    receiver.answer(410);
    let gone = daemon.post("/v1/jobs", job_calling(2, &receiver.url())).await["id"].as_str().unwrap().to_owned();
    eventually("it is given up", || async {
        daemon.get(&format!("/v1/jobs/{gone}")).await["callback"]["state"] == "given_up"
    })
    .await;
    assert_eq!(receiver.told().len(), 3);
    assert_eq!(daemon.metric("landbridge_callbacks_total{outcome=\"given_up\"}").await, Some(1.0));
    let shown = site.command(&["jobs", "show", &gone, "--url", &daemon.url()]).output().unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("was never told") && shown.contains("HTTP 410"), "{shown}");
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_told_as_the_official_client_expects() {
    let (site, receiver) = site_and_receiver().await;
    let daemon = site.start().await;
    let good = upload(&daemon, &lines(3)).await;
    let bad = upload(&daemon, "not json\n").await;
    let batch =
        |file: &str| json!({ "input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h" });
    let mut with_field = batch(&good);
    with_field["callback"] = receiver.url().into();
    let mut with_metadata = batch(&bad);
    with_metadata["metadata"] = json!({ "landbridge_callback": receiver.url() });
    let completed = daemon.post("/v1/batches", with_field.clone()).await["id"].clone();
    let failed = daemon.post("/v1/batches", with_metadata).await["id"].clone();
    let told = receiver.until_told(2).await;
    let of = |id: &Value| told.iter().find(|call| &call["body"]["data"]["id"] == id).unwrap();
    let (good, bad) = (of(&completed), of(&failed));
    assert_eq!(
        (&good["body"]["type"], &good["event"]),
        (&json!("batch.completed"), &json!("BatchCompletedWebhookEvent"))
    );
    assert_eq!((&bad["body"]["type"], &bad["event"]), (&json!("batch.failed"), &json!("BatchFailedWebhookEvent")));
    assert_eq!(good["body"]["data"]["request_counts"], json!({ "total": 3, "completed": 3, "failed": 0 }));
    let file = good["body"]["data"]["output_file_id"].as_str().unwrap();
    assert_eq!(daemon.text(&format!("/v1/files/{file}/content")).await.lines().count(), 3);

    with_field["metadata"] = json!({ "landbridge_callback": receiver.url() });
    let (status, answer) = daemon.post_any("/v1/batches", with_field.to_string()).await;
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("callback")), "{answer}");
    let mut refused = batch("file-1");
    refused["metadata"] = json!({ "landbridge_callback": "https://elsewhere.example.com" });
    let (status, answer) = daemon.post_any("/v1/batches", refused.to_string()).await;
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("metadata.landbridge_callback")), "{answer}");
    daemon.stop();
}
