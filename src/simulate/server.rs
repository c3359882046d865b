//! The server on loopback: starting, stopping, and which path is whose.
//!
//! Invariant: it listens on 127.0.0.1 alone, and every path answers in the shape of the protocol it belongs to.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Path, State},
    http::{HeaderMap, Method, Uri},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    admin, bedrock,
    call::{self, Incoming, Operation},
    config::SimulationConfig,
    journal::{Counts, Journal, JournalPage, Repeated},
    model::{Behaviour, Chance},
    openai,
    options::SimulateOptions,
    reply::{Refused, Reply},
    wire_cut::{Scissors, WireListener},
};
use crate::{
    catalog::Catalog,
    clock::{Clock, SystemClock, Timestamp, TokioClock},
    spec::Api,
};

/// Calls that are nearly done may end in their own way.
const GRACE: Duration = Duration::from_millis(500);

/// After that, connections have so long to close.
const CLOSING: Duration = Duration::from_secs(2);

/// Why simulated endpoints cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SimulationError {
    /// The port cannot be had.
    #[error(
        "the simulated endpoints cannot listen on {address}: {source}; choose another port, or 0 for any that is free"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The settings cannot be used.
    #[error("the simulated endpoints cannot be set up so: {0}")]
    Config(String),
}

/// Where the calls stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Progress {
    pub in_flight: u64,
    pub ended: u64,
}

pub(super) struct Inner {
    pub config: SimulationConfig,
    pub behaviour: Behaviour,
    pub journal: Journal,
}

/// What all calls share.
pub(super) struct World {
    pub clock: TokioClock,
    pub catalog: Arc<Catalog>,
    /// Waits end when this is cancelled.
    pub closing: CancellationToken,
    pub progress: watch::Sender<Progress>,
    inner: Mutex<Inner>,
    salt: u64,
    ids: AtomicU64,
}

impl World {
    fn new(config: SimulationConfig, catalog: Arc<Catalog>) -> Self {
        let clock = TokioClock::starting_at(SystemClock.now());
        let behaviour = Behaviour::new(config.behaviour(), clock.now());
        let journal = Journal::new(config.journal);
        Self {
            clock,
            catalog,
            closing: CancellationToken::new(),
            progress: watch::Sender::default(),
            inner: Mutex::new(Inner { config, behaviour, journal }),
            salt: rand::random(),
            ids: AtomicU64::new(0),
        }
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Nothing panics under this lock; if something did, what it guards is still whole enough to count with.
    pub fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the settings of a running simulation.
    pub fn configure(&self, config: SimulationConfig) -> Result<(), SimulationError> {
        if let Some(problem) = config.problem() {
            return Err(SimulationError::Config(problem));
        }
        let now = self.now();
        let mut inner = self.inner();
        inner.behaviour.configure(config.behaviour(), now);
        inner.journal.resize(config.journal);
        inner.config = config;
        Ok(())
    }

    /// Forgets every call, and fills the buckets.
    pub fn reset(&self) {
        let now = self.now();
        let mut inner = self.inner();
        inner.behaviour.reset(now);
        inner.journal.reset();
        self.progress.send_modify(|progress| progress.ended = 0);
    }

    /// An id that no other call has, as a protocol writes it.
    pub fn request_id(&self, api: Api) -> String {
        let mut chance = Chance::of_call(self.salt, self.ids.fetch_add(1, Ordering::Relaxed));
        let id = (u128::from(chance.bits()) << 64) | u128::from(chance.bits());
        match api {
            Api::OpenAi => format!("req_{id:032x}"),
            Api::Bedrock => uuid::Builder::from_random_bytes(id.to_be_bytes()).into_uuid().to_string(),
        }
    }
}

/// Running simulated endpoints. Dropped, they stop at once.
#[must_use = "dropped, the endpoints stop"]
pub struct Simulation {
    address: SocketAddr,
    world: Arc<World>,
    shutdown: CancellationToken,
    served: Option<JoinHandle<()>>,
}

impl Simulation {
    /// Starts both endpoints on one port of 127.0.0.1, in the current runtime.
    ///
    /// # Errors
    /// [`SimulationError`] when the port cannot be had or the options cannot be used.
    pub async fn start(options: SimulateOptions) -> Result<Self, SimulationError> {
        let config = options.config();
        if let Some(problem) = config.problem() {
            return Err(SimulationError::Config(problem));
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, options.port));
        let listen = |source| SimulationError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let world = Arc::new(World::new(config, options.catalog));
        let shutdown = CancellationToken::new();
        let service = router(Arc::clone(&world)).into_make_service_with_connect_info::<Scissors>();
        let server =
            axum::serve(WireListener(listener), service).with_graceful_shutdown(shutdown.clone().cancelled_owned());
        let served = tokio::spawn(async move {
            // Accept errors are waited out inside; the server ends only when told to.
            let _ = server.await;
        });
        Ok(Self { address, world, shutdown, served: Some(served) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What an OpenAI client takes for its base URL.
    pub fn openai_base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// What an AWS client takes for its endpoint URL.
    pub fn bedrock_endpoint_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The settings in force.
    pub fn config(&self) -> SimulationConfig {
        self.world.inner().config.clone()
    }

    /// Replaces the settings. Buckets go on if their quotas stay, and so do the counts of faults that stay.
    ///
    /// # Errors
    /// [`SimulationError::Config`] when they cannot be used; nothing is changed then.
    pub fn configure(&self, config: SimulationConfig) -> Result<(), SimulationError> {
        self.world.configure(config)
    }

    /// Forgets every call, fills the buckets and begins the faults anew.
    pub fn reset(&self) {
        self.world.reset();
    }

    /// What has been called, in numbers.
    pub fn counts(&self) -> Counts {
        self.world.inner().journal.counts()
    }

    /// Prompts that were called at least `calls` times, most often first, at most `limit` of them.
    pub fn prompts_called(&self, calls: u64, limit: usize) -> Vec<Repeated> {
        self.world.inner().journal.prompts(calls, limit)
    }

    /// Calls that ended after the `after`-th, at most `limit` of them.
    pub fn journal(&self, after: u64, limit: usize) -> JournalPage {
        self.world.inner().journal.page(after, limit)
    }

    /// Waits until so many calls are here at once.
    pub async fn until_in_flight(&self, calls: u64) {
        self.until(|progress| progress.in_flight >= calls).await;
    }

    /// Waits until so many calls have ended since the start or the last reset.
    pub async fn until_ended(&self, calls: u64) {
        self.until(|progress| progress.ended >= calls).await;
    }

    async fn until(&self, reached: impl Fn(&Progress) -> bool) {
        // The sender lives as long as `self`: this cannot fail.
        let _ = self.world.progress.subscribe().wait_for(|progress| reached(progress)).await;
    }

    /// Stops: no new connections, calls that wait are answered at once, connections are closed.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        let Some(mut served) = self.served.take() else { return };
        if tokio::time::timeout(GRACE, &mut served).await.is_ok() {
            return;
        }
        self.world.closing.cancel();
        if tokio::time::timeout(CLOSING, &mut served).await.is_err() {
            served.abort();
        }
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.world.closing.cancel();
    }
}

impl std::fmt::Debug for Simulation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulation").field("address", &self.address).finish_non_exhaustive()
    }
}

