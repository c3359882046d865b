//! The behaviour of providers, on a clock that the tests hold.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{clock::Timestamp, spec::Api};

const START: Timestamp = Timestamp::from_micros(1_000_000_000);

fn at(millis: u64) -> Timestamp {
    START + Duration::from_millis(millis)
}

fn call(api: Api) -> CallFacts<'static> {
    CallFacts {
        api,
        model: "m",
        region: None,
        input_tokens: 100,
        max_output_tokens: Some(50),
        model_max_output_tokens: 4_096,
        burndown: 5,
        streamed: false,
    }
}

fn behaviour(latency: &[&str], quotas: &[&str], faults: &[&str]) -> Behaviour {
    let config = BehaviourConfig {
        latency: latency.iter().map(|text| text.parse().unwrap()).collect(),
        quotas: quotas.iter().map(|text| text.parse().unwrap()).collect(),
        faults: faults.iter().map(|text| text.parse().unwrap()).collect(),
        ..BehaviourConfig::default()
    };
    Behaviour::new(config, START)
}

fn admitted(behaviour: &mut Behaviour, call: &CallFacts<'_>, now: Timestamp) -> bool {
    !matches!(behaviour.plan(call, now).fate, Fate::Throttle(_))
}

#[test]
fn rules_print_as_they_are_read() {
    for text in ["200ms", "uniform:100ms,300ms", "lognormal:median=800ms,p95=3s", "0s"] {
        assert_eq!(text.parse::<Latency>().unwrap().to_string(), text);
    }
    for text in ["requests_per_minute=500", "requests_per_minute=1,tokens_per_minute=2,tokens_per_day=3"] {
        assert_eq!(text.parse::<Quota>().unwrap().to_string(), text);
    }
    for text in [
        "all=throttled",
        "openai=throttled,retry_after=2s,probability=0.25,count=3,from=10s,for=30s",
        "bedrock/us.*=overloaded,status=529,retry_after=1s",
        "openai/gpt-*=reset,bytes=17",
        "bedrock=slow-drip,over=5s",
        "all=hang",
    ] {
        assert_eq!(text.parse::<Scoped<FaultRule>>().unwrap().to_string(), text);
    }
}

