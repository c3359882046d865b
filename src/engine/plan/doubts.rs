//! What requests that move would meet at their new place: parameters that are not carried exactly, prompts that are too
//! long, requests that cannot be carried.
//!
//! Invariant: names of parameters and counts come out of here, never a value or a word of a request. A sample is looked at,
//! and told to be one.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::replay::Samples;
use crate::{
    catalog::Fit,
    engine::{Engine, size},
    names::{PipelineName, TargetName},
    snapshot::Snapshot,
    store::StoreError,
    wire::prepare,
};

/// Doubts by pipeline.
pub type Doubts = BTreeMap<PipelineName, Vec<Doubt>>;

/// Something that requests would meet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Doubt {
    /// Where they would go.
    pub target: TargetName,
    /// The parameter; `None` where it is about the request as a whole.
    pub parameter: Option<String>,
    /// `approximated`, `emulated`, `dropped`, `refused`, `too_long`.
    pub what: String,
    /// Requests that it is true of.
    pub requests: u64,
    /// Requests that were looked at: the newest of those that move there.
    pub looked_at: u64,
}

impl Engine {
    /// Looks at samples of requests that move.
    pub(super) async fn doubts(&self, after: &Snapshot, samples: Samples) -> Result<Doubts, StoreError> {
        let mut doubts = Doubts::new();
        for ((pipeline, name), jobs) in samples {
            let Some(spec) = after.pipelines.get(&pipeline).map(|loaded| &loaded.pipeline) else { continue };
            let Some(target) = spec.target_named(&name).map(|ix| spec.target(ix)) else { continue };
            let model = after.catalog.find(target.api, &target.model);
            let mut counts: BTreeMap<(Option<String>, String), u64> = BTreeMap::new();
            let mut looked_at = 0;
            for job in jobs {
                let body = self.store.job(job).await?.and_then(|record| record.body);
                let Some(body) = body.and_then(|body| serde_json::from_str::<Value>(&body).ok()) else { continue };
                looked_at += 1;
                match prepare(target, model, &body) {
                    Err(refusal) => *counts.entry((refusal.param, "refused".to_owned())).or_default() += 1,
                    Ok(prepared) => {
                        for note in &prepared.fidelity {
                            // How a call is made is no doubt about its answer.
                            if note.parameter != "stream" {
                                let key = (Some(note.parameter.clone()), note.action.to_string());
                                *counts.entry(key).or_default() += 1;
                            }
                        }
                        let size = size::estimate(&body, target, model, prepared.max_output_tokens);
                        if matches!(size.fit, Fit::TooLong(_)) {
                            *counts.entry((None, "too_long".to_owned())).or_default() += 1;
                        }
                    }
                }
            }
            let of_target = counts.into_iter().map(|((parameter, what), requests)| Doubt {
                target: name.clone(),
                parameter,
                what,
                requests,
                looked_at,
            });
            doubts.entry(pipeline).or_default().extend(of_target);
        }
        Ok(doubts)
    }
}
