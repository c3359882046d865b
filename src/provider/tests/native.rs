//! Bedrock's other doors: its endpoint in OpenAI's form, signed, and InvokeModel; ARNs and guardrails on the wire.

use std::process::Stdio;

use aws_sigv4::sign::v4::{calculate_signature, generate_signing_key};
use bytes::Bytes;
use http::Request;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::*;
use crate::{job::Fault, spec::Form};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// Makes the signature anew, from what came over the wire and the secret that the server knows.
fn verify(request: &Request<Bytes>, secret: &str) -> Result<(), String> {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let authorization = header("authorization").strip_prefix("AWS4-HMAC-SHA256 ").ok_or("not signed")?;
    let part = |name: &str| {
        authorization.split(", ").find_map(|part| part.strip_prefix(&format!("{name}="))).unwrap_or_default()
    };
    let scope: Vec<&str> = part("Credential").splitn(2, '/').collect();
    let [day, region, service, "aws4_request"] = scope[1].split('/').collect::<Vec<_>>()[..] else {
        return Err(format!("{scope:?}"));
    };
    let signed: Vec<&str> = part("SignedHeaders").split(';').collect();
    for needed in ["host", "x-amz-date"] {
        if !signed.contains(&needed) {
            return Err(format!("{needed} is not signed"));
        }
    }
    let headers: Vec<String> = signed.iter().map(|name| format!("{name}:{}\n", header(name).trim())).collect();
    let canonical = format!(
        "POST\n{}\n\n{}\n{}\n{}",
        request.uri().path(),
        headers.concat(),
        part("SignedHeaders"),
        hex(&Sha256::digest(request.body()))
    );
    let text = format!(
        "AWS4-HMAC-SHA256\n{}\n{day}/{region}/{service}/aws4_request\n{}",
        header("x-amz-date"),
        hex(&Sha256::digest(canonical.as_bytes()))
    );
    let time = header("x-amz-date");
    let seconds = jiff::fmt::strtime::parse("%Y%m%dT%H%M%SZ", time)
        .and_then(|parsed| parsed.to_datetime())
        .and_then(|at| at.to_zoned(jiff::tz::TimeZone::UTC))
        .map_err(|error| error.to_string())?
        .timestamp()
        .as_second();
    let at = std::time::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap());
    let key = generate_signing_key(secret, at, region, service);
    let expected = calculate_signature(key, text.as_bytes());
    if part("Signature") == expected { Ok(()) } else { Err(format!("the signature is wrong for\n{canonical}")) }
}

fn auth(service: &'static str) -> crate::settings::AwsAuth {
    crate::settings::AwsAuth { service, profile: None, role_arn: None, anonymous: true }
}

async fn native(url: &str, service: &'static str) -> openai::OpenAi {
    let (auth, region, base_url) = (auth(service), Region::new("us-west-2").unwrap(), format!("{url}/openai/v1"));
    let address = openai::Address {
        base_url: &base_url,
        api_key: None,
        organization: None,
        project: None,
        aws: Some((&auth, &region)),
    };
    openai::OpenAi::connect(&address, &[]).await.unwrap()
}

#[tokio::test]
async fn a_call_is_signed_as_aws_reads_it() {
    for service in ["bedrock", "bedrock-mantle"] {
        let server = server::always(200, &[("x-amzn-requestid", "req-3")], COMPLETION).await;
        let provider = native(&server.url, service).await;
        let reply = provider.chat(call(Api::OpenAi)).await.unwrap();
        assert_eq!(reply.provider_request_id.as_deref(), Some("req-3"));
        let mut request = server.only_request();
        assert_eq!(request.uri().path(), "/openai/v1/chat/completions");
        let scope = format!("/us-west-2/{service}/aws4_request");
        assert!(request.headers()["authorization"].to_str().unwrap().contains(&scope));
        // The secret of simulated credentials.
        verify(&request, "simulated").unwrap();
        assert!(verify(&request, "another").is_err());
        *request.body_mut() = Bytes::from_static(b"{}");
        assert!(verify(&request, "simulated").is_err(), "the body is signed");
    }
}

#[tokio::test]
async fn a_streamed_call_is_signed_with_what_it_asks() {
    let server = server::always(200, &[("content-type", "text/event-stream")], "data: [DONE]\n\n").await;
    let stream = native(&server.url, "bedrock").await.stream(call(Api::OpenAi)).await.unwrap();
    assert!(stream.gather(tokio::time::Instant::now()).await.outcome.is_err(), "no answer in it");
    let request = server.only_request();
    verify(&request, "simulated").unwrap();
    let body: Value = serde_json::from_slice(request.body()).unwrap();
    assert_eq!(body["stream"], true);
}

