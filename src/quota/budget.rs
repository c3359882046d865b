//! Money as a limit: what may be spent in a day and in a month, of which calls in flight have reserved their part.
//!
//! Invariant: days and months are those of UTC. A call goes when what was spent, what is reserved and the most that it may
//! cost fit together; or, so that no call is ever too dear to be made, when nothing is reserved and something is left. So
//! what is spent beyond a limit is never more than what one call costs, and a limit that is reached lets nothing go.

use std::time::Duration;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::day::{day_of, next_day};
use crate::{clock::Timestamp, money::Usd, spec::Budget};

/// What may be spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Caps {
    /// US dollars in a day (UTC).
    pub usd_per_day: Option<Usd>,
    /// US dollars in a month (UTC).
    pub usd_per_month: Option<Usd>,
}

impl Caps {
    /// Whether anything is limited.
    pub fn is_empty(&self) -> bool {
        self.usd_per_day.is_none() && self.usd_per_month.is_none()
    }
}

impl From<Budget> for Caps {
    fn from(Budget { usd_per_day, usd_per_month, .. }: Budget) -> Self {
        Self { usd_per_day, usd_per_month }
    }
}

/// What a limit is by.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    strum::Display,
    strum::IntoStaticStr,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Period {
    /// A day.
    Day,
    /// A month.
    Month,
}

impl Period {
    /// The first moment of the one that `now` is in.
    pub fn start(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Day => day_of(now),
            Self::Month => midnight(now.date().first_of_month()),
        }
    }

    /// The first moment of the next.
    pub fn next(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Day => next_day(now),
            Self::Month => {
                let last = midnight(now.date().last_of_month());
                last + Duration::from_hours(24)
            }
        }
    }
}

fn midnight(date: Date) -> Timestamp {
    let days = date.duration_since(Date::constant(1970, 1, 1)).as_hours() / 24;
    Timestamp::from_micros(days.saturating_mul(86_400_000_000))
}

/// A limit that keeps a call from going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Short {
    /// Which.
    pub period: Period,
    /// What may be spent in it.
    pub cap: Usd,
    /// What was.
    pub spent: Usd,
    /// What calls in flight may cost.
    pub reserved: Usd,
    /// When the next period begins.
    pub opens: Timestamp,
}

impl Short {
    /// Whether it is spent; otherwise it is reserved, and a call's end may give some back.
    pub fn is_spent(&self) -> bool {
        self.spent >= self.cap
    }

    /// For somebody who asks; `whose` and the key that would change it are the caller's to say.
    pub fn in_words(&self, whose: &str) -> String {
        let Self { period, cap, spent, reserved, opens } = self;
        let key = match period {
            Period::Day => "usd_per_day",
            Period::Month => "usd_per_month",
        };
        if self.is_spent() {
            format!(
                "{whose} has spent {spent} of its {cap} US dollars for this {period} (UTC); it opens again at {opens}, or \
                 with a larger `{key}`"
            )
        } else {
            format!(
                "{whose} has spent {spent} of its {cap} US dollars for this {period} (UTC), and calls in flight may cost \
                 {reserved}: it opens as they end, at {opens}, or with a larger `{key}`"
            )
        }
    }
}

/// What one payer has spent and reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purse {
    day: Span,
    month: Span,
    reserved: Usd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    start: Timestamp,
    spent: Usd,
}

impl Span {
    fn follow(&mut self, period: Period, now: Timestamp) {
        let start = period.start(now);
        if start > self.start {
            *self = Self { start, spent: Usd::ZERO };
        }
    }
}

impl Purse {
    /// A payer who has spent so much in this day and month, and has nothing in flight.
    pub fn new(now: Timestamp, day: Usd, month: Usd) -> Self {
        let span = |period: Period, spent| Span { start: period.start(now), spent };
        Self { day: span(Period::Day, day), month: span(Period::Month, month), reserved: Usd::ZERO }
    }

    /// What was spent, in this day and month.
    pub fn spent(&mut self, now: Timestamp) -> (Usd, Usd) {
        self.day.follow(Period::Day, now);
        self.month.follow(Period::Month, now);
        (self.day.spent, self.month.spent)
    }

    /// What calls in flight may cost.
    pub fn reserved(&self) -> Usd {
        self.reserved
    }

    /// Whether a call may go that costs so much at most, reserving nothing.
    ///
    /// # Errors
    /// [`Short`] by the limit that opens last.
    pub fn check(&mut self, now: Timestamp, caps: &Caps, most: Usd) -> Result<(), Short> {
        let (day, month) = self.spent(now);
        let short = |period: Period, cap: Option<Usd>, spent: Usd| {
            let cap = cap?;
            let fits = spent + self.reserved + most <= cap || self.reserved == Usd::ZERO;
            let short = Short { period, cap, spent, reserved: self.reserved, opens: period.next(now) };
            (short.is_spent() || !fits).then_some(short)
        };
        let found = [short(Period::Day, caps.usd_per_day, day), short(Period::Month, caps.usd_per_month, month)];
        // What is spent lasts; what is reserved comes back.
        match found.into_iter().flatten().max_by_key(|short| (short.is_spent(), short.opens)) {
            Some(short) => Err(short),
            None => Ok(()),
        }
    }

