//! `landbridge jobs retry`.

use std::path::Path;

use clap::Args;
use serde_json::json;

use super::{list::parse_state, select::Selector};
use crate::{
    cli::{
        connection::{CallError, Connection, Daemon},
        exit::{Exit, Failure, Result},
        print::{Console, Format, counted, field},
    },
    job::State,
};

/// Which jobs to run again
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Each becomes a new job with `retry_of`; the old one stays as it is. Selected by a
condition, jobs that failed or expired are meant, unless --state says otherwise.

Examples:
  landbridge jobs retry job_0199f0a4c1d27b3e8a5d0c6b7e1f2a3b
  landbridge jobs retry --batch monday
  landbridge jobs retry --pipeline ticket-triage --state cancelled --format json

Exit codes: 0 all submitted; 1 some could not be")]
pub struct RetryArgs {
    /// Which
    #[command(flatten)]
    pub selector: Selector,
    /// Selected by a condition: in this state; may be repeated
    #[arg(long, short, value_name = "STATE", value_parser = parse_state, conflicts_with = "ids")]
    pub state: Vec<State>,
    /// Only say what would be run again
    #[arg(long)]
    pub dry_run: bool,
    /// json: {"id", "retry_of"} a line
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// The daemon
    #[command(flatten)]
    pub connection: Connection,
}

/// Runs the command.
pub async fn execute(args: &RetryArgs, config: &Path, console: &mut Console<'_>) -> Result {
    let states = if args.state.is_empty() { &[State::Failed, State::Expired][..] } else { &args.state };
    if let Some(live) = states.iter().find(|state| !state.is_terminal()) {
        return Err(Failure::usage(format!("a {live} job has not ended: only ended jobs can be run again")));
    }
    let daemon = Daemon::new(&args.connection, config)?;
    // New jobs are newer than the first page: they never appear on a later one.
    let mut selected = args.selector.jobs(&daemon, states);
    let (mut retried, mut refused) = (0, 0);
    while let Some(ids) = selected.next().await? {
        for id in ids {
            if args.dry_run {
                retried += 1;
                continue;
            }
            match daemon.post(&["v1", "jobs", &id.to_string(), "retry"]).send().await {
                Ok(job) => {
                    retried += 1;
                    let new = field(&job, "/id");
                    match args.format {
                        Format::Json => console.json_lines([&json!({"id": new, "retry_of": id})])?,
                        Format::Human => writeln!(console.out, "{id} -> {new}")?,
                    }
                }
                Err(CallError::Refused { message, status }) if status != 401 && status != 403 => {
                    refused += 1;
                    writeln!(console.err, "{id}: {message}")?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    let verb = if args.dry_run { "would run again" } else { "running again:" };
    writeln!(console.err, "{verb} {}", counted(retried, "job"))?;
    Ok(if refused > 0 { Exit::Failed } else { Exit::Success })
}
