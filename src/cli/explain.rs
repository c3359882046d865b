//! `landbridge explain`: its arguments.

use std::path::PathBuf;

use clap::Args;

use super::print::Format;
use crate::names::PipelineName;

/// Say where a job would go, and each reason for it
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Decides with the specs and flags files at hand. Needs no daemon and calls no provider; what only
a daemon knows (runtime flags, rollbacks) is left out. `landbridge jobs why` explains real jobs.

Examples:
  landbridge explain job.json --pipeline ticket-triage
  echo '{\"body\":{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}}' | landbridge explain - -p ticket-triage

Exit codes: 0; 1 no such pipeline, or not a job; 78 bad settings")]
pub struct ExplainArgs {
    /// A job; `-` reads standard input
    #[arg(value_name = "JOB.json")]
    pub job: PathBuf,
    /// The pipeline of a job that names none
    #[arg(long, short, value_name = "PIPELINE")]
    pub pipeline: Option<PipelineName>,
    /// json: the decision and its reasons
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}
