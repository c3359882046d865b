//! The engine: claims jobs under permits, carries each through its targets, and keeps the queue in order.
//!
//! Invariant: an intent is stored before bytes leave; a decision is made on one [`World`]; what a job becomes is settled
//! by fence. Loops are reconcilers: they run on a signal and on a period, and may be run again at any time.

mod ask;
pub mod batches;
pub mod callbacks;
mod carry;
mod cost;
mod dispatch;
pub mod explain;
pub mod files;
mod forecast;
pub mod form;
pub mod generations;
mod granted;
pub mod health;
mod holds;
mod inflight;
pub mod intake;
pub mod levers;
pub mod live;
mod observe;
pub mod pins;
pub mod plan;
mod quotas;
pub mod reload;
pub mod report;
pub mod rollouts;
mod settle;
pub mod size;
mod spending;
#[cfg(test)]
mod tests;
mod unfit;
mod upkeep;
pub mod world;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use rust_decimal::Decimal;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use self::{
    batches::Batches,
    health::Health,
    holds::HoldClocks,
    inflight::Inflight,
    levers::Runtime,
    spending::{Folded, Spending},
    world::World,
};
pub use self::{
    forecast::{Ahead, BudgetAhead, Forecast, Refused},
    health::QuotaStanding,
    inflight::StopReason,
    quotas::SetQuota,
    upkeep::Pace,
};
use crate::{
    clock::{SharedClock, Timestamp},
    ids::{JobId, NodeId},
    job::{HoldReason, State},
    metrics::Metrics,
    money::Usd,
    names::{PipelineName, ProviderName},
    provider::ProviderSet,
    routing::FlagLevels,
    snapshot::Snapshot,
    spec::AtLimit,
    store::{Cancelled, DocumentKind, Recovered, Store, StoreError},
};

/// What an engine is made of.
pub struct Parts {
    /// Where jobs are.
    pub store: Arc<dyn Store>,
    /// The providers' clients.
    pub providers: ProviderSet,
    /// The first snapshot.
    pub snapshot: Arc<Snapshot>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: SharedClock,
    /// Who we are on the store.
    pub node: NodeId,
    /// Calls in flight at once, at most, over all pipelines.
    pub max_in_flight: usize,
    /// How long a silent daemon keeps its jobs.
    pub lease: Duration,
    /// How long ledger and audit are kept.
    pub retention: crate::settings::RetentionSettings,
}

/// The engine of one daemon.
pub struct Engine {
    store: Arc<dyn Store>,
    providers: ProviderSet,
    metrics: Arc<Metrics>,
    clock: SharedClock,
    node: NodeId,
    max_in_flight: usize,
    lease: Duration,
    retention: ArcSwap<crate::settings::RetentionSettings>,
    world: ArcSwap<World>,
    world_version: watch::Sender<u64>,
    runtime: Mutex<Runtime>,
    /// The revision of the store's documents when the levers were last read.
    levers_at: AtomicU64,
    /// Held while levers or specs change, so that changes come one after another.
    steering: tokio::sync::Mutex<()>,
    health: Health,
    quota_book: quotas::QuotaBook,
    holds: HoldClocks,
    spending: Arc<Spending>,
    inflight: Arc<Inflight>,
    batches: Batches,
    callbacks: callbacks::Callbacks,
    rollouts: rollouts::Rollouts,
    /// What each provider's list prices are multiplied by.
    prices: ArcSwap<BTreeMap<ProviderName, Decimal>>,
    /// A job began to wait for a time.
    waiting: Notify,
    accepting: AtomicBool,
    /// The world's version when held jobs last decided anew.
    released_at: AtomicU64,
    suspects_waiting: AtomicBool,
    suspect_running: AtomicBool,
    /// Rounds of dispatch so far, for tests that nothing spins.
    #[cfg(test)]
    rounds: AtomicU64,
}

