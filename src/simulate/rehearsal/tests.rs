//! How near to the ideal the scheduler comes, and that nothing is lost whatever providers do.

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::*;
use crate::simulate::model::{FaultKind, FaultRule, Latency, Quota, Scope, Scoped};

const LATENCY: Duration = Duration::from_millis(50);

fn scope() -> Scope {
    Scope::all()
}

fn quota(text: &str) -> Vec<Scoped<Quota>> {
    vec![Scoped { scope: scope(), value: text.parse().unwrap() }]
}

fn target(api: Api, grant: Grant) -> SceneTarget {
    SceneTarget { api, model: "m".to_owned(), grant, headers: false, burndown: 1 }
}

fn scene(quotas: Vec<Scoped<Quota>>, targets: Vec<SceneTarget>, pipelines: Vec<ScenePipeline>) -> Scene {
    let latency = vec![Scoped { scope: scope(), value: Latency::Constant(LATENCY) }];
    Scene {
        behaviour: BehaviourConfig { latency, quotas, ..BehaviourConfig::default() },
        targets,
        pipelines,
        turned_away_after: Duration::from_millis(20),
        bound: Duration::from_hours(10),
    }
}

fn requests(per_second: u64) -> Grant {
    Grant { requests_per_minute: Some(per_second * 60), ..Grant::UNKNOWN }
}

/// What cannot be beaten: a full bucket of one second, then the rate, and the last call's latency.
fn ideal(amount: f64, per_second: f64) -> f64 {
    (amount - per_second).max(0.0) / per_second + LATENCY.as_secs_f64()
}

fn over(outcome: &Outcome, ideal: f64) -> f64 {
    outcome.makespan.as_secs_f64() / ideal
}

#[test]
fn a_known_quota_is_filled_without_a_single_throttle() {
    let outcome = rehearse(&scene(
        quota("rpm=6000"),
        vec![target(Api::OpenAi, requests(100))],
        vec![ScenePipeline::batch("p", 3_000, 100, 100)],
    ));
    let over = over(&outcome, ideal(3_000.0, 100.0));
    println!("known: {over:.4} of the ideal, {} throttles, asked {}", outcome.throttled, outcome.asked);
    assert_eq!((outcome.succeeded, outcome.throttled), (3_000, 0));
    assert!(over <= 1.01, "{over}");
}

#[test]
fn two_pipelines_fill_a_quota_they_share() {
    let outcome = rehearse(&scene(
        quota("rpm=6000"),
        vec![target(Api::OpenAi, requests(100))],
        vec![ScenePipeline::batch("p", 1_500, 100, 100), ScenePipeline::batch("q", 1_500, 100, 100)],
    ));
    let over = over(&outcome, ideal(3_000.0, 100.0));
    println!("shared: {over:.4} of the ideal, {} throttles", outcome.throttled);
    assert_eq!((outcome.succeeded, outcome.throttled), (3_000, 0));
    assert!(over <= 1.02, "{over}");
}

/// Sizes as prompts have them: log-normal, of about a thousand tokens.
fn sizes(seed: u64, count: usize) -> Vec<SceneJob> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..count)
        .map(|_| {
            let normal = (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few thousand")]
            let input = (800.0 * (normal * 0.8).exp()).clamp(10.0, 50_000.0) as u64;
            let output = rng.random_range(20..200);
            SceneJob { at: Duration::ZERO, input, most_output: 200, output, key: "".into() }
        })
        .collect()
}

#[test]
fn tokens_by_the_minute_are_filled_by_jobs_of_all_sizes() {
    for seed in 0..2 {
        let jobs = sizes(seed, 3_000);
        let grant = Grant { tokens_per_minute: Some(6_000_000), ..Grant::UNKNOWN };
        for api in [Api::OpenAi, Api::Bedrock] {
            let tokens: u64 = jobs
                .iter()
                .map(|job| match api {
                    Api::OpenAi => job.input.max(job.most_output),
                    Api::Bedrock => job.input + job.output,
                })
                .sum();
            let pipeline = ScenePipeline { jobs: jobs.clone(), ..ScenePipeline::batch("p", 0, 0, 0) };
            let outcome = rehearse(&scene(quota("tpm=6000000"), vec![target(api, grant)], vec![pipeline]));
            let over = over(&outcome, ideal(tokens as f64, 100_000.0));
            println!("tokens, {api}, seed {seed}: {over:.4} of the ideal, {} throttles", outcome.throttled);
            assert_eq!((outcome.succeeded, outcome.throttled), (3_000, 0));
            assert!(over <= 1.02, "{over} with seed {seed}, {api}");
        }
    }
}

