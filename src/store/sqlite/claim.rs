//! Claiming jobs, and writing intents.
//!
//! Invariant: a claim looks at the heads of the ready index alone, so its cost does not grow with the queue.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use rusqlite::{OptionalExtension, params};

use super::{
    codes, rows,
    schema::{PLACES, of_job},
    session::{Flight, Session, Standing, standing_columns},
    trouble::Trouble,
};
use crate::{
    clock::Timestamp,
    job::{State, state::Event},
    names::PipelineName,
    store::{ClaimRequest, Claimed, Fence, Intent},
};

/// Jobs of one claim at most, whatever is asked for: a transaction of a few milliseconds.
const CLAIM_MAX: u32 = 1_024;

pub(super) const READY: &str = "SELECT order_key, seq FROM jobs INDEXED BY jobs_ready \
                     WHERE pipeline = ?1 AND state = 0 AND suspect = 0 ORDER BY order_key, seq LIMIT ?2";
pub(super) const TAKE: &str = "UPDATE jobs SET state = ?2, fence = fence + 1, node = ?3 WHERE seq = ?1";
pub(super) const SUSPECT: &str = "SELECT order_key, seq FROM jobs INDEXED BY jobs_suspect \
                       WHERE suspect = 1 AND finished_at IS NULL AND pipeline = ?1 AND state = 0 \
                       ORDER BY order_key, seq LIMIT 1";

/// A pipeline being claimed from: its next jobs, and how many more it may give.
struct Lane<'a> {
    name: &'a PipelineName,
    number: i64,
    left: u32,
    heads: VecDeque<(i64, i64)>,
}

impl Session {
    /// Claims ready jobs, or one suspect.
    pub fn claim(&mut self, request: &ClaimRequest) -> Result<Vec<Claimed>, Trouble> {
        if request.is_empty() {
            return Ok(Vec::new());
        }
        let node = self.names.node(&self.conn, request.node)?;
        // A node that works is not gone, whether it said so or not.
        self.execute(
            "UPDATE nodes SET seen_at = ?2 WHERE id = ?1 AND seen_at IS NULL",
            params![node, self.now().as_micros()],
        )?;
        if request.suspects {
            return self.claim_suspect(request, node);
        }
        let max = request.max.min(CLAIM_MAX);
        let mut lanes: Vec<Lane<'_>> = Vec::new();
        for (name, limit) in &request.pipelines {
            if let Some(number) =
                self.names.known_pipeline(name).filter(|number| *limit > 0 && self.any_queued(*number))
            {
                lanes.push(Lane { name, number, left: *limit, heads: VecDeque::new() });
            }
        }
        // One pipeline is read in one go; of many, each a little, and again where that was not enough.
        let share = max.checked_div(u32::try_from(lanes.len()).unwrap_or(u32::MAX)).unwrap_or(0);
        let chunk = if lanes.len() <= 1 { max } else { share.saturating_mul(2).saturating_add(1).min(max) };
        let mut next = BinaryHeap::new();
        for (place, lane) in lanes.iter_mut().enumerate() {
            next.extend(self.head(lane, chunk)?.map(|head| Reverse((head, place))));
        }
        let mut claimed = Vec::new();
        while claimed.len() < max as usize
            && let Some(Reverse(((_, seq), place))) = next.pop()
            && let Some(lane) = lanes.get_mut(place)
        {
            lane.heads.pop_front();
            lane.left -= 1;
            claimed.push(self.take(seq, lane.name, node)?);
            next.extend(self.head(lane, chunk)?.map(|head| Reverse((head, place))));
        }
        Ok(claimed)
    }

    /// The lane's next job. What was claimed before has left the index already.
    fn head(&self, lane: &mut Lane<'_>, chunk: u32) -> Result<Option<(i64, i64)>, Trouble> {
        if lane.left == 0 {
            return Ok(None);
        }
        if lane.heads.is_empty() {
            let mut statement = self.conn.prepare_cached(READY)?;
            let rows = statement
                .query_map(params![lane.number, chunk.min(lane.left)], |row| Ok((row.get(0)?, row.get(1)?)))?;
            lane.heads = rows.collect::<Result<_, _>>()?;
        }
        Ok(lane.heads.front().copied())
    }

