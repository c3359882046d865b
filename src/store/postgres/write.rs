//! A change as statements: one for each table, whole columns at a time.
//!
//! Invariant: the rows were locked by the same transaction, so each statement changes exactly the rows it names.

use uuid::Uuid;

use super::{
    change::{Change, News, outcome_code},
    columns::{clean, state_code, uuid},
    link::{Param, Tx, params},
    observe::{self, Numbered},
    tally,
    telling::Posts,
    trouble::Trouble,
};
use crate::{
    ids::JobId,
    store::{AttemptEnd, codes},
};

type Statement<'a> = (&'static str, Vec<Param<'a>>);

const UPDATE: &str = "UPDATE landbridge.jobs AS j SET state = u.state, fence = u.fence, expiry_key = u.expiry_key, \
    run_at = u.run_at, hold = u.hold, held_at = u.held_at, node = u.node, crashes = u.crashes, suspect = u.suspect \
    FROM unnest($1::uuid[], $2::smallint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::bigint[], \
    $8::uuid[], $9::int[], $10::boolean[]) \
    AS u (id, state, fence, expiry_key, run_at, hold, held_at, node, crashes, suspect) WHERE j.id = u.id";

const MOVE: &str = "WITH gone AS (\
      DELETE FROM landbridge.jobs AS j USING unnest($1::uuid[], $2::smallint[], $3::uuid[], $4::boolean[], $5::text[], \
      $6::bytea[]) AS u (id, state, node, suspect, error, result) WHERE j.id = u.id \
      RETURNING j.id, j.created_at, u.node, j.batch, j.pipeline, j.priority, u.state, u.suspect, j.assignment, u.error, u.result) \
    INSERT INTO landbridge.history (id, finished_at, created_at, node, batch, pipeline, priority, state, suspect, \
    assignment, error, result) \
    SELECT id, $7, created_at, node, batch, pipeline, priority, state, suspect, assignment, error, result FROM gone";

const BEGIN: &str = "INSERT INTO landbridge.calls (job, id, began_at, started_at, generation, pipeline, n, target, provider, \
    model, region, fidelity, decision, most_cost, prompt_estimate) \
    SELECT job, id, $1, started_at, generation, pipeline, n, target, provider, model, region, fidelity, decision, \
    most_cost::numeric, prompt_estimate \
    FROM unnest($2::uuid[], $3::uuid[], $4::bigint[], $5::bigint[], $6::int[], $7::int[], $8::text[], $9::text[], \
    $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::bigint[]) \
    AS u (job, id, started_at, generation, pipeline, n, target, provider, model, region, fidelity, decision, most_cost, \
    prompt_estimate)";

const ASSIGN: &str = "UPDATE landbridge.jobs AS j SET assignment = u.assignment \
    FROM unnest($1::uuid[], $2::text[]) AS u (id, assignment) WHERE j.id = u.id AND j.assignment IS NULL";

const CLOSE: &str = "WITH c AS (\
      DELETE FROM landbridge.calls AS c USING unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::smallint[], $5::boolean[], \
      $6::text[], $7::text[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::text[], \
      $14::text[], $15::bigint[]) \
      AS u (job, id, ended_at, outcome, billed, fault, message, input, output, cache_read, cache_write, reasoning, cost, \
      request, first_token) WHERE c.job = u.job AND c.id = u.id \
      RETURNING c.job, c.id, c.began_at, c.started_at, u.ended_at, c.generation, c.pipeline, c.n, u.outcome, u.billed, \
      c.target, c.provider, c.model, c.region, c.fidelity, c.decision, u.fault, u.message, u.input, u.output, \
      u.cache_read, u.cache_write, u.reasoning, u.cost::numeric, c.most_cost, u.request, c.prompt_estimate, \
      u.first_token) \
    INSERT INTO landbridge.attempts (job, id, began_at, started_at, ended_at, generation, pipeline, n, outcome, billed, \
      target, provider, model, region, fidelity, decision, fault, message, input, output, cache_read, cache_write, \
      reasoning, cost, most_cost, request, prompt_estimate, first_token) SELECT * FROM c ON CONFLICT DO NOTHING";

