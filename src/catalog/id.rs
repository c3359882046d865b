//! The many ways to name one model: plain ids, inference profiles, ARNs, dated snapshots.

/// Geographies that open an inference profile's id.
const GEOGRAPHIES: [&str; 9] = ["us", "eu", "apac", "jp", "au", "ca", "sa", "us-gov", "global"];

/// A Bedrock model id, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BedrockId<'a> {
    /// The model without anything around it; a profile or model of the account's own stays as opaque as it is.
    pub base: &'a str,
    /// The geography of the inference profile, where there is one.
    pub geography: Option<&'a str>,
}

/// Takes a Bedrock id apart: `us.anthropic.…`, an ARN around it, or the plain id.
pub fn bedrock_id(model: &str) -> BedrockId<'_> {
    let id = match model.strip_prefix("arn:") {
        // arn:PARTITION:bedrock:REGION:ACCOUNT:KIND/ID
        Some(arn) => match arn.splitn(5, ':').nth(4).and_then(|resource| resource.split_once('/')) {
            Some(("foundation-model" | "inference-profile", id)) => id,
            _ => return BedrockId { base: model, geography: None },
        },
        None => model,
    };
    match id.split_once('.') {
        Some((geography, base)) if GEOGRAPHIES.contains(&geography) => BedrockId { base, geography: Some(geography) },
        _ => BedrockId { base: id, geography: None },
    }
}

/// A Bedrock id without the window that may stand behind its version: `…-v1:0:200k`.
pub fn without_window(id: &str) -> Option<&str> {
    let (base, window) = id.rsplit_once(':')?;
    let digits = window.strip_suffix(['k', 'K'])?;
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then_some(base)
}

/// An OpenAI id without the day of its snapshot: `gpt-4o-2024-08-06`.
pub fn without_date(id: &str) -> Option<&str> {
    let (base, date) = id.split_at_checked(id.len().checked_sub(11)?)?;
    let shape = date.bytes().enumerate().all(|(at, b)| match at {
        0 | 5 | 8 => b == b'-',
        _ => b.is_ascii_digit(),
    });
    shape.then_some(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bedrock_ids_are_taken_apart() {
        const HAIKU: &str = "anthropic.claude-haiku-4-5-20251001-v1:0";
        for (model, base, geography) in [
            (HAIKU, HAIKU, None),
            ("us.anthropic.claude-haiku-4-5-20251001-v1:0", HAIKU, Some("us")),
            ("global.anthropic.claude-haiku-4-5-20251001-v1:0", HAIKU, Some("global")),
            ("us-gov.anthropic.claude-haiku-4-5-20251001-v1:0", HAIKU, Some("us-gov")),
            (
                "arn:aws:bedrock:eu-central-1:123456789012:inference-profile/eu.anthropic.claude-haiku-4-5-20251001-v1:0",
                HAIKU,
                Some("eu"),
            ),
            (
                "arn:aws-us-gov:bedrock:us-gov-west-1::foundation-model/anthropic.claude-haiku-4-5-20251001-v1:0",
                HAIKU,
                None,
            ),
            ("deepseek.v3.2", "deepseek.v3.2", None),
            ("", "", None),
            ("us.", "", Some("us")),
            ("arn:", "arn:", None),
        ] {
            assert_eq!(bedrock_id(model), BedrockId { base, geography }, "{model}");
        }
        let own = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc";
        assert_eq!(bedrock_id(own).base, own);
        assert_eq!(without_window("amazon.nova-pro-v1:0:24k"), Some("amazon.nova-pro-v1:0"));
        assert_eq!(without_window("amazon.nova-pro-v1:0"), None);
        assert_eq!(without_date("gpt-4o-2024-08-06"), Some("gpt-4o"));
        assert_eq!(without_date("gpt-4o-mini"), None);
        assert_eq!(without_date("ü-2024-08-06"), Some("ü"));
        assert_eq!(without_date("ünïcode-gpt"), None);
    }
}
