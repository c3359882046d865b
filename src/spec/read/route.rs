//! The `route` of a spec: rules, their confinements and fallbacks.
//!
//! Invariant: the last rule has no condition, no rule is out of reach, and a rule's own destination and fallback are
//! permitted by its confinement.

use std::sync::Arc;

use super::{Context, dangling, models, rollouts::Rollouts, targets::Targets};
use crate::{
    diagnostic::Position,
    names::ProviderName,
    spec::{
        condition::{Condition, ConditionError},
        keys,
        pipeline::{Confinement, Destination, OnMissing, Rule},
        target::{Residency, Target, TargetIx},
    },
    yaml::{Entry, Findings, Node, Section, Value, shortened},
};

/// Longest condition or key.
pub(super) const LONGEST_EXPRESSION: usize = 4_000;
/// Most rules of a pipeline.
const MOST_RULES: usize = 500;
/// Longest name of a rule: it becomes a label of a metric.
const LONGEST_NAME: usize = 120;
/// Most targets in one fallback.
const MOST_FALLBACKS: usize = 64;
/// Most globs or providers in one confinement.
const MOST_CONFINED: usize = 64;

const ON_MISSING: [(&str, OnMissing); 3] =
    [("no_match", OnMissing::NoMatch), ("hold", OnMissing::Hold), ("match", OnMissing::Match)];

/// All rules of a spec, broken ones included.
pub(super) struct Route {
    rules: Vec<Read>,
    /// Whether the list of rules itself could be read.
    usable: bool,
}

struct Read {
    name: Arc<str>,
    to: Option<Destination>,
    rule: Option<Rule>,
}

impl Route {
    /// Whether the list of rules itself could be read.
    pub(super) fn is_usable(&self) -> bool {
        self.usable
    }

    /// Names of all rules.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.rules.iter().map(|rule| &*rule.name)
    }

    /// Where the rules lead, as far as it is known.
    pub(super) fn destinations(&self) -> impl Iterator<Item = Destination> {
        self.rules.iter().filter_map(|rule| rule.to)
    }

    /// All of them, if none is broken.
    pub(super) fn complete(&self) -> Option<Vec<Rule>> {
        self.rules.iter().map(|read| read.rule.clone()).collect()
    }
}

pub(super) fn read(
    pipeline: &Section<'_>,
    targets: &Targets,
    rollouts: &Rollouts,
    context: &Context<'_>,
    findings: &mut Findings,
) -> Route {
    let Some(node) = pipeline.get("route") else { return implied(pipeline, targets, findings) };
    let mut route = Route { rules: Vec::new(), usable: false };
    let Some(items) = node.list("route", MOST_RULES, findings) else { return route };
    route.usable = !items.is_empty();
    if items.is_empty() {
        let help = "add at least one rule, such as `- to: TARGET`";
        findings.error("no-rules", node.position, "`route` is empty, so no job has anywhere to go", help);
    }
    let mut earlier: Vec<Written> = Vec::new();
    for (place, item) in items.iter().enumerate() {
        let Some(section) = item.section(&keys::RULE, findings) else {
            route.usable = false;
            continue;
        };
        let rule = read_rule(&section, place, targets, rollouts, context, findings);
        let last = place + 1 == items.len();
        check_reach(&section, &rule.1, last, &earlier, findings);
        if section.get("name").is_some() && route.names().any(|name| *name == *rule.0.name) {
            let at = section.get("name").map_or(section.position(), |node| node.position);
            let message = format!("another rule is already called \"{}\"", shortened(&rule.0.name));
            findings.error("duplicate-name", at, message, "give it another name: metrics and tests tell rules by name");
        }
        earlier.push(rule.1);
        route.rules.push(rule.0);
    }
    route
}

/// With one target, no route is needed.
fn implied(pipeline: &Section<'_>, targets: &Targets, findings: &mut Findings) -> Route {
    if targets.len() != 1 {
        if targets.len() > 1 {
            let message = "a pipeline with several targets needs `route`";
            let help = "add `route:` with at least one rule, such as `- to: TARGET`";
            findings.error("missing-key", pipeline.position(), message, help);
        }
        return Route { rules: Vec::new(), usable: false };
    }
    let (name, to) = (Arc::from("default"), Destination::Target(TargetIx(0)));
    let rule =
        Rule { name: Arc::clone(&name), when: None, on_missing: OnMissing::NoMatch, confine: None, to, fallback: None };
    Route { rules: vec![Read { name, to: Some(to), rule: Some(rule) }], usable: true }
}

/// A condition as far as reachability is concerned.
struct Written {
    line: u32,
    /// The condition without white space; `None` matches every job.
    when: Option<String>,
    on_missing: OnMissing,
}

