//! The valid pipeline: what the rest of the house works with.
//!
//! Invariant: every index is in range, the route's last rule has no condition, and every rule's destination is
//! permitted by the rule's own confinement.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    condition::{Condition, KeyExpression},
    flags::FlagSet,
    rollout::Plan,
    target::{Target, TargetIx},
};
use crate::{
    diagnostic::Position,
    money::{BasisPoints, Usd},
    names::{PipelineName, ProviderName, RolloutName, TargetName},
};

/// A rollout's place in its pipeline. Always valid for the pipeline that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RolloutIx(pub u16);

/// One kind of work.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// Unique in the snapshot.
    pub name: PipelineName,
    /// For people.
    pub description: Option<String>,
    /// For reports and cost.
    pub labels: BTreeMap<String, String>,
    /// Jobs that name no pipeline but match this are taken.
    pub accept: Accept,
    /// At least one.
    pub targets: Vec<Arc<Target>>,
    /// At least one; first match wins; the last has no condition.
    pub route: Vec<Rule>,
    /// Rollouts by place.
    pub rollouts: Vec<Rollout>,
    /// Targets tried in this order after the routed one.
    pub fallback: Vec<TargetIx>,
    /// What happens after a fault.
    pub retry: Retry,
    /// From submit; time spent held does not count.
    pub deadline: Duration,
    /// Calls in flight at once, at most.
    pub concurrency: u32,
    /// How the pipeline shares quotas with others, and among its own.
    pub sharing: Sharing,
    /// Spending limits.
    pub budget: Option<Budget>,
    /// Higher first.
    pub priority: i32,
    /// The spec's own flags.
    pub flags: FlagSet,
    /// How long contents are kept after a job has ended.
    pub retention: Retention,
    /// The spec's own tests.
    pub tests: Vec<SpecTest>,
}

impl Pipeline {
    /// The target at `ix`.
    ///
    /// # Panics
    /// When `ix` was made by another pipeline, which is a programming error.
    pub fn target(&self, ix: TargetIx) -> &Arc<Target> {
        &self.targets[ix.get()]
    }

    /// The target called `name`.
    pub fn target_named(&self, name: &TargetName) -> Option<TargetIx> {
        let place = self.targets.iter().position(|target| target.name == *name)?;
        u16::try_from(place).ok().map(TargetIx)
    }

    /// Whether a decision may hang on a job's request, beyond what is written around it.
    pub fn looks_at_bodies(&self) -> bool {
        self.route.iter().filter_map(|rule| rule.when.as_ref()).any(Condition::needs_body)
            || self.rollouts.iter().any(|rollout| rollout.key.needs_body())
    }

    /// The rollout at `ix`.
    ///
    /// # Panics
    /// When `ix` was made by another pipeline, which is a programming error.
    pub fn rollout(&self, ix: RolloutIx) -> &Rollout {
        &self.rollouts[usize::from(ix.0)]
    }
}

/// Which jobs a pipeline takes that name none.
#[derive(Debug, Clone, Default)]
pub struct Accept {
    /// Globs over the job's `body.model`.
    pub models: Vec<ModelGlob>,
}

/// A glob over model names, kept with its text.
#[derive(Debug, Clone)]
pub struct ModelGlob {
    /// As written.
    pub text: String,
    /// Compiled.
    pub matcher: globset::GlobMatcher,
}

/// One step of the route.
#[derive(Debug, Clone)]
pub struct Rule {
    /// As written; made up from the position when the spec gives none.
    pub name: Arc<str>,
    /// Matches every job when absent.
    pub when: Option<Condition>,
    /// What to do when the condition needs a value that the job lacks.
    pub on_missing: OnMissing,
    /// Where matching jobs may go at all.
    pub confine: Option<Confinement>,
    /// Where matching jobs go first.
    pub to: Destination,
    /// The rule's own fallback, instead of the pipeline's.
    pub fallback: Option<Vec<TargetIx>>,
}

/// Where a rule sends its jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// To one target.
    Target(TargetIx),
    /// To one of a rollout's two.
    Rollout(RolloutIx),
}

/// What a rule does when its condition needs a value that the job lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, strum::EnumString, strum::Display)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum OnMissing {
    /// The rule does not match.
    #[default]
    NoMatch,
    /// The job is held.
    Hold,
    /// The rule matches.
    Match,
}

/// Regions and providers that jobs of a rule never leave.
#[derive(Debug, Clone)]
pub struct Confinement {
    /// Region globs as written; empty when regions are free.
    pub regions: Vec<String>,
    /// Providers as written; empty when providers are free.
    pub providers: Vec<ProviderName>,
    /// For each target of the pipeline, by place: whether it may serve.
    pub permitted: Vec<bool>,
}

impl Confinement {
    /// Whether the target at `ix` may serve.
    pub fn permits(&self, ix: TargetIx) -> bool {
        self.permitted.get(ix.get()).copied().unwrap_or(false)
    }
}

/// Moves traffic from a baseline to a candidate.
#[derive(Debug, Clone)]
pub struct Rollout {
    /// Its name.
    pub name: RolloutName,
    /// Where everybody was.
    pub baseline: TargetIx,
    /// Where everybody is to go; never the baseline.
    pub candidate: TargetIx,
    /// How the candidate's share goes.
    pub course: Course,
    /// What a job is bucketed by.
    pub key: KeyExpression,
    /// `PIPELINE/ROLLOUT` unless the spec says otherwise.
    pub salt: String,
    /// Where jobs without the key go.
    pub missing_key: MissingKey,
    /// Below 100 %, whether a baseline job may fall back to the candidate.
    pub fallback_to_candidate: bool,
}

