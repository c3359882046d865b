//! Claims ready jobs while there are permits for them, and sets each on its way.
//!
//! Invariant: a job is claimed only when its pipeline may be worked on and has a free place: as many calls as it may have
//! in flight, and a few jobs in line behind them, so that a place that gets free is taken at once. The wake-up is registered before the store is asked, so no hint is lost; hints lost elsewhere are made
//! good by a poll.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Engine, carry};
use crate::{
    job::HoldReason,
    spec::Pipeline,
    store::{ClaimRequest, Claimed, JobError, Next, Settlement, StoreError},
};

/// Jobs claimed in one go, at most: large enough to share a commit, small enough to keep a group short.
const CLAIM_BATCH: usize = 256;
/// Jobs of a pipeline that wait in line for a turn, at most.
const IN_LINE: u32 = 256;
/// Where keys take turns: so many are looked over for the next one's turn.
const FAIR_IN_LINE: u32 = 1_024;
/// Suspects that could not be claimed, because their pipeline was held or they waited, are looked for again so often.
const LOOK_FOR_SUSPECTS: Duration = Duration::from_secs(5);
/// Between tries when the store fails.
const STORE_BACKOFF: Duration = Duration::from_millis(500);

/// How many jobs of a pipeline may wait in line behind its calls.
fn in_line(spec: &Pipeline) -> u32 {
    match spec.sharing.fair_by {
        None => IN_LINE,
        Some(_) => FAIR_IN_LINE,
    }
}

/// Why a round ended.
#[derive(Debug, PartialEq, Eq)]
enum Round {
    /// As many as asked for came: there may be more.
    Full,
    /// Places are what is missing.
    NoPlaces,
    /// Ready jobs are what is missing.
    NoJobs,
}

/// Dispatches until `stop`; looks every `poll` at least, should a hint be lost.
pub(super) async fn run(engine: Arc<Engine>, poll: Duration, stop: CancellationToken) {
    let mut wakeups = engine.store.wakeups();
    let mut world = engine.world_version.subscribe();
    let mut looked_for_suspects = Instant::now();
    while !stop.is_cancelled() {
        if looked_for_suspects.elapsed() >= LOOK_FOR_SUSPECTS {
            looked_for_suspects = Instant::now();
            engine.suspects_waiting.store(true, Ordering::Release);
        }
        wakeups.borrow_and_update();
        world.borrow_and_update();
        let round = match round(&engine).await {
            Ok(Round::Full) => continue,
            Ok(round) => round,
            Err(error) => {
                tracing::error!(%error, "jobs could not be claimed; trying again");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(STORE_BACKOFF) => continue,
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            Ok(()) = wakeups.changed() => {}
            Ok(()) = world.changed() => {}
            () = engine.inflight.freed(), if round == Round::NoPlaces => {}
            () = tokio::time::sleep(poll) => {}
        }
    }
}

async fn round(engine: &Arc<Engine>) -> Result<Round, StoreError> {
    #[cfg(test)]
    engine.rounds.fetch_add(1, Ordering::Relaxed);
    claim_suspect(engine).await?;
    let free = engine.max_in_flight.saturating_sub(engine.inflight.len());
    let mut limited = free == 0;
    let mut pipelines = Vec::new();
    if free > 0 {
        let world = engine.world.load();
        for (name, lane) in world.lanes() {
            if lane.hold.is_some() {
                continue;
            }
            let bound = lane.loaded.pipeline.concurrency;
            let places = bound.saturating_add(in_line(&lane.loaded.pipeline)).saturating_sub(engine.inflight.of(name));
            let places = match engine.hold_of_lane(lane) {
                None => places,
                // One job may try whether a parked target is mended.
                Some(HoldReason::TargetsParked) if engine.probe_is_due(lane) => places.min(1),
                Some(_) => continue,
            };
            if places == 0 {
                limited = true;
            } else {
                pipelines.push((name.clone(), places));
            }
        }
    }
    if pipelines.is_empty() {
        return Ok(if limited { Round::NoPlaces } else { Round::NoJobs });
    }
    let max = free.min(CLAIM_BATCH);
    let request = ClaimRequest {
        node: engine.node,
        pipelines: pipelines.clone(),
        max: u32::try_from(max).unwrap_or(u32::MAX),
        suspects: false,
    };
    let claimed = engine.store.claim(request).await?;
    let count = claimed.len();
    for (name, places) in &pipelines {
        limited |= claimed.iter().filter(|job| job.pipeline == *name).count() >= *places as usize;
    }
    for job in claimed {
        set_off(engine, job);
    }
    Ok(match count {
        n if n >= max => Round::Full,
        _ if limited => Round::NoPlaces,
        _ => Round::NoJobs,
    })
}

/// Takes up one suspect while no other runs.
async fn claim_suspect(engine: &Arc<Engine>) -> Result<(), StoreError> {
    if !engine.suspects_waiting.load(Ordering::Acquire) || engine.suspect_running.load(Ordering::Acquire) {
        return Ok(());
    }
    let pipelines = engine
        .world
        .load()
        .lanes()
        .filter(|(_, lane)| lane.hold.is_none() && engine.hold_of_lane(lane).is_none())
        .map(|(name, _)| (name.clone(), 1))
        .collect();
    let request = ClaimRequest { node: engine.node, pipelines, max: 1, suspects: true };
    match engine.store.claim(request).await?.pop() {
        Some(job) => {
            engine.suspect_running.store(true, Ordering::Release);
            tracing::warn!(job = %job.id, "this job was in flight at two crashes in a row: it runs alone among suspects");
            set_off(engine, job);
        }
        None => engine.suspects_waiting.store(false, Ordering::Release),
    }
    Ok(())
}

/// Carries a claimed job in a task of its own. A panic fails the job and nothing else.
fn set_off(engine: &Arc<Engine>, job: Claimed) {
    let ticket = engine.inflight.admit(job.id, job.pipeline.clone());
    let engine = engine.clone();
    tokio::spawn(async move {
        let (id, fence, suspect) = (job.id, job.fence, job.suspect);
        if AssertUnwindSafe(carry::carry(&engine, job, ticket.stop())).catch_unwind().await.is_err() {
            tracing::error!(job = %id, "carrying this job panicked; it is failed, the daemon goes on");
            let error = JobError {
                reason_code: "crashed_worker".to_owned(),
                message: format!(
                    "carrying job {id} panicked inside the daemon (see its log); try it again with `landbridge jobs retry {id}`"
                ),
                kind: "server_error".to_owned(),
                code: None,
                param: None,
            };
            let settlement = Settlement { job: id, fence, ended: None, next: Next::Fail(error), told: None };
            if let Err(error) = engine.store.settle(vec![settlement]).await {
                tracing::error!(job = %id, %error, "its failure could not be stored; the next start takes it up");
            }
        }
        if suspect {
            engine.suspect_running.store(false, Ordering::Release);
            engine.world_version.send_modify(|_| {});
        }
        drop(ticket);
    });
}
