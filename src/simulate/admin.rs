//! Asking and changing a running simulation: `/_simulate/…`.
//!
//! Invariant: a change that cannot be made changes nothing and says why.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::json;

use super::{
    config::SimulationConfig,
    journal::{Counts, Repeated},
    reply::Reply,
    server::World,
};

/// Entries of one answer, unless asked otherwise.
const PAGE: usize = 1_000;

/// Entries of one answer at most.
const LARGEST_PAGE: usize = 100_000;

/// `GET /_simulate/config`.
pub(super) async fn config(State(world): State<Arc<World>>) -> Response {
    Reply::json(200, &world.inner().config).into_response()
}

/// `PUT /_simulate/config`: replaces all settings; what is left out is at its default.
pub(super) async fn configure(State(world): State<Arc<World>>, body: Bytes) -> Response {
    // A list would be read as the settings in order.
    if !body.trim_ascii_start().starts_with(b"{") {
        return refuse(422, "these are no settings of a simulation: they are a JSON object".to_owned());
    }
    let config: SimulationConfig = match serde_json::from_slice(&body) {
        Ok(config) => config,
        Err(error) => return refuse(422, format!("these are no settings of a simulation: {error}")),
    };
    match world.configure(config) {
        Ok(()) => Reply::json(200, &world.inner().config).into_response(),
        Err(error) => refuse(422, error.to_string()),
    }
}

/// What `GET /_simulate/journal` may be asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JournalQuery {
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
}

/// `GET /_simulate/journal?after=&limit=`.
pub(super) async fn journal(
    State(world): State<Arc<World>>,
    query: Result<Query<JournalQuery>, QueryRejection>,
) -> Response {
    match query {
        Ok(Query(query)) => {
            let page = world.inner().journal.page(query.after, limit(query.limit));
            Reply::json(200, &page).into_response()
        }
        Err(rejection) => refuse(400, rejection.body_text()),
    }
}

/// What `GET /_simulate/counts` may be asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CountsQuery {
    list: Option<Listed>,
    min: Option<u64>,
    limit: Option<usize>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Listed {
    Prompts,
    Jobs,
}

#[derive(serde::Serialize)]
struct Counted {
    counts: Counts,
    #[serde(skip_serializing_if = "Option::is_none")]
    list: Option<Vec<Repeated>>,
}

/// `GET /_simulate/counts`, and with `?list=prompts|jobs&min=2` those that were called at least so often.
pub(super) async fn counts(
    State(world): State<Arc<World>>,
    query: Result<Query<CountsQuery>, QueryRejection>,
) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(rejection) => return refuse(400, rejection.body_text()),
    };
    let (least, most) = (query.min.unwrap_or(2), limit(query.limit));
    let inner = world.inner();
    let list = query.list.map(|listed| match listed {
        Listed::Prompts => inner.journal.prompts(least, most),
        Listed::Jobs => inner.journal.jobs(least, most),
    });
    let counted = Counted { counts: inner.journal.counts(), list };
    drop(inner);
    Reply::json(200, &counted).into_response()
}

/// `POST /_simulate/reset`: forgets every call, fills the buckets, begins the faults anew.
pub(super) async fn reset(State(world): State<Arc<World>>) -> Response {
    world.reset();
    Reply::json(200, &json!({"reset": true})).into_response()
}

fn limit(asked: Option<usize>) -> usize {
    asked.unwrap_or(PAGE).min(LARGEST_PAGE)
}

fn refuse(status: u16, message: String) -> Response {
    let error = json!({"message": message, "type": "invalid_request_error", "param": null, "code": null});
    Reply::json(status, &json!({"error": error})).into_response()
}
