//! What goes over the wire, and what comes of each answer.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use serde_json::Value;

use super::*;
use crate::settings::Secret;

fn header<'a>(request: &'a Request<Bytes>, name: &str) -> &'a str {
    request.headers().get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
}

#[tokio::test]
async fn an_openai_call_is_one_post() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "sk-secret-1234\n").unwrap();
    let server = server::always(
        200,
        &[("x-request-id", "req_1"), ("x-ratelimit-remaining-requests", "41"), ("x-ratelimit-reset-tokens", "1.5s")],
        COMPLETION,
    )
    .await;
    let settings = ProviderSettings {
        family: None,
        data_regions: Vec::new(),
        api: ApiSettings::OpenAi {
            base_url: format!("{}/v1", server.url),
            api_key: Some(Secret::File(key)),
            organization: Some("org-1".to_owned()),
            project: Some("proj-1".to_owned()),
            region: None,
            aws: None,
        },
    };
    let provider = connect(&ProviderName::new("openai").unwrap(), &settings, &MediaSettings::default()).await.unwrap();
    let body = json!({ "messages": [{ "role": "user", "content": "ping" }], "n": 2, "unheard_of": { "a": 1.50 } });
    let call = call_with(Api::OpenAi, &body);
    let job = call.job.to_string();
    let reply = provider.chat(call).await.unwrap();

    assert_eq!(reply.completion, COMPLETION);
    assert_eq!(reply.usage, Some(Usage { input: 12, output: 3, ..Usage::default() }));
    assert_eq!(reply.provider_request_id.as_deref(), Some("req_1"));
    assert_eq!(reply.rate_limit.remaining_requests, Some(41));
    assert_eq!(reply.rate_limit.reset_tokens, Some(Duration::from_millis(1_500)));

    let request = server.only_request();
    assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/v1/chat/completions"));
    for (name, value) in [
        ("authorization", "Bearer sk-secret-1234"),
        ("openai-organization", "org-1"),
        ("openai-project", "proj-1"),
        ("content-type", "application/json"),
        ("content-length", &request.body().len().to_string()),
        ("transfer-encoding", ""),
    ] {
        assert_eq!(header(&request, name), value, "{name}");
    }
    assert!(header(&request, "x-client-request-id").starts_with(&job));
    let mut expected = body;
    expected["model"] = "gpt-4o-mini".into();
    assert_eq!(serde_json::from_slice::<Value>(request.body()).unwrap(), expected);
}

#[tokio::test]
async fn a_converse_call_is_what_the_plain_data_say() {
    let server = server::always(200, &[("x-amzn-requestid", "req-2")], CONVERSED).await;
    let provider = provider(Api::Bedrock, &server.url, &[]).await;
    // Binary fractions, since the SDK narrows numbers to 32 bits.
    let call = call_with(
        Api::Bedrock,
        &json!({
            "messages": [
                { "role": "system", "content": "Be brief." }, { "role": "user", "content": "ping" },
                { "role": "assistant", "content": "pong" }, { "role": "user", "content": "again, \"ü\"" },
            ],
            "max_tokens": 77, "temperature": 0.5, "top_p": 0.25, "stop": ["END"], "top_k": 5,
            "metadata": { "order": "17" },
        }),
    );
    let Payload::Converse(mut plain) = call.payload.clone() else { panic!("not Converse") };
    assert!(plain.tag("landbridge-job", &call.job.to_string()));
    let reply = provider.chat(call).await.unwrap();

    let request = server.only_request();
    assert_eq!(
        (request.method().as_str(), request.uri().path()),
        ("POST", "/model/us.anthropic.claude-haiku-4-5-20251001-v1%3A0/converse")
    );
    assert_eq!(
        serde_json::from_slice::<Value>(request.body()).unwrap(),
        serde_json::to_value(&plain).unwrap(),
        "the SDK writes what our plain data say"
    );
    let signed = header(&request, "authorization");
    assert!(signed.starts_with("AWS4-HMAC-SHA256 Credential=AKIATEST/"), "{signed}");
    assert!(signed.contains("/eu-west-3/bedrock/aws4_request"), "the target's region: {signed}");

    assert_eq!(reply.usage, Some(Usage { input: 12, output: 3, ..Usage::default() }));
    assert_eq!(reply.provider_request_id.as_deref(), Some("req-2"));
    let completion: Value = serde_json::from_str(&reply.completion).unwrap();
    assert_eq!(completion["choices"][0]["message"]["content"], "pong");
    assert_eq!(completion["model"], CLAUDE);
    assert!(completion["id"].as_str().unwrap().starts_with("chatcmpl-"));
}

