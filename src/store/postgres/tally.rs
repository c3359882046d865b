//! Changes of sums: jobs by pipeline and state, jobs by batch and state, spending and traffic by hour.
//!
//! Invariant: a transaction's changes are summed here and written with it; a sum is what was folded and what was not yet.

use std::collections::HashMap;

use uuid::Uuid;

use super::{
    columns::state_code,
    link::{Link, Pace, Param, params},
    trouble::Trouble,
};
use crate::{
    clock::Timestamp,
    job::State,
    money::Usd,
    store::{Traffic, codes, traffic::hour_of},
};

/// What calls are summed by, besides the hour; the pipeline as its number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    pub pipeline: i32,
    pub target: String,
    pub provider: String,
    pub model: String,
}

/// Traffic as columns hold it: whole numbers, then amounts. Changes may be negative.
#[derive(Debug, Clone, Copy, Default)]
struct Carried {
    numbers: [i64; 10],
    amounts: [Usd; 2],
}

/// Changes folded in one go.
const FOLD: i64 = 20_000;

/// Marks the transactions that fold.
const FOLDING: i64 = 0x6c62_7271_0002;

/// The changes of one transaction.
#[derive(Debug, Default)]
pub struct Tally {
    states: HashMap<(i32, State), i64>,
    batches: HashMap<(Uuid, State), i64>,
    spent: HashMap<(i64, i32), Usd>,
    traffic: HashMap<(i64, Place), Carried>,
}

impl Tally {
    /// So many jobs enter a state (leave it, when negative).
    pub fn shift(&mut self, pipeline: i32, batch: Option<Uuid>, state: State, by: i64) {
        *self.states.entry((pipeline, state)).or_default() += by;
        if let Some(batch) = batch {
            *self.batches.entry((batch, state)).or_default() += by;
        }
    }

    /// An attempt that cost something ended.
    pub fn spend(&mut self, pipeline: i32, at: Timestamp, cost: Usd) {
        if cost != Usd::ZERO {
            *self.spent.entry((hour_of(at), pipeline)).or_default() += cost;
        }
    }

    /// An attempt ended; `times` is -1 for one that was counted otherwise before.
    pub fn carry(&mut self, at: Timestamp, place: &Place, traffic: &Traffic, times: i64) {
        let Traffic { attempts, answered, possibly_billed, usage, cost, unpriced, possible_cost, unbounded } = traffic;
        let numbers = [
            *attempts,
            *answered,
            *possibly_billed,
            usage.input,
            usage.output,
            usage.cache_read,
            usage.cache_write,
            usage.reasoning,
            *unpriced,
            *unbounded,
        ];
        let carried = self.traffic.entry((hour_of(at), place.clone())).or_default();
        for (sum, number) in carried.numbers.iter_mut().zip(numbers) {
            *sum += codes::signed(number) * times;
        }
        for (sum, amount) in carried.amounts.iter_mut().zip([cost, possible_cost]) {
            *sum += Usd(amount.0 * rust_decimal::Decimal::from(times));
        }
    }

    /// The rows of traffic to be written.
    pub fn traffic_rows(&self) -> TrafficRows {
        let mut rows = TrafficRows::default();
        for ((hour, place), carried) in &self.traffic {
            rows.hours.push(*hour);
            rows.pipelines.push(place.pipeline);
            rows.targets.push(place.target.clone());
            rows.providers.push(place.provider.clone());
            rows.models.push(place.model.clone());
            for (column, number) in rows.numbers.iter_mut().zip(carried.numbers) {
                column.push(number);
            }
            for (column, amount) in rows.amounts.iter_mut().zip(carried.amounts) {
                column.push(amount.to_string());
            }
        }
        rows
    }