#[test]
fn an_unknown_quota_is_found_and_filled() {
    for (per_second, concurrency) in [(100_u32, 64), (100, 256), (20, 64), (400, 256)] {
        let text = format!("rpm={}", per_second * 60);
        let pipeline = ScenePipeline { concurrency, ..ScenePipeline::batch("p", 10_000, 100, 100) };
        let outcome = rehearse(&scene(quota(&text), vec![target(Api::Bedrock, Grant::UNKNOWN)], vec![pipeline]));
        let over = over(&outcome, ideal(10_000.0, f64::from(per_second)));
        let share = outcome.throttled as f64 / outcome.calls.len() as f64;
        println!(
            "unknown, {per_second}/s, {concurrency} at once: {over:.4} of the ideal, {:.2} % throttled",
            share * 100.0
        );
        assert_eq!(outcome.succeeded, 10_000);
        assert!(over <= 1.05, "{over} at {per_second}/s");
        assert!(share <= 0.01, "{share} at {per_second}/s");
    }
}

#[test]
fn headers_make_an_unknown_quota_a_known_one() {
    let told = SceneTarget { headers: true, ..target(Api::OpenAi, Grant::UNKNOWN) };
    let outcome = rehearse(&scene(quota("rpm=6000"), vec![told], vec![ScenePipeline::batch("p", 10_000, 100, 100)]));
    let over = over(&outcome, ideal(10_000.0, 100.0));
    println!("headers: {over:.4} of the ideal, {} throttles", outcome.throttled);
    assert!(over <= 1.02 && outcome.throttled <= 10, "{over}, {}", outcome.throttled);
}

#[test]
fn after_an_outage_the_full_rate_is_back_soon_and_without_a_stampede() {
    for seed in 0..4 {
        let mut scene = scene(
            quota("rpm=6000"),
            vec![target(Api::OpenAi, requests(100))],
            vec![ScenePipeline::batch("p", 12_000, 100, 100)],
        );
        let fault = FaultRule {
            from: Duration::from_secs(20),
            lasts: Some(Duration::from_mins(1)),
            ..FaultRule::always(FaultKind::Overloaded { status: 503, retry_after: None })
        };
        scene.behaviour.faults = vec![Scoped { scope: scope(), value: fault }];
        scene.behaviour.seed = seed;
        let outcome = rehearse(&scene);
        let seconds = outcome.per_second();
        let peak = seconds[80..].iter().max().unwrap();
        let back = seconds[80..].iter().position(|count| *count >= 95).unwrap();
        let during: usize = seconds[22..80].iter().sum();
        if seed == 0 {
            println!(
                "outage: full rate after {back} s, peak {peak}/s, {during} calls in the outage, {} failed",
                outcome.failed
            );
        }
        assert!(back <= 10, "{back} s with seed {seed}");
        assert!(*peak <= 120, "{peak} with seed {seed}");
        assert!(during < 60, "{during} with seed {seed}");
        assert_eq!((outcome.succeeded, outcome.failed, outcome.unfinished), (12_000, 0, 0), "seed {seed}");
    }
}

