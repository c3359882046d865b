//! The shape of a spec as a JSON Schema, for editors and for `landbridge schema`; the comments on these types are the
//! reference of the YAML.
//!
//! Invariant: the keys here are exactly those of [`keys`](super::keys), which the reader goes by; a test holds both
//! together. Nothing is ever read into these types: a derived reader stops at the first fault.

mod parameters;
mod rollouts;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use parameters::{Caps, Guardrail, GuardrailTrace, Parameters};
pub use rollouts::{
    BreakerShape, Gate, MissingKey, Of, OnFail, OnNoData, OnUndecided, PatienceNoData, PatienceUndecided, Require,
    Rollout, Step, WindowsShape,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};

const NAME: &str = "^[a-z0-9][a-z0-9-]{0,62}$";
const SPAN: &str = "^([0-9]+(ms|s|m|h|d))+$";

/// The JSON Schema of a pipeline spec.
pub fn pipeline_schema() -> serde_json::Value {
    let mut schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<PipelineShape>().to_value();
    tidy(&mut schema);
    schema
}

/// Takes out what the reader has no idea of: a key is there with a value or not there (never null), and Rust's formats
/// of numbers mean nothing to an editor.
fn tidy(schema: &mut serde_json::Value) {
    use serde_json::Value;
    match schema {
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Object(map) => {
            map.remove("format");
            if let Some(Value::Array(types)) = map.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    map.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(options)) = map.get_mut("anyOf") {
                options.retain(|option| option.get("type").is_none_or(|name| name != "null"));
                if let [only] = options.as_slice() {
                    let only = only.clone();
                    map.shift_remove("anyOf");
                    map.insert("allOf".to_owned(), Value::Array(vec![only]));
                }
            }
            map.values_mut().for_each(tidy);
        }
        _ => {}
    }
}

/// One kind of work: where its jobs go, and what happens after a fault.
#[derive(Debug, JsonSchema)]
#[schemars(rename = "Pipeline", deny_unknown_fields)]
pub struct PipelineShape {
    /// Of this form of file; always 1.
    #[schemars(range(min = 1, max = 1))]
    pub version: u8,
    /// Unique among all specs: a pipeline is known by it, whatever its file is called.
    #[schemars(regex(pattern = NAME))]
    pub name: String,
    /// For people.
    #[schemars(length(min = 1, max = 2000))]
    pub description: Option<String>,
    /// For reports and costs; each becomes a label of a metric.
    #[schemars(extend("propertyNames" = {"pattern": "^[a-z][a-z0-9_]{0,62}$"}, "maxProperties" = 20))]
    pub labels: Option<BTreeMap<String, String>>,
    /// Which jobs are taken that name no pipeline. Overlap between pipelines is an error.
    pub accept: Option<Accept>,
    /// The providers and models that jobs may go to, by name.
    #[schemars(extend("propertyNames" = {"pattern": NAME}, "minProperties" = 1, "maxProperties" = 64))]
    pub targets: BTreeMap<String, Target>,
    /// Rules in order; the first that matches decides. The last has no `when`. May be left out with one target.
    #[schemars(length(min = 1, max = 500))]
    pub route: Option<Vec<Rule>>,
    /// Traffic on its way from one target to another, by name.
    #[schemars(extend("propertyNames" = {"pattern": NAME}, "maxProperties" = 64))]
    pub rollouts: Option<BTreeMap<String, Rollout>>,
    /// Targets tried in this order after the routed one, which is skipped. None by default.
    #[schemars(extend("uniqueItems" = true))]
    pub fallback: Option<Vec<String>>,
    /// What happens after a fault.
    pub retry: Option<Retry>,
    /// From submit to the end; time spent held does not count. 24h by default.
    pub deadline: Option<Span>,
    /// How much may happen at once.
    pub limits: Option<Limits>,
    /// How much may be spent. No limit by default.
    pub budget: Option<Budget>,
    /// Higher goes first; aging keeps every pipeline moving. 0 by default.
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: Option<i32>,
    /// Levers that stand above rules, rollouts and retries.
    pub flags: Option<Flags>,
    /// How long contents are kept after a job has ended.
    pub retention: Option<Retention>,
    /// Decisions that must come out; run by `check` and at every load. A failing test rejects the file.
    #[schemars(length(max = 200))]
    pub tests: Option<Vec<Test>>,
}

/// A span of time: numbers and units, such as `150ms`, `30s`, `5m`, `24h`, `7d` or `1h30m`.
#[derive(Debug, JsonSchema)]
pub struct Span(#[schemars(regex(pattern = SPAN))] pub String);

/// A percentage with at most two decimals, such as `25`, `0.5` or `12.75%`.
#[derive(Debug)]
pub struct Percent(pub String);

impl JsonSchema for Percent {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Percent".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A percentage with at most two decimals, such as `25`, `0.5` or `12.75%`.",
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": 100},
                {"type": "string", "pattern": "^[0-9]+(\\.[0-9]{1,2})? *%$"}
            ]
        })
    }
}

