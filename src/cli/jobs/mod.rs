//! `landbridge jobs`: the queue, seen and steered from outside.
//!
//! Invariant: everything is asked of the daemon page by page; no command holds more than a page of jobs.

pub mod cancel;
pub mod export;
pub mod list;
pub mod retry;
pub mod select;
pub mod show;
pub mod wait;

use std::path::Path;

use clap::Subcommand;

use super::{exit::Result, print::Console};

/// What to do with jobs.
#[derive(Debug, Clone, Subcommand)]
pub enum JobsCommand {
    /// List jobs, newest first
    List(list::ListArgs),
    /// Show jobs with their attempts and answers
    Show(show::ShowArgs),
    /// Say why jobs stand where they do, and how each decision came about
    Why(show::WhyArgs),
    /// Cancel jobs that have not ended
    Cancel(cancel::CancelArgs),
    /// Run ended jobs again, as new jobs
    Retry(retry::RetryArgs),
    /// Wait until jobs have ended
    Wait(wait::WaitArgs),
    /// Write jobs and their results as JSON lines
    Export(export::ExportArgs),
}

/// Runs the command.
pub async fn execute(command: &JobsCommand, config: &Path, console: &mut Console<'_>) -> Result {
    match command {
        JobsCommand::List(args) => list::execute(args, config, console).await,
        JobsCommand::Show(args) => show::execute(args, config, console).await,
        JobsCommand::Why(args) => show::execute_why(args, config, console).await,
        JobsCommand::Cancel(args) => cancel::execute(args, config, console).await,
        JobsCommand::Retry(args) => retry::execute(args, config, console).await,
        JobsCommand::Wait(args) => wait::execute(args, config, console).await,
        JobsCommand::Export(args) => export::execute(args, config, console).await,
    }
}
