//! `landbridge flag`: the levers that stand above rules and rollouts.
//!
//! Invariant: what a lever touches is printed before it is pulled and after.

use std::{path::Path, time::Duration};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    connection::{Connection, Daemon},
    exit::{Exit, Result},
    lever::Pull,
    print::{Console, Format, Table, count, counted, field, grouped, items, printable},
};
use crate::{
    clock::{format_span, parse_span},
    names::PipelineName,
};

/// What to do with flags.
#[derive(Debug, Clone, Subcommand)]
pub enum FlagCommand {
    /// List flags at every level, and what is in force
    List(ListArgs),
    /// Set a flag at run time, above all other levels
    Set(SetArgs),
    /// Take back what was set at run time
    Clear(ClearArgs),
}

/// How to list flags
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Example:
  landbridge flag list")]
pub struct ListArgs {
    /// json: the daemon's answer
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// The daemon
    #[command(flatten)]
    pub connection: Connection,
}

/// Which flag to set
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Flags: FORCE_<PROVIDER>_PROVIDER (such as FORCE_OPENAI_PROVIDER), DISABLE_FALLBACK, PAUSE.
A runtime flag is kept over restarts until it is cleared, or --clear-after has passed.
`false` overrides what a file, the environment or a spec says.

Examples:
  landbridge flag set FORCE_OPENAI_PROVIDER --reason \"bedrock is throttling\"
  landbridge flag set PAUSE --pipeline ticket-triage --clear-after 2h --reason \"bad prompts\"
  landbridge flag set FORCE_OPENAI_PROVIDER --dry-run --reason \"would it hold jobs?\"")]
pub struct SetArgs {
    /// The flag
    #[arg(value_name = "FLAG", value_parser = parse_flag)]
    pub flag: String,
    /// Its value
    #[arg(value_name = "true|false", default_value = "true", action = clap::ArgAction::Set)]
    pub value: bool,
    /// For this pipeline alone
    #[arg(long, short, value_name = "PIPELINE")]
    pub pipeline: Option<PipelineName>,
    /// Clear it by itself after this long
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    pub clear_after: Option<Duration>,
    /// Why; kept in the audit log
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Also cancel calls in flight that it would not have allowed; their jobs are queued again
    #[arg(long)]
    pub interrupt: bool,
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

/// Which flag to clear
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Only what was set at run time is taken back; what files, the environment and specs say then holds again.

Examples:
  landbridge flag clear FORCE_OPENAI_PROVIDER --reason \"bedrock is back\"
  landbridge flag clear PAUSE --pipeline ticket-triage --reason \"prompts mended\"")]