/// Levers by name: `FORCE_<NAME>_PROVIDER` for every configured provider, `DISABLE_FALLBACK`, `PAUSE`.
#[derive(Debug, JsonSchema)]
#[schemars(extend("propertyNames" = {"pattern": "^(FORCE_[A-Z0-9_]+_PROVIDER|DISABLE_FALLBACK|PAUSE)$"}))]
pub struct Flags(pub BTreeMap<String, bool>);

/// Which jobs are taken that name no pipeline.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Accept {
    /// Globs over the job's `body.model`.
    #[schemars(length(max = 100), extend("uniqueItems" = true))]
    pub models: Vec<String>,
}

/// A provider and a model, with what this pipeline sends there.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields, extend("oneOf" = [{"required": ["provider", "model"]}, {"required": ["use"]}]))]
pub struct Target {
    /// A provider from the settings.
    pub provider: Option<String>,
    /// The model, inference profile or ARN, as the provider wants it.
    #[schemars(length(min = 1, max = 2048))]
    pub model: Option<String>,
    /// Instead of provider and model: a model definition, by the stem of its file in `config/models`.
    #[schemars(rename = "use")]
    pub definition: Option<String>,
    /// The region to call. The model definition's or the provider's by default.
    #[schemars(regex(pattern = NAME))]
    pub region: Option<String>,
    /// Calls to this target at once, of this pipeline. As many as the pipeline's by default.
    #[schemars(range(min = 1, max = 100_000))]
    pub concurrency: Option<u32>,
    /// Targets of the same model in another region, profile or account, that serve too when this one's quota has been
    /// exhausted for `retry.spill_after`.
    #[schemars(length(max = 8))]
    pub equivalents: Option<Vec<String>>,
    /// From the start of a call to the end of its answer, up to 1h. 120s by default.
    pub timeout: Option<Span>,
    /// Longest silence between two pieces of a streamed answer, up to 1h. 60s by default.
    pub idle_timeout: Option<Span>,
    /// Whether queued jobs are called by streaming: long calls then survive gateways that cut silent connections.
    /// `false` by default.
    pub stream: Option<bool>,
    /// Bedrock's InvokeModel in a model family's own form, for models that Converse does not serve.
    pub invoke: Option<Form>,
    /// Parameters where the job says nothing.
    pub defaults: Option<Parameters>,
    /// Parameters whatever the job says.
    #[schemars(rename = "override")]
    pub overrides: Option<Parameters>,
    /// Upper bounds of parameters.
    pub cap: Option<Caps>,
    /// System text.
    pub system: Option<System>,
    /// What to do about requests that the target cannot carry exactly. `warn` by default.
    pub fidelity: Option<Fidelity>,
}

/// The native forms of InvokeModel.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum Form {
    /// Anthropic's: `anthropic_version`, `messages`.
    Claude,
    /// Llama's: `prompt`, `max_gen_len`.
    Llama,
}

/// System text that a target adds.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct System {
    /// The text.
    #[schemars(length(min = 1))]
    pub text: String,
    /// How it meets the job's own. `prepend` by default.
    pub mode: Option<SystemMode>,
}

/// How a target's system text meets the job's own.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum SystemMode {
    /// Before the job's.
    Prepend,
    /// Instead of the job's.
    Replace,
    /// Only if the job has none.
    Fallback,
}

/// What to do about requests that a target cannot carry exactly.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum Fidelity {
    /// Anything inexact is refused before any call.
    Strict,
    /// Sampling and bookkeeping parameters may go, noted; what the answer must look like may not.
    Warn,
    /// Everything may go, noted.
    Loose,
}

/// One step of the route.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields, extend("oneOf" = [{"required": ["to"]}, {"required": ["rollout"]}]))]
pub struct Rule {
    /// For people, metrics and tests.
    #[schemars(length(min = 1, max = 120))]
    pub name: Option<String>,
    /// A CEL expression over `job.{id, pipeline, metadata, labels, priority, body, prompt_tokens, age_seconds}`.
    #[schemars(length(min = 1, max = 4000))]
    pub when: Option<String>,
    /// What to do when the expression needs a value that the job lacks. `no_match` by default.
    pub on_missing: Option<OnMissing>,
    /// Where matching jobs may go at all: binds fallback and kill switch, too.
    pub confine: Option<Confine>,
    /// The target that matching jobs go to.
    pub to: Option<String>,
    /// Or the rollout that decides between two.
    pub rollout: Option<String>,
    /// This rule's own fallback, instead of the pipeline's.
    #[schemars(extend("uniqueItems" = true))]
    pub fallback: Option<Vec<String>>,
}

