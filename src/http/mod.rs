//! The HTTP face: jobs for callers, levers for operators, health and metrics for machines.
//!
//! Invariant: handlers validate and translate; every decision is the engine's. Every answer carries an `x-request-id`,
//! every error the four keys of OpenAI's error object. Bodies, lines and waits are bounded.

mod description;
mod error;
mod jobs;
pub mod keys;
mod openai;
mod ops;
mod pace;
mod param;
mod probes;
mod scores;
mod serve;
mod tls;
mod view;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderName, HeaderValue, header::CONTENT_LENGTH},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use futures_util::StreamExt as _;

pub use self::{
    error::ApiError,
    keys::Keyring,
    serve::{Serving, serve},
    tls::Tls,
};
use crate::engine::{Engine, reload::Reloader};

/// What the handlers work with.
#[derive(Clone)]
pub struct App {
    /// The engine.
    pub engine: Arc<Engine>,
    /// Reads the folders again when asked.
    pub reloader: Arc<Reloader>,
    /// Who may come in.
    pub keys: Arc<Keyring>,
}

impl App {
    /// Takes over what became of keys just now.
    async fn refresh_keys(&self) -> Result<(), ApiError> {
        self.keys.refresh(&self.reloader.settings().keys).await?;
        self.engine.follow_keys(self.keys.ring().keys().map(AsRef::as_ref));
        Ok(())
    }
}

/// Largest request body: a bulk of prompts, some of them long.
pub const MAX_BODY: usize = 32 * 1024 * 1024;
/// Of a body that is too large, this much is read past before it is refused, for at most this long.
const MOST_DISCARDED: usize = 4 * MAX_BODY;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The API and the operators' paths.
pub fn router(app: App) -> Router {
    paths()
        .layer(middleware::from_fn(pace::keep_pace))
        .layer(middleware::from_fn_with_state(app.clone(), keys::authorise))
        .layer(middleware::from_fn(with_request_id))
        .with_state(app)
}

/// Every path, with what bounds its bodies.
fn paths() -> Router<App> {
    let ops = Router::new()
        .route("/pipelines", get(ops::pipelines))
        .route("/reload", post(ops::reload))
        .route("/flags", get(ops::flags::list).post(ops::flags::set))
        .route("/flags/{flag}", axum::routing::delete(ops::flags::clear))
        .route("/rollback", post(ops::flags::rollback))
        .route("/resume", post(ops::flags::resume))
        .route("/rollouts", get(ops::rollouts::list))
        .route("/rollouts/{pipeline}/{rollout}", get(ops::rollouts::show))
        .route("/rollouts/{pipeline}/{rollout}/{what}", post(ops::rollouts::act))
        .route("/explain", post(ops::explain))
        .route("/quotas", get(ops::quotas::list).post(ops::quotas::set))
        .route("/quotas/reset", post(ops::quotas::reset))
        .route("/forecast", get(ops::quotas::backlog).post(ops::quotas::forecast))
        .route("/audit", get(ops::audit))
        .route("/traffic", get(ops::traffic::traffic))
        .route("/report", get(ops::report::report))
        .route("/plan", post(ops::plan::plan))
        .route("/config", get(ops::config::history))
        .route("/config/{generation}/diff", get(ops::config::diff))
        .route("/config/rollback", post(ops::config::rollback))
        .route("/batches/{batch}", get(ops::batch))
        .route("/cancel", post(ops::cancel))
        .route("/keys", get(ops::keys::list).post(ops::keys::create))
        .route("/keys/{key}", axum::routing::delete(ops::keys::revoke));
    Router::new()
        .route("/v1/jobs", post(jobs::submit).get(jobs::list))
        .route("/v1/jobs/{id}", get(jobs::show))
        .route("/v1/jobs/{id}/why", get(jobs::why))
        .route("/v1/jobs/{id}/cancel", post(jobs::cancel))
        .route("/v1/jobs/{id}/retry", post(jobs::retry))
        .route("/v1/jobs/{id}/scores", post(scores::post))
        .nest("/v1/ops", ops)
        .merge(openai::routes())
        .merge(probes::routes())
        .route("/openapi.json", get(description::show))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(refuse_large))
        .merge(openai::file_routes().layer(DefaultBodyLimit::disable()))
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::wrong_method)
}

/// Health and metrics alone, for a port of their own.
pub fn ops_router(app: App) -> Router {
    probes::routes()
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::wrong_method)
        .layer(middleware::from_fn(with_request_id))
        .with_state(app)
}

/// Refuses a body that says itself that it is too large, after reading past some of it: a client that is cut off while it
/// sends would see a broken connection instead of the reason.
async fn refuse_large(request: Request, next: Next) -> Response {
    let length = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_none_or(|length| length <= MAX_BODY as u64) {
        return next.run(request).await;
    }
    discard(request.into_body()).await;
    ApiError::too_large().into_response()
}

/// Reads past some of a body that nobody wants.
async fn discard(body: Body) {
    let mut rest = body.into_data_stream();
    let discard = async {
        let mut read = 0;
        while let Some(Ok(chunk)) = rest.next().await {
            read += chunk.len();
            if read > MOST_DISCARDED {
                break;
            }
        }
    };
    // Whether all of it came or time ran out, the answer is the same.
    let _in_time = tokio::time::timeout(DISCARD_TIMEOUT, discard).await;
}

async fn with_request_id(request: Request, next: Next) -> Response {
    let given = request.headers().get(&REQUEST_ID).filter(|id| id.len() <= 128).cloned();
    let id = given.or_else(|| HeaderValue::from_str(&format!("req_{}", uuid::Uuid::now_v7().simple())).ok());
    let mut response = next.run(request).await;
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}
