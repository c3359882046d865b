//! The table of faults, row by row, and what holds for every row.

use proptest::prelude::*;
use strum::IntoEnumIterator;

use super::*;

const NOW: Timestamp = Timestamp::from_micros(1_000_000_000_000);

fn at(seconds: f64) -> Timestamp {
    NOW + Duration::from_secs_f64(seconds)
}

fn policy() -> Policy {
    Policy { retry: Retry::default(), spill_after: Duration::from_secs(10) }
}

fn candidate(name: &str, availability: Availability) -> Candidate {
    Candidate { name: TargetName::new(name).unwrap(), availability, context_window: None }
}

fn ready(names: &[&str]) -> Vec<Candidate> {
    names.iter().map(|name| candidate(name, Availability::Ready)).collect()
}

/// A past in short: `a:transient`, `a:unknown` (theirs), `a:died` (ours), `a:billed` (a transient that may have been
/// billed).
fn past(words: &str) -> Vec<Past> {
    words
        .split_whitespace()
        .map(|word| {
            let (target, fault) = word.split_once(':').unwrap();
            let (fault, theirs, possibly_billed) = match fault {
                "died" => (Fault::Unknown, false, true),
                "billed" => (Fault::Transient, true, true),
                other => (other.parse().unwrap(), true, false),
            };
            Past { target: TargetName::new(target).unwrap(), fault, theirs, possibly_billed }
        })
        .collect()
}

fn call(place: usize) -> Step {
    Step::Call(place)
}

fn wait(seconds: f64) -> Step {
    Step::Wait { until: at(seconds) }
}

fn fail(reason_code: &'static str) -> Step {
    Step::Fail { reason_code }
}

const HELD: Step = Step::Hold(HoldReason::TargetsParked);

#[test]
fn the_table_of_faults_row_by_row() {
    // With a chance of one half; attempts 4, initial delay 1 s, longest 60 s, spill after 10 s.
    for (names, words, hint, expected) in [
        // throttled: no attempt; the same target when it allows.
        ("a b", "a:throttled", Some(5), wait(5.5)),
        ("a b", "a:throttled", None, wait(0.75)),
        ("a b", "a:throttled a:throttled", None, wait(1.5)),
        ("a b", "a:throttled a:throttled a:throttled", None, wait(3.0)),
        ("a", "a:transient a:transient a:transient a:throttled", Some(5), wait(5.5)),
        // ... the next one if that is longer than spill_after, or has been by now (1 + 2 + 4 + 8 s).
        ("a b", "a:throttled", Some(30), call(1)),
        ("a b", "a:throttled a:throttled a:throttled a:throttled", None, call(1)),
        ("a", "a:throttled", Some(30), wait(30.5)),
        // ... and no hint is believed for ever.
        ("a", "a:throttled", Some(31_536_000), wait(3_600.0)),
        // transient: burns; the same target after a jittered backoff that doubles; then the next target.
        ("a b", "a:transient", None, wait(0.5)),
        ("a b", "a:transient a:transient", None, wait(1.0)),
        ("a b", "a:transient a:transient a:transient", None, wait(2.0)),
        ("a b", "a:transient", Some(20), wait(20.5)),
        ("a b", "a:transient a:transient a:transient a:transient", None, call(1)),
        ("a", "a:transient a:transient a:transient a:transient", None, fail("attempts_exhausted")),
        // ... one that may have been billed: once, then the next target; alone, while attempts remain.
        ("a b", "a:billed", None, wait(0.5)),
        ("a b", "a:billed a:billed", None, call(1)),
        ("a", "a:billed a:billed", None, wait(1.0)),
        // unavailable: burns; the next target now; round again after a backoff.
        ("a b", "a:unavailable", None, call(1)),
        ("a b", "a:unavailable b:unavailable", None, wait(0.5)),
        ("a", "a:unavailable", None, wait(0.5)),
        ("a", "a:unavailable", Some(30), wait(30.5)),
        ("a b", "a:unavailable", Some(30), call(1)),
        ("a", "a:unavailable a:unavailable a:unavailable a:unavailable", None, fail("attempts_exhausted")),
        // misconfigured: no attempt; the next target; when all wait for an operator, held.
        ("a b", "a:misconfigured", None, call(1)),
        ("a", "a:misconfigured", None, HELD),
        // refused: failed.
        ("a b", "a:refused", None, fail("refused")),
        // unknown: theirs burns and waits; ours burns nothing and goes again.
        ("a b", "a:unknown", None, wait(0.5)),
        ("a", "a:unknown a:unknown a:unknown a:unknown", None, fail("attempts_exhausted")),
        ("a", "a:died a:died a:died a:died a:died", None, wait(0.0)),
        // interrupted: no attempt; again.
        ("a", "a:transient a:transient a:transient a:interrupted a:interrupted", None, wait(0.0)),
    ] {
        let chain = ready(&names.split(' ').collect::<Vec<_>>());
        let hint = hint.map(Duration::from_secs);
        let step = after_fault(&chain, &past(words), &policy(), NOW, hint, 0.5);
        assert_eq!(step, expected, "{names}: {words}, hint {hint:?}");
    }
}

