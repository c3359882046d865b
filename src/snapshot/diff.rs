//! What differs between two snapshots, in words for the log and the audit.
//!
//! Invariant: bounded, and complete in kind: whatever changes a snapshot's hash is named at least by its pipeline or file.

use std::{collections::BTreeMap, sync::Arc};

use super::{LoadedPipeline, Snapshot};
use crate::{
    names::PipelineName,
    spec::{FlagSet, Pipeline},
};

/// Changes that are listed one by one; the rest is counted.
const MOST: usize = 50;

/// What changed from `before` to `after`, one sentence a change.
pub fn describe_changes(before: &Snapshot, after: &Snapshot) -> Vec<String> {
    let mut words = Vec::new();
    flags(&before.flags.file, &after.flags.file, "in flags.yaml", &mut words);
    let empty = FlagSet::default();
    for name in union(&before.flags.file_by_pipeline, &after.flags.file_by_pipeline) {
        let old = before.flags.file_by_pipeline.get(name).unwrap_or(&empty);
        let new = after.flags.file_by_pipeline.get(name).unwrap_or(&empty);
        flags(old, new, &format!("for `{name}` in flags.yaml"), &mut words);
    }
    flags(&before.flags.environment, &after.flags.environment, "in the environment", &mut words);
    for name in union(&before.pipelines, &after.pipelines) {
        match (before.pipelines.get(name), after.pipelines.get(name)) {
            (None, Some(new)) => words.push(format!("pipeline `{name}` added by {}", new.file)),
            (Some(old), None) => words.push(format!("pipeline `{name}` removed with {}", old.file)),
            (Some(old), Some(new)) => pipeline(name, old, new, &mut words),
            (None, None) => {}
        }
    }
    for stem in union(&before.models, &after.models) {
        match (before.models.get(stem), after.models.get(stem)) {
            (None, Some(_)) => words.push(format!("model definition `{stem}` added")),
            (Some(_), None) => words.push(format!("model definition `{stem}` removed")),
            (Some(old), Some(new)) if old.text != new.text => words.push(format!("model definition `{stem}` changed")),
            _ => {}
        }
    }
    if before.catalog != after.catalog {
        words.push("the catalogue changed".to_owned());
    }
    if before.kept.get(super::guard::POLICY_KEY) != after.kept.get(super::guard::POLICY_KEY) {
        words.push("the policy changed".to_owned());
    }
    if before.providers != after.providers {
        words.push("the providers changed".to_owned());
    }
    if words.len() > MOST {
        let more = words.len() - MOST;
        words.truncate(MOST);
        words.push(format!("and {more} more changes"));
    }
    words
}

