//! Envelopes: what is taken, and what is refused with the field that is wrong.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn parse(value: &Value) -> Result<Envelope, EnvelopeError> {
    let parsed = Envelope::parse(value.to_string().as_bytes());
    assert_eq!(parsed, Envelope::from_value(value.clone()), "text and value are read alike");
    parsed
}

fn with(field: &str, value: Value) -> Value {
    let mut job = json!({ "body": { "messages": [{ "role": "user", "content": "hi" }] } });
    job[field] = value;
    job
}

#[test]
fn a_full_native_job() {
    let job = parse(&json!({
        "pipeline": "ticket-triage",
        "idempotency_key": "order-17",
        "batch": "nightly",
        "metadata": { "customer": "c-1", "region": "eu" },
        "priority": -5,
        "not_before": "2026-11-22T10:00:00Z",
        "deadline": "2026-11-22T13:00:00.250+02:00",
        "callback": "https://hooks.example.com/in?token=1",
        "body": { "model": "gpt-4o-mini", "messages": [{ "role": "user", "content": "hi" }], "temperature": 0 },
    }))
    .unwrap();
    assert_eq!(job.pipeline.unwrap().as_str(), "ticket-triage");
    assert_eq!(job.idempotency_key.as_deref(), Some("order-17"));
    assert_eq!(job.batch.as_deref(), Some("nightly"));
    assert_eq!(job.metadata.get("customer").map(String::as_str), Some("c-1"));
    assert_eq!(job.priority, Some(-5));
    assert_eq!(job.callback.as_deref(), Some("https://hooks.example.com/in?token=1"));
    assert_eq!(job.not_before.unwrap().to_string(), "2026-11-22T10:00:00.000Z");
    assert_eq!(job.deadline.unwrap().to_string(), "2026-11-22T11:00:00.250Z");
    assert_eq!(job.body["temperature"], json!(0));
}

#[test]
fn the_least_job_has_a_body_alone() {
    let job = parse(&json!({ "body": { "messages": [{ "role": "user" }] } })).unwrap();
    assert_eq!((job.pipeline, job.idempotency_key, job.priority), (None, None, None));
    assert!(job.metadata.is_empty());
}

#[test]
fn a_batch_line_brings_its_key() {
    let line = json!({
        "custom_id": "request-1",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": { "model": "gpt-4o-mini", "messages": [{ "role": "user", "content": "hi" }] },
        "metadata": { "customer": "c-1" },
    });
    let job = parse(&line).unwrap();
    assert_eq!(job.idempotency_key.as_deref(), Some("request-1"));
    assert_eq!(job.metadata.len(), 1);

    for (field, value, expected) in [
        ("url", json!("/v1/embeddings"), "`url` of a batch line must be \"/v1/chat/completions\""),
        ("method", json!("GET"), "`method` of a batch line must be \"POST\""),
        ("method", Value::Null, "needs `method`"),
        ("custom_id", Value::Null, "needs a `custom_id`"),
        ("idempotency_key", json!("k"), "are the same thing"),
    ] {
        let mut line = line.clone();
        line[field] = value;
        let error = parse(&line).unwrap_err();
        assert_eq!(error.param.as_deref(), Some(field));
        assert!(error.message.contains(expected), "{error}");
    }
}

