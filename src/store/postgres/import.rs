//! Rows that come from another store, and the same rows read back.
//!
//! Invariant: a page and the note of how far the move has come are one transaction, so a move that was broken off goes on
//! where it stopped; nothing counts as moved before it was read back and found the same.

use std::collections::BTreeMap;

use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    columns::{get, hash, text},
    link::{Link, Pace, Tx, params},
    names::Names,
    tally::Tally,
    trouble::Trouble,
};
use crate::{
    names::PipelineName,
    store::{
        codes,
        transfer::{
            AttemptRow, AuditRow, DocumentRow, JobRow, ObservationRow, Part, Rows, SpendingRow, Sum, TrafficRow,
            plain_amount,
        },
    },
};

/// How far a part has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Behind which row of the source.
    pub after: String,
    /// What was moved.
    pub sum: Sum,
}

/// The part that notes what the source looked like.
const LOOK: &str = "look";

/// Notes that a source is being moved here; an error when it cannot be.
pub async fn start(link: &Link, source: &str, look: &str) -> Result<(), Trouble> {
    let tx = link.begin(Pace::Long).await?;
    let sql = "SELECT after FROM landbridge.moves WHERE source = $1 AND part = $2";
    let before = tx.query_opt(sql, params![source => TEXT, LOOK => TEXT]).await?;
    match before {
        Some(row) if get::<&str>(&row, 0)? == look => return tx.done_without_receipt().await,
        Some(_) => {
            return Err(Trouble::Unusable(
                "a daemon has worked on the source since this move began: empty the database \
                 (`DROP SCHEMA landbridge CASCADE`) and move again"
                    .to_owned(),
            ));
        }
        None => {}
    }
    let occupied = "SELECT 1 WHERE EXISTS (SELECT 1 FROM landbridge.contents) OR EXISTS (SELECT 1 FROM landbridge.attempts) \
                    OR EXISTS (SELECT 1 FROM landbridge.documents) OR EXISTS (SELECT 1 FROM landbridge.moves)";
    if tx.query_opt(occupied, &[]).await?.is_some() {
        return Err(Trouble::Unusable(
            "it holds work already: a store is moved into an empty database; create another one".to_owned(),
        ));
    }
    let sql = "INSERT INTO landbridge.moves (source, part, after, rows, sum) VALUES ($1, $2, $3, 0, '0')";
    tx.execute(sql, params![source => TEXT, LOOK => TEXT, look => TEXT]).await?;
    tx.commit().await
}

/// How far a part of a source has come.
pub async fn progress(link: &Link, source: &str, part: Part) -> Result<Progress, Trouble> {
    let tx = link.look().await?;
    let sql = "SELECT after, rows, sum FROM landbridge.moves WHERE source = $1 AND part = $2";
    let row = tx.query_opt(sql, params![source => TEXT, part.to_string() => TEXT]).await?;
    tx.done().await?;
    let Some(row) = row else { return Ok(Progress { after: String::new(), sum: Sum::default() }) };
    let total = get::<&str>(&row, 2)?.parse().map_err(|_| Trouble::Row("a sum is no number".to_owned()))?;
    Ok(Progress { after: get(&row, 0)?, sum: Sum { rows: codes::unsigned(get(&row, 1)?), total } })
}

