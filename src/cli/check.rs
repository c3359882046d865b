//! `landbridge check`: its arguments.

use std::path::PathBuf;

use clap::Args;

/// How problems are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum CheckFormat {
    /// For people: the line under a caret.
    #[default]
    Human,
    /// One JSON object.
    Json,
    /// SARIF 2.1.0, for code hosts and editors.
    Sarif,
}

/// Validate specs and settings, and run the tests that specs carry
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Reports every problem of every file, with its line and what to write instead. Needs no daemon
and calls no provider. Without PATH: the settings and all that they name.

Examples:
  landbridge check
  landbridge check pipelines/ticket-triage.yaml --strict
  landbridge check --format sarif > landbridge.sarif

Exit codes: 0 no problems; 1 problems; 78 bad settings")]
pub struct CheckArgs {
    /// Spec files, or folders of them
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Warnings are problems too
    #[arg(long)]
    pub strict: bool,
    /// How to write problems
    #[arg(long, value_enum, default_value_t)]
    pub format: CheckFormat,
}
