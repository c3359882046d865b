//! A job's body for an OpenAI target.
//!
//! Invariant: every parameter that the target does not touch is sent as the job wrote it, known to us or not.

use bytes::Bytes;
use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::{
    catalog::Model,
    spec::Target,
    wire::{
        Refusal,
        parameters::{Effective, LIMIT_NAMES},
    },
};

pub(in crate::wire) fn body(
    target: &Target,
    model: Option<&Model>,
    effective: &Effective<'_>,
) -> Result<Bytes, Refusal> {
    let limit = effective.output_limit.map(|limit| (limit_name(&target.model, model, limit.name), limit.tokens));
    serde_json::to_vec(&Body { model: &target.model, effective, limit })
        .map(Bytes::from)
        .map_err(|error| Refusal { param: None, message: format!("body: cannot be written as JSON: {error}") })
}

/// The name under which the model takes an output bound that was given as `given`.
fn limit_name(id: &str, model: Option<&Model>, given: &'static str) -> &'static str {
    /// Models that reject the older name.
    const REASONING: [&str; 6] = ["o1", "o3", "o4", "gpt-5", "gpt-6", "gpt-7"];
    let [newer, older] = LIMIT_NAMES;
    let refuses = |name: &str| model.is_some_and(|model| model.refuses.iter().any(|refused| refused == name));
    if refuses(older) {
        newer
    } else if refuses(newer) {
        older
    } else if REASONING.iter().any(|prefix| id.starts_with(prefix)) {
        newer
    } else {
        given
    }
}

struct Body<'a> {
    model: &'a str,
    effective: &'a Effective<'a>,
    limit: Option<(&'static str, u64)>,
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("model", self.model)?;
        map.serialize_entry("messages", &self.effective.messages)?;
        for (name, value) in &self.effective.parameters {
            map.serialize_entry(name, value.as_ref())?;
        }
        if let Some((name, tokens)) = self.limit {
            map.serialize_entry(name, &tokens)?;
        }
        map.end()
    }
}
