//! Connections: a bounded pool, tries again with backoff and jitter, transactions with time limits.
//!
//! Invariant: a transaction whose commit was not acknowledged is never assumed to have happened or not. Each one that
//! writes leaves a receipt; whoever is in doubt writes the same receipt, which waits for the lost transaction, and makes
//! it fail if it comes later. Nothing here needs more of a connection than one transaction, so a pooler may stand between.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime};
use futures_util::future::try_join_all;
use rand::Rng;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_postgres::{
    Row, SimpleQueryMessage,
    error::SqlState,
    types::{ToSql, Type},
};
use uuid::Uuid;

use super::{address::Address, tls, trouble::Trouble};
use crate::{
    clock::{SharedClock, Timestamp},
    store::Result,
};

/// Connections of one daemon: two for each kind of group, the rest for single questions. Some 10 MiB each on the server.
pub const CONNECTIONS: usize = 12;
/// How long somebody waits for a free connection.
const WAIT: Duration = Duration::from_secs(5);
/// How long opening one may take, TLS and all.
const CREATE: Duration = Duration::from_secs(10);
/// What the client gives the server beyond the server's own limits.
const PATIENCE: Duration = Duration::from_secs(5);
/// Tries of one piece of work, and how long it is tried at most: short troubles are not worth a caller's while.
const TRIES: u32 = 5;
const TRY_FOR: Duration = Duration::from_secs(8);
/// The pause between tries, doubled each time.
const PAUSE: Duration = Duration::from_millis(25);
/// Pauses between tries to connect while the server cannot be reached.
const RECONNECT: Duration = Duration::from_millis(100);
const RECONNECT_MAX: Duration = Duration::from_secs(5);
/// How long it is tried to find out what became of a transaction.
const RESOLVE_FOR: Duration = Duration::from_secs(30);

/// A parameter with its type: statements are not prepared, because a pooler may run each on another connection.
pub type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// Parameters: `params![id: UUID, limit: INT8]`.
macro_rules! params {
    ($($value:expr => $kind:ident),* $(,)?) => {
        &[$((&$value as &(dyn tokio_postgres::types::ToSql + Sync), tokio_postgres::types::Type::$kind)),*]
    };
}
pub(super) use params;

/// How long a transaction may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// On somebody's way: a statement has 15 s, a lock 5.
    Quick,
    /// Upkeep: a statement has 2 minutes, a lock 2 s, because others wait behind it.
    Long,
}

impl Pace {
    fn statement(self) -> Duration {
        match self {
            Self::Quick => Duration::from_secs(15),
            Self::Long => Duration::from_mins(2),
        }
    }

    fn limits(self) -> String {
        let lock = match self {
            Self::Quick => 5_000,
            Self::Long => 2_000,
        };
        // An open transaction whose daemon is gone must not hold its locks for long.
        format!(
            "SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = {lock}; \
             SET LOCAL idle_in_transaction_session_timeout = 30000; SET LOCAL search_path = pg_catalog; ",
            self.statement().as_millis()
        )
    }
}

const NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint::text";

/// The way to the database.
pub struct Link {
    pool: Pool,
    /// Without password.
    pub name: String,
    /// A clock to live by instead of the server's, for tests.
    clock: Option<SharedClock>,
    /// When the next try to connect may be made, and the pause after it, while the server cannot be reached.
    gate: Mutex<Option<(Instant, Duration)>>,
    /// Set when the server is told not to wait for its disk.
    insist_on_sync: std::sync::atomic::AtomicBool,
}

