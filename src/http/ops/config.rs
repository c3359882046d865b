//! `/v1/ops/config`: the sets of files that were in force, what differs between them, and going back to one.

use axum::{
    Json,
    body::Bytes,
    extract::{
        Query, State,
        rejection::{BytesRejection, QueryRejection},
    },
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{App, read, within};
use crate::{
    access::Caller,
    engine::{
        generations::{self, Generation},
        pins::RollbackError,
        reload::Actor,
    },
    http::{ApiError, param::Param},
    snapshot::pin::Pin,
};

/// Which generations to list.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct HistoryQuery {
    before: Option<u64>,
    limit: Option<u32>,
}

/// Generations newest first, and what is pinned.
pub(in super::super) async fn history(
    State(app): State<App>,
    caller: Caller,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    within(&caller, None)?;
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(20);
    let found = generations::newest(app.engine.store(), query.before, limit).await?;
    let next = found.last().filter(|last| last.generation > 1).map(|last| last.generation);
    let line = |it: &Generation| {
        json!({
            "generation": it.generation, "at": it.at, "hash": it.hash, "actor": it.actor, "reason": it.reason,
            "changes": it.changes, "files": it.files.len(),
        })
    };
    Ok(Json(json!({
        "running": app.engine.world().snapshot.generation,
        "pinned": app.reloader.pin().as_ref().map(shown),
        "data": found.iter().map(line).collect::<Vec<_>>(),
        "next": next,
    })))
}

/// What is pinned, without its texts.
pub(in super::super) fn shown(pin: &Pin) -> Value {
    json!({
        "generation": pin.generation, "at": pin.at, "actor": pin.actor, "reason": pin.reason,
        "files": pin.files.keys().collect::<Vec<_>>(),
    })
}

/// What to compare with.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct DiffQuery {
    to: Option<u64>,
}

/// What differs between a generation and another, or what runs.
pub(in super::super) async fn diff(
    State(app): State<App>,
    caller: Caller,
    Param(generation): Param<u64>,
    query: Result<Query<DiffQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    within(&caller, None)?;
    let Query(query) = query?;
    match app.reloader.compare(generation, query.to).await {
        Ok(difference) => {
            let files: Vec<Value> = difference
                .files
                .iter()
                .map(|(file, (before, after))| json!({ "file": file, "before": before, "after": after }))
                .collect();
            let (from, to, changes) = (difference.from, difference.to, difference.changes);
            Ok(Json(json!({ "from": from, "to": to, "changes": changes, "files": files })).into_response())
        }
        Err(error) => Err(refused(error)),
    }
}

/// Where to go back to, or that the disk is followed again.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct RollbackBody {
    generation: Option<u64>,
    #[serde(default)]
    clear: bool,
    reason: Option<String>,
    /// The policy does not count.
    #[serde(default, rename = "override")]
    against_policy: bool,
}

/// Puts an earlier generation in force, or follows the disk again.
pub(in super::super) async fn rollback(
    State(app): State<App>,
    caller: Caller,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    within(&caller, None)?;
    let asked: RollbackBody = read(body)?;
    let by = Actor { actor: caller.name().to_owned(), reason: asked.reason };
    if asked.against_policy && by.reason.as_deref().is_none_or(|reason| reason.trim().is_empty()) {
        return Err(ApiError::invalid(Some("reason"), "say why the policy is overridden"));
    }
    let done = match (asked.generation, asked.clear) {
        (Some(generation), false) => app.reloader.go_back(generation, by, asked.against_policy).await,
        (None, true) => app.reloader.follow_again(by).await,
        _ => return Err(ApiError::invalid(None, "name a `generation`, or say `clear: true`")),
    };
    let report = done.map_err(refused)?;
    let pinned = app.reloader.pin().as_ref().map(shown);
    let body =
        json!({ "generation": report.generation, "changed": report.changed, "files": report.files, "pinned": pinned });
    Ok((StatusCode::OK, Json(body)).into_response())
}

fn refused(error: RollbackError) -> ApiError {
    match error {
        RollbackError::Store(error) => error.into(),
        RollbackError::Unknown(_) => ApiError::not_found("generation_not_found", error.to_string()),
        RollbackError::NothingPinned => ApiError::invalid(Some("clear"), error.to_string()),
        RollbackError::Broken { .. } => {
            ApiError::invalid(Some("generation"), format!("{error}:\n{}", error.problems().join("\n\n")))
        }
    }
}