    /// The rows to be written.
    pub fn rows(&self) -> Rows {
        let mut rows = Rows::default();
        for ((pipeline, state), n) in self.states.iter().filter(|(_, n)| **n != 0) {
            rows.push(Some(*pipeline), Some(state_code(*state)), None, None, Some(*n), None);
        }
        for ((batch, state), n) in self.batches.iter().filter(|(_, n)| **n != 0) {
            rows.push(None, Some(state_code(*state)), Some(*batch), None, Some(*n), None);
        }
        for ((hour, pipeline), cost) in &self.spent {
            rows.push(Some(*pipeline), None, None, Some(*hour), None, Some(cost.to_string()));
        }
        rows
    }
}

/// Rows of `deltas`, column by column.
#[derive(Debug, Default)]
pub struct Rows {
    pipelines: Vec<Option<i32>>,
    states: Vec<Option<i16>>,
    batches: Vec<Option<Uuid>>,
    hours: Vec<Option<i64>>,
    ns: Vec<Option<i64>>,
    costs: Vec<Option<String>>,
}

impl Rows {
    fn push(
        &mut self,
        pipeline: Option<i32>,
        state: Option<i16>,
        batch: Option<Uuid>,
        hour: Option<i64>,
        n: Option<i64>,
        cost: Option<String>,
    ) {
        self.pipelines.push(pipeline);
        self.states.push(state);
        self.batches.push(batch);
        self.hours.push(hour);
        self.ns.push(n);
        self.costs.push(cost);
    }

    /// The statement that writes them, unless there are none.
    pub fn statement(&self) -> Option<(&'static str, Vec<Param<'_>>)> {
        if self.pipelines.is_empty() {
            return None;
        }
        let sql = "INSERT INTO landbridge.deltas (pipeline, state, batch, hour, n, cost) \
                   SELECT p, s, b, h, n, c::numeric FROM unnest($1::int[], $2::smallint[], $3::uuid[], $4::bigint[], \
                   $5::bigint[], $6::text[]) AS d (p, s, b, h, n, c)";
        let params = params![
            self.pipelines => INT4_ARRAY, self.states => INT2_ARRAY, self.batches => UUID_ARRAY,
            self.hours => INT8_ARRAY, self.ns => INT8_ARRAY, self.costs => TEXT_ARRAY,
        ];
        Some((sql, params.to_vec()))
    }
}

/// Rows of `traffic_deltas`, column by column.
#[derive(Debug, Default)]
pub struct TrafficRows {
    hours: Vec<i64>,
    pipelines: Vec<i32>,
    targets: Vec<String>,
    providers: Vec<String>,
    models: Vec<String>,
    numbers: [Vec<i64>; 10],
    amounts: [Vec<String>; 2],
}

impl TrafficRows {
    /// The statement that writes them, unless there are none.
    pub fn statement(&self) -> Option<(&'static str, Vec<Param<'_>>)> {
        if self.hours.is_empty() {
            return None;
        }
        let sql = "INSERT INTO landbridge.traffic_deltas (hour, pipeline, target, provider, model, attempts, answered, billed, \
            input, output, cache_read, cache_write, reasoning, unpriced, unbounded, cost, possible_cost) \
            SELECT h, p, t, r, m, n1, n2, n3, n4, n5, n6, n7, n8, n9, n10, c::numeric, pc::numeric FROM \
            unnest($1::bigint[], $2::int[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::bigint[], \
            $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[], \
            $16::text[], $17::text[]) AS d (h, p, t, r, m, n1, n2, n3, n4, n5, n6, n7, n8, n9, n10, c, pc)";
        let [n1, n2, n3, n4, n5, n6, n7, n8, n9, n10] = &self.numbers;
        let [cost, possible] = &self.amounts;
        let params = params![
            self.hours => INT8_ARRAY, self.pipelines => INT4_ARRAY, self.targets => TEXT_ARRAY,
            self.providers => TEXT_ARRAY, self.models => TEXT_ARRAY, *n1 => INT8_ARRAY, *n2 => INT8_ARRAY,
            *n3 => INT8_ARRAY, *n4 => INT8_ARRAY, *n5 => INT8_ARRAY, *n6 => INT8_ARRAY, *n7 => INT8_ARRAY,
            *n8 => INT8_ARRAY, *n9 => INT8_ARRAY, *n10 => INT8_ARRAY, *cost => TEXT_ARRAY, *possible => TEXT_ARRAY,
        ];
        Some((sql, params.to_vec()))
    }
}