#[tokio::test]
async fn both_shapes_of_errors_are_read() {
    for (status, headers, body, fault, code) in [
        (
            403,
            &[("x-amzn-errortype", "AccessDeniedException:http://internal/")][..],
            r#"{"message":"User: x is not authorized to perform: bedrock:InvokeModel on resource: y"}"#,
            Fault::Misconfigured,
            "AccessDeniedException",
        ),
        (
            403,
            &[("x-amzn-errortype", "InvalidSignatureException")][..],
            r#"{"message":"The request signature we calculated does not match"}"#,
            Fault::Misconfigured,
            "InvalidSignatureException",
        ),
        (
            403,
            &[][..],
            r#"{"error":{"code":"access_denied","type":"permission_denied_error","message":"not available for this account","param":null}}"#,
            Fault::Misconfigured,
            "access_denied",
        ),
        (
            400,
            &[][..],
            r#"{"error":{"code":"context_length_exceeded","type":"invalid_request_error","message":"too long","param":"messages"}}"#,
            Fault::TooLong,
            "context_length_exceeded",
        ),
        (
            429,
            &[][..],
            r#"{"error":{"code":"rate_limit_exceeded","message":"slower"}}"#,
            Fault::Throttled,
            "rate_limit_exceeded",
        ),
    ] {
        let server = server::always(status, headers, body).await;
        let error = native(&server.url, "bedrock").await.chat(call(Api::OpenAi)).await.unwrap_err();
        assert_eq!((error.fault, error.code.as_deref()), (fault, Some(code)), "{error:?}");
        assert!(!error.possibly_billed, "{error:?}");
    }
}

const URL: &str = "LANDBRIDGE_TEST_NATIVE";

