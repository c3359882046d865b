//! The tests that a spec carries: each job is routed as it would be, and the decision held against what is expected.
//!
//! Invariant: a test depends on its spec alone: every flag is off but those that the test sets, no rollback is in force,
//! and the job is new.

use serde_json::{Value, json};

use crate::{
    diagnostic::Diagnostic,
    job::Envelope,
    names::TargetName,
    routing::{
        DecisionRecord, EffectiveFlags, FlagLevels, Question, Standing, Standings, decide_counting,
        prompt::prompt_tokens,
    },
    spec::{Flag, FlagSet, Pipeline, Providers, SpecTest, condition::Facts},
};

/// The id of a job whose test gives it none.
const ID: &str = "job_00000000000000000000000000000000";

/// Runs all tests of a pipeline; says which fail, and why. `text` is the file's.
pub(super) fn run(pipeline: &Pipeline, providers: &Providers, file: &str, text: &str) -> Vec<Diagnostic> {
    pipeline.tests.iter().filter_map(|test| run_one(test, pipeline, providers, file, text)).collect()
}

fn run_one(test: &SpecTest, pipeline: &Pipeline, providers: &Providers, file: &str, text: &str) -> Option<Diagnostic> {
    let failed = |message: String, help: String| {
        Some(Diagnostic::error("test-failed", file, message).at(test.position, text).help(help))
    };
    let record = match route(test, pipeline, providers) {
        Ok(record) => record,
        Err(message) => {
            let message = format!("the job of test \"{}\" would be refused: {message}", test.name);
            return failed(message, "give the test a job that a caller could submit".to_owned());
        }
    };
    let wrong = differences(test, &record);
    if wrong.is_empty() {
        return None;
    }
    let why = if record.reasons.is_empty() { "nothing decided".to_owned() } else { record.reasons.join("; ") };
    failed(format!("test \"{}\" failed: {}", test.name, wrong.join(", and ")), format!("how it was decided: {why}"))
}

/// The decision for a test's job.
fn route(test: &SpecTest, pipeline: &Pipeline, providers: &Providers) -> Result<DecisionRecord, String> {
    let mut job = test.job.clone();
    let mut id = ID.to_owned();
    if let Value::Object(fields) = &mut job {
        if let Some(Value::String(given)) = fields.shift_remove("id") {
            id = given;
        }
        // A test of metadata alone need not make up a conversation.
        let body = fields.entry("body").or_insert_with(|| json!({}));
        if let Value::Object(body) = body {
            body.entry("messages").or_insert_with(|| json!([{ "role": "user", "content": "hi" }]));
        }
    }
    let envelope = Envelope::from_value(job).map_err(|error| error.to_string())?;

    // A false at run time overrides every level below, the spec's own flags included.
    let mut runtime: FlagSet = FlagSet(Flag::known(providers.keys()).into_iter().map(|flag| (flag, false)).collect());
    runtime.0.extend(test.flags.0.iter().map(|(flag, value)| (flag.clone(), *value)));
    let levels = FlagLevels { runtime, ..FlagLevels::default() };
    let flags = EffectiveFlags::resolve(&levels, pipeline, providers, false);

    let facts = Facts {
        id: &id,
        pipeline: pipeline.name.as_str(),
        metadata: &envelope.metadata,
        labels: &pipeline.labels,
        priority: i64::from(envelope.priority.unwrap_or(pipeline.priority)),
        body: &envelope.body,
        prompt_tokens: &|| prompt_tokens(&envelope.body),
        age_seconds: 0,
    };
    let standings = Standings::of(pipeline, |rollout| {
        test.rollouts.get(&rollout.name).map(|percent| Standing { percent: *percent, revision: 1, counts: true })
    });
    Ok(decide_counting(&Question { pipeline, flags: &flags, standings: &standings, facts }).record(pipeline, 0))
}

/// What was expected and did not come.
fn differences(test: &SpecTest, record: &DecisionRecord) -> Vec<String> {
    let expect = &test.expect;
    let outcome = || match record.held {
        Some(reason) => format!("it was held ({reason})"),
        None => format!("it went to {}", record.chain.join(", then ")),
    };
    let mut wrong = Vec::new();
    if let Some(target) = &expect.target
        && record.chain.first().map(String::as_str) != Some(target.as_str())
    {
        wrong.push(format!("expected the target {target}, but {}", outcome()));
    }
    if let Some(chain) = &expect.chain
        && !chain.iter().map(TargetName::as_str).eq(record.chain.iter().map(String::as_str))
    {
        let names: Vec<&str> = chain.iter().map(TargetName::as_str).collect();
        wrong.push(format!("expected the chain {}, but {}", names.join(", then "), outcome()));
    }
    if let Some(rule) = &expect.rule
        && record.rule.as_deref() != Some(rule)
    {
        let found = record.rule.as_ref().map_or_else(|| "none was".to_owned(), |rule| format!("it was \"{rule}\""));
        wrong.push(format!("expected the rule \"{rule}\" to decide, but {found}"));
    }
    if let Some(held) = &expect.held
        && record.held.map(|reason| reason.to_string()).as_deref() != Some(held)
    {
        wrong.push(format!("expected it to be held ({held}), but {}", outcome()));
    }
    wrong
}
