//! The demo's daemon, and what is done to it.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{
    super::{
        exit::{Failure, Result},
        offline,
        run::failure,
    },
    DemoArgs,
};
use crate::{
    clock::{Clock, SystemClock, Timestamp},
    daemon::{Daemon, DaemonError, Options},
    settings::{self, Override},
    simulate::{SimulateOptions, Simulation, SimulationConfig},
    spec::Api,
};

/// Nothing in the demo takes longer.
const PATIENCE: Duration = Duration::from_mins(2);
/// Between looks.
const LOOK: Duration = Duration::from_millis(20);

/// The demo's daemon with its endpoints.
pub struct Scene {
    folder: tempfile::TempDir,
    simulation: Arc<Simulation>,
    quiet: SimulationConfig,
    url: String,
    client: reqwest::Client,
    stop: tokio_util::sync::CancellationToken,
    running: JoinHandle<Result<(), DaemonError>>,
    ids: Vec<String>,
}

/// An edit of a percentage.
pub struct Edit {
    pub words: String,
    pub took: Duration,
}

/// What the kill switch did.
pub struct Switch {
    pub message: String,
    pub last_call: Duration,
    pub bedrock_after: u64,
    pub openai_after: u64,
}

impl Scene {
    /// Copies the specs, starts endpoints and daemon.
    pub async fn open(args: &DemoArgs, config: &Path) -> Result<Self> {
        let folder = tempfile::tempdir().map_err(|error| Failure::new(format!("no temporary folder: {error}")))?;
        let pipelines = folder.path().join("pipelines");
        copy_specs(&args.pipelines, &pipelines)
            .map_err(|error| Failure::new(format!("cannot copy {}: {error}", args.pipelines.display())))?;
        let latency = |text: &str| text.parse().map_err(|error| Failure::new(format!("{text}: {error}")));
        let options = SimulateOptions {
            openai_latency: Some(latency("lognormal:median=900ms,p95=2s")?),
            bedrock_latency: Some(latency("lognormal:median=700ms,p95=1500ms")?),
            catalog: offline::catalog(config),
            ..SimulateOptions::default()
        };
        let set =
            |path: &str, value: String| Override { option: format!("demo's {path}"), path: path.to_owned(), value };
        let options = Options {
            config: config.to_owned(),
            overrides: vec![
                set("listen", "127.0.0.1:0".to_owned()),
                set("pipelines", pipelines.display().to_string()),
                set("store", format!("sqlite:{}", folder.path().join("landbridge.db").display())),
            ],
            environment: settings::Environment::default(),
            simulate: Some(options),
        };
        let daemon = Daemon::start(options).await.map_err(failure)?;
        let simulation = daemon.simulation().ok_or_else(|| Failure::new("the demo's endpoints did not start"))?;
        let (url, stop) = (format!("http://{}", daemon.address()), daemon.stop_token());
        Ok(Self {
            quiet: simulation.config(),
            simulation,
            folder,
            url,
            client: reqwest::Client::new(),
            stop,
            running: tokio::spawn(daemon.run()),
            ids: Vec::new(),
        })
    }

    /// Where the API is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The names of all pipelines.
    pub async fn pipelines(&self) -> Result<Vec<String>> {
        let answer = self.get("/v1/ops/pipelines").await?;
        Ok(array(&answer["data"]).iter().map(|row| text(&row["name"])).collect())
    }

