//! A running simulation: waiting, hanging up, asking, changing, stopping.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;
use crate::simulate::{Outcome, SimulationConfig};

fn configured(latency: &[&str], faults: &[&str]) -> SimulationConfig {
    SimulationConfig {
        latency: latency.iter().map(|text| text.parse().unwrap()).collect(),
        faults: faults.iter().map(|text| text.parse().unwrap()).collect(),
        ..SimulationConfig::default()
    }
}

async fn admin(simulation: &Simulation, path: &str) -> Value {
    send(http().get(format!("{}/_simulate/{path}", simulation.bedrock_endpoint_url()))).await.json()
}

#[tokio::test]
async fn a_caller_that_hangs_up_is_counted_as_cancelled() {
    for fault in ["hang", "slow-drip,over=1h"] {
        let simulation = simulation(&[&format!("all={fault}")], &[]).await;
        let request = chat_request(&simulation, &hello());
        let call = tokio::spawn(send(request));
        simulation.until_in_flight(1).await;
        call.abort();
        simulation.until_ended(1).await;
        let entry = simulation.journal(0, 10).data.remove(0);
        assert_eq!((entry.outcome, entry.status), (Outcome::Cancelled, None), "{fault}");
        assert_eq!(entry.fault, fault.split(',').next());
        assert_eq!(simulation.counts().in_flight, 0);
    }
}

#[tokio::test]
async fn a_caller_that_hangs_up_during_the_latency_gives_its_tokens_back() {
    let simulation = Simulation::start(SimulateOptions {
        bedrock_latency: Some("1h".parse().unwrap()),
        ..options(&[], &["bedrock=tpm=60000"])
    })
    .await
    .unwrap();
    let url = format!("{}/model/m/converse", simulation.bedrock_endpoint_url());
    let body =
        json!({"messages": [{"role": "user", "content": [{"text": "hi"}]}], "inferenceConfig": {"maxTokens": 900}});
    for round in 1..=3 {
        let call = tokio::spawn(send(http().post(&url).json(&body)));
        simulation.until_in_flight(1).await;
        call.abort();
        simulation.until_ended(round).await;
    }
    let outcomes: Vec<Outcome> = simulation.journal(0, 10).data.iter().map(|entry| entry.outcome).collect();
    assert_eq!(outcomes, [Outcome::Cancelled; 3]);
}

#[tokio::test]
async fn latency_is_waited_for() {
    let simulation = simulation(&[], &[]).await;
    simulation.configure(configured(&["openai=300ms"], &[])).unwrap();
    let begun = Instant::now();
    assert_eq!(chat(&simulation, hello()).await.status, 200);
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert!(simulation.journal(0, 1).data[0].took_ms >= 300);
}

#[tokio::test]
async fn calls_wait_side_by_side() {
    let simulation = simulation(&[], &[]).await;
    simulation.configure(configured(&["openai=1h"], &[])).unwrap();
    let client = http();
    let url = format!("{}/chat/completions", simulation.openai_base_url());
    let calls: Vec<_> = (0..200).map(|_| tokio::spawn(send(client.post(&url).json(&hello())))).collect();
    simulation.until_in_flight(200).await;
    assert_eq!(simulation.counts().peak_in_flight, 200);
    for call in calls {
        call.abort();
    }
    simulation.until_ended(200).await;
    assert_eq!(simulation.counts().by_model[0].calls, 200);
}

#[tokio::test]
async fn a_dripping_answer_is_whole_in_the_end() {
    let simulation = simulation(&["all=slow-drip,over=100ms"], &[]).await;
    let begun = Instant::now();
    let reply = chat(&simulation, hello()).await;
    assert_eq!(reply.json()["choices"][0]["message"]["content"], "Simulated answer: Hello there.");
    assert!(begun.elapsed() >= Duration::from_millis(90));
    simulation.until_ended(1).await;
    assert_eq!(simulation.counts().answered, 1);
}

#[tokio::test]
async fn a_reset_lets_so_many_bytes_through_and_no_more() {
    for bytes in [0_usize, 1, 20, 1_000_000] {
        let simulation = simulation(&[&format!("openai=reset,bytes={bytes}")], &[]).await;
        let body = hello().to_string();
        let mut stream = TcpStream::connect(simulation.address()).await.unwrap();
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut got = Vec::new();
        let end = stream.read_to_end(&mut got).await;
        let error = end.expect_err("the connection ended in good order");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{bytes}");
        if bytes < 1_000 {
            assert_eq!(got.len(), bytes);
        } else {
            assert!(got.starts_with(b"HTTP/1.1 200"), "{bytes}");
        }
        assert_eq!(simulation.counts().by_model[0].outcome, Outcome::Failed);
    }
}

