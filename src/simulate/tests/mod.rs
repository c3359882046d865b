//! The endpoints as clients see them: a bare HTTP client and the bare AWS SDK, over real sockets.

mod bedrock;
mod openai;
mod running;
mod streams;

use std::sync::Once;

use serde_json::{Value, json};

use super::{SimulateOptions, Simulation};

fn options(faults: &[&str], quotas: &[&str]) -> SimulateOptions {
    SimulateOptions {
        fault: faults.iter().map(|text| text.parse().unwrap()).collect(),
        quota: quotas.iter().map(|text| text.parse().unwrap()).collect(),
        ..SimulateOptions::default()
    }
}

async fn simulation(faults: &[&str], quotas: &[&str]) -> Simulation {
    Simulation::start(options(faults, quotas)).await.unwrap()
}

fn http() -> reqwest::Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    // No certificates are read: the endpoints speak plain HTTP.
    reqwest::Client::builder().tls_certs_only([]).build().unwrap()
}

/// A reply that has been read.
struct Read {
    status: u16,
    headers: reqwest::header::HeaderMap,
    text: String,
}

impl Read {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

async fn send(request: reqwest::RequestBuilder) -> Read {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Read { status, headers, text: response.text().await.unwrap() }
}

fn chat_request(simulation: &Simulation, body: &Value) -> reqwest::RequestBuilder {
    http().post(format!("{}/chat/completions", simulation.openai_base_url())).json(body)
}

async fn chat(simulation: &Simulation, body: Value) -> Read {
    send(chat_request(simulation, &body)).await
}

fn hello() -> Value {
    json!({"model": "gpt-5.4-mini", "messages": [{"role": "user", "content": "Hello there. How are you?"}]})
}
