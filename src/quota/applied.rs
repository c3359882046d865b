//! What AWS says that it grants: the quotas of the service `bedrock`, by the names that people read.
//!
//! Invariant: a name says the reach (on-demand, cross-region, global), the limit and the model; one that says anything else
//! (batches, latency-optimized or mantle endpoints, training) is not ours. Models are matched by letters and digits alone,
//! because names write `Claude 3.5 Sonnet V2` for `claude-3-5-sonnet-20241022-v2:0`. Nothing is guessed: a model without a
//! quota of its name counts as unknown.

use std::fmt;

use super::ProfileClass;
use crate::catalog::id::bedrock_id;

/// One quota of an account in a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// As AWS calls it.
    pub name: String,
    /// The reach of profiles that it is for; for all, where it does not say.
    class: Option<ProfileClass>,
    kind: Kind,
    /// The model's name, in letters and digits.
    subject: String,
    value: u64,
    /// Calls by profiles have twice as much.
    doubled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    RequestsPerMinute,
    TokensPerMinute,
    TokensPerDay,
}

/// What an account is granted for one model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grants {
    /// Requests a minute.
    pub requests_per_minute: Option<u64>,
    /// Tokens a minute.
    pub tokens_per_minute: Option<u64>,
    /// Tokens a day.
    pub tokens_per_day: Option<u64>,
    /// Quotas of nothing: AWS refuses every call until it grants something.
    pub nothing: Vec<String>,
}

impl Grants {
    /// Whether no limit is known.
    pub fn is_empty(&self) -> bool {
        self.requests_per_minute.is_none() && self.tokens_per_minute.is_none() && self.tokens_per_day.is_none()
    }
}

impl Applied {
    /// Reads a quota; `None` for one that limits nothing that is called here, and for a value that is no amount.
    pub fn read(name: &str, value: f64) -> Option<Self> {
        let lower = name.to_lowercase();
        if ["latency-optimized", "mantle", "batch", "custom", "provisioned"].iter().any(|word| lower.contains(word)) {
            return None;
        }
        let (head, tail) = lower.split_once(" for ")?;
        let kind = if head.ends_with("requests per minute") {
            Kind::RequestsPerMinute
        } else if head.ends_with("tokens per minute") {
            Kind::TokensPerMinute
        } else if head.ends_with("tokens per day") {
            Kind::TokensPerDay
        } else {
            return None;
        };
        let class = if head.starts_with("global cross-region") {
            Some(ProfileClass::Global)
        } else if head.starts_with("cross-region") {
            Some(ProfileClass::Geo)
        } else if head.starts_with("on-demand") {
            Some(ProfileClass::InRegion)
        } else if head.starts_with("model invocation") {
            None
        } else {
            return None;
        };
        let (subject, remark) = tail.split_once('(').unwrap_or((tail, ""));
        let value = amount(value)?;
        Some(Self {
            name: name.to_owned(),
            class,
            kind,
            subject: letters(subject),
            value,
            doubled: remark.contains("doubled for cross-region"),
        })
    }

    /// What of `all` is for calls to `model`, as a target names it.
    pub fn grants(all: &[Self], model: &str) -> Grants {
        let id = bedrock_id(model);
        let class = match id.geography {
            None => ProfileClass::InRegion,
            Some("global") => ProfileClass::Global,
            Some(_) => ProfileClass::Geo,
        };
        let (vendor, name) = names(id.base);
        let mut grants = Grants::default();
        let ours = all.iter().filter(|quota| {
            quota.class.is_none_or(|of| of == class)
                && quota.subject.strip_suffix(&name).is_some_and(|front| front.is_empty() || front.starts_with(&vendor))
        });
        for quota in ours {
            let twice = quota.doubled && class != ProfileClass::InRegion;
            let value = if twice { quota.value.saturating_mul(2) } else { quota.value };
            let place = match quota.kind {
                Kind::RequestsPerMinute => &mut grants.requests_per_minute,
                Kind::TokensPerMinute => &mut grants.tokens_per_minute,
                Kind::TokensPerDay => &mut grants.tokens_per_day,
            };
            if value == 0 {
                grants.nothing.push(quota.name.clone());
            } else {
                // Two names of one limit: the smaller one is safe.
                *place = Some(place.map_or(value, |known| known.min(value)));
            }
        }
        grants
    }
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.value)
    }
}

/// A whole amount that a quota may be.
fn amount(value: f64) -> Option<u64> {
    use rust_decimal::prelude::ToPrimitive;
    (value.is_finite() && (0.0..=1e15).contains(&value)).then(|| value.to_u64()).flatten()
}

