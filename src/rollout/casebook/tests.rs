//! The same observations come to the same verdicts, however they are read.

use proptest::prelude::*;

use super::*;
use crate::{
    clock::Timestamp,
    money::{BasisPoints, Usd},
    rollout::{
        breaker::BreakerRule,
        controller::{Identity, Plan, Require, Step},
        gate::{Criterion, GateSpec, LatencyOf, OnFail, Source},
        process::Margin,
    },
};

fn plan() -> Plan {
    let gate = |criterion| GateSpec { criterion, on_fail: OnFail::Hold };
    Plan {
        identity: Identity {
            baseline: "openai/gpt".to_owned(),
            candidate: "bedrock/haiku".to_owned(),
            key: "job.id".to_owned(),
            salt: "triage/to-bedrock".to_owned(),
        },
        steps: vec![Step {
            percent: share(),
            min_duration: Duration::ZERO,
            min_jobs: 0,
            min_pairs: 0,
            require: Require::Pass,
            approval: false,
        }],
        alpha: 0.05,
        gates: vec![
            gate(Criterion::Failure { margin: Margin::Points(0.05), of: Source::Arms }),
            gate(Criterion::Latency { of: LatencyOf::GeometricMean, max_ratio: 1.25 }),
            gate(Criterion::Score { name: "quality".to_owned(), lowest: 0.0, highest: 1.0, max_decrease: 0.1 }),
        ],
        outcome_within: WITHIN,
        undecided: None,
        no_data: None,
        breaker: Some(BreakerRule { last: 10, failures: 9 }),
        windows: None,
    }
}

const WITHIN: Duration = Duration::from_mins(10);

fn share() -> BasisPoints {
    BasisPoints::new(2_500).unwrap()
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(0) + Duration::from_secs(seconds)
}

fn job(n: u64) -> JobId {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&n.to_be_bytes());
    JobId::from_bytes(bytes)
}

fn fresh() -> Casebook {
    Casebook::new(&Controller::new(plan(), 0, at(0)).unwrap()).unwrap()
}

fn dispatched(arm: Arm, bucket: u16) -> Observed {
    Observed::Dispatched { revision: 1, arm, share: share(), bucket: Some(bucket) }
}

fn ended(failed: bool, millis: u64) -> Observed {
    let cost = Some(Usd::per_million("1".parse().unwrap(), millis));
    Observed::Ended(Ended { failed, invalid: false, micros: (!failed).then_some(millis * 1_000), cost })
}

type Written = (u64, Timestamp, Option<JobId>, Observed);

/// What becomes of a job.
#[derive(Debug, Clone)]
enum Fate {
    Ends { after: u64, failed: bool, millis: u64 },
    Withdrawn { after: u64 },
    Never,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        10 => (0..700u64, 0..10u8, 1..3_000u64).prop_map(|(after, luck, millis)| Fate::Ends { after, failed: luck == 0, millis }),
        1 => (0..700u64).prop_map(|after| Fate::Withdrawn { after }),
        1 => Just(Fate::Never),
    ]
}

/// The log of a rollout: dispatches in order, ends where they fall, now and then a switch or a score. Of things that happen in
/// the same second, `swap` says which is written first.
fn log(fates: &[(Fate, bool)], swap: bool) -> Vec<Written> {
    let mut events: Vec<(u64, u8, u64, Option<JobId>, Observed)> = Vec::new();
    for (n, (fate, candidate)) in (0u64..).zip(fates) {
        let arm = if *candidate { Arm::Candidate } else { Arm::Baseline };
        let start = n * 3;
        events.push((start, 0, n, Some(job(n)), dispatched(arm, u16::try_from(n % 10_000).unwrap())));
        let rank = if swap { 1_000_000 - n } else { n };
        match fate {
            Fate::Ends { after, failed, millis } => {
                events.push((start + after, 1, rank, Some(job(n)), ended(*failed, *millis)));
            }
            Fate::Withdrawn { after } => events.push((start + after, 1, rank, Some(job(n)), Observed::Withdrawn)),
            Fate::Never => {}
        }
        if n == 40 {
            events.push((start, 2, n, None, Observed::Switched));
        }
    }
    events.sort_by_key(|(second, kind, rank, ..)| (*second, *kind, *rank));
    (1..).zip(events).map(|(number, (second, _, _, job, what))| (number, at(second), job, what)).collect()
}

fn read_all(casebook: &mut Casebook, log: &[Written]) {
    for (number, at, job, what) in log {
        casebook.read(*number, *at, *job, what);
    }
}

fn verdicts(casebook: &Casebook) -> serde_json::Value {
    let evidence = casebook.evidence();
    serde_json::json!([evidence.verdicts(), evidence.candidate_jobs(), evidence.baseline_jobs(), casebook.keys()])
}

