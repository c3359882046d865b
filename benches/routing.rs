//! What a routing decision costs: plain, with rules that are evaluated and passed over, under a kill switch; and what it
//! costs to take a job in and to put a decision into words.
//!
//! `cargo bench --bench routing`

#![expect(missing_docs, reason = "criterion's macros make functions without docs")]

use std::{collections::BTreeMap, fmt::Write, hint::black_box};

use criterion::{Criterion, criterion_group, criterion_main};
use landbridge::{
    catalog::Catalog,
    clock::Timestamp,
    job::{Envelope, retry},
    quota::{Allowance, Demand, Grant},
    routing::{EffectiveFlags, FlagLevels, Question, Standings, decide},
    spec::{Api, Flag, FlagSet, Pipeline, ProviderFacts, Providers, condition::Facts, read::read},
};

const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

fn providers() -> Providers {
    [("openai", Api::OpenAi), ("bedrock", Api::Bedrock)]
        .into_iter()
        .map(|(name, api)| {
            let region = (api == Api::Bedrock).then(|| "us-east-1".parse().expect("a region"));
            let facts = ProviderFacts { api, family: None, region, data_regions: Vec::new() };
            (name.parse().expect("a name"), facts)
        })
        .collect()
}

/// Two targets, a rollout, and `rules` rules before it that do not match.
fn pipeline(rules: usize, condition: &str) -> Pipeline {
    let mut spec = String::from(
        "version: 1\nname: triage\ntargets:\n  openai: { provider: openai, model: gpt-5.4-mini }\n  \
         bedrock: { provider: bedrock, model: us.amazon.nova-lite-v1:0 }\n\
         rollouts:\n  move: { baseline: openai, candidate: bedrock, percent: 25, key: job.metadata.customer }\n\
         fallback: [bedrock, openai]\nroute:\n",
    );
    for rule in 0..rules {
        let condition = condition.replace('#', &rule.to_string());
        writeln!(spec, "  - {{ name: rule {rule}, when: '{condition}', to: openai }}").expect("written to memory");
    }
    spec.push_str("  - { name: rest, rollout: move }\n");
    let context = landbridge::spec::read::Context {
        providers: &providers(),
        models: &BTreeMap::new(),
        catalog: &Catalog::default(),
        today: jiff::civil::date(2026, 11, 22),
    };
    let outcome = read("triage.yaml", spec.as_bytes(), &context);
    outcome.pipeline.unwrap_or_else(|| panic!("{:#?}", outcome.diagnostics))
}

fn flags(pipeline: &Pipeline, set: &[&str]) -> EffectiveFlags {
    let providers = providers();
    let set = set.iter().filter_map(|name| Flag::parse(name, providers.keys())).map(|flag| (flag, true)).collect();
    let levels = FlagLevels { runtime: FlagSet(set), ..FlagLevels::default() };
    EffectiveFlags::resolve(&levels, pipeline, &providers, false)
}

fn decisions(c: &mut Criterion) {
    let metadata: BTreeMap<String, String> =
        [("customer", "c-2"), ("region", "us")].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let body = serde_json::json!({ "messages": [{ "role": "user", "content": "hi" }] });
    let cases = [
        ("plain", pipeline(0, ""), &[][..]),
        ("1 rule", pipeline(1, "job.metadata.region == \"eu-#\""), &[]),
        ("10 rules", pipeline(10, "job.metadata.region == \"eu-#\""), &[]),
        ("10 rules of two parts", pipeline(10, "job.metadata.region == \"eu-#\" || job.priority > 10"), &[]),
        ("kill switch", pipeline(0, ""), &["FORCE_OPENAI_PROVIDER"]),
    ];
    let mut group = c.benchmark_group("decide");
    for (name, pipeline, set) in &cases {
        let flags = flags(pipeline, set);
        let facts = Facts {
            id: "job_01890a5d00007000800000000000000a",
            pipeline: pipeline.name.as_str(),
            metadata: &metadata,
            labels: &pipeline.labels,
            priority: 0,
            body: &body,
            prompt_tokens: &|| 10,
            age_seconds: 1,
        };
        group.bench_function(*name, |b| {
            b.iter(|| {
                decide(black_box(&Question { pipeline, flags: &flags, standings: &Standings::default(), facts }))
            });
        });
        if *name == "plain" {
            let decision = decide(&Question { pipeline, flags: &flags, standings: &Standings::default(), facts });
            group.bench_function("in words", |b| b.iter(|| black_box(&decision).record(pipeline, 1)));
        }
    }
    group.finish();
}

fn envelopes(c: &mut Criterion) {
    let text = "a word and ".repeat(70);
    let job = serde_json::json!({
        "pipeline": "triage",
        "idempotency_key": "order-17",
        "metadata": { "customer": "c-1", "region": "us" },
        "body": {
            "model": "gpt-4o-mini",
            "messages": [{ "role": "system", "content": "Classify." }, { "role": "user", "content": text }],
            "max_tokens": 100,
        },
    })
    .to_string();
    let mut group = c.benchmark_group("envelope");
    group.throughput(criterion::Throughput::Bytes(job.len() as u64));
    group.bench_function("parse 1 KiB", |b| b.iter(|| Envelope::parse(black_box(job.as_bytes()))));
    let envelope = Envelope::parse(job.as_bytes()).expect("a job");
    group.bench_function("digest 1 KiB", |b| b.iter(|| black_box(&envelope).digest()));
    group.finish();
}

fn retries_and_quotas(c: &mut Criterion) {
    let pipeline = pipeline(0, "");
    let chain: Vec<retry::Candidate> = pipeline
        .targets
        .iter()
        .map(|target| retry::Candidate {
            name: target.name.clone(),
            availability: retry::Availability::Ready,
            context_window: Some(128_000),
        })
        .collect();
    let policy = retry::Policy { retry: pipeline.retry, spill_after: std::time::Duration::from_mins(1) };
    c.bench_function("retry/first choice", |b| {
        b.iter(|| retry::choose(black_box(&chain), &[], &policy, NOW));
    });
    let grant = Grant {
        requests_per_minute: Some(1_000_000_000),
        tokens_per_minute: Some(1_000_000_000_000),
        concurrency: Some(1_000_000),
        ..Grant::UNKNOWN
    };
    let mut allowance = Allowance::new(grant, NOW);
    let demand = Demand { requests: 1, tokens: 1_000 };
    c.bench_function("quota/reserve and give back", |b| {
        b.iter(|| {
            let admission = allowance.admit(black_box(NOW), demand);
            if let Ok(reservation) = admission {
                allowance.cancel(reservation);
            }
            admission
        });
    });
}

criterion_group!(benches, decisions, envelopes, retries_and_quotas);
criterion_main!(benches);
