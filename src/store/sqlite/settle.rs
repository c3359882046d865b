//! Closing attempts and moving jobs on.

use rusqlite::{Row, params};

use super::{
    codes,
    schema::of_job,
    session::{Flight, Session, Standing},
    tally,
    trouble::Trouble,
};
use crate::{
    clock::Timestamp,
    job::{State, state::Event},
    money::Usd,
    store::{AttemptEnd, Next, Settled, Settlement, Traffic},
    usage::Usage,
};

/// Ends a job whose attempts are all closed.
pub(super) const END: &str = "UPDATE jobs SET state = ?2, finished_at = ?3, node = NULL WHERE seq = ?1";

/// Who has a job in flight is forgotten with the job's last open attempt: until then its bill may still come.
macro_rules! node_kept {
    () => {
        concat!(
            "node = iif(EXISTS (SELECT 1 FROM attempts WHERE ",
            crate::store::sqlite::schema::of_job!(),
            " AND ended_at IS NULL), node, NULL)"
        )
    };
}
pub(super) use node_kept;

impl Session {
    /// Closes attempts and moves jobs on; for each, what became of it.
    pub fn settle(&mut self, settlements: &[Settlement]) -> Result<Vec<Settled>, Trouble> {
        settlements.iter().map(|settlement| self.settle_one(settlement)).collect()
    }

    fn settle_one(&mut self, settlement: &Settlement) -> Result<Settled, Trouble> {
        let Some(job) = self.standing(settlement.job)? else { return Ok(Settled::Stale) };
        if let Some(end) = &settlement.ended {
            match self.flight(job.id) {
                Some(flight @ Flight { open: Some((attempt, seq)), .. }) if attempt == end.attempt => {
                    self.close_at(seq, job.pipeline, end)?;
                    self.remember(Flight { open: None, ..flight });
                }
                _ => {
                    self.close(&job, end)?;
                }
            }
        }
        if job.state != State::Running || job.fence != codes::signed(settlement.fence.0) {
            if job.state.is_terminal() {
                self.let_go(job.seq)?;
            }
            return Ok(Settled::Stale);
        }
        if settlement.ended.is_some() && job.crashes > 0 {
            self.execute("UPDATE jobs SET crashes = 0, suspect = 0 WHERE seq = ?1", [job.seq])?;
            self.disremember(job.id);
        }
        self.move_on(&job, &settlement.next)?;
        if let Some(told) = &settlement.told {
            self.observe(job.pipeline, Some(job.id), told)?;
        }
        Ok(Settled::Applied)
    }

    fn move_on(&mut self, job: &Standing, next: &Next) -> Result<(), Trouble> {
        let now = self.now().as_micros();
        match next {
            Next::Keep => Ok(()),
            Next::Queue => self.requeue(job),
            Next::Wait(until) => {
                let state = codes::state_code(self.step(job, Event::Wait)?);
                self.execute(
                    concat!("UPDATE jobs SET state = ?2, run_at = ?3, ", node_kept!(), " WHERE seq = ?1"),
                    params![job.seq, state, until.as_micros()],
                )
                .map(drop)
            }
            Next::Hold(reason) => {
                let state = codes::state_code(self.step(job, Event::Hold)?);
                self.execute(
                    concat!("UPDATE jobs SET state = ?2, hold = ?3, held_at = ?4, ", node_kept!(), " WHERE seq = ?1"),
                    params![job.seq, state, reason.to_string(), now],
                )
                .map(drop)
            }
            Next::Succeed(result) => {
                self.execute("INSERT INTO results (seq, result) VALUES (?1, ?2)", params![job.seq, result])?;
                self.end(job, Event::Succeed)
            }
            Next::Fail(error) => self.fail(job, error),
            Next::Expire => self.end(job, Event::Expire),
        }
    }

    /// Puts a running job back into the queue.
    pub fn requeue(&mut self, job: &Standing) -> Result<(), Trouble> {
        let state = codes::state_code(self.step(job, Event::Requeue)?);
        let sql = concat!("UPDATE jobs SET state = ?2, ", node_kept!(), " WHERE seq = ?1");
        self.execute(sql, params![job.seq, state]).map(drop)
    }

    /// Ends a job by a failure.
    pub fn fail(&mut self, job: &Standing, error: &crate::store::JobError) -> Result<(), Trouble> {
        let error = serde_json::to_string(error)?;
        self.execute("INSERT INTO results (seq, error) VALUES (?1, ?2)", params![job.seq, error])?;
        self.end(job, Event::Fail)
    }

