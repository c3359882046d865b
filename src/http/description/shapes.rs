//! Schemas from types, for both directions.
//!
//! Invariant: a type that stands in both directions has one schema; where the two would differ, the stricter one of requests
//! counts.

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::answers::ErrorAnswer;

/// A type's schema, without a name of its own.
pub(super) type Shape = fn(&mut SchemaGenerator) -> Schema;

/// The shape of a type.
pub(super) fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    T::json_schema(generator)
}

/// The schemas that are needed so far.
pub(super) struct Shapes {
    requests: SchemaGenerator,
    answers: SchemaGenerator,
}

impl Shapes {
    pub(super) fn new() -> Self {
        let settings =
            || SchemaSettings::draft2020_12().with(|settings| settings.definitions_path = "/components/schemas".into());
        Self {
            requests: settings().for_deserialize().into_generator(),
            answers: settings().for_serialize().into_generator(),
        }
    }

    pub(super) fn asked(&mut self, shape: Shape) -> Value {
        bounded(shape(&mut self.requests).to_value())
    }

    pub(super) fn answered(&mut self, shape: Shape) -> Value {
        bounded(shape(&mut self.answers).to_value())
    }

    /// The properties of a shape as parameters of a query. What is optional there is left out, not null.
    pub(super) fn query(&mut self, shape: Shape) -> Vec<Value> {
        let schema = self.asked(shape);
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let properties = schema["properties"].as_object().cloned().unwrap_or_default();
        properties
            .into_iter()
            .map(|(name, mut schema)| {
                let description = schema.get("description").cloned().unwrap_or_default();
                if let Some(kinds) = schema.get("type").and_then(Value::as_array) {
                    schema["type"] = kinds.iter().find(|kind| *kind != "null").cloned().unwrap_or_default();
                }
                let required = required.contains(&name.as_str());
                json!({ "name": name, "in": "query", "required": required, "description": description, "schema": schema })
            })
            .collect()
    }

    pub(super) fn into_schemas(mut self) -> Map<String, Value> {
        let error = self.answered(of::<ErrorAnswer>);
        let mut schemas = self.answers.take_definitions(true);
        schemas.extend(self.requests.take_definitions(true));
        schemas.insert("Error".to_owned(), error);
        schemas.into_iter().map(|(name, schema)| (name, bounded(schema))).collect()
    }
}

/// The same with numbers as small as their types, which formats of Rust's own do not tell others.
fn bounded(mut schema: Value) -> Value {
    match &mut schema {
        Value::Object(map) => {
            let bounds = match map.get("format").and_then(Value::as_str) {
                Some("uint8") => Some((json!(0), json!(u8::MAX))),
                Some("uint32") => Some((json!(0), json!(u32::MAX))),
                Some("uint64" | "uint") => Some((json!(0), json!(u64::MAX))),
                Some("int32") => Some((json!(i32::MIN), json!(i32::MAX))),
                Some("int64") => Some((json!(i64::MIN), json!(i64::MAX))),
                _ => None,
            };
            if let Some((least, most)) = bounds {
                map.remove("format");
                map.entry("minimum").or_insert(least);
                map.entry("maximum").or_insert(most);
            }
            for value in map.values_mut() {
                *value = bounded(value.take());
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = bounded(item.take())),
        _ => {}
    }
    schema
}
