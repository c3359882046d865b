//! Recorded jobs decided twice: by the specs that run and by those that may come.
//!
//! Invariant: a body is read and parsed only for pipelines whose rules or keys look at one; a job whose body is needed and
//! gone is counted as such and decided by neither.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use serde_json::Value;

use super::Looked;
use crate::{
    clock::Timestamp,
    engine::rollouts::Courses,
    ids::JobId,
    job::HoldReason,
    names::{PipelineName, RolloutName, TargetName},
    routing::{
        Arm, Decision, EffectiveFlags, FlagLevels, Question, Route, Standings, decide_counting, prompt::prompt_tokens,
    },
    snapshot::{LoadedPipeline, Snapshot},
    spec::{FlagSet, Pipeline, condition::Facts},
    store::RecordedJob,
};

/// Distinct keys that are told apart in one plan; beyond, only "at least" is said.
const MOST_KEYS: usize = 300_000;
/// Jobs of a move whose request is looked at more closely.
const SAMPLE: usize = 300;
/// And of all moves.
const MOST_SAMPLED: usize = 5_000;
/// Microseconds of an hour.
const HOUR: i64 = 3_600_000_000;

/// One set of specs, with the flags that files and the environment set.
pub struct Side {
    pub snapshot: Arc<Snapshot>,
    lanes: BTreeMap<PipelineName, (Arc<LoadedPipeline>, EffectiveFlags, Standings)>,
}

impl Side {
    pub fn new(snapshot: &Arc<Snapshot>, courses: &Courses) -> Self {
        let levels =
            FlagLevels { runtime: FlagSet::default(), runtime_by_pipeline: BTreeMap::new(), ..snapshot.flags.clone() };
        let lanes = snapshot.pipelines.iter().map(|(name, loaded)| {
            let flags = EffectiveFlags::resolve(&levels, &loaded.pipeline, &snapshot.providers, false);
            let standings = courses.standings(&loaded.pipeline);
            (name.clone(), (Arc::clone(loaded), flags, standings))
        });
        Self { lanes: lanes.collect(), snapshot: Arc::clone(snapshot) }
    }

    pub fn spec(&self, pipeline: &PipelineName) -> Option<&Pipeline> {
        self.lanes.get(pipeline).map(|(loaded, ..)| &loaded.pipeline)
    }
}

/// Where a job goes first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    Target(TargetName),
    Held(String),
}

/// Jobs that go from one place to another, by the rules that say so.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Move {
    pub from: Place,
    pub to: Place,
    pub rule_before: Option<Arc<str>>,
    pub rule: Option<Arc<str>>,
}

/// The keys of a rollout.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    pub seen: HashSet<u64>,
    pub to_candidate: HashSet<u64>,
    pub to_baseline: HashSet<u64>,
    pub without: u64,
    /// There were more than are told apart.
    pub more: bool,
}

/// What was found of a pipeline.
#[derive(Debug, Clone, Default)]
pub struct Found {
    pub jobs: u64,
    pub cannot_tell: u64,
    pub moves: BTreeMap<Move, u64>,
    /// Jobs whose first target stays and whose fallback changes.
    pub fallback: u64,
    pub rollouts: BTreeMap<RolloutName, Keys>,
}

/// Requests to be looked at more closely: by pipeline and the target they would go to.
pub type Samples = BTreeMap<(PipelineName, TargetName), Vec<JobId>>;

/// Jobs in an hour: before and after.
pub type Load = HashMap<(PipelineName, TargetName, i64), [u64; 2]>;

/// The replay under way.
pub struct Replay {
    pub before: Side,
    pub after: Side,
    pub found: BTreeMap<PipelineName, Found>,
    pub load: Load,
    samples: Samples,
    sampled: usize,
    keys: usize,
    bodies: BTreeSet<PipelineName>,
    span: Option<(Timestamp, Timestamp)>,
}

impl Replay {
    pub fn new(before: Side, after: Side) -> Self {
        let looks = |side: &Side| -> Vec<PipelineName> {
            let looking = side.lanes.iter().filter(|(_, (loaded, ..))| loaded.pipeline.looks_at_bodies());
            looking.map(|(name, _)| name.clone()).collect()
        };
        let bodies = looks(&before).into_iter().chain(looks(&after)).collect();
        Self {
            before,
            after,
            found: BTreeMap::new(),
            load: HashMap::new(),
            samples: BTreeMap::new(),
            sampled: 0,
            keys: 0,
            bodies,
            span: None,
        }
    }

    /// Pipelines whose jobs cannot be decided without their bodies.
    pub fn bodies(&self) -> &BTreeSet<PipelineName> {
        &self.bodies
    }

    pub fn finish(mut self) -> (Self, Samples) {
        let samples = std::mem::take(&mut self.samples);
        (self, samples)
    }

    pub fn looked(&self) -> Looked {
        let sum = |count: fn(&Found) -> u64| self.found.values().map(count).sum();
        Looked {
            count: sum(|found| found.jobs),
            from: self.span.map(|(from, _)| from),
            to: self.span.map(|(_, to)| to),
            moved: sum(|found| found.moves.iter().filter(|(way, _)| way.from != way.to).map(|(_, n)| n).sum()),
            cannot_tell: sum(|found| found.cannot_tell),
        }
    }

