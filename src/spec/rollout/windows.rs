//! When a rollout may advance by itself: `Mon-Thu 09:00-16:00`, in a time zone.
//!
//! Invariant: windows stop advances, never rollbacks. Times are civil: a window opens at nine on the clock of the wall, also on
//! the day the clocks change. Zones are those built into the program: the same on every machine, and no file is read.

use std::{fmt, str::FromStr};

use jiff::{
    ToSpan as _, Zoned, civil,
    tz::{TimeZone, TimeZoneDatabase},
};
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// Most ranges.
const MOST_RANGES: usize = 64;

/// Minutes of a day.
const DAY: u16 = 24 * 60;

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// Why a text is not a window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWindow {
    /// A range that cannot be read.
    #[error(
        "{0:?} is not a window: write days and times, such as \"Mon-Thu 09:00-16:00\", \"Sat,Sun\" or \"22:00-02:00\""
    )]
    Range(String),
    /// A time zone that nobody knows.
    #[error("{0:?} is not a time zone: write a name of the IANA database, such as Europe/London or UTC")]
    Zone(String),
    /// No range, or too many.
    #[error("{0} windows: write 1 to {MOST_RANGES}; without any, leave `windows` out")]
    Number(usize),
}

/// Days and times of a week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    /// Monday first.
    days: [bool; 7],
    /// Minutes from midnight.
    from: u16,
    /// Minutes from midnight; at or before `from` it is the next day's.
    to: u16,
}

/// Windows in a time zone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Windows {
    zone: TimeZone,
    ranges: Vec<Range>,
    written: Written,
}

/// Windows as they are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The time zone's name.
    pub tz: String,
    /// The ranges.
    pub advance: Vec<String>,
}

impl TryFrom<Written> for Windows {
    type Error = InvalidWindow;

    fn try_from(written: Written) -> Result<Self, InvalidWindow> {
        if written.advance.is_empty() || written.advance.len() > MOST_RANGES {
            return Err(InvalidWindow::Number(written.advance.len()));
        }
        let zone = TimeZoneDatabase::bundled().get(&written.tz);
        let zone = zone.map_err(|_| InvalidWindow::Zone(written.tz.chars().take(80).collect()))?;
        let ranges = written.advance.iter().map(|range| range.parse()).collect::<Result<_, _>>()?;
        Ok(Self { zone, ranges, written })
    }
}

impl From<Windows> for Written {
    fn from(windows: Windows) -> Self {
        windows.written
    }
}

impl FromStr for Range {
    type Err = InvalidWindow;

    fn from_str(text: &str) -> Result<Self, InvalidWindow> {
        let invalid = || InvalidWindow::Range(text.chars().take(80).collect());
        let mut words: Vec<&str> = text.split_whitespace().collect();
        let times = match words.last() {
            Some(word) if word.contains(':') => words.pop(),
            _ => None,
        };
        let (from, to) = match times {
            Some(times) => {
                let (from, to) = times.split_once('-').ok_or_else(invalid)?;
                (minutes(from).filter(|from| *from < DAY).ok_or_else(invalid)?, minutes(to).ok_or_else(invalid)?)
            }
            None => (0, DAY),
        };
        let days = match words[..] {
            [] if times.is_some() => [true; 7],
            [days] => weekdays(days).ok_or_else(invalid)?,
            _ => return Err(invalid()),
        };
        if from == to { Err(invalid()) } else { Ok(Self { days, from, to }) }
    }
}

/// `Mon`, `Mon-Thu`, `Sat-Mon`, `Mon,Wed-Fri`.
fn weekdays(text: &str) -> Option<[bool; 7]> {
    let day = |text: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(text));
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        for offset in 0..=(last + 7 - first) % 7 {
            *days.get_mut((first + offset) % 7)? = true;
        }
    }
    Some(days)
}

/// `09:00`; `24:00` is the end of a day.
fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number =
        |text: &str| (text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse::<u16>().ok());
    let (hours, minutes) = (number(hours)??, number(minutes)??);
    let total = hours * 60 + minutes;
    (minutes < 60 && total <= DAY).then_some(total)
}

impl Range {
    /// Whether a time of a day lies in it; `day` counts from Monday.
    fn contains(&self, day: usize, minute: u16) -> bool {
        let on = |day: usize| self.days.get(day % 7).copied().unwrap_or(false);
        if self.from < self.to {
            on(day) && (self.from..self.to).contains(&minute)
        } else {
            (on(day) && minute >= self.from) || (on(day + 6) && minute < self.to)
        }
    }
}

impl Windows {
    /// Whether the rollout may advance at `now`.
    pub fn are_open(&self, now: Timestamp) -> bool {
        self.local(now).is_some_and(|local| {
            let (day, minute) = place(local.datetime());
            self.ranges.iter().any(|range| range.contains(day, minute))
        })
    }

