//! From a chat request as a client of the OpenAI API writes it to an envelope: for live requests and for lines of batches.
//!
//! Invariant: names of fields in errors are the client's own. What is only for the routing goes no further.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Engine;
use crate::{
    job::{Envelope, EnvelopeError, envelope::MAX_METADATA_VALUE},
    names::PipelineName,
};

/// Why a chat request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FormError {
    /// The field at fault.
    pub param: Option<String>,
    /// Stable, such as `model_not_found`.
    pub code: &'static str,
    /// What is wrong and what to send instead.
    pub message: String,
}

impl FormError {
    /// A fault of a field.
    pub fn new(param: &str, code: &'static str, message: impl Into<String>) -> Self {
        Self { param: Some(param.to_owned()), code, message: message.into() }
    }
}

impl From<EnvelopeError> for FormError {
    fn from(error: EnvelopeError) -> Self {
        // A client knows its request, not the envelope around it.
        let param = error.param.map(|param| param.strip_prefix("body.").unwrap_or(&param).to_owned());
        Self { param, code: "invalid_request", message: error.message.replace("`body.", "`") }
    }
}

impl Engine {
    /// Reads a chat request. `pipeline` is the one that the path fixes; `more` is metadata from elsewhere, which wins.
    ///
    /// # Errors
    /// [`FormError`].
    pub fn chat_form(
        &self,
        pipeline: Option<PipelineName>,
        more: BTreeMap<String, String>,
        mut body: Map<String, Value>,
    ) -> Result<Envelope, FormError> {
        let mut metadata = metadata(&mut body)?;
        metadata.extend(more);
        let pipeline = match pipeline {
            Some(pipeline) => Some(pipeline),
            None => self.pipeline_by_model(&body)?,
        };
        let mut job = Map::new();
        if let Some(pipeline) = pipeline {
            job.insert("pipeline".to_owned(), pipeline.as_str().into());
        }
        job.insert(
            "metadata".to_owned(),
            metadata.into_iter().map(|(key, value)| (key, Value::String(value))).collect(),
        );
        job.insert("body".to_owned(), Value::Object(body));
        Ok(Envelope::from_value(Value::Object(job))?)
    }

    /// The pipeline that `model` names; `None` leaves it to what pipelines accept.
    fn pipeline_by_model(&self, body: &Map<String, Value>) -> Result<Option<PipelineName>, FormError> {
        let model = match body.get("model") {
            Some(Value::String(model)) if !model.is_empty() => model,
            Some(Value::String(_) | Value::Null) | None => {
                let message = "`model` is missing: name a pipeline, or a model that one accepts";
                return Err(FormError::new("model", "missing_required_parameter", message));
            }
            Some(_) => return Err(FormError::new("model", "invalid_request", "`model` must be a string")),
        };
        let world = self.world();
        let name = PipelineName::new(model).ok();
        let named = name.clone().filter(|name| world.snapshot.pipelines.contains_key(name));
        if named.is_some() || world.snapshot.accepting(model).is_some() {
            return Ok(named);
        }
        let shown: String = model.chars().take(200).collect();
        let message = match name {
            Some(name) => format!("no pipeline accepts model {shown:?}, and {}", world.snapshot.explain_missing(&name)),
            None => format!("no pipeline accepts model {shown:?}; GET /v1/models lists what may be asked for"),
        };
        Err(FormError::new("model", "model_not_found", message))
    }
}

/// Metadata from the request's own field, and its `user`. A provider takes `metadata` only of requests that it is to
/// store, so it stays in those alone.
fn metadata(body: &mut Map<String, Value>) -> Result<BTreeMap<String, String>, FormError> {
    let stores = body.get("store") == Some(&Value::Bool(true));
    let given = if stores { body.get("metadata").cloned() } else { body.remove("metadata") };
    let mut metadata = BTreeMap::new();
    if let Some(Value::String(user)) = body.get("user") {
        metadata.insert("user".to_owned(), user.chars().take(MAX_METADATA_VALUE).collect());
    }
    match given {
        None | Some(Value::Null) => {}
        Some(Value::Object(pairs)) => {
            for (key, value) in pairs {
                let Value::String(value) = value else {
                    let message = format!("`metadata.{key}` must be a string");
                    return Err(FormError::new(&format!("metadata.{key}"), "invalid_request", message));
                };
                metadata.insert(key, value);
            }
        }
        Some(_) => {
            return Err(FormError::new("metadata", "invalid_request", "`metadata` must be an object of strings"));
        }
    }
    Ok(metadata)
}