#[test]
fn too_long_looks_for_a_larger_window() {
    for (windows, words, expected) in [
        ([Some(8), Some(8), Some(200)], "a:too_long", call(2)),
        ([Some(8), Some(4), Some(8)], "a:too_long", fail("too_long")),
        ([Some(8), Some(16), Some(200)], "a:too_long b:too_long", call(2)),
        ([Some(200), Some(8), Some(8)], "a:too_long", fail("too_long")),
        // Where a window is not known, the target is asked once.
        ([Some(8), None, Some(4)], "a:too_long", call(1)),
        ([None, Some(4), None], "a:too_long", call(1)),
        ([None, None, None], "a:too_long b:too_long c:too_long", fail("too_long")),
        // It burns nothing, and what failed otherwise is not called too long.
        ([Some(8), Some(8), Some(200)], "a:too_long c:transient c:transient c:transient", wait(2.0)),
        (
            [Some(8), Some(8), Some(200)],
            "a:too_long c:unknown c:unknown c:unknown c:unknown",
            fail("attempts_exhausted"),
        ),
    ] {
        let mut chain = ready(&["a", "b", "c"]);
        for (candidate, window) in chain.iter_mut().zip(windows) {
            candidate.context_window = window;
        }
        assert_eq!(after_fault(&chain, &past(words), &policy(), NOW, None, 0.5), expected, "{windows:?} {words}");
    }
}

#[test]
fn choosing_follows_the_chain_the_past_and_what_can_be_called() {
    use Availability::{NotBefore, Parked, Ready, Throttled};
    let soon = at(5.0);
    let late = at(60.0);
    for (availabilities, words, expected) in [
        ([Ready, Ready], "", call(0)),
        ([Ready, Ready], "a:transient", call(0)),
        ([Ready, Ready], "a:transient a:transient a:transient a:transient", call(1)),
        ([Ready, Ready], "a:unavailable", call(1)),
        ([Ready, Ready], "a:unavailable b:transient", call(1)),
        ([Ready, Ready], "a:unavailable b:unavailable", call(0)),
        ([Ready, Ready], "a:interrupted a:died", call(0)),
        // Something changed: what was misconfigured may be called again.
        ([Ready, Ready], "a:misconfigured", call(0)),
        // An open breaker is passed over, a short throttle waited for, a long one passed over.
        ([NotBefore(soon), Ready], "", call(1)),
        ([Throttled(soon), Ready], "", Step::Wait { until: soon }),
        ([Throttled(late), Ready], "", call(1)),
        ([Throttled(late), Throttled(soon)], "", Step::Wait { until: soon }),
        ([NotBefore(soon), NotBefore(late)], "", Step::Wait { until: soon }),
        ([NotBefore(NOW), Ready], "", call(0)),
        ([Throttled(NOW), Ready], "", call(0)),
        // A parked target is passed over; the job is held only when nothing else is left.
        ([Parked, Ready], "", call(1)),
        ([Parked, NotBefore(soon)], "", Step::Wait { until: soon }),
        ([Parked, Parked], "", HELD),
        ([Parked, Ready], "b:transient b:transient b:transient b:transient", HELD),
        // A breaker that claims to stay open for years is looked at again in an hour.
        ([NotBefore(at(1e9)), Parked], "", wait(3_600.0)),
        // The past of targets that are no longer in the chain counts for nothing.
        ([Ready, Ready], "x:unavailable x:transient", call(0)),
        ([Ready, Ready], "a:refused", fail("refused")),
    ] {
        let chain = [candidate("a", availabilities[0]), candidate("b", availabilities[1])];
        assert_eq!(choose(&chain, &past(words), &policy(), NOW), expected, "{availabilities:?} {words}");
    }
    assert_eq!(choose(&[], &[], &policy(), NOW), HELD, "an empty chain loses no job");
}

