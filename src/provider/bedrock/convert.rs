//! From our plain Converse data to the SDK's types, and JSON both ways.
//!
//! Invariant: mechanical: every field goes over as it is, and nothing is decided here. (The SDK holds temperature and
//! top_p in 32 bits: 0.7 goes out as 0.699999988.)

use aws_sdk_bedrockruntime::{
    operation::converse::builders::ConverseInputBuilder,
    types::{
        AnyToolChoice, AutoToolChoice, ContentBlock, ConversationRole, DocumentBlock, DocumentFormat, DocumentSource,
        GuardrailConfiguration, GuardrailTrace, ImageBlock, ImageFormat, ImageSource, InferenceConfiguration,
        JsonSchemaDefinition, Message, OutputConfig, OutputFormat, OutputFormatStructure, OutputFormatType, S3Location,
        ServiceTier, ServiceTierType, SpecificToolChoice, SystemContentBlock, Tool, ToolChoice, ToolConfiguration,
        ToolInputSchema, ToolResultBlock, ToolResultContentBlock, ToolSpecification, ToolUseBlock,
    },
};
use aws_smithy_types::{Blob, Document, Number, error::operation::BuildError};
use serde_json::Value;

use crate::{
    job::Fault,
    wire::{
        converse::{Block, Request, Role, Source, ToolChoice as Choice},
        faults::Classified,
    },
};

pub(super) fn request(call: ConverseInputBuilder, request: Request) -> Result<ConverseInputBuilder, Classified> {
    let system: Vec<SystemContentBlock> = request
        .system
        .into_iter()
        .filter_map(|block| match block {
            Block::Text(text) => Some(SystemContentBlock::Text(text)),
            _ => None,
        })
        .collect();
    let messages = request.messages.into_iter().map(message).collect::<Result<Vec<_>, _>>()?;
    let inference = request.inference_config;
    #[expect(clippy::cast_possible_truncation, reason = "the SDK's own width; the values lie between 0 and 1")]
    let narrow = |number: f64| number as f32;
    let inference = InferenceConfiguration::builder()
        .max_tokens(i32::try_from(inference.max_tokens).unwrap_or(i32::MAX))
        .set_temperature(inference.temperature.map(narrow))
        .set_top_p(inference.top_p.map(narrow))
        .set_stop_sequences((!inference.stop_sequences.is_empty()).then_some(inference.stop_sequences))
        .build();
    let fields = request.additional_model_request_fields;
    let paths = request.additional_model_response_field_paths;
    let metadata = request.request_metadata;
    Ok(call
        .set_system((!system.is_empty()).then_some(system))
        .set_messages(Some(messages))
        .inference_config(inference)
        .set_additional_model_request_fields((!fields.is_empty()).then(|| document(Value::Object(fields))))
        .set_additional_model_response_field_paths((!paths.is_empty()).then_some(paths))
        .set_tool_config(request.tool_config.map(tools).transpose()?)
        .set_output_config(request.output_config.map(output).transpose()?)
        .set_guardrail_config(request.guardrail_config.map(guardrail).transpose()?)
        .set_service_tier(request.service_tier.map(service_tier).transpose()?)
        .set_request_metadata((!metadata.is_empty()).then(|| metadata.into_iter().collect())))
}

/// What the SDK says of a part that it does not take.
fn odd(error: BuildError) -> Classified {
    Classified::unbilled(Fault::Refused, format!("the SDK does not take the request: {error}"))
}

fn message(message: crate::wire::converse::Message) -> Result<Message, Classified> {
    let role = match message.role {
        Role::User => ConversationRole::User,
        Role::Assistant => ConversationRole::Assistant,
        Role::System => ConversationRole::System,
    };
    let content = message.content.into_iter().map(content).collect::<Result<Vec<_>, _>>()?;
    Message::builder().role(role).set_content(Some(content)).build().map_err(odd)
}

fn content(block: Block) -> Result<ContentBlock, Classified> {
    Ok(match block {
        Block::Text(text) => ContentBlock::Text(text),
        Block::Image(of) => ContentBlock::Image(image(of)?),
        Block::Document(of) => {
            let source = match of.source {
                Source::Bytes(bytes) => DocumentSource::Bytes(Blob::new(bytes)),
                Source::S3(uri) => DocumentSource::S3Location(s3(uri)?),
                Source::Remote(address) => return Err(unfetched(&address)),
            };
            let format = DocumentFormat::from(of.format.as_str());
            let built = DocumentBlock::builder().format(format).name(of.name).source(source).build();
            ContentBlock::Document(built.map_err(odd)?)
        }
        Block::ToolUse(of) => {
            let built =
                ToolUseBlock::builder().tool_use_id(of.tool_use_id).name(of.name).input(document(of.input)).build();
            ContentBlock::ToolUse(built.map_err(odd)?)
        }
        Block::ToolResult(of) => {
            let content = of.content.into_iter().filter_map(|block| match block {
                Block::Text(text) => Some(Ok(ToolResultContentBlock::Text(text))),
                Block::Image(of) => Some(image(of).map(ToolResultContentBlock::Image)),
                _ => None,
            });
            let content = content.collect::<Result<Vec<_>, _>>()?;
            let built = ToolResultBlock::builder().tool_use_id(of.tool_use_id).set_content(Some(content)).build();
            ContentBlock::ToolResult(built.map_err(odd)?)
        }
    })
}

