//! `/v1/ops/flags`, `/v1/ops/rollback`, `/v1/ops/resume`: the levers over HTTP.

use axum::{
    Json,
    body::Bytes,
    extract::{
        Query, State,
        rejection::{BytesRejection, QueryRejection},
    },
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    super::{ApiError, App, jobs::pipeline_name, param::Param},
    read, within,
};
use crate::{
    access::Caller,
    clock::parse_span,
    engine::levers::{ALL, Act, FlagChange},
    names::nearest,
    spec::{Flag, FlagSet, flags::FlagLevel},
};

/// Every flag that is set, at whichever level, and what is in force for each pipeline.
pub(in super::super) async fn list(State(app): State<App>, caller: Caller) -> Json<Value> {
    let world = app.engine.world();
    let runtime = app.engine.runtime();
    let mut data: Vec<Value> = runtime
        .flags
        .iter()
        .filter_map(|(key, flag)| {
            let (scope, name) = key.split_once('/')?;
            let seen = scope == ALL || scope.parse().is_ok_and(|pipeline| caller.reaches(&pipeline));
            if !seen {
                return None;
            }
            Some(json!({
                "flag": name, "scope": scope, "level": FlagLevel::Runtime, "value": flag.value, "reason": flag.reason,
                "actor": flag.actor, "set_at": flag.set_at, "clear_after": flag.clear_at,
            }))
        })
        .collect();
    let mut push =
        |set: &FlagSet, scope: &str, level: FlagLevel| {
            data.extend(set.0.iter().map(
                |(flag, value)| json!({ "flag": flag.to_string(), "scope": scope, "level": level, "value": value }),
            ));
        };
    push(&world.levels.environment, ALL, FlagLevel::Environment);
    push(&world.levels.file, ALL, FlagLevel::File);
    for (pipeline, set) in world.levels.file_by_pipeline.iter().filter(|(name, _)| caller.reaches(name)) {
        push(set, pipeline.as_str(), FlagLevel::File);
    }
    for (name, lane) in world.lanes().filter(|(name, _)| caller.reaches(name)) {
        push(&lane.loaded.pipeline.flags, name.as_str(), FlagLevel::Spec);
    }
    let effective: Vec<Value> = world
        .lanes()
        .filter(|(name, _)| caller.reaches(name))
        .map(|(name, lane)| {
            json!({
                "pipeline": name,
                "forced": lane.flags.forced.iter().map(|(provider, source)| json!({ "provider": provider, "source": source })).collect::<Vec<_>>(),
                "pause": lane.flags.pause.is_some(),
                "disable_fallback": lane.flags.disable_fallback.is_some(),
                "rolled_back": lane.flags.rolled_back,
            })
        })
        .collect();
    Json(json!({ "data": data, "effective": effective }))
}

/// A flag to be set.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct SetBody {
    flag: String,
    pipeline: Option<String>,
    #[serde(default = "yes")]
    value: bool,
    reason: Option<String>,
    clear_after: Option<String>,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    interrupt: bool,
}

fn yes() -> bool {
    true
}

/// Sets a runtime flag.
pub(in super::super) async fn set(
    State(app): State<App>,
    caller: Caller,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let asked: SetBody = read(body)?;
    let clear_after = asked
        .clear_after
        .as_deref()
        .map(parse_span)
        .transpose()
        .map_err(|error| ApiError::invalid(Some("clear_after"), error.to_string()))?;
    let pipeline = asked.pipeline.as_deref().map(pipeline_name).transpose()?;
    within(&caller, pipeline.as_ref())?;
    let change = FlagChange { flag: flag_named(&app, &asked.flag)?, pipeline, value: Some(asked.value), clear_after };
    let act = Act {
        actor: caller.name().to_owned(),
        reason: asked.reason,
        dry_run: asked.dry_run,
        interrupt: asked.interrupt,
    };
    let touched = app.engine.change_flag(change, act).await?;
    Ok(Json(
        json!({ "touched": { "pipelines": touched.pipelines, "held_jobs": touched.held_jobs, "interrupted": touched.interrupted }, "message": touched.message }),
    ))
}

/// Which flag to clear.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct ClearQuery {
    pipeline: Option<String>,
    reason: Option<String>,
    #[serde(default)]
    dry_run: bool,
}

/// Clears a runtime flag.
pub(in super::super) async fn clear(
    State(app): State<App>,
    caller: Caller,
    Param(flag): Param<String>,
    query: Result<Query<ClearQuery>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(asked) = query?;
    let pipeline = asked.pipeline.as_deref().map(pipeline_name).transpose()?;
    within(&caller, pipeline.as_ref())?;
    let change = FlagChange { flag: flag_named(&app, &flag)?, pipeline, value: None, clear_after: None };
    let act = Act { actor: caller.name().to_owned(), reason: asked.reason, dry_run: asked.dry_run, interrupt: false };
    let touched = app.engine.change_flag(change, act).await?;
    Ok(Json(
        json!({ "touched": { "pipelines": touched.pipelines, "held_jobs": touched.held_jobs, "interrupted": touched.interrupted }, "message": touched.message }),
    ))
}

/// What to roll back, or to resume.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct ScopeBody {
    pipeline: Option<String>,
    #[serde(default)]
    all: bool,
    reason: Option<String>,
    #[serde(default)]
    interrupt: bool,
    #[serde(default)]
    dry_run: bool,
}

impl ScopeBody {
    fn scope(&self) -> Result<Option<crate::names::PipelineName>, ApiError> {
        match (&self.pipeline, self.all) {
            (Some(name), false) => pipeline_name(name).map(Some),
            (None, true) => Ok(None),
            _ => Err(ApiError::invalid(Some("pipeline"), "name one pipeline, or say \"all\": true")),
        }
    }

    fn act(self, caller: &Caller) -> Act {
        Act { actor: caller.name().to_owned(), reason: self.reason, dry_run: self.dry_run, interrupt: self.interrupt }
    }
}

/// Forces the baseline's provider and holds rollouts.
pub(in super::super) async fn rollback(
    State(app): State<App>,
    caller: Caller,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let asked: ScopeBody = read(body)?;
    let scope = asked.scope()?;
    within(&caller, scope.as_ref())?;
    let touched = app.engine.roll_back(scope, asked.act(&caller)).await?;
    Ok(Json(json!(touched)))
}

/// Undoes a rollback.
pub(in super::super) async fn resume(
    State(app): State<App>,
    caller: Caller,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let asked: ScopeBody = read(body)?;
    let scope = asked.scope()?;
    within(&caller, scope.as_ref())?;
    let touched = app.engine.resume(scope, asked.act(&caller)).await?;
    Ok(Json(json!(touched)))
}

fn flag_named(app: &App, text: &str) -> Result<Flag, ApiError> {
    let world = app.engine.world();
    let providers = world.snapshot.providers.keys();
    Flag::parse(text, providers.clone()).ok_or_else(|| {
        let known: Vec<String> = Flag::known(providers).iter().map(ToString::to_string).collect();
        let hint = nearest(text, known.iter().map(String::as_str))
            .map_or_else(|| format!("there are {}", known.join(", ")), |near| format!("did you mean {near}?"));
        ApiError::invalid(Some("flag"), format!("{text:?} is not a flag; {hint}"))
    })
}
