//! Streams cut anywhere, stopped anywhere, and written out again.

use serde_json::Value;

use super::capture::{Capture, Family, meaning};
use crate::wire::{
    Reading,
    openai::{chunks::Writer, events},
    stream::{Assembly, ENDED_EARLY, Event},
};

fn streams(of: impl Fn(&Capture) -> bool) -> Vec<Capture> {
    Capture::all().into_iter().filter(|capture| capture.is_stream && of(capture)).collect()
}

#[test]
fn bytes_may_be_cut_anywhere() {
    for capture in streams(|capture| capture.family == Family::OpenAi) {
        let expected = capture.streamed();
        // Every place is a cut once when it comes byte by byte; those at line ends and some others, alone.
        let is_end = |place: usize| capture.bytes[..place].last().is_some_and(|byte| b"\r\n:".contains(byte));
        for place in (0..=capture.bytes.len()).filter(|place| is_end(*place) || place % 37 == 0) {
            let (before, after) = capture.bytes.split_at(place);
            assert_eq!(capture.streamed_in(&[before, after]), expected, "{} at {place}", capture.name);
        }
        for size in [1, 2, 7, 64] {
            let pieces: Vec<&[u8]> = capture.bytes.chunks(size).collect();
            assert_eq!(capture.streamed_in(&pieces), expected, "{} by {size}", capture.name);
        }
    }
}

#[test]
fn a_stream_that_stops_anywhere_is_whole_or_a_fault() {
    for capture in streams(|capture| capture.family == Family::OpenAi) {
        let Ok(full) = capture.assembled() else { continue };
        let mut early = 0;
        let (mut stream, mut so_far) = (events::Stream::new(&capture.reading), Vec::new());
        for place in 0..capture.bytes.len() {
            let mut events = so_far.clone();
            let end = stream.clone().finish(&mut events);
            match capture.assemble(events, end) {
                Ok(completion) => {
                    let choices = |json: &str| serde_json::from_str::<Value>(json).unwrap()["choices"].clone();
                    assert_eq!(choices(&completion.json), choices(&full.json), "{} at {place}", capture.name);
                }
                Err(fault) => {
                    early += 1;
                    assert_eq!(fault.code.as_deref(), Some(ENDED_EARLY), "{} at {place}: {fault:?}", capture.name);
                    assert!(fault.possibly_billed);
                }
            }
            stream.push(&capture.bytes[place..=place], &mut so_far).unwrap();
        }
        assert!(early > 0, "{}", capture.name);
    }
}

#[test]
fn a_stream_that_loses_its_last_events_is_whole_or_a_fault() {
    for capture in streams(|capture| capture.family != Family::OpenAi) {
        let Ok(full) = capture.assembled() else { continue };
        let lines: Vec<&[u8]> = capture.bytes.split_inclusive(|byte| *byte == b'\n').collect();
        for kept in 0..lines.len() {
            let (events, end) = capture.streamed_in(&lines[..kept]);
            match capture.assemble(events, end) {
                Ok(completion) => {
                    let choices = |json: &str| serde_json::from_str::<Value>(json).unwrap()["choices"].clone();
                    assert_eq!(choices(&completion.json), choices(&full.json), "{} of {kept}", capture.name);
                }
                Err(fault) => {
                    assert_eq!(fault.code.as_deref(), Some(ENDED_EARLY), "{} of {kept}: {fault:?}", capture.name);
                    let is_end = capture.family == Family::Llama || full.usage.is_none() || kept < lines.len() - 1;
                    assert!(is_end, "{}: only the counts are missing", capture.name);
                }
            }
        }
    }
}

#[test]
fn what_is_written_for_a_caller_reads_the_same() {
    for capture in streams(|_| true) {
        let (events, end) = capture.streamed();
        let Ok(full) = capture.assemble(events.clone(), end) else { continue };
        let json: Value = serde_json::from_str(&full.json).unwrap();
        let (id, model) = (json["id"].as_str().unwrap(), json["model"].as_str().unwrap());
        for include_usage in [true, false] {
            let mut writer = Writer::new(id, model, json["created"].as_i64().unwrap_or(0), include_usage);
            let mut written = Vec::new();
            for event in &events {
                writer.write(event, &mut written);
            }
            writer.end(&mut written);
            let (mut stream, mut again) = (events::Stream::new(&Reading::default()), Vec::new());
            stream.push(&written, &mut again).unwrap();
            assert!(stream.is_done());
            stream.finish(&mut again).unwrap();
            assert_eq!(
                again.iter().any(|event| matches!(event, Event::Usage(_))),
                include_usage && full.usage.is_some()
            );
            let mut assembly = Assembly::new("", "", 0);
            for event in again {
                assembly.push(event).unwrap();
            }
            let read = meaning(&assembly.finish().unwrap())["json"].clone();
            let mut expected = meaning(&full)["json"].clone();
            // A tier that is said after the last choice reaches the caller with the counts, if at all.
            for (name, value) in read.as_object().unwrap() {
                assert_eq!(Some(value), expected.get(name), "{}: {name}", capture.name);
                expected.as_object_mut().unwrap().remove(name);
            }
            let left: Vec<&String> = expected.as_object().unwrap().keys().collect();
            assert!(
                include_usage && left.is_empty()
                    || left.iter().all(|name| matches!(name.as_str(), "usage" | "service_tier")),
                "{}: {left:?}",
                capture.name
            );
        }
    }
}

#[test]
fn a_caller_hears_of_a_death() {
    let capture = streams(|capture| capture.name == "exception_in_stream.sse").remove(0);
    let (events, end) = capture.streamed();
    let fault = end.unwrap_err();
    let (mut writer, mut written) = (Writer::new("i", "m", 0, true), Vec::new());
    for event in &events {
        writer.write(event, &mut written);
    }
    writer.fail(&fault, &mut written);
    let mut again = Vec::new();
    let heard = events::Stream::new(&Reading::default()).push(&written, &mut again).unwrap_err();
    assert_eq!((heard.fault, heard.message), (fault.fault, fault.message));
}