    fn claim_suspect(&mut self, request: &ClaimRequest, node: i64) -> Result<Vec<Claimed>, Trouble> {
        let in_flight = self
            .conn
            .prepare_cached(
                "SELECT 1 FROM jobs INDEXED BY jobs_suspect \
                 WHERE suspect = 1 AND finished_at IS NULL AND state = 3 AND node = ?1 LIMIT 1",
            )?
            .query_row([node], |_| Ok(()))
            .optional()?;
        if request.max == 0 || in_flight.is_some() {
            return Ok(Vec::new());
        }
        let mut first: Option<((i64, i64), &PipelineName)> = None;
        for (name, _) in request.pipelines.iter().filter(|(_, limit)| *limit > 0) {
            let Some(number) = self.names.known_pipeline(name) else { continue };
            let head = self
                .conn
                .prepare_cached(SUSPECT)?
                .query_row([number], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            first = [first, head.map(|head| (head, name))].into_iter().flatten().min();
        }
        match first {
            Some(((_, seq), name)) => Ok(vec![self.take(seq, name, node)?]),
            None => Ok(Vec::new()),
        }
    }

    /// Gives a queued job to a node.
    fn take(&mut self, seq: i64, pipeline: &PipelineName, node: i64) -> Result<Claimed, Trouble> {
        let (mut job, mut claimed) = self.read_claimed(seq, pipeline)?;
        let state = self.step(&job, Event::Claim)?;
        self.execute(TAKE, params![seq, codes::state_code(state), node])?;
        if job.fence > 0 {
            // Only a job that was claimed before can have a past.
            claimed.attempts = rows::attempts(&self.conn, seq).map_err(|trouble| trouble.about(job.id))?;
        }
        job.state = state;
        job.fence += 1;
        if claimed.attempts.iter().all(|attempt| attempt.ended_at.is_some()) {
            let places = i64::try_from(claimed.attempts.len()).unwrap_or(i64::MAX);
            self.remember(Flight { job, places, open: None });
        }
        Ok(claimed)
    }

    /// A queued job as its row is, and as its claim will be.
    fn read_claimed(&self, seq: i64, pipeline: &PipelineName) -> Result<(Standing, Claimed), Trouble> {
        let mut statement = self.conn.prepare_cached(concat!(
            "SELECT jobs.",
            standing_columns!(),
            ", priority, created_at, expiry_key, assignment, metadata, body, caller ",
            "FROM jobs JOIN contents ON contents.seq = jobs.seq WHERE jobs.seq = ?1"
        ))?;
        let mut found = statement.query([seq])?;
        let Some(row) = found.next()? else {
            return Err(Trouble::Row(format!("the index of ready jobs names row {seq}, which is not whole")));
        };
        let job = Standing::read(row)?;
        let (assignment, metadata): (Option<String>, Option<String>) = (row.get(12)?, row.get(13)?);
        let assignment = assignment.as_deref().map(serde_json::from_str).transpose();
        let claimed = Claimed {
            id: job.id,
            pipeline: pipeline.clone(),
            caller: row.get(15)?,
            fence: Fence(codes::unsigned(job.fence + 1)),
            priority: row.get(9)?,
            created_at: Timestamp::from_micros(row.get(10)?),
            expiry_key: Timestamp::from_micros(row.get(11)?),
            metadata: rows::metadata(metadata.as_deref()).map_err(|trouble| trouble.about(job.id))?,
            body: row.get::<_, Option<String>>(14)?.unwrap_or_default(),
            assignment: assignment.map_err(|error| Trouble::from(error).about(job.id))?,
            attempts: Vec::new(),
            suspect: job.suspect,
        };
        Ok((job, claimed))
    }

    /// Writes intents; for each, whether the fence held.
    pub fn begin(&mut self, intents: &[Intent]) -> Result<Vec<bool>, Trouble> {
        intents.iter().map(|intent| self.begin_one(intent)).collect()
    }

    fn begin_one(&mut self, intent: &Intent) -> Result<bool, Trouble> {
        let flight = self.flight(intent.job);
        let job = self.standing(intent.job)?;
        let holds = |job: &Standing| job.state == State::Running && job.fence == codes::signed(intent.fence.0);
        let Some(Standing { seq, pipeline, .. }) = job.filter(holds) else { return Ok(false) };
        if let Some(assignment) = &intent.assignment {
            self.assign(seq, pipeline, intent.job, assignment)?;
        }
        let place = match flight {
            Some(Flight { open: Some((open, _)), .. }) if open == intent.attempt => return Ok(true),
            Some(Flight { open: None, places, .. }) => places,
            _ => match self.next_place(seq, intent)? {
                Some(place) => place,
                None => return Ok(true),
            },
        };
        if place >= PLACES {
            return Err(Trouble::Row(format!("job {} has had {PLACES} attempts, the most that are kept", intent.job)));
        }
        let attempt = (seq << 20) | place;
        let fidelity = if intent.fidelity.is_empty() { None } else { Some(serde_json::to_string(&intent.fidelity)?) };
        self.execute(
            "INSERT INTO attempts (seq, id, job_id, pipeline, n, target, provider, model, region, generation, \
             started_at, fidelity, decision, most_cost, prompt_estimate) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
            params![
                attempt,
                intent.attempt.as_bytes(),
                intent.job.as_bytes(),
                pipeline,
                intent.n,
                intent.target.as_str(),
                intent.provider.as_str(),
                intent.model,
                intent.region.as_ref().map(crate::names::Region::as_str),
                codes::signed(intent.generation),
                intent.started_at.as_micros(),
                fidelity,
                intent.decision,
                intent.most_cost.map(|cost| cost.to_string()),
                intent.prompt_estimate.map(codes::signed),
            ],
        )?;
        if let Some(told) = &intent.told {
            self.observe(pipeline, Some(intent.job), told)?;
        }
        match flight {
            Some(Flight { job, open: None, .. }) => {
                self.remember(Flight { job, places: place + 1, open: Some((intent.attempt, attempt)) });
            }
            _ => self.disremember(intent.job),
        }
        Ok(true)
    }

    /// The next place among a job's attempts, unless this attempt has one.
    fn next_place(&self, job: i64, intent: &Intent) -> Result<Option<i64>, Trouble> {
        let (last, known): (Option<i64>, Option<bool>) = self
            .conn
            .prepare_cached(concat!("SELECT max(seq), max(id = ?2) FROM attempts WHERE ", of_job!()))?
            .query_row(params![job, intent.attempt.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(if known == Some(true) { None } else { Some(last.map_or(0, |last| last % PLACES + 1)) })
    }
}
