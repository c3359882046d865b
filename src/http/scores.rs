//! `POST /v1/jobs/{id}/scores`: numbers that users post for jobs.

use std::collections::BTreeMap;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State, rejection::BytesRejection},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ApiError, App, jobs::scorable};
use crate::{access::Caller, engine::rollouts::Scored, spec::is_score_name};

/// Most scores in one request.
const MOST: usize = 32;

/// Scores by name.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ScoresBody {
    scores: BTreeMap<String, f64>,
}

/// Writes down scores of a job; says whether they are evidence.
pub(super) async fn post(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let record = scorable(&app, &caller, &id).await?;
    let asked: ScoresBody = serde_json::from_slice(&body?)
        .map_err(|error| ApiError::invalid(None, format!("the body cannot be read: {error}")))?;
    if asked.scores.is_empty() || asked.scores.len() > MOST {
        return Err(ApiError::invalid(
            Some("scores"),
            format!("write 1 to {MOST} scores, such as {{\"quality\": 0.9}}"),
        ));
    }
    if let Some(name) = asked.scores.keys().find(|name| !is_score_name(name)) {
        let message = format!("{name:?} cannot be the name of a score: use a-z, 0-9, '_' and '-', at most 63");
        return Err(ApiError::invalid(Some("scores"), message));
    }
    Ok(Json(match app.engine.score(&record, asked.scores.into_iter().collect()).await? {
        Scored::Counted => json!({ "counted": true }),
        Scored::Not(reason) => json!({ "counted": false, "reason": reason }),
    }))
}
