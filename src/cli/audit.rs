//! `landbridge audit`: who did what, when, and why.

use std::path::Path;

use clap::Args;

use super::{
    connection::{Connection, Daemon},
    exit::{Exit, Result},
    print::{Console, Format, Table, field, items},
};
use crate::clock::{Clock, SystemClock, Timestamp, parse_span};

/// What to list
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  landbridge audit
  landbridge audit --since 7d --format json
  landbridge audit --since 2026-11-22T00:00:00Z --limit 1000")]
pub struct AuditArgs {
    /// From then on: a span such as 24h, or a time in RFC 3339
    #[arg(long, value_name = "SPAN|TIME", default_value = "24h", value_parser = parse_since)]
    pub since: Timestamp,
    /// At most this many entries, oldest first
    #[arg(long, short, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
    /// json: one entry a line
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// The daemon
    #[command(flatten)]
    pub connection: Connection,
}

pub(super) fn parse_since(text: &str) -> std::result::Result<Timestamp, String> {
    if let Ok(span) = parse_span(text) {
        return Ok(SystemClock.now() - span);
    }
    text.parse().map_err(|_| "write a span such as 24h or 7d, or a time such as 2026-11-22T00:00:00Z".to_owned())
}

/// Runs the command.
pub async fn execute(args: &AuditArgs, config: &Path, console: &mut Console<'_>) -> Result {
    let daemon = Daemon::new(&args.connection, config)?;
    let request = daemon.get(&["v1", "ops", "audit"]).query("since", &args.since.to_string());
    let audit = request.query("limit", &args.limit.to_string()).send().await?;
    let entries = items(&audit, "/data");
    if args.format == Format::Json {
        console.json_lines(entries)?;
        return Ok(Exit::Success);
    }
    let mut table = Table::new(&["AT", "ACTOR", "ACTION", "SUBJECT", "REASON"]);
    for entry in entries {
        table.row(["/at", "/actor", "/action", "/subject", "/reason"].map(|pointer| field(entry, pointer)));
    }
    if table.is_empty() {
        writeln!(console.err, "nothing since {}", args.since)?;
    } else {
        write!(console.out, "{table}")?;
    }
    if entries.len() as u64 == u64::from(args.limit) {
        writeln!(console.err, "there may be more: a higher --limit, or --since the last time shown")?;
    }
    Ok(Exit::Success)
}
