//! The shape of `rollouts`.

use schemars::JsonSchema;

use super::{Percent, Span};

/// Moves traffic from a baseline to a candidate: by a percentage in the file, or in steps by evidence.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields, extend("oneOf" = [{"required": ["percent"]}, {"required": ["steps"]}]))]
pub struct Rollout {
    /// The target where everybody was.
    pub baseline: String,
    /// The target where everybody is to go.
    pub candidate: String,
    /// The candidate's share. Raising it only adds keys; lowering it only removes the newest.
    pub percent: Option<Percent>,
    /// What a job is bucketed by: a CEL expression over `job`. `job.id` by default.
    #[schemars(length(min = 1, max = 4000))]
    pub key: Option<String>,
    /// Goes into the hash before the key. `PIPELINE/ROLLOUT` by default.
    #[schemars(length(min = 1, max = 256))]
    pub salt: Option<String>,
    /// Where jobs without the key go. `baseline` by default.
    pub missing_key: Option<MissingKey>,
    /// Below 100 %, whether a baseline job may fall back to the candidate. `false` by default.
    pub fallback_to_candidate: Option<bool>,
    /// Instead of `percent`: shares that are taken one after the other, each when the one before it has held.
    #[schemars(length(min = 1, max = 64))]
    pub steps: Option<Vec<Step>>,
    /// With `steps`: the chance, over the whole rollout, that a sound candidate fails, and that a gate passes an unsound
    /// one. 0.05 by default.
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 0.5))]
    pub alpha: Option<f64>,
    /// With `steps`: what the gates must say before a step is left. `pass` by default.
    pub require: Option<Require>,
    /// With `steps`: what is compared, and how much worse the candidate may be.
    #[schemars(length(max = 32))]
    pub gates: Option<Vec<Gate>>,
    /// With `steps`: a job whose first target has not ended by then counts as failed. 10m by default.
    pub outcome_within: Option<Span>,
    /// With `steps`: what to do when no verdict comes. It waits by default.
    pub undecided: Option<PatienceUndecided>,
    /// With `steps`: what to do when no evidence comes in at all. It waits by default.
    pub no_data: Option<PatienceNoData>,
    /// With `steps`: when the candidate fails so much that nobody needs statistics. None by default.
    pub breaker: Option<BreakerShape>,
    /// With `steps`: when it may advance by itself. They stop advances, never rollbacks. Always by default.
    pub windows: Option<WindowsShape>,
}

/// Where jobs without a rollout's key go.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub enum MissingKey {
    /// To the baseline.
    Baseline,
    /// Bucketed by the job's id.
    JobId,
    /// Held.
    Hold,
}

/// One step of a rollout.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Step {
    /// The candidate's share.
    pub percent: Percent,
    /// The least time in this step, not counting pauses and holds. 0s by default.
    pub min_duration: Option<Span>,
    /// The least jobs of the candidate that were counted in this step. 0 by default.
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub min_jobs: Option<u64>,
    /// The least pairs of the shadow that were counted in this step. 0 by default.
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub min_pairs: Option<u64>,
    /// What the gates must say before this step is left. As the rollout says by default.
    pub require: Option<Require>,
    /// Whether somebody must approve before this step is left. `false` by default.
    pub approval: Option<bool>,
}

/// What the gates must say before a step is left.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub enum Require {
    /// All of them pass.
    Pass,
    /// None of them fails.
    NotFail,
}

/// One requirement of a rollout.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Gate {
    /// `failure`, `invalid_output`, `agreement`, `score.NAME`, `latency`, `latency.p95` (or another quantile) or `cost`.
    #[schemars(regex(
        pattern = "^(failure|invalid_output|agreement|cost|latency(\\.p[0-9.]+)?|score\\.[a-z0-9_-]{1,63})$"
    ))]
    pub metric: String,
    /// For `failure`, `invalid_output`, `latency`, `cost`: compares the arms, or pairs of the shadow. `arms` by default.
    pub of: Option<Of>,
    /// For `failure`, `invalid_output`: percentage points by which the rate may be higher, such as `1pp`.
    #[schemars(regex(pattern = "^[0-9.]+ *pp$"))]
    pub max_increase: Option<String>,
    /// How many times the baseline's it may be, such as `1.25`.
    #[schemars(range(min = 1, max = 100))]
    pub max_ratio: Option<f64>,
    /// For `agreement`: a JSON pointer into the answer, such as `/label`. The whole answer by default.
    #[schemars(length(max = 200))]
    pub at: Option<String>,
    /// For `agreement`: the share of pairs that must agree, such as `0.97`.
    pub min: Option<f64>,
    /// For `score.NAME`: how much lower the mean may be.
    pub max_decrease: Option<f64>,
    /// For `score.NAME`: the lowest and the highest score. `[0, 1]` by default.
    #[schemars(length(min = 2, max = 2))]
    pub range: Option<Vec<f64>>,
    /// For `cost` of the arms: a job's cost in dollars is cut here.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub cap_usd: Option<f64>,
    /// What a failure does. `rollback` for `failure` and `invalid_output`, `hold` for the others by default.
    pub on_fail: Option<OnFail>,
}

/// What is compared.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub enum Of {
    /// Jobs of the two arms, at the same time.
    Arms,
    /// The same jobs, in the shadow.
    Pairs,
}

/// What a failed gate does.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub enum OnFail {
    /// Everybody goes back to the baseline.
    Rollback,
    /// The rollout stays where it is until an operator decides.
    Hold,
}

/// When the gates do not come to a verdict.
#[derive(Debug, JsonSchema)]
#[schemars(rename = "Undecided", deny_unknown_fields)]
pub struct PatienceUndecided {
    /// After so long in a step, not counting pauses and holds.
    pub after: Span,
    /// What to do then.
    #[schemars(rename = "do")]
    pub act: OnUndecided,
}

/// What to do without a verdict.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub enum OnUndecided {
    /// Wait for an operator.
    Hold,
    /// Back to the baseline.
    Rollback,
    /// Go on, as if undecided gates had passed.
    Advance,
}

/// When nothing comes in.
#[derive(Debug, JsonSchema)]
#[schemars(rename = "NoData", deny_unknown_fields)]
pub struct PatienceNoData {
    /// After so long without evidence, not counting pauses and holds.
    pub after: Span,
    /// What to do then.
    #[schemars(rename = "do")]
    pub act: OnNoData,
}

/// What to do without evidence.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub enum OnNoData {
    /// Wait for an operator.
    Hold,
    /// Back to the baseline.
    Rollback,
}

/// When so much fails that nobody needs statistics.
#[derive(Debug, JsonSchema)]
#[schemars(rename = "Breaker", deny_unknown_fields)]
pub struct BreakerShape {
    /// Among so many of the candidate's last jobs.
    #[schemars(range(min = 1, max = 1000))]
    pub last: u32,
    /// So many failures roll back at once.
    #[schemars(range(min = 1, max = 1000))]
    pub failures: u32,
}

/// When a rollout may advance by itself.
#[derive(Debug, JsonSchema)]
#[schemars(rename = "Windows", deny_unknown_fields)]
pub struct WindowsShape {
    /// A time zone of the IANA database, such as `Europe/London` or `UTC`.
    pub tz: String,
    /// Days and times, such as `Mon-Thu 09:00-16:00`, `Sat,Sun` or `22:00-02:00`.
    #[schemars(length(min = 1, max = 64))]
    pub advance: Vec<String>,
}
