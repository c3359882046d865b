//! `/v1/ops/quotas` and `/v1/ops/forecast`: what providers grant, and how far it reaches.

use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    super::{ApiError, App},
    read,
};
use crate::{
    access::Caller,
    engine::{Refused, SetQuota, intake::IntakeError, levers::Act},
    job::Envelope,
};

/// Jobs that one forecast may be about.
const MOST_JOBS: usize = 100_000;

/// Every quota in use, and those that operators set.
pub(in super::super) async fn list(State(app): State<App>) -> Json<Value> {
    let (data, set) = app.engine.quotas();
    let set: Vec<Value> = set.into_iter().map(|quota| json!({ "name": quota.name(), "quota": quota })).collect();
    Json(json!({ "data": data, "set": set }))
}

/// A quota to be set.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct SetBody {
    quota: SetQuota,
    reason: Option<String>,
}

/// Sets a quota, from now on.
pub(in super::super) async fn set(
    State(app): State<App>,
    caller: Caller,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let asked: SetBody = read(body)?;
    let name = app.engine.set_quota(asked.quota, act(&caller, asked.reason)).await?;
    Ok(Json(
        json!({ "name": name, "message": format!("{name} is set; it counts before the settings until it is reset") }),
    ))
}

/// Which quota to reset.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct ResetBody {
    name: String,
    reason: Option<String>,
}

/// Takes back what was set, and forgets what was learned.
pub(in super::super) async fn reset(
    State(app): State<App>,
    caller: Caller,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let asked: ResetBody = read(body)?;
    let message = app.engine.reset_quota(&asked.name, act(&caller, asked.reason)).await?;
    Ok(Json(json!({ "name": asked.name, "message": message })))
}

fn act(caller: &Caller, reason: Option<String>) -> Act {
    Act { actor: caller.name().to_owned(), reason, dry_run: false, interrupt: false }
}

/// Jobs that are not queued yet.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct ForecastBody {
    jobs: Vec<Value>,
    #[serde(default)]
    pipeline: Option<String>,
}

/// When what is queued now would be done.
pub(in super::super) async fn backlog(State(app): State<App>) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!(app.engine.forecast(&[]).await?)))
}

/// When jobs would be done that are not queued yet, and what they would cost; nothing is stored or called.
pub(in super::super) async fn forecast(
    State(app): State<App>,
    caller: Caller,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let asked: ForecastBody = read(body)?;
    if asked.jobs.len() > MOST_JOBS {
        return Err(ApiError::invalid(Some("jobs"), format!("a forecast is about at most {MOST_JOBS} jobs at once")));
    }
    let pipeline = asked.pipeline.as_deref().map(super::super::jobs::pipeline_name).transpose()?;
    let mut envelopes = Vec::with_capacity(asked.jobs.len());
    // The place of each envelope among the jobs: those that are none are told of, and left out.
    let mut places = Vec::with_capacity(asked.jobs.len());
    let mut refused = Vec::new();
    for (place, job) in asked.jobs.into_iter().enumerate() {
        match Envelope::from_value(job) {
            Ok(mut envelope) => {
                if envelope.pipeline.is_none() {
                    envelope.pipeline.clone_from(&pipeline);
                }
                if let Err(error @ IntakeError::NotReached { .. }) = app.engine.reach(&caller, &envelope) {
                    refused.push(Refused { job: place, message: error.to_string() });
                } else {
                    envelopes.push(envelope);
                    places.push(place);
                }
            }
            Err(error) => refused.push(Refused { job: place, message: error.to_string() }),
        }
    }
    let mut forecast = app.engine.forecast(&envelopes).await?;
    for one in &mut forecast.refused {
        one.job = places.get(one.job).copied().unwrap_or(one.job);
    }
    forecast.refused.extend(refused);
    forecast.refused.sort_by_key(|one| one.job);
    Ok(Json(json!(forecast)))
}
