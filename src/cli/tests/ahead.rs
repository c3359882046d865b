//! `check` and `explain` say what becomes of a request before any daemon does.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use super::{super::Exit, landbridge};

const SPEC: &str = "\
version: 1
name: triage
targets:
  claude:
    provider: bedrock
    model: us.anthropic.claude-haiku-4-5-20251001-v1:0
    defaults: { max_tokens: 500 }
  llama: { provider: bedrock, model: us.meta.llama3-3-70b-instruct-v1:0, defaults: { max_tokens: 500 } }
  openai: { provider: openai, model: gpt-4o-mini, OWN }
route: [{ to: claude }]
fallback: [llama, openai]
";

/// A folder with settings, one spec and one job.
struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    fn new(own: &str, body: &Value) -> Self {
        let site = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir_all(site.path("pipelines")).unwrap();
        let settings = format!(
            "pipelines: {}\nmodels: {}\nproviders:\n  openai: {{ api: openai, base_url: \"https://api.openai.com/v1\" }}\n  \
             bedrock: {{ api: bedrock, region: us-east-1 }}\n",
            site.path("pipelines").display(),
            site.path("models").display(),
        );
        fs::write(site.path("landbridge.yaml"), settings).unwrap();
        fs::write(site.path("pipelines/triage.yaml"), SPEC.replace("OWN", own)).unwrap();
        fs::write(site.path("job.json"), json!({ "pipeline": "triage", "body": body }).to_string()).unwrap();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> super::Ended {
        let (config, job) = (self.path("landbridge.yaml"), self.path("job.json"));
        let mut all = vec!["--config", config.to_str().unwrap()];
        all.extend(arguments.iter().map(|word| if *word == "JOB" { job.to_str().unwrap() } else { word }));
        landbridge(&all)
    }
}

fn body() -> Value {
    json!({
        "messages": [{ "role": "user", "content": "Hi" }], "seed": 7, "tool_choice": "required",
        "tools": [{ "type": "function", "function": { "name": "look" } }],
    })
}

#[test]
fn explain_says_how_each_target_of_the_chain_would_be_asked() {
    let site = Site::new("timeout: 60s", &body());
    let said = site.run(&["explain", "JOB"]);
    assert_eq!(said.exit, Exit::Success, "{}", said.err);
    for line in [
        "target claude: seed dropped: Converse has no seed",
        "target llama: cannot carry it: tool_choice: the model cannot be made to call a tool",
        "target openai: carried exactly",
    ] {
        assert!(said.out.contains(line), "{line} is not in:\n{}", said.out);
    }

    let said = site.run(&["explain", "JOB", "--format", "json"]);
    let said: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(said["targets"][0]["fidelity"][0]["parameter"], "seed");
    assert_eq!(said["targets"][1]["param"], "tool_choice");
    assert_eq!(said["targets"][2]["fidelity"], json!([]));
}

#[test]
fn explain_names_what_it_cannot_find() {
    let site = Site::new("timeout: 60s", &body());
    let said = site.run(&["explain", "JOB", "--pipeline", "triag"]);
    assert_eq!(said.exit, Exit::Failed);
    assert!(said.err.contains("triage"), "{}", said.err);
}

#[test]
fn check_shows_the_place_of_a_parameter_that_is_not_carried_exactly() {
    let site = Site::new("defaults: { reasoning_effort: low }", &body());
    let said = site.run(&["check"]);
    assert_eq!(said.exit, Exit::Success, "{}", said.out);
    assert!(
        said.out.contains("warning[inexact-parameter]: `reasoning_effort` does not reach `gpt-4o-mini`"),
        "{}",
        said.out
    );
    assert!(said.out.contains("triage.yaml:9:63"), "{}", said.out);
    assert_eq!(site.run(&["check", "--strict"]).exit, Exit::Failed);

    let site = Site::new("override: { guardrail: { id: gr1abc, version: \"1\" } }", &body());
    let said = site.run(&["check"]);
    assert_eq!(said.exit, Exit::Failed);
    assert!(
        said.out.contains("error[refused-parameter]: `guardrail` cannot be carried to `gpt-4o-mini`"),
        "{}",
        said.out
    );
    assert_eq!(site.run(&["explain", "JOB"]).exit, Exit::Failed, "a spec that would refuse every job does not serve");
}
