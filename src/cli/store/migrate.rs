//! `landbridge store migrate`: from one SQLite file to a shared PostgreSQL database.

use std::{path::Path, sync::Arc};

use clap::Args;

use super::super::{
    exit::{Exit, Failure, Result},
    print::{Console, counted, grouped},
};
use crate::{
    clock::SystemClock,
    store::{
        PostgresStore, SqliteStore,
        moving::{self, Step},
        postgres::{PostgresOptions, check_address},
    },
};

/// Where from, and where to
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Stop the daemon first: the file is locked while it runs. Everything moves: jobs with their prompts and results,
the ledger, spending, levers and the audit. A move that was broken off goes on where it stopped when the same
command is run again; at the end every row is read back and compared. The file stays as it is. Afterwards, point
`store` at the database, and never start a daemon on the file again: both would work off the same jobs.

Examples:
  landbridge store migrate sqlite:data/landbridge.db postgres://landbridge@db/landbridge?sslmode=verify-full
  DATABASE_URL=… landbridge store migrate sqlite:data/landbridge.db env:DATABASE_URL")]
pub struct MigrateArgs {
    /// The SQLite store
    #[arg(value_name = "sqlite:PATH")]
    pub from: String,
    /// The database: an address, or the environment variable that holds one (a password in an argument can be seen
    /// by every user of this machine)
    #[arg(value_name = "postgres://…|env:NAME")]
    pub to: String,
}

/// Runs the command.
pub async fn execute(args: &MigrateArgs, console: &mut Console<'_>) -> Result {
    let Some(path) = args.from.strip_prefix("sqlite:").map(Path::new) else {
        return Err(Failure::usage("name the store to move as `sqlite:PATH`; other stores are not moved"));
    };
    let url = match args.to.strip_prefix("env:") {
        None => args.to.clone(),
        Some(name) => {
            std::env::var(name).map_err(|_| Failure::usage(format!("the environment variable {name} is not set")))?
        }
    };
    check_address(&url).map_err(|error| Failure::usage(error.to_string()))?;
    if !path.is_file() {
        return Err(Failure::new(format!("there is no database {}", path.display())));
    }
    let failed = |error: crate::store::StoreError| Failure::new(error.to_string());
    crate::provider::install_crypto();
    let source = SqliteStore::open(path, Arc::new(SystemClock)).map_err(failed)?;
    let target = PostgresStore::open(&url, PostgresOptions::default()).await.map_err(failed)?;
    let progress = console.progress;
    let err = &mut console.err;
    let moved = moving::migrate(&source, &target, |step, part, rows| {
        if progress {
            let doing = match step {
                Step::Moving => "moved",
                Step::Checking => "read back",
            };
            // A terminal that went away stops nothing.
            let _ = write!(err, "\r{part}: {} {doing}    ", grouped(rows));
        }
    })
    .await;
    if progress {
        writeln!(console.err)?;
    }
    for part in moved.map_err(failed)? {
        writeln!(console.out, "{}: {} moved and compared", part.part, counted(part.rows, "row"))?;
    }
    writeln!(
        console.out,
        "everything moved; point `store` at the database, and start no daemon on {} again",
        path.display()
    )?;
    Ok(Exit::Success)
}
