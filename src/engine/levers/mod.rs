//! What operators can do at run time: set and clear flags, roll back, resume. Durable, audited, in force at once.
//!
//! Invariant: a lever is written to the store, with its audit entry, before it takes effect; a restart finds it again.
//! What a change would touch can be asked first; asking changes nothing.

mod kept;

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

pub use kept::{ALL, Rollback, Runtime, RuntimeFlag};

use serde::Serialize;
use serde_json::json;

use super::{Engine, world::World};
use crate::{
    clock::Timestamp,
    job::{HoldReason, State},
    names::{PipelineName, ProviderName, RolloutName, nearest},
    spec::Flag,
    store::{AuditEntry, DocumentChange, DocumentKind, StoreError},
};

/// Who acts, and why.
#[derive(Debug, Clone, Default)]
pub struct Act {
    /// A key's name, or `local`.
    pub actor: String,
    /// In the operator's words.
    pub reason: Option<String>,
    /// Only say what it would touch.
    pub dry_run: bool,
    /// Also cancel calls in flight; their jobs go back to the queue.
    pub interrupt: bool,
}

/// A flag to be set or cleared.
#[derive(Debug, Clone)]
pub struct FlagChange {
    /// Which.
    pub flag: Flag,
    /// For one pipeline, or for all.
    pub pipeline: Option<PipelineName>,
    /// `None` clears it.
    pub value: Option<bool>,
    /// Clears itself after this span.
    pub clear_after: Option<Duration>,
}

/// What a lever touches.
#[derive(Debug, Clone, Default, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Touched {
    /// Pipelines in reach.
    pub pipelines: Vec<TouchedPipeline>,
    /// Jobs that will be held and were not.
    pub held_jobs: u64,
    /// Calls that were interrupted.
    pub interrupted: usize,
    /// In words.
    pub message: String,
}

/// What a lever does to one pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct TouchedPipeline {
    /// Its name.
    pub pipeline: PipelineName,
    /// Jobs not yet dispatched.
    pub queued: u64,
    /// Jobs in flight.
    pub running: u64,
    /// Why its jobs will be held, if they will.
    pub would_hold: Option<HoldReason>,
    /// The provider that will be forced, by a rollback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<ProviderName>,
    /// The rollouts that will be held, by a rollback.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rollouts: Vec<RolloutName>,
}

/// Why a lever did not move.
#[derive(Debug, thiserror::Error)]
pub enum LeverError {
    /// No such pipeline.
    #[error("there is no pipeline {name}{hint}")]
    UnknownPipeline {
        /// As asked.
        name: String,
        /// `; did you mean …?`, or nothing.
        hint: String,
    },
    /// It contradicts what is in force.
    #[error("{0}")]
    Conflict(String),
    /// The store did not take it; nothing changed.
    #[error("nothing changed: {0}")]
    Store(#[from] StoreError),
}

fn scope_of(pipeline: Option<&PipelineName>) -> &str {
    pipeline.map_or(ALL, PipelineName::as_str)
}

fn flag_key(scope: &str, flag: &Flag) -> String {
    format!("{scope}/{flag}")
}

impl Engine {
    /// Reads flags and rollbacks from the store.
    pub(super) async fn read_runtime(&self) -> Result<Runtime, StoreError> {
        let flags = self.store.documents(DocumentKind::Flag).await?;
        let rollbacks = self.store.documents(DocumentKind::Rollback).await?;
        Ok(Runtime {
            flags: flags
                .into_iter()
                .filter_map(|(key, value)| Some((key, serde_json::from_value(value).ok()?)))
                .collect(),
            rollbacks: rollbacks
                .into_iter()
                .filter_map(|(key, value)| Some((PipelineName::new(&key).ok()?, serde_json::from_value(value).ok()?)))
                .collect(),
        })
    }

    /// Takes over what another daemon did to the levers. One look at a number, as long as nobody did.
    pub(super) async fn follow_levers(&self) -> Result<(), StoreError> {
        let revision = self.store.revision().await?;
        if self.levers_at.load(Ordering::Acquire) == revision {
            return Ok(());
        }
        let _turn = self.steering.lock().await;
        let runtime = self.read_runtime().await?;
        if runtime != self.runtime() {
            tracing::info!("the levers were moved elsewhere; taken over");
            self.install_runtime(runtime);
        }
        self.levers_at.store(revision, Ordering::Release);
        Ok(())
    }

