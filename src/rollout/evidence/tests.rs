//! The same rows give the same verdicts: shuffled, doubled, late, saved and loaded in the middle.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    ids::JobId,
    rollout::{
        gate::{Criterion, LatencyOf, Source},
        process::Margin,
    },
};

const WITHIN: Duration = Duration::from_mins(10);

fn job(n: u64) -> JobId {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&n.to_be_bytes());
    JobId::from_bytes(bytes)
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(0) + Duration::from_secs(seconds)
}

fn share() -> BasisPoints {
    BasisPoints::new(2_500).unwrap()
}

fn gates() -> Vec<Counting> {
    [
        Criterion::Failure { margin: Margin::Points(0.01), of: Source::Arms },
        Criterion::InvalidOutput { margin: Margin::Ratio(1.2), of: Source::Arms },
        Criterion::Latency { of: LatencyOf::GeometricMean, max_ratio: 1.25 },
        Criterion::Latency { of: LatencyOf::Quantile(0.95), max_ratio: 1.25 },
        Criterion::Cost { of: CostOf::Pairs, max_ratio: 1.1 },
        Criterion::Agreement { at: "/label".to_owned(), min: 0.9 },
        Criterion::Score { name: "quality".to_owned(), lowest: 0.0, highest: 1.0, max_decrease: 0.02 },
    ]
    .map(|criterion| Counting { criterion, after: 0, alpha: 0.05, gates: 7 })
    .to_vec()
}

fn new_evidence() -> Evidence {
    Evidence::new(WITHIN, 0, &gates(), true).unwrap()
}

/// A row as the ledger has it at last.
#[derive(Debug, Clone)]
enum Written {
    Outcome(Outcome),
    Pair(Pair),
    Score(Score),
}

fn offer(evidence: &mut Evidence, row: Written) -> Offered {
    match row {
        Written::Outcome(row) => evidence.outcome(row),
        Written::Pair(row) => evidence.pair(row),
        Written::Score(row) => evidence.score(row),
    }
}

/// The same row before its job has ended.
fn unended(row: &Written) -> Written {
    let mut row = row.clone();
    match &mut row {
        Written::Outcome(row) => row.leg.end = None,
        Written::Pair(row) => {
            row.candidate.end = None;
            row.agreement.clear();
        }
        Written::Score(_) => {}
    }
    row
}

fn leg(n: u64, seconds: u64, failed: bool, latency: u64) -> Leg {
    let end = End {
        at: at(n + seconds),
        failed,
        invalid: n.is_multiple_of(31),
        latency: Some(Duration::from_millis(100 + latency)),
        cost: Some(0.001 * latency as f64),
    };
    // Every eleventh never ends.
    Leg { dispatched_at: at(n), end: (!n.is_multiple_of(11)).then_some(end) }
}

fn ledger(chances: &[(u8, bool, u16)]) -> Vec<Written> {
    let mut rows = Vec::new();
    for (i, (seconds, failed, latency)) in chances.iter().enumerate() {
        let n = i as u64 + 1;
        let place = Place { sequence: n / 2 + 1, job: job(n) };
        let arm = if n.is_multiple_of(4) { Arm::Candidate } else { Arm::Baseline };
        // Up to 765 seconds: some end too late.
        let leg = leg(n, u64::from(*seconds) * 3, *failed, u64::from(*latency));
        rows.push(Written::Outcome(Outcome { place, arm, share: share(), leg, dropped: false }));
        if n.is_multiple_of(3) {
            let baseline = self::leg(n, 1, false, 500);
            let agreement = BTreeMap::from([("/label".to_owned(), !failed)]);
            let dropped = n.is_multiple_of(27);
            rows.push(Written::Pair(Pair { place, share: share(), baseline, candidate: leg, dropped, agreement }));
        }
        let (posted, name) = (Place { sequence: n, job: job(n) }, "quality".to_owned());
        let value = f64::from(*latency) / 65_535.0;
        rows.push(Written::Score(Score { posted, sequence: place.sequence, name, arm, share: share(), value }));
    }
    rows
}

