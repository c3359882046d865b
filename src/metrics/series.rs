//! Every series that landbridge exports, with its labels and its help text (the doc comment).
//!
//! Invariant: labels are closed sets or names from specs and settings; nothing that a job carries becomes a label.

use prometheus::{Counter, Gauge, Histogram, IntCounter, IntGauge, Registry};

use super::family::{Family, Labels, Shape};

/// Seconds, for calls to models: from a cached classification to a long generation.
const CALL: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0];
/// Seconds, for waiting in a queue: from an idle daemon to the default deadline.
const QUEUE: &[f64] = &[0.01, 0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0];
/// Seconds, for loading specs.
const RELOAD: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
/// Shares of a window that may be overrun.
const SHARE: &[f64] = &[0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0];
/// Relative errors: below zero the estimate was short.
const ERROR: &[f64] = &[-0.5, -0.25, -0.1, -0.05, -0.01, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0];

/// What a family of series is, for documentation and for checking what dashboards name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeriesInfo {
    /// Its name; a histogram's samples add `_bucket`, `_sum` and `_count`.
    pub name: &'static str,
    /// Its label names.
    pub labels: &'static [&'static str],
    /// Whether it is a histogram.
    pub histogram: bool,
    /// What it says.
    pub help: &'static str,
}

macro_rules! buckets {
    () => {
        &[]
    };
    ($buckets:ident) => {
        $buckets
    };
}

