//! The breaker: when it opens, what it lets through, when it closes.

use proptest::prelude::*;
use strum::IntoEnumIterator;

use super::*;

const NOW: Timestamp = Timestamp::from_micros(1_000_000_000_000);

fn at(seconds: f64) -> Timestamp {
    NOW + Duration::from_secs_f64(seconds)
}

fn failing(breaker: &mut Breaker, now: Timestamp, times: u32) {
    for _ in 0..times {
        breaker.on_fault(now, Fault::Unavailable);
    }
}

fn opened() -> Breaker {
    let mut breaker = Breaker::default();
    failing(&mut breaker, NOW, 5);
    breaker
}

#[test]
fn it_opens_after_failures_in_a_row_and_tries_with_one_call() {
    let mut breaker = Breaker::default();
    failing(&mut breaker, NOW, 4);
    assert_eq!((breaker.phase(NOW), breaker.not_before(NOW)), (BreakerPhase::Closed, None));
    assert!(breaker.on_call(NOW));
    breaker.on_success(NOW);
    failing(&mut breaker, NOW, 4);
    assert_eq!(breaker.phase(NOW), BreakerPhase::Closed, "a success begins the count anew");
    failing(&mut breaker, NOW, 1);
    assert_eq!((breaker.phase(NOW), breaker.not_before(NOW)), (BreakerPhase::Open, Some(at(1.0))));
    assert!(!breaker.on_call(at(0.5)));

    assert_eq!((breaker.phase(at(1.0)), breaker.not_before(at(1.0))), (BreakerPhase::HalfOpen, None));
    assert!(breaker.on_call(at(1.0)));
    assert!(!breaker.on_call(at(1.0)), "one call tries");
    assert_eq!(breaker.not_before(at(1.5)), Some(at(31.0)));
    breaker.on_success(at(2.0));
    assert_eq!((breaker.phase(at(2.0)), breaker.not_before(at(2.0))), (BreakerPhase::Closed, None));
}

#[test]
fn each_failed_try_doubles_the_pause_up_to_the_longest() {
    let mut breaker = opened();
    let mut now = NOW;
    for expected in [1.0, 2.0, 4.0, 8.0, 8.0] {
        let until = breaker.not_before(now).unwrap();
        assert_eq!(now.until(until), Duration::from_secs_f64(expected));
        now = until;
        assert!(breaker.on_call(now));
        breaker.on_fault(now, Fault::Transient);
    }
    // Once closed, the next outage begins with the first pause.
    now = breaker.not_before(now).unwrap();
    assert!(breaker.on_call(now));
    breaker.on_success(now);
    failing(&mut breaker, now, 5);
    assert_eq!(breaker.not_before(now), Some(now + Duration::from_secs(1)));
}

#[test]
fn it_opens_when_most_of_the_latest_calls_fail() {
    let mut breaker = Breaker::default();
    let mut calls = 0;
    while breaker.phase(NOW) == BreakerPhase::Closed {
        breaker.on_success(NOW);
        failing(&mut breaker, NOW, 1);
        calls += 2;
        assert!(calls <= 20, "half of twenty calls failed");
    }
    assert_eq!(calls, 20);
    // The same failures spread over minutes are no outage.
    let mut breaker = Breaker::default();
    for n in 0..100 {
        let now = at(f64::from(n) * 5.0);
        breaker.on_success(now);
        failing(&mut breaker, now, 1);
        assert_eq!(breaker.phase(now), BreakerPhase::Closed);
    }
}

#[test]
fn only_the_providers_failures_count() {
    for fault in Fault::iter() {
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            breaker.on_fault(NOW, fault);
        }
        let opens = matches!(fault, Fault::Unavailable | Fault::Transient | Fault::Unknown);
        assert_eq!(breaker.phase(NOW) == BreakerPhase::Open, opens, "{fault}");
    }
}

#[test]
fn what_a_try_shows() {
    for (fault, phase, free) in [
        (Fault::Unavailable, BreakerPhase::Open, false),
        (Fault::Unknown, BreakerPhase::Open, false),
        (Fault::Throttled, BreakerPhase::Closed, true),
        (Fault::Refused, BreakerPhase::Closed, true),
        (Fault::TooLong, BreakerPhase::Closed, true),
        // Nothing was learned: the next call tries.
        (Fault::Interrupted, BreakerPhase::HalfOpen, true),
        (Fault::Misconfigured, BreakerPhase::HalfOpen, true),
    ] {
        let mut breaker = opened();
        assert!(breaker.on_call(at(1.0)));
        breaker.on_fault(at(2.0), fault);
        assert_eq!((breaker.phase(at(2.0)), breaker.on_call(at(2.0))), (phase, free), "{fault}");
    }
}

#[test]
fn ends_of_calls_that_began_before_it_opened_change_nothing() {
    let mut breaker = opened();
    breaker.on_success(at(0.5));
    failing(&mut breaker, at(0.5), 10);
    assert_eq!(breaker.not_before(at(0.5)), Some(at(1.0)));
}

#[test]
fn a_try_that_never_ends_is_followed_by_another() {
    let mut breaker = opened();
    assert!(breaker.on_call(at(1.0)));
    assert!(!breaker.on_call(at(30.9)));
    assert!(breaker.on_call(at(31.0)));
}

#[test]
fn a_clock_that_goes_back_does_not_keep_it_open() {
    let mut breaker = opened();
    let earlier = Timestamp::from_micros(NOW.as_micros() - 3_600_000_000);
    assert_eq!((breaker.phase(earlier), breaker.not_before(earlier)), (BreakerPhase::HalfOpen, None));
    assert!(breaker.on_call(earlier));
}

#[test]
fn gauges() {
    let gauge = [BreakerPhase::Closed, BreakerPhase::HalfOpen, BreakerPhase::Open].map(BreakerPhase::gauge);
    assert!(gauge.iter().zip([0.0, 1.0, 2.0]).all(|(got, expected)| (got - expected).abs() < 1e-9), "{gauge:?}");
}

proptest! {
    /// Whatever happens, it is never shut for longer than its longest pause or a try's patience.
    #[test]
    fn it_never_stays_shut(
        events in prop::collection::vec((0..3_u8, prop::sample::select(Fault::iter().collect::<Vec<_>>()), 0_u64..3_000), 0..300),
    ) {
        let mut breaker = Breaker::default();
        let mut now = NOW;
        for (event, fault, millis) in events {
            now = now + Duration::from_millis(millis);
            match event {
                0 => { breaker.on_call(now); }
                1 => breaker.on_success(now),
                _ => breaker.on_fault(now, fault),
            }
            if let Some(until) = breaker.not_before(now) {
                prop_assert!(until > now && now.until(until) <= Duration::from_secs(30));
                prop_assert_eq!(breaker.clone().on_call(until), true);
                prop_assert_ne!(breaker.phase(now), BreakerPhase::Closed);
            }
        }
    }
}
