//! Writing down what became of a job.
//!
//! Invariant: an outcome in hand is tried again until the store takes it, as long as the process lives; only a store that
//! can no longer be used makes it give up, and then the next start takes the job up.

use std::time::Duration;

use super::Engine;
use crate::{
    clock::Timestamp,
    ids::AttemptId,
    job::{Attempt, Outcome},
    spec::Target,
    store::{JobError, Settled, Settlement, StoreError},
};

/// Writes a settlement; tries again while the store is busy or full, because an answer in hand must not be lost while
/// the process lives. A drain does not wait for it longer than its grace.
pub(super) async fn settle(engine: &Engine, settlement: Settlement) -> Option<Settled> {
    let mut pause = Duration::from_millis(50);
    loop {
        match engine.store.settle(vec![settlement.clone()]).await {
            Ok(outcomes) => return outcomes.into_iter().next(),
            Err(error @ (StoreError::Busy(_) | StoreError::Unwritable(_))) => {
                tracing::error!(job = %settlement.job, %error, "the outcome could not be stored; trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
            Err(error) => {
                tracing::error!(job = %settlement.job, %error, "the outcome could not be stored; the next start takes the job up");
                return None;
            }
        }
    }
}

/// OpenAI's error object for a job that failed, with the stable reason.
pub(super) fn failure(
    reason_code: &str,
    message: String,
    kind: &str,
    code: Option<String>,
    param: Option<String>,
) -> JobError {
    JobError { reason_code: reason_code.to_owned(), message, kind: kind.to_owned(), code, param }
}

/// The row of an attempt whose intent was just stored.
pub(super) fn open_attempt(id: AttemptId, n: u32, target: &Target, now: Timestamp) -> Attempt {
    Attempt {
        id,
        n,
        target: target.name.clone(),
        provider: target.provider.clone(),
        model: target.model.clone(),
        outcome: Outcome::Open,
        fault: None,
        message: None,
        started_at: now,
        ended_at: None,
        usage: None,
        cost_usd: None,
        possibly_billed: false,
        possible_cost_usd: None,
        decision: None,
    }
}