impl Link {
    /// A pool that has no connection yet.
    pub fn new(address: &Address, clock: Option<SharedClock>, connections: usize) -> Result<Self> {
        let config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(address.config.clone(), tls::connector(address)?, config);
        let pool = Pool::builder(manager)
            .max_size(connections)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(WAIT))
            .create_timeout(Some(CREATE))
            .build()
            .map_err(|error| crate::store::StoreError::Unusable(error.to_string()))?;
        Ok(Self {
            pool,
            name: address.name.clone(),
            clock,
            gate: Mutex::new(None),
            insist_on_sync: std::sync::atomic::AtomicBool::new(false),
        })
    }

    /// Has every later transaction wait for the server's disk, whatever the server is set to.
    pub fn insist_on_sync(&self) {
        self.insist_on_sync.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    async fn connection(&self) -> Result<Object, Trouble> {
        let gate = *self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((open_at, _)) = gate {
            sleep_until(open_at).await;
        }
        match self.pool.get().await {
            Ok(object) => {
                *self.gate.lock().unwrap_or_else(PoisonError::into_inner) = None;
                Ok(object)
            }
            Err(PoolError::Timeout(deadpool_postgres::TimeoutType::Wait)) => Err(Trouble::NoConnection(format!(
                "all {} connections were busy for {WAIT:?}; the database may be too slow for its load",
                self.pool.status().max_size
            ))),
            Err(PoolError::Backend(error)) => {
                self.shut();
                Err(Trouble::Sql(error))
            }
            Err(error) => {
                self.shut();
                Err(Trouble::NoConnection(format!("no connection could be opened: {error}")))
            }
        }
    }

    /// Has the next tries to connect wait, longer each time, and not all at once.
    fn shut(&self) {
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match *gate {
            // Others found out at the same time.
            Some((open_at, _)) if open_at > now => {}
            previous => {
                let pause = previous.map_or(RECONNECT, |(_, pause)| (pause * 2).min(RECONNECT_MAX));
                *gate = Some((now + jittered(pause), pause));
            }
        }
    }

    /// Begins a transaction that writes.
    pub async fn begin(&self, pace: Pace) -> Result<Tx<'_>, Trouble> {
        let sync = self.insist_on_sync.load(std::sync::atomic::Ordering::Relaxed);
        let sync = if sync { "SET LOCAL synchronous_commit = on; " } else { "" };
        self.open(pace, &format!("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {}{sync}{NOW}", pace.limits()), true)
            .await
    }

    /// Begins a transaction that reads one state of the database.
    pub async fn look(&self) -> Result<Tx<'_>, Trouble> {
        let pace = Pace::Quick;
        self.open(pace, &format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {}{NOW}", pace.limits()), false)
            .await
    }

    async fn open(&self, pace: Pace, begin: &str, writes: bool) -> Result<Tx<'_>, Trouble> {
        let object = self.connection().await?;
        let mut tx = Tx {
            link: self,
            object: Some(object),
            patience: pace.statement() + PATIENCE,
            now: Timestamp::from_micros(0),
            receipt: writes.then(Uuid::now_v7),
        };
        let answer = tx.wait(tx.object()?.simple_query(begin)).await?;
        let now = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
            _ => None,
        });
        tx.now = match (&self.clock, now) {
            (Some(clock), _) => clock.now(),
            (None, Some(micros)) => Timestamp::from_micros(micros),
            (None, None) => return Err(Trouble::Row("the server did not say what time it is".to_owned())),
        };
        Ok(tx)
    }

    /// Does a piece of work, again when what was in its way may have passed. It must be whole in itself: one transaction
    /// that either commits or leaves nothing.
    pub async fn with_tries<'a, T, F, W>(&'a self, work: W) -> Result<T>
    where
        W: Fn(&'a Self) -> F,
        F: Future<Output = Result<T, Trouble>>,
    {
        let started = Instant::now();
        let (mut tries, mut pause) = (1, PAUSE);
        loop {
            match work(self).await {
                Ok(done) => return Ok(done),
                Err(trouble) if tries < TRIES && trouble.is_passing() && started.elapsed() < TRY_FOR => {
                    tracing::debug!(database = self.name, %trouble, "trying again");
                    sleep(jittered(pause)).await;
                    (tries, pause) = (tries + 1, pause * 2);
                }
                Err(trouble) => return Err(trouble.describe(&self.name)),
            }
        }
    }

    /// Whether the transaction with this receipt was committed. When this says no, it never will be.
    pub async fn was_committed(&self, receipt: Uuid) -> Result<bool, Trouble> {
        let until = Instant::now() + RESOLVE_FOR;
        let mut pause = PAUSE;
        loop {
            let trouble = match self.claim_receipt(receipt).await {
                Ok(committed) => return Ok(committed),
                Err(trouble) => trouble,
            };
            if Instant::now() >= until {
                let what = format!(
                    "a commit was not acknowledged, and what became of it could not be found out in {RESOLVE_FOR:?}: \
                     {trouble}"
                );
                return Err(Trouble::InDoubt { what, receipt });
            }
            sleep(jittered(pause)).await;
            pause = (pause * 2).min(RECONNECT_MAX);
        }
    }

    async fn claim_receipt(&self, receipt: Uuid) -> Result<bool, Trouble> {
        let mut tx = self.begin(Pace::Quick).await?;
        tx.receipt = None;
        let void = "INSERT INTO landbridge.receipts (id, at, void) VALUES ($1, $2, true) ON CONFLICT DO NOTHING";
        tx.execute(void, params![receipt => UUID, tx.now.as_micros() => INT8]).await?;
        // Read by a statement of its own, which sees what the one before had to wait for.
        let found =
            tx.query_opt("SELECT void FROM landbridge.receipts WHERE id = $1", params![receipt => UUID]).await?;
        tx.commit().await?;
        let void: bool = found.ok_or_else(|| Trouble::Row("a receipt is gone".to_owned()))?.try_get(0)?;
        Ok(!void)
    }
}

/// A pause of between half and one and a half of the span, so that daemons do not march in step.
pub fn jittered(span: Duration) -> Duration {
    span.mul_f64(rand::rng().random_range(0.5..1.5))
}

