//! Gates as operators meet them: jobs and pairs in, verdicts out.

use std::{collections::BTreeMap, time::Duration};

use super::*;
use crate::{
    clock::Timestamp,
    ids::JobId,
    rollout::{
        evidence::{End, Evidence, Horizon, Leg, Outcome, Pair, Place, Score},
        process::simulation::Chance,
    },
};

const WITHIN: Duration = Duration::from_mins(10);

fn counting(criterion: Criterion, gates: u32) -> Counting {
    Counting { criterion, after: 0, alpha: 0.05, gates }
}

fn evidence(criterion: Criterion, gates: u32) -> Evidence {
    Evidence::new(WITHIN, 0, &[counting(criterion, gates)], true).unwrap()
}

fn share(percent: u16) -> BasisPoints {
    BasisPoints::new(percent * 100).unwrap()
}

fn place(n: u64) -> Place {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&n.to_be_bytes());
    Place { sequence: n, job: JobId::from_bytes(bytes) }
}

fn leg(failed: bool, invalid: bool, seconds: f64, cost: f64) -> Leg {
    let at = Timestamp::from_micros(0);
    let latency = Some(Duration::from_secs_f64(seconds));
    Leg { dispatched_at: at, end: Some(End { at, failed, invalid, latency, cost: Some(cost) }) }
}

fn horizon(n: u64) -> Horizon {
    Horizon { sequence: n, ends: Timestamp::from_micros(0), posted: n }
}

/// What a job of an arm looks like.
type Law = fn(&mut Chance, Arm) -> Leg;

/// Jobs, split at random at `percent`, until there is a verdict; that, and the candidate's jobs.
fn split(criterion: Criterion, gates: u32, percent: u16, seed: u64, most: u64, law: Law) -> (Verdict, u64) {
    let mut chance = Chance::new(seed);
    let mut evidence = evidence(criterion, gates);
    for n in 1..=most {
        let arm = if chance.happens(f64::from(percent) / 100.0) { Arm::Candidate } else { Arm::Baseline };
        let leg = law(&mut chance, arm);
        evidence.outcome(Outcome { place: place(n), arm, share: share(percent), leg, dropped: false });
        evidence.fold(horizon(n));
        if evidence.gates()[0].decided_after().is_some() {
            break;
        }
    }
    (evidence.gates()[0].verdict(), evidence.candidate_jobs())
}

/// Pairs until there is a verdict; that, and their number.
fn pairs(
    criterion: Criterion,
    seed: u64,
    most: u64,
    mut law: impl FnMut(&mut Chance) -> (Leg, Leg, bool),
) -> (Verdict, u64) {
    let mut chance = Chance::new(seed);
    let mut evidence = evidence(criterion, 1);
    for n in 1..=most {
        let (candidate, baseline, agrees) = law(&mut chance);
        let agreement = BTreeMap::from([("/label".to_owned(), agrees)]);
        let pair = Pair { place: place(n), share: share(0), baseline, candidate, dropped: false, agreement };
        evidence.pair(pair);
        evidence.fold(horizon(n));
        if evidence.gates()[0].decided_after().is_some() {
            break;
        }
    }
    (evidence.gates()[0].verdict(), evidence.pairs())
}

/// Runs that must all come to `expected`; their mean number of observations.
fn mean(name: &str, expected: Verdict, seed: u64, runs: u64, mut run: impl FnMut(u64) -> (Verdict, u64)) -> f64 {
    let mut total = 0;
    let mut wrong = 0;
    for i in 0..runs {
        let (verdict, needed) = run(seed + i);
        wrong += u64::from(verdict != expected);
        total += needed;
    }
    let mean = total as f64 / runs as f64;
    println!("{name}: {runs} runs from seed {seed}: {expected} after {mean:.0} on average, {wrong} runs elsewise");
    assert!(wrong * 20 <= runs, "{name}, seed {seed}: {wrong} of {runs} runs");
    mean
}

const FAILURE: Criterion = Criterion::Failure { margin: Margin::Points(0.01), of: Source::Arms };

fn failing(one_in_twenty: bool) -> Law {
    if one_in_twenty {
        |chance, arm| leg(chance.happens(if arm == Arm::Candidate { 0.05 } else { 0.01 }), false, 1.0, 0.1)
    } else {
        |chance, _| leg(chance.happens(0.01), false, 1.0, 0.1)
    }
}

#[test]
fn a_failing_candidate_is_found_within_400_jobs() {
    for (gates, most) in [(1, 400.0), (3, 520.0)] {
        let name = format!("1 % → 5 % at 10 %, 1pp, {gates} gates");
        let found =
            mean(&name, Verdict::Fail, 7_000, 60, |seed| split(FAILURE, gates, 10, seed, 40_000, failing(true)));
        assert!(found <= most, "{found}");
    }
}