fn router(world: Arc<World>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/models", get(models))
        .route("/openai/v1/chat/completions", post(chat_on_bedrock))
        .route("/model/{model}/{operation}", post(model_operation))
        .route("/", post(service_quotas))
        .route("/_simulate/config", get(admin::config).put(admin::configure))
        .route("/_simulate/journal", get(admin::journal))
        .route("/_simulate/counts", get(admin::counts))
        .route("/_simulate/reset", post(admin::reset))
        .fallback(elsewhere)
        .method_not_allowed_fallback(wrong_method)
        .with_state(world)
}

async fn chat(
    State(world): State<Arc<World>>,
    ConnectInfo(scissors): ConnectInfo<Scissors>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let (api, operation) = (Api::OpenAi, Operation::Chat);
    call::serve(world, Incoming { api, operation, model: None, headers, body, scissors }).await
}

async fn chat_on_bedrock(
    State(world): State<Arc<World>>,
    ConnectInfo(scissors): ConnectInfo<Scissors>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let (api, operation) = (Api::Bedrock, Operation::Chat);
    call::serve(world, Incoming { api, operation, model: None, headers, body, scissors }).await
}

async fn model_operation(
    State(world): State<Arc<World>>,
    ConnectInfo(scissors): ConnectInfo<Scissors>,
    Path((model, operation)): Path<(String, String)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let operation = match operation.as_str() {
        "converse" => Operation::Converse,
        "converse-stream" => Operation::ConverseStream,
        "invoke" => Operation::Invoke,
        "invoke-with-response-stream" => Operation::InvokeStream,
        "count-tokens" => return call::count_tokens(&world, model, body).await,
        _ => return elsewhere(method, uri).await,
    };
    let incoming = Incoming { api: Api::Bedrock, operation, model: Some(model), headers, body, scissors };
    call::serve(world, incoming).await
}

async fn service_quotas(State(world): State<Arc<World>>, headers: HeaderMap, body: bytes::Bytes) -> Response {
    let quotas = world.inner().config.quotas.clone();
    bedrock::service_quotas(&headers, &body, &world.catalog, &quotas).into_response()
}

async fn models(State(world): State<Arc<World>>) -> Response {
    openai::models(&world.catalog, world.now()).into_response()
}

async fn elsewhere(method: Method, uri: Uri) -> Response {
    let path = uri.path();
    if path.starts_with("/model/") {
        let message = format!("The simulation does Converse, InvokeModel and CountTokens, not {method} {path}.");
        return bedrock::refuse(&Refused::new(404, "UnknownOperationException", message)).into_response();
    }
    openai::refuse(&Refused::new(404, "unknown_url", format!("Invalid URL ({method} {path})"))).into_response()
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let message =
        format!("Not allowed to {method} on {}. Perhaps you meant to use a different HTTP method?", uri.path());
    openai::refuse(&Refused::new(405, "method_not_supported", message)).into_response()
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}
