//! Jobs being moved in one transaction: their rows are locked and read, stepped here, and written back in bulk.
//!
//! Invariant: nothing is decided here but by [`crate::job::state::next`]; every step keeps sums and hints in step with the
//! rows. Rows are locked in the order of their ids, so that daemons never wait for each other in a circle.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    columns::{self, Standing, get, job_id, standing, time, uuid},
    link::{Tx, params},
    observe::Sayings,
    tally::{Place, Tally},
    trouble::Trouble,
};
use crate::{
    clock::Timestamp,
    ids::{AttemptId, JobId},
    job::{
        Outcome, State,
        state::{Event, next},
    },
    money::Usd,
    store::{AttemptEnd, Intent, JobError, Traffic, codes, hints::Hints},
    usage::Usage,
};

/// A job in hand.
#[derive(Debug)]
pub struct Held {
    /// Its row as it will be.
    pub row: Standing,
    /// Its open attempts.
    pub open: BTreeMap<AttemptId, Call>,
    /// What it ended with, once it has.
    pub end: Option<End>,
    /// Whether the row must be written.
    pub touched: bool,
}

/// What a job ended with.
#[derive(Debug, Default)]
pub struct End {
    /// The answer.
    pub result: Option<String>,
    /// Why there is none.
    pub error: Option<JobError>,
}

/// A job that had ended before.
#[derive(Debug)]
pub struct Past {
    pub pipeline: i32,
    pub state: State,
    pub open: BTreeMap<AttemptId, Call>,
    /// Somebody had it in flight when it ended, and has not reported yet.
    pub awaited: bool,
}

/// What a call is counted by.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    pub place: Place,
    /// The most that it may cost, where known.
    pub most_cost: Option<Usd>,
}

impl Call {
    /// Of a call that begins.
    pub fn of(intent: &Intent, pipeline: i32) -> Self {
        let place = Place {
            pipeline,
            target: intent.target.to_string(),
            provider: intent.provider.to_string(),
            model: columns::clean(&intent.model).into_owned(),
        };
        Self { place, most_cost: intent.most_cost }
    }

    /// From four columns.
    fn read(row: &Row, first: usize, pipeline: i32) -> Result<Self, Trouble> {
        let place =
            Place { pipeline, target: get(row, first)?, provider: get(row, first + 1)?, model: get(row, first + 2)? };
        Ok(Self { place, most_cost: get::<Option<&str>>(row, first + 3)?.map(codes::parse).transpose()? })
    }
}

/// A closed attempt whose end nobody had seen.
#[derive(Debug)]
pub struct Unseen {
    call: Call,
    at: Timestamp,
    counted: Traffic,
}

/// The changes of one transaction.
#[derive(Debug)]
pub struct Change {
    /// The store's own time.
    pub now: Timestamp,
    pub live: BTreeMap<JobId, Held>,
    pub past: BTreeMap<JobId, Past>,
    /// Closed attempts whose end nobody had seen: a report may still say it.
    pub unseen: HashMap<(JobId, AttemptId), Unseen>,
    pub tally: Tally,
    pub intents: Vec<(Intent, i32)>,
    pub assignments: BTreeMap<JobId, String>,
    /// What there is to say of rollouts.
    pub sayings: Sayings,
    /// Ends of open attempts, and ends of attempts that were closed as `unknown`.
    pub closings: Vec<(JobId, AttemptEnd)>,
    pub reports: Vec<(JobId, AttemptEnd)>,
    pub let_go: BTreeSet<JobId>,
    became_ready: bool,
    ended: Vec<JobId>,
}

/// Hints to be given once a transaction is durable.
#[derive(Debug, Default)]
pub struct News {
    /// Jobs may have become ready.
    pub ready: bool,
    /// Jobs that ended.
    pub ended: Vec<JobId>,
}

impl News {
    /// Tells whoever listens in this process.
    pub fn give(&self, hints: &Hints) {
        if self.ready {
            hints.ready();
        }
        for job in &self.ended {
            hints.ended(*job);
        }
    }
}

/// Live rows by id. Whoever was moved meanwhile is read as it is now.
const LIVE: &str =
    concat!("SELECT ", standing!(), " FROM landbridge.jobs WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE");
const OPEN: &str =
    "SELECT job, id, pipeline, target, provider, model, most_cost::text FROM landbridge.calls WHERE job = ANY($1)";
const PAST: &str = "SELECT id, pipeline, state, node IS NOT NULL FROM landbridge.history WHERE id = ANY($1) ORDER BY id \
                    FOR NO KEY UPDATE";

