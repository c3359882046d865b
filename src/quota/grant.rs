//! What is granted, to whom, and what a call takes of it.
//!
//! Invariant: values only. A demand is by the provider's own rule: who made it knows which rule that is.

use std::{fmt, time::Duration};

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    names::{ProviderName, Region},
};

/// What refills in this time is what providers' own buckets are known to hold.
pub const BURST: Duration = Duration::from_secs(1);

/// Where an inference profile may carry a call: each counts against an allowance of its own.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum ProfileClass {
    /// The region called, alone.
    InRegion,
    /// The regions of a geography.
    Geo,
    /// Anywhere.
    Global,
}

/// What a provider counts by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QuotaKey {
    /// The provider account.
    pub provider: ProviderName,
    /// The region called; the source region of a profile.
    pub region: Option<Region>,
    /// The reach of the profile.
    pub class: ProfileClass,
    /// The model without the profile around it.
    pub model: String,
}

impl QuotaKey {
    /// The key of calls to `model` as a target names it: an id, an inference profile or an ARN.
    pub fn of(provider: ProviderName, region: Option<Region>, model: &str) -> Self {
        let id = crate::catalog::id::bedrock_id(model);
        let class = match id.geography {
            None => ProfileClass::InRegion,
            Some("global") => ProfileClass::Global,
            Some(_) => ProfileClass::Geo,
        };
        Self { provider, region, class, model: id.base.to_owned() }
    }
}

impl fmt::Display for QuotaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.provider)?;
        if let Some(region) = &self.region {
            write!(f, "{region}/")?;
        }
        if self.class != ProfileClass::InRegion {
            write!(f, "{}/", self.class)?;
        }
        f.write_str(&self.model)
    }
}

/// What a provider grants, as far as anybody said so. What nobody said is learned.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Grant {
    /// Requests a minute.
    pub requests_per_minute: Option<u64>,
    /// Tokens a minute.
    pub tokens_per_minute: Option<u64>,
    /// Tokens a day (UTC).
    pub tokens_per_day: Option<u64>,
    /// Calls in flight at once.
    pub concurrency: Option<u32>,
    /// Ours of it, in (0, 1].
    pub share: Decimal,
    /// What refills in this time may be used at once.
    pub burst: Duration,
    /// The provider wants heavy traffic to grow slowly.
    pub ramp: bool,
}

impl Grant {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self {
        requests_per_minute: None,
        tokens_per_minute: None,
        tokens_per_day: None,
        concurrency: None,
        share: Decimal::ONE,
        burst: BURST,
        ramp: false,
    };

    /// Whether anybody said how many requests or tokens may go by the minute.
    pub fn names_a_rate(&self) -> bool {
        self.requests_per_minute.is_some() || self.tokens_per_minute.is_some()
    }
}

impl Default for Grant {
    fn default() -> Self {
        Self::UNKNOWN
    }
}

/// What a call takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Demand {
    /// Requests, usually 1.
    pub requests: u64,
    /// Tokens, by the provider's own rule.
    pub tokens: u64,
}

/// What keeps a call from going.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Limit {
    /// Requests a minute.
    RequestsPerMinute,
    /// Tokens a minute.
    TokensPerMinute,
    /// Tokens a day.
    TokensPerDay,
    /// Calls in flight at the provider.
    Concurrency,
    /// The provider asked to be left alone.
    RetryAfter,
    /// The provider says that the account has nothing left.
    Exhausted,
    /// Calls in flight of the pipeline.
    PipelineConcurrency,
    /// Calls in flight of the target.
    TargetConcurrency,
    /// The provider fails; one call at a time tries it.
    Breaker,
    /// The pipeline's budget is spent, or reserved by calls in flight.
    Budget,
    /// The key's budget is spent, or reserved by calls in flight.
    KeyBudget,
    /// Others of the same quota go first.
    Turn,
}

impl Limit {
    /// In words, for somebody who asks why a job waits.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::RequestsPerMinute => "the provider's requests per minute",
            Self::TokensPerMinute => "the provider's tokens per minute",
            Self::TokensPerDay => "the provider's tokens per day",
            Self::Concurrency => "the provider's calls at once",
            Self::RetryAfter => "the provider's wish to be left alone",
            Self::Exhausted => "the provider account's exhausted quota",
            Self::PipelineConcurrency => "the pipeline's `limits.concurrency`",
            Self::TargetConcurrency => "the target's `concurrency`",
            Self::Breaker => "the provider's recovery from failures",
            Self::Budget => "the pipeline's budget, reserved by calls in flight",
            Self::KeyBudget => "the budget of the key that handed it in",
            Self::Turn => "its turn among the jobs of the same quota",
        }
    }
}

/// A call may not go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocked {
    /// What keeps it.
    pub by: Limit,
    /// When to ask again; for limits that calls in flight set free, a guess.
    pub until: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_of_different_reach_count_apart() {
        let key = |model: &str, region: &str| {
            QuotaKey::of(ProviderName::new("bedrock").unwrap(), Some(region.parse().unwrap()), model).to_string()
        };
        for (model, expected) in [
            ("anthropic.claude-sonnet-5", "bedrock/us-east-1/anthropic.claude-sonnet-5"),
            ("us.anthropic.claude-sonnet-5", "bedrock/us-east-1/geo/anthropic.claude-sonnet-5"),
            ("global.anthropic.claude-sonnet-5", "bedrock/us-east-1/global/anthropic.claude-sonnet-5"),
        ] {
            assert_eq!(key(model, "us-east-1"), expected);
        }
        assert_eq!(
            key("jp.amazon.nova-2-lite-v1:0", "ap-northeast-1"),
            key("apac.amazon.nova-2-lite-v1:0", "ap-northeast-1")
        );
    }
}
