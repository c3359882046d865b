//! The `tests` of a spec: their shape, and the names they expect. Running them is somebody else's work.

use std::collections::BTreeMap;

use super::{dangling, flags, rollouts::Rollouts, route::Route, targets::Targets};
use crate::{
    money::BasisPoints,
    names::{RolloutName, TargetName},
    spec::{
        keys,
        pipeline::{Expectation, SpecTest},
        providers::Providers,
    },
    yaml::{Findings, Node, Section},
};

/// Most tests of a spec: they run at every load.
const MOST_TESTS: usize = 200;
/// Longest name of a test.
const LONGEST_NAME: usize = 200;

pub(super) fn read(
    node: &Node,
    targets: &Targets,
    route: &Route,
    rollouts: &Rollouts,
    providers: &Providers,
    findings: &mut Findings,
) -> Vec<SpecTest> {
    let mut tests: Vec<SpecTest> = Vec::new();
    for item in node.list("tests", MOST_TESTS, findings).unwrap_or_default() {
        let Some(section) = item.section(&keys::TEST, findings) else { continue };
        let name = section.require("name", findings).and_then(|node| node.line("name", LONGEST_NAME, findings));
        if let (Some(name), Some(node)) = (name, section.get("name"))
            && tests.iter().any(|test| test.name == name)
        {
            let message = "another test has this name already";
            findings.error("duplicate-name", node.position, message, "give each test its own name");
        }
        let job = section.require("job", findings).and_then(|node| read_job(node, findings));
        let flags = section.get("flags").map(|node| flags::read(node, providers, findings)).unwrap_or_default();
        let standing = section.get("rollouts").map(|node| read_standing(node, rollouts, findings)).unwrap_or_default();
        let expect = section.require("expect", findings).and_then(|node| read_expect(node, targets, route, findings));
        if let (Some(name), Some(job), Some(expect)) = (name, job, expect) {
            let position = section.get("name").map_or(section.position(), |node| node.position);
            tests.push(SpecTest { name: name.to_owned(), job, flags, rollouts: standing, expect, position });
        }
    }
    tests
}

/// Where rollouts with steps stand during a test.
fn read_standing(node: &Node, rollouts: &Rollouts, findings: &mut Findings) -> BTreeMap<RolloutName, BasisPoints> {
    let mut standing = BTreeMap::new();
    for entry in node.entries("rollouts", findings).unwrap_or_default() {
        let percent = entry.value.percent(&entry.key.text, findings);
        let Some(rollout) = rollouts.named(&entry.key, findings) else { continue };
        if rollout.gated().is_none() {
            let message = format!("rollout `{}` has a percentage of its own", rollout.name);
            let help = "leave it out: only rollouts with steps stand where a test says";
            findings.error("no-effect", entry.key.position, message, help);
        } else if let Some(percent) = percent {
            standing.insert(rollout.name.clone(), percent);
        }
    }
    standing
}

fn read_job(node: &Node, findings: &mut Findings) -> Option<serde_json::Value> {
    let section = node.section(&keys::TEST_JOB, findings)?;
    let mut job = serde_json::Map::new();
    for entry in section.entries() {
        let (key, value) = (entry.key.text.as_str(), &entry.value);
        let value = match key {
            "metadata" => value.texts(key, findings).map(|texts| serde_json::json!(texts)),
            "priority" => value.integer(key, i64::from(i32::MIN)..=i64::from(i32::MAX), findings).map(Into::into),
            "body" => value.entries(key, findings).and_then(|_| value.json(key, findings)),
            _ => value.text(key, findings).map(Into::into),
        };
        job.insert(key.to_owned(), value?);
    }
    Some(serde_json::Value::Object(job))
}

fn read_expect(node: &Node, targets: &Targets, route: &Route, findings: &mut Findings) -> Option<Expectation> {
    let section = node.section(&keys::EXPECT, findings)?;
    if section.entries().next().is_none() {
        let help = "add `target: …`, `chain: […]`, `rule: …` or `held: …`";
        findings.error("no-effect", section.position(), "this test expects nothing", help);
        return None;
    }
    let name_of = |node: &Node, what: &str, findings: &mut Findings| -> Option<TargetName> {
        let ix = targets.resolve(node, what, findings)?;
        targets.name(ix).parse().ok()
    };
    let target = section.get("target").map(|node| name_of(node, "target", findings));
    let chain = section.get("chain").map(|node| {
        let names: Option<Vec<TargetName>> =
            node.list("chain", 64, findings)?.iter().map(|item| name_of(item, "chain", findings)).collect();
        names
    });
    let rule = section.get("rule").map(|node| {
        let text = node.line("rule", 200, findings)?;
        if route.names().all(|name| name != text) {
            dangling("rule", text, node.position, route.names(), findings);
            return None;
        }
        Some(text.to_owned())
    });
    let held = section.get("held").map(|node| {
        let text = node.line("held", 100, findings)?;
        let is_code = text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if !is_code {
            let help = "write a reason code such as `paused` or `missing_value`";
            findings.error("unknown-value", node.position, "`held` is the code of a reason", help);
        }
        is_code.then(|| text.to_owned())
    });
    check_sense(&section, target.as_ref(), chain.as_ref(), findings);
    Some(Expectation { target: settled(target)?, chain: settled(chain)?, rule: settled(rule)?, held: settled(held)? })
}

/// `None` when the key is there but broken.
#[expect(clippy::option_option, reason = "outside: is it broken; inside: is it there")]
fn settled<T>(read: Option<Option<T>>) -> Option<Option<T>> {
    match read {
        None => Some(None),
        Some(None) => None,
        Some(value) => Some(value),
    }
}

/// Expectations that no decision can meet.
fn check_sense(
    section: &Section<'_>,
    target: Option<&Option<TargetName>>,
    chain: Option<&Option<Vec<TargetName>>>,
    findings: &mut Findings,
) {
    if let (Some(held), true) = (section.entry("held"), target.is_some() || chain.is_some()) {
        let message = "a job that is held goes to no target";
        findings.error("conflicting-keys", held.key.position, message, "keep `held`, or `target` and `chain`");
    }
    let (Some(Some(chain)), Some(node)) = (chain, section.get("chain")) else { return };
    if chain.is_empty() {
        let help = "name the targets in the order tried, or expect `held`";
        findings.error("no-effect", node.position, "a chain is never empty", help);
    } else if chain.iter().enumerate().any(|(place, name)| chain.iter().take(place).any(|before| before == name)) {
        findings.error("duplicate-value", node.position, "no target is tried twice", "name each target once");
    }
    if let (Some(Some(target)), Some(first)) = (target, chain.first())
        && target != first
    {
        let message = format!("`target` is the first of the chain, which is `{first}`");
        findings.error("conflicting-keys", node.position, message, "let the chain start with the target");
    }
}