fn image(image: crate::wire::converse::Image) -> Result<ImageBlock, Classified> {
    let source = match image.source {
        Source::Bytes(bytes) => ImageSource::Bytes(Blob::new(bytes)),
        Source::S3(uri) => ImageSource::S3Location(s3(uri)?),
        Source::Remote(address) => return Err(unfetched(&address)),
    };
    ImageBlock::builder().format(ImageFormat::from(image.format.as_str())).source(source).build().map_err(odd)
}

fn s3(uri: String) -> Result<S3Location, Classified> {
    S3Location::builder().uri(uri).build().map_err(odd)
}

/// Bytes are fetched before a request is converted.
fn unfetched(address: &str) -> Classified {
    Classified::unbilled(Fault::Refused, format!("{address} was not fetched before the call")).with_code("unfetched")
}

fn tools(config: crate::wire::converse::ToolConfig) -> Result<ToolConfiguration, Classified> {
    let tools = config.tools.into_iter().map(|tool| {
        let schema = ToolInputSchema::Json(document(tool.input_schema));
        let spec = ToolSpecification::builder()
            .name(tool.name)
            .description(tool.description)
            .input_schema(schema)
            .set_strict(tool.strict);
        spec.build().map(Tool::ToolSpec).map_err(odd)
    });
    let choice = match config.tool_choice {
        None => None,
        Some(Choice::Auto) => Some(ToolChoice::Auto(AutoToolChoice::builder().build())),
        Some(Choice::Any) => Some(ToolChoice::Any(AnyToolChoice::builder().build())),
        Some(Choice::Tool(name)) => {
            Some(ToolChoice::Tool(SpecificToolChoice::builder().name(name).build().map_err(odd)?))
        }
    };
    let tools = tools.collect::<Result<Vec<_>, _>>()?;
    ToolConfiguration::builder().set_tools(Some(tools)).set_tool_choice(choice).build().map_err(odd)
}

fn output(config: crate::wire::converse::OutputConfig) -> Result<OutputConfig, Classified> {
    let schema = JsonSchemaDefinition::builder()
        .schema(config.schema.to_string())
        .set_name(config.name)
        .set_description(config.description)
        .build()
        .map_err(odd)?;
    let format = OutputFormat::builder()
        .r#type(OutputFormatType::JsonSchema)
        .structure(OutputFormatStructure::JsonSchema(schema))
        .build()
        .map_err(odd)?;
    Ok(OutputConfig::builder().text_format(format).build())
}

fn guardrail(guardrail: crate::wire::converse::Guardrail) -> Result<GuardrailConfiguration, Classified> {
    Ok(GuardrailConfiguration::builder()
        .guardrail_identifier(guardrail.guardrail_identifier)
        .guardrail_version(guardrail.guardrail_version)
        .set_trace(guardrail.trace.as_deref().map(GuardrailTrace::from))
        .build())
}

fn service_tier(tier: crate::wire::converse::ServiceTier) -> Result<ServiceTier, Classified> {
    let name: &'static str = tier.into();
    ServiceTier::builder().r#type(ServiceTierType::from(name)).build().map_err(odd)
}

/// JSON as the SDK holds it.
pub(super) fn document(value: Value) -> Document {
    match value {
        Value::Null => Document::Null,
        Value::Bool(truth) => Document::Bool(truth),
        Value::String(text) => Document::String(text),
        Value::Number(number) => Document::Number(match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => Number::PosInt(number),
            (None, Some(number)) => Number::NegInt(number),
            (None, None) => Number::Float(number.as_f64().unwrap_or(0.0)),
        }),
        Value::Array(items) => Document::Array(items.into_iter().map(document).collect()),
        Value::Object(fields) => {
            Document::Object(fields.into_iter().map(|(name, value)| (name, document(value))).collect())
        }
    }
}

