//! A copy of a database with its files while a daemon works on it.
//!
//! Invariant: the copy is one state of the database, checked, synced, and whole under its name or not there at all. It is
//! made through a connection of its own, in another process than the daemon's: the file's lock is not needed for reading.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use rusqlite::{Connection, OpenFlags};

use super::{home::beside, schema, trouble::Trouble};
use crate::store::{Result, StoreError};

/// What a copy holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// Jobs, live and ended.
    pub jobs: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Copies the database at `source` to a new file.
///
/// # Errors
/// [`StoreError`] naming the file and what to do; nothing is left under the new name then.
pub fn backup(source: &Path, target: &Path) -> Result<Copied> {
    let unwritable =
        |what: &str, error: &io::Error| StoreError::Unwritable(format!("{}: {what}: {error}", target.display()));
    if fs::symlink_metadata(target).is_ok() {
        return Err(StoreError::Unusable(format!(
            "{} is there already: a backup never replaces anything; choose another name",
            target.display()
        )));
    }
    if !source.is_file() {
        return Err(StoreError::Unusable(format!("there is no database {}", source.display())));
    }
    let partial = beside(target, &format!(".partial-{}", std::process::id()));
    // Made here, because SQLite would let others read it.
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)
        .map_err(|error| unwritable("the copy cannot be made", &error))?;
    let files = (beside(source, "-files"), beside(target, "-files"));
    // Before and after: a file's row is written after the file and deleted before it, so the copy has what its rows name.
    let made = copy_files(&files.0, &files.1).and_then(|()| copy(source, &partial)).and_then(|copied| {
        copy_files(&files.0, &files.1)?;
        File::open(&partial)
            .and_then(|file| file.sync_all())
            // Unlike a renaming, this never replaces what came there meanwhile.
            .and_then(|()| fs::hard_link(&partial, target))
            .and_then(|()| {
                File::open(target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")))
            })
            .and_then(|folder| folder.sync_all())
            .map_err(|error| unwritable("the copy cannot be finished", &error))?;
        Ok(copied)
    });
    let _ = fs::remove_file(&partial);
    made
}

fn copy(source: &Path, partial: &Path) -> Result<Copied> {
    let fault = |error: rusqlite::Error| Trouble::from(error).describe(source);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(source, flags).map_err(fault)?;
    conn.busy_timeout(super::LOCK_WAIT).map_err(fault)?;
    let application: i32 = conn.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(fault)?;
    if application != schema::APPLICATION {
        return Err(StoreError::Unusable(format!("{} is no landbridge database", source.display())));
    }
    let Some(name) = partial.to_str() else {
        return Err(StoreError::Unusable(format!("{} is not UTF-8", partial.display())));
    };
    conn.execute("VACUUM INTO ?1", [name]).map_err(|error| Trouble::from(error).describe(partial))?;
    drop(conn);
    let broken = |error: rusqlite::Error| Trouble::from(error).describe(partial);
    let copy = Connection::open_with_flags(partial, flags).map_err(broken)?;
    let sound: String = copy.query_row("PRAGMA integrity_check", [], |row| row.get(0)).map_err(broken)?;
    if sound != "ok" {
        return Err(StoreError::Damaged(format!("the copy of {} is not whole: {sound}", source.display())));
    }
    let jobs: i64 = copy.query_row("SELECT count(*) FROM jobs", [], |row| row.get(0)).map_err(broken)?;
    let bytes = fs::metadata(partial).map_or(0, |file| file.len());
    Ok(Copied { jobs: u64::try_from(jobs).unwrap_or(0), bytes })
}

/// Copies whole files that are not there yet, durably.
fn copy_files(from: &Path, to: &Path) -> Result<()> {
    let failed =
        |error: io::Error| StoreError::Unwritable(format!("{}: the files cannot be copied: {error}", to.display()));
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    DirBuilder::new().recursive(true).mode(0o700).create(to).map_err(failed)?;
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        // What still grows has another name.
        if path.extension().is_some() || copy.exists() {
            continue;
        }
        let growing = copy.with_extension("part");
        let copied = fs::copy(&path, &growing)
            .and_then(|_| File::open(&growing))
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&growing, &copy));
        match copied {
            // Deleted meanwhile: nobody names it any more.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done.map_err(failed)?,
        }
    }
    File::open(to).and_then(|folder| folder.sync_all()).map_err(failed)
}
