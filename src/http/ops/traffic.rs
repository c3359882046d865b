//! `/v1/ops/traffic`: what went where, and what it cost.

use std::time::Duration;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{App, moment};
use crate::http::ApiError;

/// Without `since`, sums go back this far.
const DEFAULT_SPAN: Duration = Duration::from_hours(7 * 24);

/// What `GET /v1/ops/traffic` may be asked.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct TrafficQuery {
    since: Option<String>,
}

/// Sums of ended calls by pipeline, target and model, over whole hours. They are kept, so this costs little however many
/// calls there were.
pub(in super::super) async fn traffic(
    State(app): State<App>,
    query: Result<Query<TrafficQuery>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(query) = query?;
    let since = query.since.map_or(Ok(app.engine.now() - DEFAULT_SPAN), |text| moment(&app, &text))?;
    let sums = app.engine.store().traffic(since).await?;
    let data: Vec<Value> = sums
        .into_iter()
        .map(|(key, sums)| {
            json!({
                "pipeline": key.pipeline,
                "target": key.target,
                "provider": key.provider,
                "model": key.model,
                "attempts": sums.attempts,
                "jobs_answered": sums.answered,
                "possibly_billed": sums.possibly_billed,
                "usage": sums.usage,
                "cost_usd": sums.cost,
                "unpriced": sums.unpriced,
                "possible_cost_usd": sums.possible_cost,
                "possible_cost_unknown": sums.unbounded,
            })
        })
        .collect();
    Ok(Json(json!({ "since": since, "data": data })))
}
