//! Sums that are kept instead of counted: jobs by pipeline and state, jobs by batch and state, spending by hour.
//!
//! Invariant: a transaction's changes are summed here and written once, before it commits; what was never committed is
//! never seen.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::{codes, trouble::Trouble};
use crate::{clock::Timestamp, job::State, money::Usd};

/// Microseconds of an hour.
pub const HOUR: i64 = 3_600_000_000;

/// The changes of one transaction.
#[derive(Debug, Default)]
pub struct Tally {
    /// By pipeline.
    pub states: HashMap<(i64, State), i64>,
    batches: HashMap<(i64, State), i64>,
    spent: HashMap<(i64, i64), Usd>,
}

impl Tally {
    /// A job enters a state.
    pub fn enter(&mut self, pipeline: i64, batch: Option<i64>, state: State) {
        self.shift(pipeline, batch, state, 1);
    }

    /// A job leaves a state.
    pub fn leave(&mut self, pipeline: i64, batch: Option<i64>, state: State) {
        self.shift(pipeline, batch, state, -1);
    }

    fn shift(&mut self, pipeline: i64, batch: Option<i64>, state: State, by: i64) {
        *self.states.entry((pipeline, state)).or_default() += by;
        if let Some(batch) = batch {
            *self.batches.entry((batch, state)).or_default() += by;
        }
    }

    /// An attempt that cost something ended.
    pub fn spend(&mut self, pipeline: i64, at: Timestamp, cost: Usd) {
        if cost != Usd::ZERO {
            *self.spent.entry((at.as_micros().div_euclid(HOUR), pipeline)).or_default() += cost;
        }
    }

    /// Writes the changes of pipelines' states and spending into the open transaction.
    pub fn write(&mut self, conn: &Connection) -> Result<(), Trouble> {
        for ((pipeline, state), by) in self.states.iter().filter(|(_, by)| **by != 0) {
            conn.prepare_cached(
                "INSERT INTO counts (pipeline, state, n) VALUES (?1, ?2, ?3) \
                 ON CONFLICT DO UPDATE SET n = n + excluded.n",
            )?
            .execute(params![pipeline, codes::state_code(*state), by])?;
        }
        for ((hour, pipeline), cost) in self.spent.drain() {
            let before: Option<String> = conn
                .prepare_cached("SELECT cost FROM spending WHERE hour = ?1 AND pipeline = ?2")?
                .query_row([hour, pipeline], |row| row.get(0))
                .optional()?;
            let sum = before.as_deref().map(codes::parse::<Usd>).transpose()?.unwrap_or_default() + cost;
            conn.prepare_cached("INSERT OR REPLACE INTO spending (hour, pipeline, cost) VALUES (?1, ?2, ?3)")?
                .execute(params![hour, pipeline, sum.to_string()])?;
        }
        self.write_batches(conn)
    }

    /// Writes the changes of batches alone; they count as written then.
    pub fn write_batches(&mut self, conn: &Connection) -> Result<(), Trouble> {
        for ((batch, state), by) in self.batches.drain().filter(|(_, by)| *by != 0) {
            conn.prepare_cached(
                "INSERT INTO batch_counts (batch, state, n) VALUES (?1, ?2, ?3) \
                 ON CONFLICT DO UPDATE SET n = n + excluded.n",
            )?
            .execute(params![batch, codes::state_code(state), by])?;
        }
        Ok(())
    }
}
