//! The shared store: one PostgreSQL, version 14 or newer, for any number of daemons.
//!
//! Invariant: what a method acknowledges was committed, and the server has synced it. Nothing needs more of a connection
//! than one transaction, so a pooler may stand between. The server's clock judges leases. Daemons that do the same at the
//! same time take different rows, or wait for each other in one order.

mod address;
mod change;
mod claim;
mod columns;
mod days;
mod documents;
mod drop_days;
mod gather;
mod home;
mod import;
mod ledger;
mod link;
mod names;
mod observe;
mod past;
mod prune;
mod recover;
mod rows;
mod schema;
mod settle;
mod shelf;
mod steer;
mod store;
mod submit;
mod sums;
mod talk;
mod tally;
mod telling;
#[cfg(test)]
pub(in crate::store) mod tests;
mod tls;
mod trouble;
mod upkeep;
mod write;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_util::sync::{CancellationToken, DropGuard};

pub(super) use self::import::{Cursor, Progress};
use self::{address::Address, change::News, gather::Desk, home::Home, link::Link, names::Names, talk::Mouth};
use super::{
    Intent, NewJob, Result, Settled, Settlement, Submitted,
    hints::Hints,
    transfer::{Part, Rows},
};
use crate::clock::SharedClock;

/// How a database is reached.
#[derive(Debug, Clone, Default)]
pub struct PostgresOptions {
    /// A past-the-pooler address, where a connection may listen.
    pub direct: Option<String>,
    /// The folder that keeps this daemon's id.
    pub folder: Option<PathBuf>,
    /// A clock to live by instead of the server's: for tests and simulation.
    pub clock: Option<ClockOption>,
    /// Connections at most; 12 when nothing is said.
    pub connections: Option<usize>,
}

/// Whether a text is a database's address.
///
/// # Errors
/// [`super::StoreError::Unusable`], which does not repeat the text.
pub fn check_address(url: &str) -> Result<()> {
    Address::parse(url).map(drop)
}

/// A clock that prints as nothing.
#[derive(Clone)]
pub struct ClockOption(pub SharedClock);

impl std::fmt::Debug for ClockOption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClockOption(…)")
    }
}

/// What the tasks of a store share.
struct Inner {
    link: Arc<Link>,
    names: Names,
    hints: Arc<Hints>,
    mouth: Arc<Mouth>,
    orphans: claim::Orphans,
}

impl Inner {
    /// Puts back what was claimed for nobody.
    async fn put_orphans_back(&self) {
        let found = self.orphans.found(&self.link).await;
        if found.is_empty() {
            return;
        }
        tracing::warn!(jobs = found.len(), "these were claimed, but the answer was lost: they go back into the queue");
        match self.link.with_tries(|link| settle::settle(link, &found)).await {
            Ok(done) => drop(self.told(done)),
            // They are this node's: its next life takes them back.
            Err(error) => tracing::error!(%error, "jobs that were claimed for nobody could not be put back"),
        }
    }

    fn told<T>(&self, (answer, news): (T, News)) -> T {
        news.give(&self.hints);
        self.mouth.tell(&news);
        answer
    }
}

/// A store in a PostgreSQL database.
pub struct PostgresStore {
    inner: Arc<Inner>,
    submits: Desk<NewJob, Submitted>,
    begins: Desk<Intent, bool>,
    settles: Desk<Settlement, Settled>,
    home: Home,
    _tasks: DropGuard,
}

