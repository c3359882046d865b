//! About how much went in the last minute.

use std::time::Duration;

use crate::clock::Timestamp;

const MINUTE: Duration = Duration::from_mins(1);

/// This minute's count, and the last one's in proportion.
#[derive(Debug, Clone)]
pub struct Meter {
    since: Timestamp,
    current: f64,
    previous: f64,
}

impl Meter {
    /// Nothing so far.
    pub fn new(now: Timestamp) -> Self {
        Self { since: now, current: 0.0, previous: 0.0 }
    }

    /// So much went.
    pub fn add(&mut self, now: Timestamp, amount: f64) {
        let age = now.since(self.since);
        if age >= MINUTE || now < self.since {
            self.previous = if age < 2 * MINUTE { self.current } else { 0.0 };
            self.current = 0.0;
            self.since = if age < 2 * MINUTE && now >= self.since { self.since + MINUTE } else { now };
        }
        self.current += amount;
    }

    /// What went earlier turned out to be more, or less.
    pub fn correct(&mut self, by: f64) {
        self.current += by;
    }

    /// What went in the last minute.
    pub fn last_minute(&self, now: Timestamp) -> f64 {
        let (old, new, age) = match now.since(self.since) {
            age if age < MINUTE => (self.previous, self.current, age),
            age if age < 2 * MINUTE => (self.current, 0.0, age.saturating_sub(MINUTE)),
            _ => return 0.0,
        };
        (old * (1.0 - age.as_secs_f64() / 60.0) + new).max(0.0)
    }
}