    /// All example jobs, as lines.
    pub fn read_examples(folder: &Path) -> Result<Vec<String>> {
        let unreadable = |error: std::io::Error| Failure::new(format!("cannot read {}: {error}", folder.display()));
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .map_err(unreadable)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
            .collect();
        files.sort();
        let mut lines = Vec::new();
        for file in files {
            let content = std::fs::read_to_string(&file).map_err(unreadable)?;
            lines.extend(content.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned));
        }
        Ok(lines)
    }

    /// Submits all lines at once.
    pub async fn submit(&mut self, lines: &[String]) -> Result<()> {
        let request = self
            .client
            .post(format!("{}/v1/jobs", self.url))
            .header("content-type", "application/x-ndjson")
            .body(lines.join("\n"));
        let answer = request.send().await.map_err(gone)?.text().await.map_err(gone)?;
        for line in answer.lines() {
            let line: Value = serde_json::from_str(line).unwrap_or_default();
            match line["id"].as_str() {
                Some(id) => self.ids.push(id.to_owned()),
                None => return Err(Failure::new(format!("a job was not accepted: {line}"))),
            }
        }
        Ok(())
    }

    /// Waits until so many jobs have ended.
    pub async fn until_ended(&self, count: usize) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.ended().await? < count as u64 {
            if Instant::now() > deadline {
                return Err(Failure::new(format!(
                    "{count} jobs did not end in {} s: {}",
                    PATIENCE.as_secs(),
                    self.progress().await?
                )));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    async fn ended(&self) -> Result<u64> {
        let counts = self.counts().await?;
        Ok(["succeeded", "failed", "cancelled", "expired"].iter().filter_map(|state| counts.get(*state)).sum())
    }

    async fn counts(&self) -> Result<BTreeMap<String, u64>> {
        let answer = self.get("/v1/ops/pipelines").await?;
        let mut counts = BTreeMap::new();
        for pipeline in array(&answer["data"]) {
            for (state, count) in pipeline["jobs"].as_object().into_iter().flatten() {
                *counts.entry(state.clone()).or_default() += count.as_u64().unwrap_or(0);
            }
        }
        Ok(counts)
    }

    /// Where the jobs stand, in words.
    pub async fn progress(&self) -> Result<String> {
        let counts = self.counts().await?;
        let words: Vec<String> =
            counts.iter().filter(|(_, count)| **count > 0).map(|(state, count)| format!("{count} {state}")).collect();
        let served = self.served(Timestamp::from_micros(0));
        Ok(format!("{}; calls answered: OpenAI {}, Bedrock {}", words.join(", "), served.0, served.1))
    }

    /// Raises the first rollout's percentage in a spec, and waits until it is in force.
    pub async fn edit_percentage(&self, name: &str) -> Result<Edit> {
        let file = self.folder.path().join("pipelines").join(name);
        let text =
            std::fs::read_to_string(&file).map_err(|error| Failure::new(format!("{}: {error}", file.display())))?;
        let place = text.find("percent:").ok_or_else(|| Failure::new(format!("{name} has no `percent:` to edit")))?;
        let after = &text[place + "percent:".len()..];
        let digits: String = after.trim_start().chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        let start = place + "percent:".len() + (after.len() - after.trim_start().len());
        let edited = format!("{}60{}", &text[..start], &text[start + digits.len()..]);
        let before = self.generation().await?;
        let beside = file.with_extension("tmp");
        let saved = std::fs::write(&beside, edited).and_then(|()| std::fs::rename(&beside, &file));
        saved.map_err(|error| Failure::new(format!("cannot save {}: {error}", file.display())))?;
        let began = Instant::now();
        while self.generation().await? == before {
            if began.elapsed() > PATIENCE {
                return Err(Failure::new("the edit never took effect"));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(Edit { words: format!("{name}: percent {digits} -> 60"), took: began.elapsed() })
    }

    async fn generation(&self) -> Result<u64> {
        Ok(self.get("/readyz").await?["generation"].as_u64().unwrap_or(0))
    }

    /// Injects a fault, in the words of `landbridge simulate --fault`.
    pub fn break_bedrock(&self, fault: &str) -> Result<()> {
        let rule = fault.parse().map_err(|error| Failure::new(format!("{fault}: {error}")))?;
        let config = SimulationConfig { faults: vec![rule], ..self.quiet.clone() };
        self.simulation.configure(config).map_err(|error| Failure::new(error.to_string()))
    }

    /// Takes all faults away.
    pub fn mend_bedrock(&self) -> Result<()> {
        self.simulation.configure(self.quiet.clone()).map_err(|error| Failure::new(error.to_string()))
    }

    /// Forces OpenAI, and watches what is called after.
    pub async fn kill_switch(&self, watched: Duration) -> Result<Switch> {
        let body = json!({ "flag": "FORCE_OPENAI_PROVIDER", "value": true, "reason": "the demo's kill switch" });
        let commanded = SystemClock.now();
        let answer = self.post("/v1/ops/flags", &body).await?;
        tokio::time::sleep(Duration::from_secs(1) + watched).await;
        let last = self
            .simulation
            .journal(0, usize::MAX)
            .data
            .iter()
            .filter(|call| call.api == Api::Bedrock && call.at > commanded)
            .map(|call| call.at)
            .max();
        let last_call = last.map_or(Duration::ZERO, |at| at.since(commanded));
        let after = self.served(last.unwrap_or(commanded).max(commanded));
        Ok(Switch { message: text(&answer["message"]), last_call, openai_after: after.0, bedrock_after: after.1 })
    }

    /// Lets routing have its way again.
    pub async fn clear_switch(&self) -> Result<()> {
        let request = self.client.delete(format!("{}/v1/ops/flags/FORCE_OPENAI_PROVIDER?reason=demo", self.url));
        request.send().await.and_then(reqwest::Response::error_for_status).map_err(gone)?;
        Ok(())
    }

    /// Calls that began after a moment: at OpenAI, at Bedrock.
    fn served(&self, after: Timestamp) -> (u64, u64) {
        let journal = self.simulation.journal(0, usize::MAX);
        let count = |api| journal.data.iter().filter(|call| call.api == api && call.at > after).count() as u64;
        (count(Api::OpenAi), count(Api::Bedrock))
    }

    /// The sum of all series of a metric.
    pub async fn metric_sum(&self, name: &str) -> Result<u64> {
        let answer =
            self.client.get(format!("{}/metrics", self.url)).send().await.map_err(gone)?.text().await.map_err(gone)?;
        let values = answer
            .lines()
            .filter(|line| line.starts_with(name))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        Ok(values.sum::<f64>() as u64)
    }

    /// The story of a job that fell back, or of any.
    pub async fn one_story(&self) -> Result<(String, Vec<String>)> {
        let mut chosen = self.ids.first().cloned().unwrap_or_default();
        for id in &self.ids {
            let job = self.get(&format!("/v1/jobs/{id}")).await?;
            let attempts = array(&job["attempts"]);
            if attempts.len() == 2 && attempts.first().is_some_and(|first| first["fault"] == "unavailable") {
                chosen.clone_from(id);
                break;
            }
        }
        let why = self.get(&format!("/v1/jobs/{chosen}/why")).await?;
        let mut lines = vec![text(&why["summary"])];
        lines.extend(array(&why["steps"]).iter().map(text));
        Ok((chosen, lines))
    }

    /// Every job, whole.
    pub async fn records(&self) -> Result<Vec<Value>> {
        let mut records = Vec::new();
        for id in &self.ids {
            records.push(self.get(&format!("/v1/jobs/{id}")).await?);
        }
        Ok(records)
    }

    /// Stops the daemon in good order.
    pub async fn close(self) -> Result<()> {
        self.stop.cancel();
        match self.running.await {
            Ok(ended) => ended.map_err(failure),
            Err(error) => Err(Failure::new(format!("the daemon did not end well: {error}"))),
        }
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let response = self.client.get(format!("{}{path}", self.url)).send().await.map_err(gone)?;
        response.json().await.map_err(gone)
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let response = self.client.post(format!("{}{path}", self.url)).json(body).send().await.map_err(gone)?;
        response.json().await.map_err(gone)
    }
}

fn gone(error: reqwest::Error) -> Failure {
    Failure::new(format!("the demo's daemon did not answer: {error}"))
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn copy_specs(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        if let (true, Some(name)) = (path.is_file(), path.file_name()) {
            std::fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}