    /// Sets or clears a runtime flag, or says what that would touch.
    ///
    /// # Errors
    /// [`LeverError`]; nothing changed then.
    pub async fn change_flag(&self, change: FlagChange, act: Act) -> Result<Touched, LeverError> {
        let _turn = self.steering.lock().await;
        self.known(change.pipeline.as_ref())?;
        let now = self.clock.now();
        let mut runtime = self.runtime();
        let scope = scope_of(change.pipeline.as_ref()).to_owned();
        let key = flag_key(&scope, &change.flag);
        let entry = change.value.map(|value| RuntimeFlag {
            value,
            reason: act.reason.clone(),
            actor: act.actor.clone(),
            set_at: now,
            clear_at: change.clear_after.map(|span| now + span),
        });
        match &entry {
            Some(flag) => runtime.flags.insert(key.clone(), flag.clone()),
            None => runtime.flags.remove(&key),
        };
        let after = self.world_under(&runtime);
        if change.value == Some(true) {
            refuse_second_forced(&change.flag, &after)?;
        }
        let in_reach = |name: &PipelineName| change.pipeline.as_ref().is_none_or(|wanted| wanted == name);
        let mut touched = self.touched(&after, in_reach).await?;
        touched.message = describe(&touched, &change.flag);
        if act.dry_run {
            return Ok(touched);
        }
        let (action, detail) = match &entry {
            Some(flag) => ("flag.set", json!({ "value": flag.value, "clear_at": flag.clear_at })),
            None => ("flag.clear", serde_json::Value::Null),
        };
        let value = entry.as_ref().and_then(|flag| serde_json::to_value(flag).ok());
        self.store
            .apply(
                vec![DocumentChange { kind: DocumentKind::Flag, key: key.clone(), value }],
                Some(audit(now, &act, action, &key, detail)),
            )
            .await?;
        self.install_runtime(runtime);
        tracing::warn!(flag = %change.flag, scope, value = ?change.value, actor = %act.actor, reason = ?act.reason, "{}", touched.message);
        if act.interrupt {
            touched.interrupted = self.inflight.interrupt(change.pipeline.as_ref());
        }
        Ok(touched)
    }

    /// Forces the baseline provider of a pipeline (of all with rollouts, when `None`) and holds its rollouts.
    ///
    /// # Errors
    /// [`LeverError`]; nothing changed then.
    pub async fn roll_back(&self, pipeline: Option<PipelineName>, act: Act) -> Result<Touched, LeverError> {
        let _turn = self.steering.lock().await;
        self.known(pipeline.as_ref())?;
        let now = self.clock.now();
        let world = self.world();
        let mut runtime = self.runtime();
        let mut changes = Vec::new();
        let mut plans: BTreeMap<PipelineName, Rollback> = BTreeMap::new();
        for (name, lane) in world.lanes().filter(|(name, _)| pipeline.as_ref().is_none_or(|wanted| wanted == *name)) {
            let spec = &lane.loaded.pipeline;
            let mut providers: Vec<&ProviderName> =
                spec.rollouts.iter().map(|rollout| &spec.target(rollout.baseline).provider).collect();
            providers.sort();
            providers.dedup();
            let provider = match providers.as_slice() {
                [] if pipeline.is_none() => continue,
                [] => {
                    return Err(LeverError::Conflict(format!(
                        "pipeline {name} has no rollout to roll back; force a provider with `landbridge flag set FORCE_<NAME>_PROVIDER --pipeline {name}`"
                    )));
                }
                [provider] => (*provider).clone(),
                several => {
                    let names: Vec<&str> = several.iter().map(|provider| provider.as_str()).collect();
                    return Err(LeverError::Conflict(format!(
                        "the rollouts of pipeline {name} have baselines at different providers ({}); force one with `landbridge flag set`",
                        names.join(", ")
                    )));
                }
            };
            if runtime.rollbacks.contains_key(name) {
                continue;
            }
            let key = flag_key(name.as_str(), &Flag::Force(provider.clone()));
            let plan = Rollback {
                rollouts: spec.rollouts.iter().map(|rollout| rollout.name.clone()).collect(),
                flag_before: runtime.flags.get(&key).cloned(),
                reason: act.reason.clone(),
                actor: act.actor.clone(),
                at: now,
                provider,
            };
            let flag = RuntimeFlag {
                value: true,
                reason: Some(format!("rollback: {}", act.reason.as_deref().unwrap_or("no reason given"))),
                actor: act.actor.clone(),
                set_at: now,
                clear_at: None,
            };
            changes.push(document(DocumentKind::Flag, &key, Some(&flag)));
            changes.push(document(DocumentKind::Rollback, name.as_str(), Some(&plan)));
            runtime.flags.insert(key, flag);
            runtime.rollbacks.insert(name.clone(), plan.clone());
            plans.insert(name.clone(), plan);
        }
        let after = self.world_under(&runtime);
        for plan in plans.values() {
            refuse_second_forced(&Flag::Force(plan.provider.clone()), &after)?;
        }
        let mut touched = self.touched(&after, |name| plans.contains_key(name)).await?;
        for row in &mut touched.pipelines {
            if let Some(plan) = plans.get(&row.pipeline) {
                row.provider = Some(plan.provider.clone());
                row.rollouts.clone_from(&plan.rollouts);
            }
        }
        touched.message = match touched.pipelines.len() {
            0 => "nothing to roll back: every pipeline in reach is rolled back already, or has no rollout".to_owned(),
            n => format!(
                "{n} pipeline{} to the baseline provider, rollouts held; undo with `landbridge resume`",
                plural(n)
            ),
        };
        if act.dry_run || plans.is_empty() {
            return Ok(touched);
        }
        let subject = scope_of(pipeline.as_ref()).to_owned();
        self.store.apply(changes, Some(audit(now, &act, "rollback", &subject, json!(plans)))).await?;
        self.install_runtime(runtime);
        tracing::warn!(scope = subject, actor = %act.actor, reason = ?act.reason, "rolled back: {}", touched.message);
        if act.interrupt {
            touched.interrupted = plans.keys().map(|name| self.inflight.interrupt(Some(name))).sum();
        }
        Ok(touched)
    }

