//! `landbridge rollout`: rollouts of pipelines, named `PIPELINE/ROLLOUT`.

pub mod finish;

use std::path::Path;

use clap::Subcommand;

use super::{exit::Result, print::Console};

/// What to do with a rollout.
#[derive(Debug, Clone, Subcommand)]
pub enum RolloutCommand {
    /// Print the spec without a rollout that is at 100 %, as a diff
    Finish(finish::FinishArgs),
}

/// Runs the command.
pub fn execute(command: &RolloutCommand, config: &Path, console: &mut Console<'_>) -> Result {
    match command {
        RolloutCommand::Finish(args) => finish::execute(args, config, console),
    }
}
