//! `/v1/ops/rollouts`: where rollouts stand, and moving those with steps.

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State, rejection::BytesRejection},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    super::{ApiError, App, jobs::pipeline_name},
    read, within,
};
use crate::{
    access::Caller,
    engine::{
        levers::Act,
        rollouts::{RolloutAct, RolloutError, RolloutView},
    },
    names::{PipelineName, RolloutName},
};

impl From<RolloutError> for ApiError {
    fn from(error: RolloutError) -> Self {
        match error {
            RolloutError::Unknown(message) => Self::not_found("rollout_not_found", message),
            RolloutError::Refused(message) => Self::conflict(message),
            RolloutError::Store(error) => error.into(),
        }
    }
}

/// All rollouts that the caller may know of.
pub(in super::super) async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Value>, ApiError> {
    let views = app.engine.rollout_views().await?;
    let seen: Vec<RolloutView> = views.into_iter().filter(|view| caller.reaches(&view.pipeline)).collect();
    Ok(Json(json!({ "data": seen })))
}

/// One rollout.
pub(in super::super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path((pipeline, rollout)): Path<(String, String)>,
) -> Result<Json<RolloutView>, ApiError> {
    let (pipeline, rollout) = names(&pipeline, &rollout)?;
    within(&caller, Some(&pipeline))?;
    Ok(Json(app.engine.rollout_view(&pipeline, &rollout).await?))
}

/// Why.
#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct MoveBody {
    reason: Option<String>,
}

/// Moves a rollout with steps.
pub(in super::super) async fn act(
    State(app): State<App>,
    caller: Caller,
    Path((pipeline, rollout, what)): Path<(String, String, String)>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<RolloutView>, ApiError> {
    let Some(what) = RolloutAct::named(&what) else {
        let message = format!(
            "{what:?} is nothing to do with a rollout: there is promote, approve, pause, resume, abort and retry"
        );
        return Err(ApiError::not_found("not_found", message));
    };
    let asked: MoveBody = match body {
        Ok(bytes) if bytes.is_empty() => MoveBody::default(),
        body => read(body)?,
    };
    let (pipeline, rollout) = names(&pipeline, &rollout)?;
    within(&caller, Some(&pipeline))?;
    let reason = asked.reason.filter(|reason| !reason.trim().is_empty());
    let reason = reason.ok_or_else(|| ApiError::invalid(Some("reason"), "say why: it is kept in the audit log"))?;
    let act = Act { actor: caller.name().to_owned(), reason: Some(reason), ..Act::default() };
    Ok(Json(app.engine.move_rollout(&pipeline, &rollout, what, &act).await?))
}

fn names(pipeline: &str, rollout: &str) -> Result<(PipelineName, RolloutName), ApiError> {
    let pipeline = pipeline_name(pipeline)?;
    let rollout = rollout.parse().map_err(|_| {
        ApiError::not_found("rollout_not_found", format!("{rollout:?} is no name that a rollout could have"))
    })?;
    Ok((pipeline, rollout))
}
