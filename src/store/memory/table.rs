//! The rows, and the indexes that find them.
//!
//! Invariant: rows change only inside [`Table::change`], which keeps indexes, counts and hints in step with them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    clock::Timestamp,
    ids::{AttemptId, JobId, NodeId},
    job::{
        Attempt, FidelityNote, HoldReason, State,
        state::{Event, next},
    },
    money::Usd,
    names::{PipelineName, RolloutName},
    store::{
        Assignment, AuditEntry, DocumentChange, DocumentKind, JobError, LedgerRow, NewJob, Notice, Observation, Result,
        StoreError, Traffic, TrafficKey,
    },
};

/// A job's row.
pub struct Job {
    /// As submitted; its body goes to `body`.
    pub new: NewJob,
    pub body: Option<String>,
    pub state: State,
    pub fence: u64,
    pub hold: Option<(HoldReason, Timestamp)>,
    pub until: Option<Timestamp>,
    /// Who has it in flight, or had when it ended under an open attempt.
    pub node: Option<NodeId>,
    pub crashes: u32,
    pub suspect: bool,
    /// Its caller waits for it here: it ends with this daemon.
    pub live: bool,
    pub finished_at: Option<Timestamp>,
    pub result: Option<String>,
    pub error: Option<JobError>,
    pub assignment: Option<Assignment>,
    pub attempts: Vec<Call>,
}

/// An attempt's row.
pub struct Call {
    pub attempt: Attempt,
    pub most_cost: Option<Usd>,
    pub prompt_estimate: Option<u64>,
    pub generation: u64,
    pub fidelity: Vec<FidelityNote>,
}

/// An ended attempt's row in the ledger.
pub struct Ledgered {
    pub job: JobId,
    pub key: TrafficKey,
    /// Its place in a page is the page's own.
    pub row: LedgerRow,
}

impl Job {
    pub fn new(mut new: NewJob, state: State) -> Self {
        let body = Some(std::mem::take(&mut new.body));
        let until = new.not_before.filter(|_| state == State::Waiting);
        Self {
            new,
            body,
            state,
            fence: 0,
            hold: None,
            until,
            node: None,
            crashes: 0,
            suspect: false,
            live: false,
            finished_at: None,
            result: None,
            error: None,
            assignment: None,
            attempts: Vec::new(),
        }
    }

    /// Takes one step of a job's life, and leaves behind what belongs to the state it was in.
    pub fn step(&mut self, event: Event, now: Timestamp) -> Result<()> {
        let state =
            next(self.state, event).map_err(|illegal| StoreError::Damaged(format!("{}: {illegal}", self.new.id)))?;
        if let Some((_, since)) = self.hold.take() {
            self.new.expiry_key = self.new.expiry_key + now.since(since);
        }
        self.until = None;
        self.state = state;
        if state.is_terminal() {
            self.finished_at = Some(now);
        }
        if state != State::Running && !self.calling() {
            self.node = None;
        }
        Ok(())
    }

    /// Whether an attempt is open.
    pub fn calling(&self) -> bool {
        self.attempts.iter().any(|call| call.attempt.ended_at.is_none())
    }

    fn ready(&self) -> bool {
        next(self.state, Event::Claim).is_ok()
    }
}

/// Everything.
#[derive(Default)]
pub struct Table {
    jobs: BTreeMap<JobId, Job>,
    pub ready: BTreeMap<PipelineName, BTreeSet<(i64, JobId)>>,
    pub suspects: BTreeMap<PipelineName, BTreeSet<(i64, JobId)>>,
    pub waiting: BTreeSet<(Timestamp, JobId)>,
    pub held: BTreeMap<PipelineName, BTreeSet<JobId>>,
    pub expiring: BTreeMap<PipelineName, BTreeSet<(Timestamp, JobId)>>,
    pub busy: BTreeMap<NodeId, BTreeSet<JobId>>,
    pub ended_at: BTreeMap<PipelineName, BTreeSet<(Timestamp, JobId)>>,
    pub counts: BTreeMap<(PipelineName, State), u64>,
    pub batches: BTreeMap<String, BTreeMap<State, u64>>,
    pub keys: HashMap<(PipelineName, String, String), JobId>,
    /// Ended attempts, kept when their jobs are gone.
    pub ledger: BTreeMap<(Timestamp, AttemptId), Ledgered>,
    /// Sums by hour.
    pub traffic: BTreeMap<(i64, TrafficKey), Traffic>,
    pub nodes: BTreeMap<NodeId, Timestamp>,
    pub documents: BTreeMap<DocumentKind, BTreeMap<String, serde_json::Value>>,
    pub audit: Vec<AuditEntry>,
    pub observations: BTreeMap<(PipelineName, RolloutName), BTreeMap<u64, Observation>>,
    /// Counts changes of documents.
    pub revision: u64,
    /// By name: the token, who has it, and until when.
    pub leads: BTreeMap<String, (u64, NodeId, Timestamp)>,
    /// Nodes that were heard of and are gone.
    pub gone: BTreeSet<NodeId>,
    /// Hints to give when the lock is released.
    pub became_ready: bool,
    pub ended: Vec<JobId>,
}

