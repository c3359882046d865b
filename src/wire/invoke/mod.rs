//! InvokeModel: requests and answers in the forms of the models' own families.
//!
//! Invariant: a body is written from the Converse form, so every rule of that translation holds here too; what a
//! family's own form cannot say is refused by name. Guardrail, service tier and request metadata travel as headers of
//! InvokeModel and are the provider layer's to set.

mod claude;
mod claude_answer;
mod events;
mod llama;

use bytes::Bytes;
use serde_json::Value;

pub use events::Stream;

use super::{
    Form, Reading, Refusal,
    converse::{Answer, Request, TokenUsage},
    faults::{Classified, excerpt},
};
use crate::job::Fault;

/// Longest body that InvokeModel takes, in bytes.
pub const MAX_BODY: usize = 25_000_000;

/// Fits a request to a form before it is sent: what the form cannot say but the reading of the answer can make good
/// goes there.
///
/// # Errors
/// [`Refusal`] for what neither can carry. The same request is then refused by [`write`].
pub fn fit(form: Form, model: &str, request: &mut Request, reading: &mut Reading) -> Result<(), Refusal> {
    if form == Form::Llama {
        // The prompt form has no stop sequences.
        reading.local_stop.append(&mut request.inference_config.stop_sequences);
    }
    match form {
        Form::Claude => Ok(()),
        Form::Llama => llama::write(model, request).map(|_| ()),
    }
}

/// Writes a request in a form, as the body of InvokeModel and InvokeModelWithResponseStream. Remote media must have been
/// fetched. Llama's template is chosen by `model`.
///
/// # Errors
/// [`Refusal`] for what the form cannot say.
pub fn write(form: Form, model: &str, request: &Request) -> Result<Bytes, Refusal> {
    let body = match form {
        Form::Claude => claude::write(request)?,
        Form::Llama => llama::write(model, request)?,
    };
    let body = serde_json::to_vec(&body)
        .map_err(|error| Refusal { param: None, message: format!("body: cannot be written as JSON: {error}") })?;
    if body.len() > MAX_BODY {
        let message = format!("messages: {} bytes as InvokeModel takes them, and it takes {MAX_BODY}", body.len());
        return Err(Refusal::of("messages", message));
    }
    Ok(body.into())
}

/// Token counts of InvokeModel's headers `x-amzn-bedrock-input-token-count` and `-output-token-count`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeaderCounts {
    /// Prompt tokens.
    pub input: Option<u64>,
    /// Generated tokens.
    pub output: Option<u64>,
}

impl HeaderCounts {
    /// Reads the headers' text.
    pub fn read(input: Option<&str>, output: Option<&str>) -> Self {
        let count = |text: Option<&str>| text.and_then(|text| text.trim().parse().ok());
        Self { input: count(input), output: count(output) }
    }

    fn usage(self) -> Option<TokenUsage> {
        Some(TokenUsage { input: self.input?, output: self.output?, ..TokenUsage::default() })
    }
}

/// Reads what InvokeModel answered with status 200. The body's own counts go before those of the headers.
///
/// # Errors
/// [`Classified`] when the body is no answer in this form.
pub fn read(form: Form, counts: HeaderCounts, body: &[u8]) -> Result<Answer, Classified> {
    let value: Value = serde_json::from_slice(body).map_err(|error| unreadable(form, &error.to_string(), body))?;
    let answer = match form {
        Form::Claude => claude_answer::read(value),
        Form::Llama => llama::read(value),
    };
    let mut answer = answer.ok_or_else(|| unreadable(form, "it has not the fields of one", body))?;
    answer.usage = answer.usage.or(counts.usage());
    Ok(answer)
}

fn unreadable(form: Form, why: &str, body: &[u8]) -> Classified {
    let beginning = excerpt(&String::from_utf8_lossy(body.get(..400).unwrap_or(body)), 80);
    let message =
        format!("Bedrock answered 200 with something else than {form}'s form: {why}; it begins {beginning:?}");
    Classified::billed(Fault::Transient, message).with_code("invalid_response").with_status(200)
}
