//! `landbridge jobs export`.

use std::path::{Path, PathBuf};

use clap::Args;
use futures_util::{StreamExt, stream};
use serde_json::Value;

use super::{list::parse_state, select::Selector};
use crate::{
    cli::{
        connection::{Connection, Daemon},
        exit::{Exit, Result},
        print::{Console, counted, field},
        results::{Output, batch_line},
    },
    job::State,
};

/// Jobs fetched at once.
const IN_FLIGHT: usize = 16;

/// The shape of exported lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Shape {
    /// OpenAI batch output lines; custom_id is the job's key, or its id where it has none.
    #[default]
    Openai,
    /// Jobs as the API shows them.
    Native,
}

/// Which jobs to write, and where
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Without --state, jobs that have ended are written. Newest first. A file appears when it is whole.

Examples:
  landbridge jobs export --batch monday -o results.jsonl
  landbridge jobs export --pipeline ticket-triage --state failed --shape native")]
pub struct ExportArgs {
    /// Which
    #[command(flatten)]
    pub selector: Selector,
    /// In this state; may be repeated
    #[arg(long, short, value_name = "STATE", value_parser = parse_state, conflicts_with = "ids")]
    pub state: Vec<State>,
    /// What a line looks like
    #[arg(long, value_enum, default_value_t)]
    pub shape: Shape,
    /// Where to; `-` is standard output
    #[arg(long, short, value_name = "OUT.jsonl", default_value = "-")]
    pub output: PathBuf,
    /// The daemon
    #[command(flatten)]
    pub connection: Connection,
}

/// Runs the command.
pub async fn execute(args: &ExportArgs, config: &Path, console: &mut Console<'_>) -> Result {
    const ENDED: &[State] = &[State::Succeeded, State::Failed, State::Cancelled, State::Expired];
    let states = if args.state.is_empty() { ENDED } else { &args.state };
    let daemon = Daemon::new(&args.connection, config)?;
    let mut output = Output::open(&args.output, console.out)?;
    let mut selected = args.selector.jobs(&daemon, states);
    let mut written: u64 = 0;
    while let Some(ids) = selected.next().await? {
        let daemon = &daemon;
        let mut jobs = stream::iter(ids)
            .map(|id| async move { daemon.get(&["v1", "jobs", &id.to_string()]).send().await })
            .buffered(IN_FLIGHT);
        while let Some(job) = jobs.next().await {
            output.line(&line(job?, args.shape))?;
            written += 1;
        }
    }
    output.finish()?;
    writeln!(console.err, "{} written", counted(written, "job"))?;
    Ok(Exit::Success)
}

fn line(job: Value, shape: Shape) -> Value {
    match shape {
        Shape::Native => job,
        Shape::Openai => {
            let key = [field(&job, "/idempotency_key"), field(&job, "/id")];
            let key = key.into_iter().find(|key| !key.is_empty()).unwrap_or_default();
            batch_line(&job, &key)
        }
    }
}
