//! The one thread that writes: takes what waits, runs it in one transaction, answers after the commit.
//!
//! Invariant: an answer is given after COMMIT and never before. A command that fails does not fail its neighbours: the group
//! is undone and each runs alone. After an error that leaves the disk in doubt, nothing is written until a restart.

use std::{path::PathBuf, thread::JoinHandle};

use rusqlite::{Connection, config::DbConfig};
use tokio::sync::{mpsc, oneshot};

use super::{home::Home, session::Session, trouble::Trouble};
use crate::store::{Result, StoreError};

/// Commands that wait for the writer. Whoever sends one more waits: that is the backpressure.
const QUEUE: usize = 1_024;

/// Commands in one transaction, and rows that they touch by their own estimate: a few milliseconds, so that nobody waits
/// long behind others.
const GROUP_COMMANDS: usize = 256;
const GROUP_ROWS: usize = 2_048;

/// Pages of the write-ahead log after which the writer copies them into the file (16 MiB), and after which it waits for
/// readers to let it start the log anew (64 MiB).
const CHECKPOINT_PAGES: i64 = 4_096;
const RESTART_PAGES: i64 = 4 * CHECKPOINT_PAGES;

/// A command with its way back. It may be run more than once; only the last run counts.
trait Work: Send {
    fn rows(&self) -> usize;
    fn run(&mut self, session: &mut Session) -> Result<(), Trouble>;
    fn answer(self: Box<Self>);
    fn refuse(self: Box<Self>, error: StoreError);
}

struct Ask<T, F> {
    rows: usize,
    act: F,
    answer: Option<T>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T: Send, F: FnMut(&mut Session) -> Result<T, Trouble> + Send> Work for Ask<T, F> {
    fn rows(&self) -> usize {
        self.rows
    }

    fn run(&mut self, session: &mut Session) -> Result<(), Trouble> {
        self.answer = Some((self.act)(session)?);
        Ok(())
    }

    // Whoever asked may have gone; the work is done all the same.
    fn answer(self: Box<Self>) {
        if let Some(answer) = self.answer {
            let _ = self.reply.send(Ok(answer));
        }
    }

    fn refuse(self: Box<Self>, error: StoreError) {
        let _ = self.reply.send(Err(error));
    }
}

/// The way to the writer.
pub struct Writer {
    sender: Option<mpsc::Sender<Box<dyn Work>>>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
}

impl Writer {
    /// Starts the thread. It keeps `home` locked until it has closed the file.
    pub fn start(home: Home, session: Session) -> Result<Self> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let path = home.path.clone();
        let desk = Desk { session, path: path.clone(), stopped: None };
        let thread = std::thread::Builder::new().name("store-writer".to_owned()).spawn(move || {
            let home = home;
            desk.serve(receiver);
            drop(home);
        });
        let thread = thread.map_err(|error| StoreError::Busy(format!("no thread for the store's writer: {error}")))?;
        Ok(Self { sender: Some(sender), thread: Some(thread), path })
    }

    /// Has something done in a transaction. It may be run more than once before it counts; `rows` is an estimate of what it
    /// touches.
    pub async fn ask<T, F>(&self, rows: usize, act: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Session) -> Result<T, Trouble> + Send + 'static,
    {
        let gone = || {
            StoreError::Unwritable(format!(
                "{}: the store's writer has stopped; restart the daemon",
                self.path.display()
            ))
        };
        let (reply, answer) = oneshot::channel();
        let work = Box::new(Ask { rows, act, answer: None, reply });
        let sender = self.sender.as_ref().ok_or_else(gone)?;
        sender.send(work).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.sender.take());
        if let Some(thread) = self.thread.take() {
            // The thread finishes what waits, copies the log into the file and gives the lock back.
            let _ = thread.join();
        }
    }
}

/// The thread's own side.
struct Desk {
    session: Session,
    path: PathBuf,
    stopped: Option<StoreError>,
}

impl Desk {
    fn serve(mut self, mut receiver: mpsc::Receiver<Box<dyn Work>>) {
        while let Some(first) = receiver.blocking_recv() {
            let mut rows = first.rows();
            let mut group = vec![first];
            while group.len() < GROUP_COMMANDS && rows < GROUP_ROWS {
                let Ok(more) = receiver.try_recv() else { break };
                rows = rows.saturating_add(more.rows());
                group.push(more);
            }
            self.commit_group(group);
            self.checkpoint();
        }
    }

    fn commit_group(&mut self, mut group: Vec<Box<dyn Work>>) {
        if let Some(error) = &self.stopped {
            for work in group {
                work.refuse(error.clone());
            }
            return;
        }
        match self.commit(&mut group) {
            Ok(()) => group.into_iter().for_each(Work::answer),
            Err(trouble) if group.len() == 1 || !trouble.is_worth_another_try() => {
                let error = self.note(&trouble);
                for work in group {
                    work.refuse(error.clone());
                }
            }
            Err(_) => group.into_iter().for_each(|work| self.commit_group(vec![work])),
        }
    }

    /// Runs a group in one transaction.
    fn commit(&mut self, group: &mut [Box<dyn Work>]) -> Result<(), Trouble> {
        let done = self.try_commit(group);
        if done.is_ok() {
            self.session.keep();
        } else {
            if !self.session.conn.is_autocommit() {
                // When even this fails, SQLite undoes it on its own at the next BEGIN or at the next start.
                let _ = self.session.conn.execute_batch("ROLLBACK");
            }
            self.session.forget();
        }
        done
    }

    fn try_commit(&mut self, group: &mut [Box<dyn Work>]) -> Result<(), Trouble> {
        let session = &mut self.session;
        session.execute("BEGIN IMMEDIATE", [])?;
        for work in group {
            work.run(session)?;
        }
        session.tally.write(&session.conn)?;
        session.commit()
    }

    /// Says what happened, and stops all writing when the disk is in doubt.
    fn note(&mut self, trouble: &Trouble) -> StoreError {
        let error = trouble.describe(&self.path);
        if trouble.is_final() {
            tracing::error!(%error, "the store stops writing");
            // Closing must not copy a log that may be half on the disk.
            let kept = self.session.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
            if let Err(error) = kept {
                tracing::error!(%error, "the log will be copied when the store is closed");
            }
            self.stopped = Some(error.clone());
        }
        error
    }

    /// Copies the log into the file when it has grown. Failing costs space, not jobs.
    fn checkpoint(&mut self) {
        if self.stopped.is_some() {
            return;
        }
        let done = log_pages(&self.session.conn).and_then(|(pages, copied)| {
            if pages - copied < CHECKPOINT_PAGES {
                return Ok(());
            }
            let mode = if pages < RESTART_PAGES { "PASSIVE" } else { "RESTART" };
            let sql = format!("PRAGMA wal_checkpoint({mode})");
            self.session.conn.query_row(&sql, [], |_| Ok(())).map_err(Trouble::from)
        });
        if let Err(trouble) = done {
            let error = self.note(&trouble);
            tracing::warn!(%error, "the store's log could not be copied into its file");
        }
    }
}

/// How many pages the log holds, and how many of those are in the file already.
fn log_pages(conn: &Connection) -> Result<(i64, i64), Trouble> {
    let mut statement = conn.prepare_cached("PRAGMA wal_checkpoint(NOOP)")?;
    Ok(statement.query_row([], |row| Ok((row.get(1)?, row.get(2)?)))?)
}
