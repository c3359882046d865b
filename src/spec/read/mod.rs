//! From a spec's bytes to a valid [`Pipeline`], or to every problem the file has, in one go.
//!
//! Invariant: a pipeline comes out exactly when no problem is an error. A section that is broken still declares its
//! names, so that one fault is not reported again wherever the name is used.

mod course;
mod flags;
mod gates;
mod limits;
mod models;
mod rollouts;
mod route;
mod salvage;
mod targets;
#[cfg(test)]
mod tests;
mod trials;

use std::collections::BTreeMap;

pub use flags::read as read_flags;
pub use gates::is_score_name;
pub use salvage::{salvage_flags, salvage_name};

use super::{
    keys,
    model_definition::ModelDefinitions,
    pipeline::{Accept, AtLimit, ModelGlob, Pipeline, default},
    providers::Providers,
    target::TargetIx,
};
use crate::{
    catalog::Catalog,
    diagnostic::{Diagnostic, Position},
    names::{PipelineName, nearest},
    yaml::{self, Findings, Node, Section, in_backticks, shortened},
};

/// What a spec is checked against.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The configured providers.
    pub providers: &'a Providers,
    /// The model definitions that targets may name.
    pub models: &'a ModelDefinitions,
    /// Facts on models.
    pub catalog: &'a Catalog,
    /// Lifecycles are judged as of this day.
    pub today: jiff::civil::Date,
}

