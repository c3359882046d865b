//! All rows of a file, page by page, for another store.

use rusqlite::{Connection, Row, params};

use super::trouble::Trouble;
use crate::store::transfer::{
    AttemptRow, AuditRow, DocumentRow, JobRow, ObservationRow, Part, Rows, SpendingRow, TrafficRow, plain_amount,
};

/// Bytes of texts after which a page ends early.
const PAGE_BYTES: usize = 4 << 20;

/// Rows of a kind behind a cursor, at most `limit`; with the cursor behind them, or none at the end.
pub fn page(conn: &Connection, part: Part, after: &str, limit: usize) -> Result<(Rows, Option<String>), Trouble> {
    let number = || after.parse::<i64>().unwrap_or(-1);
    match part {
        Part::Jobs => {
            let sql = "SELECT j.seq, j.id, p.name, j.state, j.fence, j.order_key, j.expiry_key, j.created_at, j.priority, \
                j.run_at, j.hold, j.held_at, j.finished_at, j.crashes, j.suspect, j.blanked, b.name, j.assignment, \
                c.deadline, c.caller, c.key, k.digest, c.retry_of, c.metadata, c.body, r.result, r.error, c.callback \
                FROM jobs j JOIN pipelines p ON p.id = j.pipeline JOIN contents c ON c.seq = j.seq \
                LEFT JOIN batches b ON b.id = j.batch LEFT JOIN results r ON r.seq = j.seq \
                LEFT JOIN keys k ON k.key = c.key AND k.pipeline = j.pipeline AND k.caller = c.caller AND k.job = j.seq \
                WHERE j.seq > ?1 ORDER BY j.seq LIMIT ?2";
            let size =
                |row: &JobRow| row.body.as_deref().map_or(0, str::len) + row.result.as_deref().map_or(0, str::len);
            let (rows, next) = numbered(conn, sql, number(), limit, job, size)?;
            Ok((Rows::Jobs(rows), next))
        }
        Part::Attempts => {
            let sql = "SELECT a.seq, a.job_id, a.id, a.seq & 1048575, p.name, a.n, a.target, a.provider, a.model, a.region, \
                a.generation, a.started_at, a.ended_at, a.outcome, a.fault, a.message, a.input, a.output, a.cache_read, \
                a.cache_write, a.reasoning, a.cost, a.billed, a.request, a.fidelity, a.decision, a.most_cost, a.prompt_estimate, a.first_token \
                FROM attempts a JOIN pipelines p ON p.id = a.pipeline WHERE a.seq > ?1 AND a.ended_at IS NOT NULL \
                ORDER BY a.seq LIMIT ?2";
            let size = |row: &AttemptRow| row.decision.as_deref().map_or(0, str::len);
            let (rows, next) = numbered(conn, sql, number(), limit, attempt, size)?;
            Ok((Rows::Attempts(rows), next))
        }
        Part::Spending => {
            let sql = "SELECT (s.hour << 20) | p.id, s.hour, p.name, s.cost FROM spending s JOIN pipelines p ON p.id = s.pipeline \
                WHERE ((s.hour << 20) | p.id) > ?1 ORDER BY 1 LIMIT ?2";
            let (rows, next) = numbered(conn, sql, number(), limit, spending, |_| 0)?;
            Ok((Rows::Spending(rows), next))
        }
        Part::Traffic => {
            let sql = "SELECT rank, hour, name, target, provider, model, attempts, answered, billed, input, output, cache_read, \
                cache_write, reasoning, unpriced, unbounded, cost, possible_cost FROM (\
                  SELECT row_number() OVER (ORDER BY t.hour, p.name, t.target, t.provider, t.model) AS rank, t.*, p.name \
                  FROM traffic t JOIN pipelines p ON p.id = t.pipeline) WHERE rank > ?1 ORDER BY rank LIMIT ?2";
            let (rows, next) = numbered(conn, sql, number(), limit, traffic, |_| 0)?;
            Ok((Rows::Traffic(rows), next))
        }
        Part::Documents => {
            let sql = "SELECT rank, kind, key, value FROM (\
                  SELECT row_number() OVER (ORDER BY kind, key) AS rank, kind, key, value FROM documents) \
                WHERE rank > ?1 ORDER BY rank LIMIT ?2";
            let (rows, next) = numbered(conn, sql, number(), limit, document, |row| row.value.len())?;
            Ok((Rows::Documents(rows), next))
        }
        Part::Audit => {
            let sql = "SELECT seq, at, actor, action, subject, reason, detail FROM audit WHERE seq > ?1 ORDER BY seq LIMIT ?2";
            let (rows, next) = numbered(conn, sql, number(), limit, audit, |row| row.detail.len())?;
            Ok((Rows::Audit(rows), next))
        }
        Part::Observations => {
            let sql = "SELECT rank, name, rollout, number, at, job, what FROM (\
                  SELECT row_number() OVER (ORDER BY p.name, o.rollout, o.number) AS rank, o.*, p.name \
                  FROM observations o JOIN pipelines p ON p.id = o.pipeline) WHERE rank > ?1 ORDER BY rank LIMIT ?2";
            let (rows, next) = numbered(conn, sql, number(), limit, observation, |row| row.what.len())?;
            Ok((Rows::Observations(rows), next))
        }
    }
}