impl Engine {
    /// Takes up the work: announces the node, takes back what an earlier life left, restores the levers.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub async fn take_up(parts: Parts) -> Result<(Arc<Self>, Recovered), StoreError> {
        let Parts { store, providers, snapshot, metrics, clock, node, max_in_flight, lease, retention } = parts;
        let recovered = store.register(node).await?;
        let now = clock.now();
        let spending = Arc::new(Spending::starting(now, Folded::read(store.as_ref(), now).await?));
        let holds = HoldClocks::restore(store.documents(DocumentKind::HoldClock).await?);
        let learned = store.documents(DocumentKind::Quota).await?;
        let revision = store.revision().await?;
        let first = World::new(0, snapshot.clone(), FlagLevels::default(), Vec::new(), Arc::default());
        let engine = Arc::new(Self {
            store,
            providers,
            metrics,
            clock,
            node,
            max_in_flight,
            lease,
            retention: ArcSwap::from_pointee(retention),
            world: ArcSwap::from_pointee(first),
            world_version: watch::Sender::new(0),
            runtime: Mutex::default(),
            levers_at: AtomicU64::new(revision),
            steering: tokio::sync::Mutex::default(),
            health: Health::new(spending.clone()),
            quota_book: quotas::QuotaBook::default(),
            holds,
            spending,
            inflight: Arc::default(),
            batches: Batches::default(),
            callbacks: callbacks::Callbacks::default(),
            rollouts: rollouts::Rollouts::default(),
            prices: ArcSwap::default(),
            waiting: Notify::new(),
            accepting: AtomicBool::new(true),
            released_at: AtomicU64::new(0),
            suspects_waiting: AtomicBool::new(true),
            suspect_running: AtomicBool::new(false),
            #[cfg(test)]
            rounds: AtomicU64::new(0),
        });
        engine.remember_quotas(learned);
        let runtime = engine.read_runtime().await?;
        *engine.runtime.lock().unwrap_or_else(PoisonError::into_inner) = runtime;
        engine.follow_courses().await?;
        engine.install(snapshot);
        engine.observe_unseen(&recovered.unseen);
        engine.take_up_batches().await?;
        Ok((engine, recovered))
    }

    /// Runs dispatch and upkeep until `stop`; then waits for calls in flight, at most `drain`, and interrupts the rest.
    /// `force` ends the waiting at once.
    ///
    /// # Errors
    /// [`StoreError`] when the good order could not be written down at the end; the next start sees to it.
    pub async fn run(
        self: &Arc<Self>,
        pace: Pace,
        stop: CancellationToken,
        drain: impl Fn() -> Duration,
        force: CancellationToken,
    ) -> Result<(), StoreError> {
        let mut loops = JoinSet::new();
        let upkeep_stop = CancellationToken::new();
        loops.spawn(dispatch::run(self.clone(), pace.poll, stop.clone()));
        let (engine, timer_stop) = (self.clone(), upkeep_stop.clone());
        loops.spawn(async move { engine.health.keep_time(engine.clock.clone(), timer_stop).await });
        loops.spawn(batches::run(self.clone(), stop.clone()));
        loops.spawn(granted::run(self.clone(), stop.clone()));
        upkeep::spawn(self, &mut loops, pace, &upkeep_stop);
        loops.spawn(callbacks::run(self.clone(), pace.poll, upkeep_stop.clone()));
        stop.cancelled().await;
        self.accepting.store(false, Ordering::Release);
        // Who has not begun goes back to the queue.
        self.health.scatter();
        let drain = drain();
        tracing::info!(in_flight = self.inflight.len(), ?drain, "draining");
        tokio::select! {
            () = self.inflight.emptied() => {}
            () = tokio::time::sleep(drain) => tracing::warn!(in_flight = self.inflight.len(), "the drain ran out"),
            () = force.cancelled() => tracing::warn!(in_flight = self.inflight.len(), "the drain was cut short"),
        }
        self.inflight.interrupt(None);
        // Interrupted jobs only have their settlement to write; a store that cannot take it is recovered at the next start.
        if tokio::time::timeout(SETTLE_GRACE, self.inflight.emptied()).await.is_err() {
            tracing::error!(
                in_flight = self.inflight.len(),
                "some jobs could not be put back; the next start takes them up"
            );
        }
        if let Err(error) = self.write_down_quotas().await {
            tracing::warn!(%error, "what was learned of quotas could not be written down; it is learned again");
        }
        upkeep_stop.cancel();
        while loops.join_next().await.is_some() {}
        if self.inflight.is_empty() { self.store.deregister(self.node).await } else { Ok(()) }
    }

    /// The world now.
    pub fn world(&self) -> Arc<World> {
        self.world.load_full()
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The runtime levers in force.
    pub fn runtime(&self) -> Runtime {
        self.runtime.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether new jobs are taken.
    pub fn is_accepting(&self) -> bool {
        self.accepting.load(Ordering::Acquire)
    }

    /// Jobs in flight here.
    pub fn in_flight(&self) -> usize {
        self.inflight.len()
    }

    /// The health of targets.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// What a pipeline spent today and in this month (UTC).
    pub fn spent(&self, pipeline: &PipelineName) -> (Usd, Usd) {
        self.spending.of(pipeline, self.now())
    }

    /// What keys may spend from now on.
    pub fn follow_keys<'a>(&self, keys: impl Iterator<Item = &'a crate::access::Key>) {
        self.spending.follow_keys(keys);
    }

    /// Which budget keeps a job from going that costs so much at most, how much of it is spent, and when it opens again; if
    /// one does.
    pub fn budget_in_words(&self, pipeline: &PipelineName, caller: &str, most: Usd) -> Option<String> {
        let now = self.now();
        let world = self.world.load();
        let budget = world.lane(pipeline).and_then(|lane| lane.loaded.pipeline.budget);
        if let Some(budget) = budget.filter(|budget| budget.at_limit == AtLimit::Hold)
            && let Some(short) = self.spending.short_of(pipeline, &budget.into(), most, now)
        {
            return Some(short.in_words(&format!("pipeline {pipeline}")));
        }
        let (key, short) = self.spending.short_of_key(caller, most, now)?;
        Some(short.in_words(&format!("key {key:?}")))
    }

    /// Whether a pipeline's budget is spent, and what becomes of its jobs then.
    fn budget_is_spent(&self, lane: &world::Lane, now: Timestamp) -> Option<AtLimit> {
        let spec = &lane.loaded.pipeline;
        let budget = spec.budget?;
        self.spending.spent_of(&spec.name, &budget.into(), now).map(|_| budget.at_limit)
    }

    /// Why every job of a pipeline is held now, if it is. Derived, never stored.
    pub fn hold_of(&self, pipeline: &PipelineName) -> Option<HoldReason> {
        let world = self.world.load();
        let Some(lane) = world.lane(pipeline) else { return Some(HoldReason::PipelineRemoved) };
        lane.hold.or_else(|| self.hold_of_lane(lane))
    }

    /// The holds that change from moment to moment: money and health.
    fn hold_of_lane(&self, lane: &world::Lane) -> Option<HoldReason> {
        let spec = &lane.loaded.pipeline;
        let now = self.clock.now();
        if self.budget_is_spent(lane, now) == Some(AtLimit::Hold) {
            return Some(HoldReason::Budget);
        }
        let parked = |target| self.health.is_parked(target, now);
        (!spec.targets.is_empty() && spec.targets.iter().all(|target| parked(target.as_ref())))
            .then_some(HoldReason::TargetsParked)
    }

    /// When a job that has no hold of its own expires.
    pub fn expires_at(&self, pipeline: &PipelineName, expiry_key: Timestamp) -> Timestamp {
        expiry_key + self.holds.total(pipeline, self.clock.now())
    }

    /// Cancels jobs, and the calls of those in flight here.
    ///
    /// # Errors
    /// [`StoreError`]; nothing changed then.
    pub async fn cancel(&self, jobs: Vec<JobId>) -> Result<Vec<Cancelled>, StoreError> {
        let outcomes = self.store.cancel(jobs.clone()).await?;
        let mut ended = Vec::new();
        for (job, outcome) in jobs.into_iter().zip(&outcomes) {
            if let Cancelled::Done { was } = outcome {
                ended.push(job);
                if *was == State::Running {
                    self.inflight.stop(job, StopReason::Cancelled);
                }
            }
        }
        self.observe_ends(&ended).await;
        Ok(outcomes)
    }

    /// Puts a snapshot in force.
    pub(super) fn install(&self, snapshot: Arc<Snapshot>) {
        let runtime = self.runtime();
        let levels = runtime.levels(&snapshot.flags, snapshot.providers.keys());
        self.swap(snapshot, levels, runtime.rollbacks.keys().cloned().collect());
        self.health.something_changed();
    }

    /// Takes over what is known of files, where nothing that serves has changed: work under way need not decide again.
    fn install_reports(&self, snapshot: Arc<Snapshot>) {
        let world = self.world();
        self.metrics.follow(&snapshot);
        let rolled_back = world.rolled_back.clone();
        let (levels, courses) = (world.levels.clone(), world.courses.clone());
        self.world.store(Arc::new(World::new(world.version, snapshot, levels, rolled_back, courses)));
    }

    /// Takes over how far rollouts have come; work under way decides again where a decision could tell.
    fn install_courses(&self, courses: Arc<rollouts::Courses>) {
        let before = self.world.load_full();
        let steers_like = before.courses.steers_like(&courses);
        let version = before.version + u64::from(!steers_like);
        let (levels, rolled_back) = (before.levels.clone(), before.rolled_back.clone());
        let world = Arc::new(World::new(version, before.snapshot.clone(), levels, rolled_back, courses));
        self.observe_world(&world);
        self.world.store(world);
        if !steers_like {
            self.world_version.send_replace(version);
        }
    }

    /// Puts runtime levers in force.
    fn install_runtime(&self, runtime: Runtime) {
        let snapshot = self.world().snapshot.clone();
        let levels = runtime.levels(&snapshot.flags, snapshot.providers.keys());
        let rolled_back = runtime.rollbacks.keys().cloned().collect();
        *self.runtime.lock().unwrap_or_else(PoisonError::into_inner) = runtime;
        self.swap(snapshot, levels, rolled_back);
    }

    fn swap(&self, snapshot: Arc<Snapshot>, levels: FlagLevels, rolled_back: Vec<PipelineName>) {
        let before = self.world.load_full();
        let version = before.version + 1;
        let world = Arc::new(World::new(version, snapshot, levels, rolled_back, before.courses.clone()));
        self.observe_world(&world);
        self.world.store(world);
        self.world_version.send_replace(version);
    }

    /// Why each pipeline that has live jobs, or a spec, is held now.
    fn holds_now(&self, counts: &BTreeMap<(PipelineName, State), u64>) -> BTreeMap<PipelineName, Option<HoldReason>> {
        let world = self.world.load();
        let with_jobs =
            counts.iter().filter(|((_, state), n)| !state.is_terminal() && **n > 0).map(|((name, _), _)| name);
        world.lanes().map(|(name, _)| name).chain(with_jobs).map(|name| (name.clone(), self.hold_of(name))).collect()
    }
}

/// How long interrupted jobs may take to be put back.
const SETTLE_GRACE: Duration = Duration::from_secs(5);
