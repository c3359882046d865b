//! A folder with settings and specs, the endpoints it points at, and the daemon that runs on it.

use std::{
    collections::BTreeMap,
    future::Future,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use landbridge::simulate::{SimulateOptions, Simulation};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine; only a hang reaches it.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Two targets, a rollout between them, and a fallback.
pub const SPEC: &str = r"version: 1
name: triage
targets:
  openai: { provider: openai, model: gpt-5.4-mini, timeout: 20s }
  bedrock: { provider: bedrock, model: us.anthropic.claude-haiku-4-5-20251001-v1:0, timeout: 20s, defaults: { max_tokens: 64 } }
route:
  - { name: migrate, rollout: to-bedrock }
rollouts:
  to-bedrock: { baseline: openai, candidate: bedrock, percent: 50, key: job.metadata.customer }
fallback: [openai, bedrock]
retry: { attempts: 4, initial_delay: 50ms, max_delay: 500ms }
";

/// Settings, specs and data in a folder of their own.
pub struct Site {
    dir: TempDir,
    pub simulation: Simulation,
    environment: BTreeMap<String, String>,
}

impl Site {
    /// A site with one spec and endpoints that answer at once.
    pub async fn new(spec: &str) -> Self {
        Self::with(spec, SimulateOptions::default()).await
    }

    /// A site with one spec and these endpoints.
    pub async fn with(spec: &str, options: SimulateOptions) -> Self {
        landbridge::provider::install_crypto();
        let simulation = Simulation::start(options).await.unwrap();
        let dir = TempDir::new().unwrap();
        std::fs::create_dir_all(dir.path().join("pipelines")).unwrap();
        std::fs::create_dir_all(dir.path().join("config")).unwrap();
        let settings = format!(
            "listen: 127.0.0.1:0\npipelines: {0}/pipelines\nmodels: {0}/config/models\nstore: sqlite:{0}/data/landbridge.db\ndrain: 20s\n\
             providers:\n  openai: {{ api: openai, base_url: \"{1}\" }}\n  bedrock: {{ api: bedrock, region: us-east-1, endpoint_url: \"{2}\" }}\n",
            dir.path().display(),
            simulation.openai_base_url(),
            simulation.bedrock_endpoint_url(),
        );
        std::fs::write(dir.path().join("config/landbridge.yaml"), settings).unwrap();
        std::fs::write(dir.path().join("pipelines/triage.yaml"), spec).unwrap();
        let environment =
            [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_EC2_METADATA_DISABLED", "true")];
        let environment = environment.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { dir, simulation, environment }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Gives everything that is started from here on a variable.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.insert(name.to_owned(), value.to_owned());
    }

    /// The spec's file.
    pub fn spec_file(&self) -> PathBuf {
        self.dir.path().join("pipelines/triage.yaml")
    }

    /// The store's file.
    pub fn store_file(&self) -> PathBuf {
        self.dir.path().join("data/landbridge.db")
    }

    /// Saves a file the safe way: beside it, then renamed into place.
    pub fn save(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let beside = path.with_extension("tmp");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, path).unwrap();
    }

    /// Adds lines to the settings.
    pub fn add_settings(&self, lines: &str) {
        let path = self.dir.path().join("config/landbridge.yaml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, text + lines).unwrap();
    }

    /// The program with this site's settings.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.wrapped(&[env!("CARGO_BIN_EXE_landbridge")], arguments)
    }

    fn wrapped(&self, program: &[&str], arguments: &[&str]) -> Command {
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).args(arguments).arg("--config").arg(self.dir.path().join("config/landbridge.yaml"));
        command.current_dir(self.dir.path()).env_clear().env("PATH", std::env::var("PATH").unwrap_or_default());
        command.envs(&self.environment);
        command
    }

    /// Starts the daemon and waits until it is ready.
    pub async fn start(&self) -> Daemon {
        self.start_wrapped(&[]).await
    }

    /// The same under another program, such as one that sets limits.
    pub async fn start_wrapped(&self, wrapper: &[&str]) -> Daemon {
        let program: Vec<&str> = wrapper.iter().copied().chain([env!("CARGO_BIN_EXE_landbridge")]).collect();
        let command = self.wrapped(&program, &["run", "--log", "json"]);
        match Daemon::spawn(command) {
            Ok(daemon) => daemon,
            Err(log) => panic!("the daemon did not start:\n{log}"),
        }
    }

    /// Starts a daemon that is expected not to start: its exit code and what it said.
    pub fn start_refused(&self) -> (Option<i32>, String) {
        let output = self.command(&["run"]).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// A daemon that runs.
pub struct Daemon {
    child: Child,
    address: SocketAddr,
    log: Arc<Mutex<String>>,
    client: reqwest::Client,
}

impl Daemon {
    fn spawn(mut command: Command) -> Result<Self, String> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (ready, address) = std::sync::mpsc::channel();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        std::thread::spawn({
            let log = log.clone();
            move || {
                for line in lines.map_while(Result::ok) {
                    if let Ok(entry) = serde_json::from_str::<Value>(&line)
                        && let Some(address) = entry.pointer("/fields/address").and_then(Value::as_str)
                    {
                        // Nobody listens once the daemon is known to be ready.
                        let _heard = ready.send(address.parse::<SocketAddr>().unwrap());
                    }
                    let mut log = log.lock().unwrap();
                    log.push_str(&line);
                    log.push('\n');
                }
            }
        });
        let Ok(address) = address.recv_timeout(PATIENCE) else {
            let _gone = child.kill();
            let _reaped = child.wait();
            return Err(log.lock().unwrap().clone());
        };
        Ok(Self { child, address, log, client: reqwest::Client::builder().timeout(PATIENCE).build().unwrap() })
    }

    /// `http://…` of the API.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal by its name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the end of the process.
    pub fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the daemon did not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops it in good order.
    pub fn stop(mut self) {
        self.signal("TERM");
        let status = self.ended();
        assert!(status.success(), "{status}:\n{}", self.log());
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.get_any(path).await;
        assert!((200..300).contains(&status), "GET {path}: {status} {body}");
        body
    }

    pub async fn get_any(&self, path: &str) -> (u16, Value) {
        answer(self.client.get(self.url() + path).send().await.unwrap()).await
    }

    pub async fn text(&self, path: &str) -> String {
        self.client.get(self.url() + path).send().await.unwrap().text().await.unwrap()
    }

    pub async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.post_any(path, body.to_string()).await;
        assert!((200..300).contains(&status), "POST {path} {body}: {status} {answer}");
        answer
    }

    pub async fn post_any(&self, path: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
        let request = self.client.post(self.url() + path).header("content-type", "application/json").body(body);
        answer(request.send().await.unwrap()).await
    }

    /// Submits many jobs; an error when the daemon went away, the accepted ids otherwise.
    pub async fn submit_lines(&self, jobs: &[Value]) -> Result<Vec<String>, reqwest::Error> {
        let body: String = jobs.iter().flat_map(|job| [job.to_string(), "\n".to_owned()]).collect();
        let request =
            self.client.post(self.url() + "/v1/jobs").header("content-type", "application/x-ndjson").body(body);
        let text = request.send().await?.error_for_status()?.text().await?;
        Ok(text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .map(|line| line["id"].as_str().unwrap_or_else(|| panic!("{line}")).to_owned())
            .collect())
    }

    /// Waits for a job's end.
    pub async fn ended_job(&self, id: &str) -> Value {
        let job = self.get(&format!("/v1/jobs/{id}?wait=50s")).await;
        assert!(job["finished_at"].is_string(), "{job}");
        job
    }

    /// The value of a metric, by its whole series text before the value; `None` when it is not there.
    pub async fn metric(&self, series: &str) -> Option<f64> {
        let text = self.text("/metrics").await;
        text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }

    /// All jobs in these states.
    pub async fn jobs(&self, query: &str) -> Vec<Value> {
        let mut jobs = Vec::new();
        let mut after = String::new();
        loop {
            let page = self.get(&format!("/v1/jobs?limit=1000&{query}{after}")).await;
            jobs.extend(page["data"].as_array().unwrap().iter().cloned());
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return jobs,
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

async fn answer(response: reqwest::Response) -> (u16, Value) {
    let status = response.status().as_u16();
    assert!(response.headers().contains_key("x-request-id"));
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// A job for the spec above.
pub fn job(n: usize) -> Value {
    json!({ "pipeline": "triage", "idempotency_key": format!("k-{n}"), "metadata": { "customer": format!("c-{n}") },
        "body": { "model": "gpt-4o-mini", "messages": [{ "role": "user", "content": format!("ticket number {n}") }] } })
}

/// Looks until a condition holds; `what` is said when it never does.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}
