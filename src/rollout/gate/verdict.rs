//! The three answers of a gate, in words.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::rollout::process::Side;

/// What a gate says.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Not worse than the margin allows; latched. Watching goes on, and a later fail wins.
    Pass,
    /// Worse than the margin allows; latched for good.
    Fail,
    /// Neither is proved yet.
    Undecided(Outlook),
}

/// When a verdict can be expected.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outlook {
    /// Too little was seen to say.
    TooEarly {
        /// What is counted.
        unit: Unit,
        /// How many there were.
        seen: u64,
    },
    /// If things go on as they are.
    About {
        /// What is counted.
        unit: Unit,
        /// How many more, rounded.
        more: u64,
        /// The verdict to come.
        leaning: Side,
    },
    /// The figures lie so close to the margin that no end is in sight.
    Open,
}

/// What a gate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Unit {
    /// Jobs of the candidate.
    Jobs,
    /// Jobs in the shadow.
    Pairs,
    /// Scores of the candidate's jobs.
    Scores,
}

/// No outlook goes beyond this.
const FAR: f64 = 1e9;

impl Outlook {
    /// An outlook of `more` observations, rounded up to two digits.
    pub(super) fn about(unit: Unit, more: f64, leaning: Side) -> Self {
        if !more.is_finite() || more > FAR {
            return Self::Open;
        }
        let more = more.ceil().max(1.0);
        let digit = 10.0_f64.powf((more.log10().floor() - 1.0).max(0.0));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and FAR")]
        let more = ((more / digit).ceil() * digit) as u64;
        Self::About { unit, more, leaning }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass => f.write_str("pass"),
            Self::Fail => f.write_str("fail"),
            Self::Undecided(outlook) => write!(f, "undecided: {outlook}"),
        }
    }
}

impl fmt::Display for Outlook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooEarly { unit, seen: 0 } => write!(f, "no {unit} yet"),
            Self::TooEarly { unit, seen } => write!(f, "too early to say, {seen} {unit} so far"),
            Self::About { unit, more: 1, leaning } => {
                write!(f, "about one more of its {unit} if it goes on like this, then {leaning}")
            }
            Self::About { unit, more, leaning } => {
                write!(f, "about {more} more {unit} if it goes on like this, then {leaning}")
            }
            Self::Open => f.write_str("so close to the margin that no end is in sight"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        for (more, text) in [
            (617.3, "undecided: about 620 more jobs if it goes on like this, then pass"),
            (0.0, "undecided: about one more of its jobs if it goes on like this, then pass"),
            (99.1, "undecided: about 100 more jobs if it goes on like this, then pass"),
            (12_345.0, "undecided: about 13000 more jobs if it goes on like this, then pass"),
            (f64::INFINITY, "undecided: so close to the margin that no end is in sight"),
            (f64::NAN, "undecided: so close to the margin that no end is in sight"),
        ] {
            assert_eq!(Verdict::Undecided(Outlook::about(Unit::Jobs, more, Side::Pass)).to_string(), text);
        }
        let early = Verdict::Undecided(Outlook::TooEarly { unit: Unit::Pairs, seen: 3 });
        assert_eq!(early.to_string(), "undecided: too early to say, 3 pairs so far");
    }
}