    /// Undoes a rollback, exactly.
    ///
    /// # Errors
    /// [`LeverError`]; nothing changed then.
    pub async fn resume(&self, pipeline: Option<PipelineName>, act: Act) -> Result<Touched, LeverError> {
        let _turn = self.steering.lock().await;
        let now = self.clock.now();
        let mut runtime = self.runtime();
        let undone: BTreeMap<PipelineName, Rollback> = runtime
            .rollbacks
            .iter()
            .filter(|(name, _)| pipeline.as_ref().is_none_or(|wanted| wanted == *name))
            .map(|(name, rollback)| (name.clone(), rollback.clone()))
            .collect();
        if undone.is_empty() {
            self.known(pipeline.as_ref())?;
        }
        let mut changes = Vec::new();
        for (name, rollback) in &undone {
            let key = flag_key(name.as_str(), &Flag::Force(rollback.provider.clone()));
            changes.push(document(DocumentKind::Flag, &key, rollback.flag_before.as_ref()));
            changes.push(document::<Rollback>(DocumentKind::Rollback, name.as_str(), None));
            match &rollback.flag_before {
                Some(before) => runtime.flags.insert(key, before.clone()),
                None => runtime.flags.remove(&key),
            };
            runtime.rollbacks.remove(name);
        }
        let after = self.world_under(&runtime);
        let mut touched = self.touched(&after, |name| undone.contains_key(name)).await?;
        touched.message = match undone.len() {
            0 => "nothing to resume: no pipeline in reach is rolled back".to_owned(),
            n => format!("{n} pipeline{} resumed: rollouts and flags as they were before the rollback", plural(n)),
        };
        if act.dry_run || undone.is_empty() {
            return Ok(touched);
        }
        let subject = scope_of(pipeline.as_ref()).to_owned();
        self.store.apply(changes, Some(audit(now, &act, "resume", &subject, json!(undone)))).await?;
        self.install_runtime(runtime);
        tracing::warn!(scope = subject, actor = %act.actor, reason = ?act.reason, "{}", touched.message);
        Ok(touched)
    }

