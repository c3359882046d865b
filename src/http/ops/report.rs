//! `/v1/ops/report`: what a migration came to.

use std::collections::BTreeSet;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use serde::Deserialize;

use super::{App, moment};
use crate::{
    access::Caller,
    engine::report::{ByLabel, DEFAULT_SPAN, Report},
    http::ApiError,
    names::PipelineName,
};

/// What `GET /v1/ops/report` may be asked.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct ReportQuery {
    since: Option<String>,
    #[schemars(regex(pattern = r"^label\..+$"))]
    by: Option<String>,
}

/// The figures of the ledger since a moment.
pub(in super::super) async fn report(
    State(app): State<App>,
    caller: Caller,
    query: Result<Query<ReportQuery>, QueryRejection>,
) -> Result<Json<Report>, ApiError> {
    let Query(query) = query?;
    let since = query.since.map_or(Ok(app.engine.now() - DEFAULT_SPAN), |text| moment(&app, &text))?;
    let by = query.by.map(|by| {
        let label = by.strip_prefix("label.").filter(|label| !label.is_empty());
        label.map(|label| ByLabel(label.to_owned())).ok_or_else(|| {
            ApiError::invalid(Some("by"), format!("{by:?} is no way to group; write label.NAME, such as label.team"))
        })
    });
    let within = reached(&app, &caller);
    Ok(Json(app.engine.report(since, within.as_ref(), by.transpose()?.as_ref()).await?))
}

/// The pipelines that a key is bound to; `None` when it is not bound.
pub(super) fn reached(app: &App, caller: &Caller) -> Option<BTreeSet<PipelineName>> {
    caller.is_bound().then(|| {
        let world = app.engine.world();
        world.snapshot.pipelines.keys().filter(|name| caller.reaches(name)).cloned().collect()
    })
}