/// An open transaction. Dropped before its end, its connection is closed, which undoes it.
pub struct Tx<'a> {
    link: &'a Link,
    object: Option<Object>,
    patience: Duration,
    /// The store's own time at its begin.
    pub now: Timestamp,
    receipt: Option<Uuid>,
}

impl Tx<'_> {
    fn object(&self) -> Result<&Object, Trouble> {
        self.object.as_ref().ok_or_else(|| Trouble::NoConnection("the transaction has ended".to_owned()))
    }

    async fn wait<T>(&self, answer: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Trouble> {
        match timeout(self.patience, answer).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Trouble::Silent(self.patience)),
        }
    }

    /// The rows of a statement.
    pub async fn query(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Trouble> {
        self.wait(self.object()?.query_typed(sql, params)).await
    }

    /// The one row of a statement, if there is one.
    pub async fn query_opt(&self, sql: &str, params: &[Param<'_>]) -> Result<Option<Row>, Trouble> {
        self.wait(self.object()?.query_typed_opt(sql, params)).await
    }

    /// How many rows a statement changed.
    pub async fn execute(&self, sql: &str, params: &[Param<'_>]) -> Result<u64, Trouble> {
        self.wait(self.object()?.execute_typed(sql, params)).await
    }

    /// Runs several statements without parameters.
    pub async fn batch(&self, sql: &str) -> Result<(), Trouble> {
        self.wait(self.object()?.batch_execute(sql)).await
    }

    /// Sends statements one behind the other without waiting in between; how many rows each changed.
    pub async fn execute_all(&self, statements: &[(&str, Vec<Param<'_>>)]) -> Result<Vec<u64>, Trouble> {
        let object = self.object()?;
        self.wait(try_join_all(statements.iter().map(|(sql, params)| object.execute_typed(sql, params)))).await
    }

    /// Ends a transaction that only read.
    pub async fn done(mut self) -> Result<(), Trouble> {
        self.wait(self.object()?.batch_execute("COMMIT")).await?;
        // Given back to the pool whole.
        drop(self.object.take());
        Ok(())
    }

    /// Ends a transaction that could have written and did not.
    pub async fn done_without_receipt(mut self) -> Result<(), Trouble> {
        self.receipt = None;
        self.done().await
    }

    /// Undoes it. Dropping does, too, but costs the connection.
    pub async fn undo(mut self) -> Result<(), Trouble> {
        self.wait(self.object()?.batch_execute("ROLLBACK")).await?;
        drop(self.object.take());
        Ok(())
    }

    /// Makes it durable.
    pub async fn commit(self) -> Result<(), Trouble> {
        self.commit_with(&[]).await
    }

    /// Sends the last statements and the commit in one go. When the answer is lost, finds out what became of it.
    pub async fn commit_with(mut self, last: &[(&str, Vec<Param<'_>>)]) -> Result<(), Trouble> {
        let object = self.object()?;
        let receipt = self.receipt;
        let at = self.now.as_micros();
        let answer = self
            .wait(async {
                let leave = async {
                    match &receipt {
                        None => Ok(0),
                        Some(receipt) => {
                            let sql = "INSERT INTO landbridge.receipts (id, at) VALUES ($1, $2)";
                            object.execute_typed(sql, params![*receipt => UUID, at => INT8]).await
                        }
                    }
                };
                let work = async {
                    let each = last.iter().map(|(sql, params)| object.execute_typed(sql, params));
                    try_join_all(each).await
                };
                // Polled in this order, so sent in this order; the server runs them in this order, and none after one
                // that failed: a commit then undoes.
                let commit = object.batch_execute("COMMIT");
                let (work, left, committed) = futures_util::join!(work, leave, commit);
                work?;
                left?;
                committed
            })
            .await;
        let trouble = match answer {
            Ok(()) => {
                drop(self.object.take());
                return Ok(());
            }
            Err(trouble) => trouble,
        };
        let link = self.link;
        // Closes the connection: if the server still works on it, it will find nobody to answer.
        drop(self);
        match receipt {
            // The server refused a statement while the connection went on: nothing was committed.
            _ if trouble.is_refusal() && !is_end_of_connection(&trouble) => Err(trouble),
            None => Err(trouble),
            Some(receipt) => {
                tracing::warn!(database = link.name, %trouble, "a commit was not acknowledged; asking what became of it");
                if Box::pin(link.was_committed(receipt)).await? { Ok(()) } else { Err(trouble) }
            }
        }
    }
}

/// Whether the server said good-bye: the commit may have been done before.
fn is_end_of_connection(trouble: &Trouble) -> bool {
    match trouble {
        Trouble::Sql(error) => error.code().is_some_and(|code| {
            code.code().starts_with("57P") || code.code().starts_with("08") || *code == SqlState::QUERY_CANCELED
        }),
        _ => true,
    }
}

impl Drop for Tx<'_> {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            drop(Object::take(object));
        }
    }
}
