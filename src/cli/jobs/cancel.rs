//! `landbridge jobs cancel`.

use std::path::Path;

use clap::Args;
use serde_json::{Value, json};

use super::select::{Selector, batch_counts, pipeline_counts};
use crate::{
    cli::{
        connection::{CallError, Connection, Daemon},
        exit::{Exit, Result},
        print::{Console, Format, count, counted, counts_in_words},
    },
    job::State,
};

/// Which jobs to cancel
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
A call in flight is stopped; it may still be billed. Jobs that have ended stay as they are.

Examples:
  landbridge jobs cancel job_0199f0a4c1d27b3e8a5d0c6b7e1f2a3b
  landbridge jobs cancel --batch monday --dry-run
  landbridge jobs cancel --batch monday --reason 'wrong prompts'
  landbridge jobs cancel --pipeline ticket-triage --where metadata.customer=c-42

Exit codes: 0 all cancelled; 1 some could not be")]
pub struct CancelArgs {
    /// Which
    #[command(flatten)]
    pub selector: Selector,
    /// Only say what would be cancelled
    #[arg(long)]
    pub dry_run: bool,
    /// Why, for the audit; a batch or a pipeline as a whole is audited
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// json: {"cancelled": N, "refused": N}
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// The daemon
    #[command(flatten)]
    pub connection: Connection,
}

const LIVE: &[State] = &[State::Queued, State::Waiting, State::Held, State::Running];

/// Runs the command.
pub async fn execute(args: &CancelArgs, config: &Path, console: &mut Console<'_>) -> Result {
    let daemon = Daemon::new(&args.connection, config)?;
    let (cancelled, refused) = match args.selector.filter.whole() {
        Some(mut whole) => {
            if let Some(reason) = &args.reason {
                whole["reason"] = reason.as_str().into();
            }
            (cancel_whole(args, &daemon, &whole, console).await?, 0)
        }
        None => cancel_each(args, &daemon, console).await?,
    };
    match args.format {
        Format::Json => {
            console.json(&json!({"cancelled": cancelled, "refused": refused, "dry_run": args.dry_run}))?;
        }
        Format::Human if args.dry_run => writeln!(console.out, "would cancel {}", counted(cancelled, "job"))?,
        Format::Human => writeln!(console.out, "cancelled {}", counted(cancelled, "job"))?,
    }
    Ok(if refused > 0 { Exit::Failed } else { Exit::Success })
}

async fn cancel_whole(args: &CancelArgs, daemon: &Daemon, whole: &Value, console: &mut Console<'_>) -> Result<u64> {
    let filter = &args.selector.filter;
    let counts = match (filter.only_batch(), &filter.pipeline) {
        (Some(batch), _) => batch_counts(daemon, batch).await?["counts"].take(),
        (None, Some(pipeline)) if filter.batch.is_none() => pipeline_counts(daemon, pipeline).await?,
        _ if args.dry_run => listed_counts(args, daemon).await?,
        _ => Value::Null,
    };
    let words = counts_in_words(&counts);
    if !words.is_empty() {
        writeln!(console.err, "before: {words}")?;
    }
    if args.dry_run {
        return Ok(LIVE.iter().map(|state| count(&counts, &format!("/{state}"))).sum());
    }
    Ok(count(&daemon.post(&["v1", "ops", "cancel"]).json(whole).send().await?, "/cancelled"))
}

/// Counts by looking at every job: nobody keeps them for a batch within a pipeline.
async fn listed_counts(args: &CancelArgs, daemon: &Daemon) -> Result<Value> {
    let mut selected = args.selector.jobs(daemon, LIVE);
    let mut live = 0;
    while let Some(ids) = selected.next().await? {
        live += ids.len();
    }
    Ok(json!({"queued": live}))
}

/// How many were cancelled, and how many could not be.
async fn cancel_each(args: &CancelArgs, daemon: &Daemon, console: &mut Console<'_>) -> Result<(u64, u64)> {
    let (mut cancelled, mut refused) = (0, 0);
    let mut selected = args.selector.jobs(daemon, LIVE);
    while let Some(ids) = selected.next().await? {
        for id in ids {
            if args.dry_run {
                cancelled += 1;
                continue;
            }
            match daemon.post(&["v1", "jobs", &id.to_string(), "cancel"]).send().await {
                Ok(_) => cancelled += 1,
                Err(CallError::Refused { message, status }) if status != 401 && status != 403 => {
                    refused += 1;
                    writeln!(console.err, "{id}: {message}")?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok((cancelled, refused))
}
