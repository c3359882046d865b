//! `landbridge store backup`: a consistent copy of a SQLite store.

use std::path::{Path, PathBuf};

use clap::Args;

use super::super::{
    exit::{Exit, Failure, Result},
    local::Local,
    print::{Console, counted, grouped},
};
use crate::store::sqlite;

/// What to copy, and where to
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
The copy is one state of the store, checked and synced to disk. A daemon may go on working meanwhile. Nothing is
ever replaced: give each backup a name of its own. To restore, stop the daemon, put the copy in the place of the
store's file (without the -wal and -shm files beside it), and start the daemon.

A store on PostgreSQL is backed up with its own tools: pg_dump, pg_basebackup, or your provider's snapshots.

Examples:
  landbridge store backup /backups/landbridge-$(date +%F).db
  landbridge store backup copy.db --from sqlite:/srv/landbridge/data/landbridge.db")]
pub struct BackupArgs {
    /// The file to write; it must not be there yet
    pub file: PathBuf,
    /// The store to copy, instead of the one that the settings name
    #[arg(long, value_name = "sqlite:PATH")]
    pub from: Option<String>,
}

/// Runs the command.
pub fn execute(args: &BackupArgs, config: &Path, console: &mut Console<'_>) -> Result {
    let store = match &args.from {
        Some(store) => store.clone(),
        None => Local::read(config)?.store()?,
    };
    let Some(source) = store.strip_prefix("sqlite:") else {
        return Err(Failure::usage(match store.split_once(':').map(|(scheme, _)| scheme) {
            Some("postgres" | "postgresql") => {
                "the store is on PostgreSQL, which is backed up with its own tools, such as pg_dump"
            }
            Some("memory") => "the store is in memory: there is nothing to back up",
            _ => "name a SQLite store, as `sqlite:PATH`",
        }));
    };
    let copied = sqlite::backup(Path::new(source), &args.file).map_err(|error| Failure::new(error.to_string()))?;
    writeln!(
        console.out,
        "{}: {}, {} bytes, checked",
        args.file.display(),
        counted(copied.jobs, "job"),
        grouped(copied.bytes)
    )?;
    Ok(Exit::Success)
}
