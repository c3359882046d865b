//! Files that callers upload, and those that batches write.
//!
//! Invariant: a file's row is written after its content is durable and deleted before its content is. A content that no
//! row names (a crash, an upload cut short) is swept away.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::Engine;
use crate::{
    access::Caller,
    clock::Timestamp,
    names::PipelineName,
    store::{DocumentChange, DocumentKind, DocumentPage, Result, Store, StoreError},
};

/// Bytes written, or read, in one go.
pub const PIECE: usize = 1 << 20;
/// A content that no row names is left alone for so long: its upload may be under way.
const ORPHAN_AGE: Duration = Duration::from_hours(24);
/// Rows looked at in one go.
const PAGE: u32 = 500;

/// What is known of a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileRecord {
    /// `file-…`; sorts by age.
    pub id: String,
    /// Its length.
    pub bytes: u64,
    /// When it was there.
    pub created_at: Timestamp,
    /// When it goes.
    pub expires_at: Option<Timestamp>,
    /// As the caller calls it.
    pub filename: String,
    /// `batch`, or `batch_output`.
    pub purpose: String,
    /// Who uploaded it, or whose batch wrote it.
    pub owner: String,
    /// The pipelines whose work is in it, as far as that is known.
    #[serde(default)]
    pub pipelines: BTreeSet<PipelineName>,
}

impl FileRecord {
    /// Whether a caller may know of it: its own, or all of it within the caller's pipelines.
    pub fn is_seen_by(&self, caller: &Caller) -> bool {
        caller.owns(&self.owner)
            || (caller.may(crate::access::Scope::Read)
                && (!caller.is_bound()
                    || (!self.pipelines.is_empty() && self.pipelines.iter().all(|name| caller.reaches(name)))))
    }

    /// The change that writes its row.
    pub fn change(&self) -> DocumentChange {
        let value = serde_json::to_value(self).unwrap_or_default();
        DocumentChange { kind: DocumentKind::File, key: self.id.clone(), value: Some(value) }
    }
}

/// A new file's id.
pub fn new_file_id() -> String {
    format!("file-{}", uuid::Uuid::now_v7().simple())
}

/// A content being written. Dropped before it is sealed, it is deleted.
pub struct ContentWriter {
    store: Arc<dyn Store>,
    id: String,
    written: u64,
    pending: BytesMut,
    sealed: bool,
}

impl ContentWriter {
    /// Begins the content of this id; what an earlier try left of it is deleted first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn begin(store: Arc<dyn Store>, id: String) -> Result<Self> {
        store.delete_content(&id).await?;
        Ok(Self { store, id, written: 0, pending: BytesMut::new(), sealed: false })
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.written + self.pending.len() as u64
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= PIECE { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let piece = self.pending.split().freeze();
        let length = piece.len() as u64;
        self.store.write_content(&self.id, self.written, piece).await?;
        self.written += length;
        Ok(())
    }

    /// Makes it durable; how many bytes it has.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn seal(mut self) -> Result<u64> {
        self.flush().await?;
        self.store.seal_content(&self.id).await?;
        self.sealed = true;
        Ok(self.written)
    }
}

impl Drop for ContentWriter {
    fn drop(&mut self) {
        if self.sealed || self.written == 0 {
            return;
        }
        let (store, id) = (self.store.clone(), std::mem::take(&mut self.id));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = store.delete_content(&id).await {
                    tracing::warn!(id, %error, "an upload that was cut short could not be deleted; the sweep does it");
                }
            });
        }
    }
}

/// Reads a content line by line.
pub struct Lines {
    store: Arc<dyn Store>,
    id: String,
    at: u64,
    pending: BytesMut,
    scanned: usize,
    number: u64,
    ended: bool,
    longest: usize,
}

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// Its number from 1, and its bytes without the line end.
    Whole(u64, Bytes),
    /// Its number; it has more bytes than are taken.
    TooLong(u64),
}

impl Lines {
    /// The lines of a content, none of more than `longest` bytes.
    pub fn of(store: Arc<dyn Store>, id: &str, longest: usize) -> Self {
        Self { store, id: id.to_owned(), at: 0, pending: BytesMut::new(), scanned: 0, number: 0, ended: false, longest }
    }

    /// The next line that is not blank; `None` at the end.
    ///
    /// # Errors
    /// [`StoreError`]; a content that is gone is `Damaged`.
    pub async fn next(&mut self) -> Result<Option<Line>> {
        loop {
            let found = self.pending.get(self.scanned..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n'));
            if let Some(end) = found {
                let mut line = self.pending.split_to(self.scanned + end + 1);
                line.truncate(self.scanned + end);
                self.scanned = 0;
                self.number += 1;
                if let Some(line) = self.shape(line.freeze()) {
                    return Ok(Some(line));
                }
                continue;
            }
            self.scanned = self.pending.len();
            if self.ended {
                if self.pending.is_empty() {
                    return Ok(None);
                }
                self.number += 1;
                self.scanned = 0;
                let line = self.pending.split().freeze();
                if let Some(line) = self.shape(line) {
                    return Ok(Some(line));
                }
                return Ok(None);
            }
            if self.pending.len() > self.longest {
                // Nothing of it is wanted; its end still has to be found.
                self.pending.truncate(self.longest + 1);
                self.scanned = self.pending.len();
                if !self.skip_line().await? {
                    self.ended = true;
                }
                self.number += 1;
                return Ok(Some(Line::TooLong(self.number)));
            }
            self.fill().await?;
        }
    }

    /// Drops bytes up to the next line end; whether there was one.
    async fn skip_line(&mut self) -> Result<bool> {
        loop {
            self.pending.clear();
            self.scanned = 0;
            self.fill().await?;
            if self.ended {
                return Ok(false);
            }
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let _rest_of_the_line = self.pending.split_to(end + 1);
                return Ok(true);
            }
        }
    }

