//! What moves from one store to another: every row with all it holds, in a form that both know.
//!
//! Invariant: a row's sum depends on its contents alone, so that what was read can be held against what was written, in any
//! order. Enums and numbers are those of [`super::codes`], which keep their meaning.

use serde::Serialize;
use sha2::{Digest, Sha256};

/// A job with its contents. Moments are microseconds; ids are their bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobRow {
    pub id: [u8; 16],
    pub pipeline: String,
    pub state: i64,
    pub fence: i64,
    pub order_key: i64,
    pub expiry_key: i64,
    pub created_at: i64,
    pub priority: i32,
    pub run_at: Option<i64>,
    pub hold: Option<String>,
    pub held_at: Option<i64>,
    pub finished_at: Option<i64>,
    pub crashes: i64,
    pub suspect: bool,
    pub blanked: bool,
    pub batch: Option<String>,
    pub assignment: Option<String>,
    pub deadline: i64,
    pub caller: String,
    pub key: Option<String>,
    pub digest: Option<Vec<u8>>,
    pub retry_of: Option<[u8; 16]>,
    pub metadata: Option<String>,
    pub body: Option<String>,
    pub result: Option<String>,
    pub error: Option<String>,
    pub callback: Option<String>,
}

/// A row of the ledger. `place` orders the attempts of one job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AttemptRow {
    pub job: [u8; 16],
    pub id: [u8; 16],
    pub place: i64,
    pub pipeline: String,
    pub n: i32,
    pub target: String,
    pub provider: String,
    pub model: String,
    pub region: Option<String>,
    pub generation: i64,
    pub started_at: i64,
    pub ended_at: i64,
    pub outcome: i64,
    pub fault: Option<String>,
    pub message: Option<String>,
    pub usage: [Option<i64>; 5],
    pub cost: Option<String>,
    pub most_cost: Option<String>,
    pub prompt_estimate: Option<i64>,
    pub first_token: Option<i64>,
    pub billed: bool,
    pub request: Option<String>,
    pub fidelity: Option<String>,
    pub decision: Option<String>,
}

/// What a pipeline spent in an hour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SpendingRow {
    pub hour: i64,
    pub pipeline: String,
    pub cost: String,
}

/// Calls of an hour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TrafficRow {
    pub hour: i64,
    pub pipeline: String,
    pub target: String,
    pub provider: String,
    pub model: String,
    pub numbers: [i64; 10],
    pub amounts: [String; 2],
}

/// A document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DocumentRow {
    pub kind: String,
    pub key: String,
    pub value: String,
}

/// An audit entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditRow {
    pub at: i64,
    pub actor: String,
    pub action: String,
    pub subject: String,
    pub reason: Option<String>,
    pub detail: String,
}

/// What happened to a rollout with steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ObservationRow {
    pub pipeline: String,
    pub rollout: String,
    pub number: i64,
    pub at: i64,
    pub job: Option<[u8; 16]>,
    pub what: String,
}

/// Rows of one kind, with where the next ones begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rows {
    Jobs(Vec<JobRow>),
    Attempts(Vec<AttemptRow>),
    Spending(Vec<SpendingRow>),
    Traffic(Vec<TrafficRow>),
    Documents(Vec<DocumentRow>),
    Audit(Vec<AuditRow>),
    Observations(Vec<ObservationRow>),
}

/// The kinds of rows, in the order in which they move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display, strum::EnumIter)]
#[strum(serialize_all = "snake_case")]
pub enum Part {
    Jobs,
    Attempts,
    Spending,
    Traffic,
    Documents,
    Audit,
    Observations,
}

/// How many rows, and the sum of what they hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum {
    pub rows: u64,
    pub total: u128,
}

impl Sum {
    fn add(&mut self, row: &impl Serialize) {
        let text = serde_json::to_vec(row).unwrap_or_default();
        let digest = Sha256::digest(&text);
        let mut half = [0; 16];
        for (place, byte) in half.iter_mut().zip(digest) {
            *place = byte;
        }
        self.rows += 1;
        self.total = self.total.wrapping_add(u128::from_be_bytes(half));
    }

    /// This sum with the rows in it.
    #[must_use]
    pub fn with(mut self, rows: &Rows) -> Self {
        match rows {
            Rows::Jobs(rows) => rows.iter().for_each(|row| self.add(row)),
            Rows::Attempts(rows) => rows.iter().for_each(|row| self.add(row)),
            Rows::Spending(rows) => rows.iter().for_each(|row| self.add(row)),
            Rows::Traffic(rows) => rows.iter().for_each(|row| self.add(row)),
            Rows::Documents(rows) => rows.iter().for_each(|row| self.add(row)),
            Rows::Audit(rows) => rows.iter().for_each(|row| self.add(row)),
            Rows::Observations(rows) => rows.iter().for_each(|row| self.add(row)),
        }
        self
    }
}

/// An exact amount without zeros at its end: the same amount, the same text.
pub fn plain_amount(text: &str) -> String {
    text.parse::<rust_decimal::Decimal>().map_or_else(|_| text.to_owned(), |amount| amount.normalize().to_string())
}
