//! Targets that cannot carry a job's request, found out before any call, and what a job says that has no other.
//!
//! Invariant: a job is failed for its size only with the numbers, target by target.

use std::fmt;

use super::settle::failure;
use crate::{
    catalog::{Limit, tokens::Bounds},
    names::PipelineName,
    spec::{Target, TargetIx},
    store::JobError,
    wire::Refusal,
};

/// Why a target cannot carry a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unfit {
    /// Its provider has no way to say it.
    Refused(Refusal),
    /// It does not fit the model.
    TooLong {
        /// Why, with the numbers.
        why: String,
        /// Whether it was counted as a fallback.
        told: bool,
    },
}

impl Unfit {
    /// A request over a model's limit.
    pub(super) fn too_long(target: &Target, limit: Limit, prompt: Bounds) -> Self {
        let why = format!("target {} ({}): {}", target.name, target.model, limit.exceeded_by(prompt));
        Self::TooLong { why, told: false }
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::TooLong { why, .. } => f.write_str(why),
        }
    }
}

/// What a job says when none of its chain can carry it.
pub(super) fn no_target_left(pipeline: &PipelineName, unfit: &[(TargetIx, Unfit)]) -> JobError {
    let too_long: Vec<&str> = unfit
        .iter()
        .filter_map(|(_, unfit)| match unfit {
            Unfit::TooLong { why, .. } => Some(why.as_str()),
            Unfit::Refused(_) => None,
        })
        .collect();
    let refusal = unfit.iter().find_map(|(_, unfit)| match unfit {
        Unfit::Refused(refusal) => Some(refusal.clone()),
        Unfit::TooLong { .. } => None,
    });
    match (refusal, too_long.is_empty()) {
        (refusal, false) => {
            let mut message = format!("the request is too long, and nothing was sent: {}", too_long.join("; "));
            if let Some(refusal) = refusal {
                message = format!("{message}; {refusal}");
            }
            let code = Some("context_length_exceeded".to_owned());
            failure("too_long", message, "invalid_request_error", code, Some("messages".to_owned()))
        }
        (Some(refusal), true) => failure("refused", refusal.message, "invalid_request_error", None, refusal.param),
        (None, true) => {
            let message = format!("pipeline {pipeline} has no target left for this job");
            failure("refused", message, "invalid_request_error", None, None)
        }
    }
}
