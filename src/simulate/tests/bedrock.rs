//! Bedrock's protocol, as the AWS SDK reads it.

use aws_sdk_bedrockruntime::{
    Client,
    config::{BehaviorVersion, Credentials, Region, retry::RetryConfig},
    error::{ProvideErrorMetadata, SdkError},
    operation::{RequestId, converse::ConverseError},
    types::{
        AnyToolChoice, ContentBlock, ConversationRole, InferenceConfiguration, JsonSchemaDefinition, Message,
        OutputConfig, OutputFormat, OutputFormatStructure, OutputFormatType, StopReason, SystemContentBlock, Tool,
        ToolChoice, ToolConfiguration, ToolInputSchema, ToolSpecification,
    },
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::Document;

use super::*;
use crate::{catalog::Catalog, simulate::Outcome};

const HAIKU: &str = "eu.anthropic.claude-haiku-4-5-20251001-v1:0";

fn client(simulation: &Simulation) -> Client {
    let config = aws_sdk_bedrockruntime::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new("AKIDSIMULATED", "secret", None, None, "tests"))
        .retry_config(RetryConfig::disabled())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(simulation.bedrock_endpoint_url())
        .build();
    Client::from_conf(config)
}

fn message(role: ConversationRole, text: &str) -> Message {
    Message::builder().role(role).content(ContentBlock::Text(text.to_owned())).build().unwrap()
}

fn ask(client: &Client, model: &str) -> aws_sdk_bedrockruntime::operation::converse::builders::ConverseFluentBuilder {
    client
        .converse()
        .model_id(model)
        .system(SystemContentBlock::Text("Answer with one of: net, games.".to_owned()))
        .messages(message(ConversationRole::User, "A network tool."))
}

type Failed = SdkError<ConverseError, HttpResponse>;

fn status(error: &Failed) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

#[tokio::test]
async fn the_sdk_reads_an_answer() {
    let simulation = simulation(&[], &[]).await;
    let reply = ask(&client(&simulation), HAIKU).request_metadata("landbridge_job", "job_1").send().await.unwrap();
    let said = reply.output().unwrap().as_message().unwrap();
    assert_eq!(said.content()[0].as_text().unwrap(), "net");
    assert_eq!(reply.stop_reason(), &StopReason::EndTurn);
    let usage = reply.usage().unwrap();
    assert_eq!((usage.input_tokens(), usage.output_tokens(), usage.total_tokens()), (21, 1, 22));
    assert!(reply.metrics().is_some());
    assert!(reply.request_id().is_some());
    let entry = simulation.journal(0, 1).data.remove(0);
    assert_eq!((entry.model.as_str(), entry.region.as_deref()), (HAIKU, Some("eu-central-1")));
    assert_eq!((entry.job.as_deref(), entry.outcome), (Some("job_1"), Outcome::Answered));
    assert_eq!(Some(entry.request_id.as_str()), reply.request_id());
    simulation.stop().await;
}

#[tokio::test]
async fn arns_are_models_too() {
    let simulation = simulation(&[], &[]).await;
    let arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3";
    ask(&client(&simulation), arn).send().await.unwrap();
    assert_eq!(simulation.journal(0, 1).data[0].model, arn);
}

#[tokio::test]
async fn bounds_and_stops_end_an_answer() {
    let simulation = simulation(&[], &[]).await;
    let client = client(&simulation);
    let long = client
        .converse()
        .model_id(HAIKU)
        .messages(message(ConversationRole::User, "Tell me everything about everything that there is, please."));
    let bounded = long.clone().inference_config(InferenceConfiguration::builder().max_tokens(3).build());
    let reply = bounded.send().await.unwrap();
    assert_eq!((reply.stop_reason(), reply.usage().unwrap().output_tokens()), (&StopReason::MaxTokens, 3));
    let stopped = long.inference_config(InferenceConfiguration::builder().stop_sequences("answer").build());
    assert_eq!(stopped.send().await.unwrap().stop_reason(), &StopReason::StopSequence);
}

