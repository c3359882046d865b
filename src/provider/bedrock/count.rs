//! CountTokens: a Converse request counted by Bedrock, at no charge.
//!
//! Invariant: what is counted is what would be sent. Bedrock counts by a model's own id, whatever inference profile calls
//! would go through.

use aws_sdk_bedrockruntime::types::{ConverseTokensRequest, CountTokensInput};

use super::{Bedrock, convert, failure, http};
use crate::{
    catalog::id::bedrock_id,
    provider::{Call, CallError, sockets::Departure},
    wire::converse::Request,
};

impl Bedrock {
    pub(super) async fn count(&self, call: &Call, request: Request) -> Result<u64, CallError> {
        let client = self.client(call)?;
        let converse = convert::request(client.converse(), request)?;
        let sent = converse.as_input();
        let counted = ConverseTokensRequest::builder()
            .set_messages(sent.get_messages().clone())
            .set_system(sent.get_system().clone())
            .set_tool_config(sent.get_tool_config().clone())
            .set_additional_model_request_fields(sent.get_additional_model_request_fields().clone())
            .build();
        let departure = Departure::default();
        let asked = client
            .count_tokens()
            .model_id(bedrock_id(&call.target.model).base)
            .input(CountTokensInput::Converse(counted))
            .send();
        match tokio::time::timeout(call.timeout, http::watched(departure.clone(), asked)).await {
            Ok(Ok(output)) => Ok(u64::try_from(output.input_tokens).unwrap_or(0)),
            Ok(Err(error)) => Err(failure::classify(&error, &departure).into()),
            Err(_) => Err(departure.timed_out(call.timeout).into()),
        }
    }
}