/// Writes a page, and how far the move has come with it.
pub async fn write(
    link: &Link,
    names: &Names,
    source: &str,
    part: Part,
    rows: &Rows,
    progress: &Progress,
) -> Result<(), Trouble> {
    let pipelines: Vec<PipelineName> = match rows {
        Rows::Jobs(rows) => rows.iter().map(|row| codes::parse(&row.pipeline)).collect::<Result<_, _>>()?,
        Rows::Attempts(rows) => rows.iter().map(|row| codes::parse(&row.pipeline)).collect::<Result<_, _>>()?,
        Rows::Spending(rows) => rows.iter().map(|row| codes::parse(&row.pipeline)).collect::<Result<_, _>>()?,
        Rows::Traffic(rows) => rows.iter().map(|row| codes::parse(&row.pipeline)).collect::<Result<_, _>>()?,
        Rows::Observations(rows) => rows.iter().map(|row| codes::parse(&row.pipeline)).collect::<Result<_, _>>()?,
        Rows::Documents(_) | Rows::Audit(_) => Vec::new(),
    };
    let numbers = names.numbers(link, &pipelines).await?;
    let numbers: Vec<i32> = pipelines.iter().filter_map(|name| numbers.get(name).copied()).collect();
    let tx = link.begin(Pace::Long).await?;
    match rows {
        Rows::Jobs(rows) => write_jobs(&tx, rows, &numbers).await?,
        Rows::Attempts(rows) => write_attempts(&tx, rows, &numbers).await?,
        Rows::Spending(rows) => {
            for (row, number) in rows.iter().zip(&numbers) {
                let sql = "INSERT INTO landbridge.spending (hour, pipeline, cost) VALUES ($1, $2, $3::text::numeric)";
                tx.execute(sql, params![row.hour => INT8, *number => INT4, row.cost => TEXT]).await?;
            }
        }
        Rows::Traffic(rows) => {
            for (row, number) in rows.iter().zip(&numbers) {
                let [n1, n2, n3, n4, n5, n6, n7, n8, n9, n10] = row.numbers;
                let [cost, possible] = &row.amounts;
                let sql = "INSERT INTO landbridge.traffic (hour, pipeline, target, provider, model, attempts, answered, billed, \
                    input, output, cache_read, cache_write, reasoning, unpriced, unbounded, cost, possible_cost) VALUES \
                    ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16::text::numeric, $17::text::numeric)";
                tx.execute(
                    sql,
                    params![
                        row.hour => INT8, *number => INT4, row.target => TEXT, row.provider => TEXT, row.model => TEXT,
                        n1 => INT8, n2 => INT8, n3 => INT8, n4 => INT8, n5 => INT8, n6 => INT8, n7 => INT8, n8 => INT8,
                        n9 => INT8, n10 => INT8, *cost => TEXT, *possible => TEXT,
                    ],
                )
                .await?;
            }
        }
        Rows::Observations(rows) => write_observations(&tx, rows, &numbers).await?,
        Rows::Documents(rows) => {
            for row in rows {
                let sql = "INSERT INTO landbridge.documents (kind, key, value) VALUES ($1, $2, $3)";
                tx.execute(sql, params![row.kind => TEXT, row.key => TEXT, row.value => TEXT]).await?;
            }
        }
        Rows::Audit(rows) => {
            for row in rows {
                let sql = "INSERT INTO landbridge.audit (at, actor, action, subject, reason, detail) \
                           VALUES ($1, $2, $3, $4, $5, $6)";
                tx.execute(
                    sql,
                    params![row.at => INT8, row.actor => TEXT, row.action => TEXT, row.subject => TEXT,
                        row.reason => TEXT, row.detail => TEXT],
                )
                .await?;
            }
        }
    }
    let sql = "INSERT INTO landbridge.moves (source, part, after, rows, sum) VALUES ($1, $2, $3, $4, $5) \
        ON CONFLICT (source, part) DO UPDATE SET after = excluded.after, rows = excluded.rows, sum = excluded.sum";
    let Progress { after, sum } = progress;
    tx.execute(
        sql,
        params![source => TEXT, part.to_string() => TEXT, *after => TEXT, codes::signed(sum.rows) => INT8,
            sum.total.to_string() => TEXT],
    )
    .await?;
    tx.commit().await
}

