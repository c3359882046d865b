//! `landbridge rollout`: where rollouts stand, and moving those with steps.
//!
//! Invariant: every verdict is the daemon's, in its words; this only lays them out.

pub mod finish;

use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    connection::{Connection, Daemon},
    exit::{Exit, Failure, Result},
    print::{Console, Format, Table, count, field, grouped, items, printable},
};
use crate::names::{PipelineName, RolloutName};

/// What to do with rollouts.
#[derive(Debug, Clone, Subcommand)]
pub enum RolloutCommand {
    /// List rollouts: where each stands
    List(ListArgs),
    /// Show one rollout: its step, what it waits for, what each gate says
    Show(ShowArgs),
    /// Send it to its next step now; gates that failed and hold are waived
    Promote(MoveArgs),
    /// Approve of leaving a step that asks for an approval
    Approve(MoveArgs),
    /// Stop its steps and its clocks; the share stays
    Pause(MoveArgs),
    /// Let it go on; gates that failed and hold are waived
    Resume(MoveArgs),
    /// Send everybody back to the baseline, for good
    Abort(MoveArgs),
    /// Begin again, from before the first step, after a rollback or an abort
    Retry(MoveArgs),
    /// Print the spec without a rollout that is at 100 %, as a diff
    Finish(finish::FinishArgs),
}

/// How to list rollouts
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Example:
  landbridge rollout list")]
pub struct ListArgs {
    /// json: the daemon's answer
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// The daemon
    #[command(flatten)]
    pub connection: Connection,
}

/// Which rollout to show
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  landbridge rollout show ticket-triage/to-bedrock
  landbridge rollout show ticket-triage/to-bedrock --format json")]
pub struct ShowArgs {
    /// The rollout
    #[arg(value_name = "PIPELINE/ROLLOUT", value_parser = parse_which)]
    pub which: (PipelineName, RolloutName),
    /// json: the daemon's answer; `state` is running, paused, held, rolled_back, aborted or done
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// The daemon
    #[command(flatten)]
    pub connection: Connection,
}

/// Which rollout to move
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Only rollouts with `steps` are moved so; a `percent` is changed in its file. Abort beats promote,
whichever comes first. Promote and approve need a key with the scope `approve`, once keys exist.

Examples:
  landbridge rollout pause ticket-triage/to-bedrock --reason \"release freeze\"
  landbridge rollout promote ticket-triage/to-bedrock --reason \"seen enough\"")]
pub struct MoveArgs {
    /// The rollout
    #[arg(value_name = "PIPELINE/ROLLOUT", value_parser = parse_which)]
    pub which: (PipelineName, RolloutName),
    /// Why; kept in the audit log
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// json: the daemon's answer
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// The daemon
    #[command(flatten)]
    pub connection: Connection,
}

/// `PIPELINE/ROLLOUT`.
pub(super) fn parse_which(text: &str) -> std::result::Result<(PipelineName, RolloutName), String> {
    let (pipeline, rollout) = text.split_once('/').ok_or("write PIPELINE/ROLLOUT, such as ticket-triage/to-bedrock")?;
    let pipeline = pipeline.parse().map_err(|error: crate::names::InvalidName| error.to_string())?;
    let rollout = rollout.parse().map_err(|error: crate::names::InvalidName| error.to_string())?;
    Ok((pipeline, rollout))
}

/// Runs the command.
///
/// # Errors
/// [`Failure`] when the daemon cannot be asked, or refuses.
pub async fn execute(command: &RolloutCommand, config: &Path, console: &mut Console<'_>) -> Result {
    match command {
        RolloutCommand::List(args) => list(args, config, console).await,
        RolloutCommand::Show(args) => show(args, config, console).await,
        RolloutCommand::Promote(args) => act("promote", args, config, console).await,
        RolloutCommand::Approve(args) => act("approve", args, config, console).await,
        RolloutCommand::Pause(args) => act("pause", args, config, console).await,
        RolloutCommand::Resume(args) => act("resume", args, config, console).await,
        RolloutCommand::Abort(args) => act("abort", args, config, console).await,
        RolloutCommand::Retry(args) => act("retry", args, config, console).await,
        RolloutCommand::Finish(args) => finish::execute(args, config, console),
    }
}

