//! A model's habits: the catalogue's word where it knows the model, what the id tells elsewhere.

use crate::{
    catalog::{Capabilities, Model, Reasoning, Schema, ToolChoice, id::bedrock_id},
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
        let id = bedrock_id(model.map_or(target.model.as_str(), |model| model.id.as_str())).base;
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

    fn capabilities(self) -> Option<&'a Capabilities> {
        self.model.map(|model| &model.capabilities)
    }

    /// What a model that the catalogue does not know takes of media, nobody can say: the service will.
    pub(super) fn takes_images(self) -> bool {
        self.capabilities().is_none_or(|can| can.input.image)
    }

    pub(super) fn takes_documents(self) -> bool {
        self.capabilities().is_none_or(|can| can.input.document)
    }

    pub(super) fn takes_tools(self) -> bool {
        self.capabilities().is_none_or(|can| can.tools)
    }

    /// What may be forced of the tools.
    pub(super) fn tool_choice(self) -> ToolChoice {
        let guess = || if self.is_of("meta.") { ToolChoice::None } else { ToolChoice::Any };
        self.capabilities().map_or_else(guess, |can| can.tool_choice)
    }

    pub(super) fn takes_strict_tools(self) -> bool {
        self.capabilities().is_some_and(|can| can.strict_tools)
    }

    pub(super) fn takes_images_in_tool_results(self) -> bool {
        self.capabilities().map_or_else(|| self.is_claude() || self.is_nova(), |can| can.tool_result_images)
    }

    /// How an answer can be held to a JSON schema.
    pub(super) fn schema(self) -> Schema {
        let guess = || if self.is_of("meta.") { Schema::None } else { Schema::Tool };
        match self.capabilities().map_or_else(guess, |can| can.schema) {
            // A tool that cannot be forced holds nothing.
            Schema::Tool if self.tool_choice() != ToolChoice::Any => Schema::None,
            schema => schema,
        }
    }

    /// How it is told to reason; `None` where nobody knows.
    pub(super) fn reasoning(self) -> Option<Reasoning> {
        let guess = || {
            if self.is_of("openai.gpt-oss") {
                return Some(Reasoning::ReasoningEffort);
            }
            if self.is_of("openai.gpt-") {
                return Some(Reasoning::Effort);
            }
            match claude_version(self.id)? {
                version if version >= (4, 6) => Some(Reasoning::Adaptive),
                version if version >= (3, 7) => Some(Reasoning::Budget),
                _ => Some(Reasoning::None),
            }
        };
        self.capabilities().map_or_else(guess, |can| Some(can.reasoning))
    }

    /// The efforts that it takes, weakest first; empty where nobody knows.
    pub(super) fn efforts(self) -> &'a [String] {
        self.capabilities().map_or(&[], |can| can.efforts.as_slice())
    }

    /// Whether it heeds system messages in the middle of a conversation.
    pub(super) fn heeds_system_inside(self) -> bool {
        self.capabilities().is_some_and(|can| can.mid_conversation_system)
    }

    /// Whether it rejects turns that hold both text and tool calls, or both text and tool results.
    pub(super) fn keeps_tools_apart(self) -> bool {
        ["meta.", "mistral.", "cohere.", "ai21."].iter().any(|maker| self.is_of(maker))
    }

    /// Whether the call's tier of service can be chosen.
    pub(super) fn has_tiers(self) -> bool {
        let chat_gpt = self.is_of("openai.gpt-") && !self.is_of("openai.gpt-oss");
        !self.refuses("service_tier") && !self.is_claude() && !chat_gpt
    }

    /// Whether its id opens like this.
    pub(super) fn is_of(self, opening: &str) -> bool {
        self.id.starts_with(opening)
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
            if known.is_of("meta.") {
                assert_eq!(known.tool_choice(), guessed.tool_choice(), "{}", model.id);
                assert_eq!(known.schema(), guessed.schema(), "{}", model.id);
            }
            assert!(guessed.least_max_tokens() <= 16, "{}", model.id);
        }
    }
}
