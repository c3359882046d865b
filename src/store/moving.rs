//! Moving everything from a SQLite file to a PostgreSQL database.
//!
//! Invariant: the file is only read, but that what its last daemon left running is taken back first. Pages are whole; a move
//! that was broken off goes on where it stopped. It has succeeded when every row was read back and is the same.

use strum::IntoEnumIterator;

use super::{
    PostgresStore, Result, SqliteStore, Store, StoreError,
    postgres::{Cursor, Progress},
    transfer::{Part, Sum},
};

/// Rows of one page: a transaction of some tens of milliseconds.
const PAGE: usize = 500;

/// Bytes of a file that move at once.
const PIECE: usize = 1 << 20;

/// How a move goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Rows are being written.
    Moving,
    /// Rows are being read back.
    Checking,
}

/// What was moved of one kind of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// `jobs`, `attempts`, …
    pub part: String,
    /// How many rows.
    pub rows: u64,
}

/// Moves everything; `tell` hears of each page.
///
/// # Errors
/// [`StoreError`] with what to do; running it again goes on where it stopped.
pub async fn migrate(
    source: &SqliteStore,
    target: &PostgresStore,
    mut tell: impl FnMut(Step, &str, u64),
) -> Result<Vec<Moved>> {
    // Nobody else has the file, so whatever runs in it is of a daemon that is gone.
    let node = source.local_node();
    source.register(node).await?;
    source.deregister(node).await?;
    let name = node.to_string();
    target.start_move(&name, &source.fingerprint().await?).await?;
    let mut moved = Vec::new();
    for part in Part::iter() {
        let mut progress = target.move_progress(&name, part).await?;
        loop {
            let (rows, next) = source.export(part, progress.after.clone(), PAGE).await?;
            let Some(after) = next else { break };
            progress = Progress { after, sum: progress.sum.with(&rows) };
            target.import(&name, part, &rows, &progress).await?;
            tell(Step::Moving, &part.to_string(), progress.sum.rows);
        }
        moved.push((part, progress.sum));
    }
    for (part, expected) in &moved {
        let (mut sum, mut cursor) = (Sum::default(), Cursor::default());
        while let Some((rows, next)) = target.read_back(*part, cursor, PAGE).await? {
            sum = sum.with(&rows);
            cursor = next;
            tell(Step::Checking, &part.to_string(), sum.rows);
        }
        if sum != *expected {
            return Err(StoreError::Damaged(format!(
                "{part}: {} rows were moved and {} read back, or their contents differ; empty the database (`DROP SCHEMA \
                 landbridge CASCADE`) and move again",
                expected.rows, sum.rows
            )));
        }
    }
    let contents = move_contents(source, target, &mut tell).await?;
    let (before, after) = (source.counts().await?, target.counts().await?);
    if before != after {
        return Err(StoreError::Damaged(format!(
            "the two stores count their jobs differently: {before:?}, {after:?}; empty the database and move again"
        )));
    }
    let rows = moved.into_iter().map(|(part, sum)| Moved { part: part.to_string(), rows: sum.rows });
    Ok(rows.chain([Moved { part: "contents".to_owned(), rows: contents }]).collect())
}

/// Moves files, and reads each back. What was not whole when the daemon stopped nobody names: it stays behind.
async fn move_contents(
    source: &SqliteStore,
    target: &PostgresStore,
    tell: &mut impl FnMut(Step, &str, u64),
) -> Result<u64> {
    let mut moved = 0;
    for id in source.contents().await? {
        if source.read_content(&id, 0, 1).await?.is_none() {
            continue;
        }
        if target.read_content(&id, 0, 1).await?.is_none() {
            // Begun by a move that was broken off.
            target.delete_content(&id).await?;
            let mut at = 0;
            while let Some(bytes) = source.read_content(&id, at, PIECE).await?.filter(|bytes| !bytes.is_empty()) {
                let length = bytes.len() as u64;
                target.write_content(&id, at, bytes).await?;
                at += length;
            }
            target.seal_content(&id).await?;
        }
        let mut at = 0;
        loop {
            let bytes = source.read_content(&id, at, PIECE).await?;
            if bytes != target.read_content(&id, at, PIECE).await? {
                return Err(StoreError::Damaged(format!(
                    "content {id} was moved and read back otherwise; empty the database and move again"
                )));
            }
            match bytes {
                Some(bytes) if !bytes.is_empty() => at += bytes.len() as u64,
                _ => break,
            }
        }
        moved += 1;
        tell(Step::Moving, "contents", moved);
    }
    Ok(moved)
}

#[cfg(test)]
mod tests;