impl Rollout {
    /// Its steps and gates, unless the file itself says the share.
    pub fn gated(&self) -> Option<&Gated> {
        match &self.course {
            Course::Percent(_) => None,
            Course::Steps(gated) => Some(gated),
        }
    }
}

impl Rollout {
    /// The share that the spec gives the candidate in the end.
    pub fn promised(&self) -> BasisPoints {
        match &self.course {
            Course::Percent(percent) => *percent,
            Course::Steps(gated) => gated.plan.steps.last().map_or(BasisPoints::NONE, |step| step.percent),
        }
    }
}

/// How the candidate's share goes.
#[derive(Debug, Clone, PartialEq)]
pub enum Course {
    /// As the file says, until it says otherwise.
    Percent(BasisPoints),
    /// In steps, by evidence; the share is state, not text.
    Steps(Arc<Gated>),
}

impl fmt::Display for Course {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => percent.fmt(f),
            Self::Steps(gated) => {
                let steps: Vec<String> = gated.plan.steps.iter().map(|step| step.percent.to_string()).collect();
                write!(f, "steps {}", steps.join(", "))
            }
        }
    }
}

/// A rollout in steps.
#[derive(Debug, Clone)]
pub struct Gated {
    /// Steps, gates, patience; checked.
    pub plan: Plan,
    /// Where the spec says what may not change in the middle: the key, and the salt.
    pub fixed_at: [Position; 2],
}

impl PartialEq for Gated {
    /// What it says, wherever in the file it says so.
    fn eq(&self, other: &Self) -> bool {
        self.plan == other.plan
    }
}

/// Where jobs without a rollout's key go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, strum::EnumString, strum::Display)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum MissingKey {
    /// To the baseline.
    #[default]
    Baseline,
    /// Bucketed by the job's id.
    JobId,
    /// Held.
    Hold,
}

/// What happens after a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Attempts that may fail by fault, per target; at least 1.
    pub attempts: u32,
    /// Before the second attempt.
    pub initial_delay: Duration,
    /// At most.
    pub max_delay: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 4, initial_delay: Duration::from_secs(1), max_delay: Duration::from_mins(1) }
    }
}

/// How a pipeline shares quotas.
#[derive(Debug, Clone)]
pub struct Sharing {
    /// Its part of a quota that others want too, against theirs.
    pub weight: u32,
    /// Jobs with different values take turns.
    pub fair_by: Option<KeyExpression>,
    /// When a target's quota has been exhausted for so long, its equivalents serve too.
    pub spill_after: Duration,
    /// Targets of the same model, by the target that they stand in for.
    pub equivalents: BTreeMap<TargetIx, Vec<TargetIx>>,
    /// Calls at once to a target, at most.
    pub concurrency: BTreeMap<TargetIx, u32>,
}

impl Default for Sharing {
    fn default() -> Self {
        Self {
            weight: 1,
            fair_by: None,
            spill_after: default::SPILL_AFTER,
            equivalents: BTreeMap::new(),
            concurrency: BTreeMap::new(),
        }
    }
}

/// Spending limits of a pipeline; at least one of the two is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// US dollars in a day (UTC).
    pub usd_per_day: Option<Usd>,
    /// US dollars in a month (UTC).
    pub usd_per_month: Option<Usd>,
    /// What becomes of jobs once one of them is spent.
    pub at_limit: AtLimit,
}

/// What becomes of jobs when the budget is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, strum::Display)]
#[strum(serialize_all = "snake_case")]
pub enum AtLimit {
    /// They are held until there is a budget again.
    #[default]
    Hold,
    /// They go on, to the cheapest target that may serve them.
    Cheapest,
}

/// How long contents are kept after a job has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Prompts.
    pub prompts: Duration,
    /// Results; the job itself goes with them.
    pub results: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self { prompts: Duration::from_hours(7 * 24), results: Duration::from_hours(30 * 24) }
    }
}

/// A test that a spec carries; run by `check` and at every load.
#[derive(Debug, Clone)]
pub struct SpecTest {
    /// For people.
    pub name: String,
    /// The job as written (a JSON object without its pipeline).
    pub job: serde_json::Value,
    /// Flags that hold during the test.
    pub flags: FlagSet,
    /// Where rollouts with steps stand during the test; nobody is with the candidate of the others.
    pub rollouts: BTreeMap<RolloutName, BasisPoints>,
    /// What the decision must be; absent parts are not looked at.
    pub expect: Expectation,
    /// Where the test stands, for the diagnostic.
    pub position: Position,
}

/// What a spec's test expects of the decision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expectation {
    /// The first target tried.
    pub target: Option<TargetName>,
    /// All targets in the order tried.
    pub chain: Option<Vec<TargetName>>,
    /// The name of the rule that matched.
    pub rule: Option<String>,
    /// The reason code of the hold.
    pub held: Option<String>,
}

/// Defaults where a spec is silent.
pub mod default {
    use std::time::Duration;

    /// Calls in flight at once.
    pub const CONCURRENCY: u32 = 64;
    /// The largest weight.
    pub const MOST_WEIGHT: u32 = 1_000;
    /// How long a quota may be exhausted before equal targets serve too.
    pub const SPILL_AFTER: Duration = Duration::from_mins(1);
    /// From submit to the end.
    pub const DEADLINE: Duration = Duration::from_hours(24);
    /// From the start of a call to the end of its answer.
    pub const TIMEOUT: Duration = Duration::from_mins(2);
    /// Longest silence between two pieces of a streamed answer.
    pub const IDLE_TIMEOUT: Duration = Duration::from_mins(1);
}