impl Change {
    /// No job yet.
    pub fn new(now: Timestamp) -> Self {
        Self {
            now,
            live: BTreeMap::new(),
            past: BTreeMap::new(),
            unseen: HashMap::new(),
            tally: Tally::default(),
            intents: Vec::new(),
            assignments: BTreeMap::new(),
            sayings: Sayings::default(),
            closings: Vec::new(),
            reports: Vec::new(),
            let_go: BTreeSet::new(),
            became_ready: false,
            ended: Vec::new(),
        }
    }

    /// Locks and reads live jobs with their open attempts.
    pub async fn take(&mut self, tx: &Tx<'_>, ids: &[Uuid]) -> Result<(), Trouble> {
        let rows = tx.query(LIVE, params![ids => UUID_ARRAY]).await?;
        for row in &rows {
            let row = Standing::read(row)?;
            self.hold(row);
        }
        self.read_open(tx).await
    }

    /// Reads the open attempts of the live jobs in hand.
    pub async fn read_open(&mut self, tx: &Tx<'_>) -> Result<(), Trouble> {
        if !self.live.is_empty() {
            let ids: Vec<Uuid> = self.live.keys().map(|id| uuid(*id)).collect();
            for row in tx.query(OPEN, params![ids => UUID_ARRAY]).await? {
                if let Some(held) = self.live.get_mut(&job_id(get(&row, 0)?)) {
                    held.open.insert(attempt_id(get(&row, 1)?), Call::read(&row, 3, get(&row, 2)?)?);
                }
            }
        }
        Ok(())
    }

    /// Takes a locked row into hand.
    pub fn hold(&mut self, row: Standing) {
        self.live.insert(row.id, Held { row, open: BTreeMap::new(), end: None, touched: false });
    }

    /// Locks and reads jobs among `ids` that are not live but were.
    pub async fn take_past(&mut self, tx: &Tx<'_>, ids: &[Uuid]) -> Result<(), Trouble> {
        let missing: Vec<Uuid> = ids.iter().copied().filter(|id| !self.live.contains_key(&job_id(*id))).collect();
        if missing.is_empty() {
            return Ok(());
        }
        for row in tx.query(PAST, params![missing => UUID_ARRAY]).await? {
            let past = Past {
                pipeline: get(&row, 1)?,
                state: columns::state(&row, 2)?,
                open: BTreeMap::new(),
                awaited: get(&row, 3)?,
            };
            self.past.insert(job_id(get(&row, 0)?), past);
        }
        let awaited: Vec<Uuid> = self.past.iter().filter(|(_, past)| past.awaited).map(|(id, _)| uuid(*id)).collect();
        if !awaited.is_empty() {
            for row in tx.query(OPEN, params![awaited => UUID_ARRAY]).await? {
                if let Some(past) = self.past.get_mut(&job_id(get(&row, 0)?)) {
                    past.open.insert(attempt_id(get(&row, 1)?), Call::read(&row, 3, get(&row, 2)?)?);
                }
            }
        }
        Ok(())
    }

    /// Reads which of these attempts were closed as `unknown`.
    pub async fn take_unseen(&mut self, tx: &Tx<'_>, attempts: &[(JobId, AttemptId)]) -> Result<(), Trouble> {
        let strange: Vec<_> = attempts.iter().filter(|(job, attempt)| !self.is_open(*job, *attempt)).collect();
        if strange.is_empty() {
            return Ok(());
        }
        let jobs: Vec<Uuid> = strange.iter().map(|(job, _)| uuid(*job)).collect();
        let ids: Vec<Uuid> = strange.iter().map(|(_, attempt)| Uuid::from_bytes(*attempt.as_bytes())).collect();
        let sql = "SELECT job, id, pipeline, target, provider, model, most_cost::text, ended_at, billed, input, output, \
                   cache_read, cache_write, reasoning FROM landbridge.attempts \
                   WHERE job = ANY($1) AND id = ANY($2) AND outcome = $3 AND cost IS NULL FOR NO KEY UPDATE";
        let unknown = outcome_code(Outcome::Unknown);
        for row in tx.query(sql, params![jobs => UUID_ARRAY, ids => UUID_ARRAY, unknown => INT2]).await? {
            let call = Call::read(&row, 3, get(&row, 2)?)?;
            let count = |place| Ok::<u64, Trouble>(codes::unsigned(get::<Option<i64>>(&row, place)?.unwrap_or(0)));
            let usage = Usage {
                input: count(9)?,
                output: count(10)?,
                cache_read: count(11)?,
                cache_write: count(12)?,
                reasoning: count(13)?,
            };
            let counted = Traffic::of_unseen(get(&row, 8)?, usage, call.most_cost);
            let unseen = Unseen { call, at: time(&row, 7)?, counted };
            self.unseen.insert((job_id(get(&row, 0)?), attempt_id(get(&row, 1)?)), unseen);
        }
        Ok(())
    }

