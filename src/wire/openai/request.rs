//! A job's body for an OpenAI target.
//!
//! Invariant: every parameter that the target and its model have nothing against is sent as the job wrote it, known to
//! us or not.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;

use super::habits::{Habits, adapt, bound, refuse_remote_images};
use crate::{
    catalog::Model,
    spec::Target,
    wire::{Reading, Refusal, fidelity::Ledger, parameters::Effective},
};

/// The body, and the output bound that it carries.
pub(in crate::wire) fn body(
    target: &Target,
    model: Option<&Model>,
    effective: &Effective<'_>,
    reading: &mut Reading,
    ledger: &mut Ledger<'_>,
) -> Result<(Bytes, Option<u64>), Refusal> {
    let habits = Habits::of(target, model);
    refuse_remote_images(&habits, effective, ledger)?;
    let parameters = adapt(&habits, effective, reading, ledger)?;
    let limit = bound(&habits, target, effective.output_limit, ledger)?;
    let body = Body { model: &target.model, effective, parameters, limit };
    let bytes = serde_json::to_vec(&body)
        .map_err(|error| Refusal { param: None, message: format!("body: cannot be written as JSON: {error}") })?;
    Ok((Bytes::from(bytes), limit.map(|(_, tokens)| tokens)))
}

struct Body<'a> {
    model: &'a str,
    effective: &'a Effective<'a>,
    parameters: Vec<(&'a str, Cow<'a, Value>)>,
    limit: Option<(&'static str, u64)>,
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("model", self.model)?;
        map.serialize_entry("messages", &self.effective.messages)?;
        for (name, value) in &self.parameters {
            map.serialize_entry(name, value.as_ref())?;
        }
        if let Some((name, tokens)) = self.limit {
            map.serialize_entry(name, &tokens)?;
        }
        map.end()
    }
}
