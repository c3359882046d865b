//! The further ways to a model, on the real binary: streamed, signed in OpenAI's form, invoked in a model's own.

use landbridge::simulate::Outcome;
use serde_json::{Value, json};

use super::{
    flow::configure,
    site::{Site, eventually},
};

const SPEC: &str = r#"version: 1
name: triage
targets:
  streamed: { provider: openai, model: gpt-5.4-mini, timeout: 20s, idle_timeout: 1s, stream: true }
  converse: { provider: bedrock, model: us.anthropic.claude-haiku-4-5-20251001-v1:0, timeout: 20s, stream: true, defaults: { max_tokens: 64 } }
  native: { provider: native, model: "openai.gpt-oss-120b-1:0", timeout: 20s, defaults: { max_tokens: 64 } }
  native-streamed: { provider: native, model: "openai.gpt-oss-120b-1:0", timeout: 20s, stream: true, defaults: { max_tokens: 64 } }
  claude: { provider: bedrock, model: us.anthropic.claude-haiku-4-5-20251001-v1:0, timeout: 20s, invoke: claude, defaults: { max_tokens: 64 } }
  llama: { provider: bedrock, model: "arn:aws:bedrock:us-west-2:123456789012:imported-model/a1b2c3", timeout: 20s, invoke: llama, stream: true, defaults: { max_tokens: 64 } }
route:
  - { name: streamed, when: job.metadata.to == "streamed", to: streamed }
  - { name: converse, when: job.metadata.to == "converse", to: converse }
  - { name: native, when: job.metadata.to == "native", to: native }
  - { name: native-streamed, when: job.metadata.to == "native-streamed", to: native-streamed }
  - { name: claude, when: job.metadata.to == "claude", to: claude }
  - { name: llama, to: llama }
retry: { attempts: 4, initial_delay: 50ms, max_delay: 500ms }
"#;

async fn site() -> Site {
    let site = Site::new(SPEC).await;
    let settings = std::fs::read_to_string(site.path().join("config/landbridge.yaml")).unwrap();
    let native = format!(
        "  native: {{ api: openai, auth: aws, region: eu-west-1, base_url: \"{}/openai/v1\" }}\n",
        site.simulation.bedrock_endpoint_url()
    );
    site.save("config/landbridge.yaml", &(settings + &native));
    site
}

fn job(to: &str) -> Value {
    json!({ "pipeline": "triage", "metadata": { "to": to },
        "body": { "model": "x", "messages": [{ "role": "user", "content": "Hello there. How are you?" }] } })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_leads_to_the_same_answer() {
    let site = site().await;
    let daemon = site.start().await;
    for to in ["streamed", "converse", "native", "native-streamed", "claude", "llama"] {
        let id = daemon.post("/v1/jobs", job(to)).await["id"].as_str().unwrap().to_owned();
        let ended = daemon.ended_job(&id).await;
        assert_eq!((&ended["state"], &ended["target"]), (&json!("succeeded"), &json!(to)), "{ended}");
        let result = &ended["result"];
        assert_eq!(result["object"], "chat.completion", "{ended}");
        assert_eq!(result["choices"][0]["message"]["content"], "Simulated answer: Hello there.", "{ended}");
        assert_eq!(result["choices"][0]["finish_reason"], "stop", "{ended}");
        assert!(ended["usage"].is_object() && result["usage"]["total_tokens"].as_u64().unwrap() > 0, "{ended}");
        let entry = site.simulation.journal(0, 99).data.pop().unwrap();
        let region = match to {
            "streamed" => None,
            "converse" | "claude" => Some("us-east-1"),
            "llama" => Some("us-west-2"),
            _ => Some("eu-west-1"),
        };
        assert_eq!((entry.region.as_deref(), entry.outcome), (region, Outcome::Answered), "{to}");
    }
    let first = "landbridge_time_to_first_token_seconds_count{pipeline=\"triage\",target=";
    for (target, timed) in [("streamed", true), ("native-streamed", true), ("llama", true), ("native", false)] {
        let count = daemon.metric(&format!("{first}\"{target}\"}}")).await;
        assert_eq!(count.is_some_and(|count| count > 0.0), timed, "{target}");
    }
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_dies_is_tried_again_and_both_calls_are_told() {
    let site = site().await;
    let faults = ["openai=stream-cut,pieces=3,count=1", "bedrock=stream-error,pieces=2,count=1"];
    configure(&site, |config| config.faults = faults.iter().map(|fault| fault.parse().unwrap()).collect());
    let daemon = site.start().await;
    for (to, fault) in [("streamed", "unknown"), ("converse", "transient")] {
        let id = daemon.post("/v1/jobs", job(to)).await["id"].as_str().unwrap().to_owned();
        let ended = daemon.ended_job(&id).await;
        assert_eq!(ended["state"], "succeeded", "{ended}");
        assert_eq!(ended["result"]["choices"][0]["message"]["content"], "Simulated answer: Hello there.", "{ended}");
        let attempts = ended["attempts"].as_array().unwrap();
        assert_eq!(attempts.len(), 2, "{ended}");
        assert_eq!((&attempts[0]["outcome"], &attempts[0]["fault"]), (&json!("failed"), &json!(fault)), "{ended}");
        assert_eq!(attempts[1]["outcome"], "succeeded", "{ended}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_stalls_is_given_up_and_one_that_is_cancelled_hung_up() {
    let site = site().await;
    configure(&site, |config| config.faults = vec!["openai=stream-stall,pieces=3,count=1".parse().unwrap()]);
    let daemon = site.start().await;
    let id = daemon.post("/v1/jobs", job("streamed")).await["id"].as_str().unwrap().to_owned();
    let ended = daemon.ended_job(&id).await;
    assert_eq!(ended["state"], "succeeded", "{ended}");
    assert!(ended["attempts"][0]["message"].as_str().unwrap().contains("silent for 1s"), "{ended}");
    // A job that is cancelled while its answer comes in: the provider stops working on it.
    configure(&site, |config| config.faults = vec!["bedrock=stream-stall,pieces=3".parse().unwrap()]);
    site.simulation.reset();
    let id = daemon.post("/v1/jobs", job("converse")).await["id"].as_str().unwrap().to_owned();
    site.simulation.until_in_flight(1).await;
    daemon.post(&format!("/v1/jobs/{id}/cancel"), json!({})).await;
    eventually("the call is hung up", || async {
        site.simulation.journal(0, 9).data.iter().any(|entry| entry.outcome == Outcome::Cancelled)
    })
    .await;
}
