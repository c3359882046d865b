//! `landbridge plan`: what specs at hand would change for the jobs that a daemon has recorded.
//!
//! Invariant: specs go to the daemon, figures come back; jobs are decided where they are kept. Nothing is changed.

mod human;
mod markdown;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use serde_json::{Value, json};

pub(super) use self::human::problems;
use super::{
    connection::{Connection, Daemon},
    exit::{Exit, Failure, Result},
    local::Local,
    print::{Console, items},
};
use crate::{
    clock::Timestamp,
    watch::{self, Folders},
};

/// A million jobs whose prompts are looked at take some minutes.
const PATIENCE: Duration = Duration::from_mins(10);

/// What to plan
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
The specs at DIR (with the model definitions, flags and catalogue of the settings at hand,
where there are any) are sent to the daemon. It decides for its recorded jobs twice, by
these and by what runs, and answers with figures: no prompt leaves it, and no provider is
called. A key needs the scope `plan`.

Examples:
  landbridge plan
  landbridge plan pipelines --since 24h
  landbridge plan --url https://landbridge.internal --format markdown --detailed-exitcode

Exit codes: 0 planned; 1 a file is broken, or it failed; with --detailed-exitcode 2 when
something changes; 69 daemon not reachable")]
pub struct PlanArgs {
    /// The folder of specs; the settings' `pipelines` when none is given
    #[arg(value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Look at so many of the newest jobs [default: 10000]
    #[arg(long, value_name = "N", conflicts_with = "since", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub last: Option<u64>,
    /// Look at the jobs accepted since: a span such as 24h, or a time in RFC 3339
    #[arg(long, value_name = "SPAN|TIME", value_parser = super::audit::parse_since)]
    pub since: Option<Timestamp>,
    /// End with 2 when anything changes
    #[arg(long)]
    pub detailed_exitcode: bool,
    /// The form of the plan
    #[arg(long, value_enum, default_value_t)]
    pub format: PlanForm,
    /// The daemon
    #[command(flatten)]
    pub connection: Connection,
}

/// The form of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum PlanForm {
    /// For people
    #[default]
    Human,
    /// One JSON object
    Json,
    /// A comment on a pull request
    Markdown,
}

/// Runs the command.
pub async fn execute(args: &PlanArgs, config: &Path, console: &mut Console<'_>) -> Result {
    let files = read(args.folder.as_deref(), config)?;
    let daemon = Daemon::new(&args.connection, config)?;
    let mut body = json!({ "files": files });
    if let Some(last) = args.last {
        body["last"] = last.into();
    }
    if let Some(since) = args.since {
        body["since"] = since.to_string().into();
    }
    let plan = daemon.post(&["v1", "ops", "plan"]).json(&body).patient(PATIENCE).send().await?;
    match args.format {
        PlanForm::Human => write!(console.out, "{}", human::text(&plan))?,
        PlanForm::Json => console.json(&plan)?,
        PlanForm::Markdown => write!(console.out, "{}", markdown::comment(&plan))?,
    }
    let broken = items(&plan, "/files").iter().any(|file| file.get("valid") == Some(&Value::Bool(false)));
    let changed = plan.get("changed") == Some(&Value::Bool(true));
    Ok(match (broken, args.detailed_exitcode && changed) {
        (true, _) => Exit::Failed,
        (false, true) => Exit::Changed,
        (false, false) => Exit::Success,
    })
}

/// The files at hand, as the daemon wants them.
fn read(folder: Option<&Path>, config: &Path) -> Result<Value> {
    let local = Local::read(config)?;
    let [pipelines, models] = local.folders()?;
    let folders = Folders {
        pipelines: folder.map_or(pipelines, Path::to_owned),
        models: models.clone(),
        flags_file: config.with_file_name("flags.yaml"),
        catalog_file: config.with_file_name("catalog.yaml"),
        policy_file: config.with_file_name("policy.yaml"),
        settings_file: config.to_owned(),
    };
    if !folders.pipelines.is_dir() {
        return Err(Failure::new(format!(
            "{} is not a folder of specs; name the folder that holds them all",
            folders.pipelines.display()
        )));
    }
    let sources = watch::scan(&folders).sources;
    if !sources.unreadable.is_empty() {
        let problems: Vec<String> = sources.unreadable.values().map(ToString::to_string).collect();
        return Err(Failure::new(problems.join("\n\n")));
    }
    let texts = |files: BTreeMap<String, Vec<u8>>| -> BTreeMap<String, String> {
        files.into_iter().map(|(name, bytes)| (name, String::from_utf8_lossy(&bytes).into_owned())).collect()
    };
    let text = |bytes: Option<Vec<u8>>| bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let mut files = json!({ "specs": texts(sources.specs) });
    // Without a folder of definitions at hand, those in force are meant.
    if models.is_dir() {
        files["models"] = json!(texts(sources.models));
    }
    for (name, found) in [("flags", sources.flags), ("catalog", sources.catalog), ("policy", sources.policy)] {
        if let Some(found) = text(found) {
            files[name] = found.into();
        }
    }
    Ok(files)
}