fn union<'a, K: Ord, V>(a: &'a BTreeMap<K, V>, b: &'a BTreeMap<K, V>) -> Vec<&'a K> {
    let mut keys: Vec<&K> = a.keys().chain(b.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn flags(old: &FlagSet, new: &FlagSet, place: &str, words: &mut Vec<String>) {
    for flag in union(&old.0, &new.0) {
        match (old.get(flag), new.get(flag)) {
            (before, Some(value)) if before != Some(value) => words.push(format!("{flag} is now {value} {place}")),
            (Some(_), None) => words.push(format!("{flag} is no longer set {place}")),
            _ => {}
        }
    }
}

fn pipeline(name: &PipelineName, old: &Arc<LoadedPipeline>, new: &Arc<LoadedPipeline>, words: &mut Vec<String>) {
    if Arc::ptr_eq(old, new) {
        return;
    }
    match (old.stale, new.stale) {
        (false, true) => words.push(format!("`{name}` keeps its last good version while {} is broken", new.file)),
        (true, false) => words.push(format!("`{name}` follows {} again", new.file)),
        _ => {}
    }
    flags(&old.pipeline.flags, &new.pipeline.flags, &format!("in the spec of `{name}`"), words);
    if old.text == new.text {
        return;
    }
    let before = words.len();
    rollouts(name, &old.pipeline, &new.pipeline, words);
    targets(name, &old.pipeline, &new.pipeline, words);
    let parts = other_parts(&old.pipeline, &new.pipeline);
    if !parts.is_empty() {
        words.push(format!("`{name}`: {} changed", parts.join(", ")));
    }
    if words.len() == before && old.pipeline.flags == new.pipeline.flags {
        words.push(format!("`{name}`: its text changed, but nothing that it does"));
    }
}

fn rollouts(name: &PipelineName, old: &Pipeline, new: &Pipeline, words: &mut Vec<String>) {
    for rollout in &new.rollouts {
        match old.rollouts.iter().find(|before| before.name == rollout.name) {
            None => words.push(format!("`{name}`: rollout `{}` added at {}", rollout.name, rollout.course)),
            Some(before)
                if before.course != rollout.course && before.course.to_string() == rollout.course.to_string() =>
            {
                words.push(format!("`{name}`: what rollout `{}` asks for changed", rollout.name));
            }
            Some(before) if before.course != rollout.course => words.push(format!(
                "`{name}`: rollout `{}` goes from {} to {}",
                rollout.name, before.course, rollout.course
            )),
            Some(_) => {}
        }
    }
    for rollout in old.rollouts.iter().filter(|old| new.rollouts.iter().all(|new| new.name != old.name)) {
        words.push(format!("`{name}`: rollout `{}` removed", rollout.name));
    }
}

fn targets(name: &PipelineName, old: &Pipeline, new: &Pipeline, words: &mut Vec<String>) {
    for target in &new.targets {
        match old.targets.iter().find(|before| before.name == target.name) {
            None => words.push(format!("`{name}`: target `{}` added", target.name)),
            Some(before) if before.model != target.model => {
                words
                    .push(format!("`{name}`: target `{}` goes from {} to {}", target.name, before.model, target.model));
            }
            Some(before) if before != target => words.push(format!("`{name}`: target `{}` changed", target.name)),
            Some(_) => {}
        }
    }
    for target in old.targets.iter().filter(|old| new.targets.iter().all(|new| new.name != old.name)) {
        words.push(format!("`{name}`: target `{}` removed", target.name));
    }
}

/// Parts of a spec that are merely said to differ.
fn other_parts(old: &Pipeline, new: &Pipeline) -> Vec<&'static str> {
    let globs =
        |pipeline: &Pipeline| -> Vec<String> { pipeline.accept.models.iter().map(|glob| glob.text.clone()).collect() };
    let named = |pipeline: &Pipeline, places: &[crate::spec::TargetIx]| -> Vec<String> {
        places.iter().filter_map(|ix| pipeline.targets.get(ix.get())).map(|target| target.name.to_string()).collect()
    };
    let route =
        |pipeline: &Pipeline| -> Vec<String> { pipeline.route.iter().map(|rule| format!("{rule:?}")).collect() };
    let splits = |pipeline: &Pipeline| -> Vec<String> {
        let one = |rollout: &crate::spec::Rollout| {
            let targets = named(pipeline, &[rollout.baseline, rollout.candidate]);
            let (missing, back) = (rollout.missing_key, rollout.fallback_to_candidate);
            format!("{} {targets:?} {} {} {missing} {back}", rollout.name, rollout.key.source(), rollout.salt)
        };
        pipeline.rollouts.iter().map(one).collect()
    };
    let shares = |pipeline: &Pipeline| {
        let equals: Vec<String> = (pipeline.sharing.equivalents.iter())
            .map(|(ix, equals)| format!("{:?} {:?}", named(pipeline, &[*ix]), named(pipeline, equals)))
            .collect();
        equals
    };
    let bounds = |pipeline: &Pipeline| -> Vec<String> {
        (pipeline.sharing.concurrency.iter())
            .map(|(ix, most)| format!("{:?} {most}", named(pipeline, &[*ix])))
            .collect()
    };
    let limits = |pipeline: &Pipeline| {
        let fair_by = pipeline.sharing.fair_by.as_ref().map(|key| key.source().to_owned());
        (pipeline.concurrency, pipeline.sharing.weight, fair_by)
    };
    [
        ("description", old.description != new.description),
        ("labels", old.labels != new.labels),
        ("accept", globs(old) != globs(new)),
        ("route", route(old) != route(new)),
        ("rollouts", old.rollouts.len() == new.rollouts.len() && splits(old) != splits(new)),
        ("fallback", named(old, &old.fallback) != named(new, &new.fallback)),
        ("retry", old.retry != new.retry || old.sharing.spill_after != new.sharing.spill_after),
        ("deadline", old.deadline != new.deadline),
        ("limits", limits(old) != limits(new)),
        ("targets' concurrency", bounds(old) != bounds(new)),
        ("equivalents", shares(old) != shares(new)),
        ("budget", old.budget != new.budget),
        ("priority", old.priority != new.priority),
        ("retention", old.retention != new.retention),
        ("tests", old.tests.len() != new.tests.len()),
    ]
    .into_iter()
    .filter_map(|(part, differs)| differs.then_some(part))
    .collect()
}
