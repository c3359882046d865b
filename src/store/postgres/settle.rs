//! Closing attempts and moving jobs on.

use uuid::Uuid;

use super::{
    change::{Change, End, News},
    columns::uuid,
    link::{Link, Pace},
    trouble::Trouble,
    write,
};
use crate::{
    job::{State, state::Event},
    store::{Next, Settled, Settlement, codes},
};

/// Closes attempts and moves jobs on; for each, what became of it.
pub async fn settle(link: &Link, settlements: &[Settlement]) -> Result<(Vec<Settled>, News), Trouble> {
    let tx = link.begin(Pace::Quick).await?;
    let mut change = Change::new(tx.now);
    let mut ids: Vec<Uuid> = settlements.iter().map(|settlement| uuid(settlement.job)).collect();
    ids.sort_unstable();
    ids.dedup();
    change.take(&tx, &ids).await?;
    change.take_past(&tx, &ids).await?;
    let ends: Vec<_> = settlements
        .iter()
        .filter_map(|settlement| Some((settlement.job, settlement.ended.as_ref()?.attempt)))
        .collect();
    change.take_unseen(&tx, &ends).await?;
    let mut answers = Vec::with_capacity(settlements.len());
    for settlement in settlements {
        answers.push(settle_one(&mut change, settlement)?);
    }
    Ok((answers, write::commit(tx, change).await?))
}

fn settle_one(change: &mut Change, settlement: &Settlement) -> Result<Settled, Trouble> {
    let id = settlement.job;
    if let Some(end) = &settlement.ended {
        change.close(id, end);
    }
    let held = change.live.get(&id).map(|held| held.row);
    let Some(row) = held.filter(|row| row.state == State::Running && row.fence == codes::signed(settlement.fence.0))
    else {
        change.let_go(id);
        return Ok(Settled::Stale);
    };
    if settlement.ended.is_some() && (row.crashes > 0 || row.suspect) {
        change.amend(id, |row| (row.crashes, row.suspect) = (0, false));
    }
    match &settlement.next {
        Next::Keep => {}
        Next::Queue => change.step(id, Event::Requeue)?,
        Next::Wait(until) => {
            change.step(id, Event::Wait)?;
            change.amend(id, |row| row.run_at = Some(until.as_micros()));
        }
        Next::Hold(reason) => {
            change.step(id, Event::Hold)?;
            let now = change.now.as_micros();
            change.amend(id, |row| (row.hold, row.held_at) = (Some(*reason), Some(now)));
        }
        Next::Succeed(result) => {
            change.end(id, Event::Succeed, End { result: Some(result.clone()), error: None })?;
        }
        Next::Fail(error) => change.end(id, Event::Fail, End { result: None, error: Some(error.clone()) })?,
        Next::Expire => change.step(id, Event::Expire)?,
    }
    if let Some(told) = &settlement.told {
        change.sayings.tell(row.pipeline, Some(id), told.clone());
    }
    Ok(Settled::Applied)
}
