//! Contents: files in a folder beside the database.
//!
//! Invariant: a content grows under a name ending in `.part` and gets its own name only when all of it is synced, so what
//! has its own name is whole. Rows that name a content are written after it and deleted before it; a crash between leaves
//! a content that nobody names, which the next start finds.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::home::beside;
use crate::store::{Result, StoreError};

const PRIVATE_FILE: u32 = 0o600;
const PRIVATE_FOLDER: u32 = 0o700;
const GROWING: &str = ".part";

/// The folder of contents.
#[derive(Debug, Clone)]
pub struct Blobs {
    folder: PathBuf,
}

impl Blobs {
    /// Beside a database file. The folder is made when something goes into it.
    pub fn beside(database: &Path) -> Self {
        Self { folder: beside(database, "-files") }
    }

    pub async fn write(&self, id: &str, at: u64, bytes: Bytes) -> Result<()> {
        let (whole, part) = self.paths(id)?;
        let folder = self.folder.clone();
        run(part.clone(), move || {
            if at == 0 {
                DirBuilder::new().recursive(true).mode(PRIVATE_FOLDER).create(&folder)?;
            }
            let file = OpenOptions::new().write(true).create(at == 0).truncate(false).mode(PRIVATE_FILE).open(&part)?;
            let length = file.metadata()?.len();
            if length != at || whole.exists() {
                return Err(io::Error::other(format!("it has {length} bytes, and a piece came for byte {at}")));
            }
            file.write_all_at(&bytes, at)
        })
        .await
    }

    pub async fn seal(&self, id: &str) -> Result<()> {
        let (whole, part) = self.paths(id)?;
        let folder = self.folder.clone();
        run(part.clone(), move || {
            DirBuilder::new().recursive(true).mode(PRIVATE_FOLDER).create(&folder)?;
            let file = OpenOptions::new().append(true).create(true).mode(PRIVATE_FILE).open(&part)?;
            file.sync_all()?;
            std::fs::rename(&part, &whole)?;
            File::open(&folder)?.sync_all()
        })
        .await
    }

    pub async fn read(&self, id: &str, at: u64, most: usize) -> Result<Option<Bytes>> {
        let (whole, _) = self.paths(id)?;
        run(whole.clone(), move || {
            let file = match File::open(&whole) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                file => file?,
            };
            let left = file.metadata()?.len().saturating_sub(at);
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(most);
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, at)?;
            Ok(Some(Bytes::from(bytes)))
        })
        .await
    }

    pub async fn delete(&self, id: &str) -> Result<()> {
        let (whole, part) = self.paths(id)?;
        run(whole.clone(), move || {
            for path in [part, whole] {
                match std::fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            Ok(())
        })
        .await
    }

    pub async fn ids(&self) -> Result<Vec<String>> {
        let folder = self.folder.clone();
        run(folder.clone(), move || {
            let entries = match std::fs::read_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                entries => entries?,
            };
            let mut ids = Vec::new();
            for entry in entries {
                if let Ok(name) = entry?.file_name().into_string() {
                    ids.push(name.strip_suffix(GROWING).map_or(name.clone(), str::to_owned));
                }
            }
            ids.sort_unstable();
            ids.dedup();
            Ok(ids)
        })
        .await
    }

    /// The whole content's path and the growing one's. Ids are ours: letters, digits, `-` and `_`.
    fn paths(&self, id: &str) -> Result<(PathBuf, PathBuf)> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if id.is_empty() || id.len() > 100 || !id.bytes().all(plain) {
            return Err(StoreError::Damaged(format!(
                "{:?} is not the id of a content",
                id.chars().take(100).collect::<String>()
            )));
        }
        Ok((self.folder.join(id), self.folder.join(format!("{id}{GROWING}"))))
    }
}

/// Runs file work on a thread that may block.
async fn run<T: Send + 'static>(path: PathBuf, work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error)))
        .map_err(|error| StoreError::Unwritable(format!("{}: {error}", path.display())))
}
