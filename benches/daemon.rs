//! The daemon as a whole: speed, processor time and memory of the real binary against no-latency endpoints on loopback.
//!
//! `cargo bench --bench daemon` prints a table; every figure comes with the baseline it is to be read against, measured
//! in the same run. `cargo bench --bench daemon -- NAME…` runs the named parts alone: throughput, streaming, restart,
//! reload, specs, idle, connections.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

const HAIKU: &str = "us.anthropic.claude-haiku-4-5-20251001-v1:0";

fn main() {
    landbridge::provider::install_crypto();
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|part| part == name);
    runtime.block_on(async {
        if is_wanted("idle") {
            idle().await;
        }
        if is_wanted("specs") {
            specs().await;
        }
        if is_wanted("reload") {
            reload().await;
        }
        if is_wanted("restart") {
            restart().await;
        }
        if is_wanted("throughput") {
            throughput("openai", "gpt-5.4-mini", 20_000).await;
            throughput("bedrock", HAIKU, 10_000).await;
        }
        if is_wanted("streaming") {
            streaming(landbridge::spec::Api::OpenAi).await;
            streaming(landbridge::spec::Api::Bedrock).await;
        }
    });
}

/// A process that ends with us.
struct Process {
    child: Child,
    address: String,
}

impl Process {
    /// Starts the program and waits for the first line of its output that `find` understands.
    fn start(mut command: Command, find: fn(&str) -> Option<String>) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (send, receive) = std::sync::mpsc::channel();
        let streams: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for stream in streams {
            let send = send.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if let Some(found) = find(&line) {
                        let _heard = send.send(found);
                    }
                }
            });
        }
        let address = receive.recv_timeout(Duration::from_mins(1)).expect("the process said where it is");
        Self { child, address }
    }

    /// User and system time so far.
    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }

    /// Resident memory in MiB.
    fn memory(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn endpoints() -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landbridge"));
    command.args(["simulate", "--openai-latency", "0ms", "--bedrock-latency", "0ms", "--journal", "0"]);
    Process::start(command, |line| line.strip_prefix("Bedrock:").map(|address| address.trim().to_owned()))
}

/// Starts the daemon on a folder.
fn daemon(folder: &Path, endpoints: &str) -> Process {
    let settings = format!(
        "listen: 127.0.0.1:0\npipelines: {0}/pipelines\nmodels: {2}/config/models\nstore: sqlite:{0}/data/landbridge.db\n\
         providers:\n  openai: {{ api: openai, base_url: \"{1}/v1\" }}\n  bedrock: {{ api: bedrock, region: us-east-1, endpoint_url: \"{1}\" }}\n",
        folder.display(),
        endpoints,
        env!("CARGO_MANIFEST_DIR"),
    );
    std::fs::write(folder.join("landbridge.yaml"), settings).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_landbridge"));
    command.args(["run", "--log", "json", "--config"]).arg(folder.join("landbridge.yaml"));
    command.envs([("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x"), ("RUST_LOG", "landbridge=info")]);
    Process::start(command, |line| {
        let entry: Value = serde_json::from_str(line).ok()?;
        Some(format!("http://{}", entry.pointer("/fields/address")?.as_str()?))
    })
}

/// A folder with one spec of one target.
fn folder(provider: &str, model: &str, concurrency: u32) -> tempfile::TempDir {
    let folder = tempfile::tempdir_in(scratch()).unwrap();
    std::fs::create_dir_all(folder.path().join("pipelines")).unwrap();
    let spec = format!(
        "version: 1\nname: bench\ntargets:\n  only: {{ provider: {provider}, model: \"{model}\", defaults: {{ max_tokens: 16 }} }}\nlimits: {{ concurrency: {concurrency} }}\n"
    );
    std::fs::write(folder.path().join("pipelines/bench.yaml"), spec).unwrap();
    folder
}

/// On the disk that the build is on: a folder in memory would flatter every figure.
fn scratch() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).to_owned();
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn line(n: usize) -> String {
    let content = format!("job {n}: {}", "some words of a prompt that is neither short nor long. ".repeat(16));
    json!({ "pipeline": "bench", "body": { "model": "m", "messages": [{ "role": "user", "content": content }] } })
        .to_string()
}

