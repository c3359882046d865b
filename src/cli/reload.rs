//! `landbridge reload`: the daemon reads its files again, now, and says what came of it.

use std::path::Path;

use clap::Args;
use serde_json::{Value, json};

use super::{
    connection::{Connection, Daemon},
    exit::{Exit, Failure, Result},
    plan::problems,
    print::{Console, Format, count, field, items},
};

/// What to reload
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Files are followed as they are saved; this is for scripts that want to know at once. A file
with errors keeps its last good version.

--override puts specs in force that violate the policy (`config/policy.yaml`), for as long
as they stay as they are; who did it, and why, is in `landbridge audit`.

Examples:
  landbridge reload
  landbridge reload --override 'incident 42: back to OpenAI in one step'

Exit codes: 0 everything is in force; 1 a file is broken or was refused")]
pub struct ReloadArgs {
    /// Apply what violates the policy, and say why
    #[arg(long = "override", value_name = "REASON")]
    pub override_reason: Option<String>,
    /// json: the report as one object
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// The daemon
    #[command(flatten)]
    pub connection: Connection,
}

/// Runs the command.
pub async fn execute(args: &ReloadArgs, config: &Path, console: &mut Console<'_>) -> Result {
    if args.override_reason.as_ref().is_some_and(|reason| reason.trim().is_empty()) {
        return Err(Failure::usage("--override wants a reason"));
    }
    let daemon = Daemon::new(&args.connection, config)?;
    let mut request = daemon.post(&["v1", "ops", "reload"]);
    if let Some(reason) = &args.override_reason {
        request = request.json(&json!({ "override": reason }));
    }
    // A report with broken files is an answer, not a refusal.
    let report = request.send_accepting(422).await?;
    if args.format == Format::Json {
        console.json(&report)?;
    } else {
        for problem in problems(&report) {
            writeln!(console.out, "{problem}\n")?;
        }
        let words = if report.get("changed") == Some(&Value::Bool(true)) { "in force" } else { "nothing changed" };
        writeln!(console.out, "generation {}: {words}", count(&report, "/generation"))?;
        for key in items(&report, "/needs_restart") {
            writeln!(console.out, "setting `{}` takes effect at the next start", field(key, ""))?;
        }
    }
    let clean = items(&report, "/files").iter().all(|file| file.get("valid") == Some(&Value::Bool(true)));
    Ok(if clean { Exit::Success } else { Exit::Failed })
}
