//! When a provider would like us back: the headers that say so, in all their forms.
//!
//! Invariant: a hint is never longer than [`MAX_RETRY_AFTER`], and nonsense is no hint.

use std::time::Duration;

use crate::clock::Timestamp;

/// Longest wait that a provider's hint can cause. A header that says more is a mistake or an attack.
pub const MAX_RETRY_AFTER: Duration = Duration::from_hours(24);

/// The headers that matter for a failure.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hints<'a> {
    /// `retry-after`: seconds, a decimal, or an HTTP date.
    pub retry_after: Option<&'a str>,
    /// `retry-after-ms`, or Amazon's `x-amz-retry-after`: milliseconds.
    pub retry_after_ms: Option<&'a str>,
    /// `x-should-retry`: `true` or `false`.
    pub should_retry: Option<&'a str>,
    /// `x-amzn-errortype`: the exception's name.
    pub error_type: Option<&'a str>,
    /// What dates are relative to; without it, a date is no hint.
    pub now: Option<Timestamp>,
}

impl Hints<'_> {
    /// How long to wait, if the headers say.
    pub fn wait(&self) -> Option<Duration> {
        let millis = self.retry_after_ms.and_then(|text| number(text, 0.001));
        millis.or_else(|| {
            let text = self.retry_after?;
            number(text, 1.0).or_else(|| self.until(text))
        })
    }

    fn until(&self, date: &str) -> Option<Duration> {
        let now = u64::try_from(self.now?.as_micros()).ok()?;
        let then = httpdate::parse_http_date(date.trim()).ok()?;
        let since_epoch = then.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some(since_epoch.saturating_sub(Duration::from_micros(now)).min(MAX_RETRY_AFTER))
    }

    /// What `x-should-retry` says.
    pub(super) fn should_retry(&self) -> Option<bool> {
        match self.should_retry?.trim() {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }
}

/// A count of `unit` seconds, bounded; `None` for what is negative or not a number.
fn number(text: &str, unit: f64) -> Option<Duration> {
    let text = text.trim();
    // Rust also reads "inf" and "nan"; a header has digits.
    if !text.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    let seconds = text.parse::<f64>().ok()? * unit;
    Some(Duration::try_from_secs_f64(seconds).map_or(MAX_RETRY_AFTER, |wait| wait.min(MAX_RETRY_AFTER)))
}

/// Reads a duration as Go writes it, such as `1s`, `6m0s`, `120ms` or `1h2m3.5s`; bounded by [`MAX_RETRY_AFTER`].
pub fn go_duration(text: &str) -> Option<Duration> {
    const LONGEST: usize = 40;
    let mut rest = text.trim();
    if rest.is_empty() || rest.len() > LONGEST {
        return None;
    }
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut seconds = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !(letter.is_ascii_digit() || letter == '.'))?;
        let (count, tail) = rest.split_at_checked(digits)?;
        let letters = tail.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(letters)?;
        let factor = match unit {
            "h" => 3_600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        seconds += count.parse::<f64>().ok()? * factor;
        rest = tail;
    }
    Some(Duration::try_from_secs_f64(seconds).map_or(MAX_RETRY_AFTER, |wait| wait.min(MAX_RETRY_AFTER)))
}

/// The wait that a message asks for in words: "Please try again in 1.2s."
pub(super) fn spoken(message: &str) -> Option<Duration> {
    let rest = message.split("try again in ").nth(1)?;
    let end = rest.find(|letter: char| letter.is_whitespace() || letter == ',').unwrap_or(rest.len());
    go_duration(rest.get(..end)?.trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> Option<f64> {
        // 2026-11-22T10:00:00Z
        let now = Some("2026-11-22T10:00:00Z".parse().unwrap());
        Hints { retry_after: Some(text), now, ..Hints::default() }.wait().map(|wait| wait.as_secs_f64())
    }

    #[test]
    fn retry_after_is_read_in_all_its_forms() {
        let most = MAX_RETRY_AFTER.as_secs_f64();
        for (text, expected) in [
            ("7", Some(7.0)),
            (" 7 ", Some(7.0)),
            ("0", Some(0.0)),
            ("1.5", Some(1.5)),
            (".5", Some(0.5)),
            ("Sun, 22 Nov 2026 10:00:30 GMT", Some(30.0)),
            ("Sun, 22 Nov 2026 09:00:00 GMT", Some(0.0)),
            ("Mon, 22 Nov 2027 10:00:00 GMT", Some(most)),
            ("31536000", Some(most)),
            ("1e300", Some(most)),
            ("999999999999999999999999", Some(most)),
            ("-1", None),
            ("nan", None),
            ("inf", None),
            ("", None),
            ("soon", None),
        ] {
            assert_eq!(seconds(text), expected, "{text:?}");
        }
        let hints = Hints { retry_after: Some("9"), retry_after_ms: Some("250"), ..Hints::default() };
        assert_eq!(hints.wait(), Some(Duration::from_millis(250)));
        let hints = Hints { retry_after: Some("9"), retry_after_ms: Some("nonsense"), ..Hints::default() };
        assert_eq!(hints.wait(), Some(Duration::from_secs(9)));
        let hints = Hints { retry_after: Some("Sun, 22 Nov 2026 10:00:30 GMT"), ..Hints::default() };
        assert_eq!(hints.wait(), None, "a date without a clock");
    }

    #[test]
    fn go_durations_are_read() {
        for (text, millis) in [
            ("1s", Some(1_000)),
            ("6m0s", Some(360_000)),
            ("120ms", Some(120)),
            ("1h2m3s", Some(3_723_000)),
            ("1.5s", Some(1_500)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("9999999h", Some(86_400_000)),
            ("", None),
            ("s", None),
            ("1", None),
            ("-1s", None),
            ("1y", None),
            ("1..5s", None),
            ("ü", None),
        ] {
            assert_eq!(go_duration(text).map(|wait| wait.as_millis()), millis, "{text:?}");
        }
        assert_eq!(spoken("Limit 10. Please try again in 6m0s. Visit"), Some(Duration::from_mins(6)));
        assert_eq!(spoken("Please try again in 20ms."), Some(Duration::from_millis(20)));
        assert_eq!(spoken("Please try again later."), None);
    }
}
