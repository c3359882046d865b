//! `config/policy.yaml`: what must hold of every spec, whoever saves it.
//!
//! ```yaml
//! version: 1
//! max_increase_percent: 10            # points that a rollout may gain in one save
//! required_labels: [team]
//! forbidden_models: ["gpt-3.5-*"]
//! rules:                              # the same, and more, for some pipelines
//!   - name: eu data stays in the eu
//!     when: { pipelines: ["eu-*"], labels: { data: eu } }
//!     regions: ["eu-*"]               # every target keeps its data there
//!     providers: [bedrock]            # every target is of one of these
//!     confine: true                   # every rule of the route says `confine`
//! ```
//!
//! Invariant: a policy that reads has no rule without effect. What it is held against is somebody else's work.

use std::collections::BTreeMap;

use rust_decimal::Decimal;

use super::{Residency, Target, pipeline::ModelGlob};
use crate::{
    diagnostic::Diagnostic,
    names::{PipelineName, ProviderName},
    yaml::{self, Findings, Keys, Node, Section},
};

/// Entries of one list at most.
const MOST: usize = 1_000;
/// Longest name or glob.
const LONGEST: usize = 200;

const FILE: Keys = Keys::new(
    "the policy",
    &[
        "version",
        "max_increase_percent",
        "required_labels",
        "forbidden_models",
        "regions",
        "providers",
        "confine",
        "rules",
    ],
);
const RULE: Keys = Keys::new(
    "a rule of the policy",
    &["name", "when", "max_increase_percent", "required_labels", "forbidden_models", "regions", "providers", "confine"],
);
const WHEN: Keys = Keys::new("`when`", &["pipelines", "labels"]);

/// What must hold of every spec.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Each holds on its own.
    pub guards: Vec<Guard>,
}

/// What must hold of some pipelines.
#[derive(Debug, Clone)]
pub struct Guard {
    /// For messages.
    pub name: String,
    /// Of pipelines with such a name; of all, when empty.
    pipelines: Vec<ModelGlob>,
    /// And with all of these labels.
    labels: BTreeMap<String, String>,
    /// Points, in hundredths of a percent, that a rollout may gain in one save.
    pub max_increase: Option<u16>,
    /// Labels that must be there.
    pub required_labels: Vec<String>,
    /// Models that no target may name.
    pub forbidden_models: Vec<ModelGlob>,
    /// Regions that every target's data must stay in; anywhere, when empty.
    pub regions: Vec<ModelGlob>,
    /// Providers that every target must be of; any, when empty.
    pub providers: Vec<ProviderName>,
    /// Every rule of a route says `confine`.
    pub confine: bool,
}

impl Guard {
    /// Whether it is about this pipeline.
    pub fn covers(&self, pipeline: &PipelineName, labels: &BTreeMap<String, String>) -> bool {
        (self.pipelines.is_empty() || self.pipelines.iter().any(|glob| glob.matcher.is_match(pipeline.as_str())))
            && self.labels.iter().all(|(label, value)| labels.get(label) == Some(value))
    }

    /// Whether a target's data stays in the regions.
    pub fn keeps(&self, target: &Target) -> bool {
        self.regions.is_empty()
            || match &target.residency {
                Residency::Unknown => false,
                Residency::Within(within) => {
                    within.iter().all(|region| self.regions.iter().any(|glob| glob.matcher.is_match(region.as_str())))
                }
            }
    }
}

/// Reads a policy; `None` when it has errors.
pub fn read(file: &str, bytes: &[u8]) -> (Option<Policy>, Vec<Diagnostic>) {
    let document = match yaml::parse(file, bytes) {
        Ok(document) => document,
        Err(problem) => return (None, vec![*problem]),
    };
    let mut findings = Findings::new(file, &document.text);
    let policy =
        if document.root.is_null() { Some(Policy::default()) } else { read_root(&document.root, &mut findings) };
    let policy = policy.filter(|_| !findings.has_errors());
    (policy, findings.finish())
}

fn read_root(root: &Node, findings: &mut Findings) -> Option<Policy> {
    let section = root.section(&FILE, findings)?;
    if let Some(version) = section.require("version", findings) {
        version.integer("version", 1..=1, findings);
    }
    let mut guards = Vec::new();
    let all = read_guard(&section, "the policy".to_owned(), findings);
    if has_effect(&all) {
        guards.push(all);
    }
    if let Some(rules) = section.get("rules") {
        for node in rules.list("rules", MOST, findings).unwrap_or_default() {
            guards.extend(read_rule(node, findings));
        }
    }
    Some(Policy { guards })
}