#[test]
fn a_new_chain_counts_from_the_next_call_on() {
    // A kill switch turned the chain round while the job waited to try `a` again.
    let past = past("a:transient");
    assert_eq!(choose(&ready(&["a", "b"]), &past, &policy(), NOW), call(0));
    assert_eq!(choose(&ready(&["b", "a"]), &past, &policy(), NOW), call(0));
}

#[test]
fn the_newest_faults_target_is_known_to_be_parked_before_anyone_said_so() {
    let chain = [candidate("a", Availability::Ready), candidate("b", Availability::Parked)];
    assert_eq!(after_fault(&chain, &past("a:misconfigured"), &policy(), NOW, None, 0.5), HELD);
    // And a breaker that this very fault opened is passed over.
    let chain = [candidate("a", Availability::NotBefore(at(5.0))), candidate("b", Availability::Ready)];
    assert_eq!(after_fault(&chain, &past("a:transient"), &policy(), NOW, None, 0.5), call(1));
}

#[test]
fn the_jitter_is_a_share_of_the_whole_backoff() {
    let wait_at = |chance: f64| after_fault(&ready(&["a"]), &past("a:transient"), &policy(), NOW, None, chance);
    assert_eq!(wait_at(0.0), wait(0.001), "time moves even then");
    assert_eq!(wait_at(0.25), wait(0.25));
    assert_eq!(wait_at(f64::NAN), wait(0.001));
    assert_eq!(wait_at(7.0), wait(1.0));
    let long = Policy { retry: Retry { attempts: 100, ..Retry::default() }, ..policy() };
    let many = past(&"a:transient ".repeat(40));
    assert_eq!(after_fault(&ready(&["a"]), &many, &long, NOW, None, 1.0), wait(60.0), "capped at max_delay");
}

#[test]
fn the_ledger_tells_the_past() {
    let row = |outcome, fault, possibly_billed| Attempt {
        id: crate::ids::AttemptId::generate(),
        n: 1,
        target: TargetName::new("a").unwrap(),
        provider: crate::names::ProviderName::new("p").unwrap(),
        model: "m".to_owned(),
        outcome,
        fault,
        message: None,
        started_at: NOW,
        ended_at: Some(NOW),
        usage: None,
        cost_usd: None,
        possible_cost_usd: None,
        possibly_billed,
        decision: None,
    };
    let rows = [
        row(Outcome::Open, None, false),
        row(Outcome::Failed, Some(Fault::Unknown), true),
        row(Outcome::Unknown, None, true),
        row(Outcome::Interrupted, Some(Fault::Interrupted), false),
        row(Outcome::Failed, Some(Fault::Transient), true),
        row(Outcome::Failed, None, false),
        row(Outcome::Succeeded, None, false),
    ];
    let mut expected = past("a:unknown a:died a:interrupted a:billed a:unknown");
    expected[0].possibly_billed = true;
    expected[2].theirs = false;
    let derived = Past::from_attempts(&rows);
    assert_eq!(derived, expected);
    let burns: Vec<bool> = derived.iter().map(Past::burns).collect();
    assert_eq!(burns, [true, false, false, true, true]);
}

