//! A model's habits: the catalogue's word where it knows the model, what the id tells elsewhere.

use crate::{
    catalog::{Model, id::bedrock_id},
    spec::Target,
};

/// What a translation asks of the model that it is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Habits<'a> {
    id: &'a str,
    model: Option<&'a Model>,
}

impl<'a> Habits<'a> {
    pub(super) fn of(target: &'a Target, model: Option<&'a Model>) -> Self {
        let id = model.map_or_else(|| bedrock_id(&target.model).base, |model| model.id.as_str());
        Self { id, model }
    }

    /// Whether it refuses a parameter outright.
    pub(super) fn refuses(self, name: &str) -> bool {
        self.model.is_some_and(|model| model.refuses(name))
    }

    /// Whether it refuses two parameters together.
    pub(super) fn refuses_together(self, one: &str, other: &str) -> bool {
        let pair = |(a, b): &(String, String)| (a == one && b == other) || (a == other && b == one);
        self.model.is_some_and(|model| model.refuses_together.iter().any(pair))
    }

    /// What to ask for when nobody says how long the answer may be.
    pub(super) fn default_max_tokens(self) -> u64 {
        self.model.map_or(Model::DEFAULT_MAX_TOKENS, |model| model.default_max_tokens)
    }

    /// The longest answer that it writes, where known.
    pub(super) fn most_max_tokens(self) -> Option<u64> {
        self.model.and_then(|model| model.max_output_tokens)
    }

    /// The least output bound that it takes.
    pub(super) fn least_max_tokens(self) -> u64 {
        let guess = || if self.id.starts_with("openai.gpt-") || self.id.starts_with("xai.grok") { 16 } else { 1 };
        self.model.map_or_else(guess, |model| model.capabilities.least_max_tokens)
    }

    /// Whether it goes on from a last message of its own instead of rejecting it.
    pub(super) fn continues_own_message(self) -> bool {
        match self.model {
            Some(model) => model.capabilities.assistant_prefill && !model.refuses("assistant_prefill"),
            None => claude_version(self.id).is_some_and(|version| version < (4, 6)),
        }
    }

    pub(super) fn is_claude(self) -> bool {
        self.id.starts_with("anthropic.claude")
    }

    pub(super) fn is_nova(self) -> bool {
        self.id.starts_with("amazon.nova")
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

#[cfg(test)]
mod tests {
    use super::*;

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
    }

    #[test]
    fn guesses_agree_with_the_catalogue() {
        for model in
            crate::catalog::Catalog::builtin().models().iter().filter(|model| model.api == crate::spec::Api::Bedrock)
        {
            let known = Habits { id: &model.id, model: Some(model) };
            let guessed = Habits { id: &model.id, model: None };
            if known.is_claude() {
                assert_eq!(known.continues_own_message(), guessed.continues_own_message(), "{}", model.id);
            }
            assert!(guessed.least_max_tokens() <= 16, "{}", model.id);
        }
    }
}