#[test]
fn a_sound_candidate_passes() {
    let criterion = Criterion::Failure { margin: Margin::Points(0.02), of: Source::Arms };
    let passed = mean("1 % = 1 % at 10 %, 2pp", Verdict::Pass, 7_100, 20, |seed| {
        split(criterion.clone(), 1, 10, seed, 40_000, failing(false))
    });
    assert!(passed <= 700.0, "{passed}");
}

#[test]
fn a_dearer_candidate_is_found_within_150_pairs() {
    let law = |ratio: f64| {
        move |chance: &mut Chance| {
            let baseline = 0.01 * (0.8 * chance.normal()).exp();
            let candidate = baseline * ratio * (0.2 * chance.normal()).exp();
            (leg(false, false, 1.0, candidate), leg(false, false, 1.0, baseline), true)
        }
    };
    let criterion = Criterion::Cost { of: CostOf::Pairs, max_ratio: 1.1 };
    let found = mean("cost 1.3 × against 1.1", Verdict::Fail, 7_200, 100, |seed| {
        pairs(criterion.clone(), seed, 5_000, law(1.3))
    });
    assert!(found <= 150.0, "{found}");
    let passed = mean("cost 1.0 × against 1.1", Verdict::Pass, 7_300, 100, |seed| {
        pairs(criterion.clone(), seed, 5_000, law(1.0))
    });
    assert!(passed <= 250.0, "{passed}");
}

#[test]
fn every_gate_comes_to_the_right_verdict() {
    let latency = |ratio_of_candidate: bool| -> Law {
        if ratio_of_candidate {
            |chance, arm| {
                let ratio = if arm == Arm::Candidate { 1.6 } else { 1.0 };
                leg(false, false, ratio * (0.4 * chance.normal()).exp(), 0.01 * ratio * (0.4 * chance.normal()).exp())
            }
        } else {
            |chance, _| leg(false, false, (0.4 * chance.normal()).exp(), 0.01 * (0.4 * chance.normal()).exp())
        }
    };
    for criterion in [
        Criterion::Latency { of: LatencyOf::GeometricMean, max_ratio: 1.25 },
        Criterion::Latency { of: LatencyOf::Quantile(0.5), max_ratio: 1.25 },
        Criterion::Cost { of: CostOf::Capped(0.1), max_ratio: 1.25 },
    ] {
        assert_eq!(split(criterion.clone(), 1, 30, 7_400, 30_000, latency(true)).0, Verdict::Fail, "{criterion}");
        assert_eq!(split(criterion.clone(), 1, 30, 7_401, 30_000, latency(false)).0, Verdict::Pass, "{criterion}");
    }
    let ratio = Criterion::Failure { margin: Margin::Ratio(1.5), of: Source::Arms };
    assert_eq!(split(ratio.clone(), 1, 10, 7_402, 60_000, failing(true)).0, Verdict::Fail, "{ratio}");
    assert_eq!(split(ratio, 1, 50, 7_403, 200_000, failing(false)).0, Verdict::Pass);

    // In pairs: the candidate is bad in 10 %, the baseline in 1 %; or neither more than the other.
    let law = |bad: f64| {
        move |chance: &mut Chance| {
            let (c, b) = (chance.happens(bad), chance.happens(0.01));
            (leg(c, c, if c { 2.0 } else { 1.0 }, 1.0), leg(b, b, 1.0, 1.0), !c)
        }
    };
    for (criterion, worst, best) in [
        (Criterion::Failure { margin: Margin::Points(0.02), of: Source::Pairs }, 0.1, 0.01),
        (Criterion::Failure { margin: Margin::Ratio(2.0), of: Source::Pairs }, 0.1, 0.001),
        (Criterion::InvalidOutput { margin: Margin::Points(0.0), of: Source::Pairs }, 0.1, 0.0),
        (Criterion::Agreement { at: "/label".to_owned(), min: 0.95 }, 0.1, 0.01),
        (Criterion::Latency { of: LatencyOf::Pairs, max_ratio: 1.02 }, 0.3, 0.0),
    ] {
        // A failed answer is no answer: validity, agreement and latency are looked at where both answered.
        let answered = !matches!(criterion, Criterion::Failure { .. });
        let law = |bad: f64| {
            let law = law(bad);
            move |chance: &mut Chance| {
                let (mut c, mut b, agrees) = law(chance);
                for leg in [&mut c, &mut b] {
                    leg.end = leg.end.map(|end| End { failed: end.failed && !answered, ..end });
                }
                (c, b, agrees)
            }
        };
        assert_eq!(pairs(criterion.clone(), 7_500, 20_000, law(worst)).0, Verdict::Fail, "{criterion}");
        assert_eq!(pairs(criterion.clone(), 7_501, 20_000, law(best)).0, Verdict::Pass, "{criterion}");
    }
}

