//! Captured failures and what they mean, row by row.

use std::time::Duration;

use serde::Deserialize;

use super::*;
use crate::job::Fault::{Misconfigured, Transient, Unavailable};

/// A captured failure. One JSON object a line in the files beside this one.
#[derive(Deserialize)]
struct Case {
    status: u16,
    /// The SDK's name of the exception.
    code: Option<String>,
    body: String,
    fault: Fault,
    #[serde(default)]
    billed: bool,
    /// Words that the advice holds; without any, there is none.
    #[serde(default)]
    advice: String,
}

fn cases(lines: &'static str) -> impl Iterator<Item = (&'static str, Case)> {
    lines.lines().map(|line| (line, serde_json::from_str(line).unwrap()))
}

fn check(line: &str, case: &Case, got: &Classified) {
    assert_eq!((got.fault, got.possibly_billed), (case.fault, case.billed), "{line}: {got:?}");
    let given = got.advice.as_deref().unwrap_or_default();
    assert_eq!(given.is_empty(), case.advice.is_empty(), "{line}: {given:?}");
    assert!(given.to_lowercase().contains(&case.advice.to_lowercase()), "{line}: {given:?}");
    assert!(!got.message.is_empty() && got.message.chars().count() <= MAX_MESSAGE + 1, "{line}");
    assert_eq!(got.status, Some(case.status));
}

#[test]
fn openai_failures_have_their_faults() {
    for (line, case) in cases(include_str!("captured_openai.jsonl")) {
        check(line, &case, &openai::classify(case.status, &Hints::default(), case.body.as_bytes()));
    }
}

#[test]
fn bedrock_failures_have_their_faults() {
    for (line, case) in cases(include_str!("captured_bedrock.jsonl")) {
        let got = bedrock::classify(case.status, &Hints::default(), case.code.as_deref(), case.body.as_bytes());
        check(line, &case, &got);
        // The header says the same as the SDK, with an address after the name.
        let header = case.code.map(|code| format!("{code}:http://internal.amazon.com/coral/com.amazon.bedrock/"));
        let hints = Hints { error_type: header.as_deref(), ..Hints::default() };
        assert_eq!(bedrock::classify(case.status, &hints, None, case.body.as_bytes()), got);
    }
}

#[test]
fn the_providers_words_are_kept() {
    let got = openai::classify(
        400,
        &Hints::default(),
        br#"{"error":{"message":"Invalid value: 'x'.","param":"messages[0].role","code":"invalid_value"}}"#,
    );
    assert_eq!(got.message, "Invalid value: 'x'.");
    assert_eq!(got.code.as_deref(), Some("invalid_value"));
    assert_eq!(got.param.as_deref(), Some("messages[0].role"));
    let got = openai::classify(502, &Hints::default(), b"<html><title>502 Bad Gateway</title></html>");
    assert_eq!(got.message, "HTTP 502, not in the provider's own form: 502 Bad Gateway");
    let got = openai::classify(500, &Hints::default(), &b"x".repeat(1_000_000));
    assert!(got.message.len() < 300, "{}", got.message.len());
    let got = bedrock::classify(
        529,
        &Hints::default(),
        None,
        br#"{"error":{"type":"overloaded_error","message":"Overloaded"}}"#,
    );
    assert_eq!((got.message.as_str(), got.code.as_deref()), ("Overloaded", Some("overloaded_error")));
}

#[test]
fn hints_are_obeyed() {
    let body = br#"{"error":{"message":"Rate limit reached. Please try again in 2s.","code":"rate_limit_exceeded"}}"#;
    let wait = |hints: Hints<'_>, status| openai::classify(status, &hints, body).retry_after;
    assert_eq!(wait(Hints::default(), 429), Some(Duration::from_secs(2)), "in words");
    let header = Hints { retry_after: Some("7.5"), ..Hints::default() };
    assert_eq!(wait(header, 429), Some(Duration::from_millis(7_500)), "the header goes first");
    let year = Hints { retry_after: Some("31536000"), ..Hints::default() };
    assert_eq!(wait(year, 503), Some(MAX_RETRY_AFTER));
    assert_eq!(wait(header, 400), None, "nobody comes back to a refusal");

    let fault = |should_retry, status| {
        openai::classify(status, &Hints { should_retry: Some(should_retry), ..Hints::default() }, b"{}").fault
    };
    assert_eq!(fault("false", 500), Unavailable);
    assert_eq!(fault("false", 429), Unavailable);
    assert_eq!(fault("true", 400), Transient);
    assert_eq!(fault("true", 401), Misconfigured);
    assert_eq!(fault("maybe", 500), Transient);

    let daily = br#"{"message":"Too many tokens per day, please wait before trying again."}"#;
    let rest = |hints| bedrock::classify(429, &hints, Some("ThrottlingException"), daily).retry_after;
    assert_eq!(rest(Hints::default()), Some(Duration::from_hours(1)));
    assert_eq!(rest(header), Some(Duration::from_millis(7_500)));
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_classified(status in 0_u16..1_000, body: Vec<u8>, text: String) {
        let hints = Hints {
            retry_after: Some(&text),
            retry_after_ms: Some(&text),
            should_retry: Some(&text),
            error_type: Some(&text),
            now: Some(crate::clock::Timestamp::from_micros(0)),
        };
        for got in [
            openai::classify(status, &hints, &body),
            openai::classify(status, &hints, text.as_bytes()),
            bedrock::classify(status, &hints, None, &body),
            bedrock::classify(status, &hints, Some(&text), text.as_bytes()),
        ] {
            proptest::prop_assert!(got.retry_after.is_none_or(|wait| wait <= MAX_RETRY_AFTER));
            proptest::prop_assert!(got.message.chars().count() <= MAX_MESSAGE + 1);
        }
        let _ = go_duration(&text);
    }
}