/// JSON as we hold it; the SDK's objects have no order, so names are sorted.
pub(super) fn value(document: Document) -> Value {
    match document {
        Document::Null => Value::Null,
        Document::Bool(truth) => Value::Bool(truth),
        Document::String(text) => Value::String(text),
        Document::Number(Number::PosInt(number)) => number.into(),
        Document::Number(Number::NegInt(number)) => number.into(),
        Document::Number(Number::Float(number)) => number.into(),
        Document::Array(items) => items.into_iter().map(value).collect(),
        Document::Object(fields) => {
            let mut fields: Vec<(String, Document)> = fields.into_iter().collect();
            fields.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(fields.into_iter().map(|(name, document)| (name, value(document))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use aws_sdk_bedrockruntime::operation::converse::ConverseInput;
    use aws_smithy_runtime_api::client::{
        http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn},
        orchestrator::{HttpRequest, HttpResponse},
    };
    use aws_smithy_types::body::SdkBody;
    use serde_json::json;

    use super::*;
    use crate::provider::bedrock::streams;

    /// Keeps the body of the one request that goes through it, and answers what the SDK can read.
    #[derive(Debug, Clone, Default)]
    struct Recorder(Arc<Mutex<Option<Vec<u8>>>>);

    impl HttpConnector for Recorder {
        fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
            *self.0.lock().unwrap() = request.body().bytes().map(<[u8]>::to_vec);
            let answer = r#"{"output":{"message":{"role":"assistant","content":[{"text":"x"}]}},"stopReason":"end_turn",
                "usage":{"inputTokens":1,"outputTokens":1,"totalTokens":2},"metrics":{"latencyMs":1}}"#;
            HttpConnectorFuture::ready(Ok(HttpResponse::new(200.try_into().unwrap(), SdkBody::from(answer))))
        }
    }

    /// The SDK holds temperature and top_p in 32 bits; everything else must be the same to the last digit.
    fn rounded(mut body: Value) -> Value {
        for name in ["temperature", "topP"] {
            if let Some(number) = body.pointer_mut(&format!("/inferenceConfig/{name}")) {
                #[expect(clippy::cast_possible_truncation, reason = "the SDK's own width")]
                let narrow = number.as_f64().unwrap() as f32;
                *number = f64::from(narrow).into();
            }
        }
        body
    }

    #[tokio::test]
    async fn the_sdk_sends_what_we_say_is_sent() {
        let recorder = Recorder::default();
        let connector = recorder.clone();
        let http = http_client_fn(move |_, _| SharedHttpConnector::new(connector.clone()));
        let config = aws_sdk_bedrockruntime::Config::builder()
            .behavior_version(super::super::account::behavior())
            .region(aws_sdk_bedrockruntime::config::Region::new("us-east-1"))
            .credentials_provider(aws_credential_types::Credentials::new("AKIATEST", "secret", None, None, "test"))
            .http_client(http)
            .build();
        let client = aws_sdk_bedrockruntime::Client::from_conf(config);
        let requests = crate::wire::golden::converse_requests();
        assert!(requests.len() > 200, "{} requests", requests.len());
        for (name, request_) in requests {
            let ours = rounded(serde_json::to_value(&request_).unwrap());
            let call = request(ConverseInput::builder().model_id("m"), request_).unwrap();
            let sent = || {
                let body = recorder.0.lock().unwrap().take().unwrap();
                rounded(serde_json::from_slice(&body).unwrap())
            };
            call.clone().send_with(&client).await.unwrap();
            assert_eq!(sent(), ours, "{name}");
            // The operation that streams is asked the same.
            let _no_events = streams::input(call.build().unwrap()).send_with(&client).await;
            let mut streamed = sent();
            if let Some(guardrail) = streamed.get_mut("guardrailConfig").and_then(Value::as_object_mut) {
                // The service's own default, which the SDK writes out.
                assert_eq!(guardrail.remove("streamProcessingMode"), Some("sync".into()));
            }
            assert_eq!(streamed, ours, "{name}, streamed");
        }
    }

    #[test]
    fn bytes_that_were_not_fetched_are_not_sent() {
        let source = Source::Remote("https://example.com/a.png".to_owned());
        let image = crate::wire::converse::Image { format: String::new(), source };
        let error = content(Block::Image(image)).unwrap_err();
        assert_eq!((error.fault, error.code.as_deref()), (Fault::Refused, Some("unfetched")));
    }

    #[test]
    fn json_goes_there_and_back() {
        for json in [
            json!(null),
            json!({ "a": [1, -2, 2.5, "x", true, null], "b": { "deep": {} } }),
            json!(u64::MAX),
            json!(i64::MIN),
        ] {
            assert_eq!(value(document(json.clone())), json);
        }
    }
}