impl Table {
    pub fn get(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(&id)
    }

    /// Newest first, older than `after`.
    pub fn newest(&self, after: Option<JobId>) -> impl Iterator<Item = &Job> {
        use std::ops::Bound::{Excluded, Unbounded};
        let end = after.map_or(Unbounded, Excluded);
        self.jobs.range((Unbounded, end)).rev().map(|(_, job)| job)
    }

    pub fn add(&mut self, job: Job) {
        let id = job.new.id;
        if let Some(key) = &job.new.idempotency_key {
            self.keys.insert((job.new.pipeline.clone(), job.new.caller.clone(), key.clone()), id);
        }
        self.index(&job, true);
        self.jobs.insert(id, job);
    }

    /// The only way to change a row; `None` when there is no such job.
    pub fn change<T>(&mut self, id: JobId, act: impl FnOnce(&mut Job) -> T) -> Option<T> {
        let mut job = self.jobs.remove(&id)?;
        let was = job.state;
        self.index(&job, false);
        let answer = act(&mut job);
        self.index(&job, true);
        if job.state.is_terminal() && !was.is_terminal() {
            self.ended.push(id);
            if let (Some(url), Some(at)) = (&job.new.callback, job.finished_at) {
                let (notice, what) = Notice::of_job(id, &job.new.pipeline, job.state, url.clone(), at);
                what.posting(&notice).into_iter().for_each(|change| self.write_document(change));
            }
        }
        self.jobs.insert(id, job);
        Some(answer)
    }

    pub fn write_document(&mut self, DocumentChange { kind, key, value }: DocumentChange) {
        let documents = self.documents.entry(kind).or_default();
        match value {
            Some(value) => documents.insert(key, value),
            None => documents.remove(&key),
        };
    }

    pub fn delete(&mut self, id: JobId) {
        if let Some(job) = self.jobs.remove(&id) {
            self.index(&job, false);
            if let Some(key) = job.new.idempotency_key {
                self.keys.remove(&(job.new.pipeline, job.new.caller, key));
            }
        }
    }

    /// Writes a row into the indexes, or takes it out of them.
    fn index(&mut self, job: &Job, present: bool) {
        let (id, pipeline) = (job.new.id, &job.new.pipeline);
        let place = (job.new.order_key(), id);
        count(&mut self.counts, (pipeline.clone(), job.state), present);
        if let Some(batch) = &job.new.batch {
            let states = self.batches.entry(batch.clone()).or_default();
            count(states, job.state, present);
            if states.is_empty() {
                self.batches.remove(batch);
            }
        }
        if job.ready() && !job.suspect {
            mark(self.ready.entry(pipeline.clone()).or_default(), place, present);
        }
        if job.ready() && present {
            self.became_ready = true;
        }
        if job.suspect && !job.state.is_terminal() {
            mark(self.suspects.entry(pipeline.clone()).or_default(), place, present);
        }
        if let Some(until) = job.until {
            mark(&mut self.waiting, (until, id), present);
        }
        if job.hold.is_some() {
            mark(self.held.entry(pipeline.clone()).or_default(), id, present);
        }
        if job.hold.is_none() && !job.state.is_terminal() {
            mark(self.expiring.entry(pipeline.clone()).or_default(), (job.new.expiry_key, id), present);
        }
        if let Some(node) = job.node {
            mark(self.busy.entry(node).or_default(), id, present);
        }
        if let Some(at) = job.finished_at {
            mark(self.ended_at.entry(pipeline.clone()).or_default(), (at, id), present);
        }
    }
}

fn mark<T: Ord>(set: &mut BTreeSet<T>, entry: T, present: bool) {
    if present {
        set.insert(entry);
    } else {
        set.remove(&entry);
    }
}

fn count<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K, present: bool) {
    if present {
        *counts.entry(key).or_default() += 1;
    } else if let Some(n) = counts.get_mut(&key) {
        *n = n.saturating_sub(1);
        if *n == 0 {
            counts.remove(&key);
        }
    }
}
