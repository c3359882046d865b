//! Taking back what a dead daemon left running.

use std::time::Duration;

use uuid::Uuid;

use super::{
    change::{Change, End, News},
    columns::{Standing, get, node as column, standing},
    documents,
    link::{Link, Pace, Tx, params},
    names::Names,
    trouble::Trouble,
    write,
};
use crate::{
    ids::NodeId,
    job::{Fault, Outcome, State, state::Event},
    store::{
        AttemptEnd, Recovered, Unseen, codes,
        crash::{self, Abandoned, Fate},
    },
};

const SEEN: &str = "INSERT INTO landbridge.nodes (node, seen_at) VALUES ($1, $2) \
    ON CONFLICT (node) DO UPDATE SET seen_at = excluded.seen_at";

const BUSY: &str =
    concat!("SELECT ", standing!(), " FROM landbridge.jobs WHERE node = $1 ORDER BY id FOR NO KEY UPDATE");

/// A node begins a new life.
pub async fn register(link: &Link, names: &Names, node: NodeId) -> Result<(Recovered, News), Trouble> {
    let tx = link.begin(Pace::Long).await?;
    tx.execute(SEEN, params![column(node) => UUID, tx.now.as_micros() => INT8]).await?;
    take_back(link, names, tx, column(node), true).await
}

/// A node says that it lives.
pub async fn heartbeat(link: &Link, node: NodeId) -> Result<(), Trouble> {
    let tx = link.begin(Pace::Quick).await?;
    tx.execute(SEEN, params![column(node) => UUID, tx.now.as_micros() => INT8]).await?;
    tx.done_without_receipt().await
}

/// A node stopped in good order.
pub async fn deregister(link: &Link, names: &Names, node: NodeId) -> Result<News, Trouble> {
    let tx = link.begin(Pace::Long).await?;
    let sql = "UPDATE landbridge.nodes SET seen_at = NULL WHERE node = $1";
    tx.execute(sql, params![column(node) => UUID]).await?;
    Ok(take_back(link, names, tx, column(node), false).await?.1)
}

/// The next silent node's work is taken back; `None` when no node is silent. Never from the node that asks.
pub async fn reclaim_one(
    link: &Link,
    names: &Names,
    lease: Duration,
    asking: NodeId,
) -> Result<Option<(Recovered, News)>, Trouble> {
    let lease = i64::try_from(lease.as_micros()).unwrap_or(i64::MAX);
    let sql = "SELECT node FROM landbridge.nodes WHERE seen_at < $1 AND node <> $2 ORDER BY node LIMIT 1";
    let asking = column(asking);
    let look = link.look().await?;
    let before = look.now.as_micros().saturating_sub(lease);
    let silent = look.query_opt(sql, params![before => INT8, asking => UUID]).await?;
    look.done().await?;
    if silent.is_none() {
        return Ok(None);
    }
    let tx = link.begin(Pace::Long).await?;
    let before = tx.now.as_micros().saturating_sub(lease);
    // Locked, so that two daemons do not both count the crash, and judged again, should it have said something meanwhile.
    let silent =
        tx.query_opt(&format!("{sql} FOR UPDATE SKIP LOCKED"), params![before => INT8, asking => UUID]).await?;
    let Some(silent) = silent else {
        tx.done_without_receipt().await?;
        return Ok(None);
    };
    let silent: Uuid = get(&silent, 0)?;
    tx.execute("UPDATE landbridge.nodes SET seen_at = NULL WHERE node = $1", params![silent => UUID]).await?;
    take_back(link, names, tx, silent, true).await.map(Some)
}

async fn take_back(
    link: &Link,
    names: &Names,
    tx: Tx<'_>,
    node: Uuid,
    crashed: bool,
) -> Result<(Recovered, News), Trouble> {
    documents::resign_all(&tx, node).await?;
    let mut change = Change::new(tx.now);
    for row in tx.query(BUSY, params![node => UUID]).await? {
        let row = Standing::read(&row)?;
        change.hold(row);
    }
    change.read_open(&tx).await?;
    let ended = tx.query("SELECT id FROM landbridge.history WHERE node = $1", params![node => UUID]).await?;
    let ended = ended.iter().map(|row| get(row, 0)).collect::<Result<Vec<Uuid>, _>>()?;
    change.take_past(&tx, &ended).await?;
    let mut recovered = Recovered::default();
    let mut abandoned = Vec::new();
    let mut open: Vec<_> = change
        .live
        .iter()
        .map(|(id, held)| (*id, held.open.clone()))
        .chain(change.past.iter().map(|(id, past)| (*id, past.open.clone())))
        .collect();
    open.sort_by_key(|(id, _)| *id);
    let numbers: Vec<i32> = open.iter().flat_map(|(_, calls)| calls.values()).map(|call| call.place.pipeline).collect();
    let pipelines = names.names(link, numbers).await?;
    for (id, attempts) in open {
        for (attempt, call) in &attempts {
            if let Some(pipeline) = pipelines.get(&call.place.pipeline) {
                recovered.unseen.push(Unseen {
                    pipeline: pipeline.clone(),
                    target: codes::parse(&call.place.target)?,
                    most_cost: call.most_cost,
                });
            }
            let end = AttemptEnd {
                attempt: *attempt,
                ended_at: change.now,
                outcome: Outcome::Unknown,
                fault: Some(Fault::Unknown),
                message: Some(crash::UNSEEN_END.to_owned()),
                usage: None,
                cost: None,
                possibly_billed: true,
                provider_request_id: None,
                first_token: None,
            };
            change.close(id, &end);
            recovered.unknown_attempts += 1;
        }
        match change.live.get(&id).map(|held| held.row) {
            Some(row) if row.state == State::Running => {
                let crashes = u32::try_from(row.crashes).unwrap_or(0);
                let calling = crashed && !attempts.is_empty();
                abandoned.push((id, Abandoned { crashes, suspect: row.suspect, calling, live: row.live }));
            }
            Some(_) => change.amend(id, |row| row.node = None),
            None => change.let_go(id),
        }
    }
    let suspects = crash::suspects_calling(abandoned.iter().map(|(_, job)| job));
    for (id, job) in abandoned {
        let fate = crash::fate(job, suspects);
        let (crashes, suspect) = match fate {
            Fate::Requeue { crashes, suspect } => (crashes, suspect),
            Fate::Quarantine { crashes } => (crashes, job.suspect),
            Fate::LetGo => (job.crashes, job.suspect),
        };
        change.amend(id, |row| {
            row.fence += 1;
            row.crashes = i32::try_from(crashes).unwrap_or(i32::MAX);
            row.suspect = suspect;
        });
        match fate {
            Fate::Requeue { suspect, .. } => {
                recovered.requeued += 1;
                recovered.suspects += u64::from(suspect);
                change.step(id, Event::Requeue)?;
            }
            Fate::Quarantine { crashes } => {
                recovered.quarantined.push(id);
                let error = Some(crash::quarantine_error(id, crashes));
                change.end(id, Event::Fail, End { result: None, error })?;
            }
            Fate::LetGo => {
                let error = Some(crash::caller_gone_error());
                change.end(id, Event::Fail, End { result: None, error })?;
            }
        }
    }
    Ok((recovered, write::commit(tx, change).await?))
}
