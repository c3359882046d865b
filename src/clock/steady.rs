//! The machine's clock, made steady: what a daemon that measures waits, deadlines and quotas can work by.
//!
//! Invariant: its time never goes backwards. A machine's clock that is set forward is followed at once; one that is set
//! back is waited for: until it has caught up, this clock runs slower by a tenth. Otherwise a job that waits for a second
//! would wait for as long as the clock was set back.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{Clock, SystemClock, Timestamp};

/// Differences above this are a clock that was set; those below are its everyday corrections.
const JUMP: Duration = Duration::from_secs(2);
/// How much slower the clock runs while it is ahead: one part in so many.
const SLOWER_BY: i64 = 10;

/// What [`SteadyClock::follow`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Followed {
    /// Nothing worth a word.
    Quietly,
    /// The machine's clock was set forward by so much, and is followed.
    Forward(Duration),
    /// The machine's clock was set back: time goes on slowly until it has caught up with so much.
    Ahead(Duration),
}

/// The machine's clock, made steady. Somebody calls [`follow`](SteadyClock::follow) about once a second.
#[derive(Debug)]
pub struct SteadyClock {
    started: Instant,
    /// Microseconds from the start of the process's own count to the time since 1970.
    offset: AtomicI64,
    pace: Mutex<Pace>,
}

#[derive(Debug, Default)]
struct Pace {
    /// The process's own count at the last look.
    looked_at: i64,
    /// Whether somebody has been told that the clock is ahead.
    told: bool,
}

impl SteadyClock {
    /// A clock that begins at the machine's time.
    pub fn new() -> Self {
        Self::starting_at(SystemClock.now())
    }

    fn starting_at(wall: Timestamp) -> Self {
        Self { started: Instant::now(), offset: AtomicI64::new(wall.as_micros()), pace: Mutex::default() }
    }

    fn count(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX)
    }

    /// Looks at the machine's clock and goes with it.
    pub fn follow(&self) -> Followed {
        self.follow_to(SystemClock.now(), self.count())
    }

    fn follow_to(&self, wall: Timestamp, count: i64) -> Followed {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = count.saturating_sub(pace.looked_at).max(0);
        pace.looked_at = count;
        let offset = self.offset.load(Ordering::Acquire);
        let behind = wall.as_micros().saturating_sub(offset.saturating_add(count));
        let by = Duration::from_micros(behind.unsigned_abs());
        if behind >= 0 {
            self.offset.store(offset.saturating_add(behind), Ordering::Release);
            pace.told = false;
            return if by > JUMP { Followed::Forward(by) } else { Followed::Quietly };
        }
        self.offset.store(offset.saturating_sub((passed / SLOWER_BY).min(-behind)), Ordering::Release);
        if by > JUMP && !pace.told {
            pace.told = true;
            return Followed::Ahead(by);
        }
        Followed::Quietly
    }
}

impl Default for SteadyClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.offset.load(Ordering::Acquire).saturating_add(self.count()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    #[test]
    fn a_clock_set_forward_is_followed_and_one_set_back_is_waited_for() {
        let base = 1_800_000_000 * SECOND;
        let clock = SteadyClock::starting_at(Timestamp::from_micros(base));
        let shows = |count: i64| clock.offset.load(Ordering::Acquire) + count;
        let follow = |wall: i64, count: i64| clock.follow_to(Timestamp::from_micros(wall), count);
        assert_eq!(follow(base + SECOND, SECOND), Followed::Quietly);
        assert_eq!(shows(SECOND), base + SECOND);
        // An hour forward.
        let hour = 3_600 * SECOND;
        assert_eq!(follow(base + hour + 2 * SECOND, 2 * SECOND), Followed::Forward(Duration::from_hours(1)));
        assert_eq!(shows(2 * SECOND), base + hour + 2 * SECOND);
        // And back: one word, and time that goes on, slower by a tenth, until the two agree.
        let mut before = shows(2 * SECOND);
        let mut words = 0;
        let mut seconds = 3;
        while shows(seconds * SECOND) > base + seconds * SECOND {
            match follow(base + seconds * SECOND, seconds * SECOND) {
                Followed::Quietly => {}
                Followed::Ahead(by) => {
                    assert_eq!(by, Duration::from_hours(1));
                    words += 1;
                }
                Followed::Forward(_) => panic!("not forward"),
            }
            let now = shows(seconds * SECOND);
            assert!(now >= before, "{seconds}");
            before = now;
            seconds += 1;
        }
        assert_eq!(words, 1);
        assert!((35_990..=36_010).contains(&seconds), "an hour is lost in ten: {seconds} s");
        assert_eq!(follow(base + seconds * SECOND, seconds * SECOND), Followed::Quietly);
        assert_eq!(shows(seconds * SECOND), base + seconds * SECOND);
    }
}