/// The inside of [`credentials_of_a_native_call`]: one call, in the environment given.
#[tokio::test]
#[ignore = "runs inside the test below, in an environment made for it"]
async fn one_native_call() {
    let api = ApiSettings::OpenAi {
        base_url: format!("{}/openai/v1", std::env::var(URL).unwrap()),
        api_key: std::env::var("NATIVE_KEY").is_ok().then(|| crate::settings::Secret::Env("NATIVE_KEY".to_owned())),
        organization: None,
        project: None,
        region: Some(Region::new("eu-west-1").unwrap()),
        aws: Some(crate::settings::AwsAuth { anonymous: false, ..auth("bedrock") }),
    };
    let settings = ProviderSettings { family: None, data_regions: Vec::new(), api };
    let name = ProviderName::new("native").unwrap();
    let provider = connect(&name, &settings, &MediaSettings::default()).await.unwrap();
    // Twice: credentials are kept between calls.
    for _ in 0..2 {
        match provider.chat(call(Api::OpenAi)).await {
            Ok(_) => println!("answered"),
            Err(error) => println!("failed: {:?} {:?} {error}", error.fault, error.code),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_of_a_native_call() {
    let keys = [
        ("AWS_ACCESS_KEY_ID", "AKIANATIVE"),
        ("AWS_SECRET_ACCESS_KEY", "of-the-test"),
        ("AWS_SESSION_TOKEN", "session"),
    ];
    let token = ("AWS_BEARER_TOKEN_BEDROCK", "bedrock-key-1");
    for (variables, says) in [
        (keys.to_vec(), "AWS4-HMAC-SHA256 Credential=AKIANATIVE/"),
        // A Bedrock API key goes before a signature, and the settings' own before the environment's.
        ([&keys[..], &[token]].concat(), "Bearer bedrock-key-1"),
        (vec![token, ("NATIVE_KEY", "settings-key")], "Bearer settings-key"),
        (Vec::new(), ""),
    ] {
        let server = server::always(200, &[], COMPLETION).await;
        let output = tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(["provider::tests::native::one_native_call", "--exact", "--ignored", "--nocapture"])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", "/nonexistent")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env(URL, &server.url)
            .envs(variables)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(PATIENCE, output).await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let requests = std::mem::take(&mut *server.seen.requests.lock().unwrap());
        if says.is_empty() {
            assert!(text.contains("failed: Misconfigured Some(\"no_credentials\")"), "{text}");
            assert!(requests.is_empty());
            continue;
        }
        assert_eq!(text.matches("answered").count(), 2, "{text}");
        let authorization = requests[0].headers()["authorization"].to_str().unwrap();
        assert!(authorization.starts_with(says), "{authorization}");
        if says.starts_with("AWS4") {
            assert!(authorization.contains("/eu-west-1/bedrock/aws4_request"), "{authorization}");
            assert_eq!(requests[0].headers()["x-amz-security-token"], "session");
            verify(&requests[0], "of-the-test").unwrap();
        }
    }
}

const IMPORTED: &str = "arn:aws:bedrock:us-east-2:123456789012:imported-model/abc123";

fn invoking(form: Form, model: &str, body: &Value) -> Call {
    let mut target = target(Api::Bedrock, model);
    (target.invoke, target.region) = (Some(form), None);
    let prepared = wire::prepare(&target, None, body).unwrap();
    let (payload, reading) = (prepared.payload, prepared.reading);
    Call {
        job: JobId::generate(),
        target: Arc::new(target),
        payload,
        reading,
        timeout: PATIENCE,
        idle_timeout: PATIENCE,
    }
}

#[tokio::test]
async fn a_model_is_invoked_in_its_own_form() {
    let body = json!({ "messages": [{ "role": "system", "content": "Be brief." }, { "role": "user", "content": "ping" }],
        "max_tokens": 20, "temperature": 0.5 });
    let claude = json!({"id": "msg_1", "type": "message", "role": "assistant", "content": [{"type": "text", "text": "pong"}],
        "stop_reason": "end_turn", "usage": {"input_tokens": 12, "output_tokens": 3}});
    let llama = json!({"generation": "pong", "stop_reason": "stop"});
    for (form, answer) in [(Form::Claude, claude), (Form::Llama, llama)] {
        // Llama's body says nothing of tokens here: the headers do.
        let headers = [("x-amzn-bedrock-input-token-count", "12"), ("x-amzn-bedrock-output-token-count", "3")];
        let server = server::always(200, &headers, answer.to_string()).await;
        let reply = provider(Api::Bedrock, &server.url, &[]).await.chat(invoking(form, IMPORTED, &body)).await.unwrap();
        assert_eq!(reply.usage, Some(Usage { input: 12, output: 3, ..Usage::default() }), "{form}");
        let completion: Value = serde_json::from_str(&reply.completion).unwrap();
        assert_eq!(completion["choices"][0]["message"]["content"], "pong", "{form}");
        let request = server.only_request();
        assert_eq!(
            request.uri().path(),
            "/model/arn%3Aaws%3Abedrock%3Aus-east-2%3A123456789012%3Aimported-model%2Fabc123/invoke"
        );
        // The ARN says which region is called.
        let authorization = request.headers()["authorization"].to_str().unwrap();
        assert!(authorization.contains("/us-east-2/bedrock/aws4_request"), "{authorization}");
        assert_eq!(request.headers()["content-type"], "application/json");
        let sent: Value = serde_json::from_slice(request.body()).unwrap();
        match form {
            Form::Claude => {
                assert_eq!(sent["anthropic_version"], "bedrock-2023-05-31");
                assert_eq!((&sent["max_tokens"], sent.get("model")), (&json!(20), None));
            }
            Form::Llama => {
                assert_eq!(sent["max_gen_len"], 20);
                assert!(sent["prompt"].as_str().unwrap().contains("ping"), "{sent}");
            }
        }
    }
}

#[tokio::test]
async fn profiles_of_the_account_are_called_where_they_are() {
    let arn = "arn:aws:bedrock:ap-south-1:123456789012:application-inference-profile/a1b2c3";
    let server = server::always(200, &[], CONVERSED).await;
    let mut call = call(Api::Bedrock);
    let target = Arc::make_mut(&mut call.target);
    (target.model, target.region) = (arn.to_owned(), None);
    provider(Api::Bedrock, &server.url, &[]).await.chat(call).await.unwrap();
    let request = server.only_request();
    assert_eq!(
        request.uri().path(),
        "/model/arn%3Aaws%3Abedrock%3Aap-south-1%3A123456789012%3Aapplication-inference-profile%2Fa1b2c3/converse"
    );
    assert!(request.headers()["authorization"].to_str().unwrap().contains("/ap-south-1/bedrock/"));
}

#[tokio::test]
async fn guardrails_go_with_every_kind_of_call() {
    let guardrail = wire::converse::Guardrail {
        guardrail_identifier: "gr-1".to_owned(),
        guardrail_version: "DRAFT".to_owned(),
        trace: Some("enabled".to_owned()),
    };
    for (invoke, streams) in [(false, false), (false, true), (true, false), (true, true)] {
        let server = server::always(500, &[], "").await;
        let body = json!({ "messages": [{ "role": "user", "content": "ping" }], "max_tokens": 20 });
        let mut call = if invoke { invoking(Form::Claude, IMPORTED, &body) } else { call_with(Api::Bedrock, &body) };
        let (Payload::Converse(request) | Payload::Invoke(_, request)) = &mut call.payload else { panic!() };
        request.guardrail_config = Some(guardrail.clone());
        let provider = provider(Api::Bedrock, &server.url, &[]).await;
        if streams {
            assert!(provider.stream(call).await.is_err());
        } else {
            assert!(provider.chat(call).await.is_err());
        }
        let request = server.only_request();
        if invoke {
            let header = |name: &str| request.headers()[name].to_str().unwrap();
            assert_eq!(header("x-amzn-bedrock-guardrailidentifier"), "gr-1");
            assert_eq!(header("x-amzn-bedrock-guardrailversion"), "DRAFT");
            assert_eq!(header("x-amzn-bedrock-trace"), "ENABLED");
        } else {
            let body: Value = serde_json::from_slice(request.body()).unwrap();
            let expected = json!({"guardrailIdentifier": "gr-1", "guardrailVersion": "DRAFT", "trace": "enabled"});
            for (name, value) in expected.as_object().unwrap() {
                assert_eq!(&body["guardrailConfig"][name], value, "{body}");
            }
        }
    }
}
