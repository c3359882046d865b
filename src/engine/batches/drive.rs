//! Carrying one batch from state to state.
//!
//! Invariant: each pass looks at the durable state, takes one step, and writes down where it leads.

use std::{sync::Arc, time::Duration};

use super::{
    Batch, STORE_BACKOFF,
    record::{BatchRecord, BatchStatus},
    validate::{Verdict, input_is_gone},
};
use crate::{
    access::Caller,
    engine::{Engine, files::new_file_id},
    job::State,
    store::{JobQuery, Result, StoreError},
};

/// How often the jobs of a batch are looked at.
const LOOK: Duration = Duration::from_millis(300);
/// Jobs cancelled in one go.
const CANCEL_PASS: u32 = 500;

/// Carries a batch to its end.
pub(super) async fn drive(engine: &Arc<Engine>, batch: &Arc<Batch>) {
    loop {
        let record = batch.record();
        if record.status.is_terminal() {
            engine.batches.active().remove(&record.id);
            return;
        }
        match step(engine, batch, &record).await {
            Ok(()) => {}
            Err(error) if input_is_gone(&error) && record.status == BatchStatus::Validating => {
                let message = format!("the input file {} cannot be read: {error}", record.input_file_id);
                tracing::warn!(batch = record.id, %error, "the batch failed");
                let refused = engine.refuse(batch, "file_not_found", message).await;
                pause_after(&record, refused).await;
            }
            Err(error) => pause_after(&record, Err(error)).await,
        }
    }
}

async fn pause_after(record: &BatchRecord, outcome: Result<()>) {
    if let Err(error) = outcome {
        tracing::error!(batch = record.id, %error, "a step of the batch failed; trying again");
        tokio::time::sleep(STORE_BACKOFF).await;
    }
}

async fn step(engine: &Arc<Engine>, batch: &Arc<Batch>, record: &BatchRecord) -> Result<()> {
    match record.status {
        BatchStatus::Validating => engine.step_validating(batch, record).await,
        BatchStatus::InProgress if !record.submitted => engine.step_submitting(batch, record).await,
        BatchStatus::InProgress => engine.step_waiting(batch, record).await,
        BatchStatus::Cancelling => {
            engine.cancel_live_jobs(record).await?;
            engine.finish(batch, BatchStatus::Cancelled).await
        }
        BatchStatus::Finalizing => {
            let late = engine.clock.now() >= record.expires_at && engine.any_unfinished(record).await?;
            if late {
                engine.cancel_live_jobs(record).await?;
            }
            let ending =
                if late || record.expired_at.is_some() { BatchStatus::Expired } else { BatchStatus::Completed };
            engine.finish(batch, ending).await
        }
        BatchStatus::Failed | BatchStatus::Completed | BatchStatus::Expired | BatchStatus::Cancelled => Ok(()),
    }
}

impl Engine {
    async fn step_validating(&self, batch: &Batch, record: &BatchRecord) -> Result<()> {
        let caller = caller_of(record);
        let verdict = {
            let _turn = self.batches.heavy.acquire().await;
            self.validate(record, &caller).await?
        };
        let now = self.clock.now();
        self.change_batch(batch, Vec::new(), |record| {
            if record.status != BatchStatus::Validating {
                return;
            }
            match verdict {
                Verdict::Good(total, pipelines) => {
                    record.status = BatchStatus::InProgress;
                    record.in_progress_at = Some(now);
                    (record.total, record.pipelines) = (total, pipelines);
                }
                Verdict::Bad(errors) => {
                    record.status = BatchStatus::Failed;
                    record.failed_at = Some(now);
                    record.errors = errors;
                }
            }
        })
        .await
    }

    /// Ends a batch whose input cannot be read.
    async fn refuse(&self, batch: &Batch, code: &str, message: String) -> Result<()> {
        let now = self.clock.now();
        let error = super::LineError { code: code.to_owned(), message, param: None, line: None };
        self.change_batch(batch, Vec::new(), |record| {
            record.status = BatchStatus::Failed;
            record.failed_at = Some(now);
            record.errors = vec![error];
        })
        .await
    }

