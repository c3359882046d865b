//! One line of a batch's input: what it must say, and what is wrong with it.

use serde_json::{Map, Value};

use super::record::{BatchRecord, LineError};
use crate::{
    access::Caller,
    clock::Timestamp,
    engine::{Engine, files::Line, intake::IntakeError},
    job::envelope::MAX_JOB_BYTES,
    store::NewJob,
};

/// Longest `custom_id`, in characters: short enough to be indexed by every store, behind the batch's id.
pub(super) const MAX_CUSTOM_ID: usize = 512;

/// A line that was read.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) custom_id: String,
    pub(super) body: Map<String, Value>,
}

fn wrong(line: u64, param: Option<&str>, code: &str, message: impl Into<String>) -> LineError {
    LineError { code: code.to_owned(), message: message.into(), param: param.map(str::to_owned), line: Some(line) }
}

/// Reads a line as far as it can be judged by itself.
pub(super) fn read(batch: &BatchRecord, line: &Line) -> Result<Read, LineError> {
    let (number, bytes) = match line {
        Line::Whole(number, bytes) => (*number, bytes),
        Line::TooLong(number) => {
            let message = format!("this line has more than {} MiB", MAX_JOB_BYTES >> 20);
            return Err(wrong(*number, None, "line_too_long", message));
        }
    };
    let wrong = |param: Option<&str>, code: &str, message: String| Err(wrong(number, param, code, message));
    let value: Value = match serde_json::from_slice(bytes) {
        Ok(value) => value,
        Err(error) => {
            let message = format!("this line is not parseable as valid JSON: {error}");
            return wrong(None, "invalid_json_line", message);
        }
    };
    let Value::Object(mut line) = value else {
        return wrong(None, "invalid_json_line", "this line is not a JSON object".to_owned());
    };
    let custom_id = match line.remove("custom_id") {
        Some(Value::String(id)) if !id.is_empty() && id.chars().count() <= MAX_CUSTOM_ID => id,
        Some(Value::String(_)) => {
            let message = format!("`custom_id` must have 1 to {MAX_CUSTOM_ID} characters");
            return wrong(Some("custom_id"), "invalid_custom_id", message);
        }
        Some(_) => return wrong(Some("custom_id"), "invalid_custom_id", "`custom_id` must be a string".to_owned()),
        None => {
            let message = "`custom_id` is missing; it is what you tell answers apart by".to_owned();
            return wrong(Some("custom_id"), "missing_required_parameter", message);
        }
    };
    for (name, expected, code) in
        [("method", "POST", "invalid_method"), ("url", batch.endpoint.as_str(), "invalid_url")]
    {
        match line.remove(name) {
            Some(Value::String(given)) if given == expected => {}
            None => {
                let message = format!("`{name}` is missing; it must be {expected:?}");
                return wrong(Some(name), "missing_required_parameter", message);
            }
            Some(other) => {
                let shown: String = other.to_string().chars().take(200).collect();
                return wrong(Some(name), code, format!("`{name}` must be {expected:?} in this batch, not {shown}"));
            }
        }
    }
    let mut body = match line.remove("body") {
        Some(Value::Object(body)) => body,
        Some(_) => {
            return wrong(Some("body"), "invalid_request", "`body` must be an object: a chat request".to_owned());
        }
        None => {
            let message = "`body` is missing: a chat request".to_owned();
            return wrong(Some("body"), "missing_required_parameter", message);
        }
    };
    match body.remove("stream") {
        None | Some(Value::Null | Value::Bool(false)) => {}
        Some(_) => {
            let message = "answers of a batch are not streamed; leave `stream` out".to_owned();
            return wrong(Some("body.stream"), "invalid_request", message);
        }
    }
    body.remove("stream_options");
    Ok(Read { custom_id, body })
}

impl Engine {
    /// A line as the job that it becomes.
    pub(super) fn line_job(
        &self,
        batch: &BatchRecord,
        caller: &Caller,
        number: u64,
        read: Read,
        now: Timestamp,
    ) -> Result<NewJob, LineError> {
        let wrong = |param: Option<&str>, code: &str, message: String| {
            // The client's line holds the chat request under `body`.
            let param = param.map(|param| format!("body.{param}"));
            wrong(number, param.as_deref(), code, message)
        };
        let envelope = self
            .chat_form(batch.fixed.clone(), std::collections::BTreeMap::new(), read.body)
            .map_err(|error| wrong(error.param.as_deref(), error.code, error.message))?;
        let mut job = self.new_job(caller, envelope, None, now).map_err(|error| {
            let (code, param) = match &error {
                IntakeError::UnknownPipeline { .. } => ("model_not_found", Some("model")),
                IntakeError::NotReached { .. } => ("pipeline_not_allowed", Some("model")),
                _ => ("invalid_request", None),
            };
            wrong(param, code, error.to_string())
        })?;
        // Time that the pipeline had spent held before is no part of the window.
        let held = job.expiry_key.until(job.deadline);
        job.expiry_key = batch.expires_at - held;
        job.deadline = batch.expires_at;
        job.id = batch.job_of_line(number);
        job.idempotency_key = Some(batch.key_of_line(&read.custom_id));
        job.batch = Some(batch.id.clone());
        Ok(job)
    }
}
