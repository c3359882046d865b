//! `landbridge jobs list`.

use std::path::Path;

use clap::Args;
use serde_json::Value;

use super::select::{Filter, Pages};
use crate::{
    cli::{
        connection::{Connection, Daemon},
        exit::{Exit, Result},
        print::{Console, Format, Table, age, field},
    },
    clock::{Clock, SystemClock, Timestamp},
    job::State,
};

/// Which jobs to list
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  landbridge jobs list --pipeline ticket-triage --state held
  landbridge jobs list --where metadata.customer=c-42 --limit 10
  landbridge jobs list --batch monday --state failed --format json | jq -r .id")]
pub struct ListArgs {
    /// Conditions
    #[command(flatten)]
    pub filter: Filter,
    /// In this state; may be repeated
    #[arg(long, short, value_name = "STATE", value_parser = parse_state)]
    pub state: Vec<State>,
    /// At most this many
    #[arg(long, short, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    /// Go on after this cursor of an earlier list
    #[arg(long, value_name = "CURSOR")]
    pub after: Option<String>,
    /// json: one job a line
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// The daemon
    #[command(flatten)]
    pub connection: Connection,
}

/// Reads a state.
pub fn parse_state(text: &str) -> std::result::Result<State, String> {
    use strum::IntoEnumIterator;
    text.parse().map_err(|_| {
        let known: Vec<&str> = State::iter().map(Into::into).collect();
        format!("there are {}", known.join(", "))
    })
}

/// Runs the command.
pub async fn execute(args: &ListArgs, config: &Path, console: &mut Console<'_>) -> Result {
    let daemon = Daemon::new(&args.connection, config)?;
    let mut pages = Pages::new(&daemon, &args.filter, &args.state).after(args.after.clone());
    let mut left = args.limit;
    let mut table = Table::new(&["ID", "STATE", "PIPELINE", "TARGET", "ATTEMPTS", "AGE", "REASON"]);
    let now = SystemClock.now();
    while left > 0 {
        let Some(jobs) = pages.next(left).await? else { break };
        left = left.saturating_sub(u32::try_from(jobs.len()).unwrap_or(u32::MAX));
        match args.format {
            Format::Json => console.json_lines(&jobs)?,
            Format::Human => jobs.iter().for_each(|job| table.row(row(job, now))),
        }
    }
    if args.format == Format::Human {
        if table.is_empty() {
            writeln!(console.err, "no jobs")?;
        } else {
            write!(console.out, "{table}")?;
        }
    }
    if let Some(cursor) = pages.cursor() {
        writeln!(console.err, "there may be more: --after {cursor}, or a higher --limit")?;
    }
    Ok(Exit::Success)
}

fn row(job: &Value, now: Timestamp) -> [String; 7] {
    let reason = [field(job, "/reason_code"), field(job, "/error/code"), field(job, "/error/type")];
    [
        field(job, "/id"),
        field(job, "/state"),
        field(job, "/pipeline"),
        field(job, "/target"),
        field(job, "/attempt_count"),
        age(&field(job, "/created_at"), now),
        reason.into_iter().find(|reason| !reason.is_empty()).unwrap_or_default(),
    ]
}
