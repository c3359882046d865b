//! Made-up answers under made-up readings: however they are cut, they say the same.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::capture::meaning;
use crate::wire::{
    Completion, Reading,
    converse::{Answer, AnswerBlock, BlockDelta, BlockStart, Citation, Stream, StreamEvent, TokenUsage},
    openai::{completion, events, response},
    stream::Assembly,
};

fn text() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "a",
        "ü",
        " ",
        "\n",
        "END",
        "EN",
        "D",
        "##",
        "#",
        "{\"a\":1}",
        "{",
        "}",
        "[1]",
        "```",
        "json\n",
        "<reasoning>",
        "</reasoning>",
        "<rea",
        "👋",
    ]);
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

fn block() -> impl Strategy<Value = AnswerBlock> {
    let name = prop::sample::select(vec!["answer_tool", "sent_name", "plain"]);
    let input = prop_oneof![
        Just(json!({})),
        Just(json!({ "city": "Köln", "n": [1, 2.5, null, { "deep": "\"" }] })),
        text().prop_map(|text| json!({ "text": text })),
    ];
    let quote = text().prop_map(|quote| Citation { quote, ..Citation::default() });
    prop_oneof![
        4 => text().prop_map(AnswerBlock::Text),
        1 => (text(), prop::collection::vec(quote, 1..3)).prop_map(|(text, citations)| AnswerBlock::Cited { text, citations }),
        1 => (text(), prop::option::of("[a-z]{1,6}")).prop_map(|(text, signature)| AnswerBlock::Reasoning { text, signature }),
        1 => "[a-z]{4}".prop_map(AnswerBlock::Redacted),
        3 => ("t[0-2]", name, input).prop_map(|(id, name, input)| AnswerBlock::ToolUse { id, name: name.to_owned(), input }),
        1 => Just(AnswerBlock::Unread("image")),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    let stop = prop::sample::select(vec!["end_turn", "max_tokens", "tool_use", "refusal", "unheard_of"]);
    let usage = prop::option::of((0_u64..9, 0_u64..9).prop_map(|(input, output)| TokenUsage {
        input,
        output,
        ..TokenUsage::default()
    }));
    (prop::collection::vec(block(), 0..6), stop, usage).prop_map(|(content, stop_reason, usage)| Answer {
        content,
        stop_reason: stop_reason.to_owned(),
        usage,
        ..Answer::default()
    })
}

fn reading() -> impl Strategy<Value = Reading> {
    let stops = prop::collection::vec(prop::sample::select(vec!["END", "##", "}", "ND"]).prop_map(str::to_owned), 0..3);
    (stops, any::<[bool; 5]>()).prop_map(|(local_stop, [tool, json_text, names, inline_reasoning, mint_call_ids])| {
        Reading {
            local_stop,
            json_tool: tool.then(|| "answer_tool".to_owned()),
            json_text,
            tool_names: names.then(|| ("sent_name".to_owned(), "name of theirs".to_owned())).into_iter().collect(),
            inline_reasoning,
            mint_call_ids,
        }
    })
}

/// A text in pieces.
fn pieces(text: &str, cuts: &[prop::sample::Index]) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(letters.len() + 1)).collect();
    places.extend([0, letters.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| letters[pair[0]..pair[1]].iter().collect()).collect()
}

fn streamed(answer: &Answer, reading: &Reading, cuts: &[prop::sample::Index]) -> Completion {
    let (mut stream, mut events) = (Stream::new(reading, "id"), Vec::new());
    let mut push = |event| stream.push(event, &mut events).unwrap();
    push(StreamEvent::MessageStart);
    for (index, block) in (0..).zip(&answer.content) {
        let mut delta = |delta| push(StreamEvent::BlockDelta { index, delta });
        match block {
            AnswerBlock::Text(text) => {
                for piece in pieces(text, cuts) {
                    delta(BlockDelta::Text(piece));
                }
            }
            AnswerBlock::Cited { text, citations } => {
                for piece in pieces(text, cuts) {
                    delta(BlockDelta::Text(piece));
                }
                for citation in citations {
                    delta(BlockDelta::Citation(citation.clone()));
                }
            }
            AnswerBlock::Reasoning { text, signature } => {
                for piece in pieces(text, cuts) {
                    delta(BlockDelta::Reasoning(piece));
                }
                let signature = signature.clone().unwrap_or_default();
                for piece in pieces(&signature, cuts) {
                    delta(BlockDelta::Signature(piece));
                }
            }
            AnswerBlock::Redacted(data) => delta(BlockDelta::Redacted(data.clone())),
            AnswerBlock::ToolUse { id, name, input } => {
                let start = BlockStart::ToolUse { id: id.clone(), name: name.clone() };
                push(StreamEvent::BlockStart { index, start });
                let written = if *input == json!({}) { String::new() } else { input.to_string() };
                for piece in pieces(&written, cuts) {
                    push(StreamEvent::BlockDelta { index, delta: BlockDelta::ToolInput(piece) });
                }
            }
            AnswerBlock::Unread(kind) => push(StreamEvent::BlockStart { index, start: BlockStart::Unread(kind) }),
        }
        push(StreamEvent::BlockStop { index });
    }
    push(StreamEvent::MessageStop { stop_reason: answer.stop_reason.clone(), additional_fields: None });
    if answer.usage.is_some() {
        push(StreamEvent::Metadata { usage: answer.usage, service_tier: None, guardrail: None });
    }
    stream.finish().unwrap();
    let mut assembly = completion::of_converse("m", "id", 7);
    for event in events {
        assembly.push(event).unwrap();
    }
    assembly.finish().unwrap()
}

