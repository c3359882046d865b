//! `/v1/ops/plan`: what specs that somebody has at hand would do to recorded jobs.

use std::collections::BTreeMap;

use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
};
use serde::Deserialize;

use super::{App, moment, read, report::reached};
use crate::{
    access::Caller,
    engine::plan::{DEFAULT_JOBS, MOST_JOBS, Plan, Recent},
    http::ApiError,
    snapshot::Sources,
};

/// Files that are not in force yet, and the jobs to try them on.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct PlanBody {
    files: Files,
    #[schemars(range(min = 1, max = 1_000_000))]
    last: Option<u64>,
    since: Option<String>,
}

/// Texts by name, as the daemon would find them. What is left out stays as it is in force.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Files {
    specs: BTreeMap<String, String>,
    models: Option<BTreeMap<String, String>>,
    flags: Option<String>,
    catalog: Option<String>,
    policy: Option<String>,
}

/// Decides for recorded jobs by what runs and by these files; nothing is stored, nobody is called.
pub(in super::super) async fn plan(
    State(app): State<App>,
    caller: Caller,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Plan>, ApiError> {
    let asked: PlanBody = read(body)?;
    let recent = match (asked.last, asked.since) {
        (Some(_), Some(_)) => {
            return Err(ApiError::invalid(Some("last"), "say `last` or `since`, not both"));
        }
        (Some(last), None) if (1..=MOST_JOBS).contains(&last) => Recent::Last(last),
        (Some(_), None) => {
            return Err(ApiError::invalid(Some("last"), format!("`last` is between 1 and {MOST_JOBS}")));
        }
        (None, Some(since)) => Recent::Since(moment(&app, &since)?),
        (None, None) => Recent::Last(DEFAULT_JOBS),
    };
    let bytes = |texts: BTreeMap<String, String>| -> BTreeMap<String, Vec<u8>> {
        texts.into_iter().map(|(name, text)| (name, text.into_bytes())).collect()
    };
    let mut sources: Sources = app.engine.world().snapshot.sources();
    sources.specs = bytes(asked.files.specs);
    if let Some(models) = asked.files.models {
        sources.models = bytes(models);
    }
    sources.flags = asked.files.flags.map(String::into_bytes).or(sources.flags);
    sources.policy = asked.files.policy.map(String::into_bytes).or(sources.policy);
    sources.catalog = asked.files.catalog.map(String::into_bytes).or(sources.catalog);
    let loaded = app.reloader.foresee(sources).await;
    Ok(Json(app.engine.plan(&loaded, recent, reached(&app, &caller).as_ref()).await?))
}
