//! Sums that are kept instead of counted: jobs by pipeline and state, jobs by batch and state, spending and traffic by
//! hour.
//!
//! Invariant: a transaction's changes are summed here and written once, before it commits; what was never committed is
//! never seen.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{codes, trouble::Trouble};
use crate::{
    clock::Timestamp,
    job::State,
    money::Usd,
    store::{Traffic, traffic::hour_of},
    usage::Usage,
};

/// What calls are summed by, besides the hour; the pipeline as its number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    pub pipeline: i64,
    pub target: String,
    pub provider: String,
    pub model: String,
}

/// The columns of [`Traffic`], as [`read_traffic`] reads them.
macro_rules! traffic_columns {
    () => {
        "attempts, answered, billed, input, output, cache_read, cache_write, reasoning, cost, unpriced, \
         possible_cost, unbounded"
    };
}
pub(super) use traffic_columns;

/// Sums as a row holds them, from this column on.
pub fn read_traffic(row: &Row<'_>, first: usize) -> Result<Traffic, Trouble> {
    let count = |place: usize| row.get(first + place).map(codes::unsigned);
    let (cost, possible): (String, String) = (row.get(first + 8)?, row.get(first + 10)?);
    Ok(Traffic {
        attempts: count(0)?,
        answered: count(1)?,
        possibly_billed: count(2)?,
        usage: Usage {
            input: count(3)?,
            output: count(4)?,
            cache_read: count(5)?,
            cache_write: count(6)?,
            reasoning: count(7)?,
        },
        cost: codes::parse(&cost)?,
        unpriced: count(9)?,
        possible_cost: codes::parse(&possible)?,
        unbounded: count(11)?,
    })
}

/// The changes of one transaction.
#[derive(Debug, Default)]
pub struct Tally {
    /// By pipeline.
    pub states: HashMap<(i64, State), i64>,
    batches: HashMap<(i64, State), i64>,
    spent: HashMap<(i64, i64), Usd>,
    /// What is added, and what is taken back because it was added otherwise before.
    traffic: HashMap<(i64, Place), (Traffic, Traffic)>,
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
            *self.spent.entry((hour_of(at), pipeline)).or_default() += cost;
        }
    }

    /// An attempt ended.
    pub fn carry(&mut self, at: Timestamp, place: Place, traffic: Traffic) {
        self.traffic.entry((hour_of(at), place)).or_default().0 += traffic;
    }

    /// An attempt that was counted at that moment is counted otherwise from now on.
    pub fn carry_back(&mut self, at: Timestamp, place: Place, traffic: Traffic) {
        self.traffic.entry((hour_of(at), place)).or_default().1 += traffic;
    }

    /// Writes the changes of pipelines' states, spending and traffic into the open transaction.
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
        self.write_traffic(conn)?;
        self.write_batches(conn)
    }

    fn write_traffic(&mut self, conn: &Connection) -> Result<(), Trouble> {
        for ((hour, place), (mut sums, back)) in self.traffic.drain() {
            let Place { pipeline, target, provider, model } = place;
            let before = {
                let mut statement = conn.prepare_cached(concat!(
                    "SELECT ",
                    traffic_columns!(),
                    " FROM traffic WHERE hour = ?1 AND pipeline = ?2 AND target = ?3 AND provider = ?4 AND model = ?5"
                ))?;
                let mut rows = statement.query(params![hour, pipeline, target, provider, model])?;
                rows.next()?.map(|row| read_traffic(row, 0)).transpose()?
            };
            let known = before.is_some();
            sums += before.unwrap_or_default();
            sums -= back;
            if sums == Traffic::default() {
                if known {
                    conn.prepare_cached(
                        "DELETE FROM traffic WHERE hour = ?1 AND pipeline = ?2 AND target = ?3 AND provider = ?4 AND model = ?5",
                    )?
                    .execute(params![hour, pipeline, target, provider, model])?;
                }
                continue;
            }
            conn.prepare_cached(concat!(
                "INSERT OR REPLACE INTO traffic (hour, pipeline, target, provider, model, ",
                traffic_columns!(),
                ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)"
            ))?
            .execute(params![
                hour,
                pipeline,
                target,
                provider,
                model,
                codes::signed(sums.attempts),
                codes::signed(sums.answered),
                codes::signed(sums.possibly_billed),
                codes::signed(sums.usage.input),
                codes::signed(sums.usage.output),
                codes::signed(sums.usage.cache_read),
                codes::signed(sums.usage.cache_write),
                codes::signed(sums.usage.reasoning),
                sums.cost.to_string(),
                codes::signed(sums.unpriced),
                sums.possible_cost.to_string(),
                codes::signed(sums.unbounded),
            ])?;
        }
        Ok(())
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
