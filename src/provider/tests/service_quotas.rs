//! What an account is granted, asked for and read.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};

use super::{server, *};
use crate::{job::Fault, provider::bedrock::Bedrock, settings::MediaSettings};

fn connected(url: &str) -> Bedrock {
    install_crypto();
    Bedrock::for_test(url, &MediaSettings::default(), &[])
}

#[tokio::test]
async fn every_page_is_asked_for_and_signed() {
    let pages = AtomicUsize::new(0);
    let server = server::start(false, move |request| {
        let asked: Value = serde_json::from_slice(request.body()).unwrap();
        let page = pages.fetch_add(1, Ordering::SeqCst);
        assert_eq!(asked["NextToken"].as_str(), (page > 0).then_some("more"));
        let quota = |name: &str| json!({ "QuotaName": name, "Value": 5e6, "Unit": "None", "QuotaCode": "L-1" });
        let body = match page {
            0 => json!({ "Quotas": [quota("a"), { "QuotaCode": "L-2" }], "NextToken": "more" }),
            _ => json!({ "Quotas": [quota("b")] }),
        };
        Response::new(Full::new(Bytes::from(body.to_string())))
    })
    .await;
    let bedrock = connected(&server.url);
    let found = bedrock.service_quotas(Some(&Region::new("us-east-1").unwrap())).await.unwrap();
    let quota = |name: &str| ServiceQuota { name: name.to_owned(), value: 5e6 };
    assert_eq!(found, [quota("a"), quota("b")]);
    let requests = server.seen.requests.lock().unwrap();
    for request in requests.iter() {
        let header = |name: &str| request.headers()[name].to_str().unwrap();
        assert_eq!(header("x-amz-target"), "ServiceQuotasV20190624.ListServiceQuotas");
        assert_eq!(header("content-type"), "application/x-amz-json-1.1");
        let signed = header("authorization");
        assert!(
            signed.contains("/us-east-1/servicequotas/aws4_request") && signed.contains("x-amz-target"),
            "{signed}"
        );
    }
}

#[tokio::test]
async fn a_refusal_says_what_to_allow_and_other_failures_what_they_are() {
    for (status, body, fault, words) in [
        (
            400,
            r#"{"__type":"com.amazonaws.servicequotas#AccessDeniedException","Message":"not authorized to perform"}"#,
            Fault::Misconfigured,
            "AccessDeniedException (400 Bad Request): not authorized to perform",
        ),
        (400, r#"{"__type":"TooManyRequestsException","message":"slow"}"#, Fault::Transient, "TooManyRequests"),
        (502, "<html>", Fault::Transient, "502"),
        (200, "<html>", Fault::Transient, "no list of quotas"),
    ] {
        let server = server::always(status, &[], body).await;
        let error = connected(&server.url).service_quotas(None).await.unwrap_err();
        assert!(error.fault == fault && error.message.contains(words), "{error:?}");
        let advice = error.advice.unwrap_or_default();
        assert_eq!(advice.contains("servicequotas:ListServiceQuotas"), fault == Fault::Misconfigured, "{advice}");
    }
}

#[tokio::test]
async fn pages_without_end_are_not_followed_for_ever() {
    let server = server::always(200, &[], r#"{"Quotas":[],"NextToken":"again"}"#).await;
    let error = connected(&server.url).service_quotas(None).await.unwrap_err();
    assert!(error.message.contains("more than 100 pages"), "{error:?}");
}
