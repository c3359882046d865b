//! Points in time, spans of time as operators write them, and where time comes from.
//!
//! Invariant: decisions never ask for the time; it is handed to them. Only shells hold a [`Clock`].

mod steady;

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use steady::{Followed, SteadyClock};

/// A moment, in microseconds since 1970-01-01T00:00:00Z. Written as RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The moment `micros` microseconds after the Unix epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// How long ago `earlier` was; zero if it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The day, in UTC.
    pub fn date(self) -> jiff::civil::Date {
        let time = jiff::Timestamp::from_microsecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        time.to_zoned(jiff::tz::TimeZone::UTC).date()
    }

    /// How long until `later`; zero if it has passed.
    pub fn until(self, later: Self) -> Duration {
        later.since(self)
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl std::ops::Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => write!(f, "{} µs after 1970", self.0),
        }
    }
}

impl FromStr for Timestamp {
    type Err = jiff::Error;
    fn from_str(text: &str) -> Result<Self, jiff::Error> {
        text.parse::<jiff::Timestamp>().map(|time| Self(time.as_microsecond()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl schemars::JsonSchema for Timestamp {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timestamp".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "date-time" })
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(|error| serde::de::Error::custom(format!("{text:?} is not an RFC 3339 time: {error}")))
    }
}

/// Why a text is not a span of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a span of time: write a number and a unit, such as 150ms, 30s, 5m, 24h, 7d or 1h30m")]
pub struct InvalidSpan(pub String);

/// Longest span an operator may write: ten years. Keeps every sum of times in range.
pub const MAX_SPAN: Duration = Duration::from_hours(3_650 * 24);

/// Reads `150ms`, `30s`, `5m`, `24h`, `7d` and sums such as `1h30m`.
///
/// # Errors
/// [`InvalidSpan`] for anything else, and for spans above [`MAX_SPAN`].
pub fn parse_span(text: &str) -> Result<Duration, InvalidSpan> {
    let invalid = || InvalidSpan(text.chars().take(80).collect());
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let millis = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(invalid()),
        };
        rest = &rest[letters..];
        let span = number.checked_mul(millis).map(Duration::from_millis).ok_or_else(invalid)?;
        total = total.checked_add(span).filter(|sum| *sum <= MAX_SPAN).ok_or_else(invalid)?;
    }
    if text.is_empty() { Err(invalid()) } else { Ok(total) }
}

/// Writes a span the way [`parse_span`] reads it, to the millisecond.
pub fn format_span(span: Duration) -> String {
    let mut rest = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, millis) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if rest >= millis {
            text.push_str(&(rest / millis).to_string());
            text.push_str(unit);
            rest %= millis;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Where a shell gets the time from.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;
}

/// A clock that is shared.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp(jiff::Timestamp::now().as_microsecond())
    }
}

/// A clock that follows tokio's: under a paused runtime, simulated time drives everything.
#[derive(Debug, Clone, Copy)]
pub struct TokioClock {
    base: Timestamp,
    started: tokio::time::Instant,
}

impl TokioClock {
    /// A clock that reads `base` now and runs with tokio's time from here on.
    pub fn starting_at(base: Timestamp) -> Self {
        Self { base, started: tokio::time::Instant::now() }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        self.base + self.started.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_round_trip() {
        for text in ["150ms", "30s", "1h30m", "7d", "0s"] {
            assert_eq!(format_span(parse_span(text).unwrap()), text);
        }
        for text in ["", "5", "s", "1w", "-1s", "1 s", "99999999999999999999s", "4000d", "1.5h"] {
            assert!(parse_span(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_rfc_3339() {
        let time: Timestamp = "2026-11-22T10:00:00.5Z".parse().unwrap();
        assert_eq!(time.to_string(), "2026-11-22T10:00:00.500Z");
        assert_eq!(time.since(time + Duration::from_secs(1)), Duration::ZERO);
        assert_eq!((time + Duration::from_secs(1)).since(time), Duration::from_secs(1));
    }
}