async fn write_jobs(tx: &Tx<'_>, rows: &[JobRow], numbers: &[i32]) -> Result<(), Trouble> {
    let mut tally = Tally::default();
    for (row, number) in rows.iter().zip(numbers) {
        let id = Uuid::from_bytes(row.id);
        let state = codes::state(row.state)?;
        let batch = row.batch.as_deref().map(hash);
        let keyed = row.key.as_deref().zip(row.digest.as_deref());
        let (key_hash, caller_hash) = (keyed.map(|(key, _)| hash(key)), keyed.map(|_| hash(&row.caller)));
        tally.shift(*number, batch, state, 1);
        let state = i16::try_from(row.state).unwrap_or(i16::MAX);
        let retry_of = row.retry_of.map(Uuid::from_bytes);
        let bytes = |text: &Option<String>| text.as_ref().map(|text| text.clone().into_bytes());
        let (key, batch_name, body) = (bytes(&row.key), bytes(&row.batch), bytes(&row.body));
        let contents = params![
            id => UUID, row.deadline => INT8, retry_of => UUID, key_hash => UUID, caller_hash => UUID,
            row.caller.as_bytes() => BYTEA, key => BYTEA, batch_name => BYTEA, row.metadata => TEXT, body => BYTEA,
            row.callback => TEXT,
        ];
        let mut statements = vec![(
            "INSERT INTO landbridge.contents (id, deadline, retry_of, key_hash, caller_hash, caller, key, batch, metadata, body, \
             callback) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            contents.to_vec(),
        )];
        let digest = keyed.map(|(_, digest)| digest.to_vec());
        if keyed.is_some() {
            let key = params![key_hash => UUID, *number => INT4, caller_hash => UUID, id => UUID, digest => BYTEA];
            statements.push((
                "INSERT INTO landbridge.keys (key_hash, pipeline, caller_hash, job, digest) VALUES ($1, $2, $3, $4, $5)",
                key.to_vec(),
            ));
        }
        let (crashes, result) = (i32::try_from(row.crashes).unwrap_or(i32::MAX), bytes(&row.result));
        let ended = params![
            id => UUID, row.finished_at => INT8, row.created_at => INT8, batch => UUID, *number => INT4,
            row.priority => INT4, state => INT2, row.suspect => BOOL, row.blanked => BOOL, row.assignment => TEXT,
            row.error => TEXT, result => BYTEA,
        ];
        let live = params![
            id => UUID, row.fence => INT8, row.order_key => INT8, row.expiry_key => INT8, row.created_at => INT8,
            row.run_at => INT8, row.held_at => INT8, batch => UUID, *number => INT4, row.priority => INT4,
            crashes => INT4, state => INT2, row.suspect => BOOL, row.hold => TEXT, row.assignment => TEXT,
            row.callback.is_some() => BOOL,
        ];
        statements.push(if row.finished_at.is_some() {
            (
                "INSERT INTO landbridge.history (id, finished_at, created_at, batch, pipeline, priority, state, suspect, blanked, \
                 assignment, error, result) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
                ended.to_vec(),
            )
        } else {
            (
                "INSERT INTO landbridge.jobs (id, fence, order_key, expiry_key, created_at, run_at, held_at, batch, pipeline, \
                 priority, crashes, state, suspect, hold, assignment, calls_back) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
                live.to_vec(),
            )
        });
        tx.execute_all(&statements).await?;
    }
    let sums = tally.rows();
    let last: Vec<_> = sums.statement().into_iter().collect();
    tx.execute_all(&last).await.map(drop)
}

async fn write_attempts(tx: &Tx<'_>, rows: &[AttemptRow], numbers: &[i32]) -> Result<(), Trouble> {
    let sql = "INSERT INTO landbridge.attempts (job, id, began_at, started_at, ended_at, generation, pipeline, n, outcome, billed, \
        target, provider, model, region, fidelity, decision, fault, message, input, output, cache_read, cache_write, \
        reasoning, cost, request, most_cost, prompt_estimate, first_token) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, \
        $18, $19, $20, $21, $22, $23, $24::text::numeric, $25, $26::text::numeric, $27, $28)";
    for (row, number) in rows.iter().zip(numbers) {
        let outcome = i16::try_from(row.outcome).unwrap_or(i16::MAX);
        let [input, output, read, written, reasoning] = row.usage;
        tx.execute(
            sql,
            params![
                Uuid::from_bytes(row.job) => UUID, Uuid::from_bytes(row.id) => UUID, row.place => INT8,
                row.started_at => INT8, row.ended_at => INT8, row.generation => INT8, *number => INT4, row.n => INT4,
                outcome => INT2, row.billed => BOOL, row.target => TEXT, row.provider => TEXT, row.model => TEXT,
                row.region => TEXT, row.fidelity => TEXT, row.decision => TEXT, row.fault => TEXT, row.message => TEXT,
                input => INT8, output => INT8, read => INT8, written => INT8, reasoning => INT8, row.cost => TEXT,
                row.request => TEXT, row.most_cost => TEXT, row.prompt_estimate => INT8, row.first_token => INT8,
            ],
        )
        .await?;
    }
    Ok(())
}