    async fn fill(&mut self) -> Result<()> {
        let piece = self.store.read_content(&self.id, self.at, PIECE / 4).await?;
        let piece = piece.ok_or_else(|| StoreError::Damaged(format!("the content of {} is gone", self.id)))?;
        self.ended = piece.is_empty();
        self.at += piece.len() as u64;
        self.pending.extend_from_slice(&piece);
        Ok(())
    }

    fn shape(&self, line: Bytes) -> Option<Line> {
        if line.len() > self.longest {
            return Some(Line::TooLong(self.number));
        }
        let line = match (self.number, line.strip_prefix(b"\xef\xbb\xbf")) {
            (1, Some(_)) => line.slice(3..),
            _ => line,
        };
        (!line.trim_ascii().is_empty()).then_some(Line::Whole(self.number, line))
    }
}

impl Engine {
    /// A file by its id, unless its time is over.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn file(&self, id: &str) -> Result<Option<FileRecord>> {
        let value = self.store.document(DocumentKind::File, id).await?;
        let file: Option<FileRecord> = value.and_then(|value| serde_json::from_value(value).ok());
        Ok(file.filter(|file| file.expires_at.is_none_or(|end| self.clock.now() < end)))
    }

    /// Deletes a file: its row, then its content.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_file(&self, id: &str) -> Result<()> {
        let change = DocumentChange { kind: DocumentKind::File, key: id.to_owned(), value: None };
        self.store.apply(vec![change], None).await?;
        self.store.delete_content(id).await
    }

    /// Deletes files whose time is over, and contents that no row names.
    pub(super) async fn sweep_files(&self) -> Result<()> {
        let now = self.clock.now();
        let mut known = BTreeSet::new();
        let mut page = DocumentPage { kind: DocumentKind::File, after: None, descending: false, limit: PAGE };
        loop {
            let rows = self.store.documents_page(page.clone()).await?;
            let Some((last, _)) = rows.last() else { break };
            page.after = Some(last.clone());
            for (id, value) in rows {
                let file: Option<FileRecord> = serde_json::from_value(value).ok();
                let over = file.is_some_and(|file| file.expires_at.is_some_and(|end| end <= now));
                if over && !self.batches.reads(&id) {
                    self.delete_file(&id).await?;
                } else {
                    known.insert(id);
                }
            }
        }
        for id in self.store.contents().await? {
            if !known.contains(&id) && is_older(&id, now - ORPHAN_AGE) {
                tracing::info!(id, "a content that belongs to no file is deleted");
                self.store.delete_content(&id).await?;
            }
        }
        Ok(())
    }
}

/// Whether an id of ours was made before a moment. Others are nobody's, and old.
fn is_older(id: &str, moment: Timestamp) -> bool {
    let uuid = id.rsplit(['-', '_']).next().and_then(|hex| uuid::Uuid::try_parse(hex).ok());
    let made = uuid.and_then(|uuid| uuid.get_timestamp()).map(|stamp| stamp.to_unix());
    made.is_none_or(|(seconds, _)| i64::try_from(seconds).unwrap_or(i64::MAX) < moment.as_micros() / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::SystemClock, store::memory::MemoryStore};

    async fn lines(text: &[u8], longest: usize) -> Vec<String> {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
        let mut writer = ContentWriter::begin(store.clone(), "file-x".to_owned()).await.unwrap();
        for piece in text.chunks(7) {
            writer.write(piece).await.unwrap();
        }
        assert_eq!(writer.bytes(), text.len() as u64);
        assert_eq!(writer.seal().await.unwrap(), text.len() as u64);
        let mut lines = Lines::of(store, "file-x", longest);
        let mut found = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            found.push(match line {
                Line::Whole(number, bytes) => format!("{number}:{}", String::from_utf8_lossy(&bytes)),
                Line::TooLong(number) => format!("{number}:too long"),
            });
        }
        found
    }

    #[tokio::test]
    async fn contents_are_read_line_by_line() {
        assert_eq!(lines(b"", 9).await, [""; 0]);
        assert_eq!(lines(b"a\n\nbb\r\n  \nccc", 9).await, ["1:a", "3:bb\r", "5:ccc"]);
        assert_eq!(lines("\u{feff}a\n\u{feff}b\n".as_bytes(), 9).await, ["1:a", "2:\u{feff}b"]);
        assert_eq!(lines(b"abc\nabcd\nab\nabcde", 3).await, ["1:abc", "2:too long", "3:ab", "4:too long"]);
        let long = "x".repeat(2 * PIECE);
        let text = format!("{long}\nshort\n{long}");
        assert_eq!(lines(text.as_bytes(), 1_000).await, ["1:too long", "2:short", "3:too long"]);
        assert_eq!(lines(text.as_bytes(), 4 * PIECE).await.len(), 3);
    }

    #[test]
    fn ids_tell_their_age() {
        let now = Timestamp::from_micros(jiff::Timestamp::now().as_microsecond());
        let id = new_file_id();
        assert!(!is_older(&id, now - Duration::from_mins(1)) && is_older(&id, now + Duration::from_mins(1)));
        assert!(is_older("junk", now));
    }
}
