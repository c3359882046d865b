//! What is exported, as a scrape would see it.

use std::{sync::Arc, time::Duration};

use super::*;
use crate::{
    money::BasisPoints,
    names::{Region, RolloutName},
    routing::FlagLevels,
    snapshot::{FileReport, LoadedPipeline},
    spec::{
        Accept, Api, Destination, Fidelity, Flag, FlagSet, OnMissing, Parameters, Pipeline, Residency, Retention,
        Retry, Rule, Target, TargetIx,
    },
};

fn pipeline_name(text: &str) -> PipelineName {
    PipelineName::new(text).unwrap()
}

fn target_name(text: &str) -> TargetName {
    TargetName::new(text).unwrap()
}

fn provider_name(text: &str) -> ProviderName {
    ProviderName::new(text).unwrap()
}

fn target(name: &str) -> Arc<Target> {
    Arc::new(Target {
        name: target_name(name),
        provider: provider_name("openai"),
        api: Api::OpenAi,
        model: "gpt-5.4-mini".to_owned(),
        region: None,
        residency: Residency::Unknown,
        timeout: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(1),
        stream: false,
        invoke: None,
        defaults: Parameters::new(),
        overrides: Parameters::new(),
        cap: Parameters::new(),
        system: None,
        fidelity: Fidelity::Warn,
    })
}

fn pipeline(name: &str, targets: &[&str], labels: &[(&str, &str)]) -> Pipeline {
    Pipeline {
        name: pipeline_name(name),
        description: None,
        labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        accept: Accept::default(),
        targets: targets.iter().map(|name| target(name)).collect(),
        route: vec![Rule {
            name: "everything".into(),
            when: None,
            on_missing: OnMissing::NoMatch,
            confine: None,
            to: Destination::Target(TargetIx(0)),
            fallback: None,
        }],
        rollouts: Vec::new(),
        fallback: Vec::new(),
        retry: Retry::default(),
        deadline: Duration::from_secs(1),
        concurrency: 1,
        sharing: crate::spec::Sharing::default(),
        budget: None,
        priority: 0,
        flags: FlagSet::default(),
        retention: Retention::default(),
        tests: Vec::new(),
    }
}

fn snapshot(pipelines: &[Pipeline]) -> Snapshot {
    Snapshot {
        generation: 7,
        hash: String::new(),
        pipelines: pipelines
            .iter()
            .map(|pipeline| {
                let loaded = LoadedPipeline {
                    pipeline: pipeline.clone(),
                    file: format!("{}.yaml", pipeline.name),
                    text: "".into(),
                    stale: false,
                    definitions: Arc::default(),
                };
                (pipeline.name.clone(), Arc::new(loaded))
            })
            .collect(),
        flags: FlagLevels::default(),
        catalog: Arc::default(),
        providers: Arc::default(),
        files: pipelines
            .iter()
            .map(|pipeline| FileReport { file: format!("{}.yaml", pipeline.name), valid: true, diagnostics: vec![] })
            .collect(),
        ..Snapshot::default()
    }
}

/// Every method called once, for a pipeline of these names.
fn touch_everything(metrics: &Metrics, pipeline: &PipelineName, target: &TargetName) {
    let (provider, region) = (provider_name("bedrock"), Region::new("us-east-1").unwrap());
    let rollout = RolloutName::new("to-bedrock").unwrap();
    metrics.jobs_submitted(pipeline, 3);
    metrics.queue_wait(pipeline, Duration::from_millis(20));
    metrics.job_finished(pipeline, State::Succeeded, Duration::from_secs(2));
    metrics.set_jobs(&[((pipeline.clone(), State::Queued), 5)].into());
    let (then, now) = (Timestamp::from_micros(0), Timestamp::from_micros(90_000_000));
    metrics.set_oldest(&[(pipeline.clone(), then)].into(), now);
    metrics.route_decided(pipeline, Some("everything"), Some(target));
    metrics.attempt_ended(pipeline, target, &provider, Some(Fault::TooLong), Duration::from_millis(700));
    metrics.first_token(pipeline, target, Duration::from_millis(300));
    metrics.fallback(pipeline, target, target, Fault::Unavailable);
    metrics.tokens(pipeline, target, &Usage { input: 10, output: 4, ..Usage::default() });
    metrics.cost(pipeline, target, "0.25".parse().unwrap());
    metrics.unpriced(pipeline, target);
    metrics.possibly_billed(pipeline, target, Outcome::Unknown, Some("0.5".parse().unwrap()));
    metrics.token_estimate_error(target, 110, 100);
    metrics.window_utilization(target, 0.4);
    metrics.set_rollouts([RolloutReading {
        pipeline,
        rollout: &rollout,
        percent: BasisPoints::new(1_250).unwrap(),
        state: RolloutState::Running,
    }]);
    metrics.set_flags([FlagReading { flag: &Flag::Pause, pipeline: Some(pipeline), active: true }]);
    metrics.set_quotas([QuotaReading {
        provider: &provider,
        model: "m",
        region: Some(&region),
        kind: QuotaKind::TokensPerMinute,
        used: 0.9,
    }]);
    metrics.set_budgets([(pipeline.as_str(), "day", 0.5)], [("ci", "month", 1.0)]);
    metrics.set_breakers([BreakerReading {
        provider: &provider,
        model: "m",
        region: None,
        state: BreakerState::HalfOpen,
    }]);
    metrics.callback(CallbackOutcome::Delivered);
    metrics.set_callback_delay(Duration::from_secs(3));
    metrics.reloaded(ReloadTrigger::Watch, ReloadResult::Success, Duration::from_millis(12), now);
}