#[test]
fn bad_rules_say_what_to_write() {
    let cases = [
        ("hang", "write SCOPE=VALUE"),
        ("bedrok=hang", "does not say which calls"),
        ("all/x=hang", "does not say which calls"),
        ("openai/[=hang", "is not a glob"),
        ("all=explode", "unknown fault \"explode\": there are throttled"),
        ("all=hang,retry_after=1s", "knows no `retry_after`"),
        ("all=throttled,probability=2", "`probability`: \"2\" is not a number from 0 to 1"),
        ("all=throttled,probability=NaN", "is not a number from 0 to 1"),
        ("all=throttled,count=-1", "`count`: \"-1\" is not a whole number"),
        ("all=throttled,from=soon", "`from`"),
        ("all=overloaded,status=500", "503 or 529"),
        ("all=throttled,count", "is not KEY=VALUE"),
    ];
    for (text, expected) in cases {
        let error = text.parse::<Scoped<FaultRule>>().unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    for text in
        ["", "fast", "uniform:1s", "uniform:3s,1s", "lognormal:median=0s,p95=1s", "lognormal:median=2s,p95=1s", "2h"]
    {
        assert!(text.parse::<Latency>().is_err(), "{text}");
    }
    for text in ["", "rpm", "rpm=x", "rpm=1,rpm=2", "rps=1", "tpm=99999999999999999"] {
        assert!(text.parse::<Quota>().is_err(), "{text}");
    }
}

#[test]
fn the_last_rule_that_covers_a_call_holds() {
    let mut behaviour = behaviour(&["all=1s", "bedrock=2s", "bedrock/m=3s", "bedrock/other*=4s"], &[], &[]);
    assert_eq!(behaviour.plan(&call(Api::OpenAi), START).latency, Duration::from_secs(1));
    assert_eq!(behaviour.plan(&call(Api::Bedrock), START).latency, Duration::from_secs(3));
    let other = CallFacts { model: "other-1", ..call(Api::Bedrock) };
    assert_eq!(behaviour.plan(&other, START).latency, Duration::from_secs(4));
}

#[test]
fn a_log_normal_keeps_its_median_and_tail() {
    let latency: Latency = "lognormal:median=800ms,p95=3s".parse().unwrap();
    let mut drawn: Vec<Duration> = (0..20_000).map(|n| latency.draw(&mut Chance::of_call(7, n))).collect();
    drawn.sort();
    let median = drawn[10_000].as_secs_f64();
    let p95 = drawn[19_000].as_secs_f64();
    assert!((median / 0.8 - 1.0).abs() < 0.03, "median {median}");
    assert!((p95 / 3.0 - 1.0).abs() < 0.05, "p95 {p95}");
    assert_eq!(latency.draw(&mut Chance::of_call(7, 1)), latency.draw(&mut Chance::of_call(7, 1)));
    assert_ne!(latency.draw(&mut Chance::of_call(7, 1)), latency.draw(&mut Chance::of_call(8, 1)));
}

#[test]
fn requests_refill_steadily_after_a_burst_of_one_second() {
    let mut behaviour = behaviour(&[], &["openai=rpm=6000"], &[]);
    let call = call(Api::OpenAi);
    let burst = (0..200).filter(|_| admitted(&mut behaviour, &call, START)).count();
    assert_eq!(burst, 100);
    let Fate::Throttle(exceeded) = behaviour.plan(&call, START).fate else { panic!("admitted") };
    assert_eq!((exceeded.meter, exceeded.limit, exceeded.remaining), (Meter::Requests, 6_000, 0));
    assert_eq!(exceeded.wait, Some(Duration::from_millis(10)));
    assert!(!admitted(&mut behaviour, &call, at(9)));
    assert!(admitted(&mut behaviour, &call, at(10)));
    assert!(!admitted(&mut behaviour, &call, at(10)));
    // A long rest fills it to the burst, no higher.
    let rested = (0..200).filter(|_| admitted(&mut behaviour, &call, at(3_600_000))).count();
    assert_eq!(rested, 100);
}

#[test]
fn openai_charges_the_larger_of_prompt_and_bound_and_settles_nothing() {
    let mut behaviour = behaviour(&[], &["openai=tpm=6000"], &[]);
    let plan = behaviour.plan(&call(Api::OpenAi), START);
    assert_eq!(plan.reservation, None);
    let tokens = plan.rates.tokens.unwrap();
    // A burst of one second holds 100: the prompt's 100 emptied it.
    assert_eq!((tokens.limit, tokens.remaining, tokens.reset), (6_000, 0, Duration::from_secs(1)));
    let long = CallFacts { max_output_tokens: Some(7_000), ..call(Api::OpenAi) };
    let Fate::Throttle(exceeded) = behaviour.plan(&long, at(60_000)).fate else { panic!("admitted") };
    assert_eq!((exceeded.requested, exceeded.wait), (7_000, None));
}

#[test]
fn bedrock_reserves_the_bound_and_settles_by_burndown() {
    let mut behaviour = behaviour(&[], &["bedrock=tpm=60000"], &[]);
    // The burst holds 1,000: six calls of 150 fit, the seventh does not.
    let mut plans: Vec<Plan> = (0..7).map(|_| behaviour.plan(&call(Api::Bedrock), START)).collect();
    let Fate::Throttle(exceeded) = plans.pop().unwrap().fate else { panic!("admitted") };
    assert_eq!((exceeded.remaining, exceeded.requested), (100, 150));
    // One ends with 10 tokens of output, charged five times: 150 back, 100 + 50 taken.
    behaviour.settle(plans.pop().unwrap().reservation.unwrap(), 100, 10, START);
    assert!(!admitted(&mut behaviour, &call(Api::Bedrock), START));
    // One ends without output: 50 more are free.
    behaviour.settle(plans.pop().unwrap().reservation.unwrap(), 100, 0, START);
    let plan = behaviour.plan(&call(Api::Bedrock), START);
    assert_eq!(plan.fate, Fate::Answer);
    // One overshoots: 100 + 50 × 5 against 150 leaves a debt of 200, which takes 200 ms to refill and 150 more to fit.
    behaviour.settle(plan.reservation.unwrap(), 100, 50, START);
    let Fate::Throttle(exceeded) = behaviour.plan(&call(Api::Bedrock), START).fate else { panic!("admitted") };
    assert_eq!((exceeded.remaining, exceeded.wait), (0, Some(Duration::from_millis(350))));
}

#[test]
fn without_a_bound_bedrock_reserves_the_models_longest_answer() {
    let mut behaviour = behaviour(&[], &["bedrock=tpm=4000"], &[]);
    let unbounded = CallFacts { max_output_tokens: None, ..call(Api::Bedrock) };
    let Fate::Throttle(exceeded) = behaviour.plan(&unbounded, START).fate else { panic!("admitted") };
    assert_eq!((exceeded.requested, exceeded.wait), (4_196, None));
}

#[test]
fn regions_and_models_have_buckets_of_their_own() {
    let mut behaviour = behaviour(&[], &["bedrock=rpm=60", "bedrock/none=rpm=0"], &[]);
    for region in [None, Some("us-east-1"), Some("eu-central-1")] {
        for model in ["a", "b"] {
            let call = CallFacts { model, region, ..call(Api::Bedrock) };
            assert!(admitted(&mut behaviour, &call, START), "{region:?} {model}");
            assert!(!admitted(&mut behaviour, &call, START), "{region:?} {model}");
        }
    }
    let none = CallFacts { model: "none", ..call(Api::Bedrock) };
    assert!(!admitted(&mut behaviour, &none, at(1_000_000)));
}

#[test]
fn faults_strike_by_count_window_and_scope() {
    let mut behaviour = behaviour(
        &["all=1s"],
        &[],
        &["openai=server-error,count=2", "openai=hang,from=10s,for=5s", "bedrock/m=forbidden"],
    );
    let fates = |behaviour: &mut Behaviour, api, now| behaviour.plan(&call(api), now).fate;
    let error = Fate::Fault(FaultKind::ServerError);
    let seen: Vec<Fate> = (0..3).map(|_| fates(&mut behaviour, Api::OpenAi, START)).collect();
    assert_eq!(seen, [error, error, Fate::Answer]);
    for (millis, expected) in [
        (9_999, Fate::Answer),
        (10_000, Fate::Fault(FaultKind::Hang)),
        (14_999, Fate::Fault(FaultKind::Hang)),
        (15_000, Fate::Answer),
    ] {
        assert_eq!(fates(&mut behaviour, Api::OpenAi, at(millis)), expected, "{millis}");
    }
    let refused = behaviour.plan(&call(Api::Bedrock), START);
    assert_eq!((refused.fate, refused.latency), (Fate::Fault(FaultKind::Forbidden), Duration::ZERO));
}

#[test]
fn new_rules_keep_the_counts_of_those_that_stay() {
    let mut behaviour = behaviour(&[], &["openai=rpm=60"], &["all=server-error,count=1"]);
    assert_eq!(behaviour.plan(&call(Api::OpenAi), START).fate, Fate::Fault(FaultKind::ServerError));
    let mut config = behaviour.config().clone();
    config.faults.insert(0, "bedrock=hang".parse().unwrap());
    behaviour.configure(config.clone(), START);
    // The bucket is still empty, and the fault spent.
    assert!(matches!(behaviour.plan(&call(Api::OpenAi), START).fate, Fate::Throttle(_)));
    assert_eq!(behaviour.plan(&call(Api::OpenAi), at(1_000)).fate, Fate::Answer);
    config.quotas = vec!["openai=rpm=120".parse().unwrap()];
    behaviour.configure(config, at(1_000));
    assert_eq!(behaviour.plan(&call(Api::OpenAi), at(1_000)).fate, Fate::Answer);
    behaviour.reset(at(1_000));
    assert_eq!(behaviour.plan(&call(Api::OpenAi), at(1_000)).fate, Fate::Fault(FaultKind::ServerError));
}

#[test]
fn a_probability_is_kept() {
    let mut behaviour = behaviour(&[], &[], &["all=throttled,probability=0.2"]);
    let struck = (0..10_000).filter(|_| behaviour.plan(&call(Api::OpenAi), START).fate != Fate::Answer).count();
    assert!((1_850..=2_150).contains(&struck), "{struck}");
}

#[test]
fn a_clock_that_goes_back_neither_fills_nor_breaks_a_bucket() {
    let mut behaviour = behaviour(&[], &["openai=rpm=60"], &[]);
    assert!(admitted(&mut behaviour, &call(Api::OpenAi), at(10_000)));
    assert!(!admitted(&mut behaviour, &call(Api::OpenAi), START));
    assert!(!admitted(&mut behaviour, &call(Api::OpenAi), at(10_999)));
    assert!(admitted(&mut behaviour, &call(Api::OpenAi), at(11_000)));
}

proptest! {
    /// Over any stretch of time no more is admitted than the burst and the refill allow, plus one overdraft.
    #[test]
    fn nobody_gets_more_than_is_granted(
        rpm in 1_u64..10_000,
        tpm in 1_000_u64..1_000_000,
        steps in proptest::collection::vec((0_u64..500, 1_u64..2_000), 1..200),
    ) {
        let mut behaviour = behaviour(&[], &[&format!("openai=rpm={rpm},tpm={tpm}")], &[]);
        let (mut now, mut requests, mut tokens) = (0, 0_u64, 0_u64);
        for (gap, need) in steps {
            now += gap;
            let call = CallFacts { input_tokens: need, max_output_tokens: None, ..call(Api::OpenAi) };
            if admitted(&mut behaviour, &call, at(now)) {
                requests += 1;
                tokens += need;
            }
        }
        let seconds = now as f64 / 1_000.0 + 1.0;
        prop_assert!(requests as f64 <= (rpm as f64 / 60.0 * seconds).max(1.0) + 1.0);
        prop_assert!(tokens as f64 <= tpm as f64 / 60.0 * seconds + 2_000.0);
    }

    /// Any text is read or refused.
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,60}") {
        let _ = text.parse::<Scoped<Latency>>();
        let _ = text.parse::<Scoped<Quota>>();
        let _ = format!("all={text}").parse::<Scoped<FaultRule>>();
    }
}
