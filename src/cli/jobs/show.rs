//! `landbridge jobs show` and `landbridge jobs why`: one job at a time, in words.

use std::path::Path;

use clap::Args;
use serde_json::Value;

use super::select::Selector;
use crate::{
    cli::{
        connection::{Connection, Daemon},
        exit::{Exit, Result},
        print::{Console, Format, Table, age, count, counted, field, items, printable, printable_lines},
    },
    clock::{Clock, SystemClock},
    ids::JobId,
};

/// Jobs shown by one command; `jobs export` has no such bound.
const MAX_SHOWN: usize = 100;

/// Which jobs to show
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  landbridge jobs show job_0199f0a4c1d27b3e8a5d0c6b7e1f2a3b
  landbridge jobs show --key order-7 --pipeline ticket-triage
  landbridge jobs show --where metadata.order=7 --format json")]
pub struct ShowArgs {
    /// Which
    #[command(flatten)]
    pub selector: Selector,
    /// json: the daemon's answer for each job
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// The daemon
    #[command(flatten)]
    pub connection: Connection,
}

/// Which jobs to explain
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  landbridge jobs why job_0199f0a4c1d27b3e8a5d0c6b7e1f2a3b
  landbridge jobs why --where metadata.customer=c-42")]
pub struct WhyArgs {
    /// Which
    #[command(flatten)]
    pub selector: Selector,
    /// json: the daemon's answer for each job
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// The daemon
    #[command(flatten)]
    pub connection: Connection,
}

/// Runs `jobs show`.
pub async fn execute(args: &ShowArgs, config: &Path, console: &mut Console<'_>) -> Result {
    let daemon = Daemon::new(&args.connection, config)?;
    each(&args.selector, &daemon, &[], args.format, describe, console).await
}

/// Runs `jobs why`.
pub async fn execute_why(args: &WhyArgs, config: &Path, console: &mut Console<'_>) -> Result {
    let daemon = Daemon::new(&args.connection, config)?;
    each(&args.selector, &daemon, &["why"], args.format, explain, console).await
}

async fn each(
    selector: &Selector,
    daemon: &Daemon,
    aspect: &[&str],
    format: Format,
    in_words: fn(&Value) -> String,
    console: &mut Console<'_>,
) -> Result {
    let mut selected = selector.jobs(daemon, &[]);
    let mut shown = 0;
    while let Some(ids) = selected.next().await? {
        for id in ids {
            if shown == MAX_SHOWN {
                writeln!(console.err, "only the first {MAX_SHOWN} are shown: `landbridge jobs export` writes all")?;
                return Ok(Exit::Success);
            }
            let job = fetch(daemon, id, aspect).await?;
            match format {
                Format::Json => console.json(&job)?,
                Format::Human => {
                    let gap = if shown > 0 { "\n" } else { "" };
                    writeln!(console.out, "{gap}{}", in_words(&job).trim_end())?;
                }
            }
            shown += 1;
        }
    }
    if shown == 0 {
        writeln!(console.err, "no such job")?;
        return Ok(Exit::Failed);
    }
    Ok(Exit::Success)
}

async fn fetch(daemon: &Daemon, id: JobId, aspect: &[&str]) -> Result<Value> {
    let id = id.to_string();
    let path: Vec<&str> = ["v1", "jobs", &id].into_iter().chain(aspect.iter().copied()).collect();
    Ok(daemon.get(&path).send().await?)
}

fn describe(job: &Value) -> String {
    let mut lines = vec![field(job, "/id")];
    let state = match (field(job, "/state"), field(job, "/reason")) {
        (state, reason) if reason.is_empty() => state,
        (state, reason) => format!("{state}: {reason}"),
    };
    let now = SystemClock.now();
    let created = field(job, "/created_at");
    let created = if created.is_empty() { created } else { format!("{created} ({} ago)", age(&created, now)) };
    let usage = items_in_words(job.get("usage"));
    let cost = Some(field(job, "/cost_usd")).filter(|cost| !cost.is_empty()).map(|cost| format!("{cost} US dollars"));
    for (title, value) in [
        ("pipeline", field(job, "/pipeline")),
        ("state", state),
        ("target", field(job, "/target")),
        ("arm", field(job, "/arm")),
        ("batch", field(job, "/batch")),
        ("key", field(job, "/idempotency_key")),
        ("retry of", field(job, "/retry_of")),
        ("metadata", items_in_words(job.get("metadata"))),
        ("generation", field(job, "/generation")),
        ("created", created),
        ("finished", field(job, "/finished_at")),
        ("usage", usage),
        ("cost", cost.unwrap_or_default()),
        ("cost", unpriced(job)),
        ("besides", possibly_billed(job)),
        ("error", field(job, "/error/message")),
        ("callback", callback(job)),
    ] {
        if !value.is_empty() && value != "0" {
            lines.push(format!("  {title:<11} {}", printable(&value)));
        }
    }
    lines.extend(attempts(job));
    for note in items(job, "/fidelity") {
        let [parameter, action, detail] = ["/parameter", "/action", "/detail"].map(|pointer| field(note, pointer));
        lines.push(format!("  {parameter} {action}: {}", printable(&detail)));
    }
    let answer = field(job, "/result/choices/0/message/content");
    if !answer.is_empty() {
        lines.push(format!("\n{}", printable_lines(&answer)));
    }
    lines.join("\n")
}

