//! How small enums and numbers are written into columns, in every store with columns. Codes that were ever released keep
//! their meaning.

use std::str::FromStr;

use crate::job::{Outcome, State};

/// A column holds what it may not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadColumn(pub String);

/// A state as the column holds it. Indexes and queries write these numbers out.
pub fn state_code(state: State) -> i64 {
    match state {
        State::Queued => 0,
        State::Waiting => 1,
        State::Held => 2,
        State::Running => 3,
        State::Succeeded => 4,
        State::Failed => 5,
        State::Cancelled => 6,
        State::Expired => 7,
    }
}

/// The state that a column holds.
pub fn state(code: i64) -> Result<State, BadColumn> {
    Ok(match code {
        0 => State::Queued,
        1 => State::Waiting,
        2 => State::Held,
        3 => State::Running,
        4 => State::Succeeded,
        5 => State::Failed,
        6 => State::Cancelled,
        7 => State::Expired,
        _ => return Err(BadColumn(format!("{code} is no state of a job"))),
    })
}

/// An outcome as the column holds it.
pub fn outcome_code(outcome: Outcome) -> i64 {
    match outcome {
        Outcome::Open => 0,
        Outcome::Succeeded => 1,
        Outcome::Failed => 2,
        Outcome::Unknown => 3,
        Outcome::Interrupted => 4,
    }
}

/// The outcome that a column holds.
pub fn outcome(code: i64) -> Result<Outcome, BadColumn> {
    Ok(match code {
        0 => Outcome::Open,
        1 => Outcome::Succeeded,
        2 => Outcome::Failed,
        3 => Outcome::Unknown,
        4 => Outcome::Interrupted,
        _ => return Err(BadColumn(format!("{code} is no outcome of an attempt"))),
    })
}

/// A name, reason or amount that a text column holds.
pub fn parse<T: FromStr>(text: &str) -> Result<T, BadColumn>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error| BadColumn(format!("{text:?} cannot be read: {error}")))
}

/// The same where the column may be empty.
pub fn parse_some<T: FromStr>(text: Option<String>) -> Result<Option<T>, BadColumn>
where
    T::Err: std::fmt::Display,
{
    text.as_deref().map(parse).transpose()
}

/// A count as SQLite holds it: 63 bits are plenty.
pub fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A count that a column holds.
pub fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;

    #[test]
    fn codes_come_back() {
        for each in State::iter() {
            assert_eq!(state(state_code(each)).unwrap(), each);
        }
        for each in [Outcome::Open, Outcome::Succeeded, Outcome::Failed, Outcome::Unknown, Outcome::Interrupted] {
            assert_eq!(outcome(outcome_code(each)).unwrap(), each);
        }
        assert!(state(8).is_err() && outcome(-1).is_err());
    }
}
