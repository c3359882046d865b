//! `landbridge store`: what is done to a store as a whole.

mod backup;
mod migrate;

use std::path::Path;

use clap::Subcommand;

use super::{exit::Result, print::Console};

/// Copies of a store
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Copy a SQLite store to a new file, also while a daemon works on it
    Backup(backup::BackupArgs),
    /// Move everything from a SQLite file into an empty PostgreSQL database
    Migrate(migrate::MigrateArgs),
}

/// Runs the command.
pub async fn execute(command: &StoreCommand, config: &Path, console: &mut Console<'_>) -> Result {
    match command {
        StoreCommand::Backup(args) => backup::execute(args, config, console),
        StoreCommand::Migrate(args) => migrate::execute(args, console).await,
    }
}
