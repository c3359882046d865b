//! JSON schemas as Bedrock's models take them: an object at the root, references written out, objects closed.
//!
//! Invariant: work and size are bounded whatever the schema; what is bent is said by the value that comes out.

use serde_json::{Map, Value};

/// Nodes of a schema with its references written out: far above any tool's, little enough to send.
const MOST_NODES: usize = 20_000;
/// Levels of a schema with its references written out.
const DEEPEST: usize = 64;

/// Parts of a schema that hold data, not schemas.
const DATA: [&str; 5] = ["const", "enum", "default", "examples", "required"];

/// A schema without references.
pub(super) struct Inlined {
    pub schema: Value,
    /// A reference was left open: it leads back into itself, or out of the schema.
    pub cut: bool,
}

/// Writes a schema's references out, and leaves out what only tools for editing read.
///
/// # Errors
/// In words, when the schema is too large for that.
pub(super) fn inlined(schema: &Value) -> Result<Inlined, String> {
    let mut writer = Writer { root: schema, open: Vec::new(), nodes: 0, cut: false };
    let mut schema = writer.write(schema, 0)?;
    if let Some(fields) = schema.as_object_mut() {
        for name in ["$schema", "$id", "$defs", "definitions"] {
            fields.shift_remove(name);
        }
    }
    Ok(Inlined { schema, cut: writer.cut })
}

struct Writer<'a> {
    root: &'a Value,
    /// The references being written out, outermost first.
    open: Vec<&'a str>,
    nodes: usize,
    cut: bool,
}

impl<'a> Writer<'a> {
    fn write(&mut self, node: &'a Value, depth: usize) -> Result<Value, String> {
        self.nodes += 1;
        if self.nodes > MOST_NODES {
            return Err(format!("the schema has more than {MOST_NODES} parts when its references are written out"));
        }
        if depth > DEEPEST {
            return Err(format!("the schema is more than {DEEPEST} levels deep when its references are written out"));
        }
        Ok(match node {
            Value::Array(items) => {
                Value::Array(items.iter().map(|item| self.write(item, depth + 1)).collect::<Result<_, _>>()?)
            }
            Value::Object(fields) => match fields.get("$ref").and_then(Value::as_str) {
                Some(reference) => self.follow(reference, fields, depth)?,
                None => Value::Object(self.fields(fields, depth)?),
            },
            plain => plain.clone(),
        })
    }

    fn fields(&mut self, fields: &'a Map<String, Value>, depth: usize) -> Result<Map<String, Value>, String> {
        let mut written = Map::new();
        for (name, value) in fields {
            let definitions = depth == 0 && matches!(name.as_str(), "$defs" | "definitions");
            if definitions || name == "$ref" && value.is_string() {
                continue;
            }
            let value = if DATA.contains(&name.as_str()) { value.clone() } else { self.write(value, depth + 1)? };
            written.insert(name.clone(), value);
        }
        Ok(written)
    }

    /// What a reference leads to, with what stands beside it laid over.
    fn follow(&mut self, reference: &'a str, beside: &'a Map<String, Value>, depth: usize) -> Result<Value, String> {
        let found = reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
        let mut whole = match found {
            Some(found) if !self.open.contains(&reference) => {
                self.open.push(reference);
                let written = self.write(found, depth + 1);
                self.open.pop();
                written?
            }
            found => {
                self.cut = true;
                let mut open = Map::new();
                if let Some(kind) = found.and_then(|found| found.get("type")) {
                    open.insert("type".to_owned(), kind.clone());
                }
                Value::Object(open)
            }
        };
        let beside = self.fields(beside, depth.max(1))?;
        if let Some(fields) = whole.as_object_mut() {
            fields.extend(beside);
        }
        Ok(whole)
    }
}

/// A schema of a tool's input: an object at its root. `None` when it describes something else.
pub(super) fn as_input(schema: Value) -> Option<Value> {
    let Value::Object(mut fields) = schema else { return None };
    let is_object = match fields.get("type") {
        None => true,
        Some(Value::String(kind)) => kind == "object",
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "object"),
        Some(_) => false,
    };
    if !is_object {
        return None;
    }
    fields.insert("type".to_owned(), "object".into());
    if !fields.contains_key("properties") {
        fields.insert("properties".to_owned(), Value::Object(Map::new()));
    }
    Some(Value::Object(fields))
}

/// What closing a schema's objects has done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// Nothing: they were closed.
    Already,
    /// They take no more than their properties now.
    Now,
    /// They cannot be closed: free keys are their point.
    Never,
}

/// Sees to it that every object of a schema takes no more than its properties.
pub(super) fn close(schema: &mut Value) -> Closed {
    let mut closed = Closed::Already;
    close_into(schema, &mut closed);
    closed
}