macro_rules! series {
    ($(
        $(#[doc = $help:literal])+
        $field:ident: $kind:ident = $name:literal [$($label:literal),*] $(in $buckets:ident)?;
    )+) => {
        /// All families.
        pub(super) struct Series {
            $(
                $(#[doc = $help])+
                pub(super) $field: Family<$kind, { <[&str]>::len(&[$($label),*]) }>,
            )+
        }

        impl Series {
            /// Makes and registers every family.
            pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
                let series = Self {
                    $($field: Family::new(Shape {
                        name: $name,
                        help: concat!($($help),+).trim_ascii_start(),
                        labels: [$($label),*],
                        buckets: buckets!($($buckets)?),
                    })?,)+
                };
                $(registry.register(Box::new(series.$field.clone()))?;)+
                Ok(series)
            }

            /// Drops series from every family; `keep` is told the family's name.
            pub(super) fn retain(&self, keep: impl Fn(&str, &Labels<'_>) -> bool) {
                $(self.$field.retain(|labels| keep($name, labels));)+
            }
        }

        /// All families but `landbridge_pipeline_info`, whose labels come from specs.
        pub(super) const ALL: &[SeriesInfo] = &[
            $(SeriesInfo {
                name: $name,
                labels: &[$($label),*],
                histogram: matches!(stringify!($kind).as_bytes(), b"Histogram"),
                help: concat!($($help),+).trim_ascii_start(),
            },)+
        ];
    };
}

series! {
    /// Jobs that the store holds, by state.
    jobs: Gauge = "landbridge_jobs" ["pipeline", "state"];
    /// Jobs accepted: durable, acknowledged, and not repeats of a known key.
    jobs_submitted: IntCounter = "landbridge_jobs_submitted_total" ["pipeline"];
    /// Jobs ended, by how they ended.
    jobs_finished: IntCounter = "landbridge_jobs_finished_total" ["pipeline", "state"];
    /// From submit to the end of a job.
    job_duration: Histogram = "landbridge_job_duration_seconds" ["pipeline"] in QUEUE;
    /// From the time a job was ready to its first dispatch.
    job_queue_wait: Histogram = "landbridge_job_queue_wait_seconds" ["pipeline"] in QUEUE;
    /// How long ago the oldest job that is still queued was submitted; absent while none is.
    oldest_queued: Gauge = "landbridge_oldest_queued_job_age_seconds" ["pipeline"];

    /// Calls to targets, by how they ended: succeeded, or the fault.
    attempts: IntCounter = "landbridge_attempts_total" ["pipeline", "target", "provider", "outcome"];
    /// From sending a request to the end of its answer.
    attempt_duration: Histogram = "landbridge_attempt_duration_seconds" ["pipeline", "target", "provider"] in CALL;
    /// From sending a request to the first piece of its output, of targets that are called by streaming.
    time_to_first_token: Histogram = "landbridge_time_to_first_token_seconds" ["pipeline", "target"] in CALL;
    /// Calls that went to the next target of a chain, by the fault that sent them there.
    fallbacks: IntCounter = "landbridge_fallbacks_total" ["pipeline", "from", "to", "fault"];
    /// Tokens as providers reported them, in parts that never overlap: input, output, cache_read, cache_write.
    tokens: IntCounter = "landbridge_tokens_total" ["pipeline", "target", "type"];
    /// Cost of reported tokens at the catalogue's prices, in US dollars.
    cost: Counter = "landbridge_cost_usd_total" ["pipeline", "target"];
    /// Answered calls whose cost is not known: no price for the model, or for the service tier that served them.
    unpriced: IntCounter = "landbridge_unpriced_attempts_total" ["pipeline", "target"];
    /// Calls that ended without an answer and may have been billed all the same: failed, unknown or interrupted.
    possibly_billed: IntCounter = "landbridge_possibly_billed_attempts_total" ["pipeline", "target", "outcome"];
    /// The most that possibly billed calls may have cost by an upper estimate, in US dollars; apart from known costs.
    possible_cost: Counter = "landbridge_possible_cost_usd_total" ["pipeline", "target"];
    /// Prompt tokens estimated before a call less those reported after it, as a share of those reported.
    token_estimate_error: Histogram = "landbridge_token_estimate_error_ratio" ["target"] in ERROR;
    /// Prompt and output tokens of a call as a share of the model's context window.
    window_utilization: Histogram = "landbridge_context_window_utilization_ratio" ["target"] in SHARE;

    /// Routing decisions at dispatch, by rule and first target; the target is empty when the job was held.
    route_decisions: IntCounter = "landbridge_route_decisions_total" ["pipeline", "rule", "target"];
    /// The candidate's share of a rollout, 0 to 100.
    rollout_percent: Gauge = "landbridge_rollout_percent" ["pipeline", "rollout"];
    /// 1 for the state that a rollout is in, 0 for the others.
    rollout_state: Gauge = "landbridge_rollout_state" ["pipeline", "rollout", "state"];
    /// 1 while a flag is in force for a scope: a pipeline, or all.
    flag_active: Gauge = "landbridge_flag_active" ["flag", "scope"];

    /// How much of a quota is used, 0 to 1, by kind of quota.
    quota_utilization: Gauge = "landbridge_quota_utilization_ratio" ["provider", "model", "region", "kind"];
    /// How much of a pipeline's budget is spent, 0 to 1 and above, for this `day` and `month`.
    budget_utilization: Gauge = "landbridge_budget_utilization_ratio" ["pipeline", "period"];
    /// How much of a key's budget is spent, 0 to 1 and above, for this `day` and `month`.
    key_budget_utilization: Gauge = "landbridge_key_budget_utilization_ratio" ["key", "period"];
    /// State of a circuit breaker: 0 closed, 1 half open, 2 open.
    breaker_state: Gauge = "landbridge_breaker_state" ["provider", "model", "region"];

    /// Tries to tell a receiver of an end, by how they went: delivered, failed, given_up.
    callbacks: IntCounter = "landbridge_callbacks_total" ["outcome"];
    /// How long the notice has been due that has waited longest to be told to its receiver; 0 when none is.
    callback_delay: Gauge = "landbridge_callback_delay_seconds" [];

    /// 1 when every file was valid at the newest reload, 0 when any was broken.
    reload_successful: IntGauge = "landbridge_config_last_reload_successful" [];
    /// When a reload last found every file valid, in seconds since 1970.
    reload_success_time: Gauge = "landbridge_config_last_reload_success_timestamp_seconds" [];
    /// Reloads, by what started them and how they ended.
    reloads: IntCounter = "landbridge_config_reloads_total" ["trigger", "result"];
    /// The generation of the snapshot in force.
    generation: IntGauge = "landbridge_config_generation" [];
    /// 1 while the newest contents of a file serve, 0 while it is broken and its last good version does.
    file_valid: Gauge = "landbridge_config_file_valid" ["file"];
    /// How long a reload took, from reading the files to the new snapshot.
    reload_duration: Histogram = "landbridge_config_reload_duration_seconds" [] in RELOAD;
    /// Always 1; the label says which landbridge runs.
    build_info: IntGauge = "landbridge_build_info" ["version"];
}
