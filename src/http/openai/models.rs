//! `/v1/models`: what may be asked for.

use axum::{Json, extract::State};
use serde_json::{Value, json};

use crate::{
    access::Caller,
    http::{
        ApiError, App,
        jobs::pipeline_name,
        param::{Fixed, Param},
    },
    names::PipelineName,
};

/// Pipelines, then the models that they accept by their plain names.
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Param(Fixed { pipeline }): Param<Fixed>,
) -> Result<Json<Value>, ApiError> {
    let fixed = pipeline.as_deref().map(pipeline_name).transpose()?;
    let names: Vec<Value> = known(&app, &caller, fixed.as_ref()).iter().map(|name| model(name)).collect();
    Ok(Json(json!({ "object": "list", "data": names })))
}

/// Where one model stands, below a fixed pipeline or not.
#[derive(Debug, serde::Deserialize)]
pub(super) struct ModelPath {
    pipeline: Option<String>,
    model: String,
}

/// One of them; a name that a glob accepts is known too.
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Param(ModelPath { pipeline, model: asked }): Param<ModelPath>,
) -> Result<Json<Value>, ApiError> {
    let fixed = pipeline.as_deref().map(pipeline_name).transpose()?;
    let world = app.engine.world();
    let accepted = world.snapshot.accepting(&asked).map(|loaded| &loaded.pipeline.name);
    let reached = accepted.is_some_and(|name| caller.reaches(name) && fixed.as_ref().is_none_or(|fixed| fixed == name));
    if reached || known(&app, &caller, fixed.as_ref()).contains(&asked) {
        return Ok(Json(model(&asked)));
    }
    let message = format!("no pipeline is called {asked:?} or accepts it");
    Err(ApiError::not_found("model_not_found", message).blaming(Some("model")))
}

fn known(app: &App, caller: &Caller, fixed: Option<&PipelineName>) -> Vec<String> {
    let world = app.engine.world();
    let seen: Vec<_> = world
        .snapshot
        .pipelines
        .iter()
        .filter(|(name, _)| caller.reaches(name) && fixed.is_none_or(|fixed| fixed == *name))
        .collect();
    let names = seen.iter().map(|(name, _)| name.as_str().to_owned());
    let accepted = seen.iter().flat_map(|(_, loaded)| &loaded.pipeline.accept.models).map(|glob| glob.text.clone());
    let plain = |name: &String| !name.contains(['*', '?', '[', '{']);
    names.chain(accepted.filter(plain)).collect()
}

/// A model as the original shows it. Pipelines have no time of creation.
fn model(name: &str) -> Value {
    json!({ "id": name, "object": "model", "created": 0, "owned_by": "landbridge" })
}