async fn write_observations(tx: &Tx<'_>, rows: &[ObservationRow], numbers: &[i32]) -> Result<(), Trouble> {
    for (row, pipeline) in rows.iter().zip(numbers) {
        let job = row.job.map(Uuid::from_bytes);
        let sql = "INSERT INTO landbridge.observations (pipeline, rollout, number, at, job, what) VALUES ($1, $2, $3, $4, $5, $6)";
        let params = params![
            *pipeline => INT4, row.rollout => TEXT, row.number => INT8, row.at => INT8, job => UUID, row.what => TEXT,
        ];
        tx.execute(sql, params).await?;
        let sql = "INSERT INTO landbridge.numbers AS n (pipeline, rollout, last) VALUES ($1, $2, $3) \
            ON CONFLICT (pipeline, rollout) DO UPDATE SET last = greatest(n.last, excluded.last)";
        tx.execute(sql, params![*pipeline => INT4, row.rollout => TEXT, row.number => INT8]).await?;
    }
    Ok(())
}

/// Where a read-back stands: the ids behind which it goes on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cursor(Uuid, Uuid, i64);

/// Reads back rows of a part behind a cursor; none at the end.
pub async fn read(
    link: &Link,
    names: &Names,
    part: Part,
    cursor: Cursor,
    limit: usize,
) -> Result<Option<(Rows, Cursor)>, Trouble> {
    let tx = link.look().await?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let Cursor(first, second, number) = cursor;
    let sql = match part {
        Part::Jobs => JOBS,
        Part::Attempts => ATTEMPTS,
        Part::Spending => {
            "SELECT (hour << 20) | pipeline, pipeline, hour, cost::text FROM landbridge.spending \
                           WHERE ((hour << 20) | pipeline) > $1 ORDER BY 1 LIMIT $2"
        }
        Part::Traffic => {
            "SELECT rank, pipeline, hour, target, provider, model, attempts, answered, billed, input, output, \
                          cache_read, cache_write, reasoning, unpriced, unbounded, cost::text, possible_cost::text FROM (\
                            SELECT row_number() OVER (ORDER BY hour, pipeline, target, provider, model) AS rank, t.* \
                            FROM landbridge.traffic t) d WHERE rank > $1 ORDER BY rank LIMIT $2"
        }
        Part::Documents => {
            "SELECT rank, 0, kind, key, value FROM (SELECT row_number() OVER (ORDER BY kind, key) AS rank, kind, \
                            key, value FROM landbridge.documents) d WHERE rank > $1 ORDER BY rank LIMIT $2"
        }
        Part::Observations => {
            "SELECT rank, pipeline, rollout, number, at, job, what FROM (\
               SELECT row_number() OVER (ORDER BY pipeline, rollout, number) AS rank, o.* \
               FROM landbridge.observations o) d WHERE rank > $1 ORDER BY rank LIMIT $2"
        }
        Part::Audit => {
            "SELECT seq, 0, at, actor, action, subject, reason, detail FROM landbridge.audit WHERE seq > $1 \
                        ORDER BY seq LIMIT $2"
        }
    };
    let rows = match part {
        Part::Jobs => tx.query(sql, params![first => UUID, limit => INT8]).await?,
        Part::Attempts => tx.query(sql, params![first => UUID, second => UUID, limit => INT8]).await?,
        _ => tx.query(sql, params![number => INT8, limit => INT8]).await?,
    };
    tx.done().await?;
    let Some(last) = rows.last() else { return Ok(None) };
    let next = match part {
        Part::Jobs => Cursor(get(last, 0)?, Uuid::nil(), 0),
        Part::Attempts => Cursor(get(last, 0)?, get(last, 2)?, 0),
        _ => Cursor(Uuid::nil(), Uuid::nil(), get(last, 0)?),
    };
    let mut known = BTreeMap::new();
    if !matches!(part, Part::Documents | Part::Audit) {
        let numbers = rows.iter().map(|row| get::<i32>(row, 1)).collect::<Result<Vec<_>, _>>()?;
        known.extend(names.names(link, numbers).await?);
    }
    let name = |row: &Row| -> Result<String, Trouble> {
        let number: i32 = get(row, 1)?;
        known.get(&number).map(ToString::to_string).ok_or_else(|| Trouble::Row(format!("{number} is no pipeline")))
    };
    let rows = match part {
        Part::Jobs => Rows::Jobs(rows.iter().map(|row| job(row, name(row)?)).collect::<Result<_, _>>()?),
        Part::Attempts => Rows::Attempts(rows.iter().map(|row| attempt(row, name(row)?)).collect::<Result<_, _>>()?),
        Part::Spending => Rows::Spending(
            rows.iter()
                .map(|row| {
                    let cost = plain_amount(get(row, 3)?);
                    Ok(SpendingRow { hour: get(row, 2)?, pipeline: name(row)?, cost })
                })
                .collect::<Result<_, Trouble>>()?,
        ),
        Part::Traffic => Rows::Traffic(
            rows.iter()
                .map(|row| {
                    let mut numbers = [0; 10];
                    for (place, number) in numbers.iter_mut().enumerate() {
                        *number = get(row, 6 + place)?;
                    }
                    Ok(TrafficRow {
                        hour: get(row, 2)?,
                        pipeline: name(row)?,
                        target: get(row, 3)?,
                        provider: get(row, 4)?,
                        model: get(row, 5)?,
                        numbers,
                        amounts: [plain_amount(get(row, 16)?), plain_amount(get(row, 17)?)],
                    })
                })
                .collect::<Result<_, Trouble>>()?,
        ),
        Part::Documents => Rows::Documents(
            rows.iter()
                .map(|row| Ok(DocumentRow { kind: get(row, 2)?, key: get(row, 3)?, value: get(row, 4)? }))
                .collect::<Result<_, Trouble>>()?,
        ),
        Part::Observations => Rows::Observations(
            rows.iter()
                .map(|row| {
                    Ok(ObservationRow {
                        pipeline: name(row)?,
                        rollout: get(row, 2)?,
                        number: get(row, 3)?,
                        at: get(row, 4)?,
                        job: get::<Option<Uuid>>(row, 5)?.map(|id| *id.as_bytes()),
                        what: get(row, 6)?,
                    })
                })
                .collect::<Result<_, Trouble>>()?,
        ),
        Part::Audit => Rows::Audit(
            rows.iter()
                .map(|row| {
                    Ok(AuditRow {
                        at: get(row, 2)?,
                        actor: get(row, 3)?,
                        action: get(row, 4)?,
                        subject: get(row, 5)?,
                        reason: get(row, 6)?,
                        detail: get(row, 7)?,
                    })
                })
                .collect::<Result<_, Trouble>>()?,
        ),
    };
    Ok(Some((rows, next)))
}