const REPORT: &str = "UPDATE landbridge.attempts AS a SET ended_at = u.ended_at, outcome = u.outcome, billed = u.billed, \
    fault = u.fault, message = u.message, input = u.input, output = u.output, cache_read = u.cache_read, \
    cache_write = u.cache_write, reasoning = u.reasoning, cost = u.cost::numeric, request = u.request, \
    first_token = u.first_token \
    FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::smallint[], $5::boolean[], \
      $6::text[], $7::text[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::text[], \
      $14::text[], $15::bigint[]) \
      AS u (job, id, ended_at, outcome, billed, fault, message, input, output, cache_read, cache_write, reasoning, cost, \
      request, first_token) WHERE a.job = u.job AND a.id = u.id AND a.job = ANY($1)";

const LET_GO: &str = "UPDATE landbridge.history SET node = NULL WHERE id = ANY($1)";

/// Rows of `jobs` to be written, column by column.
#[derive(Default)]
struct Updates {
    ids: Vec<Uuid>,
    states: Vec<i16>,
    fences: Vec<i64>,
    expiry_keys: Vec<i64>,
    run_ats: Vec<Option<i64>>,
    holds: Vec<Option<String>>,
    held_ats: Vec<Option<i64>>,
    nodes: Vec<Option<Uuid>>,
    crashes: Vec<i32>,
    suspects: Vec<bool>,
}

/// Rows that move to `history`.
#[derive(Default)]
struct Moves {
    ids: Vec<Uuid>,
    states: Vec<i16>,
    nodes: Vec<Option<Uuid>>,
    suspects: Vec<bool>,
    errors: Vec<Option<String>>,
    results: Vec<Option<Vec<u8>>>,
    finished_at: i64,
}

/// New rows of `calls`.
#[derive(Default)]
struct Intents {
    began_at: i64,
    jobs: Vec<Uuid>,
    ids: Vec<Uuid>,
    started_ats: Vec<i64>,
    generations: Vec<i64>,
    pipelines: Vec<i32>,
    ns: Vec<i32>,
    targets: Vec<String>,
    providers: Vec<String>,
    models: Vec<String>,
    regions: Vec<Option<String>>,
    fidelities: Vec<Option<String>>,
    decisions: Vec<String>,
    most_costs: Vec<Option<String>>,
    prompt_estimates: Vec<Option<i64>>,
}

/// Ends of attempts.
#[derive(Default)]
struct Ends {
    jobs: Vec<Uuid>,
    ids: Vec<Uuid>,
    ended_ats: Vec<i64>,
    outcomes: Vec<i16>,
    billed: Vec<bool>,
    faults: Vec<Option<String>>,
    messages: Vec<Option<String>>,
    usage: [Vec<Option<i64>>; 5],
    costs: Vec<Option<String>>,
    requests: Vec<Option<String>>,
    first_tokens: Vec<Option<i64>>,
}

impl Ends {
    fn of(ends: &[(JobId, AttemptEnd)]) -> Self {
        let mut all = Self::default();
        for (job, end) in ends {
            all.jobs.push(uuid(*job));
            all.ids.push(Uuid::from_bytes(*end.attempt.as_bytes()));
            all.ended_ats.push(end.ended_at.as_micros());
            all.outcomes.push(outcome_code(end.outcome));
            all.billed.push(end.possibly_billed);
            all.faults.push(end.fault.map(|fault| fault.to_string()));
            all.messages.push(end.message.as_deref().map(|text| clean(text).into_owned()));
            let usage = end.usage.as_ref();
            let parts =
                usage.map(|usage| [usage.input, usage.output, usage.cache_read, usage.cache_write, usage.reasoning]);
            for (place, column) in all.usage.iter_mut().enumerate() {
                column.push(parts.and_then(|parts| parts.get(place).copied()).map(codes::signed));
            }
            all.costs.push(end.cost.map(|cost| cost.to_string()));
            all.requests.push(end.provider_request_id.as_deref().map(|text| clean(text).into_owned()));
            all.first_tokens
                .push(end.first_token.map(|after| codes::signed(u64::try_from(after.as_micros()).unwrap_or(u64::MAX))));
        }
        all
    }