pub struct ClearArgs {
    /// The flag
    #[arg(value_name = "FLAG", value_parser = parse_flag)]
    pub flag: String,
    /// Of this pipeline alone
    #[arg(long, short, value_name = "PIPELINE")]
    pub pipeline: Option<PipelineName>,
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

/// Which providers there are is the daemon's to know; here only the form is checked.
fn parse_flag(text: &str) -> std::result::Result<String, String> {
    let flag = text.to_ascii_uppercase().replace('-', "_");
    let known = matches!(flag.as_str(), "PAUSE" | "DISABLE_FALLBACK")
        || flag
            .strip_prefix("FORCE_")
            .and_then(|rest| rest.strip_suffix("_PROVIDER"))
            .is_some_and(|name| !name.is_empty());
    if known { Ok(flag) } else { Err("there are FORCE_<PROVIDER>_PROVIDER, DISABLE_FALLBACK and PAUSE".to_owned()) }
}

/// Runs the command.
pub async fn execute(command: &FlagCommand, config: &Path, console: &mut Console<'_>) -> Result {
    match command {
        FlagCommand::List(args) => list(args, config, console).await,
        FlagCommand::Set(args) => set(args, config, console).await,
        FlagCommand::Clear(args) => clear(args, config, console).await,
    }
}

async fn list(args: &ListArgs, config: &Path, console: &mut Console<'_>) -> Result {
    let daemon = Daemon::new(&args.connection, config)?;
    let flags = daemon.get(&["v1", "ops", "flags"]).send().await?;
    if args.format == Format::Json {
        console.json(&flags)?;
        return Ok(Exit::Success);
    }
    let mut table = Table::new(&["FLAG", "SCOPE", "VALUE", "LEVEL", "SET BY", "SET AT", "CLEARS AFTER", "REASON"]);
    for flag in items(&flags, "/data") {
        table.row(
            ["/flag", "/scope", "/value", "/level", "/actor", "/set_at", "/clear_after", "/reason"]
                .map(|pointer| field(flag, pointer)),
        );
    }
    if table.is_empty() {
        writeln!(console.out, "no flag is set at any level")?;
    } else {
        write!(console.out, "{table}")?;
    }
    let mut effective = Table::new(&["PIPELINE", "FORCED", "PAUSED", "FALLBACK"]);
    for pipeline in items(&flags, "/effective") {
        let (forced, paused, off) =
            (forced_in_words(pipeline), is_set(pipeline, "/pause"), is_set(pipeline, "/disable_fallback"));
        if !forced.is_empty() || paused || off {
            let word = |condition, text: &str| if condition { text.to_owned() } else { String::new() };
            effective.row([field(pipeline, "/pipeline"), forced, word(paused, "paused"), word(off, "disabled")]);
        }
    }
    if !effective.is_empty() {
        write!(console.out, "\nin force:\n{effective}")?;
    }
    Ok(Exit::Success)
}

fn is_set(value: &Value, pointer: &str) -> bool {
    !matches!(value.pointer(pointer), None | Some(Value::Null | Value::Bool(false)))
}

fn forced_in_words(pipeline: &Value) -> String {
    items(pipeline, "/forced").iter().map(|forced| field(forced, "/provider")).collect::<Vec<_>>().join(", ")
}

async fn set(args: &SetArgs, config: &Path, console: &mut Console<'_>) -> Result {
    let daemon = Daemon::new(&args.connection, config)?;
    let mut body = json!({"flag": args.flag, "value": args.value, "reason": args.reason});
    if let Some(pipeline) = &args.pipeline {
        body["pipeline"] = json!(pipeline);
    }
    if args.interrupt {
        body["interrupt"] = json!(true);
    }
    if let Some(span) = args.clear_after {
        body["clear_after"] = json!(format_span(span));
    }
    let request = async |dry_run| {
        let mut body = body.clone();
        if dry_run {
            body["dry_run"] = json!(true);
        }
        Ok(daemon.post(&["v1", "ops", "flags"]).json(&body).send().await?)
    };
    let title = format!("{} {} for {}", args.flag, args.value, scope(args.pipeline.as_ref()));
    let pull = Pull { dry_run: args.dry_run, format: args.format };
    pull.by(request, |before| format!("{title} {}", touched(before)), |after| done("set", after), console).await
}

async fn clear(args: &ClearArgs, config: &Path, console: &mut Console<'_>) -> Result {
    let daemon = Daemon::new(&args.connection, config)?;
    let request = async |dry_run| {
        let mut request = daemon.delete(&["v1", "ops", "flags", &args.flag]).query("reason", &args.reason);
        if let Some(pipeline) = &args.pipeline {
            request = request.query("pipeline", pipeline.as_str());
        }
        if dry_run {
            request = request.query("dry_run", "true");
        }
        Ok(request.send().await?)
    };
    let title = format!("clearing {} for {}", args.flag, scope(args.pipeline.as_ref()));
    let pull = Pull { dry_run: args.dry_run, format: args.format };
    pull.by(request, |before| format!("{title} {}", touched(before)), |after| done("cleared", after), console).await
}

fn scope(pipeline: Option<&PipelineName>) -> String {
    pipeline.map_or("all pipelines".to_owned(), ToString::to_string)
}

fn done(verb: &str, after: &Value) -> String {
    match field(after, "/message") {
        message if message.is_empty() => format!("{verb}\n"),
        message => format!("{verb}: {}\n", printable(&message)),
    }
}

/// What a flag touches, in words and a table.
fn touched(answer: &Value) -> String {
    let pipelines = items(answer, "/touched/pipelines");
    let queued = pipelines.iter().map(|pipeline| count(pipeline, "/queued")).sum::<u64>();
    let mut text =
        format!("touches {} with {}", counted(pipelines.len() as u64, "pipeline"), counted(queued, "queued job"));
    text.push('\n');
    let mut table = Table::new(&["  PIPELINE", "QUEUED", "EFFECT"]);
    for pipeline in
        pipelines.iter().filter(|pipeline| count(pipeline, "/queued") > 0 || is_set(pipeline, "/would_hold"))
    {
        let effect = match field(pipeline, "/would_hold") {
            reason if reason.is_empty() => reason,
            reason => format!("held: {reason}"),
        };
        let name = format!("  {}", field(pipeline, "/pipeline"));
        table.row([name, grouped(count(pipeline, "/queued")), effect]);
    }
    if !table.is_empty() {
        text.push_str(&table.to_string());
    }
    let held = count(answer, "/touched/held_jobs");
    if held > 0 {
        text += &counted(held, "job");
        text += " will be held\n";
    }
    text
}
