//! What is known of a batch of the OpenAI form.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    clock::Timestamp,
    ids::JobId,
    names::PipelineName,
    store::{DocumentChange, DocumentKind},
    usage::Usage,
};

/// Where a batch stands, in the original's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::Display, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum BatchStatus {
    /// Its input file is read.
    Validating,
    /// Its input file was refused.
    Failed,
    /// Its lines are jobs.
    InProgress,
    /// Its jobs have ended; its files are written.
    Finalizing,
    /// All is there.
    Completed,
    /// Its window closed before all was done.
    Expired,
    /// It was cancelled; what was done is written.
    Cancelling,
    /// What was done is there.
    Cancelled,
}

impl BatchStatus {
    /// Whether nothing more happens to it.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Failed | Self::Completed | Self::Expired | Self::Cancelled)
    }
}

/// What is wrong with a line of an input file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LineError {
    /// Stable.
    pub code: String,
    /// In words.
    pub message: String,
    /// The field at fault.
    pub param: Option<String>,
    /// From 1.
    pub line: Option<u64>,
}

/// A batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchRecord {
    /// `batch_…`; sorts by age.
    pub id: String,
    /// Whose it is.
    pub owner: String,
    /// The owner's name, and whether the key was bound to pipelines, as they were.
    pub owner_pipelines: BTreeSet<PipelineName>,
    /// The pipeline that the path fixed.
    pub fixed: Option<PipelineName>,
    /// The pipelines of its lines.
    #[serde(default)]
    pub pipelines: BTreeSet<PipelineName>,
    /// What its lines ask.
    pub endpoint: String,
    /// Its lines.
    pub input_file_id: String,
    /// As it was asked for.
    pub completion_window: String,
    /// Where it stands.
    pub status: BatchStatus,
    /// Made.
    pub created_at: Timestamp,
    /// Its lines became jobs.
    #[serde(default)]
    pub in_progress_at: Option<Timestamp>,
    /// Its window closes.
    pub expires_at: Timestamp,
    /// Its files began to be written.
    #[serde(default)]
    pub finalizing_at: Option<Timestamp>,
    /// All was there.
    #[serde(default)]
    pub completed_at: Option<Timestamp>,
    /// Its input was refused.
    #[serde(default)]
    pub failed_at: Option<Timestamp>,
    /// Its window closed.
    #[serde(default)]
    pub expired_at: Option<Timestamp>,
    /// It was asked to stop.
    #[serde(default)]
    pub cancelling_at: Option<Timestamp>,
    /// It stopped.
    #[serde(default)]
    pub cancelled_at: Option<Timestamp>,
    /// What succeeded.
    #[serde(default)]
    pub output_file_id: Option<String>,
    /// What did not.
    #[serde(default)]
    pub error_file_id: Option<String>,
    /// Seconds that its files are kept.
    #[serde(default)]
    pub output_expires_after: Option<u64>,
    /// Who is told of its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback: Option<String>,
    /// The caller's own.
    #[serde(default)]
    pub metadata: Option<BTreeMap<String, String>>,
    /// What was wrong with its input.
    #[serde(default)]
    pub errors: Vec<LineError>,
    /// Its lines.
    #[serde(default)]
    pub total: u64,
    /// Whether every line is a job.
    #[serde(default)]
    pub submitted: bool,
    /// How many succeeded; final once its files are written.
    #[serde(default)]
    pub completed: u64,
    /// How many did not.
    #[serde(default)]
    pub failed: u64,
    /// What its jobs consumed.
    #[serde(default)]
    pub usage: Option<Usage>,
}

impl BatchRecord {
    /// The change that writes it.
    pub fn change(&self) -> DocumentChange {
        let value = serde_json::to_value(self).unwrap_or_default();
        DocumentChange { kind: DocumentKind::Batch, key: self.id.clone(), value: Some(value) }
    }

    /// The job of a line: the same whenever it is asked for, so that a line submitted twice is one job. Jobs of a batch
    /// stand together, in the order of their lines.
    pub fn job_of_line(&self, line: u64) -> JobId {
        let of_batch: [u8; 32] = Sha256::digest(self.id.as_bytes()).into();
        let millis = u64::try_from(self.created_at.as_micros() / 1_000).unwrap_or(0).to_be_bytes();
        let line = u32::try_from(line).unwrap_or(u32::MAX).to_be_bytes();
        let mut id = [0_u8; 16];
        id[..6].copy_from_slice(&millis[2..]);
        id[6..12].copy_from_slice(&of_batch[..6]);
        id[6] = 0x70 | (id[6] & 0x0f);
        id[8] = 0x80 | (id[8] & 0x3f);
        id[12..].copy_from_slice(&line);
        JobId::from_bytes(id)
    }

    /// What a line's job is found by.
    pub fn key_of_line(&self, custom_id: &str) -> String {
        format!("{}/{custom_id}", self.id)
    }
}