#[test]
fn scores_are_compared_block_by_block() {
    for (decrease, expected) in [(0.1, Verdict::Fail), (0.0, Verdict::Pass)] {
        let mut chance = Chance::new(7_600);
        let name = "quality".to_owned();
        let criterion = Criterion::Score { name: name.clone(), lowest: 0.0, highest: 1.0, max_decrease: 0.05 };
        let mut evidence = evidence(criterion, 1);
        for n in 1..=20_000 {
            let arm = if chance.happens(0.5) { Arm::Candidate } else { Arm::Baseline };
            let value = 0.8 + 0.05 * chance.normal() - if arm == Arm::Candidate { decrease } else { 0.0 };
            evidence.score(Score { posted: place(n), sequence: n, name: name.clone(), arm, share: share(50), value });
        }
        evidence.score(Score {
            posted: place(20_001),
            sequence: 1,
            name: "other".to_owned(),
            arm: Arm::Candidate,
            share: share(50),
            value: f64::NAN,
        });
        evidence.fold(horizon(30_000));
        assert_eq!(evidence.gates()[0].verdict(), expected);
        assert!(evidence.gates()[0].decided_after().is_some_and(|n| n < 1_000));
    }
}

#[test]
fn slow_failures_cannot_hide() {
    // The candidate's failures never end; counted at completion, there would be none.
    let law: Law = |chance, arm| {
        let fails = chance.happens(if arm == Arm::Candidate { 0.2 } else { 0.01 });
        let leg = leg(false, false, 1.0, 0.1);
        if fails { Leg { end: None, ..leg } } else { leg }
    };
    let mut chance = Chance::new(7_700);
    let mut evidence = evidence(FAILURE, 1);
    for n in 1..=4_000 {
        let arm = if chance.happens(0.1) { Arm::Candidate } else { Arm::Baseline };
        evidence.outcome(Outcome {
            place: place(n),
            arm,
            share: share(10),
            leg: law(&mut chance, arm),
            dropped: false,
        });
    }
    evidence.fold(horizon(4_000));
    assert!(matches!(evidence.gates()[0].verdict(), Verdict::Undecided(_)), "nothing is late yet");
    let late = Timestamp::from_micros(0) + WITHIN + Duration::from_secs(1);
    evidence.fold(Horizon { ends: late, ..horizon(4_000) });
    assert_eq!(evidence.gates()[0].verdict(), Verdict::Fail);
    assert!(!evidence.split_is_off());
}

#[test]
fn the_outlook_is_about_right() {
    let mut chance = Chance::new(7_800);
    let mut evidence = evidence(Criterion::Failure { margin: Margin::Points(0.02), of: Source::Arms }, 1);
    let mut said = None;
    assert_eq!(evidence.gates()[0].verdict().to_string(), "undecided: no jobs yet");
    for n in 1..=40_000 {
        let arm = if chance.happens(0.1) { Arm::Candidate } else { Arm::Baseline };
        let leg = leg(chance.happens(0.01), false, 1.0, 0.1);
        evidence.outcome(Outcome { place: place(n), arm, share: share(10), leg, dropped: false });
        evidence.fold(horizon(n));
        if evidence.candidate_jobs() == 200 && said.is_none() {
            said = Some(evidence.gates()[0].verdict());
        }
        if evidence.gates()[0].decided_after().is_some() {
            break;
        }
    }
    let Some(Verdict::Undecided(Outlook::About { more, leaning: Side::Pass, .. })) = said else { panic!("{said:?}") };
    let needed = evidence.candidate_jobs() - 200;
    println!("said about {more}, needed {needed}: {}", evidence.gates()[0].figures().unwrap_or_default());
    assert!(more <= needed * 3 && needed <= more * 3, "{more} {needed}");
}

#[test]
fn bad_bounds_are_refused_by_name() {
    let latency = |of, max_ratio| Criterion::Latency { of, max_ratio };
    for (criterion, text) in [
        (
            Criterion::Failure { margin: Margin::Points(0.6), of: Source::Arms },
            "gate `failure`: max_increase must be 0pp to 50pp, such as 1pp",
        ),
        (latency(LatencyOf::GeometricMean, 0.9), "gate `latency`: max_ratio must be 1 to 100, such as 1.25"),
        (latency(LatencyOf::Quantile(0.95), f64::NAN), "gate `latency p95`: max_ratio must be 1 to 100, such as 1.25"),
        (latency(LatencyOf::Quantile(1.0), 1.25), "gate `latency p100`: the quantile must be p1 to p99.9, such as p95"),
        (
            Criterion::Agreement { at: "/label".to_owned(), min: 1.0 },
            "gate `agreement /label`: min must lie between 0 and 1, both excluded, such as 0.97",
        ),
        (
            Criterion::Cost { of: CostOf::Capped(0.0), max_ratio: 1.1 },
            "gate `cost`: the cap of a job's cost must be above 0 dollars",
        ),
        (
            Criterion::Score { name: "quality".to_owned(), lowest: 0.0, highest: 1.0, max_decrease: 1.0 },
            "gate `score.quality`: a score needs a range from its lowest to its highest value, and a max_decrease smaller than that range",
        ),
    ] {
        let fault = Gate::new(counting(criterion, 1)).unwrap_err();
        assert_eq!(fault.to_string(), text);
    }
}