    /// Ends a job.
    pub fn end(&mut self, job: &Standing, event: Event) -> Result<(), Trouble> {
        let reported = matches!(self.flight(job.id), Some(Flight { open: None, .. }));
        let state = codes::state_code(self.step(job, event)?);
        let sql = if reported {
            END
        } else {
            concat!("UPDATE jobs SET state = ?2, finished_at = ?3, ", node_kept!(), " WHERE seq = ?1")
        };
        self.execute(sql, params![job.seq, state, self.now().as_micros()]).map(drop)
    }

    /// Forgets who had an ended job in flight, if no attempt is open any more.
    pub fn let_go(&self, seq: i64) -> Result<(), Trouble> {
        let sql = concat!("UPDATE jobs SET ", node_kept!(), " WHERE seq = ?1 AND node IS NOT NULL");
        self.execute(sql, [seq]).map(drop)
    }

    /// Closes an attempt once; what nobody saw takes the end that its worker reports, any other end stays. Where it went and
    /// the most that it may have cost, if it was open until now.
    pub fn close(&mut self, job: &Standing, end: &AttemptEnd) -> Result<Option<Closed>, Trouble> {
        // What is remembered of the job's attempts no longer holds.
        self.disremember(job.id);
        let found = {
            let mut statement = self.conn.prepare_cached(concat!(
                "SELECT seq, ended_at, billed, input, output, cache_read, cache_write, reasoning, most_cost ",
                "FROM attempts WHERE ",
                of_job!(),
                " AND id = ?2"
            ))?;
            let mut rows = statement.query(params![job.seq, end.attempt.as_bytes()])?;
            rows.next()?.map(read_counted).transpose()?
        };
        let Some((seq, before)) = found else { return Ok(None) };
        let closed = self.close_at(seq, job.pipeline, end)?;
        if let (Some(closed), Some((at, counted))) = (&closed, before) {
            self.tally.carry_back(at, closed.place.clone(), counted);
        }
        Ok(closed)
    }

    fn close_at(&mut self, attempt: i64, pipeline: i64, end: &AttemptEnd) -> Result<Option<Closed>, Trouble> {
        let usage = end.usage.as_ref();
        let mut statement = self.conn.prepare_cached(
            "UPDATE attempts SET ended_at = ?2, outcome = ?3, fault = ?4, message = ?5, input = ?6, output = ?7, \
             cache_read = ?8, cache_write = ?9, reasoning = ?10, cost = ?11, billed = ?12, request = ?13, \
             first_token = ?14 WHERE seq = ?1 AND (ended_at IS NULL OR (outcome = 3 AND cost IS NULL)) \
             RETURNING target, provider, model, most_cost",
        )?;
        let mut rows = statement.query(params![
            attempt,
            end.ended_at.as_micros(),
            codes::outcome_code(end.outcome),
            end.fault.map(|fault| fault.to_string()),
            end.message,
            usage.map(|usage| codes::signed(usage.input)),
            usage.map(|usage| codes::signed(usage.output)),
            usage.map(|usage| codes::signed(usage.cache_read)),
            usage.map(|usage| codes::signed(usage.cache_write)),
            usage.map(|usage| codes::signed(usage.reasoning)),
            end.cost.map(|cost| cost.to_string()),
            end.possibly_billed,
            end.provider_request_id,
            end.first_token.map(|after| codes::signed(u64::try_from(after.as_micros()).unwrap_or(u64::MAX))),
        ])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let place = tally::Place { pipeline, target: row.get(0)?, provider: row.get(1)?, model: row.get(2)? };
        let most_cost = if end.possibly_billed { codes::parse_some(row.get(3)?)? } else { None };
        if let Some(cost) = end.cost {
            self.tally.spend(pipeline, end.ended_at, cost);
        }
        self.tally.carry(end.ended_at, place.clone(), Traffic::of(end, most_cost));
        Ok(Some(Closed { place, most_cost }))
    }
}

/// An attempt's number, and when it ended and what it was counted as, if it had ended.
fn read_counted(row: &Row<'_>) -> Result<(i64, Option<(Timestamp, Traffic)>), Trouble> {
    let count = |place| row.get::<_, Option<i64>>(place).map(|count| codes::unsigned(count.unwrap_or(0)));
    let Some(at) = row.get::<_, Option<i64>>(1)? else { return Ok((row.get(0)?, None)) };
    let usage = Usage {
        input: count(3)?,
        output: count(4)?,
        cache_read: count(5)?,
        cache_write: count(6)?,
        reasoning: count(7)?,
    };
    let counted = Traffic::of_unseen(row.get(2)?, usage, codes::parse_some(row.get(8)?)?);
    Ok((row.get(0)?, Some((Timestamp::from_micros(at), counted))))
}

/// An attempt that was open, or unseen, until now.
pub struct Closed {
    pub place: tally::Place,
    pub most_cost: Option<Usd>,
}
