//! `landbridge config`: the sets of files that were in force, what differs between them, and going back to one.
//!
//! Invariant: going back is the daemon's to do and to refuse; nothing on this machine's disk is changed.

use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    connection::{Connection, Daemon},
    exit::{Exit, Failure, Result},
    print::{Console, Format, Table, count, counted, field, items, printable, printable_lines},
};

/// What to do with generations.
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigCommand {
    /// List the generations that were in force
    History(HistoryArgs),
    /// Show what differs between two generations, in words and as text
    Diff(DiffArgs),
    /// Put an earlier generation in force, until its files are saved again
    Rollback(RollbackArgs),
}

/// How many to list
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Every change that takes effect makes a generation: its specs, model definitions, catalogue,
flags and policy. The last 200 are kept, for as long as the audit is.

Examples:
  landbridge config history
  landbridge config history --limit 50 --format json")]
pub struct HistoryArgs {
    /// At most this many, newest first
    #[arg(long, short, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub limit: u32,
    /// json: one generation a line
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// The daemon
    #[command(flatten)]
    pub connection: Connection,
}

/// What to compare
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  landbridge config diff 41            # against what is in force
  landbridge config diff 41 42")]
pub struct DiffArgs {
    /// The first generation
    #[arg(value_name = "GENERATION")]
    pub from: u64,
    /// The other; what is in force when none is given
    #[arg(value_name = "GENERATION")]
    pub to: Option<u64>,
    /// json: the daemon's answer, with both texts of each file
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// The daemon
    #[command(flatten)]
    pub connection: Connection,
}

/// Where to go back to
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
The daemon serves the files of that generation instead of those on its disk. Each file stays
so until it is saved again (then the saved version is followed), or until `--clear`; over
restarts too. Flags and the policy are always those of now. /readyz and `config history` say
what is held, `landbridge audit` who did it. Files on disk are not changed: mend them there.

Examples:
  landbridge config rollback 41 --reason 'labels went wrong with 42'
  landbridge config rollback --clear --reason 'mended in git'

Exit codes: 0 in force; 1 refused (a file of that generation would not serve today)")]
pub struct RollbackArgs {
    /// The generation, of `config history`
    #[arg(value_name = "GENERATION", required_unless_present = "clear", conflicts_with = "clear")]
    pub generation: Option<u64>,
    /// Follow the files on disk again
    #[arg(long)]
    pub clear: bool,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Though the policy forbids it; wants --reason
    #[arg(long = "override", requires = "reason")]
    pub against_policy: bool,
    /// json: the daemon's answer
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// The daemon
    #[command(flatten)]
    pub connection: Connection,
}

/// Runs the command.
pub async fn execute(command: &ConfigCommand, config: &Path, console: &mut Console<'_>) -> Result {
    match command {
        ConfigCommand::History(args) => history(args, config, console).await,
        ConfigCommand::Diff(args) => diff(args, config, console).await,
        ConfigCommand::Rollback(args) => rollback(args, config, console).await,
    }
}

async fn history(args: &HistoryArgs, config: &Path, console: &mut Console<'_>) -> Result {
    let daemon = Daemon::new(&args.connection, config)?;
    let mut lines: Vec<Value> = Vec::new();
    let mut before: Option<u64> = None;
    let mut running = 0;
    let mut pinned = Value::Null;
    while lines.len() < args.limit as usize {
        let left = (args.limit as usize - lines.len()).min(50);
        let mut request = daemon.get(&["v1", "ops", "config"]).query("limit", &left.to_string());
        if let Some(before) = before {
            request = request.query("before", &before.to_string());
        }
        let page = request.send().await?;
        running = count(&page, "/running");
        pinned = page.get("pinned").cloned().unwrap_or_default();
        lines.extend(items(&page, "/data").iter().cloned());
        before = page.get("next").and_then(Value::as_u64);
        if before.is_none() || items(&page, "/data").is_empty() {
            break;
        }
    }
    if args.format == Format::Json {
        console.json_lines(&lines)?;
        return Ok(Exit::Success);
    }
    let mut table = Table::new(&["GENERATION", "SINCE", "BY", "REASON", "CHANGES"]);
    for line in &lines {
        let number = count(line, "/generation");
        let mark = if number == running { " *" } else { "" };
        let changes = items(line, "/changes");
        let first = changes.first().map(|change| field(change, "")).unwrap_or_default();
        let more = if changes.len() > 1 { format!(" (and {} more)", changes.len() - 1) } else { String::new() };
        table.row([
            format!("{number}{mark}"),
            field(line, "/at"),
            field(line, "/actor"),
            field(line, "/reason"),
            format!("{first}{more}"),
        ]);
    }
    write!(console.out, "{table}")?;
    if !pinned.is_null() {
        writeln!(console.err, "{}", held(&pinned))?;
    }
    Ok(Exit::Success)
}

