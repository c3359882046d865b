//! What a model's id tells of its family, for the few habits that the catalogue does not list.

/// The id without the ARN around it and without the geography of an inference profile.
pub fn base_id(model: &str) -> &str {
    const GEOGRAPHIES: [&str; 9] = ["us", "eu", "apac", "global", "jp", "au", "ca", "us-gov", "sa"];
    let id = if model.starts_with("arn:") { model.rsplit('/').next().unwrap_or(model) } else { model };
    match id.split_once('.') {
        Some((geography, rest)) if GEOGRAPHIES.contains(&geography) => rest,
        _ => id,
    }
}

/// Claude's version, such as (4, 5); `None` for other models and for ids that do not tell.
fn claude_version(id: &str) -> Option<(u32, u32)> {
    let name = id.strip_prefix("anthropic.claude-")?;
    let small = |part: &str| (part.len() <= 2).then(|| part.parse().ok()).flatten();
    let mut parts = name.split('-').skip_while(|part| small(part).is_none());
    let major = small(parts.next()?)?;
    let minor = parts.next().and_then(small).unwrap_or(0);
    Some((major, minor))
}

pub(super) fn is_claude(id: &str) -> bool {
    id.starts_with("anthropic.claude")
}

pub(super) fn is_nova(id: &str) -> bool {
    id.starts_with("amazon.nova")
}

/// Whether the model goes on from a last message of its own instead of rejecting it.
pub(super) fn continues_own_message(id: &str) -> bool {
    claude_version(id).is_some_and(|version| version < (4, 6))
}

/// The least output bound that the model takes.
pub(super) fn least_max_tokens(id: &str) -> u64 {
    if id.starts_with("openai.gpt-") || id.starts_with("xai.grok") || id.contains("kimi-k3") { 16 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_peeled() {
        for (model, base) in [
            ("us.anthropic.claude-haiku-4-5-20251001-v1:0", "anthropic.claude-haiku-4-5-20251001-v1:0"),
            ("arn:aws:bedrock:us-east-1:1:inference-profile/eu.amazon.nova-lite-v1:0", "amazon.nova-lite-v1:0"),
            ("meta.llama3-1-8b-instruct-v1:0", "meta.llama3-1-8b-instruct-v1:0"),
            ("arn:aws:bedrock:us-east-1:1:application-inference-profile/abc", "abc"),
            ("", ""),
        ] {
            assert_eq!(base_id(model), base);
        }
    }

    #[test]
    fn claude_versions_are_read() {
        for (id, version) in [
            ("anthropic.claude-3-5-sonnet-20241022-v2:0", Some((3, 5))),
            ("anthropic.claude-haiku-4-5-20251001-v1:0", Some((4, 5))),
            ("anthropic.claude-opus-4-20250514-v1:0", Some((4, 0))),
            ("anthropic.claude-sonnet-5", Some((5, 0))),
            ("anthropic.claude-opus-4-8", Some((4, 8))),
            ("anthropic.claude-v2:1", None),
            ("amazon.nova-lite-v1:0", None),
        ] {
            assert_eq!(claude_version(id), version, "{id}");
        }
        assert!(continues_own_message("anthropic.claude-haiku-4-5-20251001-v1:0"));
        assert!(!continues_own_message("anthropic.claude-sonnet-4-6"));
        assert!(!continues_own_message("amazon.nova-lite-v1:0"));
    }
}