fn any_fault() -> impl Strategy<Value = Fault> {
    prop::sample::select(Fault::iter().collect::<Vec<_>>())
}

proptest! {
    /// Whatever providers answer, a job ends or time moves on.
    #[test]
    fn every_job_ends_or_waits(
        attempts in 0_u32..5,
        windows in prop::collection::vec(prop::option::of(1_u64..4), 1..4),
        spill_after in 0_u64..100,
        answers in prop::collection::vec(
            (any_fault(), any::<bool>(), any::<bool>(), prop::option::of(0_u64..4_000), 0.0..1.0), 120,
        ),
    ) {
        let mut chain = ready(&["a", "b", "c"][..windows.len()]);
        for (candidate, window) in chain.iter_mut().zip(&windows) {
            candidate.context_window = *window;
        }
        let retry = Retry { attempts, ..Retry::default() };
        let policy = Policy { retry, spill_after: Duration::from_secs(spill_after) };
        let most = usize::try_from(attempts.max(1)).unwrap();
        let mut past: Vec<Past> = Vec::new();
        let mut now = NOW;
        let mut calls_without_waiting = 0;
        let mut step = choose(&chain, &past, &policy, now);
        for (fault, theirs, possibly_billed, hint, chance) in answers {
            let place = match step {
                Step::Call(place) => place,
                Step::Wait { until } => {
                    prop_assert!(until > now || past.last().is_some_and(Past::is_ours), "a wait moves time on");
                    prop_assert!(until <= now + LONGEST_HINT + Duration::from_secs(61), "and is bounded");
                    now = until;
                    calls_without_waiting = 0;
                    step = choose(&chain, &past, &policy, now);
                    continue;
                }
                Step::Hold(_) | Step::Fail { .. } => break,
            };
            prop_assert_ne!(chain[place].availability, Availability::Parked);
            calls_without_waiting += 1;
            prop_assert!(calls_without_waiting <= chain.len(), "each target at most once between two waits");
            past.push(Past { target: chain[place].name.clone(), fault, theirs, possibly_billed });
            if fault == Fault::Misconfigured {
                chain[place].availability = Availability::Parked;
            }
            step = after_fault(&chain, &past, &policy, now, hint.map(Duration::from_secs), chance);
            if let Step::Call(next) = step {
                let fresh = !past.iter().any(|past| past.target == chain[next].name && !past.is_ours());
                prop_assert!(fresh, "without a wait, only a target that has not failed yet is called");
            }
        }
        for candidate in &chain {
            let burned = past.iter().filter(|past| past.target == candidate.name && past.burns()).count();
            prop_assert!(burned <= most);
        }
        if matches!(step, Step::Fail { reason_code: "attempts_exhausted" }) {
            prop_assert!(past.iter().filter(|past| past.burns()).count() >= most);
        }
    }

    /// Faults that burn end every job within attempts × targets calls.
    #[test]
    fn burning_faults_end_within_their_bound(
        attempts in 1_u32..6,
        targets in 1_usize..4,
        faults in prop::collection::vec(
            prop::sample::select(vec![Fault::Transient, Fault::Unavailable, Fault::Unknown]), 20,
        ),
    ) {
        let chain = ready(&["a", "b", "c"][..targets]);
        let policy = Policy { retry: Retry { attempts, ..Retry::default() }, ..policy() };
        let mut past: Vec<Past> = Vec::new();
        let mut faults = faults.into_iter();
        let end = loop {
            match choose(&chain, &past, &policy, NOW) {
                Step::Call(place) => past.push(Past {
                    target: chain[place].name.clone(),
                    fault: faults.next().unwrap_or(Fault::Transient),
                    theirs: true,
                    possibly_billed: false,
                }),
                end => break end,
            }
        };
        prop_assert_eq!(end, Step::Fail { reason_code: "attempts_exhausted" });
        prop_assert_eq!(past.len(), usize::try_from(attempts).unwrap() * targets);
    }
}
