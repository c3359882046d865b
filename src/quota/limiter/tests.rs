//! Reservations and settlements: never above what is granted, and nothing lost.

use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::from_micros(1_000_000_000_000);

fn at(seconds: f64) -> Timestamp {
    NOW + Duration::from_secs_f64(seconds)
}

fn rates(requests: Option<u64>, tokens: Option<u64>, concurrency: Option<u32>) -> Rates {
    Rates { requests_per_minute: requests, tokens_per_minute: tokens, concurrency, share: Decimal::ONE }
}

fn one(tokens: u64) -> Demand {
    Demand { requests: 1, tokens }
}

/// When the call goes; it must be booked.
fn goes(limiter: &mut Limiter, now: Timestamp, tokens: u64) -> Timestamp {
    match limiter.reserve(now, one(tokens)) {
        Admission::Now => now,
        Admission::At(time) => time,
        Admission::Later(time) => panic!("not booked; to be asked again at {time}"),
    }
}

#[test]
fn equal_calls_are_paced_exactly() {
    // 3,000 calls at 100/s with a bucket of one second: the ideal is 29 s.
    let mut limiter = Limiter::new(rates(Some(6_000), None, None), NOW);
    let times: Vec<Timestamp> = (0..3_000).map(|_| goes(&mut limiter, NOW, 0)).collect();
    assert!(times[..100].iter().all(|time| *time == NOW), "the bucket starts full");
    assert!(times.is_sorted());
    let last = NOW.until(times[2_999]).as_secs_f64();
    assert!((last - 29.0).abs() < 0.01, "{last}");
    for (place, time) in times.iter().enumerate().skip(100) {
        let ideal = (place - 99) as f64 / 100.0;
        assert!((NOW.until(*time).as_secs_f64() - ideal).abs() < 1e-3, "{place}");
    }
}

#[test]
fn the_scarcer_quota_decides_and_both_are_booked() {
    let mut limiter = Limiter::new(rates(Some(60), Some(6_000), None), NOW);
    assert_eq!(goes(&mut limiter, NOW, 10), NOW);
    assert_eq!(goes(&mut limiter, NOW, 10), at(1.0), "the requests are short");
    assert_eq!(goes(&mut limiter, NOW, 500), at(2.0), "from a full bucket of tokens");
    assert_eq!(goes(&mut limiter, NOW, 10), at(6.1), "now the tokens: 400 are owed since then");
}

#[test]
fn a_call_larger_than_the_burst_goes_from_a_full_bucket_and_leaves_a_debt() {
    let mut limiter = Limiter::new(rates(None, Some(6_000), None), NOW);
    assert_eq!(goes(&mut limiter, NOW, 1_000), NOW, "an idle quota keeps nobody waiting");
    assert_eq!(goes(&mut limiter, NOW, 1), at(9.01));
}

#[test]
fn what_was_not_used_is_given_back_and_what_was_overdrawn_is_owed() {
    let mut limiter = Limiter::new(rates(None, Some(6_000), None), NOW);
    goes(&mut limiter, NOW, 100);
    limiter.settle(one(100), Some(40));
    assert_eq!(goes(&mut limiter, NOW, 60), NOW, "60 came back");
    limiter.settle(one(60), Some(360));
    assert_eq!(goes(&mut limiter, NOW, 100), at(4.0), "300 are owed");
    limiter.refund(one(100));
    assert_eq!(goes(&mut limiter, NOW, 0), at(3.0));
    limiter.settle(one(0), None);
    assert_eq!(goes(&mut limiter, at(60.0), 100), at(60.0));
    assert_eq!(goes(&mut limiter, at(60.0), 100), at(61.0), "and the bucket never holds more than its burst");
}

#[test]
fn as_many_calls_at_once_as_are_granted() {
    let mut limiter = Limiter::new(rates(None, None, Some(2)), NOW);
    assert_eq!(limiter.reserve(NOW, one(0)), Admission::Now);
    assert_eq!(limiter.reserve(NOW, one(0)), Admission::Now);
    assert_eq!(limiter.reserve(NOW, one(0)), Admission::Later(at(1.0)));
    assert_eq!(limiter.utilization(NOW).concurrency, Some(1.0));
    limiter.settle(one(0), None);
    assert_eq!(limiter.reserve(NOW, one(0)), Admission::Now);
    limiter.refund(one(0));
    limiter.refund(one(0));
    limiter.refund(one(0));
    assert_eq!(limiter.utilization(NOW).concurrency, Some(0.0));
}

#[test]
fn absurd_quotas_have_bounded_effects() {
    let mut none = Limiter::new(rates(Some(0), None, None), NOW);
    assert_eq!(none.reserve(NOW, one(0)), Admission::Later(at(60.0)));
    let mut none = Limiter::new(rates(None, None, Some(0)), NOW);
    assert_eq!(none.reserve(NOW, one(0)), Admission::Later(at(60.0)));
    let mut endless = Limiter::new(rates(Some(u64::MAX), Some(u64::MAX), Some(u32::MAX)), NOW);
    assert_eq!(endless.reserve(NOW, one(u64::MAX)), Admission::Now);
    assert_eq!(endless.reserve(NOW, one(u64::MAX)), Admission::Later(at(600.0)));
    // One a minute, a thousand in line: nobody is promised a time hours ahead.
    let mut slow = Limiter::new(rates(Some(1), None, None), NOW);
    let booked = (0..1_000).filter(|_| !matches!(slow.reserve(NOW, one(0)), Admission::Later(_))).count();
    assert_eq!(booked, 11);
    for share in ["0", "-1", "7", "0.001"] {
        let rates = Rates { share: share.parse().unwrap(), ..rates(Some(60), None, Some(10)) };
        let _ = Limiter::new(rates, NOW).reserve(NOW, one(0));
    }
}

