//! A Converse answer as an OpenAI chat completion.
//!
//! Invariant: the counts follow OpenAI's meaning (`prompt_tokens` includes what the cache served), and an ending that
//! OpenAI has no word for is a fault, never a quiet `stop`.

use serde::Serialize;

use crate::{
    job::Fault,
    usage::Usage,
    wire::{
        Completion, Reading,
        converse::{Answer, AnswerBlock, TokenUsage},
        faults::Classified,
    },
};

#[derive(Serialize)]
struct Chat<'a> {
    id: String,
    object: &'static str,
    created: i64,
    model: &'a str,
    choices: [Choice; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Counts>,
    system_fingerprint: Option<&'static str>,
}

#[derive(Serialize)]
struct Choice {
    index: u8,
    message: Message,
    logprobs: Option<&'static str>,
    finish_reason: &'static str,
}

#[derive(Serialize)]
struct Message {
    role: &'static str,
    content: Option<String>,
    refusal: Option<&'static str>,
    #[serde(skip_serializing_if = "String::is_empty")]
    reasoning_content: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall>,
}

#[derive(Serialize)]
struct ToolCall {
    id: String,
    r#type: &'static str,
    function: Function,
}

#[derive(Serialize)]
struct Function {
    name: String,
    arguments: String,
}

#[derive(Serialize)]
struct Counts {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptDetails,
}

#[derive(Serialize)]
struct PromptDetails {
    cached_tokens: u64,
    cache_write_tokens: u64,
}

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
    let mut finish_reason = finish_reason(&answer.stop_reason)?;
    let usage = answer.usage.map(usage);
    let (mut content, mut reasoning, mut tool_calls, mut unread_blocks) = (None, String::new(), Vec::new(), 0);
    for block in answer.content {
        match block {
            AnswerBlock::Text(text) => match &mut content {
                None => content = Some(text),
                Some(before) => before.push_str(&text),
            },
            AnswerBlock::Reasoning(text) => reasoning.push_str(&text),
            AnswerBlock::ToolUse { id, name, input } => tool_calls.push(ToolCall {
                id,
                r#type: "function",
                function: Function { name, arguments: input.to_string() },
            }),
            AnswerBlock::Unread => unread_blocks += 1,
        }
    }
    if let Some(text) = &mut content
        && let Some(place) = reading.local_stop.iter().filter_map(|stop| text.find(stop.as_str())).min()
    {
        text.truncate(place);
        finish_reason = "stop";
    }
    if tool_calls.is_empty() {
        content.get_or_insert_default();
    }
    let chat = Chat {
        id: format!("chatcmpl-{id}"),
        object: "chat.completion",
        created,
        model,
        choices: [Choice {
            index: 0,
            message: Message { role: "assistant", content, refusal: None, reasoning_content: reasoning, tool_calls },
            logprobs: None,
            finish_reason,
        }],
        usage: usage.map(|usage| Counts {
            prompt_tokens: usage.prompt(),
            completion_tokens: usage.output,
            total_tokens: usage.total(),
            prompt_tokens_details: PromptDetails {
                cached_tokens: usage.cache_read,
                cache_write_tokens: usage.cache_write,
            },
        }),
        system_fingerprint: None,
    };
    let json = serde_json::to_string(&chat).map_err(|error| {
        Classified::billed(Fault::Transient, format!("the answer cannot be written as JSON: {error}"))
    })?;
    Ok(Completion { json, usage, unread_blocks })
}

fn usage(counts: TokenUsage) -> Usage {
    Usage {
        input: counts.input,
        output: counts.output,
        cache_read: counts.cache_read,
        cache_write: counts.cache_write,
        reasoning: 0,
    }
}

fn finish_reason(stop_reason: &str) -> Result<&'static str, Classified> {
    Ok(match stop_reason {
        "end_turn" | "stop_sequence" => "stop",
        "max_tokens" | "model_context_window_exceeded" => "length",
        "tool_use" => "tool_calls",
        "guardrail_intervened" | "content_filtered" | "refusal" => "content_filter",
        "malformed_model_output" | "malformed_tool_use" => {
            let message = format!("Bedrock says that the model's output is malformed ({stop_reason})");
            return Err(Classified::billed(Fault::Transient, message).with_code(stop_reason));
        }
        // A reason newer than this release: the answer came whole, so it is an end like another.
        _ => "stop",
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn answer(stop_reason: &str, texts: &[&str]) -> Answer {
        Answer {
            content: texts.iter().map(|text| AnswerBlock::Text((*text).to_owned())).collect(),
            stop_reason: stop_reason.to_owned(),
            usage: Some(TokenUsage { input: 10, output: 5, cache_read: 100, cache_write: 20 }),
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
            AnswerBlock::Reasoning("hm".to_owned()),
            AnswerBlock::ToolUse { id: "t1".to_owned(), name: "look".to_owned(), input: json!({ "at": 1 }) },
            AnswerBlock::Unread,
        ];
        let (json, completion) = complete(&Reading::default(), reply);
        let message = &json["choices"][0]["message"];
        assert_eq!(message["content"], Value::Null);
        assert_eq!(message["reasoning_content"], "hm");
        assert_eq!(message["tool_calls"][0]["function"], json!({ "name": "look", "arguments": "{\"at\":1}" }));
        assert_eq!(completion.unread_blocks, 1);
    }
}