    /// The hours that the jobs span; at least a minute.
    pub fn hours(&self) -> f64 {
        self.span.map_or(0.0, |(from, to)| to.since(from).as_secs_f64().max(60.0) / 3_600.0)
    }

    /// Decides for some jobs.
    pub fn look_at(&mut self, jobs: &[RecordedJob]) {
        for job in jobs {
            let at = job.created_at;
            let (from, to) = self.span.unwrap_or((at, at));
            self.span = Some((from.min(at), to.max(at)));
            self.decide(job);
        }
    }

    fn decide(&mut self, job: &RecordedJob) {
        let found = self.found.entry(job.pipeline.clone()).or_default();
        found.jobs += 1;
        let body = if self.bodies.contains(&job.pipeline) {
            let Some(Ok(body)) = job.body.as_deref().map(serde_json::from_str::<Value>) else {
                found.cannot_tell += 1;
                return;
            };
            body
        } else {
            Value::Null
        };
        let id = job.id.to_string();
        let before = Outcome::of(&self.before, job, &id, &body);
        let after = Outcome::of(&self.after, job, &id, &body);
        let slot = job.created_at.as_micros().div_euclid(HOUR);
        for (side, outcome) in [&before, &after].into_iter().enumerate() {
            if let Place::Target(target) = &outcome.place {
                let counts = self.load.entry((job.pipeline.clone(), target.clone(), slot)).or_default();
                if let Some(count) = counts.get_mut(side) {
                    *count += 1;
                }
            }
        }
        Self::keep_keys(&mut self.keys, found, &after, &before);
        if before.place == after.place && before.rest != after.rest {
            found.fallback += 1;
        }
        let way = Move { from: before.place, to: after.place, rule_before: before.rule, rule: after.rule };
        if way.from != way.to
            && let Place::Target(to) = &way.to
            && self.sampled < MOST_SAMPLED
        {
            let some = self.samples.entry((job.pipeline.clone(), to.clone())).or_default();
            if some.len() < SAMPLE {
                some.push(job.id);
                self.sampled += 1;
            }
        }
        *found.moves.entry(way).or_default() += 1;
    }

    fn keep_keys(keys: &mut usize, found: &mut Found, after: &Outcome, before: &Outcome) {
        let Some((rollout, arm, key)) = &after.arm else { return };
        let kept = found.rollouts.entry(rollout.clone()).or_default();
        let Some(key) = key else {
            kept.without += 1;
            return;
        };
        let was = before.arm.as_ref().filter(|(name, ..)| name == rollout).map(|(_, arm, _)| *arm);
        if !kept.seen.contains(key) {
            if *keys >= MOST_KEYS {
                kept.more = true;
                return;
            }
            *keys += 1;
            kept.seen.insert(*key);
        }
        match (was, arm) {
            (None | Some(Arm::Baseline), Arm::Candidate) => kept.to_candidate.insert(*key),
            (Some(Arm::Candidate), Arm::Baseline) => kept.to_baseline.insert(*key),
            _ => false,
        };
    }
}

/// A decision, as far as a plan tells of it.
struct Outcome {
    place: Place,
    rest: Vec<TargetName>,
    rule: Option<Arc<str>>,
    /// The rollout, the arm by bucket, and a fingerprint of the key.
    arm: Option<(RolloutName, Arm, Option<u64>)>,
}

impl Outcome {
    fn of(side: &Side, job: &RecordedJob, id: &str, body: &Value) -> Self {
        let Some((loaded, flags, standings)) = side.lanes.get(&job.pipeline) else {
            let place = Place::Held(HoldReason::PipelineRemoved.to_string());
            return Self { place, rest: Vec::new(), rule: None, arm: None };
        };
        let spec = &loaded.pipeline;
        let tokens = || prompt_tokens(body);
        let facts = Facts {
            id,
            pipeline: spec.name.as_str(),
            metadata: &job.metadata,
            labels: &spec.labels,
            priority: i64::from(job.priority),
            body,
            prompt_tokens: &tokens,
            age_seconds: 0,
        };
        let Decision { rule, arm, route, .. } = decide_counting(&Question { pipeline: spec, flags, standings, facts });
        let name = |ix| spec.target(ix).name.clone();
        let (place, rest) = match route {
            Route::Hold(reason) => (Place::Held(reason.to_string()), Vec::new()),
            Route::Dispatch(chain) => {
                let mut names = chain.into_iter().map(name);
                let first = names.next().map_or_else(|| Place::Held(HoldReason::Confined.to_string()), Place::Target);
                (first, names.collect())
            }
        };
        let arm = arm.map(|choice| {
            let rollout = spec.rollout(choice.rollout);
            let key = rollout.key.evaluate(&facts).map(|key| {
                let mut hasher = DefaultHasher::new();
                key.hash(&mut hasher);
                hasher.finish()
            });
            (rollout.name.clone(), choice.assigned, key)
        });
        Self {
            place,
            rest,
            rule: rule.and_then(|rule| spec.route.get(usize::from(rule))).map(|rule| rule.name.clone()),
            arm,
        }
    }
}
