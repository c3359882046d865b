//! Where AWS credentials come from, each way tried in a process of its own with an environment of its own.

use std::{path::Path, process::Stdio};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;

use super::*;

const ENDPOINT: &str = "LANDBRIDGE_TEST_ENDPOINT";
const ROLE: &str = "LANDBRIDGE_TEST_ROLE";
const PROFILE: &str = "LANDBRIDGE_TEST_PROFILE";

/// The inside of [`credentials_are_found`]: one call, in the environment given.
#[tokio::test]
#[ignore = "runs inside the test below, in an environment made for it"]
async fn one_call() {
    let variable = |name: &str| std::env::var(name).ok();
    let api = ApiSettings::Bedrock {
        region: None,
        profile: variable(PROFILE),
        role_arn: variable(ROLE),
        endpoint_url: variable(ENDPOINT),
        anonymous: false,
    };
    let settings = ProviderSettings { family: None, data_regions: Vec::new(), api };
    let provider = connect(&ProviderName::new("bedrock").unwrap(), &settings, &MediaSettings::default()).await.unwrap();
    let mut call = call(Api::Bedrock);
    Arc::make_mut(&mut call.target).region = None;
    match provider.chat(call).await {
        Ok(reply) => println!("answered: {}", reply.completion),
        Err(error) => println!("failed: {:?} {:?} {error}", error.fault, error.code),
    }
}

/// Plays Bedrock, STS, the metadata service of EC2 and that of containers.
fn play(request: &Request<Bytes>) -> Response<Full<Bytes>> {
    let role = |action: &str, key: &str| {
        format!(
            "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result><Credentials>\
             <AccessKeyId>{key}</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>\
             <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials><AssumedRoleUser>\
             <Arn>arn:aws:sts::1:assumed-role/r/s</Arn><AssumedRoleId>AROA:s</AssumedRoleId></AssumedRoleUser>\
             </{action}Result></{action}Response>"
        )
    };
    let keys = |key: &str| {
        format!(
            "{{\"Code\":\"Success\",\"Type\":\"AWS-HMAC\",\"LastUpdated\":\"2020-01-01T00:00:00Z\",\
             \"AccessKeyId\":\"{key}\",\"SecretAccessKey\":\"s\",\"Token\":\"t\",\
             \"Expiration\":\"2099-01-01T00:00:00Z\"}}"
        )
    };
    let asked = String::from_utf8_lossy(request.body()).into_owned();
    let body = match request.uri().path() {
        path if path.ends_with("/converse") => CONVERSED.to_owned(),
        "/" if asked.contains("Action=AssumeRoleWithWebIdentity") => role("AssumeRoleWithWebIdentity", "AKIAWEB"),
        "/" if asked.contains("Action=AssumeRole") => role("AssumeRole", "AKIAROLE"),
        "/container" => keys("AKIACONTAINER"),
        "/latest/api/token" => {
            return Response::builder()
                .header("x-aws-ec2-metadata-token-ttl-seconds", "21600")
                .body(Full::new(Bytes::from_static(b"token")))
                .unwrap();
        }
        "/latest/meta-data/iam/security-credentials/" => "some-role".to_owned(),
        "/latest/meta-data/iam/security-credentials/some-role" => keys("AKIAEC2"),
        _ => return Response::builder().status(404).body(Full::default()).unwrap(),
    };
    Response::new(Full::new(body.into()))
}

type Variables<'a> = Vec<(&'a str, &'a str)>;

async fn in_environment(server: &server::Server, home: &Path, variables: &[(&str, &str)]) -> String {
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
    child
        .args(["provider::tests::credentials::one_call", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .env(ENDPOINT, &server.url)
        .env("AWS_ENDPOINT_URL_STS", &server.url)
        .env("BEDROCK_REGION", "eu-north-1")
        .env("AWS_REGION", "us-west-2")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, child.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_found() {
    let server = server::start(false, |request| play(&request)).await;
    let home = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = home.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let config = file(
        "config",
        "[profile by-process]\ncredential_process = printf '{\"Version\":1,\"AccessKeyId\":\"AKIAPROCESS\",\"SecretAccessKey\":\"s\"}'\n\
         [profile plain]\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = s\n\
         [profile chained]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = plain\n\
         [profile people]\nsso_start_url = https://example.invalid/start\nsso_region = us-east-1\n\
         sso_account_id = 1\nsso_role_name = r\n",
    );
    let token = file("token", "web-identity-token");
    let container = format!("{}/container", server.url);
    let config = ("AWS_CONFIG_FILE", config.as_str());
    let keys: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "AKIAENV"), ("AWS_SECRET_ACCESS_KEY", "s")];
    let cases: [(&str, Variables<'_>, &str); 9] = [
        ("environment", keys.to_vec(), "Credential=AKIAENV/"),
        ("bearer token", vec![("AWS_BEARER_TOKEN_BEDROCK", "bedrock-api-key-1")], "Bearer bedrock-api-key-1"),
        ("profile", vec![config, (PROFILE, "plain")], "Credential=AKIAPROFILE/"),
        ("process", vec![config, (PROFILE, "by-process")], "Credential=AKIAPROCESS/"),
        ("role in a profile", vec![config, (PROFILE, "chained")], "Credential=AKIAROLE/"),
        ("role in the settings", [&keys[..], &[(ROLE, "arn:aws:iam::1:role/r")]].concat(), "Credential=AKIAROLE/"),
        (
            "web identity",
            vec![("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()), ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r")],
            "Credential=AKIAWEB/",
        ),
        ("container", vec![("AWS_CONTAINER_CREDENTIALS_FULL_URI", container.as_str())], "Credential=AKIACONTAINER/"),
        (
            "machine",
            vec![("AWS_EC2_METADATA_DISABLED", "false"), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url.as_str())],
            "Credential=AKIAEC2/",
        ),
    ];
    for (label, variables, says) in cases {
        let output = in_environment(&server, home.path(), &variables).await;
        assert!(output.contains("answered: "), "{label}: {output}");
        let requests = std::mem::take(&mut *server.seen.requests.lock().unwrap());
        let called = requests.iter().find(|request| request.uri().path().ends_with("/converse")).unwrap();
        let authorization = called.headers()["authorization"].to_str().unwrap();
        assert!(authorization.contains(says), "{label}: {authorization}");
        // BEDROCK_REGION goes before AWS_REGION.
        assert!(label == "bearer token" || authorization.contains("/eu-north-1/bedrock/"), "{label}: {authorization}");
    }

    // Without any, and with a kind that is not built in: nothing is sent, and the operator is told.
    for variables in [vec![], vec![config, (PROFILE, "people")]] {
        let output = in_environment(&server, home.path(), &variables).await;
        assert!(output.contains("failed: Misconfigured Some(\"no_credentials\")"), "{output}");
        assert!(server.seen.requests.lock().unwrap().is_empty());
    }
}