const FOLD_TRAFFIC: &str = "WITH d AS MATERIALIZED (\
    DELETE FROM landbridge.traffic_deltas WHERE seq IN (SELECT seq FROM landbridge.traffic_deltas ORDER BY seq LIMIT $1) \
    RETURNING *) \
    INSERT INTO landbridge.traffic AS t (hour, pipeline, target, provider, model, attempts, answered, billed, input, output, \
      cache_read, cache_write, reasoning, unpriced, unbounded, cost, possible_cost) \
    SELECT hour, pipeline, target, provider, model, sum(attempts), sum(answered), sum(billed), sum(input), sum(output), \
      sum(cache_read), sum(cache_write), sum(reasoning), sum(unpriced), sum(unbounded), sum(cost), sum(possible_cost) \
      FROM d GROUP BY 1, 2, 3, 4, 5 \
    ON CONFLICT (hour, pipeline, target, provider, model) DO UPDATE SET attempts = t.attempts + excluded.attempts, \
      answered = t.answered + excluded.answered, billed = t.billed + excluded.billed, input = t.input + excluded.input, \
      output = t.output + excluded.output, cache_read = t.cache_read + excluded.cache_read, \
      cache_write = t.cache_write + excluded.cache_write, reasoning = t.reasoning + excluded.reasoning, \
      unpriced = t.unpriced + excluded.unpriced, unbounded = t.unbounded + excluded.unbounded, \
      cost = t.cost + excluded.cost, possible_cost = t.possible_cost + excluded.possible_cost";

/// Adds up what was written as changes; whether there may be more. One daemon at a time; others pass.
pub async fn fold(link: &Link) -> Result<bool, Trouble> {
    let tx = link.begin(Pace::Long).await?;
    let mine = tx.query_opt("SELECT 1 WHERE pg_try_advisory_xact_lock($1)", params![FOLDING => INT8]).await?;
    if mine.is_none() {
        tx.done_without_receipt().await?;
        return Ok(false);
    }
    let sql = "WITH d AS MATERIALIZED (
        DELETE FROM landbridge.deltas WHERE seq IN (SELECT seq FROM landbridge.deltas ORDER BY seq LIMIT $1)
        RETURNING pipeline, state, batch, hour, n, cost),
      c AS (INSERT INTO landbridge.counts AS t (pipeline, state, n)
        SELECT pipeline, state, sum(n) FROM d WHERE n IS NOT NULL AND batch IS NULL GROUP BY 1, 2
        ON CONFLICT (pipeline, state) DO UPDATE SET n = t.n + excluded.n),
      b AS (INSERT INTO landbridge.batch_counts AS t (batch, state, n)
        SELECT batch, state, sum(n) FROM d WHERE batch IS NOT NULL GROUP BY 1, 2
        ON CONFLICT (batch, state) DO UPDATE SET n = t.n + excluded.n),
      s AS (INSERT INTO landbridge.spending AS t (hour, pipeline, cost)
        SELECT hour, pipeline, sum(cost) FROM d WHERE cost IS NOT NULL GROUP BY 1, 2
        ON CONFLICT (hour, pipeline) DO UPDATE SET cost = t.cost + excluded.cost)
      SELECT count(*) FROM d";
    let folded: i64 = match tx.query_opt(sql, params![FOLD => INT8]).await? {
        Some(row) => row.try_get(0)?,
        None => 0,
    };
    let carried = tx.execute(FOLD_TRAFFIC, params![FOLD => INT8]).await?;
    if folded == 0 && carried == 0 {
        tx.done_without_receipt().await?;
        return Ok(false);
    }
    tx.commit().await?;
    Ok(folded >= FOLD)
}
