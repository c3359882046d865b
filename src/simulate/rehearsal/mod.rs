//! Rehearsals: the scheduler, the quotas and the rules for retries at work against simulated providers, on a simulated
//! clock. What the daemon decides by is the same code; only sockets, store and time are made up.
//!
//! Invariant: pure and repeatable: the same scene gives the same outcome. A scene ends, because its clock has a bound.

mod ground;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

pub use ground::rehearse;

use super::model::BehaviourConfig;
use crate::{
    clock::Timestamp,
    quota::Grant,
    spec::{Api, pipeline::Retry},
};

/// When every scene begins.
pub const CURTAIN: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

/// What is played.
#[derive(Debug, Clone)]
pub struct Scene {
    /// How the providers behave, with the seed of all chance.
    pub behaviour: BehaviourConfig,
    /// Whom jobs go to.
    pub targets: Vec<SceneTarget>,
    /// Who sends them.
    pub pipelines: Vec<ScenePipeline>,
    /// How long it takes to be turned away.
    pub turned_away_after: Duration,
    /// Nothing happens after so long.
    pub bound: Duration,
}

/// A provider's model.
#[derive(Debug, Clone)]
pub struct SceneTarget {
    /// Its rules.
    pub api: Api,
    /// Its name, for the rules of behaviour.
    pub model: String,
    /// What we know of its quota.
    pub grant: Grant,
    /// Whether it sends its limits as headers.
    pub headers: bool,
    /// Output tokens count so often in the end.
    pub burndown: u32,
}

/// Who sends jobs.
#[derive(Debug, Clone)]
pub struct ScenePipeline {
    /// Its name.
    pub name: Arc<str>,
    /// Its weight.
    pub weight: u32,
    /// Calls at once.
    pub concurrency: u32,
    /// The target routed to, by place, and equal ones.
    pub targets: Vec<usize>,
    /// When equal ones serve.
    pub spill_after: Duration,
    /// After a fault.
    pub retry: Retry,
    /// Its work.
    pub jobs: Vec<SceneJob>,
}

/// A job.
#[derive(Debug, Clone)]
pub struct SceneJob {
    /// When it comes.
    pub at: Duration,
    /// Its prompt, in tokens.
    pub input: u64,
    /// Its answer's bound.
    pub most_output: u64,
    /// Its answer.
    pub output: u64,
    /// Whom it belongs to.
    pub key: Arc<str>,
}

/// A call that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// When.
    pub at: Timestamp,
    /// To which target, by place.
    pub target: usize,
    /// Of which pipeline, by place.
    pub pipeline: usize,
    /// Whether a quota turned it away.
    pub throttled: bool,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// From the first job's coming to the last one's end.
    pub makespan: Duration,
    /// Jobs that were answered.
    pub succeeded: usize,
    /// Jobs that were given up.
    pub failed: usize,
    /// Jobs still on their way at the bound.
    pub unfinished: usize,
    /// Every call, in order.
    pub calls: Vec<Sent>,
    /// Calls that a quota turned away.
    pub throttled: usize,
    /// The longest a job was on its way.
    pub longest: Duration,
    /// How often a limit was asked.
    pub asked: usize,
}

impl Outcome {
    /// How many calls went in each second.
    pub fn per_second(&self) -> Vec<usize> {
        let mut seconds = Vec::new();
        for call in &self.calls {
            let second = usize::try_from(CURTAIN.until(call.at).as_secs()).unwrap_or(usize::MAX).min(1_000_000);
            if seconds.len() <= second {
                seconds.resize(second + 1, 0);
            }
            if let Some(count) = seconds.get_mut(second) {
                *count += 1;
            }
        }
        seconds
    }
}

impl ScenePipeline {
    /// So many jobs that come at once, each of `input` tokens and an answer of as many as asked for.
    pub fn batch(name: &str, jobs: usize, input: u64, output: u64) -> Self {
        let job = SceneJob { at: Duration::ZERO, input, most_output: output, output, key: "".into() };
        Self {
            name: name.into(),
            weight: 1,
            concurrency: 64,
            targets: vec![0],
            spill_after: Duration::from_mins(1),
            retry: Retry::default(),
            jobs: vec![job; jobs],
        }
    }
}
