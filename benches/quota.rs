//! How near the scheduler comes to the ideal, and what it costs: on a simulated clock, so the figures are the same on any
//! machine but for the last one. `cargo bench --bench quota`.

use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng, rngs::StdRng};

use landbridge::{
    quota::Grant,
    simulate::{
        model::{BehaviourConfig, FaultKind, FaultRule, Latency, Scope, Scoped},
        rehearsal::{Outcome, Scene, SceneJob, ScenePipeline, SceneTarget, rehearse},
    },
    spec::Api,
};

const LATENCY: Duration = Duration::from_millis(50);

fn scene(quota: &str, targets: Vec<SceneTarget>, pipelines: Vec<ScenePipeline>) -> Scene {
    let latency = vec![Scoped { scope: Scope::all(), value: Latency::Constant(LATENCY) }];
    let quotas = vec![Scoped { scope: Scope::all(), value: quota.parse().expect("a quota") }];
    Scene {
        behaviour: BehaviourConfig { latency, quotas, ..BehaviourConfig::default() },
        targets,
        pipelines,
        turned_away_after: Duration::from_millis(20),
        bound: Duration::from_hours(10),
    }
}

fn target(model: String, grant: Grant) -> SceneTarget {
    SceneTarget { api: Api::OpenAi, model, grant, headers: false, burndown: 1 }
}

/// Sizes as prompts have them: log-normal, of about a thousand tokens.
fn log_normal(count: usize) -> Vec<SceneJob> {
    let mut rng = StdRng::seed_from_u64(1);
    (0..count)
        .map(|_| {
            let normal = (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few thousand")]
            let input = (800.0 * (normal * 0.8).exp()).clamp(10.0, 50_000.0) as u64;
            SceneJob { at: Duration::ZERO, input, most_output: 200, output: rng.random_range(20..200), key: "".into() }
        })
        .collect()
}

/// How far the share of the heavier of two pipelines is from its weight, at worst over windows of 10 s.
fn fairness() -> f64 {
    let heavy = ScenePipeline { weight: 3, ..ScenePipeline::batch("p", 4_500, 100, 100) };
    let light = ScenePipeline::batch("q", 1_500, 100, 100);
    let outcome = rehearse(&scene("rpm=6000", vec![target("m".to_owned(), per_second(100))], vec![heavy, light]));
    let Some(first) = outcome.calls.first().map(|call| call.at) else { return f64::NAN };
    let mut windows = [(0_u32, 0_u32); 5];
    for call in &outcome.calls {
        let place = usize::try_from(first.until(call.at).as_secs() / 10).unwrap_or(usize::MAX);
        if let Some((all, ours)) = windows.get_mut(place) {
            *all += 1;
            *ours += u32::from(call.pipeline == 0);
        }
    }
    windows.iter().map(|(all, ours)| (f64::from(*ours) / f64::from(*all) - 0.75).abs() / 0.75).fold(0.0, f64::max)
}

fn per_second(requests: u64) -> Grant {
    Grant { requests_per_minute: Some(requests * 60), ..Grant::UNKNOWN }
}

fn print(what: &str, outcome: &Outcome, ideal: f64) {
    let over = outcome.makespan.as_secs_f64() / ideal;
    let share = outcome.throttled as f64 * 100.0 / outcome.calls.len() as f64;
    println!("{what:<58} {over:>8.4} {:>8} {share:>8.2} %", outcome.throttled);
}

fn main() {
    // Asked to list tests by a runner: there are none.
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    println!("{:<58} {:>8} {:>8} {:>10}", "", "/ ideal", "429s", "of calls");
    let one = |grant| vec![target("m".to_owned(), grant)];
    let ideal = |jobs: f64, rate: f64| (jobs - rate) / rate + LATENCY.as_secs_f64();
    let batch = |name: &str, jobs| ScenePipeline::batch(name, jobs, 100, 100);
    let known = rehearse(&scene("rpm=6000", one(per_second(100)), vec![batch("p", 3_000)]));
    print("known quota, 3,000 jobs at 100/s", &known, ideal(3_000.0, 100.0));
    let shared = rehearse(&scene("rpm=6000", one(per_second(100)), vec![batch("p", 1_500), batch("q", 1_500)]));
    print("known quota shared by two pipelines", &shared, ideal(3_000.0, 100.0));
    let jobs = log_normal(3_000);
    let tokens: u64 = jobs.iter().map(|job| job.input + job.output).sum();
    let grant = Grant { tokens_per_minute: Some(6_000_000), ..Grant::UNKNOWN };
    let bedrock = vec![SceneTarget { api: Api::Bedrock, ..target("m".to_owned(), grant) }];
    let sizes = rehearse(&scene("tpm=6000000", bedrock, vec![ScenePipeline { jobs, ..batch("p", 0) }]));
    print("known tokens a minute, 3,000 log-normal sizes", &sizes, ideal(tokens as f64, 100_000.0));
    for rate in [20_u64, 100, 400] {
        let quota = format!("rpm={}", rate * 60);
        let pipeline = ScenePipeline { concurrency: 256, ..batch("p", 10_000) };
        let unknown = rehearse(&scene(&quota, one(Grant::UNKNOWN), vec![pipeline]));
        print(&format!("unknown quota of {rate}/s, 10,000 jobs"), &unknown, ideal(10_000.0, rate as f64));
    }

    println!("\nfairness, weights 3 to 1: at most {:.2} % off in any 10 s", fairness() * 100.0);

    let mut outage = scene("rpm=6000", one(per_second(100)), vec![batch("p", 12_000)]);
    let fault = FaultRule {
        from: Duration::from_secs(20),
        lasts: Some(Duration::from_mins(1)),
        ..FaultRule::always(FaultKind::Overloaded { status: 503, retry_after: None })
    };
    outage.behaviour.faults = vec![Scoped { scope: Scope::all(), value: fault }];
    let outage = rehearse(&outage);
    let seconds = outage.per_second();
    let after = seconds.get(80..).unwrap_or_default();
    let back = after.iter().position(|count| *count >= 95);
    println!(
        "\nan outage of 60 s: full rate {} s after its end, peak {}/s at a quota of 100/s, {} of 12,000 jobs failed",
        back.map_or("never".to_owned(), |seconds| seconds.to_string()),
        after.iter().max().copied().unwrap_or_default(),
        outage.failed
    );

    // What the decisions cost: everything a hundred pipelines ask of a hundred quotas, with the simulated providers' own
    // work in it.
    let targets: Vec<SceneTarget> = (0..100).map(|at| target(format!("m{at}"), per_second(100))).collect();
    let pipelines: Vec<ScenePipeline> =
        (0..100).map(|at| ScenePipeline { targets: vec![at], ..batch(&format!("p{at}"), 2_000) }).collect();
    let many = scene("rpm=6000", targets, pipelines);
    let started = Instant::now();
    let outcome = rehearse(&many);
    let took = started.elapsed();
    println!(
        "100 pipelines, 100 quotas, {} jobs: {:.1} µs a job (scheduler, limits, retries and the simulated providers), \
         {:.2} questions to limits a job, {} throttles",
        outcome.succeeded,
        took.as_secs_f64() * 1e6 / outcome.succeeded.max(1) as f64,
        outcome.asked as f64 / outcome.succeeded.max(1) as f64,
        outcome.throttled
    );
}
