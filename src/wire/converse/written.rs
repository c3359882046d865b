//! The parts of a request whose wire form wraps them in more than their own fields.
//!
//! Invariant: what is written here is what the SDK writes; a test holds the two together.

use base64::Engine as _;
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::json;

use super::{OutputConfig, ServiceTier, Source, Tool, ToolChoice};

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        match self {
            Self::Bytes(bytes) => {
                map.serialize_entry("bytes", &base64::engine::general_purpose::STANDARD.encode(bytes))?;
            }
            // Never sent: the provider layer fetches it first.
            Self::Remote(url) => map.serialize_entry("remote", url)?,
            Self::S3(uri) => map.serialize_entry("s3Location", &json!({ "uri": uri }))?,
        }
        map.end()
    }
}

impl Serialize for Tool {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut spec = json!({
            "name": self.name, "description": self.description, "inputSchema": { "json": self.input_schema }
        });
        if let (Some(strict), Some(spec)) = (self.strict, spec.as_object_mut()) {
            spec.insert("strict".to_owned(), strict.into());
        }
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("toolSpec", &spec)?;
        map.end()
    }
}

impl Serialize for ToolChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => json!({ "auto": {} }),
            Self::Any => json!({ "any": {} }),
            Self::Tool(name) => json!({ "tool": { "name": name } }),
        }
        .serialize(serializer)
    }
}

impl Serialize for OutputConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut schema = serde_json::Map::new();
        // The service wants the schema as text.
        schema.insert("schema".to_owned(), self.schema.to_string().into());
        if let Some(name) = &self.name {
            schema.insert("name".to_owned(), name.as_str().into());
        }
        if let Some(description) = &self.description {
            schema.insert("description".to_owned(), description.as_str().into());
        }
        json!({ "textFormat": { "type": "json_schema", "structure": { "jsonSchema": schema } } }).serialize(serializer)
    }
}

impl Serialize for ServiceTier {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name: &'static str = self.into();
        json!({ "type": name }).serialize(serializer)
    }
}
