//! Reading rows.

use std::collections::BTreeMap;

use super::table::{Job, Table};
use crate::{
    clock::Timestamp,
    ids::{AttemptId, JobId},
    money::Usd,
    names::PipelineName,
    store::{
        AuditEntry, DocumentPage, JobOutcome, JobPage, JobQuery, JobRecord, JobSummary, Traffic, TrafficKey,
        paging::Pager, traffic::hour_of,
    },
    usage::Usage,
};

impl Table {
    pub fn record(&self, id: JobId) -> Option<JobRecord> {
        let job = self.get(id)?;
        Some(JobRecord {
            summary: summary(job),
            metadata: job.new.metadata.clone(),
            body: job.body.clone(),
            result: job.result.clone(),
            error: job.error.clone(),
            attempts: job.attempts.iter().map(|call| call.attempt.clone()).collect(),
            fidelity: job.attempts.last().map(|call| call.fidelity.clone()).unwrap_or_default(),
            assignment: job.assignment.clone(),
            callback: job.new.callback.clone(),
        })
    }

    pub fn by_key(&self, pipeline: &PipelineName, caller: &str, key: &str) -> Option<JobId> {
        self.keys.get(&(pipeline.clone(), caller.to_owned(), key.to_owned())).copied()
    }

    pub fn list(&self, query: &JobQuery) -> JobPage {
        let mut pager = Pager::new(query);
        for job in self.newest(query.after) {
            if pager.full() {
                break;
            }
            pager.look(job.new.id, matches(job, query).then(|| summary(job)));
        }
        pager.finish()
    }

    pub fn oldest_queued(&self) -> BTreeMap<PipelineName, Timestamp> {
        let heads = self.ready.iter().filter_map(|(pipeline, jobs)| {
            let (_, id) = jobs.first()?;
            Some((pipeline.clone(), self.get(*id)?.new.created_at))
        });
        heads.collect()
    }

    pub fn spending(&self, since: Timestamp) -> BTreeMap<PipelineName, Usd> {
        let mut spending = BTreeMap::<PipelineName, Usd>::new();
        for row in self.ledger.range((since, AttemptId::from_bytes([0; 16]))..).map(|(_, row)| row) {
            let cost = row.row.cost.unwrap_or_default();
            if cost != Usd::ZERO {
                *spending.entry(row.key.pipeline.clone()).or_default() += cost;
            }
        }
        spending
    }

    pub fn traffic(&self, since: Timestamp) -> BTreeMap<TrafficKey, Traffic> {
        let mut sums = BTreeMap::<TrafficKey, Traffic>::new();
        for ((_, key), traffic) in self.traffic.iter().filter(|((hour, _), _)| *hour >= hour_of(since)) {
            *sums.entry(key.clone()).or_default() += *traffic;
        }
        sums
    }

    pub fn spending_by_caller(&self, since: Timestamp) -> BTreeMap<String, Usd> {
        let mut spending = BTreeMap::<String, Usd>::new();
        for row in self.ledger.range((since, AttemptId::from_bytes([0; 16]))..).map(|(_, row)| row) {
            let cost = row.row.cost.unwrap_or_default();
            let caller = self.get(row.job).map(|job| job.new.caller.clone()).filter(|caller| !caller.is_empty());
            if let (Some(caller), true) = (caller, cost != Usd::ZERO) {
                *spending.entry(caller).or_default() += cost;
            }
        }
        spending
    }

    pub fn outcome(&self, id: JobId) -> Option<JobOutcome> {
        let job = self.get(id)?;
        let usage =
            job.attempts.iter().filter_map(|call| call.attempt.usage).fold(Usage::default(), |mut sum, usage| {
                sum += usage;
                sum
            });
        Some(JobOutcome { state: job.state, result: job.result.clone(), error: job.error.clone(), usage })
    }

    pub fn documents_page(&self, page: &DocumentPage) -> Vec<(String, serde_json::Value)> {
        let Some(documents) = self.documents.get(&page.kind) else { return Vec::new() };
        let after = page.after.as_ref();
        let pair = |(key, value): (&String, &serde_json::Value)| (key.clone(), value.clone());
        let limit = page.limit as usize;
        if page.descending {
            let rest = documents.iter().rev().filter(|(key, _)| after.is_none_or(|after| *key < after));
            rest.take(limit).map(pair).collect()
        } else {
            let rest = documents.iter().filter(|(key, _)| after.is_none_or(|after| *key > after));
            rest.take(limit).map(pair).collect()
        }
    }

    pub fn audit_since(&self, since: Timestamp, limit: u32) -> Vec<AuditEntry> {
        let mut entries: Vec<AuditEntry> = self.audit.iter().filter(|entry| entry.at >= since).cloned().collect();
        entries.sort_by_key(|entry| entry.at);
        entries.truncate(limit as usize);
        entries
    }
}

fn matches(job: &Job, query: &JobQuery) -> bool {
    query.pipeline.as_ref().is_none_or(|pipeline| *pipeline == job.new.pipeline)
        && (query.within.is_empty() || query.within.contains(&job.new.pipeline))
        && (query.states.is_empty() || query.states.contains(&job.state))
        && (query.batch.is_none() || query.batch == job.new.batch)
        && (query.idempotency_key.is_none() || query.idempotency_key == job.new.idempotency_key)
        && query.metadata.iter().all(|(key, value)| job.new.metadata.get(key) == Some(value))
}

fn summary(job: &Job) -> JobSummary {
    let newest = job.attempts.last();
    JobSummary {
        id: job.new.id,
        pipeline: job.new.pipeline.clone(),
        caller: job.new.caller.clone(),
        state: job.state,
        hold: job.hold.map(|(reason, _)| reason),
        until: job.until,
        priority: job.new.priority,
        created_at: job.new.created_at,
        finished_at: job.finished_at,
        deadline: job.new.deadline,
        idempotency_key: job.new.idempotency_key.clone(),
        batch: job.new.batch.clone(),
        retry_of: job.new.retry_of,
        suspect: job.suspect,
        attempts: u32::try_from(job.attempts.len()).unwrap_or(u32::MAX),
        generation: newest.map_or(0, |call| call.generation),
        target: newest.map(|call| call.attempt.target.clone()),
    }
}
