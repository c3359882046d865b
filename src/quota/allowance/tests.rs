//! Allowances: what fits, what waits, what is learned.

use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

fn at(seconds: f64) -> Timestamp {
    NOW + Duration::from_secs_f64(seconds)
}

fn grant(requests: Option<u64>, tokens: Option<u64>) -> Grant {
    Grant { requests_per_minute: requests, tokens_per_minute: tokens, ..Grant::UNKNOWN }
}

fn call(tokens: u64) -> Demand {
    Demand { requests: 1, tokens }
}

/// When a call goes that waits as it is told.
fn goes(allowance: &mut Allowance, from: Timestamp, demand: Demand) -> (Timestamp, Reservation) {
    let mut now = from;
    for _ in 0..100 {
        match allowance.admit(now, demand) {
            Ok(reservation) => return (now, reservation),
            Err(blocked) => {
                assert!(blocked.until > now, "{blocked:?} at {now}");
                now = blocked.until;
            }
        }
    }
    panic!("never admitted");
}

const ANSWERED: Ending = Ending {
    verdict: Verdict::Answered,
    charged: None,
    requests: Told { limit: None, remaining: None, reset: None },
    tokens: Told { limit: None, remaining: None, reset: None },
};

fn turned_away(kind: Throttle, hint: Option<u64>) -> Ending {
    Ending { verdict: Verdict::Throttled(kind, hint.map(Duration::from_secs)), ..ANSWERED }
}

#[test]
fn a_call_takes_from_every_limit_or_from_none() {
    let mut allowance = Allowance::new(grant(Some(6_000), Some(60_000)), NOW);
    let blocked = (0..100).find_map(|_| allowance.admit(NOW, call(500)).err()).unwrap();
    assert_eq!(blocked.by, Limit::TokensPerMinute);
    // 950 tokens at once: one call of 500, and 450 are left for a smaller one; the requests are untouched by refusals.
    assert!(allowance.admit(NOW, call(450)).is_ok());
    assert_eq!((0..200).filter(|_| allowance.admit(NOW, call(0)).is_ok()).count(), 93);
    assert_eq!(allowance.check(NOW, call(0)).unwrap_err().by, Limit::RequestsPerMinute);
}

#[test]
fn what_is_charged_in_the_end_replaces_what_was_reserved() {
    let mut allowance = Allowance::new(grant(None, Some(60_000)), NOW);
    let (_, reservation) = goes(&mut allowance, NOW, call(950));
    allowance.settle(NOW, reservation, &Ending { charged: Some(50), ..ANSWERED });
    let (when, reservation) = goes(&mut allowance, NOW, call(900));
    assert_eq!(when, NOW, "900 came back");
    allowance.settle(NOW, reservation, &Ending { charged: Some(5_900), ..ANSWERED });
    let (when, reservation) = goes(&mut allowance, NOW, call(100));
    assert_eq!(when, at(5.1), "5,000 are owed");
    allowance.cancel(reservation);
    assert_eq!(goes(&mut allowance, at(5.1), call(100)).0, at(5.1), "nothing was sent: given back");
}

#[test]
fn a_day_has_so_many_tokens() {
    let mut allowance = Allowance::new(Grant { tokens_per_day: Some(1_000), ..grant(Some(60_000), None) }, NOW);
    let _ = goes(&mut allowance, NOW, call(900));
    let blocked = allowance.admit(NOW, call(200)).unwrap_err();
    assert_eq!((blocked.by, blocked.until), (Limit::TokensPerDay, next_day(NOW)));
    assert!(allowance.admit(NOW, call(100)).is_ok());
    let learned = allowance.learned(NOW);
    let text = serde_json::to_string(&learned).unwrap();
    let mut again = Allowance::new(*allowance.grant(), NOW);
    again.restore(NOW, &serde_json::from_str(&text).unwrap());
    assert!(again.admit(NOW, call(1)).is_err(), "a restart does not give the day back: {text}");
    assert!(again.admit(next_day(NOW), call(900)).is_ok());
}

#[test]
fn headers_tell_what_nobody_configured() {
    let mut allowance = Allowance::new(Grant::UNKNOWN, NOW);
    let (_, reservation) = goes(&mut allowance, NOW, call(0));
    let told = Told { limit: Some(6_000), remaining: Some(5_999), reset: Some(Duration::from_millis(10)) };
    allowance.settle(at(0.05), reservation, &Ending { requests: told, ..ANSWERED });
    assert_eq!(allowance.rates().0, Some(6_000.0));
    assert_eq!(allowance.standings(NOW)[0].source, Source::Headers);
    // Somebody else uses the account too: 80 of a second's 100 are gone.
    let (_, reservation) = goes(&mut allowance, at(1.0), call(0));
    let told = Told { reset: Some(Duration::from_millis(800)), ..told };
    allowance.settle(at(1.0), reservation, &Ending { requests: told, ..ANSWERED });
    assert_eq!((0..200).filter(|_| allowance.admit(at(1.0), call(0)).is_ok()).count(), 15);
}