/// What a rule does when its expression needs a value that the job lacks.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub enum OnMissing {
    /// The rule does not match.
    NoMatch,
    /// The job is held.
    Hold,
    /// The rule matches.
    Match,
}

/// Regions and providers that jobs never leave.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields, extend("minProperties" = 1))]
pub struct Confine {
    /// Globs over regions, such as `eu-*`: every region that a call may be carried to must match one.
    #[schemars(length(min = 1, max = 64))]
    pub regions: Option<Vec<String>>,
    /// Providers from the settings.
    #[schemars(length(min = 1, max = 64))]
    pub providers: Option<Vec<String>>,
}

/// What happens after a fault.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Retry {
    /// Attempts at one target that may fail by fault; waiting for quota does not count. 4 by default.
    #[schemars(range(min = 1, max = 20))]
    pub attempts: Option<u32>,
    /// Before the second attempt, up to 1h. 1s by default.
    pub initial_delay: Option<Span>,
    /// The longest wait between two attempts, up to 1h. 60s by default.
    pub max_delay: Option<Span>,
    /// When a target's quota has been exhausted for so long, its `equivalents` serve too, and a target that asked to be
    /// left alone for longer is passed over; up to 1h. 60s by default.
    pub spill_after: Option<Span>,
}

/// How much may happen at once.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Limits {
    /// Calls in flight. 64 by default.
    #[schemars(range(min = 1, max = 100_000))]
    pub concurrency: Option<u32>,
    /// The pipeline's part of a quota that others want too, against theirs. 1 by default.
    #[schemars(range(min = 1, max = 1_000))]
    pub weight: Option<u32>,
    /// Jobs with different values take turns: a CEL path such as `job.metadata.customer`.
    #[schemars(length(min = 1, max = 4000))]
    pub fair_by: Option<String>,
}

/// How much may be spent: by the day, by the month, or both.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields, extend("anyOf" = [{ "required": ["usd_per_day"] }, { "required": ["usd_per_month"] }]))]
pub struct Budget {
    /// US dollars in a day (UTC).
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub usd_per_day: Option<f64>,
    /// US dollars in a month (UTC).
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub usd_per_month: Option<f64>,
    /// What becomes of jobs at the limit. `hold` by default.
    pub at_limit: Option<AtLimit>,
}

/// What becomes of jobs when the budget is spent.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum AtLimit {
    /// They are held until there is a budget again.
    Hold,
    /// They go on, to the cheapest target that their rule, its `confine` and the flags permit.
    Cheapest,
}

/// How long contents are kept after a job has ended. Ledger and audit have their own times in the settings.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Retention {
    /// Prompts, at most as long as results. 7d by default.
    pub prompts: Option<Span>,
    /// Results; the job goes with its result. 30d by default.
    pub results: Option<Span>,
}

/// A decision that must come out.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Test {
    /// For people; each its own.
    #[schemars(length(min = 1, max = 200))]
    pub name: String,
    /// The job, as it would be submitted to this pipeline.
    pub job: TestJob,
    /// Flags that are set during the test; all are off otherwise.
    pub flags: Option<Flags>,
    /// Where rollouts with steps stand during the test, by name; at 0 by default.
    pub rollouts: Option<BTreeMap<String, Percent>>,
    /// What must come out; what is left out is not looked at.
    pub expect: Expect,
}

/// A job of a test.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct TestJob {
    /// Its id.
    pub id: Option<String>,
    /// Its idempotency key.
    pub idempotency_key: Option<String>,
    /// Its batch.
    pub batch: Option<String>,
    /// Its metadata: texts.
    pub metadata: Option<BTreeMap<String, String>>,
    /// Its priority.
    pub priority: Option<i32>,
    /// Not called before this time (RFC 3339).
    pub not_before: Option<String>,
    /// Its own deadline (RFC 3339).
    pub deadline: Option<String>,
    /// Where to tell of its end.
    pub callback: Option<String>,
    /// The chat request.
    pub body: Option<serde_json::Map<String, serde_json::Value>>,
}

/// What a test expects of the decision: `held` alone, or the others.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields, extend("minProperties" = 1))]
pub struct Expect {
    /// The first target tried.
    pub target: Option<String>,
    /// All targets in the order tried.
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    pub chain: Option<Vec<String>>,
    /// The rule that matched.
    pub rule: Option<String>,
    /// The code of the reason for which the job is held.
    #[schemars(regex(pattern = "^[a-z0-9_]+$"))]
    pub held: Option<String>,
}