    /// When a window opens next; `None` if one is open, or at the end of time.
    pub fn open_at(&self, now: Timestamp) -> Option<Timestamp> {
        if self.are_open(now) {
            return None;
        }
        let local = self.local(now)?;
        let mut opens: Option<Timestamp> = None;
        // A week and a day, for a window on this very day whose time has passed.
        for offset in 0..=7_i64 {
            let date = local.date().checked_add(offset.days()).ok()?;
            let day = usize::from(date.weekday().to_monday_zero_offset().unsigned_abs());
            for range in &self.ranges {
                if !range.days.get(day).copied().unwrap_or(false) {
                    continue;
                }
                let time = civil::time((range.from / 60).try_into().ok()?, (range.from % 60).try_into().ok()?, 0, 0);
                let at = date.to_datetime(time).to_zoned(self.zone.clone()).ok()?;
                let at = Timestamp::from_micros(at.timestamp().as_microsecond());
                if at > now && opens.is_none_or(|opens| at < opens) {
                    opens = Some(at);
                }
            }
        }
        opens
    }

    fn local(&self, now: Timestamp) -> Option<Zoned> {
        jiff::Timestamp::from_microsecond(now.as_micros()).ok().map(|now| now.to_zoned(self.zone.clone()))
    }
}

fn place(local: civil::DateTime) -> (usize, u16) {
    let day = usize::from(local.weekday().to_monday_zero_offset().unsigned_abs());
    (day, u16::from(local.hour().unsigned_abs()) * 60 + u16::from(local.minute().unsigned_abs()))
}

impl fmt::Display for Windows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.written.advance.join(", "), self.written.tz)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(tz: &str, ranges: &[&str]) -> Result<Windows, InvalidWindow> {
        Written { tz: tz.to_owned(), advance: ranges.iter().map(|&range| range.to_owned()).collect() }.try_into()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn open_and_closed() {
        // 2026-11-23 is a Monday.
        for (tz, range, now, open, opens) in [
            ("UTC", "Mon-Thu 09:00-16:00", "2026-11-23T09:00:00Z", true, None),
            ("UTC", "Mon-Thu 09:00-16:00", "2026-11-23T08:59:59Z", false, Some("2026-11-23T09:00:00Z")),
            ("UTC", "Mon-Thu 09:00-16:00", "2026-11-23T16:00:00Z", false, Some("2026-11-24T09:00:00Z")),
            ("UTC", "Mon-Thu 09:00-16:00", "2026-11-26T16:00:00Z", false, Some("2026-11-30T09:00:00Z")),
            ("UTC", "Mon", "2026-11-24T00:00:00Z", false, Some("2026-11-30T00:00:00Z")),
            ("UTC", "Mon 09:00-10:00", "2026-11-23T10:30:00Z", false, Some("2026-11-30T09:00:00Z")),
            ("UTC", "22:00-02:00", "2026-11-23T01:59:00Z", true, None),
            ("UTC", "Sat 22:00-02:00", "2026-11-29T01:00:00Z", true, None),
            ("UTC", "Sat 22:00-02:00", "2026-11-28T01:00:00Z", false, Some("2026-11-28T22:00:00Z")),
            ("UTC", "Sun,tue-wed 23:00-24:00", "2026-11-25T23:59:59Z", true, None),
            ("UTC", "Fri-Mon 10:00-11:00", "2026-11-22T10:30:00Z", true, None),
            // Summer time: nine in London is eight in UTC, and the clocks go back on 2026-10-25.
            ("Europe/London", "09:00-16:00", "2026-07-01T08:30:00Z", true, None),
            ("Europe/London", "09:00-16:00", "2026-10-24T15:00:00Z", false, Some("2026-10-25T09:00:00Z")),
            // An hour that does not exist: the window opens when the clocks have moved.
            ("Europe/London", "01:30-05:00", "2026-03-29T00:59:00Z", false, Some("2026-03-29T01:30:00Z")),
        ] {
            let windows = windows(tz, &[range]).unwrap();
            assert_eq!(windows.are_open(at(now)), open, "{range} at {now}");
            assert_eq!(windows.open_at(at(now)), opens.map(at), "{range} at {now}");
        }
    }

    #[test]
    fn bad_windows_are_refused() {
        for range in [
            "",
            "Mon-",
            "Mon 9:00-16:00",
            "Mon 09:00",
            "Mon 09:00-09:00",
            "Xyz",
            "Mon Tue",
            "24:00-25:00",
            "Mon 09:60-10:00",
        ] {
            assert!(matches!(windows("UTC", &[range]), Err(InvalidWindow::Range(_))), "{range:?}");
        }
        assert!(matches!(windows("Europe/Atlantis", &["Mon"]), Err(InvalidWindow::Zone(_))));
        assert!(matches!(windows("UTC", &[]), Err(InvalidWindow::Number(0))));
    }

    #[test]
    fn written_as_read() {
        let windows = windows("Europe/London", &["Mon-Thu 09:00-16:00", "Sat"]).unwrap();
        assert_eq!(windows.to_string(), "Mon-Thu 09:00-16:00, Sat (Europe/London)");
        let text = serde_json::to_string(&windows).unwrap();
        assert_eq!(serde_json::from_str::<Windows>(&text).unwrap(), windows);
        assert!(serde_json::from_str::<Windows>(&text.replace("Sat", "Caturday")).is_err());
    }
}
