//! OpenAI's degrees of reasoning, and the nearest that a model takes.
//!
//! Invariant: nearest means nearest: a request for thought never becomes none, and none becomes the least there is.

use serde_json::Value;

use super::{Refusal, parameters::short};

/// A degree of reasoning, weakest first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::EnumString, strum::IntoStaticStr, strum::Display,
)]
#[strum(serialize_all = "lowercase")]
pub(super) enum Effort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    XHigh,
    Max,
}

/// Reads a `reasoning_effort`.
pub(super) fn read(value: &Value) -> Result<Effort, Refusal> {
    value.as_str().and_then(|word| word.parse().ok()).ok_or_else(|| {
        let message =
            format!("reasoning_effort: must be none, minimal, low, medium, high, xhigh or max, not {}", short(value));
        Refusal::of("reasoning_effort", message)
    })
}

impl Effort {
    /// The nearest of those that a model takes, the weaker of two; itself where nobody knows.
    pub(super) fn nearest(self, taken: &[String]) -> Self {
        let taken = || taken.iter().filter_map(|word| word.parse::<Self>().ok());
        if taken().any(|effort| effort == self) {
            return self;
        }
        taken()
            .filter(|effort| *effort != Self::None)
            .min_by_key(|effort| ((*effort as i8 - self as i8).abs(), *effort))
            .unwrap_or(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_is_found() {
        let taken = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        for (wanted, words, sent) in [
            ("xhigh", &["low", "medium", "high", "max"][..], "high"),
            ("max", &["low", "medium", "high"], "high"),
            ("minimal", &["none", "low", "medium"], "low"),
            ("none", &["low", "high"], "low"),
            ("none", &["none", "low"], "none"),
            ("medium", &[], "medium"),
            ("low", &["odd"], "low"),
        ] {
            let wanted: Effort = wanted.parse().unwrap();
            assert_eq!(wanted.nearest(&taken(words)).to_string(), sent, "{wanted} of {words:?}");
        }
        assert!(read(&Value::from("much")).is_err() && read(&Value::from(3)).is_err());
    }
}
