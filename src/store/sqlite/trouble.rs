//! What can go wrong with SQLite, in the words of [`StoreError`].
//!
//! Invariant: after a sync to disk failed, nobody knows what the disk holds; such an error is final until a restart.

use std::path::Path;

use rusqlite::{ErrorCode, ffi};

use crate::{
    ids::JobId,
    job::IllegalEvent,
    store::{StoreError, codes::BadColumn},
};

/// Why a piece of work on the database failed.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// SQLite says so.
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),
    /// A row holds what no row may hold.
    #[error("{0}")]
    Row(String),
}

impl From<IllegalEvent> for Trouble {
    fn from(illegal: IllegalEvent) -> Self {
        Self::Row(illegal.to_string())
    }
}

impl From<BadColumn> for Trouble {
    fn from(bad: BadColumn) -> Self {
        Self::Row(bad.0)
    }
}

impl From<serde_json::Error> for Trouble {
    fn from(error: serde_json::Error) -> Self {
        Self::Row(format!("a JSON column cannot be read: {error}"))
    }
}

impl Trouble {
    /// The same, saying which job it is about.
    pub fn about(self, job: JobId) -> Self {
        match self {
            Self::Row(what) => Self::Row(format!("{job}: {what}")),
            Self::Sql(error) => Self::Sql(error),
        }
    }

    /// Whether nothing may be written after it until a restart.
    pub fn is_final(&self) -> bool {
        let Self::Sql(error) = self else { return false };
        let unconfirmed = error.sqlite_error().is_some_and(|error| {
            matches!(
                error.extended_code,
                ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC | ffi::SQLITE_IOERR_CORRUPTFS
            )
        });
        unconfirmed || matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
    }

    /// Whether each of a group of commands should be tried alone: one of them may be to blame, or too big.
    pub fn is_worth_another_try(&self) -> bool {
        !self.is_final()
            && !matches!(self, Self::Sql(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy))
    }

    /// For callers: what happened to which file, and what to do.
    pub fn describe(&self, path: &Path) -> StoreError {
        let path = path.display();
        let error = match self {
            Self::Row(what) => return StoreError::Damaged(format!("{path}: {what}")),
            Self::Sql(error) => error,
        };
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => StoreError::Unwritable(format!(
                "{path}: the disk is full ({error}); nothing was lost or half-written, and work goes on by itself once \
                 there is space"
            )),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Damaged(format!(
                "{path}: {error}; nothing more is written to it: keep a copy of it with its -wal file, then restore a \
                 backup or salvage it with `sqlite3 {path} .recover`"
            )),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Busy(format!(
                "{path}: {error}; another program holds a lock on it: close it (a `sqlite3` shell, a backup)"
            )),
            Some(ErrorCode::SystemIoFailure) if self.is_final() => StoreError::Unwritable(format!(
                "{path}: the disk did not confirm a write ({error}); nothing more is written until a restart, which reads \
                 what the disk really holds: check the disk first"
            )),
            Some(ErrorCode::SystemIoFailure) => {
                StoreError::Unwritable(format!("{path}: {error}; check the disk, its quota and its mount"))
            }
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => StoreError::Unwritable(
                format!("{path}: {error}; it, its -wal and -shm files and their folder must be there and writable"),
            ),
            Some(ErrorCode::OutOfMemory) => StoreError::Busy(format!("{path}: {error}")),
            Some(ErrorCode::TooBig) => StoreError::Unwritable(format!("{path}: {error}; a text is larger than 1 GB")),
            _ => StoreError::Damaged(format!("{path}: {error}")),
        }
    }
}