/// What became of a file.
#[derive(Debug, Clone)]
pub struct Read {
    /// The pipeline, unless anything is an error.
    pub pipeline: Option<Pipeline>,
    /// Everything that is wrong or doubtful, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

/// Most labels of a pipeline: each becomes a label of a metric.
const MOST_LABELS: usize = 20;
/// Longest value of a label.
const LONGEST_LABEL: usize = 120;
/// Longest description.
const LONGEST_DESCRIPTION: usize = 2_000;
/// Most globs under `accept`.
const MOST_GLOBS: usize = 100;
/// Longest glob.
const LONGEST_GLOB: usize = 256;

/// Reads a spec. `file` is its name as the operator would write it.
pub fn read(file: &str, text: &[u8], context: &Context<'_>) -> Read {
    let document = match yaml::parse(file, text) {
        Ok(document) => document,
        Err(problem) => return Read { pipeline: None, diagnostics: vec![*problem] },
    };
    let mut findings = Findings::new(file, &document.text);
    if document.root.is_null() {
        let problem = Diagnostic::error("empty-file", file, "the file holds no pipeline");
        findings.push(problem.help("write at least `version`, `name`, `targets` and `route`, or remove the file"));
        return Read { pipeline: None, diagnostics: findings.finish() };
    }
    let pipeline = read_pipeline(&document.root, context, &mut findings).filter(|_| !findings.has_errors());
    Read { pipeline, diagnostics: findings.finish() }
}

fn read_pipeline(root: &Node, context: &Context<'_>, findings: &mut Findings) -> Option<Pipeline> {
    let section = root.section(&keys::PIPELINE, findings)?;
    read_version(&section, findings);
    let name: Option<PipelineName> = section.require("name", findings).and_then(|node| node.name("name", findings));
    let description = section
        .get("description")
        .and_then(|node| node.line("description", LONGEST_DESCRIPTION, findings))
        .map(str::to_owned);
    let labels = section.get("labels").map(|node| read_labels(node, findings)).unwrap_or_default();
    let accept = section.get("accept").map(|node| read_accept(node, findings)).unwrap_or_default();

    let targets = targets::read(&section, context, findings);
    let rollouts = rollouts::read(section.get("rollouts"), name.as_ref(), &targets, context, findings);
    let route = route::read(&section, &targets, &rollouts, context, findings);
    let fallback: Vec<TargetIx> = section
        .get("fallback")
        .map(|node| route::read_fallback(node, &targets, context, findings).into_iter().map(|(ix, _)| ix).collect())
        .unwrap_or_default();

    let mut sharing = targets.sharing(&rollouts, findings);
    let retry = section.get("retry").map(|node| limits::read_retry(node, &mut sharing, findings)).unwrap_or_default();
    let deadline = section.get("deadline").and_then(|node| limits::read_deadline(node, findings));
    let concurrency = section.get("limits").and_then(|node| limits::read_limits(node, &mut sharing, findings));
    let budget = section.get("budget").and_then(|node| limits::read_budget(node, findings));
    let priority = section.get("priority").and_then(|node| limits::read_priority(node, findings));
    let retention = section.get("retention").map(|node| limits::read_retention(node, findings)).unwrap_or_default();
    let flags = section.get("flags").map(|node| flags::read(node, context.providers, findings)).unwrap_or_default();
    if let Some(node) = section.get("flags") {
        flags::check_forced(node, &flags, &targets, context.providers, findings);
    }
    rollouts.warn_unused(&route, findings);
    // At the end of a budget, any target may be the cheapest.
    let all_used = budget.is_some_and(|budget| budget.at_limit == AtLimit::Cheapest);
    if route.is_usable() && !all_used {
        targets.warn_unused(findings);
    }
    let tests = section
        .get("tests")
        .map(|node| trials::read(node, &targets, &route, &rollouts, context.providers, findings))
        .unwrap_or_default();

    let complete = targets.complete();
    if let (Some(node), Some(budget), Some(targets)) = (section.get("budget"), &budget, &complete) {
        limits::check_budget(node, budget, targets, context.catalog, findings);
    }
    Some(Pipeline {
        name: name?,
        description,
        labels,
        accept,
        targets: complete?,
        route: route.complete()?,
        rollouts: rollouts.complete()?,
        fallback,
        retry,
        deadline: deadline.unwrap_or(default::DEADLINE),
        concurrency: concurrency.unwrap_or(default::CONCURRENCY),
        sharing,
        budget,
        priority: priority.unwrap_or(0),
        flags,
        retention,
        tests,
    })
}

fn read_version(section: &Section<'_>, findings: &mut Findings) {
    let Some(node) = section.require("version", findings) else { return };
    let written = match &node.value {
        yaml::Value::Number(number) => shortened(&number.text),
        _ => node.kind().to_owned(),
    };
    if written != "1" {
        let message = format!("`version` is {written}; this release reads version 1");
        findings.error("unknown-version", node.position, message, "write `version: 1`");
    }
}

fn read_labels(node: &Node, findings: &mut Findings) -> BTreeMap<String, String> {
    let Some(entries) = node.entries("labels", findings) else { return BTreeMap::new() };
    if entries.len() > MOST_LABELS {
        let message = format!("`labels` has {} labels; at most {MOST_LABELS} are taken", entries.len());
        findings.error("too-many", node.position, message, "keep those that reports and costs are split by");
    }
    let mut labels = BTreeMap::new();
    for entry in entries {
        let key = &entry.key;
        let is_label = key.text.len() <= 63
            && key.text.starts_with(|c: char| c.is_ascii_lowercase())
            && key.text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if !is_label {
            let message = format!("a label cannot be named \"{}\"", shortened(&key.text));
            findings.error("bad-name", key.position, message, "use a-z, 0-9 and '_', starting with a letter");
        }
        if let Some(value) = entry.value.line(&key.text, LONGEST_LABEL, findings) {
            labels.insert(key.text.clone(), value.to_owned());
        }
    }
    labels
}

fn read_accept(node: &Node, findings: &mut Findings) -> Accept {
    let mut accept = Accept::default();
    let Some(section) = node.section(&keys::ACCEPT, findings) else { return accept };
    let Some(models) = section.require("models", findings) else { return accept };
    for item in models.list("models", MOST_GLOBS, findings).unwrap_or_default() {
        let Some(text) = item.line("models", LONGEST_GLOB, findings) else { continue };
        if accept.models.iter().any(|glob| glob.text == text) {
            let message = format!("`{}` stands here twice", shortened(text));
            findings.error("duplicate-value", item.position, message, "remove one of the two");
            continue;
        }
        if let Some(matcher) = read_glob(item, text, findings) {
            accept.models.push(ModelGlob { text: text.to_owned(), matcher });
        }
    }
    accept
}

pub(super) fn read_glob(node: &Node, text: &str, findings: &mut Findings) -> Option<globset::GlobMatcher> {
    match globset::Glob::new(text) {
        Ok(glob) => Some(glob.compile_matcher()),
        Err(error) => {
            let message = format!("`{}` is not a glob: {}", shortened(text), error.kind());
            let help = "use `*` for any text, `?` for one character and `{a,b}` for either";
            findings.error("bad-glob", node.position, message, help);
            None
        }
    }
}

/// Says that `given` names nothing.
fn dangling<'a>(
    kind: &str,
    given: &str,
    at: Position,
    known: impl Iterator<Item = &'a str> + Clone,
    findings: &mut Findings,
) {
    let help = match nearest(given, known.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.clone().next().is_none() => format!("there is no {kind} here at all: declare it first"),
        None => format!("there is {}", in_backticks(known)),
    };
    findings.error(
        &format!("unknown-{kind}").replace(' ', "-"),
        at,
        format!("there is no {kind} `{}`", shortened(given)),
        help,
    );
}