async fn list(args: &ListArgs, config: &Path, console: &mut Console<'_>) -> Result {
    let daemon = Daemon::new(&args.connection, config)?;
    let rollouts = daemon.get(&["v1", "ops", "rollouts"]).send().await?;
    if args.format == Format::Json {
        console.json(&rollouts)?;
        return Ok(Exit::Success);
    }
    let mut table = Table::new(&["ROLLOUT", "STATE", "SHARE", "FROM", "TO", "WHERE IT STANDS"]);
    for rollout in items(&rollouts, "/data") {
        table.row([
            format!("{}/{}", field(rollout, "/pipeline"), field(rollout, "/rollout")),
            field(rollout, "/state").replace('_', " "),
            share(rollout),
            field(rollout, "/baseline"),
            field(rollout, "/candidate"),
            printable(&field(rollout, "/summary")),
        ]);
    }
    if table.is_empty() {
        writeln!(console.out, "no pipeline has a rollout")?;
    } else {
        write!(console.out, "{table}")?;
    }
    Ok(Exit::Success)
}

async fn show(args: &ShowArgs, config: &Path, console: &mut Console<'_>) -> Result {
    let daemon = Daemon::new(&args.connection, config)?;
    let (pipeline, rollout) = &args.which;
    let answer = daemon.get(&["v1", "ops", "rollouts", pipeline.as_str(), rollout.as_str()]).send().await?;
    tell(&answer, args.format, console)
}

async fn act(what: &str, args: &MoveArgs, config: &Path, console: &mut Console<'_>) -> Result {
    if args.reason.trim().is_empty() {
        return Err(Failure::usage("--reason is empty: say why, it is kept in the audit log"));
    }
    let daemon = Daemon::new(&args.connection, config)?;
    let (pipeline, rollout) = &args.which;
    let request = daemon.post(&["v1", "ops", "rollouts", pipeline.as_str(), rollout.as_str(), what]);
    let answer = request.json(&json!({ "reason": args.reason })).send().await?;
    tell(&answer, args.format, console)
}

fn share(rollout: &Value) -> String {
    format!("{} %", rollout.pointer("/percent").and_then(Value::as_f64).unwrap_or_default())
}

fn tell(rollout: &Value, format: Format, console: &mut Console<'_>) -> Result {
    if format == Format::Json {
        console.json(rollout)?;
        return Ok(Exit::Success);
    }
    let out = &mut console.out;
    writeln!(
        out,
        "{}/{}: {} at {}, from {} to {}",
        field(rollout, "/pipeline"),
        field(rollout, "/rollout"),
        field(rollout, "/state").replace('_', " "),
        share(rollout),
        field(rollout, "/baseline"),
        field(rollout, "/candidate"),
    )?;
    writeln!(out, "  {}", printable(&field(rollout, "/summary")))?;
    if rollout.pointer("/gated") != Some(&Value::Bool(true)) {
        return Ok(Exit::Success);
    }
    let reason = field(rollout, "/reason");
    if !reason.is_empty() {
        writeln!(out, "  since {}: {}", field(rollout, "/changed_at"), printable(&reason))?;
    }
    writeln!(
        out,
        "  counted: {} jobs of the candidate, {} of the baseline, {} pairs; {} pending",
        grouped(count(rollout, "/candidate_jobs")),
        grouped(count(rollout, "/baseline_jobs")),
        grouped(count(rollout, "/pairs")),
        grouped(count(rollout, "/pending")),
    )?;
    let mut table = Table::new(&["  GATE", "VERDICT", "SEEN", "IF IT FAILS"]);
    for gate in items(rollout, "/gates") {
        let waived = if gate.pointer("/waived") == Some(&Value::Bool(true)) { " (waived)" } else { "" };
        table.row([
            format!("  {}", field(gate, "/gate")),
            format!("{}{waived}", printable(&field(gate, "/words"))),
            printable(&field(gate, "/figures")),
            field(gate, "/on_fail"),
        ]);
    }
    if !table.is_empty() {
        write!(out, "{table}")?;
    }
    for warning in items(rollout, "/warnings") {
        writeln!(out, "  warning: {}", printable(warning.as_str().unwrap_or_default()))?;
    }
    Ok(Exit::Success)
}
