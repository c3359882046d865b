//! Reading what an OpenAI endpoint answered with status 200.
//!
//! Invariant: the text is kept as it came; only its counts are read. A 200 that holds no completion is a fault, and one
//! that was possibly billed.

use serde::{Deserialize, de::IgnoredAny};

use crate::{
    job::Fault,
    usage::Usage,
    wire::{
        Completion,
        faults::{Classified, Hints, excerpt, openai},
    },
};

#[derive(Deserialize)]
struct Chat {
    choices: Option<Vec<IgnoredAny>>,
    usage: Option<Counts>,
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Counts {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct CompletionDetails {
    reasoning_tokens: Option<u64>,
}

/// Reads a completion.
///
/// # Errors
/// [`Classified`] when it is none: an error object, invalid JSON, or an object without `choices`.
pub fn read(body: &[u8]) -> Result<Completion, Classified> {
    let unreadable = |why: String| {
        let message = format!("the provider answered 200 with something else than a chat completion: {why}");
        Classified::billed(Fault::Transient, message).with_code("invalid_response").with_status(200)
    };
    let text = std::str::from_utf8(body).map_err(|error| unreadable(format!("not UTF-8 ({error})")))?;
    let chat: Chat = serde_json::from_str(text)
        .map_err(|error| unreadable(format!("{error}; it begins {:?}", excerpt(text, 80))))?;
    if chat.error.is_some() {
        // Some gateways put an error in the body of a success.
        return Err(Classified { possibly_billed: true, ..openai::classify(200, &Hints::default(), body) });
    }
    if chat.choices.is_none_or(|choices| choices.is_empty()) {
        return Err(unreadable("it has no choices".to_owned()));
    }
    Ok(Completion { json: text.to_owned(), usage: chat.usage.and_then(usage), unread_blocks: 0 })
}

fn usage(counts: Counts) -> Option<Usage> {
    let (prompt, output) = (counts.prompt_tokens?, counts.completion_tokens?);
    let details = counts.prompt_tokens_details;
    let cache_read = details.as_ref().and_then(|details| details.cached_tokens).unwrap_or(0).min(prompt);
    let cache_write =
        details.and_then(|details| details.cache_write_tokens).unwrap_or(0).min(prompt.saturating_sub(cache_read));
    let reasoning =
        counts.completion_tokens_details.and_then(|details| details.reasoning_tokens).unwrap_or(0).min(output);
    Some(Usage { input: prompt - cache_read - cache_write, output, cache_read, cache_write, reasoning })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_term_by_term() {
        let whole = br#"{"id":"x","choices":[{"index":0}],"usage":{"prompt_tokens":100,"completion_tokens":50,
            "total_tokens":150,"prompt_tokens_details":{"cached_tokens":40,"audio_tokens":0},
            "completion_tokens_details":{"reasoning_tokens":30}}}"#;
        let completion = read(whole).unwrap();
        assert_eq!(completion.json.as_bytes(), whole);
        assert_eq!(
            completion.usage,
            Some(Usage { input: 60, output: 50, cache_read: 40, cache_write: 0, reasoning: 30 })
        );
        let cases: [(&str, Option<Usage>); 4] = [
            (r#"{"choices":[{}]}"#, None),
            (r#"{"choices":[{}],"usage":null}"#, None),
            (r#"{"choices":[{}],"usage":{"prompt_tokens":1}}"#, None),
            (
                r#"{"choices":[{}],"usage":{"prompt_tokens":1,"completion_tokens":2,"prompt_tokens_details":null}}"#,
                Some(Usage { input: 1, output: 2, ..Usage::default() }),
            ),
        ];
        for (body, usage) in cases {
            assert_eq!(read(body.as_bytes()).unwrap().usage, usage, "{body}");
        }
    }

    #[test]
    fn a_success_without_a_completion_is_a_fault() {
        for body in ["", "{}", "[]", "null", r#"{"choices":[]}"#, r#"{"choices":[{}"#, "<html>", "\u{0}"] {
            let fault = read(body.as_bytes()).unwrap_err();
            assert_eq!((fault.fault, fault.possibly_billed), (Fault::Transient, true), "{body}");
            assert_eq!(fault.code.as_deref(), Some("invalid_response"), "{body}");
        }
        let fault = read(&[0xff, 0xfe]).unwrap_err();
        assert_eq!(fault.fault, Fault::Transient);
        let fault = read(br#"{"error":{"message":"over","code":"server_error"},"choices":null}"#).unwrap_err();
        assert_eq!((fault.message.as_str(), fault.possibly_billed), ("over", true));
    }
}
