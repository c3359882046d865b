//! `/v1/ops/keys`: making, listing and revoking keys over HTTP.

use std::collections::BTreeSet;

use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    super::{
        ApiError, App,
        jobs::pipeline_name,
        keys::{self, NewKey},
        param::Param,
    },
    read, within,
};
use crate::{
    access::{Caller, Scope},
    clock::parse_span,
    money::Usd,
};

/// A key to be made.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct CreateBody {
    name: Option<String>,
    #[schemars(with = "Vec<Scope>", length(min = 1))]
    scopes: BTreeSet<Scope>,
    #[serde(default)]
    pipelines: Vec<String>,
    expires: Option<String>,
    #[schemars(range(min = 1))]
    requests_per_minute: Option<u32>,
    #[schemars(with = "Option<String>", regex(pattern = r"^[0-9]+(\.[0-9]+)?$"))]
    usd_per_day: Option<Usd>,
    usd_per_month: Option<Usd>,
}

/// Makes a key: the answer holds its text, this once.
pub(in super::super) async fn create(
    State(app): State<App>,
    caller: Caller,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let asked: CreateBody = read(body)?;
    let expires = asked.expires.as_deref().map(parse_span).transpose();
    let new = NewKey {
        name: asked.name,
        scopes: asked.scopes,
        pipelines: asked.pipelines.iter().map(|name| pipeline_name(name)).collect::<Result<_, _>>()?,
        expires: expires.map_err(|error| ApiError::invalid(Some("expires"), error.to_string()))?,
        requests_per_minute: asked.requests_per_minute,
        usd_per_day: asked.usd_per_day,
        usd_per_month: asked.usd_per_month,
    };
    let (key, token) =
        keys::create(app.engine.store().as_ref(), new, &caller, app.engine.now(), rand::random()).await?;
    app.refresh_keys().await?;
    Ok((StatusCode::CREATED, Json(json!({ "key": key, "token": token.expose() }))).into_response())
}

/// Every key: those that were made, and those that the settings declare.
pub(in super::super) async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Value>, ApiError> {
    within(&caller, None)?;
    Ok(Json(json!({ "data": app.keys.all() })))
}

/// Revokes a key; it opens nothing from now on.
pub(in super::super) async fn revoke(
    State(app): State<App>,
    caller: Caller,
    Param(which): Param<String>,
) -> Result<Json<Value>, ApiError> {
    within(&caller, None)?;
    let key = keys::revoke(app.engine.store().as_ref(), &which, &caller, app.engine.now()).await?;
    app.refresh_keys().await?;
    Ok(Json(json!({ "key": key })))
}