const END: Horizon = Horizon { sequence: u64::MAX, ends: Timestamp::from_micros(i64::MAX), posted: u64::MAX };

fn state(evidence: &Evidence) -> String {
    serde_json::to_string(evidence).unwrap()
}

fn in_order(rows: &[Written]) -> String {
    let mut evidence = new_evidence();
    for row in rows {
        offer(&mut evidence, row.clone());
    }
    evidence.fold(END);
    state(&evidence)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn shuffled_doubled_and_killed_rows_change_nothing(
        chances in proptest::collection::vec((any::<u8>(), proptest::bool::weighted(0.3), any::<u16>()), 40..160),
        order in any::<u64>(),
        doubles in proptest::collection::vec(any::<prop::sample::Index>(), 0..80),
        kills in proptest::collection::btree_set(0..400_usize, 0..8),
        folds in proptest::collection::btree_set(0..400_usize, 0..20),
    ) {
        let rows = ledger(&chances);
        let expected = in_order(&rows);
        // Each row comes twice at least: before it has ended and after; in any order.
        let mut events: Vec<Written> = rows.iter().map(unended).chain(rows.iter().cloned()).collect();
        events.extend(doubles.iter().map(|index| index.get(&rows).clone()));
        let mut chance = order;
        for i in (1..events.len()).rev() {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            events.swap(i, usize::try_from(chance >> 33).unwrap() % (i + 1));
        }
        let mut evidence = new_evidence();
        let mut told = Vec::new();
        for (i, event) in events.into_iter().enumerate() {
            told.push(event.clone());
            offer(&mut evidence, event);
            if kills.contains(&i) {
                // Only the saved state survives; the ledger is read again, also what was counted already.
                evidence = serde_json::from_str(&state(&evidence)).unwrap();
                for event in &told {
                    offer(&mut evidence, event.clone());
                }
            }
            if folds.contains(&i) {
                evidence.fold(known(&rows, &told));
            }
        }
        evidence.fold(END);
        prop_assert_eq!(state(&evidence), expected);
    }
}

/// The furthest horizon that is true of what was told: whose rows, and whose ends, are all in.
fn known(rows: &[Written], told: &[Written]) -> Horizon {
    let ended = |row: &Written| match row {
        Written::Outcome(row) => (row.place, 0, row.leg.end.is_some()),
        Written::Pair(row) => (row.place, 1, row.candidate.end.is_some()),
        Written::Score(row) => (row.posted, 2, true),
    };
    let told: std::collections::BTreeSet<_> = told.iter().map(ended).collect();
    let missing = |kind: u8| {
        let all = rows.iter().map(ended).filter(|row| row.1 == kind);
        all.filter(|row| !told.contains(row)).map(|row| row.0.sequence).min().unwrap_or(u64::MAX)
    };
    let sequence = missing(0).min(missing(1)).saturating_sub(1);
    // No end is known to be missing only if all are in: otherwise nobody is late yet.
    let ends = if sequence == u64::MAX - 1 { END.ends } else { at(0) };
    Horizon { sequence, ends, posted: missing(2).saturating_sub(1) }
}

#[test]
fn an_open_job_blocks_those_behind_it_until_it_is_late() {
    let mut evidence = new_evidence();
    let row = |n: u64, end: Option<u64>| Outcome {
        place: Place { sequence: n, job: job(n) },
        arm: Arm::Candidate,
        share: share(),
        leg: Leg {
            dispatched_at: at(n),
            end: end.map(|end| End { at: at(end), failed: false, invalid: false, latency: None, cost: None }),
        },
        dropped: false,
    };
    evidence.outcome(row(1, Some(5)));
    evidence.outcome(row(2, None));
    evidence.outcome(row(3, Some(6)));
    let horizon = |seconds| Horizon { sequence: 10, ends: at(seconds), posted: 0 };
    evidence.fold(horizon(300));
    assert_eq!((evidence.candidate_jobs(), evidence.waiting()), (1, 2));
    evidence.fold(horizon(602));
    assert_eq!(evidence.candidate_jobs(), 1, "it may still end within ten minutes");
    evidence.fold(horizon(603));
    assert_eq!((evidence.candidate_jobs(), evidence.waiting()), (3, 0));
    assert_eq!(evidence.outcome(row(2, Some(601))), Offered::Known);
    assert_eq!(evidence.last().0, Some(Place { sequence: 3, job: job(3) }));
}

