//! What the rest of the house tells the gauges: readings and closed sets of label values.
//!
//! Invariant: the text of a variant is the label's value; dashboards and alerts rely on it.

pub use crate::rollout::State as RolloutState;

/// One rollout now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RolloutReading<'a> {
    /// Its pipeline.
    pub pipeline: &'a crate::names::PipelineName,
    /// Its name.
    pub rollout: &'a crate::names::RolloutName,
    /// The candidate's share.
    pub percent: crate::money::BasisPoints,
    /// Where it stands.
    pub state: RolloutState,
}

/// One flag now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FlagReading<'a> {
    /// The flag.
    pub flag: &'a crate::spec::Flag,
    /// The pipeline; `None` for all.
    pub pipeline: Option<&'a crate::names::PipelineName>,
    /// Whether it is in force.
    pub active: bool,
}

/// What a quota counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum QuotaKind {
    /// Requests a minute.
    RequestsPerMinute,
    /// Tokens a minute.
    TokensPerMinute,
    /// Tokens a day.
    TokensPerDay,
    /// Calls in flight.
    Concurrency,
}

/// One quota now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QuotaReading<'a> {
    /// The provider account.
    pub provider: &'a crate::names::ProviderName,
    /// The model, or the glob of a pool.
    pub model: &'a str,
    /// The region, where the quota has one.
    pub region: Option<&'a crate::names::Region>,
    /// What it counts.
    pub kind: QuotaKind,
    /// Used share, 0 to 1.
    pub used: f64,
}

/// The state of a circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls go through.
    Closed,
    /// One call tries.
    HalfOpen,
    /// No call goes through.
    Open,
}

impl BreakerState {
    pub(super) fn value(self) -> f64 {
        match self {
            Self::Closed => 0.0,
            Self::HalfOpen => 1.0,
            Self::Open => 2.0,
        }
    }
}

/// One breaker now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerReading<'a> {
    /// The provider account.
    pub provider: &'a crate::names::ProviderName,
    /// The model.
    pub model: &'a str,
    /// The region, where there is one.
    pub region: Option<&'a crate::names::Region>,
    /// How it stands.
    pub state: BreakerState,
}

/// What started a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::EnumIter)]
#[strum(serialize_all = "snake_case")]
pub enum ReloadTrigger {
    /// The daemon's start.
    Start,
    /// A change that the watcher saw.
    Watch,
    /// SIGHUP.
    Signal,
    /// `POST /v1/ops/reload`.
    Api,
}

/// How a reload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::EnumIter)]
#[strum(serialize_all = "snake_case")]
pub enum ReloadResult {
    /// Every file was valid.
    Success,
    /// The valid files were applied; broken ones keep their last good version.
    Partial,
    /// Nothing was applied.
    Failure,
}

/// How a try to tell a receiver went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::EnumIter)]
#[strum(serialize_all = "snake_case")]
pub enum CallbackOutcome {
    /// It took it.
    Delivered,
    /// It did not, and is asked again.
    Failed,
    /// It did not, and is not asked again.
    GivenUp,
}