    fn statement(&self, sql: &'static str) -> Option<Statement<'_>> {
        let [input, output, read, written, reasoning] = &self.usage;
        let params = params![
            self.jobs => UUID_ARRAY, self.ids => UUID_ARRAY, self.ended_ats => INT8_ARRAY, self.outcomes => INT2_ARRAY,
            self.billed => BOOL_ARRAY, self.faults => TEXT_ARRAY, self.messages => TEXT_ARRAY, *input => INT8_ARRAY,
            *output => INT8_ARRAY, *read => INT8_ARRAY, *written => INT8_ARRAY, *reasoning => INT8_ARRAY,
            self.costs => TEXT_ARRAY, self.requests => TEXT_ARRAY, self.first_tokens => INT8_ARRAY,
        ];
        (!self.jobs.is_empty()).then(|| (sql, params.to_vec()))
    }
}

/// Everything that a change writes, column by column.
pub struct Written {
    updates: Updates,
    moves: Moves,
    intents: Intents,
    assigned: (Vec<Uuid>, Vec<String>),
    closings: Ends,
    reports: Ends,
    let_go: Vec<Uuid>,
    posts: Posts,
    deltas: tally::Rows,
    traffic: tally::TrafficRows,
    observed: Numbered,
}

impl Written {
    /// Lays a change out. Its results are taken, not copied.
    pub async fn of(tx: &Tx<'_>, change: &mut Change) -> Result<Self, Trouble> {
        let posts = Posts::of(tx, change).await?;
        let observed = observe::number(tx, change).await?;
        let mut updates = Updates::default();
        let mut moves = Moves { finished_at: change.now.as_micros(), ..Moves::default() };
        for held in change.live.values_mut().filter(|held| held.touched) {
            let row = &held.row;
            let id = uuid(row.id);
            if let Some(end) = held.end.take() {
                moves.ids.push(id);
                moves.states.push(state_code(row.state));
                moves.nodes.push(row.node);
                moves.suspects.push(row.suspect);
                moves.errors.push(end.error.as_ref().map(serde_json::to_string).transpose()?);
                moves.results.push(end.result.map(String::into_bytes));
                continue;
            }
            updates.ids.push(id);
            updates.states.push(state_code(row.state));
            updates.fences.push(row.fence);
            updates.expiry_keys.push(row.expiry_key);
            updates.run_ats.push(row.run_at);
            updates.holds.push(row.hold.map(|hold| hold.to_string()));
            updates.held_ats.push(row.held_at);
            updates.nodes.push(row.node);
            updates.crashes.push(row.crashes);
            updates.suspects.push(row.suspect);
        }
        let assignments = std::mem::take(&mut change.assignments);
        Ok(Self {
            updates,
            moves,
            intents: intents(change)?,
            assigned: assignments.into_iter().map(|(job, text)| (uuid(job), text)).unzip(),
            closings: Ends::of(&change.closings),
            reports: Ends::of(&change.reports),
            let_go: change.let_go.iter().map(|id| uuid(*id)).collect(),
            posts,
            deltas: change.tally.rows(),
            traffic: change.tally.traffic_rows(),
            observed,
        })
    }