#[test]
fn ends_after_the_deadline_are_failures_whenever_they_are_looked_at() {
    let end = |seconds| Some(End { at: at(seconds), failed: false, invalid: false, latency: None, cost: Some(-1.0) });
    let leg = |end| Leg { dispatched_at: at(0), end };
    for (end, known_until, failed) in [
        (end(600), 600, Some(false)),
        (end(601), 10_000, Some(true)),
        (end(601), 0, Some(true)),
        (None, 600, None),
        (None, 601, Some(true)),
    ] {
        let counted = leg(end).counted(WITHIN, at(known_until));
        assert_eq!(counted.map(|counted| counted.failed), failed, "{end:?} {known_until}");
        assert!(counted.is_none_or(|counted| counted.cost.is_none()), "a cost below zero is none");
    }
}

#[test]
fn earlier_revisions_and_gates_that_begin_later() {
    let rows = ledger(&[(1, true, 1_000); 200]);
    let mut late = gates();
    late[0].after = 50;
    let mut evidence = Evidence::new(WITHIN, 20, &late, false).unwrap();
    for row in &rows {
        offer(&mut evidence, row.clone());
    }
    evidence.fold(END);
    // Sequence 21 begins with job 40; every fourth is the candidate's.
    assert_eq!(evidence.candidate_jobs(), 41);

    // A live change of one margin is what a refold from the beginning gives.
    let mut live = Evidence::new(WITHIN, 20, &gates(), false).unwrap();
    for row in &rows {
        offer(&mut live, row.clone());
    }
    live.fold(Horizon { sequence: 50, posted: 0, ..END });
    live.follow(WITHIN, &late).unwrap();
    live.fold(END);
    assert_eq!(state(&live), state(&evidence));
}

#[test]
fn too_many_waiting_rows_are_let_go_and_read_again() {
    let mut evidence = Evidence::new(WITHIN, 0, &gates()[..1], false).unwrap();
    let row = |n: u64| Outcome {
        place: Place { sequence: n, job: job(n) },
        arm: Arm::Candidate,
        share: BasisPoints::ALL,
        leg: leg(n, 1, false, 1),
        dropped: false,
    };
    let most = MOST_WAITING as u64;
    // The first job comes last.
    assert!((2..=most + 1).all(|n| evidence.outcome(row(n)) == Offered::Kept));
    assert_eq!(evidence.outcome(row(1)), Offered::Full);
    evidence.fold(END);
    assert_eq!(evidence.candidate_jobs(), most, "all but the one that was let go");
    assert_eq!(evidence.outcome(row(most + 2)), Offered::Kept);
    evidence.fold(END);
    assert_eq!(evidence.candidate_jobs(), most, "nothing is counted beyond it");
    evidence.reread();
    (most + 1..=most + 2).for_each(|n| assert_eq!(evidence.outcome(row(n)), Offered::Kept));
    evidence.fold(END);
    assert_eq!(evidence.candidate_jobs(), most + 2);
}

#[test]
fn the_saved_state_stays_small() {
    let mut evidence = new_evidence();
    for row in ledger(&vec![(1, false, 30_000); 3_000]) {
        offer(&mut evidence, row);
    }
    evidence.fold(END);
    let size = state(&evidence).len();
    println!("saved state: {size} bytes");
    assert!(size < 64 * 1024, "{size} bytes");
}
