//! Token counts as OpenAI writes them.

use serde::Deserialize;

use crate::usage::Usage;

/// `usage` of a completion, or of the last chunk of a stream.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Counts {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
struct CompletionDetails {
    reasoning_tokens: Option<u64>,
}

impl Counts {
    /// The counts term by term; `None` when one of the two that matter is missing.
    pub(super) fn usage(self) -> Option<Usage> {
        let (prompt, output) = (self.prompt_tokens?, self.completion_tokens?);
        let details = self.prompt_tokens_details;
        let cache_read = details.and_then(|details| details.cached_tokens).unwrap_or(0).min(prompt);
        let cache_write = details.and_then(|details| details.cache_write_tokens).unwrap_or(0).min(prompt - cache_read);
        let reasoning =
            self.completion_tokens_details.and_then(|details| details.reasoning_tokens).unwrap_or(0).min(output);
        Some(Usage { input: prompt - cache_read - cache_write, output, cache_read, cache_write, reasoning })
    }
}
