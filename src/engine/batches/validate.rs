//! Reading a batch's input: first all of it, to say everything that is wrong; then again, to make jobs of its lines.
//!
//! Invariant: nothing of a batch with a bad line becomes a job. Memory holds a piece of the file, never the whole.

use std::collections::{BTreeSet, HashSet};

use sha2::{Digest, Sha256};

use super::{
    lines,
    record::{BatchRecord, LineError},
};
use crate::{
    access::Caller,
    engine::{
        Engine,
        files::{Line, Lines},
    },
    job::envelope::MAX_JOB_BYTES,
    names::PipelineName,
    store::{NewJob, Result, StoreError, Submitted},
};

/// Faults that are listed; more are counted.
const MOST_ERRORS: usize = 1_000;
/// Jobs handed to the store in one go, and their bytes.
const JOBS_A_SUBMIT: usize = 500;
const BYTES_A_SUBMIT: usize = 8 << 20;

/// What a file turned out to be.
pub(super) enum Verdict {
    /// So many lines, for these pipelines.
    Good(u64, BTreeSet<PipelineName>),
    /// Everything that is wrong.
    Bad(Vec<LineError>),
}

impl Engine {
    pub(super) async fn validate(&self, batch: &BatchRecord, caller: &Caller) -> Result<Verdict> {
        let most = self.batches.limits().max_requests;
        let now = self.clock.now();
        let mut errors = Vec::new();
        let mut unlisted = 0_u64;
        let mut pipelines = BTreeSet::new();
        let mut seen: HashSet<[u8; 16]> = HashSet::new();
        let mut total = 0_u64;
        let mut reader = Lines::of(self.store.clone(), &batch.input_file_id, MAX_JOB_BYTES);
        while let Some(line) = reader.next().await? {
            total += 1;
            if total > most {
                let message = format!("this file has more than the {most} requests that a batch may have");
                return Ok(Verdict::Bad(vec![LineError {
                    code: "too_many_requests".to_owned(),
                    message,
                    param: None,
                    line: None,
                }]));
            }
            match self.judge(batch, caller, &line, &mut seen, now) {
                Ok(job) => {
                    pipelines.insert(job.pipeline);
                }
                Err(error) if errors.len() < MOST_ERRORS => errors.push(error),
                Err(_) => unlisted += 1,
            }
            if total.is_multiple_of(512) {
                // Reading is fast where the file is in memory: others get their turn.
                tokio::task::yield_now().await;
            }
        }
        if total == 0 {
            errors.push(LineError {
                code: "empty_file".to_owned(),
                message: "the input file holds no request".to_owned(),
                param: None,
                line: None,
            });
        }
        if unlisted > 0 {
            errors.push(LineError {
                code: "more_errors".to_owned(),
                message: format!("{unlisted} more lines are wrong"),
                param: None,
                line: None,
            });
        }
        Ok(if errors.is_empty() { Verdict::Good(total, pipelines) } else { Verdict::Bad(errors) })
    }

    fn judge(
        &self,
        batch: &BatchRecord,
        caller: &Caller,
        line: &Line,
        seen: &mut HashSet<[u8; 16]>,
        now: crate::clock::Timestamp,
    ) -> std::result::Result<NewJob, LineError> {
        let read = lines::read(batch, line)?;
        let number = number_of(line);
        let mut digest = [0; 16];
        digest.copy_from_slice(&Sha256::digest(read.custom_id.as_bytes())[..16]);
        if !seen.insert(digest) {
            return Err(LineError {
                code: "duplicate_custom_id".to_owned(),
                message: format!("`custom_id` {:?} stands in an earlier line too", read.custom_id),
                param: Some("custom_id".to_owned()),
                line: Some(number),
            });
        }
        self.line_job(batch, caller, number, read, now)
    }

    /// Makes jobs of all lines; those that are jobs already stay as they are. Ends early when `stop` says so: whether all
    /// lines are jobs now.
    pub(super) async fn submit_lines(
        &self,
        batch: &BatchRecord,
        caller: &Caller,
        stop: impl Fn() -> bool,
    ) -> Result<bool> {
        let now = self.clock.now();
        let mut reader = Lines::of(self.store.clone(), &batch.input_file_id, MAX_JOB_BYTES);
        let mut jobs: Vec<NewJob> = Vec::new();
        let mut bytes = 0;
        loop {
            if stop() {
                return Ok(false);
            }
            let line = reader.next().await?;
            let ended = line.is_none();
            if let Some(line) = line {
                // What was good may be bad by now: a pipeline was removed meanwhile. Its line is answered as not executed.
                match lines::read(batch, &line)
                    .and_then(|read| self.line_job(batch, caller, number_of(&line), read, now))
                {
                    Ok(job) => {
                        bytes += job.body.len();
                        jobs.push(job);
                    }
                    Err(error) => tracing::warn!(batch = batch.id, ?error, "a line that was good cannot become a job"),
                }
            }
            if !jobs.is_empty() && (ended || jobs.len() >= JOBS_A_SUBMIT || bytes >= BYTES_A_SUBMIT) {
                bytes = 0;
                let pipelines: Vec<PipelineName> = jobs.iter().map(|job| job.pipeline.clone()).collect();
                let outcomes = self.store.submit(std::mem::take(&mut jobs)).await?;
                for (pipeline, outcome) in pipelines.into_iter().zip(outcomes) {
                    if let Submitted::New(_) = outcome {
                        self.metrics.jobs_submitted(&pipeline, 1);
                    }
                }
            }
            if ended {
                return Ok(true);
            }
        }
    }
}

/// Why the store's word ends a batch, rather than another try: the input is gone.
pub(super) fn input_is_gone(error: &StoreError) -> bool {
    matches!(error, StoreError::Damaged(_))
}

fn number_of(line: &Line) -> u64 {
    match line {
        Line::Whole(number, _) | Line::TooLong(number) => *number,
    }
}