/// Any provider, any quota, any faults: every job ends or waits for a reason, and nothing spins.
fn anything(seed: u64) -> Scene {
    let mut rng = StdRng::seed_from_u64(seed);
    let api = if rng.random() { Api::OpenAi } else { Api::Bedrock };
    let (rpm, tpm) = (rng.random_range(30..20_000_u64), rng.random_range(20_000..5_000_000_u64));
    let mut scene = scene(quota(&format!("rpm={rpm},tpm={tpm}")), Vec::new(), Vec::new());
    scene.behaviour.seed = seed;
    scene.behaviour.latency[0].value = match rng.random_range(0..3) {
        0 => Latency::Constant(Duration::from_millis(rng.random_range(1..2_000))),
        1 => Latency::Uniform(Duration::from_millis(5), Duration::from_millis(rng.random_range(5..2_000))),
        _ => Latency::LogNormal { median: Duration::from_millis(300), p95: Duration::from_millis(1_500) },
    };
    for _ in 0..rng.random_range(0..3) {
        let kind = match rng.random_range(0..7) {
            0 => FaultKind::Throttled {
                retry_after: rng.random::<bool>().then(|| Duration::from_secs(rng.random_range(0..40_000_000))),
            },
            1 => FaultKind::ServerError,
            2 => FaultKind::Overloaded { status: 503, retry_after: None },
            3 => FaultKind::Hang,
            4 => FaultKind::Reset { after: 0 },
            5 => FaultKind::BadGateway,
            _ => FaultKind::Refused,
        };
        let value = FaultRule {
            probability: rng.random_range(0.0..0.3),
            from: Duration::from_secs(rng.random_range(0..10)),
            lasts: rng.random::<bool>().then(|| Duration::from_secs(rng.random_range(1..90))),
            count: rng.random::<bool>().then(|| rng.random_range(1..50)),
            ..FaultRule::always(kind)
        };
        scene.behaviour.faults.push(Scoped { scope: scope(), value });
    }
    for _ in 0..rng.random_range(1..4) {
        let known = |limit: u64, rng: &mut StdRng| match rng.random_range(0..4) {
            0 => None,
            1 => Some(limit * 3),
            _ => Some(limit),
        };
        let grant = Grant {
            requests_per_minute: known(rpm, &mut rng),
            tokens_per_minute: known(tpm, &mut rng),
            concurrency: rng.random::<bool>().then(|| rng.random_range(1..50)),
            ..Grant::UNKNOWN
        };
        scene.targets.push(SceneTarget {
            headers: rng.random(),
            burndown: rng.random_range(1..11),
            ..target(api, grant)
        });
    }
    for name in ["a", "b", "c"].iter().take(rng.random_range(1..4)) {
        let mut targets: Vec<usize> = (0..scene.targets.len()).collect();
        let first = rng.random_range(0..targets.len());
        targets.rotate_left(first);
        targets.truncate(rng.random_range(1..=targets.len()));
        let jobs = (0..rng.random_range(1..40))
            .map(|_| SceneJob {
                at: Duration::from_millis(rng.random_range(0..20_000)),
                input: rng.random_range(1..8_000),
                most_output: rng.random_range(1..4_000),
                output: rng.random_range(0..1_000),
                key: ["", "x", "y"][rng.random_range(0..3)].into(),
            })
            .collect();
        scene.pipelines.push(ScenePipeline {
            weight: rng.random_range(1..10),
            concurrency: rng.random_range(1..64),
            targets,
            spill_after: Duration::from_secs(rng.random_range(0..60)),
            jobs,
            ..ScenePipeline::batch(name, 0, 0, 0)
        });
    }
    scene.bound = Duration::from_hours(72);
    scene
}

#[test]
fn whatever_providers_do_every_job_ends_and_nothing_spins() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("LANDBRIDGE_REHEARSAL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("LANDBRIDGE_REHEARSALS").unwrap_or(2_000),
    };
    for seed in seeds {
        let scene = anything(seed);
        let jobs: usize = scene.pipelines.iter().map(|pipeline| pipeline.jobs.len()).sum();
        let replay = format!("replay with LANDBRIDGE_REHEARSAL_SEED={seed} cargo test --lib whatever_providers_do");
        let outcome = rehearse(&scene);
        assert_eq!(outcome.unfinished, 0, "jobs that never end; {replay}");
        assert_eq!(outcome.succeeded + outcome.failed, jobs, "jobs lost or doubled; {replay}");
        let most = 2_000 + (outcome.calls.len() + jobs) * 60 + usize::try_from(outcome.makespan.as_secs()).unwrap() * 8;
        assert!(outcome.asked <= most, "asked {} times for {} calls; {replay}", outcome.asked, outcome.calls.len());
    }
}
