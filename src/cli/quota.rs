//! `landbridge quota`: what providers grant, as far as it is known, and how much of it is used.

use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    connection::{Connection, Daemon},
    exit::{Exit, Result},
    print::{Console, Format, Table, count, field, items},
};
use crate::{
    names::{ProviderName, Region},
    quota::ProfileClass,
};

/// What to do with quotas.
#[derive(Debug, Clone, Subcommand)]
pub enum QuotaCommand {
    /// List the quotas in use: what is in force, where that comes from, and how much is used
    List(ListArgs),
    /// Set a quota at run time, before what the settings say
    Set(SetArgs),
    /// Take back what was set, and forget what was learned
    Reset(ResetArgs),
}

/// How to list quotas
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
FROM says where a limit comes from: granted (settings, or `quota set`), headers (the provider's), learned
(throttles), seeking (nobody knows yet), ramp (the provider wants heavy traffic to grow slowly).

Example:
  landbridge quota list")]
pub struct ListArgs {
    /// json: the daemon's answer
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// The daemon
    #[command(flatten)]
    pub connection: Connection,
}

/// Which quota to set
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
It counts at once, is kept over restarts, and stays until it is reset. At least one limit is needed.

Examples:
  landbridge quota set bedrock 'us.anthropic.claude-haiku-*' --region us-east-1 --tokens-per-minute 10000000 --reason \"increase granted\"
  landbridge quota set openai gpt-5.4-mini --requests-per-minute 500 --reason \"another team needs the rest\"")]
pub struct SetArgs {
    /// The provider
    #[arg(value_name = "PROVIDER")]
    pub provider: ProviderName,
    /// The model; * stands for any characters
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// Of this region alone
    #[arg(long, value_name = "REGION")]
    pub region: Option<Region>,
    /// Of inference profiles of this reach alone: in_region, geo or global
    #[arg(long, value_name = "REACH")]
    pub profile: Option<ProfileClass>,
    /// Requests a minute
    #[arg(long, value_name = "N")]
    pub requests_per_minute: Option<u64>,
    /// Tokens a minute
    #[arg(long, value_name = "N")]
    pub tokens_per_minute: Option<u64>,
    /// Tokens a day (UTC)
    #[arg(long, value_name = "N")]
    pub tokens_per_day: Option<u64>,
    /// Calls at once
    #[arg(long, value_name = "N")]
    pub concurrency: Option<u32>,
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

/// Which quota to reset
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Example:
  landbridge quota reset bedrock/us-east-1/geo/anthropic.claude-haiku-4-5-20251001-v1:0 --reason \"the account changed\"")]
pub struct ResetArgs {
    /// The quota, as `quota list` names it
    #[arg(value_name = "QUOTA")]
    pub name: String,
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

/// Runs the command.
///
/// # Errors
/// [`super::exit::Failure`] when the daemon cannot be asked, or refuses.
pub async fn execute(command: &QuotaCommand, config: &Path, console: &mut Console<'_>) -> Result {
    match command {
        QuotaCommand::List(args) => list(args, config, console).await,
        QuotaCommand::Set(args) => set(args, config, console).await,
        QuotaCommand::Reset(args) => reset(args, config, console).await,
    }
}

async fn list(args: &ListArgs, config: &Path, console: &mut Console<'_>) -> Result {
    let daemon = Daemon::new(&args.connection, config)?;
    let quotas = daemon.get(&["v1", "ops", "quotas"]).send().await?;
    if args.format == Format::Json {
        console.json(&quotas)?;
        return Ok(Exit::Success);
    }
    let mut table = Table::new(&["QUOTA", "LIMIT", "IN FORCE", "FROM", "USED", "IN FLIGHT", "IN LINE", "CLOSED"]);
    for quota in items(&quotas, "/data") {
        let closed = match field(quota, "/closed/why") {
            why if why.is_empty() => String::new(),
            why => format!("{why} until {}", field(quota, "/closed/until")),
        };
        let (name, flying, waiting) = (field(quota, "/quota"), count(quota, "/in_flight"), count(quota, "/waiting"));
        let rest = [flying.to_string(), waiting.to_string(), closed];
        let limits = items(quota, "/limits");
        if limits.is_empty() {
            table.row([name, "none known".into(), String::new(), String::new(), String::new()].into_iter().chain(rest));
            continue;
        }
        for limit in limits {
            let number = |pointer: &str| limit.pointer(pointer).and_then(Value::as_f64).unwrap_or_default();
            let cells = [
                name.clone(),
                field(limit, "/limit"),
                format!("{:.0}", number("/in_force")),
                field(limit, "/source"),
                format!("{:.0} %", number("/used") * 100.0),
            ];
            table.row(cells.into_iter().chain(rest.clone()));
        }
    }
    if table.is_empty() {
        writeln!(console.out, "no quota is in use yet: none has been called")?;
    } else {
        write!(console.out, "{table}")?;
    }
    let mut set = Table::new(&["SET AT RUN TIME", "LIMITS"]);
    for quota in items(&quotas, "/set") {
        let limits = ["requests_per_minute", "tokens_per_minute", "tokens_per_day", "concurrency"]
            .into_iter()
            .filter_map(|key| Some(format!("{key}: {}", quota.pointer(&format!("/quota/{key}"))?)))
            .collect::<Vec<_>>()
            .join(", ");
        set.row([field(quota, "/name"), limits]);
    }
    if !set.is_empty() {
        write!(console.out, "\n{set}")?;
    }
    Ok(Exit::Success)
}

async fn set(args: &SetArgs, config: &Path, console: &mut Console<'_>) -> Result {
    let daemon = Daemon::new(&args.connection, config)?;
    let mut quota = json!({ "provider": args.provider, "model": args.model });
    let limits = [
        ("region", json!(args.region)),
        ("profile", json!(args.profile)),
        ("requests_per_minute", json!(args.requests_per_minute)),
        ("tokens_per_minute", json!(args.tokens_per_minute)),
        ("tokens_per_day", json!(args.tokens_per_day)),
        ("concurrency", json!(args.concurrency)),
    ];
    for (key, value) in limits.into_iter().filter(|(_, value)| !value.is_null()) {
        quota[key] = value;
    }
    let body = json!({ "quota": quota, "reason": args.reason });
    let answer = daemon.post(&["v1", "ops", "quotas"]).json(&body).send().await?;
    tell(&answer, args.format, console)
}

async fn reset(args: &ResetArgs, config: &Path, console: &mut Console<'_>) -> Result {
    let daemon = Daemon::new(&args.connection, config)?;
    let body = json!({ "name": args.name, "reason": args.reason });
    let answer = daemon.post(&["v1", "ops", "quotas", "reset"]).json(&body).send().await?;
    tell(&answer, args.format, console)
}

fn tell(answer: &Value, format: Format, console: &mut Console<'_>) -> Result {
    match format {
        Format::Json => console.json(answer)?,
        Format::Human => writeln!(console.out, "{}", field(answer, "/message"))?,
    }
    Ok(Exit::Success)
}
