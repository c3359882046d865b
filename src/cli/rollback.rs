//! `landbridge rollback` and `landbridge resume`: everything back to the baseline in a second, and forth again.
//!
//! Invariant: what is touched is printed before and after; `resume` undoes exactly what `rollback` did.

use std::path::Path;

use clap::Args;
use serde_json::{Value, json};

use super::{
    connection::{Connection, Daemon},
    exit::Result,
    lever::Pull,
    print::{Console, Format, Table, count, field, grouped, items, printable},
};
use crate::names::PipelineName;

/// One pipeline or all.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct Scope {
    /// This pipeline
    #[arg(value_name = "PIPELINE")]
    pub pipeline: Option<PipelineName>,
    /// All pipelines
    #[arg(long)]
    pub all: bool,
}

/// What to roll back
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Forces the provider of each pipeline's baseline and holds its rollouts, from the next
dispatch on. Calls in flight go on unless --interrupt cancels them (they may still be billed).

Examples:
  landbridge rollback ticket-triage --reason \"answers got worse\"
  landbridge rollback --all --interrupt --reason \"region is down\"
  landbridge rollback --all --dry-run --reason \"rehearsal\"")]
pub struct RollbackArgs {
    /// Which
    #[command(flatten)]
    pub scope: Scope,
    /// Also cancel calls in flight; their jobs are queued again
    #[arg(long)]
    pub interrupt: bool,
    /// The rest
    #[command(flatten)]
    pub lever: Lever,
}

/// What to resume
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Undoes exactly what `rollback` did; flags that were set otherwise stay.

Examples:
  landbridge resume ticket-triage --reason \"model fixed\"
  landbridge resume --all --reason \"region is back\"")]
pub struct ResumeArgs {
    /// Which
    #[command(flatten)]
    pub scope: Scope,
    /// The rest
    #[command(flatten)]
    pub lever: Lever,
}

/// What both levers need.
#[derive(Debug, Clone, Args)]
pub struct Lever {
    /// Why; kept in the audit log
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Only say what it would touch
    #[arg(long)]
    pub dry_run: bool,
    /// json: the daemon's answer
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// The daemon
    #[command(flatten)]
    pub connection: Connection,
}

/// Runs `rollback`.
pub async fn execute(args: &RollbackArgs, config: &Path, console: &mut Console<'_>) -> Result {
    let mut body = body(&args.scope, &args.lever);
    if args.interrupt {
        body["interrupt"] = json!(true);
    }
    pull("rollback", "rolled back", &body, &args.lever, config, console).await
}

/// Runs `resume`.
pub async fn execute_resume(args: &ResumeArgs, config: &Path, console: &mut Console<'_>) -> Result {
    pull("resume", "resumed", &body(&args.scope, &args.lever), &args.lever, config, console).await
}

fn body(scope: &Scope, lever: &Lever) -> Value {
    match &scope.pipeline {
        Some(pipeline) => json!({"pipeline": pipeline, "reason": lever.reason}),
        None => json!({"all": true, "reason": lever.reason}),
    }
}

async fn pull(name: &str, done: &str, body: &Value, lever: &Lever, config: &Path, console: &mut Console<'_>) -> Result {
    let daemon = Daemon::new(&lever.connection, config)?;
    let request = async |dry_run| {
        let mut body = body.clone();
        if dry_run {
            body["dry_run"] = json!(true);
        }
        Ok(daemon.post(&["v1", "ops", name]).json(&body).send().await?)
    };
    let before = |answer: &Value| format!("{name} touches:\n{}", pipelines(answer));
    let after = |answer: &Value| match field(answer, "/message") {
        message if message.is_empty() => format!("{done}:\n{}", pipelines(answer)),
        message => format!("{done}:\n{}{}\n", pipelines(answer), printable(&message)),
    };
    Pull { dry_run: lever.dry_run, format: lever.format }.by(request, before, after, console).await
}

fn pipelines(answer: &Value) -> String {
    let mut table = Table::new(&["  PIPELINE", "PROVIDER", "ROLLOUTS", "QUEUED", "RUNNING"]);
    for pipeline in items(answer, "/pipelines") {
        table.row([
            format!("  {}", field(pipeline, "/pipeline")),
            field(pipeline, "/provider"),
            field(pipeline, "/rollouts"),
            grouped(count(pipeline, "/queued")),
            grouped(count(pipeline, "/running")),
        ]);
    }
    if table.is_empty() { "  nothing\n".to_owned() } else { table.to_string() }
}