/// Says that a cost is not known, where it is not.
fn unpriced(job: &Value) -> String {
    match count(job, "/unpriced_attempts") {
        0 => String::new(),
        n => format!(
            "not known of {}: the catalogue has no price for the model or its service tier",
            counted(n, "answered call")
        ),
    }
}

/// What calls without an answer may have cost; never part of the cost.
fn possibly_billed(job: &Value) -> String {
    match (count(job, "/possibly_billed_attempts"), field(job, "/possible_cost_usd")) {
        (0, _) => String::new(),
        (n, most) if most.is_empty() => format!("{} may have been billed; nobody knows how much", counted(n, "call")),
        (n, most) => format!("{} may have been billed: at most {most} US dollars", counted(n, "call")),
    }
}

/// Who is told of the end, and whether they were.
fn callback(job: &Value) -> String {
    let url = field(job, "/callback/url");
    if url.is_empty() {
        return url;
    }
    let tries = count(job, "/callback/tries");
    match (field(job, "/callback/state").as_str(), field(job, "/callback/last_error")) {
        ("waiting", _) => format!("{url} is told when it has ended"),
        ("given_up", why) => format!("{url} was never told, after {}: {why}", counted(tries, "call")),
        ("due", why) if !why.is_empty() => {
            let next = field(job, "/callback/next_at");
            format!("{url} is told again at {next}, after {}: {why}", counted(tries, "call"))
        }
        ("due", _) => format!("{url} is being told"),
        (state, _) => format!("{url}: {state}"),
    }
}

fn explain(why: &Value) -> String {
    let state = field(why, "/state");
    let mut lines = vec![match field(why, "/reason_code") {
        code if code.is_empty() => format!("{}: {state}", field(why, "/id")),
        code => format!("{}: {state} ({code})", field(why, "/id")),
    }];
    let words = [field(why, "/summary"), field(why, "/reason")].into_iter().find(|words| !words.is_empty());
    lines.extend(words.map(|words| printable_lines(&words)));
    for (place, step) in items(why, "/steps").iter().enumerate() {
        lines.push(format!("  {}. {}", place + 1, printable(&field(step, ""))));
    }
    lines.extend(attempts(why));
    lines.join("\n")
}

fn attempts(job: &Value) -> Option<String> {
    let mut table = Table::new(&["  ATTEMPT", "TARGET", "PROVIDER", "MODEL", "OUTCOME", "COST", "MESSAGE"]);
    for attempt in items(job, "/attempts") {
        let outcome = match (field(attempt, "/outcome"), field(attempt, "/fault")) {
            (outcome, fault) if fault.is_empty() || fault == outcome => outcome,
            (outcome, fault) => format!("{outcome} ({fault})"),
        };
        table.row([
            format!("  {}", field(attempt, "/n")),
            field(attempt, "/target"),
            field(attempt, "/provider"),
            field(attempt, "/model"),
            outcome,
            field(attempt, "/cost_usd"),
            field(attempt, "/message"),
        ]);
    }
    (!table.is_empty()).then(|| format!("\n{}", table.to_string().trim_end()))
}

/// `a 1, b 2` from an object.
fn items_in_words(object: Option<&Value>) -> String {
    let Some(Value::Object(fields)) = object else { return String::new() };
    let scalar = |value: &&Value| !value.is_object() && !value.is_array();
    let words =
        fields.iter().filter(|(_, value)| scalar(value)).map(|(name, value)| format!("{name} {}", field(value, "")));
    words.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_in_words() {
        let text = describe(&json!({
            "id": "job_1", "pipeline": "triage", "state": "failed", "generation": 3, "target": "bedrock",
            "attempts": [
                {"n": 1, "target": "openai", "provider": "openai", "model": "m", "outcome": "failed", "fault": "transient", "message": "boom\u{7}"},
                {"n": 2, "target": "bedrock", "provider": "bedrock", "model": "c", "outcome": "unknown", "fault": "unknown", "cost_usd": "0.01"},
            ],
            "fidelity": [{"parameter": "seed", "action": "dropped", "detail": "Converse has none"}],
            "error": {"message": "gave up", "type": "server_error"},
            "usage": {"prompt_tokens": 10, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 0}},
        }));
        let expected = [
            "job_1",
            "  pipeline    triage",
            "  state       failed",
            "  target      bedrock",
            "  generation  3",
            "  usage       prompt_tokens 10, completion_tokens 2",
            "  error       gave up",
            "",
            "  ATTEMPT  TARGET   PROVIDER  MODEL  OUTCOME             COST  MESSAGE",
            "  1        openai   openai    m      failed (transient)        boom\\u{7}",
            "  2        bedrock  bedrock   c      unknown             0.01",
            "  seed dropped: Converse has none",
        ]
        .join("\n");
        assert_eq!(text, expected);
    }

    #[test]
    fn a_reason_in_words() {
        let text = explain(&json!({
            "id": "job_1", "state": "held", "reason_code": "paused", "summary": "PAUSE is set at run time.",
            "steps": ["rule `eu` did not match", "PAUSE holds the job"], "attempts": [],
        }));
        assert_eq!(
            text,
            "job_1: held (paused)\nPAUSE is set at run time.\n  1. rule `eu` did not match\n  2. PAUSE holds the job"
        );
    }
}
