//! CountTokens: a request counted by Bedrock, at no charge.
//!
//! Invariant: what is counted is what would be sent. Bedrock counts by a model's own id, whatever inference profile calls
//! would go through.

use aws_sdk_bedrockruntime::{
    operation::converse::ConverseInput,
    primitives::Blob,
    types::{ConverseTokensRequest, CountTokensInput, InvokeModelTokensRequest},
};

use super::{Asked, Bedrock, convert, http::Watch, not_taken};
use crate::{
    catalog::id::bedrock_id,
    provider::{Call, CallError},
};

impl Bedrock {
    pub(super) async fn count(&self, call: &Call, asked: Asked) -> Result<u64, CallError> {
        let client = self.client(call)?;
        let input = match asked {
            Asked::Converse(request) => {
                let sent = convert::request(ConverseInput::builder(), request)?;
                let counted = ConverseTokensRequest::builder()
                    .set_messages(sent.get_messages().clone())
                    .set_system(sent.get_system().clone())
                    .set_tool_config(sent.get_tool_config().clone())
                    .set_additional_model_request_fields(sent.get_additional_model_request_fields().clone());
                CountTokensInput::Converse(counted.build())
            }
            Asked::Invoke(_, _, body) => {
                let counted = InvokeModelTokensRequest::builder().body(Blob::new(body)).build();
                CountTokensInput::InvokeModel(counted.map_err(|error| not_taken(&error))?)
            }
        };
        let asked = client.count_tokens().model_id(bedrock_id(&call.target.model).base).input(input).send();
        let output = self.wait(call, &Watch::default(), Box::pin(asked)).await?;
        Ok(u64::try_from(output.input_tokens).unwrap_or(0))
    }
}