const JOBS: &str = "SELECT j.id, j.pipeline, j.state::bigint, j.fence, j.order_key, j.expiry_key, j.created_at, j.priority, \
      j.run_at, j.hold, j.held_at, j.finished_at, j.crashes::bigint, j.suspect, j.blanked, c.batch, j.assignment, c.deadline, \
      c.caller, c.key, k.digest, c.retry_of, c.metadata, c.body, j.result, j.error, c.callback FROM (\
        SELECT id, pipeline, state, fence, order_key, expiry_key, created_at, priority, run_at, hold, held_at, \
          NULL::bigint AS finished_at, crashes, suspect, false AS blanked, assignment, NULL::bytea AS result, \
          NULL::text AS error FROM landbridge.jobs WHERE id > $1 \
        UNION ALL SELECT id, pipeline, state, 0, 0, 0, created_at, priority, NULL, NULL, NULL, finished_at, 0, suspect, \
          blanked, assignment, result, error FROM landbridge.history WHERE id > $1 ORDER BY id LIMIT $2) AS j \
      JOIN landbridge.contents c ON c.id = j.id \
      LEFT JOIN landbridge.keys k ON k.key_hash = c.key_hash AND k.caller_hash = c.caller_hash AND k.pipeline = j.pipeline \
        AND k.job = j.id ORDER BY j.id";

