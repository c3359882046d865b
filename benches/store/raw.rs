//! The least that SQLite can do for a durable queue: one table, one partial index, a ledger without columns to speak of, one
//! writer thread with group commit. What it lacks is what the store adds.

use std::{path::Path, sync::Arc};

use rusqlite::{Connection, params};
use tokio::sync::{mpsc, oneshot};

type Work = Box<dyn FnOnce(&Connection) -> Box<dyn FnOnce() + Send> + Send>;

/// A queue in its own file.
pub struct Queue {
    sender: mpsc::Sender<Work>,
}

impl Queue {
    pub fn open(path: &Path) -> Self {
        let conn = Connection::open(path).expect("opens");
        conn.set_prepared_statement_cache_capacity(32);
        conn.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -16384;
             CREATE TABLE jobs (seq INTEGER PRIMARY KEY, state INTEGER NOT NULL, body TEXT, result TEXT);
             CREATE INDEX ready ON jobs (seq) WHERE state = 0;
             CREATE TABLE attempts (seq INTEGER PRIMARY KEY, job INTEGER NOT NULL, ended INTEGER);",
        )
        .expect("a schema");
        let (sender, mut receiver) = mpsc::channel::<Work>(1_024);
        std::thread::spawn(move || {
            while let Some(first) = receiver.blocking_recv() {
                let mut group = vec![first];
                while group.len() < 256
                    && let Ok(more) = receiver.try_recv()
                {
                    group.push(more);
                }
                execute(&conn, "BEGIN IMMEDIATE", params![]);
                let answers: Vec<_> = group.into_iter().map(|work| work(&conn)).collect();
                execute(&conn, "COMMIT", params![]);
                for answer in answers {
                    answer();
                }
            }
        });
        Self { sender }
    }

    async fn ask<T: Send + 'static>(&self, act: impl FnOnce(&Connection) -> T + Send + 'static) -> T {
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |conn| {
            let value = act(conn);
            Box::new(move || drop(reply.send(value)))
        });
        assert!(self.sender.send(work).await.is_ok(), "the writer lives");
        answer.await.expect("an answer")
    }

    pub async fn submit(&self, body: Arc<str>) {
        self.ask(move |conn| {
            execute(conn, "INSERT INTO jobs (state, body) VALUES (0, ?1)", params![&*body]);
        })
        .await;
    }

    pub async fn fill(&self, jobs: usize, body: usize) {
        let body: Arc<str> = "x".repeat(body).into();
        for _ in 0..jobs.div_ceil(512) {
            let body = body.clone();
            self.ask(move |conn| {
                for _ in 0..512 {
                    execute(conn, "INSERT INTO jobs (state, body) VALUES (0, ?1)", params![&*body]);
                }
            })
            .await;
        }
    }

    pub async fn claim(&self, most: usize) -> Vec<(i64, String)> {
        self.ask(move |conn| {
            let found: Vec<(i64, String)> = conn
                .prepare_cached("SELECT seq, body FROM jobs INDEXED BY ready WHERE state = 0 ORDER BY seq LIMIT ?1")
                .and_then(|mut statement| {
                    let rows = statement
                        .query_map([i64::try_from(most).unwrap_or(i64::MAX)], |row| Ok((row.get(0)?, row.get(1)?)))?;
                    rows.collect()
                })
                .expect("rows");
            for (seq, _) in &found {
                execute(conn, "UPDATE jobs SET state = 1 WHERE seq = ?1", params![seq]);
            }
            found
        })
        .await
    }

    pub async fn begin(&self, job: i64) -> i64 {
        self.ask(move |conn| {
            execute(conn, "INSERT INTO attempts (job) VALUES (?1)", params![job]);
            conn.last_insert_rowid()
        })
        .await
    }

    pub async fn settle(&self, job: i64, attempt: i64, result: String) {
        self.ask(move |conn| {
            execute(conn, "UPDATE attempts SET ended = 1 WHERE seq = ?1", params![attempt]);
            execute(conn, "UPDATE jobs SET state = 2, result = ?2 WHERE seq = ?1", params![job, result]);
        })
        .await;
    }
}

fn execute(conn: &Connection, sql: &str, params: impl rusqlite::Params) {
    conn.prepare_cached(sql).and_then(|mut statement| statement.execute(params)).expect("done");
}
