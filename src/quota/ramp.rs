//! A provider's wish that heavy traffic grow slowly: above a million tokens a minute, by half in a quarter of an hour.
//!
//! Invariant: never below a million a minute, and never in the way of traffic that was as heavy a quarter of an hour ago.

use std::time::Duration;

use crate::clock::Timestamp;

/// Below this, in tokens a minute, traffic may grow as it likes.
const FREE: f64 = 1e6;
/// In this time ...
const STEP: Duration = Duration::from_mins(15);
/// ... traffic may grow by this factor.
const GROWTH: f64 = 1.5;

/// How far traffic may have grown.
#[derive(Debug, Clone, PartialEq)]
pub struct Ramp {
    allowed: f64,
    peak: f64,
    since: Timestamp,
}

impl Ramp {
    /// From standing.
    pub fn new(now: Timestamp) -> Self {
        Self { allowed: FREE, peak: 0.0, since: now }
    }

    /// Tokens a minute that may go, when so many went in the last one.
    pub fn allowed(&mut self, now: Timestamp, last_minute: f64) -> f64 {
        self.peak = self.peak.max(last_minute);
        let age = now.since(self.since);
        if age >= STEP || now < self.since {
            let stale = age >= STEP * 2;
            let peak = if stale { last_minute } else { self.peak };
            self.allowed = (peak * GROWTH).max(FREE);
            self.peak = last_minute;
            self.since = now;
        }
        self.allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heavy_traffic_grows_by_half_in_a_quarter_of_an_hour() {
        let mut now = Timestamp::from_micros(0);
        let mut ramp = Ramp::new(now);
        let mut seen = Vec::new();
        for _ in 0..60 {
            let allowed = ramp.allowed(now, ramp.clone().allowed);
            if seen.last() != Some(&allowed) {
                seen.push(allowed);
            }
            now = now + Duration::from_mins(1);
        }
        seen.push(ramp.allowed(now, 10.0));
        seen.push(ramp.allowed(now + STEP * 3, 10.0));
        // A lull does not take back what was allowed for this step; a long one does.
        assert_eq!(seen, [1e6, 1.5e6, 2.25e6, 3.375e6, 3.375e6 * 1.5, 1e6]);
    }
}
