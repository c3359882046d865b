//! `/healthz`, `/readyz`, `/metrics`: what machines ask.

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;

use super::App;
use crate::{metrics::CONTENT_TYPE, names::PipelineName};

pub(super) fn routes() -> Router<App> {
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz)).route("/metrics", get(metrics))
}

/// The process lives.
async fn healthz() -> &'static str {
    "ok\n"
}

/// 200 while work is accepted; what is degraded is in the body.
async fn readyz(State(app): State<App>) -> Response {
    let engine = &app.engine;
    let world = engine.world();
    let store = engine.store().now().await.err().map(|error| error.to_string());
    let broken: Vec<_> = world
        .snapshot
        .files
        .iter()
        .filter(|file| !file.valid)
        .map(|file| json!({ "file": file.file, "diagnostics": file.diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>() }))
        .collect();
    let stale: Vec<&PipelineName> =
        world.snapshot.pipelines.iter().filter(|(_, loaded)| loaded.stale).map(|(name, _)| name).collect();
    let held: Vec<_> = world
        .lanes()
        .filter_map(|(name, _)| engine.hold_of(name).map(|hold| json!({ "pipeline": name, "reason_code": hold })))
        .collect();
    let ready = store.is_none() && engine.is_accepting();
    let pinned = app.reloader.pin().as_ref().map(super::ops::config::shown);
    let degraded = pinned.is_some() || !broken.is_empty() || !stale.is_empty() || !held.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "ready": ready,
        "degraded": degraded,
        "generation": world.snapshot.generation,
        "hash": world.snapshot.hash,
        "pipelines": world.snapshot.pipelines.len(),
        "broken_files": broken,
        "stale_pipelines": stale,
        "held_pipelines": held,
        "pinned": pinned,
        "store": store,
        "draining": !engine.is_accepting(),
    });
    (status, Json(body)).into_response()
}

async fn metrics(State(app): State<App>) -> Response {
    if let Err(error) = app.engine.refresh_gauges().await {
        tracing::warn!(%error, "the gauges of the queue are as of the last pass");
    }
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], app.engine.metrics().encode()).into_response()
}