fn read_rule(
    section: &Section<'_>,
    place: usize,
    targets: &Targets,
    rollouts: &Rollouts,
    context: &Context<'_>,
    findings: &mut Findings,
) -> (Read, Written) {
    let name: Arc<str> = section
        .get("name")
        .and_then(|node| node.line("name", LONGEST_NAME, findings))
        .map_or_else(|| Arc::from(format!("rule-{}", place + 1)), Arc::from);
    let when = section.get("when").map(|node| read_when(node, findings));
    let on_missing = section.get("on_missing").map(|node| node.choice("on_missing", &ON_MISSING, findings));
    if let (Some(entry), None) = (section.entry("on_missing"), &when) {
        let help = "remove it, or add `when`";
        findings.error("no-effect", entry.key.position, "`on_missing` says nothing without `when`", help);
    }
    let to = read_destination(section, targets, rollouts, findings);
    let confine = section.get("confine").map(|node| read_confine(node, targets, context, findings));
    let fallback = section.get("fallback").map(|node| read_fallback(node, targets, context, findings));
    if let Some(Some(confine)) = &confine {
        check_kept(section, to, fallback.as_deref().unwrap_or_default(), confine, targets, rollouts, findings);
    }

    let written = Written {
        line: section.position().line,
        when: section.get("when").map(|node| match &node.value {
            Value::Text(text) => without_spaces(text),
            _ => String::new(),
        }),
        on_missing: on_missing.flatten().unwrap_or_default(),
    };
    let rule = to.and_then(|to| {
        Some(Rule {
            name: Arc::clone(&name),
            when: match when {
                Some(when) => Some(when?),
                None => None,
            },
            on_missing: on_missing.unwrap_or(Some(OnMissing::default()))?,
            confine: match confine {
                Some(confine) => Some(confine?),
                None => None,
            },
            to,
            fallback: fallback.map(|list| list.into_iter().map(|(ix, _)| ix).collect()),
        })
    });
    (Read { name, to, rule }, written)
}

fn read_when(node: &Node, findings: &mut Findings) -> Option<Condition> {
    if let Value::Bool(value) = node.value {
        let help = if value { "leave `when` out: such a rule matches every job" } else { "remove the rule" };
        findings.error("wrong-type", node.position, format!("`when` must be an expression, not `{value}`"), help);
        return None;
    }
    let text = node.line("when", LONGEST_EXPRESSION, findings)?;
    Condition::parse(text).map_err(|error| refuse(node, "bad-condition", error, findings)).ok()
}

/// Says what is wrong inside an expression, at its place in the file.
pub(super) fn refuse(node: &Node, code: &str, error: ConditionError, findings: &mut Findings) {
    let at = node.locate(&findings.text(), error.offset, error.length);
    let help = error.help.unwrap_or_else(|| {
        "write a comparison such as `job.metadata.region == \"eu\"`; expressions are CEL over `job`".to_owned()
    });
    findings.error(code, at, error.message, help);
}

fn read_destination(
    section: &Section<'_>,
    targets: &Targets,
    rollouts: &Rollouts,
    findings: &mut Findings,
) -> Option<Destination> {
    match (section.get("to"), section.entry("rollout")) {
        (Some(_), Some(Entry { key, .. })) => {
            let message = "a rule has `to` or `rollout`, not both";
            findings.error("conflicting-keys", key.position, message, "keep one of the two");
            None
        }
        (Some(node), None) => targets.resolve(node, "to", findings).map(Destination::Target),
        (None, Some(entry)) => rollouts.resolve(&entry.value, findings).map(Destination::Rollout),
        (None, None) => {
            let message = "a rule needs `to` or `rollout`";
            findings.error("missing-key", section.position(), message, "add `to: TARGET` or `rollout: ROLLOUT`");
            None
        }
    }
}

/// Reads a list of targets, each once, with their places in the file.
pub(super) fn read_fallback(
    node: &Node,
    targets: &Targets,
    context: &Context<'_>,
    findings: &mut Findings,
) -> Vec<(TargetIx, Position)> {
    let mut fallback: Vec<(TargetIx, Position)> = Vec::new();
    for item in node.list("fallback", MOST_FALLBACKS, findings).unwrap_or_default() {
        let Some(ix) = targets.resolve(item, "fallback", findings) else { continue };
        if fallback.iter().any(|(known, _)| *known == ix) {
            let message = format!("`{}` stands in this fallback twice", targets.name(ix));
            findings.error("repeated-fallback", item.position, message, "remove one of the two");
        } else {
            models::check_way_back(targets.get(ix), item.position, "a fallback", context, findings);
            fallback.push((ix, item.position));
        }
    }
    fallback
}

