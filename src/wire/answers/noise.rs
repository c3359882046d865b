//! Bytes that are no answer, and answers without end: nothing panics, nothing grows.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::json;

use super::capture::Capture;
use crate::{
    job::Fault,
    wire::{
        Form, Reading,
        converse::{BlockDelta, Stream, StreamEvent},
        invoke::{self, HeaderCounts},
        openai::{events, response},
        stream::{Assembly, Delta, Event, MAX_CALLS, MAX_STREAM},
    },
};

static CAPTURES: LazyLock<Vec<Capture>> = LazyLock::new(Capture::all);

fn all() -> Reading {
    Reading {
        local_stop: vec!["END".to_owned(), "\u{0}".to_owned(), String::new()],
        json_tool: Some("json_tool_call".to_owned()),
        json_text: true,
        tool_names: [("a".to_owned(), "b".to_owned())].into(),
        inline_reasoning: true,
        mint_call_ids: true,
    }
}

fn throw(bytes: &[u8], size: usize) {
    for reading in [Reading::default(), all()] {
        let _ = response::read(bytes, &reading);
        let (mut stream, mut out) = (events::Stream::new(&reading), Vec::new());
        if bytes.chunks(size).try_for_each(|piece| stream.push(piece, &mut out)).is_ok() {
            let _ = stream.finish(&mut out);
        }
        let mut assembly = Assembly::new("", "", 0);
        let _ = out.into_iter().try_for_each(|event| assembly.push(event));
        let _ = assembly.finish();
        for form in [Form::Claude, Form::Llama] {
            let _ = invoke::read(form, HeaderCounts::default(), bytes);
            let (mut stream, mut out) = (invoke::Stream::new(form, &reading, ""), Vec::new());
            for line in bytes.split(|byte| *byte == b'\n') {
                let _ = stream.push(line, &mut out);
            }
            let _ = stream.finish(&mut out);
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes: Vec<u8>, size in 1_usize..40) {
        throw(&bytes, size);
        throw(&[b"data: ", bytes.as_slice(), b"\n\n"].concat(), size);
    }

    #[test]
    fn no_damage_makes_a_decoder_panic(
        which: prop::sample::Index,
        damage in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..12, prop::collection::vec(any::<u8>(), 0..4)), 1..5),
        size in 1_usize..400,
    ) {
        let capture = which.get(CAPTURES.as_slice());
        let mut bytes = capture.bytes.clone();
        for (place, length, noise) in damage {
            let start = place.index(bytes.len() + 1);
            let end = (start + length).min(bytes.len());
            bytes.splice(start..end, noise);
        }
        throw(&bytes, size);
    }
}

#[test]
fn answers_without_end_are_cut_off() {
    let chunk =
        |delta: serde_json::Value| format!("data: {}\n\n", json!({ "choices": [{ "index": 0, "delta": delta }] }));
    let text = chunk(json!({ "content": "x".repeat(1_000_000) }));
    let (mut stream, mut out) = (events::Stream::new(&all()), Vec::new());
    let fault = (0..100).find_map(|_| stream.push(text.as_bytes(), &mut out).err()).unwrap();
    assert_eq!((fault.fault, fault.code.as_deref()), (Fault::Refused, Some("answer_too_long")));
    let held: usize = out
        .iter()
        .map(|event| if let Event::Delta { delta: Delta::Text(text), .. } = event { text.len() } else { 0 })
        .sum();
    assert!(held <= MAX_STREAM);

    let calls: String = (0..=MAX_CALLS)
        .map(|index| {
            chunk(json!({ "tool_calls": [{ "index": index, "id": format!("c{index}"), "function": { "name": "f" } }] }))
        })
        .collect();
    let fault = events::Stream::new(&Reading::default()).push(calls.as_bytes(), &mut Vec::new()).unwrap_err();
    assert_eq!(fault.code.as_deref(), Some("answer_too_long"));

    let far = "data: {\"choices\":[{\"index\":4000000000,\"delta\":{}}]}\n\n";
    let fault = events::Stream::new(&Reading::default()).push(far.as_bytes(), &mut Vec::new()).unwrap_err();
    assert_eq!(fault.code.as_deref(), Some("answer_too_long"));

    let mut stream = Stream::new(&Reading::default(), "");
    let fault = (0..u32::MAX).find_map(|index| {
        let delta = BlockDelta::Reasoning("x".to_owned());
        stream.push(StreamEvent::BlockDelta { index, delta }, &mut Vec::new()).err()
    });
    assert_eq!(fault.unwrap().code.as_deref(), Some("answer_too_long"));
    let mut stream = Stream::new(&all(), "");
    let fault = (0..100).find_map(|_| {
        let delta = BlockDelta::Text("x".repeat(1_000_000));
        stream.push(StreamEvent::BlockDelta { index: 0, delta }, &mut Vec::new()).err()
    });
    assert_eq!(fault.unwrap().code.as_deref(), Some("answer_too_long"));

    let mut assembly = Assembly::new("", "", 0);
    let fault = (0..100).find_map(|_| assembly.push(Event::first(Delta::Text("x".repeat(1_000_000)))).err());
    assert_eq!(fault.unwrap().code.as_deref(), Some("answer_too_long"));
}
