//! The real clients over real sockets.

mod calls;
mod credentials;
mod losses;
mod many;
mod native;
mod server;
mod service_quotas;
mod streams;

use std::{sync::Arc, time::Duration};

use rustls::pki_types::CertificateDer;
use serde_json::json;

use super::*;
use crate::{
    names::{Region, TargetName},
    spec::{Api, Fidelity, Residency},
    wire::{self, Reading},
};

const CLAUDE: &str = "us.anthropic.claude-haiku-4-5-20251001-v1:0";
/// Long enough for a busy machine; nothing waits for it to pass.
const PATIENCE: Duration = Duration::from_mins(2);

const COMPLETION: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,
    "message":{"role":"assistant","content":"pong"},"finish_reason":"stop"}],
    "usage":{"prompt_tokens":12,"completion_tokens":3,"total_tokens":15}}"#;
const CONVERSED: &str = r#"{"output":{"message":{"role":"assistant","content":[{"text":"pong"}]}},
    "stopReason":"end_turn","usage":{"inputTokens":12,"outputTokens":3,"totalTokens":15},"metrics":{"latencyMs":5}}"#;

fn target(api: Api, model: &str) -> Target {
    Target {
        name: TargetName::new("there").unwrap(),
        provider: ProviderName::new("somebody").unwrap(),
        api,
        model: model.to_owned(),
        region: (api == Api::Bedrock).then(|| Region::new("eu-west-3").unwrap()),
        residency: Residency::Unknown,
        timeout: PATIENCE,
        idle_timeout: PATIENCE,
        stream: false,
        invoke: None,
        defaults: serde_json::Map::new(),
        overrides: serde_json::Map::new(),
        cap: serde_json::Map::new(),
        system: None,
        fidelity: Fidelity::Warn,
    }
}

fn call_with(api: Api, body: &serde_json::Value) -> Call {
    let target = target(api, if api == Api::Bedrock { CLAUDE } else { "gpt-4o-mini" });
    let payload = wire::prepare(&target, None, body).unwrap().payload;
    Call {
        job: JobId::generate(),
        target: Arc::new(target),
        payload,
        reading: Reading::default(),
        timeout: PATIENCE,
        idle_timeout: PATIENCE,
    }
}

fn call(api: Api) -> Call {
    call_with(api, &json!({ "messages": [{ "role": "user", "content": "ping" }], "max_tokens": 10 }))
}

/// Both clients, pointed at one address.
async fn provider(api: Api, url: &str, roots: &[CertificateDer<'static>]) -> Arc<dyn Provider> {
    match api {
        Api::OpenAi => {
            let base_url = format!("{url}/v1/");
            let address =
                openai::Address { base_url: &base_url, api_key: None, organization: None, project: None, aws: None };
            Arc::new(openai::OpenAi::connect(&address, roots).await.unwrap())
        }
        Api::Bedrock => Arc::new(bedrock::Bedrock::for_test(url, &MediaSettings::default(), roots)),
    }
}
