//! From what a provider said about a failure to our fault, with a hint when to come back and advice for the operator.
//!
//! Invariant: pure functions over status, a few headers and the body; any bytes give an answer. Each provider's table
//! of known failures is data, read from the top, and lives in one place.

pub mod bedrock;
mod hints;
pub mod openai;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use hints::{Hints, MAX_RETRY_AFTER, go_duration};

use crate::job::Fault;

/// The code of a failure by a limit of tokens a day.
pub const DAILY_TOKENS: &str = "daily_tokens";
/// The code of a failure by a limit of requests a day.
pub const DAILY_REQUESTS: &str = "daily_requests";
/// How long a target rests whose day is used up, where nobody says when the day ends.
pub const DAILY_REST: Duration = Duration::from_hours(1);
/// The code of a request that is larger than a whole minute's tokens: it can never pass there.
pub const LARGER_THAN_LIMIT: &str = "larger_than_limit";

/// An allowance that does not come back within minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exhausted {
    /// The day's: it comes back by itself.
    Day,
    /// The money: an operator must add some.
    Credit,
}

impl Exhausted {
    /// What a failure's code says is used up, if anything.
    pub fn by_code(code: &str) -> Option<Self> {
        match code {
            DAILY_TOKENS | DAILY_REQUESTS => Some(Self::Day),
            code if openai::CREDIT.contains(&code) => Some(Self::Credit),
            _ => None,
        }
    }
}

/// Longest message of a provider that is kept, in characters: enough for every known one, short enough for a row.
pub const MAX_MESSAGE: usize = 2_000;

/// What a failure means.
#[derive(Debug, Clone, PartialEq)]
pub struct Classified {
    /// What kind.
    pub fault: Fault,
    /// The provider's words, or ours when it said nothing.
    pub message: String,
    /// The provider's code.
    pub code: Option<String>,
    /// The HTTP status, when there was one.
    pub status: Option<u16>,
    /// The OpenAI parameter that the provider blames.
    pub param: Option<String>,
    /// When to come back.
    pub retry_after: Option<Duration>,
    /// What the operator should do, when it is theirs to act.
    pub advice: Option<String>,
    /// It may have been billed.
    pub possibly_billed: bool,
}

impl Classified {
    /// A failure before anything that could be billed.
    pub fn unbilled(fault: Fault, message: impl Into<String>) -> Self {
        Self {
            fault,
            message: excerpt(&message.into(), MAX_MESSAGE),
            code: None,
            status: None,
            param: None,
            retry_after: None,
            advice: None,
            possibly_billed: false,
        }
    }

    /// A failure that may have been billed.
    pub fn billed(fault: Fault, message: impl Into<String>) -> Self {
        Self { possibly_billed: true, ..Self::unbilled(fault, message) }
    }

    /// With the provider's code.
    pub fn with_code(self, code: impl Into<String>) -> Self {
        Self { code: Some(code.into()), ..self }
    }

    /// With the HTTP status.
    pub fn with_status(self, status: u16) -> Self {
        Self { status: Some(status), ..self }
    }

    /// With advice for the operator.
    pub fn with_advice(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

/// A row of a provider's table. The first row that fits decides; what a row does not ask for, it does not look at.
struct Row {
    statuses: &'static [u16],
    /// Any of these codes or types, lower case.
    codes: &'static [&'static str],
    /// All of these in the message; lower case, straight apostrophes.
    says: &'static [&'static str],
    fault: Fault,
    billed: bool,
    retry_after: Option<Duration>,
    advice: &'static str,
    /// The code that callers know this by, whatever the provider's own.
    name: &'static str,
}

impl Row {
    const fn new(fault: Fault) -> Self {
        Self { statuses: &[], codes: &[], says: &[], fault, billed: false, retry_after: None, advice: "", name: "" }
    }

    const fn status(self, statuses: &'static [u16]) -> Self {
        Self { statuses, ..self }
    }

    const fn code(self, codes: &'static [&'static str]) -> Self {
        Self { codes, ..self }
    }

    const fn says(self, says: &'static [&'static str]) -> Self {
        Self { says, ..self }
    }

    const fn billed(self) -> Self {
        Self { billed: true, ..self }
    }

    const fn after(self, seconds: u64) -> Self {
        Self { retry_after: Some(Duration::from_secs(seconds)), ..self }
    }

    const fn advice(self, advice: &'static str) -> Self {
        Self { advice, ..self }
    }

    const fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    fn fits(&self, status: u16, codes: &[&str], message: &str) -> bool {
        (self.statuses.is_empty() || self.statuses.contains(&status))
            && (self.codes.is_empty()
                || codes.iter().any(|code| self.codes.iter().any(|known| known.eq_ignore_ascii_case(code))))
            && self.says.iter().all(|words| message.contains(words))
    }

    /// The code of a failure that this row decides.
    fn code_or(&self, given: Option<String>) -> Option<String> {
        if self.name.is_empty() { given } else { Some(self.name.to_owned()) }
    }

    fn advice_text(&self) -> Option<String> {
        (!self.advice.is_empty()).then(|| self.advice.to_owned())
    }
}

/// The longest output that a model writes, where a failure's message says that a longer one was asked for: the same
/// request may pass with this bound.
pub fn output_limit(message: &str) -> Option<u64> {
    bedrock::output_limit(&normal(message))
}

/// The number after a word of a message in table form, such as `limit 30,000`.
fn number_after(message: &str, word: &str) -> Option<u64> {
    message.match_indices(word).find_map(|(place, _)| {
        let rest = message.get(place + word.len()..)?;
        let digits: String = rest
            .chars()
            .take(24)
            .take_while(|letter| letter.is_ascii_digit() || *letter == ',')
            .filter(char::is_ascii_digit)
            .collect();
        digits.parse().ok()
    })
}

/// The message as tables look at it: lower case, with straight apostrophes and no quoting marks.
fn normal(message: &str) -> String {
    message.chars().filter(|letter| *letter != '`').flat_map(char::to_lowercase).map(straight).collect()
}

fn straight(letter: char) -> char {
    if matches!(letter, '\u{2019}' | '\u{2018}') { '\'' } else { letter }
}

/// The beginning of a text, cut between characters.
pub(super) fn excerpt(text: &str, most: usize) -> String {
    let text = text.trim();
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

/// What to say of a body that is not the provider's JSON: a page's title, or its beginning.
fn foreign_body(status: u16, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body.get(..4_096).unwrap_or(body));
    let shown = match (text.find("<title>"), text.find("</title>")) {
        (Some(start), Some(end)) => text.get(start + "<title>".len()..end).unwrap_or_default(),
        _ => text.as_ref(),
    };
    let shown = excerpt(shown, 200);
    if shown.is_empty() {
        format!("HTTP {status} without a body")
    } else {
        format!("HTTP {status}, not in the provider's own form: {shown}")
    }
}