fn save_and_load(casebook: &Casebook) -> Casebook {
    let text = serde_json::to_string(casebook).unwrap();
    serde_json::from_str::<Casebook>(&text).unwrap().resumed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Killed and started again at any place, looked at any number of times, told twice: the same verdicts.
    #[test]
    fn kills_looks_and_repetitions_change_nothing(
        fates in proptest::collection::vec((fate(), proptest::bool::weighted(0.25)), 60..400),
        cuts in proptest::collection::vec((0..1_000usize, any::<bool>()), 0..12),
    ) {
        let log = log(&fates, false);
        let end = at(1_000_000);
        let mut straight = fresh();
        read_all(&mut straight, &log);
        straight.fold(end);
        let mut places: Vec<(usize, bool)> = cuts.iter().map(|(place, kill)| (place % log.len(), *kill)).collect();
        places.sort_unstable();
        let mut broken = fresh();
        for (place, kill) in places {
            read_all(&mut broken, &log[..place]);
            let known = log[..place].last().map_or(at(0), |(_, at, ..)| *at);
            broken.fold(known);
            if kill {
                // Whatever was counted for good may be forgotten.
                broken = save_and_load(&broken);
                let floor = broken.floor();
                let kept: Vec<Written> = log[..place].iter().filter(|row| row.0 > floor).cloned().collect();
                read_all(&mut broken, &kept);
            }
        }
        read_all(&mut broken, &log);
        broken.fold(end);
        prop_assert_eq!(verdicts(&straight), verdicts(&broken));
    }

    /// Two daemons whose ends are written in another order: the same verdicts.
    #[test]
    fn ends_in_another_order_change_nothing(
        fates in proptest::collection::vec((fate(), proptest::bool::weighted(0.25)), 60..300),
    ) {
        // Several ends fall into one second; without the switch, which is a moment of its own.
        let coarse: Vec<(Fate, bool)> = fates
            .iter()
            .map(|(fate, candidate)| {
                let fate = match fate {
                    Fate::Ends { after, failed, millis } => Fate::Ends { after: after / 60 * 60, failed: *failed, millis: *millis },
                    other => other.clone(),
                };
                (fate, *candidate)
            })
            .collect();
        let [one, other] = [false, true].map(|swap| {
            let mut casebook = fresh();
            let log: Vec<Written> =
                log(&coarse, swap).into_iter().filter(|(.., what)| *what != Observed::Switched).collect();
            read_all(&mut casebook, &log);
            casebook.fold(at(1_000_000));
            verdicts(&casebook)
        });
        prop_assert_eq!(one, other);
    }
}

#[test]
fn what_is_no_evidence_is_not_counted() {
    let mut casebook = fresh();
    let other = Observed::Dispatched { revision: 2, arm: Arm::Candidate, share: share(), bucket: None };
    let log = [
        (1, at(1), Some(job(1)), dispatched(Arm::Candidate, 1)),
        (2, at(2), Some(job(2)), dispatched(Arm::Baseline, 2)),
        (3, at(3), Some(job(3)), dispatched(Arm::Candidate, 3)),
        (4, at(3), Some(job(4)), other),
        (5, at(4), Some(job(1)), ended(false, 10)),
        (6, at(5), Some(job(2)), Observed::Withdrawn),
        (7, at(6), None, Observed::Switched),
        (8, at(7), Some(job(3)), ended(true, 10)),
        (9, at(8), Some(job(5)), dispatched(Arm::Candidate, 5)),
    ];
    read_all(&mut casebook, &log);
    casebook.fold(at(9));
    assert_eq!((casebook.evidence().candidate_jobs(), casebook.evidence().baseline_jobs()), (1, 0));
    assert_eq!(casebook.floor(), 8, "the one that is open must be read again");
    casebook.fold(at(9) + WITHIN);
    assert_eq!(casebook.evidence().candidate_jobs(), 2, "late is failed");
    assert_eq!(casebook.floor(), 9);
    assert_eq!(casebook.keys(), 4);
}

#[test]
fn the_breaker_hears_each_end_once() {
    let mut casebook = fresh();
    let mut number = 0;
    let mut log = Vec::new();
    for n in 0..9 {
        for what in [dispatched(Arm::Candidate, 1), ended(true, 1)] {
            number += 1;
            log.push((number, at(number), Some(job(n)), what));
        }
    }
    read_all(&mut casebook, &log[..14]);
    assert_eq!(casebook.take_trip(), None);
    // Nothing was counted yet, so all of it is read again; the breaker must not hear it twice.
    let mut casebook = save_and_load(&casebook);
    read_all(&mut casebook, &log[..14]);
    assert_eq!(casebook.take_trip(), None);
    read_all(&mut casebook, &log);
    assert_eq!((casebook.take_trip(), casebook.take_trip()), (Some(9), None));
}

#[test]
fn another_launch_begins_anew() {
    let controller = Controller::new(plan(), 0, at(0)).unwrap();
    let mut casebook = Casebook::new(&controller).unwrap();
    let log = [(1, at(1), Some(job(1)), dispatched(Arm::Candidate, 1)), (2, at(2), Some(job(1)), ended(true, 1))];
    read_all(&mut casebook, &log);
    casebook.fold(at(9));
    assert_eq!(casebook.evidence().candidate_jobs(), 1);
    casebook.follow(&controller).unwrap();
    assert_eq!(casebook.evidence().candidate_jobs(), 1, "the same launch, the same plan");
    let aborted = controller.on(crate::rollout::Event::Abort, at(3)).unwrap().controller;
    let again = aborted.on(crate::rollout::Event::Retry(2), at(4)).unwrap().controller;
    casebook.follow(&again).unwrap();
    assert_eq!((casebook.evidence().candidate_jobs(), casebook.read_to()), (0, 2));
}