#[tokio::test]
async fn a_forced_tool_is_called() {
    let simulation = simulation(&[], &[]).await;
    let schema = Document::Object([("type".to_owned(), Document::String("object".to_owned()))].into_iter().collect());
    let tool = ToolSpecification::builder().name("file").input_schema(ToolInputSchema::Json(schema)).build().unwrap();
    let tools = ToolConfiguration::builder()
        .tools(Tool::ToolSpec(tool))
        .tool_choice(ToolChoice::Any(AnyToolChoice::builder().build()))
        .build()
        .unwrap();
    let reply = ask(&client(&simulation), HAIKU).tool_config(tools).send().await.unwrap();
    assert_eq!(reply.stop_reason(), &StopReason::ToolUse);
    let said = reply.output().unwrap().as_message().unwrap();
    assert_eq!(said.content()[0].as_tool_use().unwrap().name(), "file");
}

#[tokio::test]
async fn wrong_requests_are_refused_as_bedrock_refuses_them() {
    let simulation = simulation(&[], &[]).await;
    let client = client(&simulation);
    let with = |config| ask(&client, HAIKU).inference_config(config);
    let user = |text: &str| message(ConversationRole::User, text);
    let cases = [
        (client.converse().model_id(HAIKU), "A conversation must start with a user message"),
        (
            client.converse().model_id(HAIKU).messages(message(ConversationRole::Assistant, "x")),
            "A conversation must start with a user message",
        ),
        (ask(&client, HAIKU).messages(user("again")), "must alternate between user and assistant"),
        (client.converse().model_id(HAIKU).messages(user("  ")), "messages.0.content.0 is blank"),
        (ask(&client, HAIKU).system(SystemContentBlock::Text(String::new())), "system.1 is blank"),
        (
            with(InferenceConfiguration::builder().temperature(1.5).build()),
            "Value '1.5' at 'inferenceConfig.temperature' failed to satisfy constraint",
        ),
        (with(InferenceConfiguration::builder().top_p(-0.5).build()), "greater than or equal to 0"),
        (with(InferenceConfiguration::builder().max_tokens(0).build()), "'inferenceConfig.maxTokens'"),
        (with(InferenceConfiguration::builder().stop_sequences("").build()), "stopSequences"),
    ];
    for (request, message) in cases {
        let error = request.send().await.unwrap_err();
        assert_eq!((status(&error), error.code()), (Some(400), Some("ValidationException")), "{message}");
        assert!(error.message().unwrap().contains(message), "{message}: {error:?}");
        assert!(matches!(error.into_service_error(), ConverseError::ValidationException(_)), "{message}");
    }
}

#[tokio::test]
async fn answers_keep_a_schema_and_system_text_stands_behind_the_user() {
    let simulation = simulation(&[], &[]).await;
    let client = client(&simulation);
    let format = |schema: &str| {
        let schema = JsonSchemaDefinition::builder().schema(schema).build().unwrap();
        let format = OutputFormat::builder()
            .r#type(OutputFormatType::JsonSchema)
            .structure(OutputFormatStructure::JsonSchema(schema))
            .build()
            .unwrap();
        OutputConfig::builder().text_format(format).build()
    };
    let schema = r#"{"type":"object","properties":{"label":{"type":"string","enum":["net"]}},"required":["label"]}"#;
    let reply = ask(&client, HAIKU)
        .messages(message(ConversationRole::System, "Be exact."))
        .output_config(format(schema))
        .send()
        .await
        .unwrap();
    let said = reply.output().unwrap().as_message().unwrap().content()[0].as_text().unwrap().to_owned();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&said).unwrap(), serde_json::json!({ "label": "net" }));

    let error = ask(&client, HAIKU).output_config(format("no schema")).send().await.unwrap_err();
    assert!(error.message().unwrap().contains("not a valid JSON schema"), "{error:?}");
    let assistant = message(ConversationRole::Assistant, "x");
    let error = ask(&client, HAIKU)
        .messages(assistant)
        .messages(message(ConversationRole::System, "Be exact."))
        .send()
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some("ValidationException"));
}

