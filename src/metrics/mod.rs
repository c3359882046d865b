//! What the daemon tells Prometheus.
//!
//! Invariant: every series of the daemon is declared in [`series`] and touched through a method of [`Metrics`]; the
//! loops that call these methods are not known here. Counters and histograms lose the series of names that leave the
//! specs ([`Metrics::follow`]); gauges are set as a whole, so what is not named any more disappears.

mod family;
mod info;
mod readings;
mod series;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use prometheus::{IntCounter, Registry, TextEncoder};
use strum::IntoEnumIterator;

pub use readings::{
    BreakerReading, BreakerState, CallbackOutcome, FlagReading, QuotaKind, QuotaReading, ReloadResult, ReloadTrigger,
    RolloutReading, RolloutState,
};
pub use series::SeriesInfo;

use self::{family::Labels, info::PipelineInfo, series::Series};
use crate::{
    clock::Timestamp,
    job::{Fault, Outcome, State},
    money::Usd,
    names::{PipelineName, ProviderName, TargetName},
    snapshot::Snapshot,
    usage::Usage,
};

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The value of `scope` for a flag that holds for all pipelines.
const ALL_PIPELINES: &str = "all";

/// All series of one daemon, in a registry of their own.
pub struct Metrics {
    registry: Registry,
    series: Series,
    pipelines: PipelineInfo,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All families, with no series but those without labels.
    ///
    /// # Panics
    /// Only if a declaration in this room is malformed, which its tests would show.
    pub fn new() -> Self {
        Self::registered().expect("the declared families have legal and distinct names")
    }

