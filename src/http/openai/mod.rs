//! The OpenAI form: what unmodified clients of that API ask, answered by pipelines.
//!
//! Invariant: what a client may rely on is the original's contract: paths, shapes, statuses, headers. Everything behind it
//! is landbridge's.

pub(super) mod batches;
mod chat;
pub(super) mod files;
mod models;
mod request;

use axum::{
    Router,
    routing::{get, post},
};

use super::App;

/// The paths, below `/v1` and below `/p/PIPELINE/v1`.
pub(super) fn routes() -> Router<App> {
    let paths = || {
        Router::new()
            .route("/chat/completions", post(chat::create))
            .route("/models", get(models::list))
            .route("/models/{*model}", get(models::show))
            .route("/batches", post(batches::create).get(batches::list))
            .route("/batches/{batch}", get(batches::show))
            .route("/batches/{batch}/cancel", post(batches::cancel))
    };
    Router::new().nest("/v1", paths()).nest("/p/{pipeline}/v1", paths())
}

/// Files, whose bodies are larger than any other.
pub(super) fn file_routes() -> Router<App> {
    let paths = || {
        Router::new()
            .route("/files", post(files::create).get(files::list))
            .route("/files/{file}", get(files::show).delete(files::delete))
            .route("/files/{file}/content", get(files::content))
    };
    Router::new().nest("/v1", paths()).nest("/p/{pipeline}/v1", paths())
}