#[test]
fn every_refusal_names_its_field() {
    let long = |length: usize| json!("ü".repeat(length));
    let pairs: serde_json::Map<String, Value> = (0..65).map(|n| (format!("k{n}"), json!("v"))).collect();
    for (field, value, param, expected) in [
        ("metdata", json!({}), "metdata", "did you mean `metadata`?"),
        ("messages", json!([]), "messages", "goes under `body`"),
        ("zzzzzz", json!(1), "zzzzzz", "a job has pipeline,"),
        ("callback", json!({ "url": "https://x" }), "callback", "must be a string"),
        ("callback", json!("hooks.example.com"), "callback", "https://"),
        ("pipeline", json!("Ticket Triage"), "pipeline", "is not a name"),
        ("pipeline", json!(7), "pipeline", "must be a string, not a number"),
        ("pipeline", json!(""), "pipeline", "is empty"),
        ("idempotency_key", long(256), "idempotency_key", "256 characters; at most 255"),
        ("idempotency_key", json!("a\u{0}b"), "idempotency_key", "control character"),
        ("batch", long(129), "batch", "at most 128"),
        ("batch", json!("a\nb"), "batch", "control character"),
        ("metadata", json!([]), "metadata", "an object of strings, not an array"),
        ("metadata", json!({ "order": 7 }), "metadata.order", "must be a string, not a number"),
        ("metadata", json!({ "order": null }), "metadata.order", "must be a string, not null"),
        ("metadata", json!({ "": "x" }), "metadata", "is no key of `metadata`"),
        ("metadata", json!({ "k".repeat(65): "x" }), "metadata", "1 to 64 characters"),
        ("metadata", json!({ "note": "ü".repeat(513) }), "metadata.note", "513 characters; at most 512"),
        ("metadata", json!({ "note": "a\u{0}" }), "metadata.note", "NUL"),
        ("metadata", Value::Object(pairs), "metadata", "65 pairs; at most 64"),
        ("priority", json!(1_001), "priority", "from -1000 to 1000, not 1001"),
        ("priority", json!(1.5), "priority", "not 1.5"),
        ("priority", json!("1"), "priority", "whole number"),
        ("priority", json!(u64::MAX), "priority", "whole number"),
        ("not_before", json!("tomorrow"), "not_before", "RFC 3339"),
        ("not_before", json!("2026-02-30T00:00:00Z"), "not_before", "RFC 3339"),
        ("not_before", json!("2026-11-22 10:00:00Z"), "not_before", "RFC 3339"),
        ("not_before", json!("2026-11-22T10:00:00"), "not_before", "RFC 3339"),
        ("not_before", json!("2026-11-22T10:00:00.Z"), "not_before", "RFC 3339"),
        ("not_before", json!("2026-11-22T10:00:00Z[UTC]"), "not_before", "RFC 3339"),
        ("deadline", json!(1_795_000_000), "deadline", "RFC 3339"),
        ("body", json!("hi"), "body", "must be an object (a chat request), not a string"),
        ("body", Value::Null, "body", "needs a `body`"),
        ("body", json!({}), "body.messages", "needs `messages`"),
        ("body", json!({ "messages": [] }), "body.messages", "is empty"),
        ("body", json!({ "messages": "hi" }), "body.messages", "an array of messages, not a string"),
        ("body", json!({ "messages": ["hi"] }), "body.messages[0]", "is a string, not an object"),
        ("body", json!({ "messages": [{ "role": "user" }, {}] }), "body.messages[1].role", "has no `role`"),
        ("body", json!({ "messages": [{ "role": 1 }] }), "body.messages[0].role", "a number, not a string"),
        ("body", json!({ "messages": [{ "role": "" }] }), "body.messages[0].role", "empty `role`"),
        ("body", json!({ "model": 4, "messages": [{ "role": "user" }] }), "body.model", "must be a string"),
    ] {
        let error = parse(&with(field, value)).expect_err(expected);
        assert_eq!(error.param.as_deref(), Some(param), "{error}");
        assert!(error.message.contains(expected), "{expected:?} in {error}");
    }
}

#[test]
fn a_job_that_expires_before_it_starts_is_refused() {
    let mut job = with("not_before", json!("2026-11-22T10:00:00Z"));
    job["deadline"] = json!("2026-11-22T11:00:00+01:00");
    assert_eq!(parse(&job).unwrap_err().param.as_deref(), Some("deadline"));
    job["deadline"] = json!("2026-11-22t11:00:01+01:00");
    parse(&job).unwrap();
}

