//! CountTokens: how many tokens a Converse request has, for nothing.

use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::{read, refuse, unable, validation};
use crate::{
    catalog::{Api, Catalog, CountTokens},
    simulate::{
        capability::Unable,
        reply::{Refused, Reply},
    },
};

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    input: Input<'a>,
}

#[derive(Deserialize)]
struct Input<'a> {
    #[serde(borrow)]
    converse: Option<&'a RawValue>,
}

/// Counts a request for `model`.
pub(in crate::simulate) fn count(catalog: &Catalog, model: String, body: &[u8]) -> Reply {
    match tokens(catalog, model, body) {
        Ok(tokens) => Reply::json(200, &json!({ "inputTokens": tokens })),
        Err(refused) => refuse(&refused),
    }
}

fn tokens(catalog: &Catalog, model: String, body: &[u8]) -> Result<u64, Refused> {
    let known = catalog.find(Api::Bedrock, &model).ok_or_else(|| unable(&Unable::Unknown))?;
    if known.id != model || known.capabilities.count_tokens != CountTokens::Runtime {
        return Err(validation("The provided model doesn't support counting tokens."));
    }
    let request: Request<'_> = serde_json::from_slice(body)
        .map_err(|error| Refused::new(400, "SerializationException", format!("The body could not be read: {error}")))?;
    let converse = request.input.converse.ok_or_else(|| {
        super::not_simulated("CountTokens of InvokeModel bodies", "send the request in the form of Converse")
    })?;
    Ok(read(model, converse.get().as_bytes())?.input_tokens)
}