fn close_into(schema: &mut Value, closed: &mut Closed) {
    let Some(fields) = schema.as_object_mut() else { return };
    let is_object = fields.contains_key("properties")
        || match fields.get("type") {
            Some(Value::String(kind)) => kind == "object",
            Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "object"),
            _ => false,
        };
    if is_object {
        match fields.get("additionalProperties") {
            Some(Value::Bool(false)) => {}
            None if fields.contains_key("properties") => {
                fields.insert("additionalProperties".to_owned(), false.into());
                if *closed == Closed::Already {
                    *closed = Closed::Now;
                }
            }
            _ => *closed = Closed::Never,
        }
    }
    for (name, value) in fields.iter_mut() {
        match (name.as_str(), value) {
            ("properties" | "patternProperties" | "$defs" | "definitions", Value::Object(named)) => {
                for schema in named.values_mut() {
                    close_into(schema, closed);
                }
            }
            ("anyOf" | "oneOf" | "allOf" | "prefixItems" | "items", Value::Array(schemas)) => {
                for schema in schemas {
                    close_into(schema, closed);
                }
            }
            ("items" | "not" | "if" | "then" | "else", schema) => close_into(schema, closed),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_are_written_out() {
        let schema = json!({
            "$schema": "x", "type": "object",
            "properties": {
                "a": { "$ref": "#/$defs/A", "description": "mine" }, "$ref": { "type": "string" },
                "b": { "const": { "$ref": "#/$defs/A" } },
            },
            "$defs": { "A": { "type": "object", "description": "its", "properties": { "n": { "$ref": "#/$defs/N" } } },
                       "N": { "type": "integer" } },
        });
        let inlined = inlined(&schema).unwrap();
        assert!(!inlined.cut);
        assert_eq!(
            inlined.schema,
            json!({ "type": "object", "properties": {
                "a": { "type": "object", "description": "mine", "properties": { "n": { "type": "integer" } } },
                "$ref": { "type": "string" }, "b": { "const": { "$ref": "#/$defs/A" } },
            } })
        );
    }

    #[test]
    fn circles_and_strangers_are_cut() {
        for schema in [
            json!({ "type": "object", "properties": { "next": { "$ref": "#" } } }),
            json!({ "properties": { "n": { "$ref": "#/$defs/N" } },
                    "$defs": { "N": { "type": "object", "properties": { "n": { "$ref": "#/$defs/N" } } } } }),
            json!({ "properties": { "n": { "$ref": "https://example.com/schema" } } }),
            json!({ "properties": { "n": { "$ref": "#/$defs/Nobody" } } }),
            json!({ "$ref": "#" }),
        ] {
            let inlined = inlined(&schema).unwrap();
            assert!(inlined.cut, "{schema}");
            assert!(!inlined.schema.to_string().contains("$ref"), "{}", inlined.schema);
        }
    }

    #[test]
    fn growth_is_bounded() {
        let mut definitions = Map::new();
        for n in 0..40 {
            let next = format!("#/$defs/D{}", n + 1);
            let pair = json!({ "properties": { "a": { "$ref": next.as_str() }, "b": { "$ref": next.as_str() } } });
            definitions.insert(format!("D{n}"), pair);
        }
        definitions.insert("D40".to_owned(), json!({ "type": "string" }));
        let bomb = json!({ "$ref": "#/$defs/D0", "$defs": definitions });
        assert!(inlined(&bomb).is_err());
    }

    #[test]
    fn inputs_are_objects() {
        assert_eq!(as_input(json!({})), Some(json!({ "type": "object", "properties": {} })));
        assert_eq!(
            as_input(json!({ "type": ["object", "null"], "properties": { "a": {} } })),
            Some(json!({ "type": "object", "properties": { "a": {} } }))
        );
        for schema in [json!({ "type": "array" }), json!({ "type": "string" }), json!(true), json!({ "type": 1 })] {
            assert_eq!(as_input(schema), None);
        }
    }

    #[test]
    fn objects_are_closed() {
        let mut schema = json!({ "type": "object", "properties": { "list": { "type": "array", "items": {
            "anyOf": [{ "type": "object", "properties": {}, "additionalProperties": false },
                      { "properties": { "x": {} } }] } } } });
        assert_eq!(close(&mut schema), Closed::Now);
        assert_eq!(close(&mut schema), Closed::Already);
        assert_eq!(schema["properties"]["list"]["items"]["anyOf"][1]["additionalProperties"], false);
        for open in [
            json!({ "type": "object" }),
            json!({ "type": "object", "properties": {}, "additionalProperties": { "type": "string" } }),
            json!({ "type": "object", "properties": { "map": { "type": "object" } } }),
        ] {
            assert_eq!(close(&mut open.clone()), Closed::Never, "{open}");
        }
    }
}
