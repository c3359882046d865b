//! A few threads that read, so that a long list delays neither the writer nor a quick look.
//!
//! Invariant: readers cannot write, and each answer is read from one state of the database.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::{mpsc, oneshot};

use super::trouble::Trouble;
use crate::store::{Result, StoreError};

/// Threads that read. Disks and cores gain nothing from more.
const READERS: usize = 2;

/// Questions that wait. Whoever asks one more waits.
const QUEUE: usize = 256;

/// Page cache of each reader, in KiB.
const CACHE: i64 = 4_096;

type Question = Box<dyn FnOnce(&mut Connection) + Send>;

/// The way to the readers.
pub struct Readers {
    sender: Option<mpsc::Sender<Question>>,
    threads: Vec<JoinHandle<()>>,
    path: PathBuf,
}

impl Readers {
    /// Opens the connections and starts the threads.
    pub fn start(path: &Path) -> Result<Self> {
        let (sender, receiver) = mpsc::channel::<Question>(QUEUE);
        let receiver = Arc::new(Mutex::new(receiver));
        let mut readers = Self { sender: Some(sender), threads: Vec::new(), path: path.to_owned() };
        for number in 1..=READERS {
            let mut conn = open(path).map_err(|error| Trouble::from(error).describe(path))?;
            let receiver = receiver.clone();
            let thread = std::thread::Builder::new().name(format!("store-reader-{number}")).spawn(move || {
                loop {
                    let question = receiver.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
                    let Some(question) = question else { return };
                    question(&mut conn);
                }
            });
            let thread = thread.map_err(|error| StoreError::Busy(format!("no thread to read the store: {error}")))?;
            readers.threads.push(thread);
        }
        Ok(readers)
    }

    /// Has something read.
    pub async fn ask<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T> {
        let gone = || {
            StoreError::Unwritable(format!(
                "{}: the store's readers have stopped; restart the daemon",
                self.path.display()
            ))
        };
        let (reply, answer) = oneshot::channel();
        let path = self.path.clone();
        let question: Question = Box::new(move |conn| {
            let read = conn.transaction().map_err(Trouble::from).and_then(|one_state| read(&one_state));
            // Whoever asked may have gone.
            let _ = reply.send(read.map_err(|trouble| trouble.describe(&path)));
        });
        let sender = self.sender.as_ref().ok_or_else(gone)?;
        sender.send(question).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        drop(self.sender.take());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    super::tune(&conn, CACHE)?;
    conn.pragma_update(None, "query_only", true)?;
    Ok(conn)
}
