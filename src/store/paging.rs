//! One page of a list of jobs: how much of the store a single question may look at.
//!
//! Invariant: a page looks at a bounded number of rows, whatever is asked for, and hands out a cursor while any row is left.

use super::{JobPage, JobQuery, JobSummary};
use crate::ids::JobId;

/// Jobs on one page at most: keeps an answer in the range of a megabyte.
const PAGE_MAX: u32 = 1_000;

/// Rows one page looks at: some tens of milliseconds of one reader.
const LOOK_MAX: u32 = 10_000;

/// A page being filled.
#[derive(Debug)]
pub struct Pager {
    page: JobPage,
    limit: usize,
    left: u32,
    last: Option<JobId>,
}

impl Pager {
    /// An empty page for a question.
    pub fn new(query: &JobQuery) -> Self {
        let limit = query.limit.clamp(1, PAGE_MAX) as usize;
        Self { page: JobPage::default(), limit, left: LOOK_MAX, last: query.after }
    }

    /// Whether one more row is there but may not be looked at; then the page ends before it.
    pub fn full(&mut self) -> bool {
        let full = self.page.jobs.len() >= self.limit || self.left == 0;
        if full {
            self.page.next = self.last;
        }
        full
    }

    /// How many jobs the page can still hold.
    pub fn room(&self) -> usize {
        self.limit.saturating_sub(self.page.jobs.len())
    }

    /// Takes note of a row, and of the job when it is one that was asked for.
    pub fn look(&mut self, id: JobId, found: Option<JobSummary>) {
        self.left = self.left.saturating_sub(1);
        self.last = Some(id);
        self.page.jobs.extend(found);
    }

    /// The page.
    pub fn finish(self) -> JobPage {
        self.page
    }
}