    /// Clears the flags whose time is up.
    pub(super) async fn clear_due_flags(&self) -> Result<(), LeverError> {
        let now = self.clock.now();
        let providers = self.world().snapshot.providers.clone();
        let due: Vec<(String, Flag)> = self
            .runtime()
            .flags
            .iter()
            .filter(|(_, flag)| flag.clear_at.is_some_and(|at| at <= now))
            .filter_map(|(key, _)| {
                let (scope, name) = key.split_once('/')?;
                Some((scope.to_owned(), Flag::parse(name, providers.keys())?))
            })
            .collect();
        for (scope, flag) in due {
            let pipeline = PipelineName::new(&scope).ok().filter(|_| scope != ALL);
            let act =
                Act { actor: "landbridge".to_owned(), reason: Some("its time is up".to_owned()), ..Act::default() };
            match self.change_flag(FlagChange { flag, pipeline, value: None, clear_after: None }, act).await {
                Ok(_) => {}
                // The flag of a removed pipeline steers nothing; it is dropped when the pipeline comes back.
                Err(LeverError::UnknownPipeline { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The world as it would be under these runtime levers.
    fn world_under(&self, runtime: &Runtime) -> World {
        let world = self.world();
        let levels = runtime.levels(&world.snapshot.flags, world.snapshot.providers.keys());
        let rolled_back = runtime.rollbacks.keys().cloned().collect();
        World::new(world.version, world.snapshot.clone(), levels, rolled_back, world.courses.clone())
    }

    fn known(&self, pipeline: Option<&PipelineName>) -> Result<(), LeverError> {
        let world = self.world();
        match pipeline {
            Some(name) if world.lane(name).is_none() => Err(LeverError::UnknownPipeline {
                name: name.to_string(),
                hint: nearest(name.as_str(), world.lanes().map(|(name, _)| name.as_str()))
                    .map_or_else(String::new, |near| format!("; did you mean {near}?")),
            }),
            _ => Ok(()),
        }
    }

    async fn touched(&self, after: &World, in_reach: impl Fn(&PipelineName) -> bool) -> Result<Touched, StoreError> {
        let counts = self.store.counts().await?;
        let count = |name: &PipelineName, state: State| counts.get(&(name.clone(), state)).copied().unwrap_or(0);
        let before = self.world();
        let mut touched = Touched::default();
        for (name, lane) in after.lanes().filter(|(name, _)| in_reach(name)) {
            let queued = count(name, State::Queued) + count(name, State::Waiting) + count(name, State::Held);
            let held_before = before.lane(name).is_some_and(|lane| lane.hold.is_some());
            if lane.hold.is_some() && !held_before {
                touched.held_jobs += queued;
            }
            touched.pipelines.push(TouchedPipeline {
                pipeline: name.clone(),
                queued,
                running: count(name, State::Running),
                would_hold: lane.hold,
                provider: None,
                rollouts: Vec::new(),
            });
        }
        Ok(touched)
    }
}

/// Two different forced providers hold a pipeline; setting the second is refused.
fn refuse_second_forced(flag: &Flag, after: &World) -> Result<(), LeverError> {
    let Flag::Force(_) = flag else { return Ok(()) };
    for (name, lane) in after.lanes() {
        if lane.hold == Some(HoldReason::ForcedProvidersConflict) {
            let forced: Vec<String> = lane
                .flags
                .forced
                .iter()
                .map(|(provider, source)| format!("FORCE_{}_PROVIDER ({} level)", provider.shouted(), source.level))
                .collect();
            return Err(LeverError::Conflict(format!(
                "{flag} would force a second provider on pipeline {name} and hold all its jobs: {} are both in force; clear the other first",
                forced.join(" and ")
            )));
        }
    }
    Ok(())
}

fn describe(touched: &Touched, flag: &Flag) -> String {
    let stranded =
        touched.pipelines.iter().filter(|row| row.would_hold == Some(HoldReason::ForcedProviderHasNoTarget)).count();
    let (Flag::Force(provider), true) = (flag, stranded > 0) else {
        let n = touched.pipelines.len();
        return match touched.held_jobs {
            0 => format!("{n} pipeline{} in reach, no job held by it", plural(n)),
            jobs => format!("{n} pipeline{} in reach: {jobs} jobs will be held", plural(n)),
        };
    };
    format!(
        "{stranded} pipeline{} no {provider} target: {} jobs will be held",
        if stranded == 1 { " has" } else { "s have" },
        touched.held_jobs
    )
}

fn plural(n: usize) -> &'static str {
    if n == 1 { "" } else { "s" }
}

fn document<T: Serialize>(kind: DocumentKind, key: &str, value: Option<&T>) -> DocumentChange {
    DocumentChange { kind, key: key.to_owned(), value: value.and_then(|value| serde_json::to_value(value).ok()) }
}

pub(super) fn audit(at: Timestamp, act: &Act, action: &str, subject: &str, detail: serde_json::Value) -> AuditEntry {
    AuditEntry {
        at,
        actor: act.actor.clone(),
        action: action.to_owned(),
        subject: subject.to_owned(),
        reason: act.reason.clone(),
        detail,
    }
}