/// Vendor and model of an id, as quotas' names write them: without the day, and without a first version.
fn names(base: &str) -> (String, String) {
    let (vendor, model) = base.split_once('.').unwrap_or(("", base));
    let (model, version) = model.rsplit_once(':').map_or((model, None), |(front, _)| {
        let (front, version) = front.rsplit_once('-').unwrap_or((front, ""));
        (front, Some(version.trim_start_matches('v').to_owned()))
    });
    let is_day = |part: &str| part.len() == 8 && part.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<&str> = model.split('-').filter(|part| !is_day(part)).collect();
    let mut name = letters(&parts.join("-"));
    if let Some(version) = version.filter(|version| version != "1" && !version.is_empty()) {
        name.push('v');
        name.push_str(&letters(&version));
    }
    (letters(vendor), name)
}

fn letters(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Applied> {
        [
            ("On-demand model inference tokens per minute for Anthropic Claude Sonnet 5", 3e6),
            ("Cross-region model inference tokens per minute for Anthropic Claude Sonnet 5", 6e6),
            ("Global cross-region model inference tokens per minute for Anthropic Claude Sonnet 5", 7e6),
            ("On-demand model inference requests per minute for Anthropic Claude Sonnet 5", 5_000.0),
            ("Cross-region model inference tokens per minute for Anthropic Claude Haiku 4.5", 5e6),
            ("Cross-region model inference requests per minute for Anthropic Claude Haiku 4.5", 10_000.0),
            (
                "Model invocation max tokens per day for Anthropic Claude Haiku 4.5 (doubled for cross-region calls)",
                1e9,
            ),
            ("On-demand InvokeModel tokens per minute for Anthropic Claude 3.5 Sonnet V2", 4e5),
            ("On-demand InvokeModel tokens per minute for Anthropic Claude 3.5 Sonnet", 3e5),
            ("On-demand, latency-optimized InvokeModel tokens per minute for Meta Llama 3.1 8B Instruct", 1.0),
            ("On-demand InvokeModel tokens per minute for Meta Llama 3.1 8B Instruct", 3e5),
            ("On-demand InvokeModel tokens per minute for Mistral AI Mistral Large 2", 2e5),
            ("On-demand InvokeModel tokens per minute for Amazon Nova Lite", 0.0),
            ("Cross-region InvokeModel tokens per minute for Amazon Nova Lite", f64::NAN),
            ("Batch inference job size (in GB) for Claude Haiku 4.5", 5.0),
            ("Agents per account", 50.0),
        ]
        .into_iter()
        .filter_map(|(name, value)| Applied::read(name, value))
        .collect()
    }

    #[test]
    fn models_find_their_quotas_by_reach_and_name() {
        let all = all();
        assert_eq!(all.len(), 12, "{all:?}");
        for (model, requests, tokens, day) in [
            ("anthropic.claude-sonnet-5", Some(5_000), Some(3_000_000), None),
            ("us.anthropic.claude-sonnet-5", None, Some(6_000_000), None),
            ("global.anthropic.claude-sonnet-5", None, Some(7_000_000), None),
            ("us.anthropic.claude-haiku-4-5-20251001-v1:0", Some(10_000), Some(5_000_000), Some(2_000_000_000)),
            ("anthropic.claude-haiku-4-5-20251001-v1:0", None, None, Some(1_000_000_000)),
            ("anthropic.claude-3-5-sonnet-20240620-v1:0", None, Some(300_000), None),
            ("anthropic.claude-3-5-sonnet-20241022-v2:0", None, Some(400_000), None),
            ("meta.llama3-1-8b-instruct-v1:0", None, Some(300_000), None),
            ("amazon.nova-pro-v1:0", None, None, None),
            (
                "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-sonnet-5",
                None,
                Some(6_000_000),
                None,
            ),
            ("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc", None, None, None),
        ] {
            let grants = Applied::grants(&all, model);
            assert_eq!(
                (grants.requests_per_minute, grants.tokens_per_minute, grants.tokens_per_day),
                (requests, tokens, day),
                "{model}"
            );
            assert!(grants.nothing.is_empty());
        }
        let nothing = Applied::grants(&all, "amazon.nova-lite-v1:0");
        assert!(nothing.is_empty() && nothing.nothing.len() == 1, "{nothing:?}");
    }

    #[test]
    fn values_that_are_no_amount_are_no_quota() {
        let name = "On-demand model inference tokens per minute for Anthropic Claude Sonnet 5";
        for value in [f64::NAN, f64::INFINITY, -1.0, 1e16] {
            assert_eq!(Applied::read(name, value), None, "{value}");
        }
        assert!(Applied::read(name, 0.0).is_some());
    }
}
