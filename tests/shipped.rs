//! What a stranger finds in the repository works: settings, model definitions, pipelines and examples.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use landbridge::{
    catalog::{Catalog, tokens::estimate_prompt_tokens},
    job::Envelope,
    routing::{self, Decision, EffectiveFlags, FlagLevels, Question, Route},
    settings::{Environment, Settings},
    simulate::{SimulateOptions, Simulation},
    spec::{self, Context, FlagSet, ModelDefinitions, Pipeline, condition::Facts, model_definition},
};
use serde_json::{Value, json};

fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Files of a folder with one of these endings, by name.
fn files(folder: &str, ending: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(at(folder)).unwrap().map(|entry| entry.unwrap().path());
    let wanted = entries.filter(|path| path.extension().is_some_and(|found| found == ending));
    wanted.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap())).collect()
}

fn settings() -> Settings {
    let loaded = Settings::load(&at("config/landbridge.yaml"), &Environment::default(), &[]).unwrap();
    assert_eq!(loaded.warnings, []);
    loaded.settings
}

fn definitions() -> ModelDefinitions {
    files("config/models", "json")
        .into_iter()
        .map(|(file, bytes)| {
            let (definition, problems) = model_definition::read(&file, &bytes);
            assert_eq!(problems, [], "{file}");
            (file.trim_end_matches(".json").to_owned(), definition.unwrap())
        })
        .collect()
}

fn pipelines(settings: &Settings) -> Vec<Pipeline> {
    let (providers, models, catalog) = (settings.provider_facts(), definitions(), Catalog::builtin());
    let today = "2026-11-22".parse().unwrap();
    let context = Context { providers: &providers, models: &models, catalog: &catalog, today };
    files("pipelines", "yaml")
        .into_iter()
        .map(|(file, bytes)| {
            let read = spec::read(&file, &bytes, &context);
            let problems: Vec<String> = read.diagnostics.iter().map(ToString::to_string).collect();
            assert!(problems.is_empty(), "{}", problems.join("\n"));
            read.pipeline.unwrap()
        })
        .collect()
}

fn decide(pipeline: &Pipeline, settings: &Settings, flags: &FlagSet, envelope: &Envelope) -> Decision {
    let levels = FlagLevels { runtime: flags.clone(), ..FlagLevels::default() };
    let flags = EffectiveFlags::resolve(&levels, pipeline, &settings.provider_facts(), false);
    let facts = Facts {
        id: "job_00000000000000000000000000000000",
        pipeline: pipeline.name.as_str(),
        metadata: &envelope.metadata,
        labels: &pipeline.labels,
        priority: 0,
        body: &envelope.body,
        prompt_tokens: &|| estimate_prompt_tokens(&envelope.body),
        age_seconds: 0,
    };
    routing::decide(&Question { pipeline, flags: &flags, standings: &routing::Standings::default(), facts })
}

fn chain(pipeline: &Pipeline, decision: &Decision) -> Vec<String> {
    match &decision.route {
        Route::Dispatch(chain) => chain.iter().map(|ix| pipeline.target(*ix).name.to_string()).collect(),
        Route::Hold(reason) => panic!("{} holds the job: {reason:?}", pipeline.name),
    }
}

#[test]
fn pipelines_are_valid_and_keep_their_own_tests() {
    let settings = settings();
    let pipelines = pipelines(&settings);
    assert_eq!(pipelines.len(), 3);
    for pipeline in &pipelines {
        assert!(pipeline.tests.len() >= 3, "{}", pipeline.name);
        for test in &pipeline.tests {
            let envelope = Envelope::from_value(test.job.clone()).unwrap();
            let decision = decide(pipeline, &settings, &test.flags, &envelope);
            let chain = chain(pipeline, &decision);
            let name = format!("{}: {}", pipeline.name, test.name);
            if let Some(target) = &test.expect.target {
                assert_eq!(chain.first().map(String::as_str), Some(target.as_str()), "{name}");
            }
            if let Some(expected) = &test.expect.chain {
                assert_eq!(chain, expected.iter().map(ToString::to_string).collect::<Vec<_>>(), "{name}");
            }
            if let Some(rule) = &test.expect.rule {
                assert_eq!(&*pipeline.route[usize::from(decision.rule.unwrap())].name, rule, "{name}");
            }
        }
        for target in &pipeline.targets {
            let bounded = target.defaults.contains_key("max_tokens") || target.overrides.contains_key("max_tokens");
            assert!(bounded, "{} bounds no answer of {}", pipeline.name, target.name);
        }
    }
}