/// What tells whether anybody worked on the file: any step, call, document or entry shows.
pub fn fingerprint(conn: &Connection) -> Result<String, Trouble> {
    let sql = "SELECT printf('%d %d %d %d %d %d', (SELECT count(*) FROM jobs), (SELECT coalesce(sum(state), 0) FROM jobs), \
        (SELECT coalesce(sum(fence), 0) FROM jobs), (SELECT count(*) FROM attempts), (SELECT count(*) FROM documents), \
        (SELECT coalesce(max(seq), 0) FROM audit))";
    Ok(conn.query_row(sql, [], |row| row.get(0))?)
}

fn numbered<T>(
    conn: &Connection,
    sql: &str,
    after: i64,
    limit: usize,
    read: fn(&Row<'_>) -> rusqlite::Result<T>,
    size: impl Fn(&T) -> usize,
) -> Result<(Vec<T>, Option<String>), Trouble> {
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params![after, i64::try_from(limit).unwrap_or(i64::MAX)])?;
    let (mut found, mut last, mut bytes) = (Vec::new(), None, 0);
    while let Some(row) = rows.next()? {
        last = Some(row.get::<_, i64>(0)?.to_string());
        let row = read(row)?;
        bytes += size(&row);
        found.push(row);
        if bytes >= PAGE_BYTES {
            break;
        }
    }
    Ok((found, last))
}

fn job(row: &Row<'_>) -> rusqlite::Result<JobRow> {
    let job = JobRow {
        id: row.get(1)?,
        pipeline: row.get(2)?,
        state: row.get(3)?,
        fence: row.get(4)?,
        order_key: row.get(5)?,
        expiry_key: row.get(6)?,
        created_at: row.get(7)?,
        priority: row.get(8)?,
        run_at: row.get(9)?,
        hold: row.get(10)?,
        held_at: row.get(11)?,
        finished_at: row.get(12)?,
        crashes: row.get(13)?,
        suspect: row.get(14)?,
        blanked: row.get(15)?,
        batch: row.get(16)?,
        assignment: row.get(17)?,
        deadline: row.get(18)?,
        caller: row.get(19)?,
        key: row.get(20)?,
        digest: row.get(21)?,
        retry_of: row.get(22)?,
        metadata: row.get(23)?,
        body: row.get(24)?,
        result: row.get(25)?,
        error: row.get(26)?,
        callback: row.get(27)?,
    };
    // What only matters while a job lives is not kept elsewhere once it has ended.
    Ok(if job.finished_at.is_some() {
        JobRow { fence: 0, order_key: 0, expiry_key: 0, run_at: None, hold: None, held_at: None, crashes: 0, ..job }
    } else {
        job
    })
}

fn attempt(row: &Row<'_>) -> rusqlite::Result<AttemptRow> {
    Ok(AttemptRow {
        job: row.get(1)?,
        id: row.get(2)?,
        place: row.get(3)?,
        pipeline: row.get(4)?,
        n: row.get(5)?,
        target: row.get(6)?,
        provider: row.get(7)?,
        model: row.get(8)?,
        region: row.get(9)?,
        generation: row.get(10)?,
        started_at: row.get(11)?,
        ended_at: row.get(12)?,
        outcome: row.get(13)?,
        fault: row.get(14)?,
        message: text_for_people(row.get(15)?),
        usage: [row.get(16)?, row.get(17)?, row.get(18)?, row.get(19)?, row.get(20)?],
        cost: row.get::<_, Option<String>>(21)?.as_deref().map(plain_amount),
        most_cost: row.get::<_, Option<String>>(26)?.as_deref().map(plain_amount),
        prompt_estimate: row.get(27)?,
        first_token: row.get(28)?,
        billed: row.get(22)?,
        request: text_for_people(row.get(23)?),
        fidelity: row.get(24)?,
        decision: row.get(25)?,
    })
}

/// Texts that are only for people lose their NULs on the way: not every store can hold one.
fn text_for_people(text: Option<String>) -> Option<String> {
    text.map(|text| text.replace('\0', "\u{fffd}"))
}

fn spending(row: &Row<'_>) -> rusqlite::Result<SpendingRow> {
    Ok(SpendingRow { hour: row.get(1)?, pipeline: row.get(2)?, cost: plain_amount(&row.get::<_, String>(3)?) })
}

fn traffic(row: &Row<'_>) -> rusqlite::Result<TrafficRow> {
    let mut numbers = [0; 10];
    for (place, number) in numbers.iter_mut().enumerate() {
        *number = row.get(6 + place)?;
    }
    let amount = |place| row.get::<_, String>(place).map(|text| plain_amount(&text));
    Ok(TrafficRow {
        hour: row.get(1)?,
        pipeline: row.get(2)?,
        target: row.get(3)?,
        provider: row.get(4)?,
        model: row.get(5)?,
        numbers,
        amounts: [amount(16)?, amount(17)?],
    })
}

fn document(row: &Row<'_>) -> rusqlite::Result<DocumentRow> {
    Ok(DocumentRow { kind: row.get(1)?, key: row.get(2)?, value: row.get(3)? })
}

fn audit(row: &Row<'_>) -> rusqlite::Result<AuditRow> {
    let text = |place| row.get::<_, String>(place).map(|text| text.replace('\0', "\u{fffd}"));
    Ok(AuditRow {
        at: row.get(1)?,
        actor: text(2)?,
        action: text(3)?,
        subject: text(4)?,
        reason: text_for_people(row.get(5)?),
        detail: row.get(6)?,
    })
}

fn observation(row: &Row<'_>) -> rusqlite::Result<ObservationRow> {
    Ok(ObservationRow {
        pipeline: row.get(1)?,
        rollout: row.get(2)?,
        number: row.get(3)?,
        at: row.get(4)?,
        job: row.get(5)?,
        what: row.get(6)?,
    })
}