#[test]
fn a_share_of_a_quota_is_that_much_of_it() {
    let half = Rates { share: "0.5".parse().unwrap(), ..rates(Some(12_000), None, Some(3)) };
    let mut limiter = Limiter::new(Rates { concurrency: None, ..half }, NOW);
    let last = (0..300).map(|_| goes(&mut limiter, NOW, 0)).max().unwrap();
    assert_eq!(last, at(2.0));
    let mut limiter = Limiter::new(half, NOW);
    assert_eq!(limiter.reserve(NOW, one(0)), Admission::Now);
    assert!(matches!(limiter.reserve(NOW, one(0)), Admission::Later(_)));
}

#[test]
fn after_a_penalty_calls_go_at_the_rate_and_not_all_at_once() {
    let mut limiter = Limiter::new(rates(Some(600), None, None), NOW);
    limiter.penalise(NOW, at(5.0));
    assert_eq!(limiter.not_before(at(1.0)), Some(at(5.0)));
    let times: Vec<Timestamp> = (0..20).map(|_| goes(&mut limiter, at(1.0), 0)).collect();
    assert_eq!((times[0], times[19]), (at(5.1), at(7.0)));
    limiter.penalise(at(2.0), at(3.0));
    assert_eq!(limiter.not_before(at(2.0)), Some(at(5.0)), "a shorter wish does not shorten a longer one");
    assert_eq!(limiter.not_before(at(5.0)), None);
    // A year is an hour.
    limiter.penalise(at(10.0), at(31_536_000.0));
    assert_eq!(limiter.not_before(at(10.0)), Some(at(3_610.0)));
    assert!(matches!(limiter.reserve(at(10.0), one(0)), Admission::Later(_)));
}

#[test]
fn a_clock_that_goes_back_costs_no_hour() {
    let mut limiter = Limiter::new(rates(Some(60), None, None), at(3_600.0));
    assert_eq!(goes(&mut limiter, at(3_600.0), 0), at(3_600.0));
    assert_eq!(goes(&mut limiter, NOW, 0), at(1.0));
    limiter.penalise(at(3_600.0), at(3_700.0));
    assert_eq!(limiter.not_before(NOW), None);
}

#[test]
fn a_new_rate_counts_at_once_and_what_was_used_stays_used() {
    let mut limiter = Limiter::new(rates(Some(60), None, None), NOW);
    goes(&mut limiter, NOW, 0);
    limiter.set_rates(rates(Some(600), Some(60), None), NOW);
    assert!(limiter.counts_tokens());
    assert_eq!(goes(&mut limiter, NOW, 0), at(0.1));
    limiter.set_rates(rates(None, None, None), NOW);
    assert_eq!(goes(&mut limiter, NOW, 1_000_000), NOW);
    assert_eq!(limiter.utilization(NOW), Utilization::default());
}

#[test]
fn utilization_is_that_of_the_last_minute() {
    let mut limiter = Limiter::new(rates(Some(600), Some(60_000), None), NOW);
    for second in 0..60 {
        for _ in 0..5 {
            goes(&mut limiter, at(f64::from(second)), 100);
        }
    }
    let used = limiter.utilization(at(59.9));
    assert!((used.requests.unwrap() - 0.5).abs() < 0.02, "{used:?}");
    assert!((used.tokens.unwrap() - 0.5).abs() < 0.02, "{used:?}");
    let used = limiter.utilization(at(90.0));
    assert!((used.requests.unwrap() - 0.25).abs() < 0.02, "{used:?}");
    assert_eq!(limiter.utilization(at(200.0)).requests, Some(0.0));
}

proptest! {
    /// A provider with the same quotas, whose buckets start full and that refuses what does not fit, never refuses.
    #[test]
    fn what_is_booked_fits_the_providers_own_buckets(
        granted in (60_u64..6_000, 60_u64..60_000),
        calls in prop::collection::vec((0_u64..2_000_000, 0.0..1.0_f64), 1..200),
    ) {
        let (requests, tokens) = granted;
        let mut limiter = Limiter::new(rates(Some(requests), Some(tokens), None), NOW);
        let per_second = [requests as f64 / 60.0, tokens as f64 / 60.0];
        let mut levels = per_second;
        let (mut now, mut last) = (NOW, NOW);
        for (gap, size) in calls {
            now = now + Duration::from_micros(gap);
            let tokens = (per_second[1] * size).to_u64().unwrap();
            let time = goes(&mut limiter, now, tokens);
            prop_assert!(time >= last, "first come, first served");
            for ((level, rate), amount) in levels.iter_mut().zip(per_second).zip([1.0, tokens as f64]) {
                *level = (*level + last.until(time).as_secs_f64() * rate).min(rate);
                prop_assert!(*level + 1e-3 >= amount, "{level} left for {amount}");
                *level -= amount;
            }
            last = time;
        }
    }

    /// Bookings that are not kept leave nothing behind: the quota is as fast as before.
    #[test]
    fn cancelled_bookings_hold_nobody_up(calls in prop::collection::vec(0_u64..3_000, 1..100)) {
        let mut limiter = Limiter::new(rates(Some(600), Some(60_000), None), NOW);
        let booked: Vec<Demand> =
            calls.into_iter().map(one).filter(|call| !matches!(limiter.reserve(NOW, *call), Admission::Later(_))).collect();
        for call in booked {
            limiter.refund(call);
        }
        prop_assert_eq!(limiter.reserve(NOW, one(1_000)), Admission::Now);
    }
}