#[test]
fn every_family_is_exported_with_its_labels_and_help() {
    let metrics = Metrics::new();
    metrics.follow(&snapshot(&[pipeline("triage", &["openai"], &[])]));
    touch_everything(&metrics, &pipeline_name("triage"), &target_name("openai"));
    let text = metrics.encode();
    for info in Metrics::catalogue() {
        assert!(text.contains(&format!("# HELP {} {}\n", info.name, info.help)), "{}", info.name);
        let prefix = if info.histogram { format!("{}_count", info.name) } else { info.name.to_owned() };
        let sample = text
            .lines()
            .find(|line| line.starts_with(&format!("{prefix}{{")) || line.starts_with(&format!("{prefix} ")))
            .unwrap_or_else(|| panic!("no sample of {}", info.name));
        for label in info.labels {
            assert!(sample.contains(&format!("{label}=\"")), "{sample} lacks {label}");
        }
        assert_eq!(sample.matches("=\"").count(), info.labels.len(), "{sample}");
    }
    for line in [
        r#"landbridge_attempts_total{outcome="too_long",pipeline="triage",provider="bedrock",target="openai"} 1"#,
        r#"landbridge_fallbacks_total{fault="unavailable",from="openai",pipeline="triage",to="openai"} 1"#,
        r#"landbridge_tokens_total{pipeline="triage",target="openai",type="input"} 10"#,
        r#"landbridge_cost_usd_total{pipeline="triage",target="openai"} 0.25"#,
        r#"landbridge_rollout_percent{pipeline="triage",rollout="to-bedrock"} 12.5"#,
        r#"landbridge_rollout_state{pipeline="triage",rollout="to-bedrock",state="running"} 1"#,
        r#"landbridge_rollout_state{pipeline="triage",rollout="to-bedrock",state="rolled_back"} 0"#,
        r#"landbridge_breaker_state{model="m",provider="bedrock",region=""} 1"#,
        r#"landbridge_flag_active{flag="PAUSE",scope="triage"} 1"#,
        r#"landbridge_oldest_queued_job_age_seconds{pipeline="triage"} 90"#,
        r#"landbridge_token_estimate_error_ratio_sum{target="openai"} 0.1"#,
        "landbridge_config_generation 7",
        "landbridge_config_last_reload_success_timestamp_seconds 90",
    ] {
        assert!(text.lines().any(|have| have == line), "missing {line} in\n{text}");
    }
}

