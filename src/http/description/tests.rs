//! What is described is what is served.

use std::collections::BTreeSet;

use super::document;

/// Every path of the router, as its own `Debug` tells them.
fn served() -> BTreeSet<String> {
    let shown = format!("{:?}", crate::http::paths());
    let mut found = BTreeSet::new();
    for text in shown.split('"').skip(1).step_by(2) {
        // The router's own fallback stands among its paths, as `/` and by a private name.
        if text.len() > 1 && text.starts_with('/') && !text.contains("__private") {
            found.insert(text.replace("{*", "{"));
        }
    }
    found
}

#[test]
fn every_path_is_described_and_no_other() {
    let document = document();
    let described: BTreeSet<String> = document["paths"].as_object().unwrap().keys().cloned().collect();
    let served = served();
    assert!(served.len() > 40, "{served:?}");
    let missing: Vec<&String> = served.difference(&described).collect();
    let unknown: Vec<&String> = described.difference(&served).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "not described: {missing:?}; not served: {unknown:?}");
}

#[test]
fn operations_have_names_of_their_own_and_every_reference_leads_somewhere() {
    let document = document();
    let mut names = BTreeSet::new();
    for item in document["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values() {
            let name = operation["operationId"].as_str().unwrap();
            assert!(names.insert(name.to_owned()), "{name} stands twice");
            assert!(operation["security"].is_array(), "{name}");
        }
    }
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"").skip(1) {
        let target = reference.split('"').next().unwrap();
        assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target} leads nowhere");
    }
}
