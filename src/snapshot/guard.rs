//! Specs held against the policy.
//!
//! Invariant: what violates the policy does not serve, however valid it is otherwise; its file keeps its last good version.
//! Only an operator's override, for exactly these bytes, lets it through, and it is said of the file for as long as it does.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::{LoadContext, LoadedPipeline, SourceFile, Sources, specs::Candidate};
use crate::{
    diagnostic::{Diagnostic, Position},
    money::BasisPoints,
    names::TargetName,
    spec::{
        Course, Destination, Pipeline, Rollout,
        policy::{self, Guard, Policy},
    },
    yaml::{self, Node, Value},
};

/// Where the last good policy is kept.
pub(super) const POLICY_KEY: &str = "/policy.yaml";
/// The policy, in reports.
pub(super) const POLICY_FILE: &str = "policy.yaml";
/// Where overrides are kept: the file's name comes behind, the value is the hash of its bytes.
const OVERRIDE: &str = "/override/";

const ADVICE: &str = "or have an operator apply it with `landbridge reload --override REASON`";

/// The policy in force.
pub(super) struct PolicyPart {
    pub policy: Policy,
    /// Its text; empty when there is none.
    pub text: String,
    pub report: Option<super::FileReport>,
}

/// Reads the policy, or its last good version.
pub(super) fn policy(sources: &Sources, context: &LoadContext) -> PolicyPart {
    let report = |valid, diagnostics| Some(super::FileReport { file: POLICY_FILE.to_owned(), valid, diagnostics });
    let last_good = |report| {
        let text = match &context.previous {
            Some(snapshot) => snapshot.kept.get(POLICY_KEY).map(ToString::to_string),
            None => context.last_good.get(POLICY_KEY).cloned(),
        };
        let text = text.unwrap_or_default();
        let policy = policy::read(POLICY_FILE, text.as_bytes()).0.unwrap_or_default();
        PolicyPart { policy, text, report }
    };
    if let Some(problem) = sources.unreadable.get(&SourceFile::Policy) {
        return last_good(report(false, vec![problem.clone()]));
    }
    let Some(bytes) = &sources.policy else {
        return PolicyPart { policy: Policy::default(), text: String::new(), report: None };
    };
    match policy::read(POLICY_FILE, bytes) {
        (Some(policy), diagnostics) => {
            let text = String::from_utf8_lossy(bytes).into_owned();
            PolicyPart { policy, text, report: report(true, diagnostics) }
        }
        (None, diagnostics) => last_good(report(false, diagnostics)),
    }
}

/// What was let through against the policy.
#[derive(Debug, Default)]
pub(super) struct LetThrough {
    /// To keep: the hash of the bytes, by key.
    pub kept: BTreeMap<String, String>,
    /// What was violated, in this load's own override.
    pub overridden: Vec<Diagnostic>,
}