#[tokio::test]
async fn faults_have_bedrocks_shapes() {
    let cases = [
        ("throttled", 429, Some("ThrottlingException")),
        ("quota-exhausted", 429, Some("ThrottlingException")),
        ("server-error", 500, Some("InternalServerException")),
        ("overloaded", 503, Some("ServiceUnavailableException")),
        ("overloaded,status=529", 529, None),
        ("model-timeout", 408, Some("ModelTimeoutException")),
        ("unauthorized", 403, Some("UnrecognizedClientException")),
        ("forbidden", 403, Some("AccessDeniedException")),
        ("model-not-found", 400, Some("ValidationException")),
        ("end-of-life", 404, Some("ResourceNotFoundException")),
        ("context-length", 400, Some("ValidationException")),
        ("refused", 400, Some("ValidationException")),
        ("bad-gateway", 502, None),
        ("broken-json", 200, None),
    ];
    for (fault, expected, code) in cases {
        let simulation = simulation(&[&format!("bedrock={fault}")], &[]).await;
        let error = ask(&client(&simulation), HAIKU).send().await.unwrap_err();
        assert_eq!((status(&error), error.code()), (Some(expected), code), "{fault}");
    }
    let filtered = simulation(&["bedrock=content-filter"], &[]).await;
    let reply = ask(&client(&filtered), HAIKU).send().await.unwrap();
    assert_eq!(reply.stop_reason(), &StopReason::ContentFiltered);
    let reset = simulation(&["bedrock=reset,bytes=40"], &[]).await;
    let error = ask(&client(&reset), HAIKU).send().await.unwrap_err();
    assert!(matches!(error, SdkError::DispatchFailure(_) | SdkError::ResponseError(_)), "{error:?}");
    let hinted = simulation(&["bedrock=overloaded,status=529,retry_after=3s"], &[]).await;
    let error = ask(&client(&hinted), HAIKU).send().await.unwrap_err();
    assert_eq!(error.raw_response().unwrap().headers().get("retry-after"), Some("3"));
}

#[tokio::test]
async fn tokens_are_reserved_by_the_bound_and_told_by_nothing() {
    let simulation = simulation(&[], &["bedrock=tpm=60000"]).await;
    let client = client(&simulation);
    let bounded =
        |most| ask(&client, HAIKU).inference_config(InferenceConfiguration::builder().max_tokens(most).build());
    // The bucket holds 1,000: a bound of 60,000 can never be reserved, though the answer has one token.
    let error = bounded(60_000).send().await.unwrap_err();
    assert_eq!((status(&error), error.code()), (Some(429), Some("ThrottlingException")));
    assert!(error.message().unwrap().starts_with("Too many tokens, please wait"));
    assert!(error.raw_response().unwrap().headers().get("retry-after").is_none());
    // What is not used is given back: these would not fit otherwise.
    for _ in 0..5 {
        bounded(800).send().await.unwrap();
    }
}

#[tokio::test]
async fn what_the_catalogue_says_of_models_holds() {
    let simulation =
        Simulation::start(SimulateOptions { catalog: Catalog::builtin(), ..options(&[], &[]) }).await.unwrap();
    let client = client(&simulation);
    let sonnet = "eu.anthropic.claude-sonnet-5-5";
    let cool = || InferenceConfiguration::builder().temperature(0.5).build();
    for (request, code, message) in [
        (ask(&client, "us.example.imagined-v1:0"), "ValidationException", "The provided model identifier is invalid."),
        (
            ask(&client, HAIKU.trim_start_matches("eu.")),
            "ValidationException",
            "with on-demand throughput isn’t supported",
        ),
        (
            ask(&client, &HAIKU.replace("eu.", "us.")),
            "ValidationException",
            "The provided model identifier is invalid.",
        ),
        (ask(&client, "anthropic.claude-3-haiku-20240307-v1:0"), "ResourceNotFoundException", "end of its life"),
        (ask(&client, sonnet).inference_config(cool()), "ValidationException", "`temperature` is deprecated"),
        (
            ask(&client, sonnet).messages(message(ConversationRole::Assistant, "I")),
            "ValidationException",
            "must end with a user message",
        ),
        (
            ask(&client, HAIKU).inference_config(InferenceConfiguration::builder().temperature(0.5).top_p(0.5).build()),
            "ValidationException",
            "cannot both be specified",
        ),
        (
            ask(&client, HAIKU).inference_config(InferenceConfiguration::builder().max_tokens(64_001).build()),
            "ValidationException",
            "exceeds the model limit of 64000",
        ),
    ] {
        let error = request.send().await.unwrap_err();
        assert_eq!(error.code(), Some(code), "{message}");
        assert!(error.message().unwrap().contains(message), "{message}: {error:?}");
    }
    ask(&client, HAIKU).inference_config(cool()).send().await.unwrap();
    let neutral = InferenceConfiguration::builder().temperature(1.0).build();
    ask(&client, sonnet).inference_config(neutral).send().await.unwrap();
}