    /// The statements, in an order in which each finds what it needs.
    pub fn statements(&self) -> Vec<Statement<'_>> {
        let mut all: Vec<Statement<'_>> = Vec::new();
        let Intents { began_at, jobs, ids, started_ats, generations, pipelines, ns, targets, .. } = &self.intents;
        let Intents { providers, models, regions, fidelities, decisions, most_costs, prompt_estimates, .. } =
            &self.intents;
        if !jobs.is_empty() {
            let params = params![
                *began_at => INT8, *jobs => UUID_ARRAY, *ids => UUID_ARRAY, *started_ats => INT8_ARRAY,
                *generations => INT8_ARRAY, *pipelines => INT4_ARRAY, *ns => INT4_ARRAY, *targets => TEXT_ARRAY,
                *providers => TEXT_ARRAY, *models => TEXT_ARRAY, *regions => TEXT_ARRAY, *fidelities => TEXT_ARRAY,
                *decisions => TEXT_ARRAY, *most_costs => TEXT_ARRAY, *prompt_estimates => INT8_ARRAY,
            ];
            all.push((BEGIN, params.to_vec()));
        }
        let (assigned, texts) = &self.assigned;
        if !assigned.is_empty() {
            all.push((ASSIGN, params![*assigned => UUID_ARRAY, *texts => TEXT_ARRAY].to_vec()));
        }
        all.extend(self.closings.statement(CLOSE));
        all.extend(self.reports.statement(REPORT));
        let Updates { ids, states, fences, expiry_keys, run_ats, holds, held_ats, nodes, crashes, suspects } =
            &self.updates;
        if !ids.is_empty() {
            let params = params![
                *ids => UUID_ARRAY, *states => INT2_ARRAY, *fences => INT8_ARRAY, *expiry_keys => INT8_ARRAY,
                *run_ats => INT8_ARRAY, *holds => TEXT_ARRAY, *held_ats => INT8_ARRAY, *nodes => UUID_ARRAY,
                *crashes => INT4_ARRAY, *suspects => BOOL_ARRAY,
            ];
            all.push((UPDATE, params.to_vec()));
        }
        let Moves { ids, states, nodes, suspects, errors, results, finished_at } = &self.moves;
        if !ids.is_empty() {
            let params = params![
                *ids => UUID_ARRAY, *states => INT2_ARRAY, *nodes => UUID_ARRAY, *suspects => BOOL_ARRAY,
                *errors => TEXT_ARRAY, *results => BYTEA_ARRAY, *finished_at => INT8,
            ];
            all.push((MOVE, params.to_vec()));
        }
        if !self.let_go.is_empty() {
            all.push((LET_GO, params![self.let_go => UUID_ARRAY].to_vec()));
        }
        all.extend(self.posts.statement());
        let Numbered { at, pipelines, rollouts, numbers, jobs, whats } = &self.observed;
        if !numbers.is_empty() {
            let params = params![
                *at => INT8, *pipelines => INT4_ARRAY, *rollouts => TEXT_ARRAY, *numbers => INT8_ARRAY,
                *jobs => UUID_ARRAY, *whats => TEXT_ARRAY,
            ];
            all.push((observe::WRITE, params.to_vec()));
        }
        all.extend(self.deltas.statement());
        all.extend(self.traffic.statement());
        all
    }
}

fn intents(change: &mut Change) -> Result<Intents, Trouble> {
    let mut all = Intents { began_at: change.now.as_micros(), ..Intents::default() };
    for (intent, pipeline) in change.intents.drain(..) {
        all.jobs.push(uuid(intent.job));
        all.ids.push(Uuid::from_bytes(*intent.attempt.as_bytes()));
        all.started_ats.push(intent.started_at.as_micros());
        all.generations.push(codes::signed(intent.generation));
        all.pipelines.push(pipeline);
        all.ns.push(i32::try_from(intent.n).unwrap_or(i32::MAX));
        all.targets.push(intent.target.to_string());
        all.providers.push(intent.provider.to_string());
        all.models.push(clean(&intent.model).into_owned());
        all.regions.push(intent.region.map(|region| region.to_string()));
        let notes = &intent.fidelity;
        all.fidelities.push(if notes.is_empty() { None } else { Some(serde_json::to_string(notes)?) });
        all.decisions.push(clean(&intent.decision).into_owned());
        all.most_costs.push(intent.most_cost.map(|cost| cost.to_string()));
        all.prompt_estimates.push(intent.prompt_estimate.map(codes::signed));
    }
    Ok(all)
}

/// Writes a change and makes it durable; what to tell then.
pub async fn commit(tx: Tx<'_>, mut change: Change) -> Result<News, Trouble> {
    let news = change.news();
    let written = Written::of(&tx, &mut change).await?;
    let statements = written.statements();
    if statements.is_empty() {
        tx.done_without_receipt().await?;
    } else {
        tx.commit_with(&statements).await?;
    }
    Ok(news)
}

/// Writes a change; the transaction goes on.
pub async fn write(tx: &Tx<'_>, change: &mut Change) -> Result<(), Trouble> {
    let written = Written::of(tx, change).await?;
    let statements = written.statements();
    tx.execute_all(&statements).await.map(drop)
}
