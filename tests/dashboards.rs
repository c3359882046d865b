//! The dashboard and the alert rules name only what the daemon exports, and the rules do what they say.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path, process::Command};

use landbridge::metrics::Metrics;
use serde_json::Value;

fn dashboards() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards")
}

fn read(name: &str) -> String {
    let path = dashboards().join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Runs promtool, Prometheus' own checker.
fn promtool(arguments: &[&str]) -> String {
    let output = Command::new("promtool").args(arguments).current_dir(dashboards()).output().unwrap_or_else(|error| {
        panic!("promtool cannot be run ({error}); install it: apt-get install prometheus (Debian, Ubuntu)")
    });
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "promtool {} failed:\n{text}", arguments.join(" "));
    text
}

/// Every query of the dashboard: of its panels, annotations and variables.
fn dashboard_queries() -> Vec<String> {
    fn collect(value: &Value, queries: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    match field {
                        Value::String(text) if name == "expr" || name == "query" => queries.push(text.clone()),
                        _ => collect(field, queries),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, queries)),
            _ => {}
        }
    }
    let dashboard: Value = serde_json::from_str(&read("landbridge.json")).unwrap();
    let mut queries = Vec::new();
    collect(&dashboard, &mut queries);
    queries
}

/// The rules of `alerts.yaml`: name and expression.
fn alerts() -> Vec<(String, String)> {
    let rules: serde_yaml::Value = serde_yaml::from_str(&read("alerts.yaml")).unwrap();
    let rules = rules["groups"][0]["rules"].as_sequence().unwrap();
    let text = |rule: &serde_yaml::Value, key: &str| {
        rule[key].as_str().unwrap_or_else(|| panic!("{key} is missing in {rule:?}")).to_owned()
    };
    for rule in rules {
        for annotation in ["summary", "description"] {
            assert!(rule["annotations"][annotation].is_string(), "{annotation} is missing in {rule:?}");
        }
        assert!(rule["labels"]["severity"].is_string(), "severity is missing in {rule:?}");
    }
    rules.iter().map(|rule| (text(rule, "alert"), text(rule, "expr"))).collect()
}

/// The metric names in an expression, each with what stands in the braces behind it.
fn series_in(expression: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for (start, _) in expression.match_indices("landbridge_") {
        let rest = &expression[start..];
        let length = rest.find(|c: char| !(c.is_ascii_lowercase() || c == '_')).unwrap_or(rest.len());
        let braces = rest[length..].strip_prefix('{').and_then(|rest| rest.split('}').next()).unwrap_or_default();
        found.push((&rest[..length], braces));
    }
    found
}

#[test]
fn every_series_named_is_exported_with_the_labels_that_are_asked_for() {
    let mut problems = String::new();
    let mut used = BTreeSet::new();
    let mut expressions: Vec<(String, String)> =
        dashboard_queries().into_iter().map(|query| ("landbridge.json".to_owned(), query)).collect();
    expressions.extend(alerts());
    assert!(expressions.len() > 40, "only {} expressions were found", expressions.len());
    for (place, expression) in &expressions {
        for (name, braces) in series_in(expression) {
            let family = Metrics::catalogue().find(|info| {
                info.name == name
                    || info.histogram
                        && ["_bucket", "_sum", "_count"].iter().any(|end| name.strip_suffix(end) == Some(info.name))
            });
            let Some(family) = family else {
                writeln!(problems, "{place}: no series {name} in {expression}").unwrap();
                continue;
            };
            used.insert(family.name);
            for matcher in braces.split(',').map(str::trim).filter(|matcher| !matcher.is_empty()) {
                let label = matcher.split(['=', '!', '~']).next().unwrap_or_default().trim();
                if !family.labels.contains(&label) {
                    writeln!(problems, "{place}: {name} has no label {label:?} in {expression}").unwrap();
                }
            }
        }
    }
    assert!(problems.is_empty(), "{problems}");
    let unused: Vec<_> = Metrics::catalogue().map(|info| info.name).filter(|name| !used.contains(name)).collect();
    assert!(unused.is_empty(), "exported, but on no panel and in no rule: {unused:?}");
}

#[test]
fn the_rules_are_valid_and_fire_when_they_must() {
    promtool(&["check", "rules", "alerts.yaml"]);
    promtool(&["test", "rules", "alerts.test.yaml"]);
}

#[test]
fn every_rule_has_a_case_that_fires_and_one_that_does_not() {
    let cases: serde_yaml::Value = serde_yaml::from_str(&read("alerts.test.yaml")).unwrap();
    let (mut firing, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for case in cases["tests"].as_sequence().unwrap() {
        for test in case["alert_rule_test"].as_sequence().into_iter().flatten() {
            let name = test["alertname"].as_str().unwrap().to_owned();
            let fires = test["exp_alerts"].as_sequence().is_some_and(|alerts| !alerts.is_empty());
            if fires {
                firing.insert(name)
            } else {
                silent.insert(name)
            };
        }
        for test in case["promql_expr_test"].as_sequence().into_iter().flatten() {
            for sample in test["exp_samples"].as_sequence().unwrap() {
                let labels = sample["labels"].as_str().unwrap();
                firing.insert(labels.split('"').nth(1).unwrap().to_owned());
            }
        }
    }
    for (alert, _) in alerts() {
        assert!(firing.contains(&alert), "no case of alerts.test.yaml makes {alert} fire");
        assert!(silent.contains(&alert), "no case of alerts.test.yaml keeps {alert} silent");
    }
}

#[test]
fn every_query_of_the_dashboard_parses() {
    let mut rules = "groups:\n- name: dashboard\n  rules:\n".to_owned();
    for (place, query) in dashboard_queries().iter().filter(|query| !series_in(query).is_empty()).enumerate() {
        if query.starts_with("label_values(") {
            continue; // Grafana's own function, not PromQL.
        }
        let query = query.replace("$__rate_interval", "5m").replace("$pipeline", ".*");
        writeln!(rules, "  - record: dashboard:query{place}\n    expr: {}", Value::String(query)).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dashboard.yaml");
    fs::write(&file, rules).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()]);
}