/// A completion as OpenAI's stream of chunks, its texts in pieces.
fn chunked(completion: &Value, cuts: &[prop::sample::Index]) -> Vec<u8> {
    let mut written = Vec::new();
    let mut say = |choices: Value, usage: &Value| {
        let chunk = json!({ "id": completion["id"], "model": completion["model"], "created": completion["created"],
                            "object": "chat.completion.chunk", "choices": choices, "usage": usage });
        written.extend(format!("data: {chunk}\n\n").bytes());
    };
    for choice in completion["choices"].as_array().unwrap() {
        let message = &choice["message"];
        let mut delta = |delta: Value| say(json!([{ "index": choice["index"], "delta": delta }]), &Value::Null);
        // Models think before they speak.
        let (thoughts, rest): (Vec<_>, Vec<_>) =
            message.as_object().unwrap().iter().partition(|(name, _)| *name == "reasoning_content");
        for (name, value) in thoughts.into_iter().chain(rest) {
            match (name.as_str(), value) {
                ("tool_calls", calls) => {
                    for (index, call) in calls.as_array().unwrap().iter().enumerate() {
                        let function = &call["function"];
                        delta(json!({ "tool_calls": [{ "index": index, "id": call["id"], "type": "function",
                                      "function": { "name": function["name"], "arguments": "" } }] }));
                        for piece in pieces(function["arguments"].as_str().unwrap(), cuts) {
                            delta(json!({ "tool_calls": [{ "index": index, "function": { "arguments": piece } }] }));
                        }
                    }
                }
                (name, Value::String(text)) => {
                    for piece in pieces(text, cuts) {
                        delta(json!({ name: piece }));
                    }
                }
                (name, value) => delta(json!({ name: value })),
            }
        }
        say(json!([{ "index": choice["index"], "delta": {}, "finish_reason": choice["finish_reason"] }]), &Value::Null);
    }
    say(json!([]), &completion["usage"]);
    written.extend(b"data: [DONE]\n\n");
    written
}

proptest! {
    #[test]
    fn a_streamed_answer_says_what_the_whole_one_says(
        answer in answer(),
        reading in reading(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let whole = completion::from_converse("m", &reading, answer.clone(), "id", 7).unwrap();
        let stream = streamed(&answer, &reading, &cuts);
        prop_assert_eq!(meaning(&whole), meaning(&stream));
        let json: Value = serde_json::from_str(&whole.json).unwrap();
        let message = &json["choices"][0]["message"];
        if !reading.json_text && reading.json_tool.is_none() {
            for stop in &reading.local_stop {
                prop_assert!(!message["content"].as_str().unwrap_or_default().contains(stop));
            }
        }
        let ids: Vec<&Value> = message["tool_calls"].as_array().into_iter().flatten().map(|call| &call["id"]).collect();
        let distinct: std::collections::BTreeSet<String> = ids.iter().map(ToString::to_string).collect();
        prop_assert_eq!(ids.len(), distinct.len());
    }

    #[test]
    fn openais_stream_says_what_the_whole_answer_says(
        answers in prop::collection::vec(answer(), 1..3),
        reading in reading(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        // Whatever Bedrock answers is, once translated, an answer in OpenAI's form.
        let mut whole: Option<Value> = None;
        for (index, answer) in answers.into_iter().enumerate() {
            let made = completion::from_converse("m", &Reading::default(), answer, "id", 7).unwrap();
            let mut made: Value = serde_json::from_str(&made.json).unwrap();
            made["choices"][0]["index"] = index.into();
            match &mut whole {
                None => whole = Some(made),
                Some(whole) => whole["choices"].as_array_mut().unwrap().push(made["choices"][0].take()),
            }
        }
        let whole = whole.unwrap();
        let written = chunked(&whole, &cuts);
        let (mut stream, mut events) = (events::Stream::new(&reading), Vec::new());
        for piece in written.chunks(1 + cuts.len() * 13) {
            stream.push(piece, &mut events).unwrap();
        }
        stream.finish(&mut events).unwrap();
        let mut assembly = Assembly::new("", "", 0);
        for event in events {
            assembly.push(event).unwrap();
        }
        let read = response::read(whole.to_string().as_bytes(), &reading).unwrap();
        prop_assert_eq!(meaning(&read), meaning(&assembly.finish().unwrap()));
    }
}