#[test]
fn lies_and_absurd_values_have_bounded_effects() {
    for told in [
        Told { limit: Some(0), remaining: Some(0), reset: Some(Duration::from_hours(9_000)) },
        Told { limit: Some(u64::MAX), remaining: Some(u64::MAX), reset: None },
        Told { limit: Some(600), remaining: Some(u64::MAX), reset: Some(Duration::MAX) },
        Told { limit: Some(600), remaining: Some(0), reset: None },
        Told { limit: None, remaining: Some(0), reset: Some(Duration::MAX) },
    ] {
        let mut allowance = Allowance::new(grant(Some(600), Some(6_000)), NOW);
        let (_, reservation) = goes(&mut allowance, NOW, call(10));
        allowance.settle(NOW, reservation, &Ending { requests: told, tokens: told, ..ANSWERED });
        let (when, _) = goes(&mut allowance, NOW, call(10));
        assert!(NOW.until(when) <= Duration::from_secs(61), "{told:?}: {when}");
    }
    // A wish of a year is an hour, and says so.
    let mut allowance = Allowance::new(grant(Some(600), None), NOW);
    let (_, reservation) = goes(&mut allowance, NOW, call(0));
    allowance.settle(NOW, reservation, &turned_away(Throttle::Unsaid, Some(31_536_000)));
    assert_eq!(allowance.check(NOW, call(0)), Err(Blocked { by: Limit::RetryAfter, until: NOW + LONGEST_WISH }));
    // Zero stays zero, and is asked about once a minute.
    let mut none = Allowance::new(grant(Some(0), None), NOW);
    assert_eq!(none.check(NOW, call(0)).unwrap_err().until, at(60.0));
    let mut endless = Allowance::new(grant(Some(u64::MAX), Some(u64::MAX)), NOW);
    assert!(endless.admit(NOW, call(u64::MAX)).is_ok());
    for share in ["0", "-1", "7", "0.001"] {
        let _ = Allowance::new(Grant { share: share.parse().unwrap(), ..grant(Some(60), Some(60)) }, NOW)
            .check(NOW, call(1));
    }
    let mut learned: Learned = serde_json::from_str(
        r#"{"requests":{"measured":1e300,"told":0},"tokens":{"measured":-5},"day":["2001-01-01T00:00:00Z",18446744073709551615],
            "closed":["9999-01-01T00:00:00Z","exhausted"],"concurrency":0}"#,
    )
    .unwrap();
    let mut restored = Allowance::new(grant(Some(600), None), NOW);
    restored.restore(NOW, &learned);
    assert_eq!(restored.check(NOW, call(0)).unwrap_err().until, NOW + LONGEST_CLOSURE);
    learned.closed = None;
    let mut restored = Allowance::new(grant(Some(600), None), NOW);
    restored.restore(NOW, &learned);
    assert!(restored.admit(NOW, call(0)).is_ok());
}

#[test]
fn an_account_with_nothing_left_rests_until_its_reset() {
    for (kind, hint, until, why) in [
        (Throttle::TokensPerDay, None, next_day(NOW), Limit::TokensPerDay),
        (Throttle::TokensPerDay, Some(7_200), at(7_200.0), Limit::TokensPerDay),
        (Throttle::TokensPerDay, Some(31_536_000), NOW + LONGEST_CLOSURE, Limit::TokensPerDay),
        (Throttle::Exhausted, None, NOW + LONGEST_WISH, Limit::Exhausted),
        (Throttle::Exhausted, Some(10_000), at(10_000.0), Limit::Exhausted),
    ] {
        let mut allowance = Allowance::new(grant(Some(600), None), NOW);
        let (_, reservation) = goes(&mut allowance, NOW, call(0));
        allowance.settle(NOW, reservation, &turned_away(kind, hint));
        assert_eq!(allowance.check(NOW, call(0)), Err(Blocked { by: why, until }));
        let learned = allowance.learned(NOW);
        let mut again = Allowance::new(grant(Some(600), None), NOW);
        again.restore(at(5.0), &learned);
        assert_eq!(again.closed_until(at(5.0)), Some((until, why)), "a restart does not open it");
        again.set_grant(grant(Some(1_200), None), at(6.0));
        assert!(goes(&mut again, at(6.0), call(0)).0 < at(7.0), "a new grant does");
    }
}

#[test]
fn a_known_rate_gives_way_to_throttles_once_a_round_trip_and_comes_back() {
    let mut allowance = Allowance::new(grant(Some(6_000), None), NOW);
    let calls: Vec<Reservation> = (0..90).map(|_| allowance.admit(NOW, call(0)).unwrap()).collect();
    for reservation in calls {
        allowance.settle(at(0.05), reservation, &turned_away(Throttle::Requests, None));
    }
    assert_eq!(allowance.rates().0, Some(5_400.0), "ninety throttles of one round trip are one cut");
    let mut now = at(0.05);
    while now < at(8.0) {
        let (when, reservation) = goes(&mut allowance, now, call(0));
        allowance.settle(when, reservation, &ANSWERED);
        now = when;
    }
    assert_eq!(allowance.rates().0, Some(6_000.0), "and never above what is granted");
}

