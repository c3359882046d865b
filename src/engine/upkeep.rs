//! The loops that keep the queue in order: promote, expire, release, heartbeat, reclaim, prune, gauges.
//!
//! Invariant: each pass is idempotent and bounded; missing one, or running two, does no harm.

use std::{collections::BTreeMap, future::Future, sync::Arc, sync::atomic::Ordering, time::Duration};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Engine, levers::LeverError, spending::MONTH};
use crate::{
    clock::Timestamp,
    names::PipelineName,
    spec::Retention,
    store::{DocumentChange, PruneCut, StoreError},
};

/// How often the loops run when nothing calls them earlier.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Waiting jobs are looked at this often at least; the next due time is awaited exactly.
    pub promote: Duration,
    /// Ready jobs are looked for this often at least, should a hint be lost.
    pub poll: Duration,
    /// Deadlines, holds and flags that clear themselves.
    pub steer: Duration,
    /// Old contents.
    pub prune: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            promote: Duration::from_secs(1),
            poll: Duration::from_millis(500),
            steer: Duration::from_millis(500),
            prune: Duration::from_mins(10),
        }
    }
}

/// Rows that one pass moves at most, so that it shares the store.
const PASS: u32 = 1_000;
/// The audit trail is kept for a day at least.
const DAY: Duration = Duration::from_hours(24);
/// Heartbeats in one lease.
const BEATS: u32 = 3;

/// Starts all loops; they end with `stop`.
pub(super) fn spawn(engine: &Arc<Engine>, loops: &mut JoinSet<()>, pace: Pace, stop: &CancellationToken) {
    loops.spawn(promote(engine.clone(), pace.promote, stop.clone()));
    loops.spawn(every(
        "steering",
        pace.steer,
        engine.clone(),
        stop.clone(),
        |engine| async move { engine.steer().await },
    ));
    let beat = engine.lease / BEATS;
    loops.spawn(every(
        "the heartbeat",
        beat,
        engine.clone(),
        stop.clone(),
        |engine| async move { engine.beat().await },
    ));
    loops.spawn(every(
        "pruning",
        pace.prune,
        engine.clone(),
        stop.clone(),
        |engine| async move { engine.prune().await },
    ));
}

async fn every<F, R>(what: &'static str, period: Duration, engine: Arc<Engine>, stop: CancellationToken, pass: F)
where
    F: Fn(Arc<Engine>) -> R + Send,
    R: Future<Output = Result<(), StoreError>> + Send,
{
    let mut ticks = tokio::time::interval(period.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if let Err(error) = pass(engine.clone()).await {
            tracing::error!(%error, "{what} failed; trying again");
        }
    }
}

/// Puts waiting jobs back into the queue as their time comes.
async fn promote(engine: Arc<Engine>, period: Duration, stop: CancellationToken) {
    loop {
        let now = engine.clock.now();
        let pause = match engine.store.promote(now, PASS).await {
            Ok(promoted) if promoted.moved >= u64::from(PASS) => Duration::ZERO,
            Ok(promoted) => promoted.next_due.map_or(period, |due| now.until(due)).clamp(MIN_NAP, period),
            Err(error) => {
                tracing::error!(%error, "waiting jobs could not be promoted; trying again");
                period
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = engine.waiting.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Naps shorter than this would spin.
const MIN_NAP: Duration = Duration::from_millis(1);

impl Engine {
    /// One pass over everything that time or money changes.
    pub(super) async fn steer(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        self.follow_levers().await?;
        match self.clear_due_flags().await {
            Ok(()) => {}
            Err(LeverError::Store(error)) => return Err(error),
            Err(error) => tracing::warn!(%error, "a flag whose time is up stays set"),
        }
        let counts = self.store.counts().await?;
        let holds = self.holds_now(&counts);
        let changes = self.holds.note(holds.iter().map(|(name, hold)| (name.clone(), *hold)), now);
        self.write_documents(changes).await?;
        let before: BTreeMap<PipelineName, Timestamp> = holds
            .iter()
            .filter(|(_, hold)| hold.is_none())
            .map(|(name, _)| (name.clone(), now - self.holds.total(name, now)))
            .collect();
        loop {
            let expired = self.store.expire(before.clone(), PASS).await?;
            for job in &expired {
                self.inflight.stop(*job, super::StopReason::Cancelled);
            }
            self.observe_ends(&expired).await;
            if expired.len() < PASS as usize {
                break;
            }
        }
        self.release_held().await?;
        self.conduct().await?;
        self.observe_gauges(&counts, now).await
    }

    /// Lets individually held jobs decide again: all of them after a change, a few while parked targets are probed.
    async fn release_held(&self) -> Result<(), StoreError> {
        let version = self.world.load().version;
        let changed = self.released_at.swap(version, Ordering::AcqRel) != version;
        if changed || self.health.take_mended() || self.spending.take_reopened(self.clock.now()) {
            while self.store.release(None, PASS).await? >= u64::from(PASS) {}
            return Ok(());
        }
        let world = self.world.load_full();
        for (name, lane) in world.lanes() {
            if lane.hold.is_none() && self.probe_is_due(lane) {
                self.store.release(Some(name.clone()), 1).await?;
            }
        }
        Ok(())
    }

    async fn write_documents(&self, changes: Vec<DocumentChange>) -> Result<(), StoreError> {
        if changes.is_empty() { Ok(()) } else { self.store.apply(changes, None).await }
    }

    async fn beat(&self) -> Result<(), StoreError> {
        self.store.heartbeat(self.node).await?;
        self.write_down_quotas().await?;
        let recovered = self.store.reclaim(self.lease).await?;
        self.observe_unseen(&recovered.unseen);
        if recovered.suspects > 0 {
            self.suspects_waiting.store(true, Ordering::Release);
        }
        if recovered.requeued > 0 || !recovered.quarantined.is_empty() {
            tracing::warn!(?recovered, "took over the work of a daemon that fell silent");
        }
        Ok(())
    }

    async fn prune(&self) -> Result<(), StoreError> {
        self.sweep_files().await?;
        self.sweep_batches().await?;
        self.sweep_notices().await?;
        let now = self.clock.now();
        let world = self.world.load_full();
        let retention = **self.retention.load();
        let default = Retention::default();
        let cut = |span: fn(&Retention) -> Duration| {
            world.lanes().map(|(name, lane)| (name.clone(), now - span(&lane.loaded.pipeline.retention))).collect()
        };
        let cut = PruneCut {
            prompts: cut(|retention| retention.prompts),
            results: cut(|retention| retention.results),
            default_prompts: now - default.prompts,
            default_results: now - default.results,
            ledger: now - retention.ledger.max(MONTH),
            audit: now - retention.audit.max(DAY),
        };
        loop {
            let pruned = self.store.prune(cut.clone(), PASS).await?;
            if pruned.prompts + pruned.jobs + pruned.attempts + pruned.audit == 0 {
                return Ok(());
            }
            tracing::info!(?pruned, "old contents deleted");
            tokio::task::yield_now().await;
        }
    }
}