#[tokio::test]
async fn proxies_and_broken_bodies_are_played() {
    let simulation = simulation(&["openai=bad-gateway,count=1", "openai=broken-json,count=1"], &[]).await;
    let gateway = chat(&simulation, hello()).await;
    assert_eq!((gateway.status, gateway.header("content-type")), (502, Some("text/html")));
    assert!(gateway.text.starts_with("<html>"));
    let broken = chat(&simulation, hello()).await;
    assert_eq!(broken.status, 200);
    assert!(serde_json::from_str::<Value>(&broken.text).is_err());
    assert_eq!(chat(&simulation, hello()).await.json()["object"], "chat.completion");
    let filtered = super::simulation(&["openai=content-filter"], &[]).await;
    let choice = chat(&filtered, hello()).await.json()["choices"][0].clone();
    assert_eq!(choice["finish_reason"], "content_filter");
}

#[tokio::test]
async fn settings_are_shown_and_changed_at_run_time() {
    let simulation = simulation(&["bedrock=hang"], &["openai/gpt-*=rpm=500"]).await;
    let url = format!("{}/_simulate/config", simulation.bedrock_endpoint_url());
    let mut shown = admin(&simulation, "config").await;
    assert_eq!(shown["faults"], json!(["bedrock=hang"]));
    assert_eq!(shown["quotas"], json!(["openai/gpt-*=requests_per_minute=500"]));
    assert_eq!(shown["burst"], "1s");
    shown["faults"] = json!(["openai=server-error,count=1"]);
    let changed = send(http().put(&url).json(&shown)).await;
    assert_eq!((changed.status, changed.json()), (200, shown.clone()));
    assert_eq!(chat(&simulation, hello()).await.status, 500);
    assert_eq!(chat(&simulation, hello()).await.status, 200);
    for (wrong, message) in [
        (json!({"fault": []}), "unknown field `fault`"),
        (json!({"faults": ["all=explode"]}), "unknown fault"),
        (json!({"burst": "soon"}), "not a span of time"),
        (json!({"journal": 10_000_000}), "`journal` keeps at most"),
        (json!({"latency": vec!["all=1s"; 1_001]}), "at most 1000 rules"),
        (json!([1]), "no settings"),
    ] {
        let reply = send(http().put(&url).json(&wrong)).await;
        let said = reply.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(reply.status == 422 && said.contains(message), "{wrong}: {said}");
        assert_eq!(admin(&simulation, "config").await, shown, "{wrong}");
    }
}

#[tokio::test]
async fn the_journal_is_bounded_and_can_be_followed() {
    let simulation = Simulation::start(SimulateOptions { journal: 3, ..SimulateOptions::default() }).await.unwrap();
    for _ in 0..5 {
        chat(&simulation, hello()).await;
    }
    let page = admin(&simulation, "journal?after=1&limit=2").await;
    let numbers: Vec<_> = page["data"].as_array().unwrap().iter().map(|entry| entry["n"].clone()).collect();
    assert_eq!((numbers, &page["next"], &page["forgotten"]), (vec![json!(3), json!(4)], &json!(4), &json!(1)));
    let rest = admin(&simulation, "journal?after=4").await;
    assert_eq!((rest["data"].as_array().unwrap().len(), &rest["next"]), (1, &json!(5)));
    let none = admin(&simulation, "journal?after=5").await;
    assert_eq!((none["data"].clone(), &none["next"]), (json!([]), &json!(5)));
    let entry = &rest["data"][0];
    assert_eq!(
        (&entry["api"], &entry["status"], &entry["outcome"]),
        (&json!("openai"), &json!(200), &json!("answered"))
    );
    let wrong = send(http().get(format!("{}/_simulate/journal?since=1", simulation.bedrock_endpoint_url()))).await;
    assert_eq!(wrong.status, 400);
}