const ATTEMPTS: &str = "SELECT job, pipeline, id, began_at, n, target, provider, model, region, generation, started_at, ended_at, \
      outcome::bigint, fault, message, input, output, cache_read, cache_write, reasoning, cost::text, billed, request, \
      fidelity, decision, most_cost::text, prompt_estimate, first_token FROM landbridge.attempts WHERE (job, id) > ($1, $2) ORDER BY job, id LIMIT $3";

fn job(row: &Row, pipeline: String) -> Result<JobRow, Trouble> {
    let some_text = |place| get::<Option<Vec<u8>>>(row, place)?.map(text).transpose();
    Ok(JobRow {
        id: *get::<Uuid>(row, 0)?.as_bytes(),
        pipeline,
        state: get(row, 2)?,
        fence: get(row, 3)?,
        order_key: get(row, 4)?,
        expiry_key: get(row, 5)?,
        created_at: get(row, 6)?,
        priority: get(row, 7)?,
        run_at: get(row, 8)?,
        hold: get(row, 9)?,
        held_at: get(row, 10)?,
        finished_at: get(row, 11)?,
        crashes: get(row, 12)?,
        suspect: get(row, 13)?,
        blanked: get(row, 14)?,
        batch: some_text(15)?,
        assignment: get(row, 16)?,
        deadline: get(row, 17)?,
        caller: text(get(row, 18)?)?,
        key: some_text(19)?,
        digest: get(row, 20)?,
        retry_of: get::<Option<Uuid>>(row, 21)?.map(|id| *id.as_bytes()),
        metadata: get(row, 22)?,
        body: some_text(23)?,
        result: some_text(24)?,
        error: get(row, 25)?,
        callback: get(row, 26)?,
    })
}

fn attempt(row: &Row, pipeline: String) -> Result<AttemptRow, Trouble> {
    Ok(AttemptRow {
        job: *get::<Uuid>(row, 0)?.as_bytes(),
        id: *get::<Uuid>(row, 2)?.as_bytes(),
        place: get(row, 3)?,
        pipeline,
        n: get(row, 4)?,
        target: get(row, 5)?,
        provider: get(row, 6)?,
        model: get(row, 7)?,
        region: get(row, 8)?,
        generation: get(row, 9)?,
        started_at: get(row, 10)?,
        ended_at: get(row, 11)?,
        outcome: get(row, 12)?,
        fault: get(row, 13)?,
        message: get(row, 14)?,
        usage: [get(row, 15)?, get(row, 16)?, get(row, 17)?, get(row, 18)?, get(row, 19)?],
        cost: get::<Option<&str>>(row, 20)?.map(plain_amount),
        most_cost: get::<Option<&str>>(row, 25)?.map(plain_amount),
        prompt_estimate: get(row, 26)?,
        first_token: get(row, 27)?,
        billed: get(row, 21)?,
        request: get(row, 22)?,
        fidelity: get(row, 23)?,
        decision: get(row, 24)?,
    })
}
