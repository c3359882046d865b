//! CountTokens: how many tokens a request has, for nothing.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::{invoke, read, refuse, unable, validation};
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
#[serde(rename_all = "camelCase")]
struct Input<'a> {
    #[serde(borrow)]
    converse: Option<&'a RawValue>,
    invoke_model: Option<Body>,
}

/// The body of a call of InvokeModel, as base64.
#[derive(Deserialize)]
struct Body {
    body: String,
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
    let wrong = || validation("The input must set one of the following keys: converse, invokeModel.");
    let prompt = match (request.input.converse, request.input.invoke_model) {
        (Some(converse), None) => read(model, converse.get().as_bytes())?,
        (None, Some(of)) => {
            let body = STANDARD.decode(of.body).map_err(|_| wrong())?;
            invoke::read(model, &body)?.1
        }
        _ => return Err(wrong()),
    };
    Ok(prompt.input_tokens)
}
