//! Rubbish in, clear words out; nothing lost for the others.

use proptest::{prelude::*, strategy::ValueTree as _};
use serde_json::json;

use super::site::{SPEC, Site, job};

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_bad_request_has_its_error() {
    let site = Site::new(SPEC).await;
    let daemon = site.start().await;
    let cases = [
        ("/v1/jobs", "", 400),
        ("/v1/jobs", "{", 400),
        ("/v1/jobs", "[]", 400),
        ("/v1/jobs", "{\"pipeline\":\"triage\"}", 400),
        ("/v1/jobs", "{\"pipeline\":\"triage\",\"body\":{\"messages\":[]}}", 400),
        ("/v1/jobs", "{\"pipeline\":\"triage\",\"bdoy\":{}}", 400),
        ("/v1/jobs", "{\"pipeline\":\"UPPER\",\"body\":{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}}", 400),
        ("/v1/jobs", "{\"pipeline\":\"triag\",\"body\":{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}}", 404),
        (
            "/v1/jobs",
            "{\"pipeline\":\"triage\",\"deadline\":\"2001-01-01T00:00:00Z\",\"body\":{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}}",
            400,
        ),
        (
            "/v1/jobs",
            "{\"pipeline\":\"triage\",\"callback\":\"http://x\",\"body\":{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}}",
            400,
        ),
        ("/v1/jobs/nonsense/cancel", "", 400),
        ("/v1/jobs/job_00000000000000000000000000000000/cancel", "", 404),
        ("/v1/ops/flags", "{\"flag\":\"FORCE_OPENIA_PROVIDER\"}", 400),
        ("/v1/ops/flags", "{\"flag\":\"PAUSE\",\"pipeline\":\"nope\"}", 404),
        ("/v1/ops/rollback", "{}", 400),
        ("/v1/nowhere", "", 404),
    ];
    for (path, body, expected) in cases {
        let (status, answer) = daemon.post_any(path, body).await;
        assert_eq!(status, expected, "POST {path} {body}: {answer}");
        let error = answer["error"].as_object().unwrap_or_else(|| panic!("{path}: {answer}"));
        assert_eq!(error.keys().collect::<Vec<_>>(), ["message", "type", "param", "code"], "{answer}");
        assert!(error["message"].as_str().unwrap().len() > 10, "{answer}");
    }
    for (path, expected) in [
        ("/v1/jobs?state=odd", 400),
        ("/v1/jobs?limit=0", 400),
        ("/v1/jobs?nope=1", 400),
        ("/v1/jobs/job_1", 400),
        ("/v1/jobs/%ff", 400),
        ("/v1/files/%ff", 400),
        ("/v1/batches/%ff", 400),
        ("/v1/models/%ff", 400),
        ("/p/%ff/v1/models", 400),
    ] {
        let (status, answer) = daemon.get_any(path).await;
        assert_eq!(status, expected, "GET {path}: {answer}");
        assert!(answer["error"]["message"].is_string(), "GET {path}: {answer}");
    }
    // No text at all, where texts belong.
    for place in ["pipeline", "metadata", "body", "idempotency_key"] {
        let mut bytes = job(3).to_string().into_bytes();
        let at = String::from_utf8_lossy(&bytes).find(&format!("\"{place}\":")).unwrap() + place.len() + 5;
        bytes.insert(at, 0xff);
        let (status, answer) = daemon.post_any("/v1/jobs", bytes).await;
        assert_eq!((status, &answer["error"]["type"]), (400, &json!("invalid_request_error")), "{place}: {answer}");
    }
    let (status, answer) = daemon.post_any("/v1/jobs", vec![b'x'; 33 * 1024 * 1024]).await;
    assert_eq!((status, &answer["error"]["code"]), (413, &json!("body_too_large")));
    let (_, near) = daemon.post_any("/v1/jobs", job(1).to_string().replace("triage", "triaeg")).await;
    assert!(near["error"]["message"].as_str().unwrap().contains("triage"), "{near}");
    let id = daemon.post("/v1/jobs", job(2)).await["id"].as_str().unwrap().to_owned();
    assert_eq!(daemon.ended_job(&id).await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn any_bytes_as_a_request_leave_the_daemon_well() {
    let site = Site::new(SPEC).await;
    let daemon = site.start().await;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let bytes = proptest::collection::vec(any::<u8>(), 0..400);
    let almost = r#"\{"pipeline":"triage","[a-z_]{1,12}":[0-9"\[\]{}a-z]{0,20}\}"#;
    let inputs = prop_oneof![bytes, almost.prop_map(|text: String| text.into_bytes())];
    for _ in 0..300 {
        let body = inputs.new_tree(&mut runner).unwrap().current();
        let (status, answer) = daemon.post_any("/v1/jobs", body).await;
        assert!((400..500).contains(&status), "{status} {answer}");
    }
    assert_eq!(daemon.text("/healthz").await, "ok\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_are_78_and_wrong_usage_is_64() {
    let site = Site::new(SPEC).await;
    site.save("config/landbridge.yaml", "listen: 127.0.0.1:0\nstroe: sqlite:x\n");
    let (code, said) = site.start_refused();
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("landbridge.yaml:2:1") && said.contains("store"), "{said}");
    let output = Site::new(SPEC).await.command(&["run"]).env("FORCE_OPENAI_PROVIDER", "ture").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(78) && said.contains("FORCE_OPENAI_PROVIDER"), "{said}");
    let output = site.command(&["run", "--no-such-option"]).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    let output = site.command(&["jobs", "list", "--url", "http://127.0.0.1:9"]).output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{}", String::from_utf8_lossy(&output.stderr));
}
