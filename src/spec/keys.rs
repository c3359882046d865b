//! Every key that a spec may hold, in one place: the reader refuses what is not here, and a test holds the schema to it.

use super::schema::{Caps, Parameters};
use crate::yaml::Keys;

/// Why the keys of batch targets are refused.
const SYNC_ONLY: &str = "leave it out; every job is sent on its own";

/// The file itself.
pub const PIPELINE: Keys = Keys::new(
    "a pipeline",
    &[
        "version",
        "name",
        "description",
        "labels",
        "accept",
        "targets",
        "route",
        "rollouts",
        "fallback",
        "retry",
        "deadline",
        "limits",
        "budget",
        "priority",
        "flags",
        "retention",
        "tests",
    ],
)
.unbuilt(&[
    ("shadow", "leave it out; compare the arms of a rollout by the metrics"),
    ("notify", "leave it out; use the alert rules in `dashboards/`"),
]);

/// `accept`.
pub const ACCEPT: Keys = Keys::new("`accept`", &["models"]);

/// One of `targets`.
pub const TARGET: Keys = Keys::new(
    "a target",
    &[
        "provider",
        "model",
        "use",
        "region",
        "timeout",
        "concurrency",
        "equivalents",
        "idle_timeout",
        "stream",
        "invoke",
        "defaults",
        "override",
        "cap",
        "system",
        "fidelity",
    ],
)
.unbuilt(&[("mode", SYNC_ONLY), ("batch", SYNC_ONLY)]);

/// A target's `defaults` and `override`, and a model definition's `parameters`.
pub const PARAMETERS: Keys = Keys::new("a set of parameters", Parameters::NAMES).unbuilt(&[
    ("model", "the target's own `model` is what is called"),
    ("messages", "use the target's `system` to add text"),
    ("stream", "leave it out; queued jobs are called without streaming"),
    ("stream_options", "leave it out; queued jobs are called without streaming"),
    ("functions", "use `tools`"),
    ("function_call", "use `tool_choice`"),
]);

/// The `guardrail` of a set of parameters.
pub const GUARDRAIL: Keys = Keys::new("a guardrail", &["id", "version", "trace"]);

/// A target's `cap`.
pub const CAP: Keys = Keys::new("`cap`", Caps::NAMES);

/// A target's `system`.
pub const SYSTEM: Keys = Keys::new("`system`", &["text", "mode"]);

/// One rule of `route`.
pub const RULE: Keys = Keys::new("a rule", &["name", "when", "on_missing", "confine", "to", "rollout", "fallback"])
    .unbuilt(&[("split", "declare a rollout with a `percent` and name it in `rollout`")]);

/// A rule's `confine`.
pub const CONFINE: Keys = Keys::new("`confine`", &["regions", "providers"]);

/// One of `rollouts`.
pub const ROLLOUT: Keys = Keys::new(
    "a rollout",
    &[
        "baseline",
        "candidate",
        "percent",
        "key",
        "salt",
        "missing_key",
        "fallback_to_candidate",
        "steps",
        "alpha",
        "require",
        "gates",
        "outcome_within",
        "undecided",
        "no_data",
        "breaker",
        "windows",
    ],
)
.unbuilt(&[
    ("strategy", "write the steps and gates here"),
    ("shadow", "leave it out; compare the arms by the gates"),
    ("notify", "leave it out; use the alert rules in `dashboards/`"),
]);

/// One of a rollout's `steps`.
pub const STEP: Keys =
    Keys::new("a step", &["percent", "min_duration", "min_jobs", "min_pairs", "require", "approval"]);

/// One of a rollout's `gates`.
pub const GATE: Keys = Keys::new(
    "a gate",
    &["metric", "of", "max_increase", "max_ratio", "at", "min", "max_decrease", "range", "cap_usd", "on_fail"],
);

/// A rollout's `undecided` and `no_data`.
pub const PATIENCE: Keys = Keys::new("`undecided` or `no_data`", &["after", "do"]);

/// A rollout's `breaker`.
pub const BREAKER: Keys = Keys::new("`breaker`", &["last", "failures"]);

/// A rollout's `windows`.
pub const WINDOWS: Keys = Keys::new("`windows`", &["tz", "advance"]);

/// `retry`.
pub const RETRY: Keys = Keys::new("`retry`", &["attempts", "initial_delay", "max_delay", "spill_after"]);

/// `limits`.
pub const LIMITS: Keys = Keys::new("`limits`", &["concurrency", "weight", "fair_by"]).unbuilt(&[
    ("requests_per_minute", "use `quotas` in the settings"),
    ("tokens_per_minute", "use `quotas` in the settings"),
]);

/// `budget`.
pub const BUDGET: Keys = Keys::new("`budget`", &["usd_per_day", "usd_per_month", "at_limit"]);

/// `retention`.
pub const RETENTION: Keys = Keys::new("`retention`", &["prompts", "results"]).unbuilt(&[
    ("ledger", "it is the settings': `retention: { ledger: … }` in config/landbridge.yaml"),
    ("audit", "it is the settings': `retention: { audit: … }` in config/landbridge.yaml"),
]);

/// One of `tests`.
pub const TEST: Keys = Keys::new("a test", &["name", "job", "flags", "rollouts", "expect"]);

/// A test's `job`.
pub const TEST_JOB: Keys = Keys::new(
    "a test's job",
    &["id", "idempotency_key", "batch", "metadata", "priority", "not_before", "deadline", "callback", "body"],
)
.unbuilt(&[("pipeline", "leave it out; the job is this pipeline's")]);

/// A test's `expect`.
pub const EXPECT: Keys = Keys::new("`expect`", &["target", "chain", "rule", "held"]);

/// A file of `config/models`.
pub const MODEL_DEFINITION: Keys =
    Keys::new("a model definition", &["name", "provider", "region", "parameters", "system", "format"]);

/// The names that Claude and Llama use for OpenAI's.
const NATIVE_NAMES: [&str; 3] = ["max_gen_len", "max_tokens_to_sample", "stop_sequences"];

const DEFINITION_NAMES: [&str; Parameters::NAMES.len() + NATIVE_NAMES.len()] = {
    let mut names = [""; Parameters::NAMES.len() + NATIVE_NAMES.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = match at.checked_sub(Parameters::NAMES.len()) {
            Some(native) => NATIVE_NAMES[native],
            None => Parameters::NAMES[at],
        };
        at += 1;
    }
    names
};

/// A model definition's `parameters`: OpenAI's names, and those that Claude and Llama use for the same things.
pub const DEFINITION_PARAMETERS: Keys = Keys::new("`parameters`", &DEFINITION_NAMES).unbuilt(PARAMETERS.unbuilt);
