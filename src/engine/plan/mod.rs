//! What a change of specs would do to recorded jobs, before it is made.
//!
//! Invariant: no provider is called, nothing is stored, and what comes out are figures: no prompt, no metadata, no key.
//! Memory follows pipelines, targets, hours and distinct keys up to a bound, not the number of jobs.

mod doubts;
mod figures;
mod headroom;
mod replay;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use serde::Serialize;

pub use self::{
    doubts::Doubt,
    figures::{Basis, MoveLine, PipelineLine, RolloutLine},
    headroom::QuotaLine,
};
use self::{
    figures::Averages,
    replay::{Replay, Side},
};
use super::{Engine, report::LOOKING_BACK, world::World};
use crate::{
    clock::Timestamp,
    ids::JobId,
    names::PipelineName,
    snapshot::{FileReport, Loaded, describe_changes},
    store::{RECORDED_MAX, RecordedQuery, StoreError},
};

/// Jobs that one plan looks at, at most.
pub const MOST_JOBS: u64 = 1_000_000;
/// Jobs without another word.
pub const DEFAULT_JOBS: u64 = 10_000;
/// Averages are taken over so much of the ledger at least: the jobs looked at may be few.
const LEDGER_SPAN: Duration = Duration::from_hours(7 * 24);

/// Which recorded jobs to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recent {
    /// So many of the newest.
    Last(u64),
    /// Those accepted since.
    Since(Timestamp),
}

/// A plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// The generation that runs.
    pub generation: u64,
    /// Whether applying these files would change anything that steers jobs.
    pub changed: bool,
    /// The changes, in words.
    pub changes: Vec<String>,
    /// Files with their problems. A broken file changes nothing: its last good version is what was planned with.
    pub files: Vec<FileReport>,
    /// What was looked at.
    pub jobs: Looked,
    /// Pipelines that change, or whose jobs move.
    pub pipelines: Vec<PipelineLine>,
    /// Quotas that jobs would meet.
    pub quotas: Vec<QuotaLine>,
    /// What should be known about the figures.
    pub notes: Vec<String>,
}

/// Which jobs were looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Looked {
    /// How many.
    pub count: u64,
    /// When the oldest was accepted.
    pub from: Option<Timestamp>,
    /// When the newest was accepted.
    pub to: Option<Timestamp>,
    /// Those that go elsewhere first than they do now.
    pub moved: u64,
    /// Those that a rule needs the prompt of, which is gone: nothing can be said of them.
    pub cannot_tell: u64,
}

impl Engine {
    /// Decides for recorded jobs of these pipelines (`None` is all) by the specs that run and by those loaded.
    ///
    /// # Errors
    /// [`StoreError`] when the jobs or the ledger cannot be read.
    pub async fn plan(
        &self,
        loaded: &Loaded,
        recent: Recent,
        within: Option<&BTreeSet<PipelineName>>,
    ) -> Result<Plan, StoreError> {
        let _alone = LOOKING_BACK.acquire().await;
        let world = self.world();
        let (before, after) = (Side::new(&world.snapshot, &world.courses), Side::new(&loaded.snapshot, &world.courses));
        let (replay, samples) = self.replay(Replay::new(before, after), recent, within).await?;
        let looked = replay.looked();
        let now = self.now();
        let since = looked.from.map_or(now - LEDGER_SPAN, |from| from.min(now - LEDGER_SPAN));
        let digest = self.digest(since, within).await?;
        let doubts = self.doubts(&loaded.snapshot, samples).await?;
        let averages = Averages::new(&digest, |target| self.multiplier(&target.provider));
        let quotas = self.headroom(&replay, &averages, now);
        let mut changes = describe_changes(&world.snapshot, &loaded.snapshot);
        if let Some(within) = within {
            // Who is bound to some pipelines hears of those alone.
            changes.retain(|change| within.iter().any(|name| change.contains(&format!("`{name}`"))));
        }
        Ok(Plan {
            generation: world.snapshot.generation,
            changed: loaded.changed || looked.moved > 0,
            changes,
            files: loaded.snapshot.files.clone(),
            jobs: looked,
            pipelines: figures::lines(&replay, &averages, doubts),
            quotas,
            notes: notes(&world, looked, digest.places.is_empty()),
        })
    }

    /// Reads jobs page by page. Deciding is work for a processor, away from the threads that carry jobs.
    async fn replay(
        &self,
        mut replay: Replay,
        recent: Recent,
        within: Option<&BTreeSet<PipelineName>>,
    ) -> Result<(Replay, replay::Samples), StoreError> {
        let (mut left, since) = match recent {
            Recent::Last(count) => (count.min(MOST_JOBS), None),
            Recent::Since(since) => (MOST_JOBS, Some(since)),
        };
        let within = within.map(|within| within.iter().cloned().collect::<Vec<_>>());
        if within.as_ref().is_some_and(Vec::is_empty) {
            return Ok(replay.finish());
        }
        let mut after: Option<JobId> = None;
        while left > 0 {
            let limit = u32::try_from(left.min(u64::from(RECORDED_MAX))).unwrap_or(RECORDED_MAX);
            let query = RecordedQuery {
                since,
                after,
                within: within.clone().unwrap_or_default(),
                bodies: replay.bodies().clone(),
                limit,
            };
            let page = self.store.recorded(query).await?;
            left -= (page.jobs.len() as u64).min(left);
            let decided = tokio::task::spawn_blocking(move || {
                replay.look_at(&page.jobs);
                replay
            });
            replay = decided.await.map_err(|error| StoreError::Busy(format!("the plan broke off: {error}")))?;
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        Ok(replay.finish())
    }
}

fn notes(world: &Arc<World>, looked: Looked, no_calls: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if looked.count == 0 {
        notes.push("no job is recorded that could be looked at: the figures say nothing yet".to_owned());
    }
    if looked.cannot_tell > 0 {
        notes.push(format!(
            "{} jobs are left out: a rule looks at their prompt, and prompts are kept for a time only (`retention.prompts`)",
            looked.cannot_tell
        ));
    }
    if no_calls && looked.count > 0 {
        notes.push("the ledger has no ended call to compare cost and latency by".to_owned());
    }
    let levers: Vec<&str> = world
        .lanes()
        .filter(|(_, lane)| lane.flags.overrides_rollouts() || lane.flags.pause.is_some())
        .map(|(name, _)| name.as_str())
        .collect();
    if !levers.is_empty() {
        let some = levers.iter().take(10).copied().collect::<Vec<_>>().join(", ");
        notes.push(format!(
            "a switch is on for {some}{}: until it is cleared, jobs go where it says; this plan is about the time after \
             (runtime switches and rollbacks are left out)",
            if levers.len() > 10 { " and others" } else { "" }
        ));
    }
    notes.push(
        "every job is decided as if it had just been submitted; cost and latency are differences of averages in the ledger"
            .to_owned(),
    );
    notes
}