fn read_rule(node: &Node, findings: &mut Findings) -> Option<Guard> {
    let section = node.section(&RULE, findings)?;
    let name = section.require("name", findings)?.line("name", LONGEST, findings)?.to_owned();
    let mut guard = read_guard(&section, format!("the policy's rule {name:?}"), findings);
    if let Some(when) = section.get("when").and_then(|node| node.section(&WHEN, findings)) {
        if let Some(node) = when.get("pipelines") {
            guard.pipelines = globs(node, "pipelines", findings);
        }
        if let Some(node) = when.get("labels") {
            guard.labels = node.texts("labels", findings).unwrap_or_default();
        }
    }
    if !has_effect(&guard) && !findings.has_errors() {
        let help =
            "add `regions`, `providers`, `confine`, `required_labels`, `forbidden_models` or `max_increase_percent`";
        findings.error("no-effect", section.position(), "this rule asks for nothing", help);
    }
    Some(guard)
}

fn has_effect(guard: &Guard) -> bool {
    guard.max_increase.is_some()
        || guard.confine
        || !(guard.required_labels.is_empty()
            && guard.forbidden_models.is_empty()
            && guard.regions.is_empty()
            && guard.providers.is_empty())
}

fn read_guard(section: &Section<'_>, name: String, findings: &mut Findings) -> Guard {
    let max_increase = section.get("max_increase_percent").and_then(|node| {
        let percent = node.decimal("max_increase_percent", Decimal::ZERO..=Decimal::ONE_HUNDRED, findings)?;
        u16::try_from((percent * Decimal::ONE_HUNDRED).round()).ok()
    });
    let required_labels = section.get("required_labels").map_or_else(Vec::new, |node| {
        let labels = node.list("required_labels", MOST, findings).unwrap_or_default();
        labels.iter().filter_map(|label| Some(label.line("a label", LONGEST, findings)?.to_owned())).collect()
    });
    let providers = section.get("providers").map_or_else(Vec::new, |node| {
        let providers = node.list("providers", MOST, findings).unwrap_or_default();
        providers.iter().filter_map(|provider| provider.name("a provider", findings)).collect()
    });
    let mut globs_of = |key: &str| section.get(key).map_or_else(Vec::new, |node| globs(node, key, findings));
    let (forbidden_models, regions) = (globs_of("forbidden_models"), globs_of("regions"));
    let confine = section.get("confine").and_then(|node| node.boolean("confine", findings)).unwrap_or(false);
    Guard {
        name,
        pipelines: Vec::new(),
        labels: BTreeMap::new(),
        max_increase,
        required_labels,
        forbidden_models,
        regions,
        providers,
        confine,
    }
}

fn globs(node: &Node, what: &str, findings: &mut Findings) -> Vec<ModelGlob> {
    let mut globs = Vec::new();
    for item in node.list(what, MOST, findings).unwrap_or_default() {
        let Some(text) = item.line(what, LONGEST, findings) else { continue };
        if let Some(matcher) = super::read::read_glob(item, text, findings) {
            globs.push(ModelGlob { text: text.to_owned(), matcher });
        }
    }
    globs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        read("policy.yaml", text.as_bytes()).1.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_policy_reads() {
        let text = "version: 1\nmax_increase_percent: 2.5\nrequired_labels: [team]\nrules:\n  - name: eu\n    when: { pipelines: [\"eu-*\"], labels: { data: eu } }\n    regions: [\"eu-*\"]\n    confine: true\n";
        let (policy, found) = read("policy.yaml", text.as_bytes());
        assert!(found.is_empty(), "{found:?}");
        let policy = policy.unwrap();
        assert_eq!((policy.guards.len(), policy.guards[0].max_increase), (2, Some(250)));
        let labels = |value: &str| BTreeMap::from([("data".to_owned(), value.to_owned())]);
        let name = |name: &str| PipelineName::new(name).unwrap();
        assert!(policy.guards[0].covers(&name("any"), &BTreeMap::new()));
        assert!(policy.guards[1].covers(&name("eu-x"), &labels("eu")));
        assert!(
            !policy.guards[1].covers(&name("eu-x"), &labels("us"))
                && !policy.guards[1].covers(&name("x"), &labels("eu"))
        );
        assert!(read("policy.yaml", b"# nothing\n").0.is_some());
    }

    #[test]
    fn faults_have_their_place() {
        for (text, expected) in [
            ("max_increase_percent: 5\n", "needs `version`"),
            ("version: 1\nmax_increase: 5\n", "unknown key `max_increase`"),
            ("version: 1\nmax_increase_percent: 101\n", "policy.yaml:2:23"),
            ("version: 1\nforbidden_models: [\"a[\"]\n", "policy.yaml:2:20"),
            ("version: 1\nrules:\n  - { name: x }\n", "asks for nothing"),
            ("version: 1\nrules:\n  - { regions: [eu] }\n", "needs `name`"),
            ("version: 2\n", "policy.yaml:1:10"),
            ("- x\n", "must be a mapping"),
        ] {
            let found = problems(text).join("\n");
            assert!(found.contains(expected), "{text}: {found}");
        }
    }
}
