//! When a notice that was not delivered is tried again, and when not any more.

use std::time::Duration;

use crate::clock::Timestamp;

const MINUTE: u64 = 60;
const HOUR: u64 = 3_600;
/// Seconds before each further try: about a day in all.
const WAITS: [u64; 11] =
    [2, 10, MINUTE, 5 * MINUTE, 15 * MINUTE, 45 * MINUTE, 2 * HOUR, 4 * HOUR, 5 * HOUR, 6 * HOUR, 6 * HOUR];
/// After this, nobody waits for a receiver any more.
const LONGEST: Duration = Duration::from_hours(26);
/// Notices that wait for the same receiver come back over this time.
const SCATTER: Duration = Duration::from_secs(5);

/// How long to wait after so many tries of something that happened at `since`; `None`: no more.
pub(super) fn next(tries: u32, since: Timestamp, now: Timestamp) -> Option<Duration> {
    let place = usize::try_from(tries).ok()?.checked_sub(1)?;
    let wait = WAITS.get(place)?;
    (!is_over(since, now)).then(|| Duration::from_secs(*wait))
}

/// Whether something happened too long ago to be told still.
pub(super) fn is_over(since: Timestamp, now: Timestamp) -> bool {
    now.since(since) > LONGEST
}

/// Up to a fifth longer; `chance` is from 0 to 1.
pub(super) fn jittered(wait: Duration, chance: f64) -> Duration {
    wait + wait.mul_f64(chance.clamp(0.0, 1.0) / 5.0)
}

/// A little later.
pub(super) fn scattered(at: Timestamp, chance: f64) -> Timestamp {
    at + SCATTER.mul_f64(chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_a_day_is_tried() {
        let mut now = Timestamp::from_micros(1_795_341_600_000_000);
        let since = now;
        let mut tries = 1;
        while let Some(wait) = next(tries, since, now) {
            now = now + jittered(wait, 0.5);
            tries += 1;
        }
        assert_eq!(tries, 12);
        let day = now.since(since);
        assert!((Duration::from_hours(20)..Duration::from_hours(28)).contains(&day), "{day:?}");
        assert_eq!(next(1, since, since + Duration::from_hours(48)), None);
        assert_eq!(next(0, since, since), None);
    }
}