async fn submit(client: &reqwest::Client, url: &str, count: usize) {
    for start in (0..count).step_by(1_000) {
        let body: Vec<String> = (start..(start + 1_000).min(count)).map(line).collect();
        let request =
            client.post(format!("{url}/v1/jobs")).header("content-type", "application/x-ndjson").body(body.join("\n"));
        let text = request.send().await.unwrap().error_for_status().unwrap().text().await.unwrap();
        assert!(!text.contains("\"error\""), "{}", text.lines().next().unwrap());
    }
}

async fn succeeded(client: &reqwest::Client, url: &str) -> f64 {
    let metrics = client.get(format!("{url}/metrics")).send().await.unwrap().text().await.unwrap();
    let series = "landbridge_jobs_finished_total{pipeline=\"bench\",state=\"succeeded\"} ";
    metrics.lines().find_map(|line| line.strip_prefix(series)?.parse().ok()).unwrap_or(0.0)
}

/// Jobs through HTTP to a no-latency upstream, and the same calls by a bare client.
async fn throughput(provider: &str, model: &str, count: usize) {
    let endpoints = endpoints();
    let folder = folder(provider, model, 256);
    let daemon = daemon(folder.path(), &endpoints.address);
    let client = reqwest::Client::new();
    // Hold the work until all of it is there, so that dispatch alone is timed.
    let pause = json!({ "flag": "PAUSE", "value": true, "reason": "bench" });
    client.post(format!("{}/v1/ops/flags", daemon.address)).json(&pause).send().await.unwrap();
    let (began, cpu) = (Instant::now(), daemon.cpu());
    submit(&client, &daemon.address, count).await;
    let (submitting, submit_cpu) = (began.elapsed(), daemon.cpu().saturating_sub(cpu));
    client.delete(format!("{}/v1/ops/flags/PAUSE", daemon.address)).send().await.unwrap();
    let (began, cpu) = (Instant::now(), daemon.cpu());
    while succeeded(&client, &daemon.address).await < count as f64 {
        assert!(began.elapsed() < Duration::from_mins(2), "the jobs did not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (took, used) = (began.elapsed(), daemon.cpu().saturating_sub(cpu));
    println!(
        "throughput {provider}: {count} jobs in {:.2} s = {:.0}/s, {:.3} ms CPU a job in the daemon; submitted at {:.0}/s over HTTP ({:.3} ms CPU a job); memory {:.0} MiB",
        took.as_secs_f64(),
        count as f64 / took.as_secs_f64(),
        used.as_secs_f64() * 1e3 / count as f64,
        count as f64 / submitting.as_secs_f64(),
        submit_cpu.as_secs_f64() * 1e3 / count as f64,
        daemon.memory(),
    );
    drop(daemon);
    let (began, cpu) = (Instant::now(), own());
    match provider {
        "openai" => bare_reqwest(&endpoints.address, model, count).await,
        _ => bare_sdk(&endpoints.address, model, count).await,
    }
    let (took, used) = (began.elapsed(), own().saturating_sub(cpu));
    println!(
        "  bare {} loop: {:.0}/s, {:.3} ms CPU a call",
        if provider == "openai" { "reqwest" } else { "SDK" },
        count as f64 / took.as_secs_f64(),
        used.as_secs_f64() * 1e3 / count as f64,
    );
}

/// User and system time of this process so far.
fn own() -> Duration {
    let usage = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = usage.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// What streaming adds: between the bytes of a piece and its event in hand, and processor time a call beside the bare
/// client's loop over the same stream.
async fn streaming(api: landbridge::spec::Api) {
    use futures_util::StreamExt;
    use landbridge::spec::Api;
    let calls = 500;
    let endpoints = endpoints();
    let (provider, target) = streamed_target(api, &endpoints.address).await;
    let prompt = line(0);
    let body = json!({ "messages": [{ "role": "user", "content": prompt }], "max_tokens": 64 });
    let call = || {
        let prepared = landbridge::wire::prepare(&target, None, &body).unwrap();
        landbridge::provider::Call {
            job: landbridge::ids::JobId::generate(),
            target: target.clone(),
            payload: prepared.payload,
            reading: prepared.reading,
            timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(30),
        }
    };
    // The endpoints send without pause: the time from event to event is what reading one costs, the socket included.
    let (mut micros, mut pieces) = (Vec::new(), 0_usize);
    let (began, cpu) = (Instant::now(), own());
    for _ in 0..calls {
        let mut stream = provider.stream(call()).await.unwrap();
        let mut last = Instant::now();
        while let Some(event) = stream.events.next().await {
            event.unwrap();
            micros.push(last.elapsed().as_secs_f64() * 1e6);
            last = Instant::now();
            pieces += 1;
        }
    }
    let (took, used) = (began.elapsed(), own().saturating_sub(cpu));
    micros.sort_by(f64::total_cmp);
    let cpu = own();
    let name = match api {
        Api::OpenAi => {
            for _ in 0..calls {
                bare_reqwest_stream(&endpoints.address, &prompt).await;
            }
            "reqwest"
        }
        Api::Bedrock => {
            let client = sdk(&endpoints.address);
            for _ in 0..calls {
                bare_sdk_stream(&client, &prompt).await;
            }
            "SDK"
        }
    };
    let bare = own().saturating_sub(cpu);
    println!(
        "streaming {api}: {:.1} µs a piece at the median, {:.1} at the 99th of 100, {} pieces a call; {:.3} ms CPU a call, {:.3} ms in a bare {name} loop; {:.0} calls/s one after the other",
        micros[micros.len() / 2],
        micros[micros.len() * 99 / 100],
        pieces / calls,
        used.as_secs_f64() * 1e3 / calls as f64,
        bare.as_secs_f64() * 1e3 / calls as f64,
        calls as f64 / took.as_secs_f64(),
    );
}

async fn streamed_target(
    api: landbridge::spec::Api,
    endpoints: &str,
) -> (Arc<dyn landbridge::provider::Provider>, Arc<landbridge::spec::Target>) {
    use landbridge::{
        names::{ProviderName, Region, TargetName},
        settings::{ApiSettings, MediaSettings, ProviderSettings},
        spec::{Api, Fidelity, Residency, Target},
    };
    let settings = match api {
        Api::OpenAi => ApiSettings::OpenAi {
            base_url: format!("{endpoints}/v1"),
            api_key: None,
            organization: None,
            project: None,
            region: None,
            aws: None,
        },
        Api::Bedrock => ApiSettings::Bedrock {
            region: None,
            profile: None,
            role_arn: None,
            endpoint_url: Some(endpoints.to_owned()),
            anonymous: true,
        },
    };
    let name = ProviderName::new("bench").unwrap();
    let settings = ProviderSettings { family: None, data_regions: Vec::new(), api: settings };
    let provider = landbridge::provider::connect(&name, &settings, &MediaSettings::default()).await.unwrap();
    let target = Target {
        name: TargetName::new("only").unwrap(),
        provider: name,
        api,
        model: if api == Api::OpenAi { "gpt-5.4-mini" } else { HAIKU }.to_owned(),
        region: (api == Api::Bedrock).then(|| Region::new("us-east-1").unwrap()),
        residency: Residency::Unknown,
        timeout: Duration::from_secs(30),
        idle_timeout: Duration::from_secs(30),
        stream: true,
        invoke: None,
        defaults: serde_json::Map::new(),
        overrides: serde_json::Map::new(),
        cap: serde_json::Map::new(),
        system: None,
        fidelity: Fidelity::Warn,
    };
    (provider, Arc::new(target))
}

async fn bare_reqwest_stream(endpoints: &str, prompt: &str) {
    static CLIENT: std::sync::LazyLock<reqwest::Client> =
        std::sync::LazyLock::new(|| reqwest::Client::builder().http1_only().build().unwrap());
    let body = json!({ "model": "gpt-5.4-mini", "max_completion_tokens": 64, "stream": true,
        "stream_options": { "include_usage": true }, "messages": [{ "role": "user", "content": prompt }] });
    let request = CLIENT.post(format!("{endpoints}/v1/chat/completions")).json(&body);
    let mut answer = request.send().await.unwrap().error_for_status().unwrap();
    let mut text = Vec::new();
    while let Some(chunk) = answer.chunk().await.unwrap() {
        text.extend_from_slice(&chunk);
    }
    for data in String::from_utf8(text).unwrap().split("\n\n").filter_map(|event| event.strip_prefix("data: {")) {
        let _chunk: Value = serde_json::from_str(&format!("{{{data}")).unwrap();
    }
}

async fn bare_sdk_stream(client: &aws_sdk_bedrockruntime::Client, prompt: &str) {
    use aws_sdk_bedrockruntime::types::{ContentBlock, ConversationRole, InferenceConfiguration, Message};
    let content = ContentBlock::Text(prompt.to_owned());
    let message = Message::builder().role(ConversationRole::User).content(content).build().unwrap();
    let bound = InferenceConfiguration::builder().max_tokens(64).build();
    let request = client.converse_stream().model_id(HAIKU).messages(message).inference_config(bound);
    let mut output = request.send().await.unwrap();
    while output.stream.recv().await.unwrap().is_some() {}
}

/// Runs `count` calls, 256 at a time.
async fn in_flight<F, R>(count: usize, call: F)
where
    F: Fn(usize) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send,
{
    let call = Arc::new(call);
    let next = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..256 {
        let (call, next) = (call.clone(), next.clone());
        workers.spawn(async move {
            loop {
                let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if n >= count {
                    return;
                }
                call(n).await;
            }
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended.unwrap();
    }
}

async fn bare_reqwest(endpoints: &str, model: &str, count: usize) {
    let client = reqwest::Client::builder().http1_only().build().unwrap();
    let url = format!("{endpoints}/v1/chat/completions");
    let body =
        json!({ "model": model, "max_completion_tokens": 16, "messages": [{ "role": "user", "content": line(0) }] })
            .to_string();
    in_flight(count, move |_| {
        let request = client.post(&url).header("content-type", "application/json").body(body.clone());
        async move {
            let answer: Value = request.send().await.unwrap().error_for_status().unwrap().json().await.unwrap();
            assert!(answer["choices"].is_array());
        }
    })
    .await;
}

/// A bare client of the AWS SDK.
fn sdk(endpoints: &str) -> aws_sdk_bedrockruntime::Client {
    use aws_sdk_bedrockruntime::{
        Client,
        config::{BehaviorVersion, Credentials, Region, retry::RetryConfig, timeout::TimeoutConfig},
    };
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(aws_smithy_http_client::tls::Provider::Rustls(
            aws_smithy_http_client::tls::rustls_provider::CryptoMode::Ring,
        ))
        .build_https();
    let config = aws_sdk_bedrockruntime::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("x", "x", None, None, "bench"))
        .endpoint_url(endpoints)
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::disabled())
        .stalled_stream_protection(aws_sdk_bedrockruntime::config::StalledStreamProtectionConfig::disabled())
        .http_client(http)
        .build();
    Client::from_conf(config)
}

async fn bare_sdk(endpoints: &str, model: &str, count: usize) {
    use aws_sdk_bedrockruntime::types::{ContentBlock, ConversationRole, InferenceConfiguration, Message};
    let client = sdk(endpoints);
    let model = model.to_owned();
    in_flight(count, move |_| {
        let message =
            Message::builder().role(ConversationRole::User).content(ContentBlock::Text(line(0))).build().unwrap();
        let request = client
            .converse()
            .model_id(&model)
            .messages(message)
            .inference_config(InferenceConfiguration::builder().max_tokens(16).build());
        async move {
            assert!(request.send().await.unwrap().output().is_some());
        }
    })
    .await;
}

/// From the start after `kill -9` to the first dispatch, with jobs in flight and a long queue.
async fn restart() {
    let queue = 100_000;
    let endpoints = endpoints();
    let folder = folder("openai", "gpt-5.4-mini", 64);
    let client = reqwest::Client::new();
    let first = daemon(folder.path(), &endpoints.address);
    // Calls that never end, so that some are in flight at the kill.
    let hang = json!({ "latency": ["all=60s"] });
    client.put(format!("{}/_simulate/config", endpoints.address)).json(&hang).send().await.unwrap();
    submit(&client, &first.address, queue).await;
    while in_flight_at(&client, &endpoints.address).await < 64 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let memory = first.memory();
    drop(first);
    while in_flight_at(&client, &endpoints.address).await > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let began = Instant::now();
    let second = daemon(folder.path(), &endpoints.address);
    let ready = began.elapsed();
    while in_flight_at(&client, &endpoints.address).await == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!(
        "restart after kill -9 with {queue} queued: ready in {:.0} ms, first re-claimed job at the provider in {:.0} ms; memory before {memory:.0} MiB, after {:.0} MiB",
        ready.as_secs_f64() * 1e3,
        began.elapsed().as_secs_f64() * 1e3,
        second.memory(),
    );
}

async fn in_flight_at(client: &reqwest::Client, endpoints: &str) -> u64 {
    let counts: Value = client.get(format!("{endpoints}/_simulate/counts")).send().await.unwrap().json().await.unwrap();
    counts["counts"]["in_flight"].as_u64().unwrap()
}

/// From the last byte of a save to the new generation, many times.
async fn reload() {
    let endpoints = endpoints();
    let folder = folder("openai", "gpt-5.4-mini", 64);
    let daemon = daemon(folder.path(), &endpoints.address);
    let client = reqwest::Client::new();
    let file = folder.path().join("pipelines/bench.yaml");
    let spec = std::fs::read_to_string(&file).unwrap();
    let mut millis = Vec::new();
    for n in 0..100 {
        let before = generation(&client, &daemon.address).await;
        std::fs::write(file.with_extension("tmp"), format!("{spec}description: save {n}\n")).unwrap();
        std::fs::rename(file.with_extension("tmp"), &file).unwrap();
        let saved = Instant::now();
        while generation(&client, &daemon.address).await == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        millis.push(saved.elapsed().as_secs_f64() * 1e3);
    }
    millis.sort_by(f64::total_cmp);
    println!(
        "save to live routing, 100 saves: p50 {:.0} ms, p99 {:.0} ms, worst {:.0} ms",
        millis[50], millis[98], millis[99]
    );
}

async fn generation(client: &reqwest::Client, url: &str) -> u64 {
    let ready: Value = client.get(format!("{url}/readyz")).send().await.unwrap().json().await.unwrap();
    ready["generation"].as_u64().unwrap()
}

/// A thousand specs from disk.
async fn specs() {
    let folder = folder("openai", "gpt-5.4-mini", 64);
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/package-classify.yaml")).unwrap();
    let name = text.lines().find(|line| line.starts_with("name:")).unwrap().to_owned();
    for n in 0..1_000 {
        // What a spec accepts must not overlap with another's: each accepts a model of its own.
        // Its tests know the buckets of the file as it is: the salt stays that one's.
        let spec = text
            .replace(&name, &format!("name: spec-{n}"))
            .replace("models: [", &format!("models: [spec-{n}-"))
            .replace("percent: 25", "percent: 25\n    salt: package-classify/to-bedrock");
        std::fs::write(folder.path().join(format!("pipelines/spec-{n}.yaml")), spec).unwrap();
    }
    let endpoints = endpoints();
    let began = Instant::now();
    let daemon = daemon(folder.path(), &endpoints.address);
    let client = reqwest::Client::new();
    let metrics = client.get(format!("{}/metrics", daemon.address)).send().await.unwrap().text().await.unwrap();
    let seconds = metrics
        .lines()
        .find_map(|line| line.strip_prefix("landbridge_config_reload_duration_seconds_sum ")?.parse::<f64>().ok())
        .unwrap();
    let valid =
        metrics.lines().filter(|line| line.starts_with("landbridge_config_file_valid") && line.ends_with(" 1")).count();
    println!(
        "1,000 specs (package-classify.yaml, with its tests): loaded and checked in {:.0} ms (quiet time of 150 ms included), {valid} valid; daemon ready in {:.0} ms; memory {:.0} MiB",
        seconds * 1e3,
        began.elapsed().as_secs_f64() * 1e3,
        daemon.memory(),
    );
}

/// Memory of a daemon that has nothing to do.
async fn idle() {
    let endpoints = endpoints();
    let folder = folder("openai", "gpt-5.4-mini", 64);
    let daemon = daemon(folder.path(), &endpoints.address);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let cpu = daemon.cpu();
    tokio::time::sleep(Duration::from_secs(10)).await;
    println!(
        "idle: {:.1} MiB, {:.1} ms CPU a second",
        daemon.memory(),
        (daemon.cpu().saturating_sub(cpu)).as_secs_f64() * 100.0
    );
}
