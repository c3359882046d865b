//! Both clients against a server that this project did not write: `@copilotkit/aimock`, as OpenAI and as Bedrock.
//!
//! Needs Node 20 or newer and the package under `tests/servers`; without them it fails and says what to install.

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use landbridge::{
    ids::JobId,
    job::Fault,
    names::{ProviderName, Region, TargetName},
    provider::{Call, CallError, Reply, connect, install_crypto},
    settings::{ApiSettings, MediaSettings, ProviderSettings, Secret},
    spec::{Api, Fidelity, Residency, SystemMode, SystemPrompt, Target},
    usage::Usage,
    wire::prepare,
};
use serde_json::{Value, json};

const ADDRESS: &str = "LANDBRIDGE_TEST_AIMOCK";
const HOW: &str =
    "install Node 20 or newer (Debian: apt-get install nodejs npm), then run: (cd tests/servers && npm ci)";

/// The server's process; it ends with the value.
struct Aimock {
    process: Child,
    /// Kept open: a server whose log nobody reads would fail on its next line.
    _log: BufReader<ChildStdout>,
    url: String,
}

impl Drop for Aimock {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Aimock {
    fn start() -> Self {
        let servers = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers");
        let script: PathBuf = servers.join("node_modules/@copilotkit/aimock/dist/cli.js");
        assert!(script.exists(), "{} is missing: {HOW}", script.display());
        let mut process = Command::new("node")
            .arg(script)
            .args(["--port", "0", "--strict", "--validate-on-load", "--fixtures"])
            .arg(servers.join("aimock/fixtures.json"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("node cannot be run ({error}): {HOW}"));
        let mut log = BufReader::new(process.stdout.take().unwrap());
        let mut said = Vec::new();
        let found = log.by_ref().lines().map_while(Result::ok).find_map(|line| {
            let url = line.split_once("listening on ").map(|(_, url)| url.trim().to_owned());
            said.push(line);
            url
        });
        let server = Self { process, _log: log, url: found.unwrap_or_default() };
        assert!(server.url.starts_with("http://127.0.0.1:"), "aimock did not start: {said:?}");
        server
    }
}

/// AWS credentials come from the environment, which only a process of its own can have to itself.
#[test]
fn aimock_answers_both_clients() {
    let server = Aimock::start();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["both_clients", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(ADDRESS, &server.url)
        .env("AWS_ACCESS_KEY_ID", "AKIATEST")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .env("AWS_REGION", "us-east-1")
        .env("LANDBRIDGE_TEST_KEY", "sk-test")
        .env_remove("AWS_PROFILE")
        .env_remove("AWS_BEARER_TOKEN_BEDROCK")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "the inner test did not run");
}

fn target(api: Api) -> Arc<Target> {
    let model = if api == Api::Bedrock { "us.anthropic.claude-haiku-4-5-20251001-v1:0" } else { "gpt-4o-mini" };
    Arc::new(Target {
        name: TargetName::new("there").unwrap(),
        provider: ProviderName::new("somebody").unwrap(),
        api,
        model: model.to_owned(),
        region: (api == Api::Bedrock).then(|| Region::new("us-east-1").unwrap()),
        residency: Residency::Unknown,
        timeout: Duration::from_secs(30),
        idle_timeout: Duration::from_secs(30),
        stream: false,
        invoke: None,
        defaults: serde_json::Map::new(),
        overrides: serde_json::Map::new(),
        cap: serde_json::Map::new(),
        system: Some(SystemPrompt { text: "You are a support classifier.".to_owned(), mode: SystemMode::Prepend }),
        fidelity: Fidelity::Warn,
    })
}

fn settings(api: Api, url: &str) -> ProviderSettings {
    let api = match api {
        Api::OpenAi => ApiSettings::OpenAi {
            base_url: format!("{url}/v1"),
            api_key: Some(Secret::Env("LANDBRIDGE_TEST_KEY".to_owned())),
            organization: None,
            project: None,
            region: None,
            aws: None,
        },
        Api::Bedrock => ApiSettings::Bedrock {
            region: None,
            profile: None,
            role_arn: None,
            endpoint_url: Some(url.to_owned()),
            anonymous: false,
        },
    };
    ProviderSettings { family: None, data_regions: Vec::new(), api }
}

async fn ask(api: Api, url: &str, text: &str) -> Result<Reply, CallError> {
    let name = ProviderName::new("somebody").unwrap();
    let provider = connect(&name, &settings(api, url), &MediaSettings::default()).await.unwrap();
    let target = target(api);
    let body = json!({
        "messages": [{ "role": "user", "content": [{ "type": "text", "text": text }] }],
        "max_tokens": 50, "temperature": 0, "stop": ["END"],
    });
    let payload = prepare(&target, None, &body).unwrap().payload;
    provider
        .chat(Call {
            job: JobId::generate(),
            target,
            payload,
            reading: landbridge::wire::Reading::default(),
            timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(30),
        })
        .await
}

#[tokio::test]
#[ignore = "runs inside the test above, which starts the server"]
async fn both_clients() {
    install_crypto();
    let url = std::env::var(ADDRESS).expect("the test above sets the server's address");
    for api in [Api::OpenAi, Api::Bedrock] {
        // The fixture answers only if the target's system text arrived as such.
        let reply = ask(api, &url, "please classify this").await.unwrap();
        let completion: Value = serde_json::from_str(&reply.completion).unwrap();
        assert_eq!(completion["object"], "chat.completion", "{api}");
        assert_eq!(completion["choices"][0]["message"]["content"], "category: billing", "{api}");
        assert_eq!(completion["choices"][0]["finish_reason"], "stop", "{api}");
        assert_eq!(completion["usage"]["total_tokens"], 25, "{api}");
        assert_eq!(reply.usage, Some(Usage { input: 21, output: 4, ..Usage::default() }), "{api}");

        let error = ask(api, &url, "too fast").await.unwrap_err();
        assert_eq!((error.fault, error.status), (Fault::Throttled, Some(429)), "{api}: {error:?}");
        assert_eq!(error.retry_after, Some(Duration::from_secs(1)), "{api}");
        assert_eq!(error.message, "Rate limit reached for requests", "{api}");
        if api == Api::OpenAi {
            assert_eq!(error.rate_limit.limit_requests, Some(60));
            assert_eq!(error.rate_limit.reset_tokens, Some(Duration::from_mins(6)));
        }

        let error = ask(api, &url, "broken").await.unwrap_err();
        assert_eq!((error.fault, error.possibly_billed), (Fault::Transient, false), "{api}: {error:?}");
    }
}