    fn is_open(&self, job: JobId, attempt: AttemptId) -> bool {
        let live = self.live.get(&job).map(|held| &held.open);
        live.or_else(|| self.past.get(&job).map(|past| &past.open)).is_some_and(|open| open.contains_key(&attempt))
    }

    /// Takes one step of a live job's life, and leaves behind what belongs to the state it was in.
    pub fn step(&mut self, id: JobId, event: Event) -> Result<(), Trouble> {
        let now = self.now.as_micros();
        let Some(held) = self.live.get_mut(&id) else { return Ok(()) };
        let row = &mut held.row;
        let state = next(row.state, event).map_err(|illegal| Trouble::from(illegal).about(id))?;
        self.tally.shift(row.pipeline, row.batch, row.state, -1);
        self.tally.shift(row.pipeline, row.batch, state, 1);
        if let Some(since) = row.held_at.take() {
            row.expiry_key = row.expiry_key.saturating_add(now.saturating_sub(since).max(0));
        }
        row.hold = None;
        row.run_at = None;
        row.state = state;
        if state != State::Running && held.open.is_empty() {
            row.node = None;
        }
        held.touched = true;
        self.became_ready |= state == State::Queued;
        if state.is_terminal() {
            held.end.get_or_insert_default();
            self.ended.push(id);
        }
        Ok(())
    }

    /// Ends a job with an answer or an error.
    pub fn end(&mut self, id: JobId, event: Event, end: End) -> Result<(), Trouble> {
        self.step(id, event)?;
        if let Some(held) = self.live.get_mut(&id) {
            held.end = Some(end);
        }
        Ok(())
    }

    /// Changes a live job's row beside its steps.
    pub fn amend(&mut self, id: JobId, act: impl FnOnce(&mut Standing)) {
        if let Some(held) = self.live.get_mut(&id) {
            held.touched = true;
            act(&mut held.row);
        }
    }

    /// Closes an attempt once. What was closed unseen takes the end that its worker saw; any other end stays.
    pub fn close(&mut self, job: JobId, end: &AttemptEnd) {
        let (pipeline, open) = match (self.live.get_mut(&job), self.past.get_mut(&job)) {
            (Some(held), _) => (held.row.pipeline, &mut held.open),
            (None, Some(past)) => (past.pipeline, &mut past.open),
            (None, None) => return,
        };
        let call = if let Some(call) = open.remove(&end.attempt) {
            self.closings.push((job, end.clone()));
            call
        } else if let Some(Unseen { call, at, counted }) = self.unseen.remove(&(job, end.attempt)) {
            self.reports.push((job, end.clone()));
            self.tally.carry(at, &call.place, &counted, -1);
            call
        } else {
            return;
        };
        let most_cost = call.most_cost.filter(|_| end.possibly_billed);
        self.tally.carry(end.ended_at, &call.place, &Traffic::of(end, most_cost), 1);
        if let Some(cost) = end.cost {
            self.tally.spend(pipeline, end.ended_at, cost);
        }
    }

    /// Forgets who had an ended job in flight, if no attempt of it is open any more.
    pub fn let_go(&mut self, id: JobId) {
        if let Some(past) = self.past.get_mut(&id)
            && past.open.is_empty()
            && std::mem::take(&mut past.awaited)
        {
            self.let_go.insert(id);
        } else if let Some(held) = self.live.get_mut(&id)
            && held.row.state.is_terminal()
            && held.open.is_empty()
        {
            held.row.node = None;
        }
    }

    /// What to tell once this is durable.
    pub fn news(&mut self) -> News {
        News { ready: std::mem::take(&mut self.became_ready), ended: std::mem::take(&mut self.ended) }
    }
}

/// The attempt's id in a column.
pub fn attempt_id(id: Uuid) -> AttemptId {
    AttemptId::from_bytes(*id.as_bytes())
}

/// An outcome as the column holds it.
pub fn outcome_code(outcome: Outcome) -> i16 {
    i16::try_from(crate::store::codes::outcome_code(outcome)).unwrap_or(i16::MAX)
}
