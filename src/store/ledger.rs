//! Reading back what happened, for reports and plans: recorded jobs and ended calls, page by page.
//!
//! Invariant: a page is bounded in rows and bytes, and a cursor leads on while there is more; whoever reads the whole keeps
//! sums, not rows.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::TrafficKey;
use crate::{
    clock::Timestamp,
    ids::JobId,
    job::{Fault, Outcome},
    money::Usd,
    names::PipelineName,
    usage::Usage,
};

/// Jobs on a page at most.
pub const RECORDED_MAX: u32 = 2_000;
/// Bytes of bodies on a page, but for the last one: what a reader holds in memory.
pub const RECORDED_BYTES: usize = 8 << 20;
/// Calls on a page at most.
pub const LEDGER_MAX: u32 = 20_000;
/// Jobs are numbered by the clock of whoever took them in: how far two clocks may be apart.
pub(super) const CLOCKS_APART: Duration = Duration::from_mins(5);

/// Which recorded jobs to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordedQuery {
    /// Accepted at or after this moment; `None` for all.
    pub since: Option<Timestamp>,
    /// Older than this job (a cursor).
    pub after: Option<JobId>,
    /// Of one of these pipelines; empty for all.
    pub within: Vec<PipelineName>,
    /// Pipelines whose jobs come with their bodies.
    pub bodies: BTreeSet<PipelineName>,
    /// At most.
    pub limit: u32,
}

/// A recorded job, as far as rules look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedJob {
    /// The job.
    pub id: JobId,
    /// Its pipeline.
    pub pipeline: PipelineName,
    /// Higher first.
    pub priority: i32,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// For rules and rollouts.
    pub metadata: BTreeMap<String, String>,
    /// The chat request as JSON text; only where it was asked for and is kept.
    pub body: Option<String>,
    /// Whether its body is gone: its time was over.
    pub blanked: bool,
}

/// A page of recorded jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordedPage {
    /// Newest first.
    pub jobs: Vec<RecordedJob>,
    /// Where the next page starts, when there may be more.
    pub next: Option<JobId>,
}

/// Which ended calls to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerQuery {
    /// Ended at or after this moment.
    pub since: Timestamp,
    /// Behind this row.
    pub after: Option<LedgerCursor>,
    /// At most.
    pub limit: u32,
}

/// A place in the ledger; what `place` means is the store's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerCursor {
    pub(super) ended_at: Timestamp,
    pub(super) place: u128,
}

/// An ended call.
#[derive(Debug, Clone, PartialEq)]
pub struct LedgerRow {
    /// Where it went: a place in the page's own list.
    pub place: usize,
    /// When it ended.
    pub ended_at: Timestamp,
    /// From its start to its end.
    pub took: Duration,
    /// From its start to the first piece of a streamed answer.
    pub first_token: Option<Duration>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it failed.
    pub fault: Option<Fault>,
    /// What it consumed, as reported.
    pub usage: Option<Usage>,
    /// The tokens that its prompt was reckoned to have at most, before it was sent.
    pub prompt_estimate: Option<u64>,
    /// What it cost.
    pub cost: Option<Usd>,
    /// It may have been billed though no answer came.
    pub possibly_billed: bool,
    /// The most that it may have cost, where it was possibly billed.
    pub possible_cost: Option<Usd>,
    /// It answered a job that another target had been tried for before.
    pub rescued: bool,
}

/// A page of the ledger.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LedgerPage {
    /// Where calls of this page went.
    pub places: Vec<TrafficKey>,
    /// By the time of their end.
    pub rows: Vec<LedgerRow>,
    /// Where the next page starts, when there may be more.
    pub next: Option<LedgerCursor>,
}