/// What is pinned, in words.
fn held(pinned: &Value) -> String {
    let files = items(pinned, "/files");
    let names: Vec<String> = files.iter().take(10).map(|file| field(file, "")).collect();
    let more = if files.len() > names.len() { " and others" } else { "" };
    printable(&format!(
        "{} held at generation {} until saved again: {}{more}; `landbridge config rollback --clear` follows the disk",
        counted(files.len() as u64, "file"),
        count(pinned, "/generation"),
        names.join(", ")
    ))
}

async fn diff(args: &DiffArgs, config: &Path, console: &mut Console<'_>) -> Result {
    let daemon = Daemon::new(&args.connection, config)?;
    let from = args.from.to_string();
    let mut request = daemon.get(&["v1", "ops", "config", &from, "diff"]);
    if let Some(to) = args.to {
        request = request.query("to", &to.to_string());
    }
    let answer = request.send().await?;
    if args.format == Format::Json {
        console.json(&answer)?;
        return Ok(Exit::Success);
    }
    let (from, to) = (count(&answer, "/from"), count(&answer, "/to"));
    let changes = items(&answer, "/changes");
    if changes.is_empty() && items(&answer, "/files").is_empty() {
        writeln!(console.out, "generations {from} and {to} are the same")?;
    }
    for change in changes {
        writeln!(console.out, "{}", printable(&field(change, "")))?;
    }
    for file in items(&answer, "/files") {
        let name = field(file, "/file");
        let text = |key: &str| field(file, key);
        let diff = similar::TextDiff::from_lines(&text("/before"), &text("/after"))
            .unified_diff()
            .header(&format!("{name} (generation {from})"), &format!("{name} (generation {to})"))
            .to_string();
        writeln!(console.out, "\n{}", printable_lines(diff.trim_end()))?;
    }
    Ok(Exit::Success)
}

async fn rollback(args: &RollbackArgs, config: &Path, console: &mut Console<'_>) -> Result {
    let daemon = Daemon::new(&args.connection, config)?;
    let mut body = json!({ "reason": args.reason, "override": args.against_policy });
    match args.generation {
        Some(generation) => body["generation"] = generation.into(),
        None if args.clear => body["clear"] = true.into(),
        None => return Err(Failure::usage("name a generation, or say --clear")),
    }
    let answer = daemon.post(&["v1", "ops", "config", "rollback"]).json(&body).send().await?;
    if args.format == Format::Json {
        console.json(&answer)?;
        return Ok(Exit::Success);
    }
    let running = count(&answer, "/generation");
    match args.generation {
        Some(generation) => {
            writeln!(console.out, "the files of generation {generation} are in force, as generation {running}")?;
        }
        None => writeln!(console.out, "the files on disk are followed again, as generation {running}")?,
    }
    if let Some(pinned) = answer.get("pinned").filter(|pinned| !pinned.is_null()) {
        writeln!(console.out, "{}", held(pinned))?;
    }
    let broken: Vec<String> = items(&answer, "/files")
        .iter()
        .filter(|file| file.get("valid") == Some(&Value::Bool(false)))
        .map(|file| field(file, "/file"))
        .collect();
    if !broken.is_empty() {
        writeln!(console.err, "broken, at their last good version: {}", printable(&broken.join(", ")))?;
    }
    Ok(Exit::Success)
}
