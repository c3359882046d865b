//! The daemon: wires the rooms together, runs until told to stop, drains.
//!
//! Invariant: what is opened last is closed first, and nothing is served before the queue is taken up. A second signal
//! ends the drain.

mod limits;
mod signals;
mod store;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

pub use store::open_store;

use crate::{
    access::Ring,
    clock::{Followed, SharedClock, SteadyClock, format_span},
    diagnostic::Diagnostic,
    engine::{
        Engine, Pace, Parts,
        reload::{FirstLoad, Origin, Reloader, first_load},
    },
    http::{self, App, Keyring, Serving, Tls},
    metrics::{Metrics, ReloadTrigger},
    provider,
    settings::{self, Environment, Override, Settings},
    simulate::{SimulateOptions, Simulation},
    store::StoreError,
    watch::{Folders, Watcher},
};

/// How a daemon is started.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The settings file.
    pub config: PathBuf,
    /// Settings given on the command line.
    pub overrides: Vec<Override>,
    /// The environment.
    pub environment: Environment,
    /// Simulated endpoints behind the real clients.
    pub simulate: Option<SimulateOptions>,
}

/// Why a daemon did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The settings are wrong: exit code 78.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n\n"))]
    Settings(Vec<Diagnostic>),
    /// The store cannot be opened or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A port cannot be had.
    #[error("cannot listen on {address}: {source}; is another daemon running there? choose another `listen`")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// A daemon that has started: listening, with its queue taken up, not yet dispatching.
pub struct Daemon {
    engine: Arc<Engine>,
    reloader: Arc<Reloader>,
    watcher: Watcher,
    keys: Arc<Keyring>,
    tls: Option<Arc<Tls>>,
    listeners: Vec<(TcpListener, axum::Router, Serving)>,
    simulation: Option<Arc<Simulation>>,
    address: SocketAddr,
    stop: CancellationToken,
    force: CancellationToken,
}