/// Whom, status, headers, body; fault, code, seconds to wait.
type Case = (Api, u16, &'static [(&'static str, &'static str)], &'static str, Fault, Option<&'static str>, Option<u64>);

#[tokio::test]
async fn failures_are_told_once_and_whole() {
    let cases: [Case; 9] = [
        (
            Api::OpenAi,
            429,
            &[("retry-after", "7"), ("x-ratelimit-remaining-tokens", "0")],
            r#"{"error":{"message":"Rate limit reached","type":"tokens","param":null,"code":"rate_limit_exceeded"}}"#,
            Fault::Throttled,
            Some("rate_limit_exceeded"),
            Some(7),
        ),
        (Api::OpenAi, 502, &[], "<html><title>Bad Gateway</title></html>", Fault::Transient, None, None),
        (Api::OpenAi, 200, &[], "<html>welcome</html>", Fault::Transient, Some("invalid_response"), None),
        (Api::OpenAi, 302, &[("location", "http://127.0.0.1:9/")], "", Fault::Misconfigured, None, None),
        (
            Api::Bedrock,
            429,
            &[("x-amzn-errortype", "ThrottlingException:http://internal/"), ("retry-after", "3")],
            r#"{"message":"Too many tokens, please wait before trying again."}"#,
            Fault::Throttled,
            Some("ThrottlingException"),
            Some(3),
        ),
        (
            Api::Bedrock,
            424,
            &[("x-amzn-errortype", "ModelErrorException")],
            r#"{"message":"bad","originalStatusCode":400,"resourceName":"m"}"#,
            Fault::Refused,
            Some("ModelErrorException"),
            None,
        ),
        (
            Api::Bedrock,
            529,
            &[("retry-after", "2")],
            r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
            Fault::Unavailable,
            Some("overloaded_error"),
            Some(2),
        ),
        (Api::Bedrock, 502, &[], "<html><title>Bad Gateway</title></html>", Fault::Transient, None, None),
        (Api::Bedrock, 200, &[], r#"{"output":{"message":"#, Fault::Transient, Some("invalid_response"), None),
    ];
    for (api, status, headers, body, fault, code, wait) in cases {
        let server = server::start(false, move |_| {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(*name, *value);
            }
            response.body(Full::new(Bytes::from_static(body.as_bytes()))).unwrap()
        })
        .await;
        let error = provider(api, &server.url, &[]).await.chat(call(api)).await.unwrap_err();
        let label = format!("{api} {status} {body}: {error:?}");
        assert_eq!(error.fault, fault, "{label}");
        assert_eq!(error.code.as_deref(), code, "{label}");
        assert_eq!(error.status, Some(status), "{label}");
        assert_eq!(error.retry_after, wait.map(Duration::from_secs), "{label}");
        // One call is one call: nobody retries or follows behind our back.
        assert_eq!(server.seen.requests.lock().unwrap().len(), 1, "{label}");
    }
}

#[tokio::test]
async fn a_provider_that_quotes_the_key_is_not_quoted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, "sk-quoted-5678").unwrap();
    let body = r#"{"error":{"message":"Incorrect API key provided: sk-quoted-5678.","code":"invalid_api_key"}}"#;
    let server = server::always(401, &[], body).await;
    let address = openai::Address {
        base_url: &server.url,
        api_key: Some(&Secret::File(path)),
        organization: None,
        project: None,
        aws: None,
    };
    let provider = openai::OpenAi::connect(&address, &[]).await.unwrap();
    let error = provider.chat(call(Api::OpenAi)).await.unwrap_err();
    assert_eq!(error.fault, Fault::Misconfigured);
    for shown in [format!("{error:?}"), format!("{provider:?}")] {
        assert!(!shown.contains("sk-quoted"), "{shown}");
    }
}

#[tokio::test]
async fn a_missing_key_stops_the_call_before_it_is_made() {
    let server = server::always(200, &[], COMPLETION).await;
    let secret = Secret::Env("LANDBRIDGE_NO_SUCH_KEY".to_owned());
    let address =
        openai::Address { base_url: &server.url, api_key: Some(&secret), organization: None, project: None, aws: None };
    let provider = openai::OpenAi::connect(&address, &[]).await.unwrap();
    let error = provider.chat(call(Api::OpenAi)).await.unwrap_err();
    assert_eq!((error.fault, error.possibly_billed), (Fault::Misconfigured, false));
    assert!(error.message.contains("LANDBRIDGE_NO_SUCH_KEY") && error.advice.is_some(), "{error:?}");
    assert!(server.seen.requests.lock().unwrap().is_empty());

    let error = provider.chat(call(Api::Bedrock)).await.unwrap_err();
    assert_eq!(error.code.as_deref(), Some("foreign_payload"));
}

#[tokio::test]
async fn settings_that_cannot_work_are_named() {
    let openai = |base_url: &str, project: Option<&str>| ApiSettings::OpenAi {
        base_url: base_url.to_owned(),
        api_key: None,
        organization: None,
        project: project.map(str::to_owned),
        region: None,
        aws: None,
    };
    let bedrock = |role_arn: Option<&str>, endpoint_url: Option<&str>| ApiSettings::Bedrock {
        region: Some(Region::new("us-east-1").unwrap()),
        profile: None,
        role_arn: role_arn.map(str::to_owned),
        endpoint_url: endpoint_url.map(str::to_owned),
        anonymous: false,
    };
    for (api, says) in [
        (openai("api.openai.com/v1", None), "base_url"),
        (openai("ftp://api.openai.com/v1", None), "base_url"),
        (openai("https://me:secret@api.openai.com/v1", None), "base_url"),
        (openai("https://api.openai.com/v1?key=secret", None), "base_url"),
        (openai("https://api.openai.com/v1", Some("a\nb")), "project"),
        (bedrock(Some("admin"), None), "role_arn"),
        (bedrock(None, Some("localhost:4000")), "endpoint_url"),
    ] {
        let settings = ProviderSettings { family: None, data_regions: Vec::new(), api };
        let error = connect(&ProviderName::new("p").unwrap(), &settings, &MediaSettings::default())
            .await
            .map(|_| ())
            .unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with(&format!("providers.p: {says}: ")), "{text}");
        assert!(!text.contains("me:secret"), "{text}");
    }
}