#[test]
fn flags_are_all_off() {
    let text = fs::read_to_string(at("config/flags.yaml")).unwrap();
    let flags: BTreeMap<String, bool> = serde_yaml::from_str(&text).unwrap();
    let providers = settings().provider_facts();
    for (name, value) in flags {
        assert!(spec::Flag::parse(&name, providers.keys()).is_some(), "{name}");
        assert!(!value, "{name}");
    }
}

/// Every example: its file's name and the job.
fn examples() -> Vec<(String, Envelope)> {
    let files = files("examples", "jsonl");
    let lines = files.iter().flat_map(|(file, bytes)| {
        let text = std::str::from_utf8(bytes).unwrap();
        text.lines().map(move |line| (file.clone(), Envelope::parse(line.as_bytes()).unwrap()))
    });
    lines.collect()
}

#[test]
fn examples_are_jobs_that_every_pipeline_can_place() {
    let settings = settings();
    let pipelines = pipelines(&settings);
    let examples = examples();
    assert!(examples.len() >= 500);
    let mut keys = BTreeSet::new();
    let mut served = BTreeSet::new();
    for (file, envelope) in &examples {
        let pipeline = pipelines.iter().find(|pipeline| Some(&pipeline.name) == envelope.pipeline.as_ref()).unwrap();
        assert_eq!(file.trim_end_matches(".jsonl"), pipeline.name.as_str());
        assert!(keys.insert(envelope.idempotency_key.clone().unwrap()), "{envelope:?}");
        let chain = chain(pipeline, &decide(pipeline, &settings, &FlagSet::default(), envelope));
        if envelope.metadata["region"] == "eu" {
            assert!(chain.iter().all(|target| target.ends_with("-eu")), "{chain:?}");
        }
        served.insert(format!("{}/{}", pipeline.name, chain[0]));
    }
    let targets: usize = pipelines.iter().map(|pipeline| pipeline.targets.len()).sum();
    assert_eq!(served.len(), targets, "some target is never used: {served:?}");
}

#[tokio::test]
async fn simulated_models_answer_every_example_to_the_point() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Whatever day it is, the examples' own model answers: it is not its lifecycle that is looked at here.
    let (catalog, _) = Catalog::builtin().overlaid("catalog.yaml", b"openai: { gpt-4o-mini: { lifecycle: active } }");
    let options = SimulateOptions { catalog: Arc::new(catalog.unwrap()), ..SimulateOptions::default() };
    let simulation = Simulation::start(options).await.unwrap();
    let client = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
    let url = format!("{}/chat/completions", simulation.openai_base_url());
    let examples = examples();
    let mut right = 0;
    for (file, envelope) in &examples {
        let reply = client.post(&url).json(&envelope.body).send().await.unwrap();
        let reply: Value = serde_json::from_str(&reply.text().await.unwrap()).unwrap();
        assert_eq!(reply["choices"][0]["finish_reason"], "stop", "{reply}");
        let said = reply["choices"][0]["message"]["content"].as_str().unwrap();
        let package = &envelope.metadata["package"];
        match file.as_str() {
            "package-classify.jsonl" => {
                assert!(said.len() < 20 && said.bytes().all(|b| b.is_ascii_alphanumeric()), "{package}: {said}");
                right += usize::from(said == envelope.metadata["section"]);
            }
            "package-summary.jsonl" => assert!((10..=300).contains(&said.len()), "{package}: {said}"),
            _ => {
                let facts: Value = serde_json::from_str(said).unwrap();
                assert_eq!(facts["name"], json!(package));
                assert!(facts["features"].is_array() && facts["has_graphical_interface"].is_boolean(), "{facts}");
                assert_eq!(facts.as_object().unwrap().len(), 5, "{facts}");
            }
        }
    }
    // A guess would be right 8 times.
    assert!(right >= 40, "only {right} of 200 sections are right");
    let counts = simulation.counts();
    assert_eq!((counts.answered, counts.prompts.distinct), (600, 600));
}