#[tokio::test]
async fn what_was_asked_twice_is_found_on_either_side() {
    let simulation = simulation(&["bedrock=server-error,count=1"], &[]).await;
    let openai = json!({"model": "m", "metadata": {"job": "job_7"}, "messages": [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "One."}]});
    let bedrock = json!({"system": [{"text": "Another text."}], "messages": [{"role": "user", "content": [{"text": "One."}]}],
        "requestMetadata": {"note": "job_7"}});
    let url = format!("{}/model/m/converse", simulation.bedrock_endpoint_url());
    chat(&simulation, openai).await;
    send(http().post(&url).json(&bedrock)).await;
    send(http().post(&url).json(&bedrock)).await;
    chat(&simulation, hello()).await;
    let counted = admin(&simulation, "counts?list=prompts").await;
    let counts = &counted["counts"];
    assert_eq!((&counts["calls"], &counts["answered"]), (&json!(4), &json!(3)));
    assert_eq!(counts["prompts"], json!({"distinct": 2, "called_again": 1, "answered_again": 1, "not_counted": 0}));
    assert_eq!(counts["jobs"], json!({"distinct": 1, "called_again": 1, "answered_again": 1, "not_counted": 0}));
    let list = counted["list"].as_array().unwrap();
    assert_eq!((list.len(), &list[0]["calls"], &list[0]["answered"]), (1, &json!(3), &json!(2)));
    // A script can compute the hash of a prompt: the first 16 digits of the SHA-256 of its texts.
    assert_eq!(list[0]["key"], "70277bfc409b5021");
    assert_eq!(admin(&simulation, "counts?list=jobs&min=1").await["list"][0]["key"], "job_7");
    send(http().post(format!("{}/_simulate/reset", simulation.bedrock_endpoint_url()))).await;
    assert_eq!(simulation.counts().calls, 0);
    assert_eq!(simulation.prompts_called(1, 10), []);
}

#[tokio::test]
async fn attempts_of_one_job_are_one_job() {
    let simulation = simulation(&[], &[]).await;
    let job = "job_0123456789abcdef0123456789abcdef";
    for id in [format!("{job}-00000001"), format!("{job}-00000002"), "something-else".to_owned()] {
        send(chat_request(&simulation, &hello()).header("x-client-request-id", id)).await;
    }
    let jobs: Vec<Option<String>> = simulation.journal(0, 3).data.into_iter().map(|entry| entry.job).collect();
    assert_eq!(jobs, [Some(job.to_owned()), Some(job.to_owned()), Some("something-else".to_owned())]);
    assert_eq!((simulation.counts().jobs.distinct, simulation.counts().jobs.answered_again), (2, 1));
}

#[tokio::test]
async fn too_large_a_body_is_refused() {
    let simulation = simulation(&[], &[]).await;
    let reply = chat_request(&simulation, &json!({})).body(vec![b' '; 33 << 20]).send().await;
    // The refusal may be overtaken by the closed connection; either way the server lives.
    if let Ok(reply) = reply {
        assert_eq!(reply.status(), 413);
    }
    assert_eq!(chat(&simulation, hello()).await.status, 200);
}

#[tokio::test]
async fn stopping_ends_calls_that_wait_and_frees_the_port() {
    let simulation = simulation(&["all=hang"], &[]).await;
    let port = simulation.address().port();
    let call = tokio::spawn(send(chat_request(&simulation, &hello())));
    simulation.until_in_flight(1).await;
    let begun = Instant::now();
    simulation.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(call.await.unwrap().status, 503);
    let again = Simulation::start(SimulateOptions { port, ..SimulateOptions::default() }).await.unwrap();
    assert_eq!(chat(&again, hello()).await.status, 200);
    let error = Simulation::start(SimulateOptions { port, ..SimulateOptions::default() }).await.unwrap_err();
    assert!(error.to_string().contains("choose another port"), "{error}");
}

#[test]
fn the_command_line_becomes_settings() {
    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        options: SimulateOptions,
    }
    use clap::Parser;
    let parse = |arguments: &[&str]| Command::try_parse_from([&["simulate"], arguments].concat());
    let options = parse(&[
        "--openai-latency",
        "200ms",
        "--latency",
        "openai/gpt-5*=1s",
        "--quota",
        "bedrock=tpm=1000",
        "--fault",
        "all=hang,count=1",
        "--fault",
        "all=throttled",
        "--burst",
        "2s",
    ])
    .unwrap()
    .options;
    let config = serde_json::to_value(options.config()).unwrap();
    assert_eq!(config["latency"], json!(["openai=200ms", "openai/gpt-5*=1s"]));
    assert_eq!(config["quotas"], json!(["bedrock=tokens_per_minute=1000"]));
    assert_eq!(config["faults"], json!(["all=hang,count=1", "all=throttled"]));
    assert_eq!((&config["burst"], &config["journal"]), (&json!("2s"), &json!(10_000)));
    assert_eq!(parse(&[]).unwrap().options.config(), SimulationConfig::default());
    assert!(parse(&["--fault", "all=explode"]).is_err_and(|error| error.to_string().contains("unknown fault")));
    assert!(parse(&["--journal", "99999999"]).is_err());
}