fn read_confine(node: &Node, targets: &Targets, context: &Context<'_>, findings: &mut Findings) -> Option<Confinement> {
    let section = node.section(&keys::CONFINE, findings)?;
    let mut good = true;
    let mut regions = Vec::new();
    let mut globs = Vec::new();
    if let Some(node) = section.get("regions") {
        for item in nonempty(node, "regions", findings)? {
            let glob = item.line("regions", 100, findings).and_then(|text| {
                let glob = super::read_glob(item, text, findings)?;
                Some((text.to_owned(), glob))
            });
            good &= glob.is_some();
            if let Some((text, glob)) = glob {
                regions.push(text);
                globs.push(glob);
            }
        }
    }
    let mut providers: Vec<ProviderName> = Vec::new();
    if let Some(node) = section.get("providers") {
        for item in nonempty(node, "providers", findings)? {
            let known = item.text("providers", findings).and_then(|text| {
                let known = context.providers.get_key_value(text);
                if known.is_none() {
                    dangling(
                        "provider",
                        text,
                        item.position,
                        context.providers.keys().map(ProviderName::as_str),
                        findings,
                    );
                }
                known
            });
            good &= known.is_some();
            providers.extend(known.map(|(name, _)| name.clone()));
        }
    }
    if section.get("regions").is_none() && section.get("providers").is_none() {
        let help = "add `regions: [\"eu-*\"]` or `providers: [bedrock]`, or remove it";
        findings.error("no-effect", section.position(), "`confine` confines to nothing in particular", help);
        return None;
    }
    let permits = |target: &Target| {
        let place = globs.is_empty()
            || match &target.residency {
                Residency::Unknown => false,
                Residency::Within(within) => {
                    within.iter().all(|region| globs.iter().any(|glob| glob.is_match(region.as_str())))
                }
            };
        place && (providers.is_empty() || providers.contains(&target.provider))
    };
    // A broken target is permitted here: its own faults are enough to say.
    let permitted = targets.iter().map(|target| target.is_none_or(permits)).collect();
    good.then_some(Confinement { regions, providers, permitted })
}

fn nonempty<'n>(node: &'n Node, what: &str, findings: &mut Findings) -> Option<&'n [Node]> {
    let items = node.list(what, MOST_CONFINED, findings)?;
    if items.is_empty() {
        let help = format!("name what is permitted, or remove `{what}`");
        findings.error("no-effect", node.position, format!("`{what}` is empty, which permits nothing"), help);
        return None;
    }
    Some(items)
}

/// A rule must not send jobs where it confines them from.
fn check_kept(
    section: &Section<'_>,
    to: Option<Destination>,
    fallback: &[(TargetIx, Position)],
    confine: &Confinement,
    targets: &Targets,
    rollouts: &Rollouts,
    findings: &mut Findings,
) {
    let place = |key: &str| section.get(key).map_or(section.position(), |node| node.position);
    let routed: Vec<(TargetIx, Position)> = match to {
        None => Vec::new(),
        Some(Destination::Target(ix)) => vec![(ix, place("to"))],
        Some(Destination::Rollout(ix)) => rollouts.arms(ix).map(|arm| (arm, place("rollout"))).collect(),
    };
    for (ix, at) in routed.iter().chain(fallback) {
        if confine.permits(*ix) {
            continue;
        }
        let Some(target) = targets.get(*ix) else { continue };
        let where_to = match &target.residency {
            _ if !confine.providers.is_empty() && !confine.providers.contains(&target.provider) => {
                format!("its provider is `{}`", target.provider)
            }
            Residency::Unknown => "nothing is known of where its data stays".to_owned(),
            Residency::Within(regions) => {
                let shown: Vec<&str> = regions.iter().take(4).map(crate::names::Region::as_str).collect();
                let more = if regions.len() > shown.len() { ", …" } else { "" };
                format!("its data may go to {}{more}", shown.join(", "))
            }
        };
        let message = format!("this rule's `confine` does not permit `{}`: {where_to}", target.name);
        let help = "name a target inside the confinement, or widen `confine`; a provider without regions needs `data_regions` in the settings";
        findings.error("outside-confinement", *at, message, help);
    }
}

/// Finds rules that no job can come to, and a last rule that lets jobs fall out of the route.
fn check_reach(section: &Section<'_>, rule: &Written, last: bool, earlier: &[Written], findings: &mut Findings) {
    let catches = |before: &&Written| match (&before.when, &rule.when) {
        (None, _) => true,
        (Some(before_when), Some(when)) => {
            before_when == when
                && !when.is_empty()
                && (before.on_missing != OnMissing::NoMatch || rule.on_missing == OnMissing::NoMatch)
        }
        (Some(_), None) => false,
    };
    if let Some(before) = earlier.iter().find(catches) {
        let why = if before.when.is_none() { "matches every job" } else { "has the same condition" };
        let message = format!("no job comes to this rule: the one in line {} {why}", before.line);
        findings.error("unreachable-rule", section.position(), message, "remove it, or move it up");
    }
    if let (true, Some(entry)) = (last, section.entry("when")) {
        let message = "the last rule has a condition, so some jobs would match no rule";
        let help = "add a last rule without `when`, such as `- to: TARGET`";
        findings.error("last-rule-has-condition", entry.key.position, message, help);
    }
}

/// An expression without the white space outside its quotes.
fn without_spaces(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut quote = None;
    for c in text.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c.is_whitespace() => continue,
            _ => {}
        }
        kept.push(c);
    }
    kept
}
