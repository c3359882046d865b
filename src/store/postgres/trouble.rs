//! What can go wrong with PostgreSQL, in the words of [`StoreError`].
//!
//! Invariant: an error says what to do; no message holds a password. What may pass by itself is [`StoreError::Busy`].

use std::time::Duration;

use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::{
    ids::JobId,
    job::IllegalEvent,
    store::{StoreError, codes::BadColumn},
};

/// Why a piece of work on the database failed.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The server says so, or the way to it does.
    #[error("{}", words(.0))]
    Sql(#[from] tokio_postgres::Error),
    /// No connection could be had.
    #[error("{0}")]
    NoConnection(String),
    /// The server did not answer in time; the connection was given up.
    #[error("no answer within {0:?}")]
    Silent(Duration),
    /// Whether a transaction was committed could not be found out.
    #[error("{what}")]
    InDoubt {
        /// What happened.
        what: String,
        /// The transaction's receipt, to ask for again.
        receipt: Uuid,
    },
    /// A row holds what no row may hold.
    #[error("{0}")]
    Row(String),
    /// The database is not for this program.
    #[error("{0}")]
    Unusable(String),
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

/// The server's own words, with its code; the driver alone says only `db error`.
fn words(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => {
            let detail = db.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
            format!("{}{detail} [{}]", db.message(), db.code().code())
        }
        None => match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}

/// Classes of server errors that pass by themselves: connections, resources, locks, restarts.
const PASSING: [&str; 5] = ["08", "40", "53", "55", "57"];

impl Trouble {
    /// The same, saying which job it is about.
    pub fn about(self, job: JobId) -> Self {
        match self {
            Self::Row(what) => Self::Row(format!("{job}: {what}")),
            other => other,
        }
    }

    fn state(&self) -> Option<&SqlState> {
        match self {
            Self::Sql(error) => error.code(),
            _ => None,
        }
    }

    /// Whether the same work may well succeed when it is tried again.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::NoConnection(_) | Self::Silent(_) => true,
            Self::Sql(error) => match error.code() {
                // Not the server's words but the connection's: it broke.
                None => error.is_closed() || std::error::Error::source(error).is_some(),
                Some(code) if *code == SqlState::DISK_FULL || *code == SqlState::CONFIG_FILE_ERROR => false,
                // A standby that was just a primary, or will be: another connection may lead to the right server.
                Some(code) if *code == SqlState::READ_ONLY_SQL_TRANSACTION => true,
                Some(code) => PASSING.iter().any(|class| code.code().starts_with(class)),
            },
            Self::InDoubt { .. } | Self::Row(_) | Self::Unusable(_) => false,
        }
    }

    /// Whether nothing was committed for sure: the server refused the work.
    pub fn is_refusal(&self) -> bool {
        self.state().is_some()
    }

    /// For callers: what happened to which database, and what to do.
    pub fn describe(&self, name: &str) -> StoreError {
        let text = |advice: &str| format!("{name}: {self}{advice}");
        let Some(code) = self.state() else {
            return match self {
                Self::Row(_) => StoreError::Damaged(text("")),
                Self::Unusable(_) => StoreError::Unusable(text("")),
                _ => StoreError::Busy(text("")),
            };
        };
        match code.code() {
            "53100" => StoreError::Unwritable(text(
                "; the database server's disk is full: nothing was lost or half-written, and work goes on by itself once \
                 there is space",
            )),
            "25006" => StoreError::Unwritable(text(
                "; this server takes no writes: it is a standby, or was set read-only; name the primary in `store`",
            )),
            "28P01" | "28000" => {
                StoreError::Unusable(text("; check user and password of `store`, and the server's pg_hba.conf"))
            }
            "3D000" => StoreError::Unusable(text("; create the database first: `createdb`")),
            "42501" => StoreError::Unusable(text(
                "; the user of `store` must own the schema `landbridge`, or be allowed to create it",
            )),
            "42P01" | "42703" | "3F000" => StoreError::Unusable(text(
                "; the schema `landbridge` is not whole: it was changed by hand, or written by another version",
            )),
            _ if self.is_passing() => StoreError::Busy(text("")),
            "XX000" | "XX001" | "XX002" => {
                StoreError::Damaged(text("; see the server's log, and check its disk before anything else"))
            }
            _ => StoreError::Damaged(text("")),
        }
    }
}
