//! Reading back what happened: recorded jobs, the ledger, how jobs ended.

use std::collections::BTreeMap;

use super::table::Table;
use crate::{
    clock::Timestamp,
    ids::{AttemptId, JobId},
    job::State,
    names::PipelineName,
    store::{
        LEDGER_MAX, LedgerCursor, LedgerPage, LedgerQuery, LedgerRow, RECORDED_BYTES, RECORDED_MAX, RecordedJob,
        RecordedPage, RecordedQuery, ledger::CLOCKS_APART,
    },
};

impl Table {
    pub fn recorded(&self, query: &RecordedQuery) -> RecordedPage {
        let limit = query.limit.clamp(1, RECORDED_MAX) as usize;
        let mut page = RecordedPage::default();
        let (mut bytes, mut last): (usize, Option<JobId>) = (0, query.after);
        for job in self.newest(query.after) {
            if query.since.is_some_and(|since| job.new.created_at + CLOCKS_APART < since) {
                return page;
            }
            if page.jobs.len() >= limit || bytes >= RECORDED_BYTES {
                page.next = last;
                return page;
            }
            last = Some(job.new.id);
            let asked = query.since.is_none_or(|since| job.new.created_at >= since)
                && (query.within.is_empty() || query.within.contains(&job.new.pipeline));
            if asked {
                let body = job.body.clone().filter(|_| query.bodies.contains(&job.new.pipeline));
                bytes += body.as_ref().map_or(0, String::len);
                page.jobs.push(RecordedJob {
                    id: job.new.id,
                    pipeline: job.new.pipeline.clone(),
                    priority: job.new.priority,
                    created_at: job.new.created_at,
                    metadata: job.new.metadata.clone(),
                    body,
                    blanked: job.body.is_none(),
                });
            }
        }
        page
    }

    pub fn ledger_page(&self, query: &LedgerQuery) -> LedgerPage {
        let limit = query.limit.clamp(1, LEDGER_MAX) as usize;
        let first = match query.after {
            None => (query.since, AttemptId::from_bytes([0; 16])),
            Some(after) => (after.ended_at, AttemptId::from_bytes(after.place.to_be_bytes())),
        };
        let rows = self.ledger.range(first..).filter(|(at, _)| query.after.is_none() || **at != first);
        let mut page = LedgerPage::default();
        for ((ended_at, attempt), found) in rows {
            let place = page.places.iter().position(|key| *key == found.key).unwrap_or_else(|| {
                page.places.push(found.key.clone());
                page.places.len() - 1
            });
            page.rows.push(LedgerRow { place, ..found.row.clone() });
            if page.rows.len() >= limit {
                page.next = Some(LedgerCursor { ended_at: *ended_at, place: u128::from_be_bytes(*attempt.as_bytes()) });
                break;
            }
        }
        page
    }

    pub fn ends(&self, since: Timestamp) -> BTreeMap<(PipelineName, State), u64> {
        let mut ends = BTreeMap::new();
        for job in self.newest(None).filter(|job| job.finished_at.is_some_and(|at| at >= since)) {
            *ends.entry((job.new.pipeline.clone(), job.state)).or_default() += 1;
        }
        ends
    }
}