    async fn step_submitting(&self, batch: &Batch, record: &BatchRecord) -> Result<()> {
        let caller = caller_of(record);
        let all = {
            let _turn = self.batches.heavy.acquire().await;
            let stop = || batch.record().status != BatchStatus::InProgress || self.clock.now() >= record.expires_at;
            self.submit_lines(record, &caller, stop).await?
        };
        if !all && self.clock.now() < record.expires_at {
            return Ok(());
        }
        self.change_batch(batch, Vec::new(), |record| record.submitted = true).await
    }

    async fn step_waiting(&self, batch: &Batch, record: &BatchRecord) -> Result<()> {
        let now = self.clock.now();
        let late = now >= record.expires_at;
        if late {
            self.cancel_live_jobs(record).await?;
        } else if self.any_unfinished(record).await? {
            let _woken = tokio::time::timeout(LOOK, batch.changed.notified()).await;
            return Ok(());
        }
        self.change_batch(batch, Vec::new(), |record| {
            if record.status == BatchStatus::InProgress {
                record.status = BatchStatus::Finalizing;
                record.finalizing_at = Some(now);
                record.expired_at = late.then_some(now);
                record.output_file_id = Some(new_file_id());
                record.error_file_id = Some(new_file_id());
            }
        })
        .await
    }

    async fn any_unfinished(&self, record: &BatchRecord) -> Result<bool> {
        let counts = self.store.batch_counts(&record.id).await?;
        Ok(counts.iter().any(|(state, count)| !state.is_terminal() && *count > 0))
    }

    async fn cancel_live_jobs(&self, record: &BatchRecord) -> Result<()> {
        let mut query = JobQuery {
            batch: Some(record.id.clone()),
            states: vec![State::Queued, State::Waiting, State::Held, State::Running],
            limit: CANCEL_PASS,
            ..JobQuery::default()
        };
        loop {
            let page = self.store.list(query.clone()).await?;
            self.cancel(page.jobs.iter().map(|job| job.id).collect()).await?;
            match page.next {
                Some(next) => query.after = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// Writes the files and ends the batch, in one transaction with the files' rows.
    async fn finish(&self, batch: &Batch, ending: BatchStatus) -> Result<()> {
        let record = batch.record();
        if record.output_file_id.is_none() || record.error_file_id.is_none() {
            // Their ids come first, so that a crash leaves nothing that nobody knows.
            return self
                .change_batch(batch, Vec::new(), |record| {
                    record.output_file_id = Some(new_file_id());
                    record.error_file_id = Some(new_file_id());
                })
                .await;
        }
        let written = {
            let _turn = self.batches.heavy.acquire().await;
            match self.write_results(&record, ending).await {
                Err(error) if input_is_gone(&error) => return self.finish_without_input(batch, ending, &error).await,
                written => written?,
            }
        };
        let now = self.clock.now();
        let changes = written.changes;
        self.change_batch(batch, changes, |record| {
            (record.completed, record.failed) = (written.completed, written.failed);
            record.usage = Some(written.usage);
            if !written.output {
                record.output_file_id = None;
            }
            if !written.errors {
                record.error_file_id = None;
            }
            end(record, ending, now);
        })
        .await
    }

    /// The input is gone, so nothing can be told of its lines: the jobs are still there, by the batch's id.
    async fn finish_without_input(&self, batch: &Batch, ending: BatchStatus, error: &StoreError) -> Result<()> {
        tracing::error!(%error, "the batch ends without output files: its input is gone");
        let now = self.clock.now();
        let mut record = batch.record();
        self.count(&mut record).await?;
        self.change_batch(batch, Vec::new(), |batch| {
            (batch.completed, batch.failed) = (record.completed, record.failed);
            (batch.output_file_id, batch.error_file_id) = (None, None);
            end(batch, ending, now);
        })
        .await
    }
}

fn end(record: &mut BatchRecord, ending: BatchStatus, now: crate::clock::Timestamp) {
    record.status = ending;
    match ending {
        BatchStatus::Cancelled => record.cancelled_at = Some(now),
        BatchStatus::Expired => record.expired_at = record.expired_at.or(Some(now)),
        _ => record.completed_at = Some(now),
    }
}

/// Who a batch's jobs belong to, also after its key is gone.
fn caller_of(record: &BatchRecord) -> Caller {
    Caller::on_behalf_of(&record.owner, &record.owner_pipelines)
}
