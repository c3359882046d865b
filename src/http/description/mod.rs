//! `GET /openapi.json`: what this API takes and answers, made from the types that take and answer it.
//!
//! Invariant: every path that the router serves is described, and nothing else (tests hold both); a path's scopes are those of
//! the gate's own table. What an answer is said to hold, it holds: a client written by others checks that in the tests.

mod answers;
mod operations;
mod shapes;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;

use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

use self::{
    operations::{Operation, operations},
    shapes::Shapes,
};
use super::keys::scopes_for;

/// Statuses that every path may answer, beside its own.
const ANYWHERE: &[u16] = &[401, 403, 429, 503];

/// The description, made once.
pub(super) async fn show() -> Response {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| document().to_string());
    ([(header::CONTENT_TYPE, "application/json")], text.as_str()).into_response()
}

/// The whole document, in OpenAPI 3.1.
pub(super) fn document() -> Value {
    let mut shapes = Shapes::new();
    let mut paths: Map<String, Value> = Map::new();
    for operation in operations() {
        let described = describe(&operation, operation.path, &operation.id(), &mut shapes);
        // The OpenAI form stands below a fixed pipeline too.
        let fixed = operation.in_openai_form().then(|| {
            let path = format!("/p/{{pipeline}}{}", operation.path);
            let id = format!("{}InPipeline", operation.id());
            let described = describe(&operation, &path, &id, &mut shapes);
            (path, described)
        });
        for (path, described) in [(operation.path.to_owned(), described)].into_iter().chain(fixed) {
            let item = paths.entry(path).or_insert_with(|| json!({}));
            if let Some(item) = item.as_object_mut() {
                item.insert(operation.method.as_str().to_ascii_lowercase(), described);
            }
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "landbridge",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Carries prompt jobs from OpenAI to Amazon Bedrock: jobs, the OpenAI form of chat, files and batches, and \
                the operators' levers. Every answer has an `x-request-id`; every error has the object `Error`.",
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "tags": [
            { "name": "jobs", "description": "Queued prompt jobs." },
            { "name": "openai", "description": "The OpenAI form, for unmodified clients." },
            { "name": "ops", "description": "What operators see and do." },
            { "name": "machines", "description": "Health, metrics, this description." },
        ],
        "paths": paths,
        "components": {
            "schemas": shapes.into_schemas(),
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A key of `landbridge key create`, or of `keys:` in the settings. While no key exists, none is asked for.",
                },
            },
        },
    })
}

fn describe(operation: &Operation, path: &str, id: &str, shapes: &mut Shapes) -> Value {
    let mut parameters: Vec<Value> = names_in(path).map(path_parameter).collect();
    if let Some(query) = operation.query {
        parameters.extend(shapes.query(query));
    }
    let mut responses: Map<String, Value> = Map::new();
    for answer in &operation.answers {
        let mut content = Map::new();
        for kind in answer.kinds {
            let schema = answer.shape.map_or_else(|| json!({ "type": "string" }), |shape| shapes.answered(shape));
            content.insert((*kind).to_owned(), json!({ "schema": schema }));
        }
        let response = responses
            .entry(answer.status.to_string())
            .or_insert_with(|| json!({ "description": answer.says, "content": {} }));
        if let Some(known) = response["content"].as_object_mut() {
            known.extend(content);
        }
        if !operation.leads_to.is_empty() {
            response["links"] = operation.leads_to.iter().map(|name| link(name)).collect::<Map<_, _>>().into();
        }
    }
    let scopes = scopes_for(&operation.method, path);
    let everywhere = scopes.iter().flat_map(|_| ANYWHERE);
    for status in operation.fails.iter().chain(everywhere) {
        let schema = json!({ "$ref": "#/components/schemas/Error" });
        responses.entry(status.to_string()).or_insert_with(
            || json!({ "description": reason(*status), "content": { "application/json": { "schema": schema } } }),
        );
    }
    let mut described = json!({
        "operationId": id,
        "summary": operation.summary,
        "tags": [operation.tag()],
        "parameters": parameters,
        "responses": responses,
    });
    match &scopes {
        None => described["security"] = json!([]),
        Some([]) => described["security"] = json!([{ "key": [] }]),
        Some(scopes) => {
            let words: Vec<String> = scopes.iter().map(|scope| format!("`{scope}`")).collect();
            described["description"] = format!("Needs a key with the scope {}.", words.join(" or ")).into();
            described["security"] = json!([{ "key": [] }]);
        }
    }
    if !operation.bodies.is_empty() {
        let content: Map<String, Value> = operation
            .bodies
            .iter()
            .map(|(kind, shape)| ((*kind).to_owned(), json!({ "schema": shapes.asked(*shape) })))
            .collect();
        described["requestBody"] = json!({ "required": operation.body_needed, "content": content });
    }
    described
}

/// Where an answer's `id` leads.
fn link(name: &str) -> (String, Value) {
    (name.to_owned(), json!({ "operationId": name, "parameters": { "id": "$response.body#/id" } }))
}

fn names_in(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn path_parameter(name: &str) -> Value {
    let schema = match name {
        "id" => json!({ "type": "string", "pattern": "^job_[0-9a-f]{32}$" }),
        "generation" => json!({ "type": "integer", "minimum": 0, "maximum": u64::MAX }),
        "pipeline" => json!({ "type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,62}$" }),
        _ => json!({ "type": "string", "minLength": 1 }),
    };
    json!({ "name": name, "in": "path", "required": true, "schema": schema })
}

fn reason(status: u16) -> &'static str {
    match status {
        400 => "The request is wrong; `param` names the field.",
        401 => "No key, or one that opens nothing.",
        403 => "The key is good, but not for this.",
        404 => "There is no such thing, or the key may not know of it.",
        409 => "It stands in the way of what is there.",
        413 => "The body is too large.",
        422 => "What was read is broken.",
        429 => "Too often, or too much; `retry-after` says when to come back.",
        502 => "Every target failed.",
        503 => "Not now; `retry-after` says when to come back.",
        504 => "No answer in time.",
        _ => "An error.",
    }
}
