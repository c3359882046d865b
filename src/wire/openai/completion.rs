//! A Converse answer as an OpenAI chat completion.
//!
//! Invariant: the counts follow OpenAI's meaning (`prompt_tokens` includes what the cache served), and an ending that
//! OpenAI has no word for is a fault, never a quiet `stop`. A whole answer is put together as a streamed one is.

use crate::wire::{
    Completion, Reading,
    converse::{Answer, Stream},
    faults::Classified,
    stream::Assembly,
};

/// Writes `answer` as an OpenAI completion of `model`, with an id made from `id`, made `created` seconds after 1970.
///
/// # Errors
/// [`Classified`] when the model's output is malformed by the service's own word: worth another try, and billed.
pub fn from_converse(
    model: &str,
    reading: &Reading,
    answer: Answer,
    id: &str,
    created: i64,
) -> Result<Completion, Classified> {
    let mut assembly = of_converse(model, id, created);
    let mut events = Vec::new();
    Stream::new(reading, id).whole(answer, &mut events)?;
    for event in events {
        assembly.push(event)?;
    }
    assembly.finish()
}

/// Puts together what [`Stream`] reads; `id` and `created` as for [`from_converse`].
pub fn of_converse(model: &str, id: &str, created: i64) -> Assembly {
    Assembly::new(&format!("chatcmpl-{id}"), model, created)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        job::Fault,
        usage::Usage,
        wire::converse::{AnswerBlock, TokenUsage},
    };

    fn answer(stop_reason: &str, texts: &[&str]) -> Answer {
        Answer {
            content: texts.iter().map(|text| AnswerBlock::Text((*text).to_owned())).collect(),
            stop_reason: stop_reason.to_owned(),
            usage: Some(TokenUsage { input: 10, output: 5, cache_read: 100, cache_write: 20 }),
            ..Answer::default()
        }
    }

    fn complete(reading: &Reading, answer: Answer) -> (Value, Completion) {
        let completion = from_converse("m", reading, answer, "abc", 1_700_000_000).unwrap();
        (serde_json::from_str(&completion.json).unwrap(), completion)
    }

    #[test]
    fn endings_have_openai_names() {
        for (stop_reason, finish) in [
            ("end_turn", "stop"),
            ("stop_sequence", "stop"),
            ("max_tokens", "length"),
            ("model_context_window_exceeded", "length"),
            ("tool_use", "tool_calls"),
            ("guardrail_intervened", "content_filter"),
            ("content_filtered", "content_filter"),
            ("something_new", "stop"),
        ] {
            let (json, _) = complete(&Reading::default(), answer(stop_reason, &["x"]));
            assert_eq!(json["choices"][0]["finish_reason"], finish, "{stop_reason}");
        }
        for stop_reason in ["malformed_model_output", "malformed_tool_use"] {
            let fault = from_converse("m", &Reading::default(), answer(stop_reason, &["x"]), "a", 0).unwrap_err();
            assert_eq!((fault.fault, fault.possibly_billed), (Fault::Transient, true));
            assert_eq!(fault.code.as_deref(), Some(stop_reason));
        }
    }

    #[test]
    fn counts_follow_openais_meaning() {
        let (json, completion) = complete(&Reading::default(), answer("end_turn", &["a", "b"]));
        assert_eq!(json["choices"][0]["message"]["content"], "ab");
        assert_eq!(
            json["usage"],
            json!({ "prompt_tokens": 130, "completion_tokens": 5, "total_tokens": 135,
                    "prompt_tokens_details": { "cached_tokens": 100, "cache_write_tokens": 20 } })
        );
        assert_eq!(
            completion.usage,
            Some(Usage { input: 10, output: 5, cache_read: 100, cache_write: 20, reasoning: 0 })
        );
        let (json, completion) = complete(&Reading::default(), Answer { usage: None, ..answer("end_turn", &[]) });
        assert_eq!(json["choices"][0]["message"]["content"], "");
        assert_eq!((json.get("usage"), completion.usage), (None, None));
    }

    #[test]
    fn stop_sequences_that_the_model_does_not_take_cut_the_answer() {
        let reading = Reading { local_stop: vec!["END".to_owned(), "\n".to_owned()], ..Reading::default() };
        let (json, _) = complete(&reading, answer("max_tokens", &["one\ntwo END", " three"]));
        assert_eq!(json["choices"][0]["message"]["content"], "one");
        assert_eq!(json["choices"][0]["finish_reason"], "stop");
    }

    #[test]
    fn other_blocks_keep_their_meaning() {
        let mut reply = answer("tool_use", &[]);
        reply.content = vec![
            AnswerBlock::Reasoning { text: "hm".to_owned(), signature: None },
            AnswerBlock::ToolUse { id: "t1".to_owned(), name: "look".to_owned(), input: json!({ "at": 1 }) },
            AnswerBlock::Unread("image"),
        ];
        let (json, completion) = complete(&Reading::default(), reply);
        let message = &json["choices"][0]["message"];
        assert_eq!(message["content"], Value::Null);
        assert_eq!(message["reasoning_content"], "hm");
        assert_eq!(message["tool_calls"][0]["function"], json!({ "name": "look", "arguments": "{\"at\":1}" }));
        assert_eq!(completion.unread_blocks, 1);
    }
}
