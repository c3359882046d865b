//! Text for people: tables, numbers, times.
//!
//! Invariant: nothing that a daemon or a provider said reaches the terminal as a control character.

use std::{fmt, io::Write};

use serde_json::Value;

use super::exit::Result;
use crate::clock::{Timestamp, format_span};

/// Where a command writes, and whether a person is looking.
pub struct Console<'a> {
    /// Results.
    pub out: &'a mut dyn Write,
    /// Notices and problems.
    pub err: &'a mut dyn Write,
    /// Whether `err` is a terminal: progress bars are drawn there.
    pub progress: bool,
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Human,
    /// For scripts: JSON.
    Json,
}

impl Console<'_> {
    /// Prints a value as JSON for people who read JSON.
    pub fn json(&mut self, value: &Value) -> Result<()> {
        Ok(writeln!(self.out, "{value:#}")?)
    }

    /// Prints values one a line.
    pub fn json_lines<'a>(&mut self, values: impl IntoIterator<Item = &'a Value>) -> Result<()> {
        for value in values {
            writeln!(self.out, "{value}")?;
        }
        Ok(())
    }
}

/// Rows under a header, columns aligned.
#[derive(Debug, Clone, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column titles.
    pub fn new(header: &[&str]) -> Self {
        Self { rows: vec![header.iter().map(|&title| title.to_owned()).collect()] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| printable(&cell)).collect());
    }

    /// Whether there is no row under the header.
    pub fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |column| self.rows.iter().filter_map(|row| row.get(column)).map(|cell: &String| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count()) + 2));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// The text on one line, control characters as spaces or escapes.
pub fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| match c {
            '\n' | '\t' | '\r' => vec![' '],
            c if c.is_control() => c.escape_unicode().collect(),
            c => vec![c],
        })
        .collect()
}

/// The text with its lines, other control characters as escapes.
pub fn printable_lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

/// A field of an answer as text; empty when it is absent or null.
pub fn field(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => items.iter().map(|item| field(item, "")).collect::<Vec<_>>().join(", "),
        Some(other) => other.to_string(),
    }
}

/// A count in an answer; zero when it is absent.
pub fn count(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

/// The items of a list in an answer.
pub fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A number with its thousands set apart: `210,431`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 job`, `210,431 jobs`.
pub fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// How long ago a time of an answer was, such as `2h13m`; the time itself when it cannot be read.
pub fn age(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(then) => {
            let seconds = now.since(then).as_secs();
            // The two largest units are enough to tell old from new.
            let coarse = match seconds {
                0..3_600 => seconds,
                3_600..86_400 => seconds - seconds % 60,
                _ => seconds - seconds % 3_600,
            };
            format_span(std::time::Duration::from_secs(coarse))
        }
        Err(_) => time.to_owned(),
    }
}

/// `12 queued, 3 running` from an object of counts, zeros left out.
pub fn counts_in_words(counts: &Value) -> String {
    let Some(counts) = counts.as_object() else { return String::new() };
    let words: Vec<String> = counts
        .iter()
        .filter_map(|(state, count)| Some((state, count.as_u64().filter(|count| *count > 0)?)))
        .map(|(state, count)| format!("{} {}", grouped(count), printable(state)))
        .collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_aligned_and_harmless() {
        let mut table = Table::new(&["ID", "STATE", "REASON"]);
        table.row(["job_1", "succeeded", ""].map(str::to_owned));
        table.row(["job_234", "held", "evil\u{1b}[2Jtext\nmore"].map(str::to_owned));
        table.row(["jöb", "held", "x"].map(str::to_owned));
        assert_eq!(
            table.to_string(),
            "ID       STATE      REASON\njob_1    succeeded\njob_234  held       evil\\u{1b}[2Jtext more\njöb      held       x\n"
        );
    }

    #[test]
    fn numbers_and_ages_read_well() {
        assert_eq!([0, 999, 1_000, 210_431].map(grouped), ["0", "999", "1,000", "210,431"]);
        assert_eq!([counted(1, "job"), counted(2_000, "job")], ["1 job", "2,000 jobs"]);
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        for (time, expected) in [
            ("2026-11-22T11:59:48Z", "12s"),
            ("2026-11-22T09:46:59Z", "2h13m"),
            ("2026-11-19T09:46:59Z", "3d2h"),
            ("2026-11-22T12:00:01Z", "0s"),
            ("yesterday", "yesterday"),
        ] {
            assert_eq!(age(time, now), expected, "{time}");
        }
        assert_eq!(counts_in_words(&json!({"queued": 12, "running": 0, "held": 3000})), "12 queued, 3,000 held");
    }
}
