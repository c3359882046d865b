//! Spec files as operators write them, good and bad: what comes out, and every word that is said about them.

use std::{collections::BTreeMap, fs, path::PathBuf};

use landbridge::{
    catalog::{Catalog, Lifecycle, Model},
    diagnostic::Diagnostic,
    snapshot,
    spec::{self, Api, Context, ModelDefinitions, Pipeline, ProviderFacts, Providers, model_definition},
};

struct World {
    providers: Providers,
    models: ModelDefinitions,
    catalog: Catalog,
}

fn provider(api: Api, region: Option<&str>) -> ProviderFacts {
    ProviderFacts { api, family: None, region: region.map(|name| name.parse().unwrap()), data_regions: Vec::new() }
}

fn model(api: Api, id: &str) -> Model {
    Model {
        context_window: Some(200_000),
        max_output_tokens: Some(64_000),
        default_max_tokens: 4_096,
        ..Model::new(api, id)
    }
}

impl World {
    /// Providers, definitions and a handful of models; the real catalogue changes too often to be quoted in snapshots.
    fn new() -> Self {
        let providers = [
            ("openai", provider(Api::OpenAi, None)),
            ("bedrock", provider(Api::Bedrock, Some("us-east-1"))),
            ("empty", provider(Api::OpenAi, None)),
            // Bedrock's own endpoint in OpenAI's form.
            ("native", provider(Api::OpenAi, Some("us-west-2"))),
            (
                "local",
                ProviderFacts { data_regions: vec!["us-east-1".parse().unwrap()], ..provider(Api::OpenAi, None) },
            ),
        ];
        let definitions = [
            (
                "claude-haiku-eu",
                r#"{"name": "eu.anthropic.claude-haiku-4-5-20251001-v1:0", "provider": "bedrock", "region": "eu-central-1", "parameters": {"max_tokens": 1024}}"#,
            ),
            ("of-nobody", r#"{"name": "m", "provider": "nobody"}"#),
        ];
        let day = |text: &str| text.parse().unwrap();
        let sonnet = Model {
            needs_profile: true,
            profiles: vec!["us".into(), "global".into()],
            ..model(Api::Bedrock, "anthropic.claude-sonnet-4-6")
        };
        let haiku = ["us", "eu", "global"].map(|place| Model {
            refuses_together: vec![("temperature".into(), "top_p".into())],
            ..model(Api::Bedrock, &format!("{place}.anthropic.claude-haiku-4-5-20251001-v1:0"))
        });
        let mut models = vec![
            model(Api::OpenAi, "gpt-5.4-mini"),
            Model {
                lifecycle: Lifecycle::Ended(Some(day("2026-10-23"))),
                substitutes: vec!["us.anthropic.claude-opus-5-5".into(), "gpt-5.4-mini".into()],
                ..model(Api::OpenAi, "gpt-4")
            },
            Model { lifecycle: Lifecycle::EndsOn(day("2027-01-14")), ..model(Api::OpenAi, "gpt-4o") },
            Model { refuses: vec!["temperature".into()], ..model(Api::Bedrock, "us.anthropic.claude-opus-5-5") },
        ];
        models.extend(haiku);
        models.push(sonnet);
        Self {
            providers: providers.into_iter().map(|(name, facts)| (name.parse().unwrap(), facts)).collect(),
            models: definitions
                .into_iter()
                .map(|(stem, text)| (stem.to_owned(), model_definition::read(stem, text.as_bytes()).0.unwrap()))
                .collect(),
            catalog: Catalog::from_models(models),
        }
    }

    /// The same with the built-in catalogue.
    fn with_real_models() -> Self {
        Self { catalog: (*Catalog::builtin()).clone(), ..Self::new() }
    }

    fn read(&self, file: &str, text: &[u8]) -> spec::Read {
        let today = "2026-11-22".parse().unwrap();
        let context = Context { providers: &self.providers, models: &self.models, catalog: &self.catalog, today };
        let mut read = spec::read(file, text, &context);
        // As a snapshot does.
        if let Some(pipeline) = &read.pipeline {
            read.diagnostics.extend(snapshot::foresee(file, text, pipeline, &self.catalog));
            read.diagnostics.sort_by_key(|found| found.position.map(|at| (at.line, at.column)));
            read.pipeline = read.pipeline.filter(|_| !read.diagnostics.iter().any(Diagnostic::is_error));
        }
        read
    }
}

/// Fixtures by stem.
fn fixtures(kind: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/specs").join(kind);
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap())).collect()
}