impl PostgresStore {
    /// Connects, and brings the database to today's shape.
    ///
    /// # Errors
    /// [`super::StoreError`] naming the database (never its password) and what to do.
    pub async fn open(url: &str, options: PostgresOptions) -> Result<Self> {
        let address = Address::parse(url)?;
        let direct = options.direct.as_deref().map(Address::parse).transpose()?;
        let clock = options.clock.map(|clock| clock.0);
        let link = Arc::new(Link::new(&address, clock, options.connections.unwrap_or(link::CONNECTIONS))?);
        link.with_tries(schema::ensure).await?;
        link.with_tries(days::cut_ahead).await?;
        link.with_tries(look_at_durability).await?;
        let home = Home::take(options.folder.as_deref().map(Path::new));
        let hints = Arc::new(Hints::new());
        let mouth = Arc::new(Mouth::new(home.node));
        let stop = CancellationToken::new();
        let inner = Arc::new(Inner {
            link: link.clone(),
            names: Names::default(),
            hints: hints.clone(),
            mouth: mouth.clone(),
            orphans: claim::Orphans::default(),
        });
        tokio::spawn(upkeep::run(inner.clone(), stop.clone()));
        tokio::spawn(talk::speak(link, mouth, stop.clone()));
        if let Some(direct) = direct {
            tokio::spawn(talk::listen(direct, home.node, hints, stop.clone()));
        }
        tracing::debug!(database = address.name, node = %home.node, "the store is open");
        Ok(Self {
            submits: desk(&inner, |inner, jobs: Arc<Vec<NewJob>>| async move {
                inner
                    .link
                    .with_tries(|link| submit::submit(link, &inner.names, &jobs))
                    .await
                    .map(|done| inner.told(done))
            }),
            begins: desk(&inner, |inner, intents: Arc<Vec<Intent>>| async move {
                inner.link.with_tries(|link| claim::begin(link, &intents)).await.map(|done| inner.told(done))
            }),
            settles: desk(&inner, |inner, settlements: Arc<Vec<Settlement>>| async move {
                inner.link.with_tries(|link| settle::settle(link, &settlements)).await.map(|done| inner.told(done))
            }),
            inner,
            home,
            _tasks: stop.drop_guard(),
        })
    }

    fn link(&self) -> &Link {
        &self.inner.link
    }

    /// Notes that a source is being moved here.
    pub(super) async fn start_move(&self, source: &str, look: &str) -> Result<()> {
        self.link().with_tries(|link| import::start(link, source, look)).await
    }

    /// How far a part of a source has come.
    pub(super) async fn move_progress(&self, source: &str, part: Part) -> Result<Progress> {
        self.link().with_tries(|link| import::progress(link, source, part)).await
    }

    /// Writes rows of another store, and how far the move has come with them.
    pub(super) async fn import(&self, source: &str, part: Part, rows: &Rows, progress: &Progress) -> Result<()> {
        let names = &self.inner.names;
        self.link().with_tries(|link| import::write(link, names, source, part, rows, progress)).await
    }

    /// Reads back rows of a part behind a cursor; none at the end.
    pub(super) async fn read_back(&self, part: Part, cursor: Cursor, limit: usize) -> Result<Option<(Rows, Cursor)>> {
        let names = &self.inner.names;
        self.link().with_tries(|link| import::read(link, names, part, cursor, limit)).await
    }

    async fn submit_some(&self, jobs: Vec<NewJob>, bytes: usize) -> Result<Vec<Submitted>> {
        self.submits.ask(jobs, bytes).await
    }
}

fn desk<Q, A, W, F>(inner: &Arc<Inner>, act: W) -> Desk<Q, A>
where
    Q: Clone + Send + Sync + 'static,
    A: Send + 'static,
    W: Fn(Arc<Inner>, Arc<Vec<Q>>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Vec<A>>> + Send + 'static,
{
    let inner = inner.clone();
    Desk::start(move |items| act(inner.clone(), items))
}

/// Has commits wait for the server's disk where the server would not, and says loudly when the disk itself is not waited
/// for.
async fn look_at_durability(link: &Link) -> Result<(), trouble::Trouble> {
    let tx = link.look().await?;
    let sql = "SELECT current_setting('synchronous_commit'), current_setting('fsync')";
    let row = tx.query_opt(sql, &[]).await?;
    tx.done().await?;
    let Some(row) = row else { return Ok(()) };
    let (commit, fsync): (String, String) = (columns::get(&row, 0)?, columns::get(&row, 1)?);
    if commit == "off" {
        tracing::warn!(
            database = link.name,
            "the server's synchronous_commit is off; it is on for this daemon's transactions"
        );
        link.insist_on_sync();
    }
    if fsync == "off" {
        tracing::warn!(
            database = link.name,
            "the server runs with fsync off: what it accepts is lost when its machine loses power"
        );
    }
    Ok(())
}
