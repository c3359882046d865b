//! The way back, held against captured answers and streams of every kind.
//!
//! `captured/` holds one answer a file: `NAME.converse.json` and the like when it came whole, `NAME.converse.jsonl` (one
//! event a line) or `NAME.sse` when it came as a stream. Files of one name and family are the same answer.

mod capture;
mod cuts;
mod noise;
mod random;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use capture::{Capture, Family, meaning};

/// At least so many captures there are; a folder that is not found would test nothing.
const LEAST: usize = 60;

#[test]
fn captured_answers_are_read() {
    let captures = Capture::all();
    assert!(captures.len() >= LEAST, "{} captures", captures.len());
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("snapshots");
    settings.set_prepend_module_to_snapshot(false);
    let both: Vec<String> = pairs().into_iter().map(|(_, stream)| stream.name).collect();
    settings.bind(|| {
        for capture in captures {
            let shown = if capture.is_stream {
                let (events, end) = capture.streamed();
                let events: Vec<String> = events.iter().map(|event| format!("{event:?}")).collect();
                // Where the same answer came whole as well, that snapshot shows what the events come to.
                let comes_to =
                    if end.is_ok() && both.contains(&capture.name) { Value::Null } else { shown(capture.assembled()) };
                json!({ "events": events, "comes_to": comes_to })
            } else {
                shown(capture.whole())
            };
            insta::assert_json_snapshot!(capture.name.as_str(), shown);
        }
    });
}

fn shown(result: Result<super::Completion, super::faults::Classified>) -> Value {
    match result {
        Ok(completion) => json!({
            "completion": serde_json::from_str::<Value>(&completion.json).unwrap(),
            "usage": completion.usage, "unread": completion.unread_blocks, "remarks": completion.remarks,
        }),
        Err(fault) => json!({
            "fault": fault.fault, "code": fault.code, "status": fault.status, "message": fault.message,
            "billed": fault.possibly_billed, "retry_after": fault.retry_after.map(|wait| wait.as_secs_f64()),
            "advice": fault.advice,
        }),
    }
}

/// Answers that came both ways.
fn pairs() -> Vec<(Capture, Capture)> {
    let mut found: BTreeMap<(String, Family), Vec<Capture>> = BTreeMap::new();
    for capture in Capture::all() {
        found.entry((capture.stem.clone(), capture.family)).or_default().push(capture);
    }
    let pairs = found.into_values().filter_map(|both| <[Capture; 2]>::try_from(both).ok());
    pairs.map(|[one, other]| if one.is_stream { (other, one) } else { (one, other) }).collect()
}

#[test]
fn a_streamed_answer_says_what_the_whole_one_says() {
    let pairs = pairs();
    assert!(pairs.len() >= 24, "{} pairs", pairs.len());
    for (whole, stream) in pairs {
        let name = whole.stem.clone();
        match (whole.whole(), stream.assembled()) {
            (Ok(whole), Ok(stream)) => assert_eq!(meaning(&whole), meaning(&stream), "{name}"),
            (Err(whole), Err(stream)) => assert_eq!(whole.fault, stream.fault, "{name}"),
            (whole, stream) => panic!("{name}: {whole:?} and {stream:?}"),
        }
    }
}

#[test]
fn answers_without_a_reading_keep_every_byte() {
    let body = br#"{ "id":"x", "choices" : [{"index":0,"message":{"content":"a"}}],"extra":1.50 }"#;
    let completion = super::openai::response::read(body, &super::Reading::default()).unwrap();
    assert_eq!(completion.json.as_bytes(), body);
}