    fn registered() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let series = Series::register(&registry)?;
        let pipelines = PipelineInfo::new()?;
        registry.register(Box::new(pipelines.clone()))?;
        series.build_info.on([env!("CARGO_PKG_VERSION")], |info| info.set(1));
        for outcome in CallbackOutcome::iter() {
            series.callbacks.on([outcome.into()], |_| ());
        }
        Ok(Self { registry, series, pipelines })
    }

    /// What is exported, by declaration.
    pub fn catalogue() -> impl Iterator<Item = &'static SeriesInfo> {
        series::ALL.iter().chain(std::iter::once(&info::SHAPE))
    }

    /// Every series in Prometheus' text format, see [`CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        let families = self.registry.gather();
        // The encoder refuses only families without a name or a metric, and the registry gathers neither.
        TextEncoder::new().encode_to_string(&families).unwrap_or_default()
    }

    // -- jobs ------------------------------------------------------------------------------------------------------

    /// New jobs became durable.
    pub fn jobs_submitted(&self, pipeline: &PipelineName, count: u64) {
        self.series.jobs_submitted.on([pipeline.as_str()], |counter| counter.inc_by(count));
    }

    /// A job left the queue for the first time, this long after it was ready.
    pub fn queue_wait(&self, pipeline: &PipelineName, wait: Duration) {
        self.series.job_queue_wait.on([pipeline.as_str()], |histogram| histogram.observe(wait.as_secs_f64()));
    }

    /// A job ended, this long after its submit.
    pub fn job_finished(&self, pipeline: &PipelineName, state: State, duration: Duration) {
        self.series.jobs_finished.on([pipeline.as_str(), state.into()], IntCounter::inc);
        self.series.job_duration.on([pipeline.as_str()], |histogram| histogram.observe(duration.as_secs_f64()));
    }

    /// How many jobs stand where, from the store. Pipelines without a spec that still have jobs are shown.
    pub fn set_jobs(&self, counts: &BTreeMap<(PipelineName, State), u64>) {
        let readings =
            counts.iter().map(|((pipeline, state), count)| ([pipeline.as_str(), state.into()], *count as f64));
        self.series.jobs.replace(readings);
    }

    /// When the oldest queued job of each pipeline was submitted, from the store.
    pub fn set_oldest(&self, oldest: &BTreeMap<PipelineName, Timestamp>, now: Timestamp) {
        let readings = oldest.iter().map(|(pipeline, at)| ([pipeline.as_str()], now.since(*at).as_secs_f64()));
        self.series.oldest_queued.replace(readings);
    }

    // -- calls -----------------------------------------------------------------------------------------------------

    /// A dispatch was decided: by which rule, and to which target first (`None` when the job is held).
    pub fn route_decided(&self, pipeline: &PipelineName, rule: Option<&str>, target: Option<&TargetName>) {
        let target = target.map_or("", TargetName::as_str);
        let labels = [pipeline.as_str(), rule.unwrap_or_default(), target];
        self.series.route_decisions.on(labels, IntCounter::inc);
    }

    /// A call ended; without a fault it succeeded.
    pub fn attempt_ended(
        &self,
        pipeline: &PipelineName,
        target: &TargetName,
        provider: &ProviderName,
        fault: Option<Fault>,
        duration: Duration,
    ) {
        let (pipeline, target, provider) = (pipeline.as_str(), target.as_str(), provider.as_str());
        let outcome = fault.map_or("succeeded", Into::into);
        self.series.attempts.on([pipeline, target, provider, outcome], IntCounter::inc);
        self.series
            .attempt_duration
            .on([pipeline, target, provider], |histogram| histogram.observe(duration.as_secs_f64()));
    }

    /// A streamed answer began.
    pub fn first_token(&self, pipeline: &PipelineName, target: &TargetName, after: Duration) {
        let labels = [pipeline.as_str(), target.as_str()];
        self.series.time_to_first_token.on(labels, |histogram| histogram.observe(after.as_secs_f64()));
    }

    /// A job goes on to the next target of its chain because of a fault.
    pub fn fallback(&self, pipeline: &PipelineName, from: &TargetName, to: &TargetName, fault: Fault) {
        let labels = [pipeline.as_str(), from.as_str(), to.as_str(), fault.into()];
        self.series.fallbacks.on(labels, IntCounter::inc);
    }

    /// A provider reported what a call consumed.
    pub fn tokens(&self, pipeline: &PipelineName, target: &TargetName, usage: &Usage) {
        let parts = [
            ("input", usage.input),
            ("output", usage.output),
            ("cache_read", usage.cache_read),
            ("cache_write", usage.cache_write),
        ];
        for (kind, count) in parts.into_iter().filter(|(_, count)| *count > 0) {
            self.series.tokens.on([pipeline.as_str(), target.as_str(), kind], |counter| counter.inc_by(count));
        }
    }

    /// A call cost this much.
    pub fn cost(&self, pipeline: &PipelineName, target: &TargetName, cost: Usd) {
        // Counters never fall: a negative amount would be a fault of the price list, not income.
        let amount = cost.approximate().max(0.0);
        self.series.cost.on([pipeline.as_str(), target.as_str()], |counter| counter.inc_by(amount));
    }

    /// A call was answered, and nobody knows what it cost.
    pub fn unpriced(&self, pipeline: &PipelineName, target: &TargetName) {
        self.series.unpriced.on([pipeline.as_str(), target.as_str()], IntCounter::inc);
    }

    /// A call ended without an answer and may have been billed, with this much at most where that is known.
    pub fn possibly_billed(&self, pipeline: &PipelineName, target: &TargetName, outcome: Outcome, most: Option<Usd>) {
        let (pipeline, target) = (pipeline.as_str(), target.as_str());
        self.series.possibly_billed.on([pipeline, target, outcome.into()], IntCounter::inc);
        if let Some(most) = most {
            self.series.possible_cost.on([pipeline, target], |counter| counter.inc_by(most.approximate().max(0.0)));
        }
    }

    /// How far the estimate of prompt tokens was off what the provider reported.
    pub fn token_estimate_error(&self, target: &TargetName, estimated: u64, actual: u64) {
        if actual > 0 {
            let error = (estimated as f64 - actual as f64) / actual as f64;
            self.series.token_estimate_error.on([target.as_str()], |histogram| histogram.observe(error));
        }
    }

    /// The share of a model's context window that a call used.
    pub fn window_utilization(&self, target: &TargetName, ratio: f64) {
        self.series.window_utilization.on([target.as_str()], |histogram| histogram.observe(ratio));
    }

    // -- levers and limits: set as a whole ---------------------------------------------------------------------------

    /// Every rollout.
    pub fn set_rollouts<'a>(&self, rollouts: impl IntoIterator<Item = RolloutReading<'a>>) {
        let rollouts: Vec<_> = rollouts.into_iter().collect();
        self.series.rollout_percent.replace(rollouts.iter().map(|reading| {
            let labels = [reading.pipeline.as_str(), reading.rollout.as_str()];
            (labels, f64::from(reading.percent.get()) / 100.0)
        }));
        self.series.rollout_state.replace(rollouts.iter().flat_map(|reading| {
            RolloutState::iter().map(move |state| {
                let labels = [reading.pipeline.as_str(), reading.rollout.as_str(), state.into()];
                (labels, f64::from(u8::from(state == reading.state)))
            })
        }));
    }

    /// Every flag that is set anywhere, or may be.
    pub fn set_flags<'a>(&self, flags: impl IntoIterator<Item = FlagReading<'a>>) {
        self.series.flag_active.replace(flags.into_iter().map(|reading| {
            let scope = reading.pipeline.map_or(ALL_PIPELINES, PipelineName::as_str);
            ([reading.flag.to_string(), scope.to_owned()], f64::from(u8::from(reading.active)))
        }));
    }

    /// Every quota.
    pub fn set_quotas<'a>(&self, quotas: impl IntoIterator<Item = QuotaReading<'a>>) {
        self.series.quota_utilization.replace(quotas.into_iter().map(|reading| {
            let region = reading.region.map_or("", |region| region.as_str());
            ([reading.provider.as_str(), reading.model, region, reading.kind.into()], reading.used)
        }));
    }

    /// Every budget: whose, the period, and how much of it is spent.
    pub fn set_budgets<'a>(
        &self,
        pipelines: impl IntoIterator<Item = (&'a str, &'static str, f64)>,
        keys: impl IntoIterator<Item = (&'a str, &'static str, f64)>,
    ) {
        let labelled = |(name, period, used): (&'a str, &'static str, f64)| ([name, period], used);
        self.series.budget_utilization.replace(pipelines.into_iter().map(labelled));
        self.series.key_budget_utilization.replace(keys.into_iter().map(labelled));
    }

    /// Every circuit breaker.
    pub fn set_breakers<'a>(&self, breakers: impl IntoIterator<Item = BreakerReading<'a>>) {
        self.series.breaker_state.replace(breakers.into_iter().map(|reading| {
            let region = reading.region.map_or("", |region| region.as_str());
            ([reading.provider.as_str(), reading.model, region], reading.state.value())
        }));
    }

    // -- callbacks ---------------------------------------------------------------------------------------------------

    /// A try to tell a receiver of an end went so.
    pub fn callback(&self, outcome: CallbackOutcome) {
        self.series.callbacks.on([outcome.into()], IntCounter::inc);
    }

    /// How long the oldest due notice has waited.
    pub fn set_callback_delay(&self, delay: Duration) {
        self.series.callback_delay.on([], |gauge| gauge.set(delay.as_secs_f64()));
    }

    // -- configuration -----------------------------------------------------------------------------------------------

    /// A reload ended. Call [`Metrics::follow`] too when it changed the snapshot.
    pub fn reloaded(&self, trigger: ReloadTrigger, result: ReloadResult, duration: Duration, at: Timestamp) {
        let success = result == ReloadResult::Success;
        self.series.reloads.on([trigger.into(), result.into()], IntCounter::inc);
        self.series.reload_duration.on([], |histogram| histogram.observe(duration.as_secs_f64()));
        self.series.reload_successful.on([], |gauge| gauge.set(i64::from(success)));
        if success {
            self.series.reload_success_time.on([], |gauge| gauge.set(at.as_micros() as f64 / 1e6));
        }
    }

    /// A snapshot is in force: what it names gets its series (counters of jobs start at zero, so that a first failure
    /// shows as an increase), and what it names no longer loses them. Counts of jobs in the store stay.
    pub fn follow(&self, snapshot: &Snapshot) {
        self.series.generation.on([], |gauge| gauge.set(i64::try_from(snapshot.generation).unwrap_or(i64::MAX)));
        let files = snapshot.files.iter().map(|report| ([report.file.as_str()], f64::from(u8::from(report.valid))));
        self.series.file_valid.replace(files);
        let pipelines = || snapshot.pipelines.iter().map(|(name, loaded)| (name, &loaded.pipeline));
        self.pipelines.replace(pipelines().map(|(name, pipeline)| (name.as_str(), &pipeline.labels)));

        let targets: BTreeSet<&str> =
            pipelines().flat_map(|(_, pipeline)| &pipeline.targets).map(|target| target.name.as_str()).collect();
        self.series.retain(|family, labels| is_current(snapshot, &targets, family, labels));

        for (name, _) in pipelines() {
            self.jobs_submitted(name, 0);
            for state in State::iter().filter(|state| state.is_terminal()) {
                self.series.jobs_finished.on([name.as_str(), state.into()], |_| ());
            }
        }
    }
}

/// Whether the snapshot still names what a series is about.
fn is_current(snapshot: &Snapshot, targets: &BTreeSet<&str>, family: &str, labels: &Labels<'_>) -> bool {
    // What the store counts stays visible for as long as there is something to count.
    if family == "landbridge_jobs" || family == "landbridge_oldest_queued_job_age_seconds" {
        return true;
    }
    let Some(pipeline) = labels.get("pipeline") else {
        return labels.get("target").is_none_or(|target| targets.contains(target));
    };
    let Some(loaded) = snapshot.pipelines.get(pipeline) else { return false };
    let pipeline = &loaded.pipeline;
    let is_target = |name: &str| name.is_empty() || pipeline.targets.iter().any(|target| target.name.as_str() == name);
    let is_rule = |name: &str| name.is_empty() || pipeline.route.iter().any(|rule| &*rule.name == name);
    let is_rollout = |name: &str| pipeline.rollouts.iter().any(|rollout| rollout.name.as_str() == name);
    ["target", "from", "to"].iter().all(|label| labels.get(label).is_none_or(is_target))
        && labels.get("rule").is_none_or(is_rule)
        && labels.get("rollout").is_none_or(is_rollout)
}
