//! Model definitions: the files of `config/models`, which targets name by `use:` and `landbridge ask` takes directly.
//!
//! Invariant: a definition that was read has OpenAI's parameter names, whatever names the file used.

use std::collections::BTreeMap;

use super::{keys, parameters, target::Parameters};
use crate::{
    diagnostic::Diagnostic,
    names::{ProviderName, Region},
    yaml::{self, Findings},
};

/// Longest model id or ARN.
pub(super) const LONGEST_MODEL: usize = 2_048;
/// Longest system text.
pub(super) const LONGEST_SYSTEM: usize = 100_000;

/// One model, ready to be used by any pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelDefinition {
    /// The model, inference profile or ARN, as the provider wants it.
    pub model: String,
    /// The configured provider.
    pub provider: ProviderName,
    /// The region to call.
    pub region: Option<Region>,
    /// Parameters where the job says nothing, by OpenAI's names.
    pub parameters: Parameters,
    /// System text.
    pub system: Option<String>,
    /// How `ask` prints the answer.
    pub format: Option<AnswerFormat>,
}

/// How an answer is printed to a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerFormat {
    /// With headings, lists and emphasis drawn.
    Markdown,
    /// As it came.
    Plain,
}

/// Model definitions by file stem.
pub type ModelDefinitions = BTreeMap<String, ModelDefinition>;

/// Reads one definition (JSON, or YAML) and everything that is wrong with it. Whether its provider is configured is
/// asked where it is used.
pub fn read(file: &str, bytes: &[u8]) -> (Option<ModelDefinition>, Vec<Diagnostic>) {
    let document = match yaml::parse(file, bytes) {
        Ok(document) => document,
        Err(problem) => return (None, vec![*problem]),
    };
    let mut findings = Findings::new(file, &document.text);
    let definition = read_definition(&document.root, &mut findings);
    let definition = definition.filter(|_| !findings.has_errors());
    (definition, findings.finish())
}

fn read_definition(root: &yaml::Node, findings: &mut Findings) -> Option<ModelDefinition> {
    let section = root.section(&keys::MODEL_DEFINITION, findings)?;
    let model = section.require("name", findings).and_then(|node| node.line("name", LONGEST_MODEL, findings));
    let provider = section.require("provider", findings).and_then(|node| node.name("provider", findings));
    let region = section.get("region").and_then(|node| node.name("region", findings));
    let parameters =
        section.get("parameters").map(|node| parameters::read_definition(node, findings)).unwrap_or_default();
    let system = section.get("system").and_then(|node| node.line("system", LONGEST_SYSTEM, findings));
    let formats = [("markdown", AnswerFormat::Markdown), ("plain", AnswerFormat::Plain)];
    let format = section.get("format").and_then(|node| node.choice("format", &formats, findings));
    Some(ModelDefinition {
        model: model?.to_owned(),
        provider: provider?,
        region,
        parameters,
        system: system.map(str::to_owned),
        format,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn native_names_become_openais() {
        let text = br#"{
  "name": "us.meta.llama3-3-70b-instruct-v1:0", "provider": "bedrock", "region": "us-east-1",
  "parameters": { "max_gen_len": 512, "stop_sequences": ["END"], "temperature": 0.5 },
  "system": "Be brief.", "format": "plain"
}"#;
        let (definition, found) = read("llama.json", text);
        assert_eq!(found, []);
        let definition = definition.unwrap();
        assert_eq!(
            serde_json::Value::Object(definition.parameters),
            serde_json::json!({"max_tokens": 512, "stop": ["END"], "temperature": 0.5})
        );
        assert_eq!(definition.format, Some(AnswerFormat::Plain));
    }

    #[test]
    fn every_fault_has_its_place() {
        let text = b"{\n\t\"nmae\": \"x\",\n\t\"provider\": \"Bed Rock\",\n\t\"parameters\": {\"max_gen_len\": 1, \"max_tokens\": 2}\n}\n";
        let (definition, found) = read("x.json", text);
        assert_eq!(definition, None);
        let places: Vec<_> = found.iter().map(|d| (d.code.as_str(), d.position.unwrap().line)).collect();
        assert_eq!(places, [("missing-key", 1), ("unknown-key", 2), ("bad-name", 3), ("conflicting-keys", 4)]);
    }
}
