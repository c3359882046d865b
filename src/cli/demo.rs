//! `landbridge demo`: its arguments.

use std::path::PathBuf;

use clap::Args;

/// Show the whole story in a minute on simulated endpoints
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Real prompts through the real daemon, in front of simulated OpenAI and Bedrock endpoints: jobs,
a live edit of a spec, a rollout, the kill switch, a report. Nothing is spent and nothing of
yours is changed: it works on copies in a folder of its own.

Examples:
  landbridge demo
  landbridge demo --keep /tmp/landbridge-demo

Exit codes: 0; 1 a step did not go as told")]
pub struct DemoArgs {
    /// Keep the demo's folder (specs, store, results) there
    #[arg(long, value_name = "FOLDER")]
    pub keep: Option<PathBuf>,
}