#[test]
fn text_that_is_no_job_says_where() {
    for (text, param, expected) in [
        ("", None, "not valid JSON: EOF"),
        ("{", None, "not valid JSON: EOF"),
        ("[]", None, "a job, which is a JSON object"),
        ("7", None, "a job, which is a JSON object"),
        (r#"{"body":{"messages":[{"role":"user"}]}} x"#, None, "trailing characters at line 1 column 41"),
        (r#"{"body":{"messages":[{"role":"user"},]}}"#, None, "line 1 column"),
        (r#"{"batch":"a","batch":"b"}"#, Some("batch"), "`batch` is given twice"),
        (r#"{"batch":null,"batch":"b"}"#, Some("batch"), "`batch` is given twice"),
        (r#"{"metadata":{"a":"1","a":"2"}}"#, Some("metadata"), "the key `a` is given twice at line 1 column 29"),
        (r#"{"body":{"messages":[{"role":"user","role":"tool"}]}}"#, Some("body"), "the key `role` is given twice"),
        (r#"{"nope":1, oops"#, None, "not valid JSON"),
    ] {
        let error = Envelope::parse(text.as_bytes()).expect_err(text);
        assert_eq!(error.param.as_deref(), param, "{text}: {error}");
        assert!(error.message.contains(expected), "{text}: {error}");
    }
    let deep = format!("{{\"body\":{}", "[".repeat(100_000));
    assert!(Envelope::parse(deep.as_bytes()).unwrap_err().message.contains("recursion limit"));
    assert!(Envelope::parse(b"{\"batch\":\"\xff\"}").unwrap_err().message.contains("not valid JSON"));
    assert!(Envelope::parse(&vec![b' '; MAX_JOB_BYTES + 1]).unwrap_err().message.contains("bytes"));
}

#[test]
fn long_texts_are_cut_in_messages() {
    let error = parse(&with(&"x".repeat(1_000_000), json!(1))).unwrap_err();
    assert!(error.message.len() < 400, "{}", error.message.len());
}

#[test]
fn the_digest_sees_what_is_asked_and_nothing_else() {
    let digest = |text: &str| Envelope::parse(text.as_bytes()).unwrap().digest();
    let base = r#"{"metadata":{"a":"1","b":"2"},"body":{"messages":[{"role":"user","content":"hi"}],"n":1}}"#;
    let same = r#"{ "idempotency_key": "k", "body": {"n":1, "messages":[{"content":"hi","role":"user"}]},
                   "metadata":{"b":"2","a":"1"} }"#;
    assert_eq!(digest(base), digest(same));
    for other in [
        base.replace("\"hi\"", "\"ho\""),
        base.replace("\"a\":\"1\"", "\"a\":\"2\""),
        base.replacen('{', r#"{"priority":0,"#, 1),
        base.replacen('{', r#"{"batch":"b","#, 1),
        base.replacen('{', r#"{"deadline":"2026-11-22T10:00:00Z","#, 1),
        base.replacen('{', r#"{"not_before":"2026-11-22T10:00:00Z","#, 1),
    ] {
        assert_ne!(digest(base), digest(&other), "{other}");
    }
    let known = [0xc5, 0xb7, 0xa4, 0x28, 0x1b, 0x0c, 0xd1, 0xec];
    assert_eq!(digest(base)[..8], known, "stores keep digests: the form must not change");
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-8_000_i32..8_000).prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,6}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = Envelope::parse(&bytes);
    }

    #[test]
    fn any_value_in_any_field_is_answered(
        field in prop_oneof![
            Just("pipeline"), Just("idempotency_key"), Just("batch"), Just("metadata"), Just("priority"),
            Just("not_before"), Just("deadline"), Just("callback"), Just("body"), Just("custom_id"), Just("method"),
            Just("url"),
        ],
        value in json_value(),
    ) {
        if let Err(error) = parse(&with(field, value)) {
            prop_assert!(error.param.is_some(), "{}", error);
        }
    }

    #[test]
    fn the_digest_does_not_depend_on_the_order_of_keys(value in json_value()) {
        fn reversed(value: &Value) -> Value {
            match value {
                Value::Object(map) => {
                    Value::Object(map.iter().rev().map(|(key, value)| (key.clone(), reversed(value))).collect())
                }
                Value::Array(items) => items.iter().map(reversed).collect(),
                other => other.clone(),
            }
        }
        let mut job = with("priority", json!(1));
        job["body"]["extra"] = value;
        let (one, other) = (parse(&job).unwrap(), parse(&reversed(&job)).unwrap());
        prop_assert_eq!(one.digest(), other.digest());
    }
}
