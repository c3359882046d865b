//! Rules as operators write them: `SCOPE=VALUE`, such as `bedrock/us.anthropic.*=lognormal:median=800ms,p95=3s`.
//!
//! Invariant: a rule prints as it is read, so that the settings a server shows can be sent back to it.

use std::{fmt, str::FromStr};

use globset::{Glob, GlobMatcher};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::spec::Api;

/// Why a text is not a rule: what is wrong and what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidRule(pub String);

impl InvalidRule {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// Longest rule that is read.
const MAX_RULE_LENGTH: usize = 1_000;

/// Which calls a rule is about: `all`, `openai`, `bedrock`, `openai/MODEL-GLOB` or `bedrock/MODEL-GLOB`.
#[derive(Debug, Clone)]
pub struct Scope {
    text: String,
    api: Option<Api>,
    model: Option<GlobMatcher>,
}

impl Scope {
    /// Every call.
    pub fn all() -> Self {
        Self { text: "all".to_owned(), api: None, model: None }
    }

    /// Every call of one protocol.
    pub fn of(api: Api) -> Self {
        Self { text: api.to_string(), api: Some(api), model: None }
    }

    /// Whether a call of `api` to `model` is meant.
    pub fn covers(&self, api: Api, model: &str) -> bool {
        self.api.is_none_or(|wanted| wanted == api) && self.model.as_ref().is_none_or(|glob| glob.is_match(model))
    }
}

impl PartialEq for Scope {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl FromStr for Scope {
    type Err = InvalidRule;
    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        let (api, model) = match text.split_once('/') {
            Some((api, model)) => (api, Some(model)),
            None => (text, None),
        };
        let api = match api {
            "all" if model.is_none() => None,
            "openai" => Some(Api::OpenAi),
            "bedrock" => Some(Api::Bedrock),
            _ => {
                return Err(InvalidRule(format!(
                    "{text:?} does not say which calls: write all, openai, bedrock, openai/MODEL-GLOB or bedrock/MODEL-GLOB"
                )));
            }
        };
        let glob = |pattern: &str| {
            Glob::new(pattern)
                .map(|glob| glob.compile_matcher())
                .map_err(|error| InvalidRule(format!("{pattern:?} is not a glob: {error}")))
        };
        Ok(Self { text: text.to_owned(), api, model: model.map(glob).transpose()? })
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A value and the calls that it holds for.
#[derive(Debug, Clone, PartialEq)]
pub struct Scoped<T> {
    /// Which calls.
    pub scope: Scope,
    /// What holds for them.
    pub value: T,
}

impl<T> Scoped<T> {
    /// The value of the last rule that covers a call: later rules refine earlier ones.
    pub fn last_covering<'a>(rules: &'a [Self], api: Api, model: &str) -> Option<&'a T> {
        rules.iter().rev().find(|rule| rule.scope.covers(api, model)).map(|rule| &rule.value)
    }
}

impl<T: FromStr<Err = InvalidRule>> FromStr for Scoped<T> {
    type Err = InvalidRule;
    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        if text.len() > MAX_RULE_LENGTH {
            return Err(InvalidRule(format!("a rule has at most {MAX_RULE_LENGTH} bytes, this one {}", text.len())));
        }
        let (scope, value) = text.split_once('=').ok_or_else(|| {
            InvalidRule(format!("{text:?} is not a rule: write SCOPE=VALUE, with a scope such as all or bedrock/us.*"))
        })?;
        Ok(Self { scope: scope.parse()?, value: value.parse()? })
    }
}

impl<T: fmt::Display> fmt::Display for Scoped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.scope, self.value)
    }
}

impl<T: fmt::Display> Serialize for Scoped<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, T: FromStr<Err = InvalidRule>> Deserialize<'de> for Scoped<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// Reads a span of a rule, naming the key it belongs to.
pub(super) fn span(key: &str, text: &str) -> Result<std::time::Duration, InvalidRule> {
    crate::clock::parse_span(text).map_err(|error| InvalidRule(format!("`{key}`: {error}")))
}

/// Reads a whole number of a rule, naming the key it belongs to.
pub(super) fn whole(key: &str, text: &str) -> Result<u64, InvalidRule> {
    text.parse().map_err(|_| InvalidRule(format!("`{key}`: {text:?} is not a whole number")))
}