#[test]
fn names_that_leave_the_specs_take_their_series_along() {
    let metrics = Metrics::new();
    let (old, kept) = (pipeline_name("old"), pipeline_name("kept"));
    metrics.follow(&snapshot(&[pipeline("old", &["gone"], &[]), pipeline("kept", &["openai", "dropped"], &[])]));
    touch_everything(&metrics, &old, &target_name("gone"));
    metrics.attempt_ended(&kept, &target_name("dropped"), &provider_name("openai"), None, Duration::ZERO);
    metrics.attempt_ended(&kept, &target_name("openai"), &provider_name("openai"), None, Duration::ZERO);
    metrics.route_decided(&kept, Some("renamed rule"), None);
    metrics.route_decided(&kept, None, None);
    metrics.follow(&snapshot(&[pipeline("kept", &["openai"], &[])]));
    metrics.set_rollouts([]);
    metrics.set_flags([]);
    let text = metrics.encode();
    let named = [r#"="old""#, r#"="gone""#, r#"="dropped""#, "renamed"];
    let left: Vec<&str> = text.lines().filter(|line| named.iter().any(|name| line.contains(name))).collect();
    assert_eq!(
        left,
        [
            r#"landbridge_jobs{pipeline="old",state="queued"} 5"#,
            r#"landbridge_oldest_queued_job_age_seconds{pipeline="old"} 90"#,
        ],
        "only what the store still counts may name what is gone"
    );
    assert!(text.contains(r#"landbridge_route_decisions_total{pipeline="kept",rule="",target=""} 1"#));
    assert!(text.contains(r#"outcome="succeeded",pipeline="kept",provider="openai",target="openai"} 1"#));
    metrics.set_jobs(&BTreeMap::new());
    assert!(!metrics.encode().contains(r#"pipeline="old",state"#));
}

#[test]
fn counters_of_jobs_start_at_zero() {
    let metrics = Metrics::new();
    metrics.follow(&snapshot(&[pipeline("triage", &["openai"], &[])]));
    let text = metrics.encode();
    for state in ["succeeded", "failed", "cancelled", "expired"] {
        let line = format!(r#"landbridge_jobs_finished_total{{pipeline="triage",state="{state}"}} 0"#);
        assert!(text.contains(&line), "{line}");
    }
    assert!(text.contains(r#"landbridge_jobs_submitted_total{pipeline="triage"} 0"#));
}

#[test]
fn label_values_that_join_to_the_same_text_stay_apart() {
    let metrics = Metrics::new();
    let provider = provider_name("openai");
    metrics.attempt_ended(&pipeline_name("a"), &target_name("bc"), &provider, None, Duration::ZERO);
    metrics.attempt_ended(&pipeline_name("ab"), &target_name("c"), &provider, None, Duration::ZERO);
    let text = metrics.encode();
    for labels in [r#"pipeline="a",provider="openai",target="bc""#, r#"pipeline="ab",provider="openai",target="c""#] {
        let line = format!(r#"landbridge_attempts_total{{outcome="succeeded",{labels}}} 1"#);
        assert!(text.contains(&line), "missing {line} in\n{text}");
    }
}

#[test]
fn labels_of_specs_become_legal_and_unique() {
    let metrics = Metrics::new();
    let labels = [("cost-centre", "12"), ("cost_centre", "13"), ("team", "say \"hi\"\n"), ("tëam", "x")];
    metrics.follow(&snapshot(&[pipeline("triage", &["openai"], &labels), pipeline("other", &["openai"], &[])]));
    let text = metrics.encode();
    let expected = concat!(
        r#"landbridge_pipeline_info{label_cost_centre="12",label_cost_centre_2="13",label_t_am="x","#,
        r#"label_team="say \"hi\"\n",pipeline="triage"} 1"#
    );
    assert!(text.contains(expected), "{text}");
    assert!(text.contains(r#"landbridge_pipeline_info{pipeline="other"} 1"#));
}

#[test]
fn a_failed_reload_keeps_the_time_of_the_last_success() {
    let metrics = Metrics::new();
    let at = Timestamp::from_micros;
    metrics.reloaded(ReloadTrigger::Start, ReloadResult::Success, Duration::ZERO, at(1_000_000));
    metrics.reloaded(ReloadTrigger::Api, ReloadResult::Partial, Duration::ZERO, at(2_000_000));
    let text = metrics.encode();
    for line in [
        "landbridge_config_last_reload_successful 0",
        "landbridge_config_last_reload_success_timestamp_seconds 1",
        r#"landbridge_config_reloads_total{result="partial",trigger="api"} 1"#,
        r#"landbridge_config_reloads_total{result="success",trigger="start"} 1"#,
        "landbridge_config_reload_duration_seconds_count 2",
    ] {
        assert!(text.lines().any(|have| have == line), "missing {line} in\n{text}");
    }
}

#[test]
fn threads_that_meet_at_a_new_series_lose_no_count() {
    let metrics = Metrics::new();
    let name = pipeline_name("triage");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..500).for_each(|_| metrics.jobs_submitted(&name, 1)));
        }
    });
    assert!(metrics.encode().contains(r#"landbridge_jobs_submitted_total{pipeline="triage"} 4000"#));
}