fn rendered(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n\n")
}

/// A pipeline in lines that do not change with the insides of conditions.
fn summary(pipeline: &Pipeline) -> String {
    let mut lines = vec![format!(
        "{} ({:?}) labels {:?} accept {:?}",
        pipeline.name,
        pipeline.description,
        pipeline.labels,
        pipeline.accept.models.iter().map(|glob| glob.text.as_str()).collect::<Vec<_>>(),
    )];
    lines.extend(pipeline.targets.iter().map(|target| format!("{target:?}")));
    for rule in &pipeline.route {
        let when = rule.when.as_ref().map(|condition| condition.source().to_owned());
        lines.push(format!(
            "rule {:?} when {when:?} on_missing {} confine {:?} to {:?} fallback {:?}",
            rule.name, rule.on_missing, rule.confine, rule.to, rule.fallback
        ));
    }
    for rollout in &pipeline.rollouts {
        lines.push(format!(
            "rollout {} {:?} -> {:?} {} by {} salt {} missing {} to_candidate {}",
            rollout.name,
            rollout.baseline,
            rollout.candidate,
            rollout.course,
            rollout.key.source(),
            rollout.salt,
            rollout.missing_key,
            rollout.fallback_to_candidate
        ));
    }
    lines.push(format!("fallback {:?} {:?} deadline {:?}", pipeline.fallback, pipeline.retry, pipeline.deadline));
    lines.push(format!("concurrency {} {:?} priority {}", pipeline.concurrency, pipeline.budget, pipeline.priority));
    lines.push(format!("{:?} {:?}", pipeline.flags, pipeline.retention));
    lines.extend(pipeline.tests.iter().map(|test| format!("{test:?}")));
    lines.join("\n")
}

#[test]
fn every_bad_spec_is_explained_in_full() {
    let world = World::new();
    for (stem, text) in fixtures("bad") {
        let read = world.read(&format!("pipelines/{stem}.yaml"), &text);
        assert!(read.pipeline.is_none(), "{stem} was taken");
        assert!(read.diagnostics.iter().any(Diagnostic::is_error), "{stem}");
        assert!(read.diagnostics.iter().all(|diagnostic| diagnostic.help.is_some()), "{stem}: advice is missing");
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(format!("bad-{stem}"), rendered(&read.diagnostics));
        });
    }
}

#[test]
fn every_good_spec_becomes_a_pipeline() {
    let world = World::new();
    for (stem, text) in fixtures("good") {
        let read = world.read(&format!("pipelines/{stem}.yaml"), &text);
        let said = rendered(&read.diagnostics);
        let pipeline = read.pipeline.unwrap_or_else(|| panic!("{stem} was refused:\n{said}"));
        assert_eq!(pipeline.name.as_str(), stem);
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(format!("good-{stem}"), format!("{}\n\n{said}", summary(&pipeline)));
        });
    }
}

/// The sample that the documentation opens with names models that are sold today.
#[test]
fn the_sample_loads_with_the_built_in_catalogue() {
    let sample = &fixtures("good")["ticket-triage"];
    let read = World::with_real_models().read("pipelines/ticket-triage.yaml", sample);
    assert_eq!(rendered(&read.diagnostics), "");
    assert!(read.pipeline.is_some());
}