#[test]
fn a_rate_never_falls_below_its_floor() {
    let mut allowance = Allowance::new(Grant::UNKNOWN, NOW);
    let mut now = NOW;
    for _ in 0..500 {
        let (when, reservation) = goes(&mut allowance, now, call(0));
        allowance.settle(when, reservation, &turned_away(Throttle::Unsaid, None));
        now = when;
    }
    let rate = allowance.rates().0.unwrap();
    assert!((1.0..=120.0).contains(&rate), "{rate} a minute");
}

#[test]
fn a_clock_that_goes_back_costs_no_hour() {
    let mut allowance = Allowance::new(grant(Some(60), None), at(3_600.0));
    let _ = goes(&mut allowance, at(3_600.0), call(0));
    assert_eq!(goes(&mut allowance, NOW, call(0)).0, at(1.0));
    allowance.close(at(3_600.0), at(3_700.0), Limit::RetryAfter);
    assert_eq!(allowance.closed_until(NOW), None);
}

#[test]
fn heavy_traffic_to_a_provider_that_wants_it_grows_slowly() {
    let mut allowance = Allowance::new(Grant { ramp: true, ..grant(None, Some(30_000_000)) }, NOW);
    let mut sent = 0_u64;
    let mut now = NOW;
    while now < NOW + MINUTE {
        now = goes(&mut allowance, now, call(1_000)).0;
        sent += 1_000;
    }
    assert!((990_000..=1_030_000).contains(&sent), "{sent} in the first minute");
    assert_eq!(allowance.standings(now)[0].source, Source::Ramp);
}

proptest! {
    /// A provider with the same quotas, whose buckets start full and that refuses what does not fit, never refuses.
    #[test]
    fn what_is_admitted_fits_the_providers_own_buckets(
        granted in (120_u64..60_000, 1_200_u64..600_000),
        calls in prop::collection::vec((0_u64..200_000, 0.0..0.9_f64), 1..200),
    ) {
        let (requests, tokens) = granted;
        let mut allowance = Allowance::new(grant(Some(requests), Some(tokens)), NOW);
        let per_second = [requests as f64 / 60.0, tokens as f64 / 60.0];
        let mut levels = per_second;
        let (mut now, mut last) = (NOW, NOW);
        for (gap, size) in calls {
            now = now.max(last) + Duration::from_micros(gap);
            let tokens = (per_second[1] * size).to_u64().unwrap();
            let (time, _) = goes(&mut allowance, now, call(tokens));
            for ((level, rate), amount) in levels.iter_mut().zip(per_second).zip([1.0, tokens as f64]) {
                *level = (*level + last.until(time).as_secs_f64() * rate).min(rate);
                prop_assert!(*level + 1e-3 >= amount, "{level} left for {amount}");
                *level -= amount;
            }
            last = time;
        }
    }

    /// Whatever happens to calls: no panic, no negative count of calls in flight, and a finite wait for the next one.
    #[test]
    fn nothing_a_provider_says_stops_it_for_good(
        acts in prop::collection::vec((0_u8..8, 0_u64..5_000_000, any::<u64>()), 1..100),
    ) {
        let mut allowance = Allowance::new(Grant::UNKNOWN, NOW);
        let mut now = NOW;
        let mut open = Vec::new();
        for (act, gap, number) in acts {
            now = now + Duration::from_micros(gap);
            let told = Told { limit: Some(number), remaining: Some(number / 2), reset: Some(Duration::from_micros(number)) };
            if let Ok(reservation) = allowance.admit(now, call(number % 10_000)) {
                open.push(reservation);
            }
            let Some(reservation) = open.pop() else { continue };
            match act {
                0 => open.push(reservation),
                1 => allowance.cancel(reservation),
                2 => allowance.settle(now, reservation, &turned_away(Throttle::Unsaid, None)),
                3 => allowance.settle(now, reservation, &turned_away(Throttle::Tokens, Some(number % 100))),
                4 => allowance.settle(now, reservation, &Ending { verdict: Verdict::Overloaded, ..ANSWERED }),
                5 => allowance.settle(now, reservation, &Ending { requests: told, tokens: told, ..ANSWERED }),
                _ => allowance.settle(now, reservation, &Ending { charged: Some(number % 100_000), ..ANSWERED }),
            }
        }
        for reservation in open {
            allowance.settle(now, reservation, &ANSWERED);
        }
        let (when, _) = goes(&mut allowance, now, call(1));
        prop_assert!(now.until(when) <= Duration::from_hours(25), "{when}");
    }
}
