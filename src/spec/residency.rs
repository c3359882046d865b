//! Where the data of a Bedrock call may go: the region called, and the geography of the model's inference profile.
//!
//! Invariant: a set of regions is only ever too large, never too small. What is not known for sure is
//! [`Residency::Unknown`], which no confinement to regions permits.

use super::target::Residency;
use crate::names::Region;

/// The day as of which [`place_of`] knows the regions of geographies.
pub const REGIONS_AS_OF: &str = "2026-11-22";

/// Geographies of inference profiles, each with every region that a call may be carried to. What a single model's profile
/// reaches may be less.
const GEOGRAPHIES: [(&str, &[&str]); 7] = [
    ("us", &["us-east-1", "us-east-2", "us-west-1", "us-west-2"]),
    (
        "eu",
        &[
            "eu-central-1",
            "eu-central-2",
            "eu-north-1",
            "eu-south-1",
            "eu-south-2",
            "eu-west-1",
            "eu-west-2",
            "eu-west-3",
        ],
    ),
    (
        "apac",
        &[
            "ap-east-2",
            "ap-northeast-1",
            "ap-northeast-2",
            "ap-northeast-3",
            "ap-south-1",
            "ap-south-2",
            "ap-southeast-1",
            "ap-southeast-2",
            "ap-southeast-3",
            "ap-southeast-4",
            "ap-southeast-5",
            "ap-southeast-6",
            "ap-southeast-7",
        ],
    ),
    ("jp", &["ap-northeast-1", "ap-northeast-3"]),
    ("au", &["ap-southeast-2", "ap-southeast-4"]),
    ("ca", &["ca-central-1", "ca-west-1"]),
    ("us-gov", &["us-gov-east-1", "us-gov-west-1"]),
];

/// Makers whose name opens a plain model id.
const MAKERS: [&str; 22] = [
    "ai21",
    "amazon",
    "anthropic",
    "cohere",
    "deepseek",
    "google",
    "luma",
    "meta",
    "minimax",
    "mistral",
    "moonshot",
    "moonshotai",
    "nvidia",
    "openai",
    "qwen",
    "stability",
    "twelvelabs",
    "writer",
    "xai",
    "zai",
    "lg",
    "upstage",
];

/// What a model id says of where its calls go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The region that is called, alone.
    Region,
    /// The regions of a geography.
    Geography(&'static str, &'static [&'static str]),
    /// Anywhere, or it cannot be told.
    Anywhere,
}

/// The parts of a model id that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelPlace<'a> {
    /// Where calls go.
    pub reach: Reach,
    /// The region inside an ARN.
    pub arn_region: Option<&'a str>,
}

/// Reads a plain model id, an inference profile or an ARN.
pub fn place_of(model: &str) -> ModelPlace<'_> {
    let Some(arn) = model.strip_prefix("arn:") else {
        return ModelPlace { reach: reach_of_id(model), arn_region: None };
    };
    // arn:PARTITION:bedrock:REGION:ACCOUNT:KIND/ID
    let mut parts = arn.splitn(5, ':');
    let region = parts.nth(2).filter(|region| !region.is_empty());
    let resource = parts.nth(1).unwrap_or_default();
    let reach = match resource.split_once('/') {
        Some(("foundation-model", _)) if region.is_some() => Reach::Region,
        Some(("inference-profile", id)) => reach_of_id(id),
        Some(("provisioned-model" | "imported-model" | "custom-model" | "custom-model-deployment", _))
            if region.is_some() =>
        {
            Reach::Region
        }
        // An application profile or a prompt router may stand for any geography.
        _ => Reach::Anywhere,
    };
    ModelPlace { reach, arn_region: region }
}

fn reach_of_id(id: &str) -> Reach {
    let Some((first, rest)) = id.split_once('.') else { return Reach::Region };
    if let Some((name, regions)) = GEOGRAPHIES.iter().find(|(name, _)| *name == first) {
        return Reach::Geography(name, regions);
    }
    if MAKERS.contains(&first) || !rest.contains('.') && first != "global" {
        return Reach::Region;
    }
    Reach::Anywhere
}

/// Where the data of calls to `model` in `region` may go.
pub(super) fn of_bedrock(model: &str, region: Option<&Region>) -> Residency {
    let Some(region) = region else { return Residency::Unknown };
    match place_of(model).reach {
        Reach::Region => Residency::Within(vec![region.clone()]),
        Reach::Geography(_, regions) => {
            let mut within = vec![region.clone()];
            within.extend(regions.iter().filter(|name| **name != region.as_str()).filter_map(|name| name.parse().ok()));
            Residency::Within(within)
        }
        Reach::Anywhere => Residency::Unknown,
    }
}

/// Whether a profile of `geography` can be called from `region` at all, as far as is known.
pub(super) fn callable_from(geography: &str, regions: &[&str], region: &Region) -> bool {
    regions.contains(&region.as_str()) || geography == "us" && region.as_str().starts_with("ca-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn residency(model: &str, region: &str) -> Option<String> {
        match of_bedrock(model, Some(&region.parse().unwrap())) {
            Residency::Unknown => None,
            Residency::Within(regions) => Some(regions.iter().map(Region::as_str).collect::<Vec<_>>().join(" ")),
        }
    }

    #[test]
    fn a_call_goes_no_further_than_its_profile() {
        let us = "us-east-1 us-east-2 us-west-1 us-west-2";
        let jp = "ap-northeast-1 ap-northeast-3";
        for (model, region, expected) in [
            ("anthropic.claude-sonnet-4-6", "eu-west-1", Some("eu-west-1")),
            ("deepseek.v3.2", "us-west-2", Some("us-west-2")),
            ("us.anthropic.claude-haiku-4-5-20251001-v1:0", "us-east-1", Some(us)),
            ("us.anthropic.claude-haiku-4-5-20251001-v1:0", "ca-central-1", Some(&format!("ca-central-1 {us}"))),
            ("jp.anthropic.claude-sonnet-4-6", "ap-northeast-1", Some(jp)),
            ("global.anthropic.claude-sonnet-4-6", "eu-west-1", None),
            ("xy.anthropic.claude-sonnet-4-6", "eu-west-1", None),
            ("arn:aws:bedrock:eu-west-1::foundation-model/anthropic.claude-sonnet-4-6", "eu-west-1", Some("eu-west-1")),
            (
                "arn:aws:bedrock:ap-northeast-1:123456789012:inference-profile/jp.amazon.nova-2-lite-v1:0",
                "ap-northeast-1",
                Some(jp),
            ),
            (
                "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/global.amazon.nova-2-lite-v1:0",
                "eu-west-1",
                None,
            ),
            ("arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/a1b2c3", "eu-west-1", None),
            ("arn:aws:bedrock:eu-west-1:123456789012:provisioned-model/a1b2c3", "eu-west-1", Some("eu-west-1")),
            ("arn:", "eu-west-1", None),
        ] {
            assert_eq!(residency(model, region).as_deref(), expected, "{model}");
        }
        assert_eq!(of_bedrock("anthropic.claude-sonnet-4-6", None), Residency::Unknown);
    }

    #[test]
    fn every_listed_region_is_a_name() {
        for (_, regions) in GEOGRAPHIES {
            assert!(regions.iter().all(|region| region.parse::<Region>().is_ok()));
        }
    }
}
