//! Pipelines for the tests of this room, built by hand: the reading of specs is another room's work.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::Value;

use crate::{
    money::BasisPoints,
    names::{PipelineName, ProviderName, RolloutName, TargetName},
    spec::{
        Accept, Api, Confinement, Course, Destination, Fidelity, FlagSet, MissingKey, OnMissing, Parameters, Pipeline,
        ProviderFacts, Providers, Residency, Retention, Retry, Rollout, RolloutIx, Rule, Target, TargetIx,
        condition::{Condition, Facts, KeyExpression},
    },
};

/// `openai`, `bedrock`, and `azure`, whose family is openai.
pub(crate) fn providers() -> Providers {
    [("openai", Api::OpenAi, None), ("bedrock", Api::Bedrock, None), ("azure", Api::OpenAi, Some("openai"))]
        .into_iter()
        .map(|(name, api, family)| {
            let family = family.map(provider);
            (provider(name), ProviderFacts { api, family, region: None, data_regions: Vec::new() })
        })
        .collect()
}

pub(crate) fn provider(name: &str) -> ProviderName {
    ProviderName::new(name).unwrap()
}

pub(crate) fn target(name: &str, provider_name: &str) -> Arc<Target> {
    Arc::new(Target {
        name: TargetName::new(name).unwrap(),
        provider: provider(provider_name),
        api: Api::OpenAi,
        model: "model".to_owned(),
        region: None,
        residency: Residency::Unknown,
        timeout: Duration::from_mins(2),
        idle_timeout: Duration::from_mins(2),
        stream: false,
        invoke: None,
        defaults: Parameters::new(),
        overrides: Parameters::new(),
        cap: Parameters::new(),
        system: None,
        fidelity: Fidelity::Warn,
    })
}

pub(crate) fn rule(name: &str, when: Option<&str>, to: Destination) -> Rule {
    Rule {
        name: Arc::from(name),
        when: when.map(|source| Condition::parse(source).unwrap()),
        on_missing: OnMissing::NoMatch,
        confine: None,
        to,
        fallback: None,
    }
}

pub(crate) fn confine(permitted: &[bool]) -> Confinement {
    Confinement { regions: vec!["eu-*".to_owned()], providers: Vec::new(), permitted: permitted.to_vec() }
}

pub(crate) fn rollout(baseline: u16, candidate: u16, percent: &str) -> Rollout {
    Rollout {
        name: RolloutName::new("to-bedrock").unwrap(),
        baseline: TargetIx(baseline),
        candidate: TargetIx(candidate),
        course: Course::Percent(BasisPoints::parse_percent(percent).unwrap()),
        key: KeyExpression::parse("job.metadata.customer").unwrap(),
        salt: "ticket-triage/to-bedrock".to_owned(),
        missing_key: MissingKey::Baseline,
        fallback_to_candidate: false,
    }
}

pub(crate) fn pipeline(targets: Vec<Arc<Target>>, route: Vec<Rule>) -> Pipeline {
    Pipeline {
        name: PipelineName::new("ticket-triage").unwrap(),
        description: None,
        labels: BTreeMap::new(),
        accept: Accept::default(),
        targets,
        route,
        rollouts: Vec::new(),
        fallback: Vec::new(),
        retry: Retry::default(),
        deadline: Duration::from_hours(24),
        concurrency: 64,
        sharing: crate::spec::Sharing::default(),
        budget: None,
        priority: 0,
        flags: FlagSet::default(),
        retention: Retention::default(),
        tests: Vec::new(),
    }
}

/// The design's example: the EU rule, then a rollout from `openai` to `bedrock` at `percent`, falling back to either.
pub(crate) fn triage(percent: &str) -> Pipeline {
    let mut eu = rule("eu stays", Some("job.metadata.region == \"eu\""), Destination::Target(TargetIx(2)));
    eu.confine = Some(confine(&[false, false, true]));
    eu.on_missing = OnMissing::NoMatch;
    let migrate = rule("migrate", None, Destination::Rollout(RolloutIx(0)));
    let targets = vec![target("openai", "openai"), target("bedrock", "bedrock"), target("bedrock-eu", "bedrock")];
    let mut pipeline = pipeline(targets, vec![eu, migrate]);
    pipeline.rollouts = vec![rollout(0, 1, percent)];
    pipeline.fallback = vec![TargetIx(1), TargetIx(0)];
    pipeline
}

/// A job for the routing of tests.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) metadata: BTreeMap<String, String>,
    body: Value,
}

impl Job {
    pub(crate) fn with(metadata: &[(&str, &str)]) -> Self {
        Self {
            id: "job_00000000000000000000000000000001".to_owned(),
            metadata: metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            body: serde_json::json!({ "messages": [{ "role": "user", "content": "hi" }] }),
        }
    }

    pub(crate) fn facts<'a>(&'a self, pipeline: &'a Pipeline) -> Facts<'a> {
        Facts {
            id: &self.id,
            pipeline: pipeline.name.as_str(),
            metadata: &self.metadata,
            labels: &pipeline.labels,
            priority: 0,
            body: &self.body,
            prompt_tokens: &|| 1,
            age_seconds: 0,
        }
    }
}