    /// The limit that is reached, if one is: nothing may go before it opens.
    pub fn is_spent(&mut self, now: Timestamp, caps: &Caps) -> Option<Short> {
        self.check(now, caps, Usd::ZERO).err().filter(Short::is_spent)
    }

    /// A call is about to go.
    pub fn reserve(&mut self, most: Usd) {
        self.reserved += most;
    }

    /// A call ended, or was not sent: gives back what it had reserved, and counts its bill.
    pub fn settle(&mut self, now: Timestamp, reserved: Usd, bill: Usd) {
        self.reserved = (self.reserved - reserved).max(Usd::ZERO);
        self.spent(now);
        self.day.spent += bill;
        self.month.spent += bill;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn usd(cents: i64) -> Usd {
        Usd(rust_decimal::Decimal::new(cents, 2))
    }

    fn a_day(cents: i64) -> Caps {
        Caps { usd_per_day: Some(usd(cents)), usd_per_month: None }
    }

    #[test]
    fn days_and_months_are_those_of_utc() {
        for (now, day, month) in [
            ("2026-11-22T10:00:00Z", "2026-11-23T00:00:00Z", "2026-12-01T00:00:00Z"),
            ("2026-12-31T23:59:59.999999Z", "2027-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("2028-02-28T00:00:00Z", "2028-02-29T00:00:00Z", "2028-03-01T00:00:00Z"),
            ("1969-12-31T12:00:00Z", "1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
        ] {
            let now = at(now);
            assert_eq!((Period::Day.next(now), Period::Month.next(now)), (at(day), at(month)));
            for period in [Period::Day, Period::Month] {
                assert!(period.start(now) <= now && now < period.next(now), "{now} {period}");
                assert_eq!(period.start(period.next(now)), period.next(now));
            }
        }
    }

    #[test]
    fn what_is_reserved_is_kept_free_and_what_is_left_is_used() {
        let now = at("2026-11-22T10:00:00Z");
        let mut purse = Purse::new(now, Usd::ZERO, Usd::ZERO);
        let caps = a_day(100);
        purse.check(now, &caps, usd(60)).unwrap();
        purse.reserve(usd(60));
        let short = purse.check(now, &caps, usd(60)).unwrap_err();
        assert!(!short.is_spent(), "{short:?}");
        purse.check(now, &caps, usd(40)).unwrap();
        purse.settle(now, usd(60), usd(5));
        // Dearer than all that is left, but nothing is in flight.
        purse.check(now, &caps, usd(500)).unwrap();
        purse.reserve(usd(500));
        purse.check(now, &caps, usd(1)).unwrap_err();
        purse.settle(now, usd(500), usd(95));
        let short = purse.check(now, &caps, Usd::ZERO).unwrap_err();
        assert!(short.is_spent() && short.opens == at("2026-11-23T00:00:00Z"), "{short:?}");
        assert!(short.in_words("p").contains("has spent 1.00 of its 1.00 US dollars for this day"), "{short:?}");
        // Raised, it opens at once; a new day opens it too.
        purse.check(now, &a_day(101), usd(1)).unwrap();
        purse.check(at("2026-11-23T00:00:00Z"), &caps, usd(1)).unwrap();
    }

    #[test]
    fn the_limit_that_opens_last_is_named() {
        let now = at("2026-11-22T10:00:00Z");
        let mut purse = Purse::new(now, usd(100), usd(900));
        let caps = Caps { usd_per_day: Some(usd(100)), usd_per_month: Some(usd(900)) };
        assert_eq!(purse.is_spent(now, &caps).unwrap().period, Period::Month);
        let caps = Caps { usd_per_month: Some(usd(901)), ..caps };
        assert_eq!(purse.is_spent(now, &caps).unwrap().period, Period::Day);
        let tomorrow = at("2026-11-23T10:00:00Z");
        assert_eq!(purse.is_spent(tomorrow, &caps), None);
        assert_eq!(purse.spent(tomorrow), (Usd::ZERO, usd(900)));
    }

    proptest! {
        /// However calls overlap, and as long as none costs more than was said: at most one call beyond the limit.
        #[test]
        fn what_is_spent_beyond_a_limit_is_at_most_one_call(
            cap in 1_i64..500,
            steps in proptest::collection::vec((any::<bool>(), 0_i64..120, 0_i64..=100), 1..300),
        ) {
            let now = at("2026-11-22T10:00:00Z");
            let mut purse = Purse::new(now, Usd::ZERO, Usd::ZERO);
            let caps = a_day(cap);
            let mut flying: Vec<i64> = Vec::new();
            let mut dearest = 0;
            for (go, most, part) in steps {
                if go {
                    if purse.check(now, &caps, usd(most)).is_ok() {
                        purse.reserve(usd(most));
                        flying.push(most);
                        dearest = dearest.max(most);
                    }
                } else if let Some(most) = flying.pop() {
                    purse.settle(now, usd(most), usd(most * part / 100));
                }
                let (spent, _) = purse.spent(now);
                prop_assert!(spent + purse.reserved() <= usd(cap + dearest), "{purse:?}");
                prop_assert_eq!(purse.reserved(), usd(flying.iter().sum()));
            }
        }
    }
}
