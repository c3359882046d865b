//! What may not change of a rollout that has begun: its key and its salt.
//!
//! Invariant: a file that changes them is refused like any broken file, so its last good version goes on serving.

use super::{Begun, Fixed};
use crate::{diagnostic::Diagnostic, spec::Pipeline};

/// Says which rollouts of a pipeline would have their jobs swapped. `text` is the file's.
pub(super) fn check(pipeline: &Pipeline, begun: &Begun, file: &str, text: &str) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for rollout in &pipeline.rollouts {
        let Some(gated) = rollout.gated() else { continue };
        let Some(Fixed { key, salt }) = begun.get(&(pipeline.name.clone(), rollout.name.clone())) else { continue };
        let [key_at, salt_at] = gated.fixed_at;
        let identity = &gated.plan.identity;
        for (what, before, after, at) in [("key", key, &identity.key, key_at), ("salt", salt, &identity.salt, salt_at)]
        {
            if before != after {
                let message = format!(
                    "rollout `{}` has begun with the {what} `{before}`; `{after}` would swap the candidate's jobs for others",
                    rollout.name
                );
                let help =
                    format!("write `{what}: {before}` again, or give the rollout another name: that begins anew");
                found.push(Diagnostic::error("rollout-has-begun", file, message).at(at, text).help(help));
            }
        }
    }
    found
}