/// Takes specs that violate the policy out of what would serve.
pub(super) fn hold(candidates: &mut [Candidate<'_>], policy: &Policy, context: &LoadContext) -> LetThrough {
    let mut through = LetThrough::default();
    if policy.guards.is_empty() {
        return through;
    }
    let kept: BTreeMap<String, Pipeline> = if context.previous.is_none() {
        let old = candidates.iter().filter_map(|candidate| candidate.old.as_ref());
        old.map(|old| (old.pipeline.name.to_string(), old.pipeline.clone())).collect()
    } else {
        BTreeMap::new()
    };
    for candidate in candidates.iter_mut() {
        let Some(new) = &candidate.new else { continue };
        let name = &new.pipeline.name;
        let old = match &context.previous {
            Some(snapshot) => snapshot.pipelines.get(name).map(|loaded| &loaded.pipeline),
            None => kept.get(name.as_str()),
        };
        let found = violations(new, old, policy);
        if found.is_empty() {
            continue;
        }
        let key = format!("{OVERRIDE}{}", candidate.file);
        let hash = hash_of(new.text.as_bytes());
        if context.override_policy || context.last_good.get(&key) == Some(&hash) {
            through.kept.insert(key, hash);
            let message = format!("`{name}` serves against the policy, by an override");
            let warning = Diagnostic::warning("policy-overridden", &candidate.file, message);
            candidate.diagnostics.push(warning.help("`landbridge audit` says whose, and why"));
            if context.override_policy {
                through.overridden.extend(found);
            }
        } else {
            candidate.diagnostics.extend(found);
            candidate.new = None;
        }
    }
    through
}

fn hash_of(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        use std::fmt::Write as _;
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A step on the way to a value.
enum Step<'a> {
    Key(&'a str),
    Item(usize),
}

struct Finder<'a> {
    file: &'a str,
    text: String,
    root: Option<Node>,
    found: Vec<Diagnostic>,
}

impl Finder<'_> {
    /// Says what is wrong at the deepest part of a way that the file has.
    fn say(&mut self, guard: &Guard, way: &[Step<'_>], message: &str, help: &str) {
        let problem = Diagnostic::error("policy", self.file, format!("{message}, says {}", guard.name))
            .help(format!("{help}, {ADVICE}"));
        let at = self.root.as_ref().and_then(|root| place(root, way));
        self.found.push(match at {
            Some(at) => problem.at(at, &self.text),
            None => problem,
        });
    }
}

fn place(mut node: &Node, way: &[Step<'_>]) -> Option<Position> {
    let mut at = None;
    for step in way {
        match (step, &node.value) {
            (Step::Key(key), Value::Map(entries)) => {
                let Some(entry) = entries.iter().find(|entry| entry.key.text == *key) else { break };
                at = Some(if matches!(entry.value.value, Value::Map(_) | Value::List(_)) {
                    entry.key.position
                } else {
                    entry.value.position
                });
                node = &entry.value;
            }
            (Step::Item(place), Value::List(items)) => {
                let Some(item) = items.get(*place) else { break };
                at = Some(item.position);
                node = item;
            }
            _ => break,
        }
    }
    at
}

/// Everything that is wrong about a pipeline by the policy. `old` is what serves under its name.
fn violations(new: &LoadedPipeline, old: Option<&Pipeline>, policy: &Policy) -> Vec<Diagnostic> {
    let spec = &new.pipeline;
    let document = yaml::parse(&new.file, new.text.as_bytes()).ok();
    let (text, root) = document.map_or((String::new(), None), |document| (document.text, Some(document.root)));
    let mut finder = Finder { file: &new.file, text, root, found: Vec::new() };
    for guard in policy.guards.iter().filter(|guard| guard.covers(&spec.name, &spec.labels)) {
        for label in guard.required_labels.iter().filter(|label| !spec.labels.contains_key(*label)) {
            let way = if spec.labels.is_empty() { [Step::Key("name")] } else { [Step::Key("labels")] };
            let help = format!("add it: `labels: {{ {label}: … }}`");
            finder.say(guard, &way, &format!("the label `{label}` is missing"), &help);
        }
        targets(guard, spec, &mut finder);
        if guard.confine {
            for (place, rule) in spec.route.iter().enumerate().filter(|(_, rule)| rule.confine.is_none()) {
                let way = [Step::Key("route"), Step::Item(place)];
                let message = format!("the rule {:?} must `confine` its jobs", rule.name);
                finder.say(
                    guard,
                    &way,
                    &message,
                    "add `confine: { regions: [\"eu-*\"] }` or `{ providers: [bedrock] }`",
                );
            }
        }
        if let (Some(most), Some(old)) = (guard.max_increase, old) {
            increases(guard, most, spec, old, &mut finder);
        }
    }
    finder.found
}

fn targets(guard: &Guard, spec: &Pipeline, finder: &mut Finder<'_>) {
    for target in &spec.targets {
        let name = target.name.as_str();
        let at = |key| [Step::Key("targets"), Step::Key(name), Step::Key(key)];
        if let Some(glob) = guard.forbidden_models.iter().find(|glob| glob.matcher.is_match(&target.model)) {
            let message = format!("the model {} is forbidden (`{}`)", target.model, glob.text);
            finder.say(
                guard,
                &at("model"),
                &message,
                "name another; `landbridge models --substitutes MODEL` lists some",
            );
        }
        if !guard.providers.is_empty() && !guard.providers.contains(&target.provider) {
            let known: Vec<String> = guard.providers.iter().map(ToString::to_string).collect();
            let message = format!("target `{name}` must be of {}, not of {}", known.join(" or "), target.provider);
            finder.say(guard, &at("provider"), &message, "name a target of these, or remove it");
        }
        if !guard.keeps(target) {
            let globs: Vec<&str> = guard.regions.iter().map(|glob| glob.text.as_str()).collect();
            let message = format!("target `{name}` does not keep its data in {}", globs.join(", "));
            finder.say(guard, &at("region"), &message, "name a region and an inference profile that stay there");
        }
    }
}

/// The share of a candidate's traffic that served before: a rollout's by its name or its candidate, everything where a rule
/// led there.
fn share(old: &Pipeline, rollout: Option<&Rollout>, candidate: &TargetName) -> u16 {
    let same_name = rollout.and_then(|new| old.rollouts.iter().find(|old| old.name == new.name));
    let by_target = || old.rollouts.iter().find(|old_rollout| old.target(old_rollout.candidate).name == *candidate);
    if let Some(found) = same_name.or_else(by_target) {
        return found.promised().get();
    }
    let direct = old.route.iter().any(|rule| match rule.to {
        Destination::Target(ix) => old.target(ix).name == *candidate,
        Destination::Rollout(_) => false,
    });
    if direct { BasisPoints::ALL.get() } else { 0 }
}

fn increases(guard: &Guard, most: u16, new: &Pipeline, old: &Pipeline, finder: &mut Finder<'_>) {
    let words = |points: u16| BasisPoints::new(points).map_or_else(|| "100%".to_owned(), |points| points.to_string());
    let help = |was: u16| format!("go to at most {}", words(was.saturating_add(most).min(10_000)));
    for rollout in &new.rollouts {
        // Steps are taken by evidence, not by a save.
        let Course::Percent(percent) = rollout.course else { continue };
        let candidate = &new.target(rollout.candidate).name;
        let (was, is) = (share(old, Some(rollout), candidate), percent.get());
        if is > was.saturating_add(most) {
            let way = [Step::Key("rollouts"), Step::Key(rollout.name.as_str()), Step::Key("percent")];
            let message = format!(
                "rollout `{}` goes from {} to {} in one save, and may gain {}",
                rollout.name,
                words(was),
                words(is),
                words(most)
            );
            finder.say(guard, &way, &message, &help(was));
        }
    }
    // A rollout that is taken away, and a rule that leads straight to its candidate instead, is a step to 100 %.
    let ended = old.rollouts.iter().filter(|old| new.rollouts.iter().all(|new| new.name != old.name));
    for rollout in ended {
        let candidate = &old.target(rollout.candidate).name;
        let still = new.rollouts.iter().any(|new_rollout| new.target(new_rollout.candidate).name == *candidate);
        let straight = new.route.iter().position(|rule| match rule.to {
            Destination::Target(ix) => new.target(ix).name == *candidate,
            Destination::Rollout(_) => false,
        });
        let was_straight = old.route.iter().any(|rule| match rule.to {
            Destination::Target(ix) => old.target(ix).name == *candidate,
            Destination::Rollout(_) => false,
        });
        let was = rollout.promised().get();
        if let Some(place) = straight
            && !still
            && !was_straight
            && 10_000 > was.saturating_add(most)
        {
            let way = [Step::Key("route"), Step::Item(place), Step::Key("to")];
            let message = format!(
                "`{candidate}` goes from {} (rollout `{}`) to 100% in one save, and may gain {}",
                words(was),
                rollout.name,
                words(most)
            );
            finder.say(guard, &way, &message, &help(was));
        }
    }
}