impl Daemon {
    /// Reads settings and specs, opens the store, takes up the queue, binds the ports.
    ///
    /// # Errors
    /// [`DaemonError`]; nothing was dispatched then.
    pub async fn start(options: Options) -> Result<Self, DaemonError> {
        provider::install_crypto();
        let loaded =
            Settings::load(&options.config, &options.environment, &options.overrides).map_err(DaemonError::Settings)?;
        for warning in &loaded.warnings {
            tracing::warn!("\n{warning}");
        }
        let mut settings = loaded.settings;
        let simulation = match options.simulate {
            None => None,
            Some(simulated) => {
                let simulation =
                    Simulation::start(simulated).await.map_err(|error| DaemonError::Other(error.to_string()))?;
                settings.point_at(&simulation.openai_base_url(), &simulation.bedrock_endpoint_url());
                tracing::info!(
                    openai = simulation.openai_base_url(),
                    bedrock = simulation.bedrock_endpoint_url(),
                    "every provider is simulated: no call leaves this machine"
                );
                Some(Arc::new(simulation))
            }
        };
        let steady = Arc::new(SteadyClock::new());
        let clock: SharedClock = steady.clone();
        let mut listeners = Vec::new();
        let main = listen(settings.listen).await?;
        let address = main.local_addr().unwrap_or(settings.listen);
        let ops = match settings.ops_listen {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let tls = settings.tls.clone().map(Tls::load).transpose().map_err(DaemonError::Other)?.map(Arc::new);
        let store = open_store(&settings.store, clock.clone()).await?;
        let keys = Arc::new(Keyring::load(store.clone(), &settings.keys, settings.listen.ip().is_loopback()).await?);
        if keys.is_empty() && !settings.listen.ip().is_loopback() {
            return Err(DaemonError::Settings(vec![open_listener(&settings, &options.config)]));
        }
        let node = store.local_node();
        let metrics = Arc::new(Metrics::new());
        let (flags, findings) = settings::environment_flags(&options.environment, &settings.provider_facts());
        let (errors, warnings): (Vec<_>, Vec<_>) = findings.into_iter().partition(Diagnostic::is_error);
        if !errors.is_empty() {
            // A kill switch that cannot be read must not be taken for one that is off.
            return Err(DaemonError::Settings(errors));
        }
        for warning in warnings {
            tracing::warn!("\n{warning}");
        }
        let origin = Origin {
            folders: Folders::of(&settings, &options.config),
            settings_file: options.config.clone(),
            environment: options.environment,
            flags,
            overrides: options.overrides,
        };
        let providers = provider::connect_all(&settings).await.map_err(|errors| {
            DaemonError::Other(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        })?;
        let FirstLoad { snapshot, scan, kept, pin } =
            first_load(&store, &settings, &origin, &metrics, clock.now()).await?;
        let stop = CancellationToken::new();
        let mut watcher = Watcher::start(origin.folders.clone(), settings.watch, stop.clone());
        watcher.acknowledge(&scan);
        let parts = Parts {
            store,
            providers,
            snapshot,
            metrics,
            clock,
            node,
            max_in_flight: limits::max_in_flight(),
            lease: settings.lease,
            retention: settings.retention,
        };
        let (engine, recovered) = Engine::take_up(parts).await?;
        engine.follow_keys(keys.ring().keys().map(AsRef::as_ref));
        if recovered.requeued > 0 || recovered.unknown_attempts > 0 || !recovered.quarantined.is_empty() {
            tracing::warn!(
                requeued = recovered.requeued, possibly_billed = recovered.unknown_attempts, suspects = recovered.suspects,
                quarantined = ?recovered.quarantined, "the last run ended without a drain; its jobs are taken up again"
            );
        }
        let reloader = Arc::new(Reloader::new(engine.clone(), origin, settings, kept, pin));
        let app = App { engine: engine.clone(), reloader: reloader.clone(), keys: keys.clone() };
        let connections = limits::max_connections();
        listeners.push((main, http::router(app.clone()), Serving { connections, tls: tls.clone() }));
        if let Some(ops) = ops {
            listeners.push((ops, http::ops_router(app), Serving { connections: limits::PROBES, tls: None }));
        }
        tokio::spawn(follow(steady, stop.clone()));
        let force = CancellationToken::new();
        Ok(Self { engine, reloader, watcher, keys, tls, listeners, simulation, address, stop, force })
    }

    /// Where the API listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The simulated endpoints, if any.
    pub fn simulation(&self) -> Option<Arc<Simulation>> {
        self.simulation.clone()
    }

    /// Stops the daemon when cancelled, as SIGTERM does.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Works until SIGTERM, SIGINT, or the stop token; then drains.
    ///
    /// # Errors
    /// [`DaemonError`] when a listener broke, or the good order could not be written down.
    pub async fn run(self) -> Result<(), DaemonError> {
        let Self { engine, reloader, keys, tls, mut watcher, listeners, simulation, address, stop, force } = self;
        tracing::info!(
            %address, pipelines = engine.world().snapshot.pipelines.len(), generation = engine.world().snapshot.generation,
            "landbridge {} is ready", env!("CARGO_PKG_VERSION")
        );
        let serving = CancellationToken::new();
        let mut servers = JoinSet::new();
        for (listener, router, how) in listeners {
            let (serving, stop) = (serving.clone(), stop.clone());
            servers.spawn(async move {
                if let Err(error) = http::serve(listener, router, how, serving).await {
                    tracing::error!(%error, "a listener broke; the daemon stops");
                    stop.cancel();
                }
            });
        }
        let signals = tokio::spawn(signals::follow(reloader.clone(), stop.clone(), force.clone()));
        let reloads = {
            let reloader = reloader.clone();
            tokio::spawn(async move {
                while let Some(change) = watcher.next().await {
                    reloader.apply(change.scan, ReloadTrigger::Watch).await;
                }
            })
        };
        let following = {
            let (reloader, serving, engine) = (reloader.clone(), serving.clone(), engine.clone());
            tokio::spawn(async move {
                let limits = |ring: &Ring| engine.follow_keys(ring.keys().map(AsRef::as_ref));
                let certificate = async {
                    if let Some(tls) = tls {
                        tls.follow(serving.clone()).await;
                    }
                };
                let keys = keys.follow(|| reloader.settings().keys, limits, serving.clone());
                tokio::join!(certificate, keys, reloader.follow_pins(serving.clone()));
            })
        };
        let drain = || reloader.settings().drain;
        let ended = engine.run(Pace::default(), stop.clone(), drain, force.clone()).await;
        serving.cancel();
        let closing = async { while servers.join_next().await.is_some() {} };
        if tokio::time::timeout(limits::CLOSING, closing).await.is_err() {
            tracing::warn!("some requests were still open at the end");
        }
        following.abort();
        signals.abort();
        reloads.abort();
        // Whoever else holds the endpoints stops them by letting go.
        if let Some(simulation) = simulation.and_then(Arc::into_inner) {
            simulation.stop().await;
        }
        tracing::info!("stopped");
        Ok(ended?)
    }
}

/// Keeps the daemon's clock with the machine's.
async fn follow(clock: Arc<SteadyClock>, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(limits::CLOCK_LOOK)).await.is_some() {
        match clock.follow() {
            Followed::Quietly => {}
            Followed::Forward(by) => tracing::warn!(
                by = format_span(by),
                "the machine's clock was set forward, or the machine slept: waits and deadlines that ended meanwhile end \
                 now; check its time service"
            ),
            Followed::Ahead(by) => tracing::warn!(
                by = format_span(by),
                "the machine's clock was set back: the daemon's own time goes on, a tenth slower until the two agree, so \
                 that nothing waits longer; times it records are ahead until then (a restart takes the machine's time at \
                 once); check its time service"
            ),
        }
    }
}

/// Why nobody is served beyond this machine while no key exists.
fn open_listener(settings: &Settings, config: &Path) -> Diagnostic {
    let message = format!(
        "`listen` is {}, beyond this machine, and no key exists: anybody who reaches that address could send jobs at your \
         cost",
        settings.listen
    );
    Diagnostic::error("open-listener", &config.display().to_string(), message).help(
        "make a key with `landbridge key create --scope submit`, declare one under `keys`, or listen on 127.0.0.1",
    )
}

async fn listen(address: SocketAddr) -> Result<TcpListener, DaemonError> {
    TcpListener::bind(address).await.map_err(|source| DaemonError::Listen { address, source })
}
