//! What is wrong with files, for machines: our own JSON, and SARIF 2.1.0 for code scanners and editors.
//!
//! Invariant: pure functions of the reports; nothing is left out but what SARIF has no place for.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::FileReport;
use crate::diagnostic::{Diagnostic, Severity};

const SARIF_SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

/// The reports as `check --format json` prints them.
pub fn json(files: &[FileReport]) -> Value {
    let of = |severity| {
        files.iter().flat_map(|file| &file.diagnostics).filter(|diagnostic| diagnostic.severity == severity).count()
    };
    json!({
        "valid": files.iter().all(|file| file.valid),
        "errors": of(Severity::Error),
        "warnings": of(Severity::Warning),
        "files": files,
    })
}

/// The reports as `check --format sarif` prints them.
pub fn sarif(files: &[FileReport]) -> Value {
    let diagnostics = || files.iter().flat_map(|file| &file.diagnostics);
    let mut rules: BTreeMap<&str, Severity> = BTreeMap::new();
    for diagnostic in diagnostics() {
        let worst = rules.entry(&diagnostic.code).or_insert(diagnostic.severity);
        *worst = (*worst).max(diagnostic.severity);
    }
    let places: BTreeMap<&str, usize> = rules.keys().enumerate().map(|(place, code)| (*code, place)).collect();
    let rules: Vec<Value> = rules
        .iter()
        .map(|(code, severity)| {
            json!({
                "id": code,
                "shortDescription": { "text": code.replace('-', " ") },
                "defaultConfiguration": { "level": level(*severity) },
            })
        })
        .collect();
    let results: Vec<Value> = diagnostics().map(|diagnostic| result(diagnostic, &places)).collect();
    json!({
        "$schema": SARIF_SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "landbridge", "version": env!("CARGO_PKG_VERSION"), "rules": rules } },
            "columnKind": "unicodeCodePoints",
            "artifacts": files.iter().map(|file| json!({ "location": { "uri": uri(&file.file) } })).collect::<Vec<_>>(),
            "results": results,
        }],
    })
}

fn result(diagnostic: &Diagnostic, places: &BTreeMap<&str, usize>) -> Value {
    let mut text = diagnostic.message.clone();
    if let Some(help) = &diagnostic.help {
        text.push_str("; ");
        text.push_str(help);
    }
    let mut place = json!({ "artifactLocation": { "uri": uri(&diagnostic.file) } });
    if let Some(at) = diagnostic.position {
        let mut region = json!({
            "startLine": at.line,
            "startColumn": at.column,
            "endLine": at.line,
            "endColumn": at.column.saturating_add(at.length),
        });
        if let Some(line) = &diagnostic.source_line {
            place["contextRegion"] = json!({ "startLine": at.line, "snippet": { "text": line } });
            let snippet: String =
                line.chars().skip(at.column.saturating_sub(1) as usize).take(at.length as usize).collect();
            region["snippet"] = json!({ "text": snippet });
        }
        place["region"] = region;
    }
    json!({
        "ruleId": diagnostic.code,
        "ruleIndex": places.get(diagnostic.code.as_str()),
        "level": level(diagnostic.severity),
        "message": { "text": text },
        "locations": [{ "physicalLocation": place }],
    })
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

/// A path as a URI reference: what a URI cannot hold is escaped, the slashes stay.
fn uri(path: &str) -> String {
    let mut uri = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push('%');
            for half in [byte >> 4, byte & 15] {
                uri.extend(char::from_digit(u32::from(half), 16).map(|digit| digit.to_ascii_uppercase()));
            }
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Position;

    fn files() -> Vec<FileReport> {
        let source = "version: 1\nnäme: x\n";
        let fault = Diagnostic::error("unknown-key", "pipelines/a b.yaml", "unknown key `näme`")
            .at(Position { line: 2, column: 1, length: 4 }, source)
            .help("did you mean `name`?");
        let doubt = Diagnostic::warning("model-shut-down", "pipelines/c.yaml", "`gpt-4` is shut down");
        let file = |file: &str, valid, diagnostics| FileReport { file: file.to_owned(), valid, diagnostics };
        vec![
            file("pipelines/a b.yaml", false, vec![fault]),
            file("pipelines/c.yaml", true, vec![doubt.clone(), doubt]),
            file("pipelines/d.yaml", true, Vec::new()),
        ]
    }

    #[test]
    fn json_counts_and_keeps_everything() {
        let report = json(&files());
        assert_eq!(report["valid"], false);
        assert_eq!((&report["errors"], &report["warnings"]), (&json!(1), &json!(2)));
        assert_eq!(report["files"][0]["diagnostics"][0]["column"], 1);
        assert_eq!(report["files"][2], json!({"file": "pipelines/d.yaml", "valid": true, "diagnostics": []}));
        assert_eq!(json(&[])["valid"], true);
    }

    #[test]
    fn sarif_names_every_rule_and_place() {
        let mut report = sarif(&files());
        report["runs"][0]["tool"]["driver"]["version"] = json!("(of the crate)");
        insta::assert_json_snapshot!(report);
    }

    #[test]
    fn sarif_indexes_point_at_their_rules() {
        let report = sarif(&files());
        let run = &report["runs"][0];
        for result in run["results"].as_array().unwrap() {
            let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
            assert_eq!(run["tool"]["driver"]["rules"][index]["id"], result["ruleId"]);
            assert!(["error", "warning"].contains(&result["level"].as_str().unwrap()));
            assert!(result["message"]["text"].is_string());
        }
        assert_eq!(sarif(&[])["runs"][0]["results"], json!([]));
    }
}
