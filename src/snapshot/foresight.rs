//! What becomes of the parameters that targets set themselves, on the way to their models: asked of the translation
//! itself, before any job.
//!
//! Invariant: what would refuse every job is an error; what would be noted on every job is a warning. Nothing is known
//! here of parameters or models.

use serde_json::{Value, json};

use super::place;
use crate::{
    catalog::Catalog,
    diagnostic::{Diagnostic, Position},
    job::{FidelityAction, FidelityNote},
    spec::{Fidelity, Pipeline, Target},
    wire::prepare,
};

/// Says what is doubtful about the own parameters of each target. `bytes` are the file's.
pub fn foresee(file: &str, bytes: &[u8], pipeline: &Pipeline, catalog: &Catalog) -> Vec<Diagnostic> {
    pipeline.targets.iter().flat_map(|target| foresee_target(file, bytes, target, catalog)).collect()
}

fn foresee_target(file: &str, bytes: &[u8], target: &Target, catalog: &Catalog) -> Vec<Diagnostic> {
    let own = || target.defaults.keys().chain(target.overrides.keys());
    if own().next().is_none() {
        return Vec::new();
    }
    let refused = refused(target, catalog);
    let mut found = Vec::new();
    for (name, message) in &refused {
        let others = refused.iter().map(|(other, _)| other.as_str()).filter(|other| other != name);
        let noted = by_a_loose_target(&without(target, others), name, catalog);
        let plain = message.strip_prefix(name.as_str()).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(message);
        let problem = format!(
            "`{name}` cannot be carried to `{}`: {}",
            target.model,
            noted.as_ref().map_or(plain, |note| note.detail.as_str())
        );
        let help = match (target.fidelity, noted) {
            (Fidelity::Strict, _) => format!("remove `{name}`; with `fidelity: strict` every job would be refused"),
            (_, Some(_)) => format!("remove `{name}`, or set `fidelity: loose` to call without it"),
            (_, None) => format!("correct or remove `{name}`; every job would be refused"),
        };
        found.push(placed(Diagnostic::error("refused-parameter", file, problem).help(help), bytes, target, name));
    }
    let kept = without(target, refused.iter().map(|(name, _)| name.as_str()));
    for note in
        prepare(&kept, model(&kept, catalog), &probe(&kept)).map(|prepared| prepared.fidelity).unwrap_or_default()
    {
        let name = root(&note.parameter);
        if !own().any(|known| known == name) {
            continue;
        }
        let (problem, help) = match note.action {
            FidelityAction::Dropped => (
                format!("`{}` does not reach `{}`: {}", note.parameter, target.model, note.detail),
                format!("remove `{name}`; calls go out without it, and each job says so"),
            ),
            FidelityAction::Approximated | FidelityAction::Emulated => (
                format!("`{}` reaches `{}` {}: {}", note.parameter, target.model, note.action, note.detail),
                "change it to what the model takes, or leave it: each job says so".to_owned(),
            ),
        };
        found.push(placed(Diagnostic::warning("inexact-parameter", file, problem).help(help), bytes, target, name));
    }
    found
}

fn model<'c>(target: &Target, catalog: &'c Catalog) -> Option<&'c crate::catalog::Model> {
    catalog.find(target.api, &target.model)
}

/// The parameters that would refuse every job, each with why.
fn refused(target: &Target, catalog: &Catalog) -> Vec<(String, String)> {
    let mut refused: Vec<(String, String)> = Vec::new();
    // Each round finds one, and there are no more than the target sets.
    for _ in 0..=target.defaults.len() + target.overrides.len() {
        let rest = without(target, refused.iter().map(|(name, _)| name.as_str()));
        let Err(refusal) = prepare(&rest, model(&rest, catalog), &probe(&rest)) else { break };
        let name = refusal.param.as_deref().map(root).unwrap_or_default();
        let Some(name) = rest.defaults.keys().chain(rest.overrides.keys()).find(|known| *known == name) else { break };
        refused.push((name.clone(), refusal.message));
    }
    refused
}

/// What a target that takes everything would say of a parameter; nothing of one that makes no sense.
fn by_a_loose_target(target: &Target, name: &str, catalog: &Catalog) -> Option<FidelityNote> {
    let loose = Target { fidelity: Fidelity::Loose, ..target.clone() };
    let notes = prepare(&loose, model(&loose, catalog), &probe(&loose)).ok()?.fidelity;
    notes.into_iter().find(|note| root(&note.parameter) == name)
}

fn without<'n>(target: &Target, names: impl Iterator<Item = &'n str>) -> Target {
    let mut rest = target.clone();
    for name in names {
        rest.defaults.shift_remove(name);
        rest.overrides.shift_remove(name);
    }
    rest
}

/// The name that a note or a refusal is about, without what is inside of it.
fn root(parameter: &str) -> &str {
    parameter.split(['.', '[']).next().unwrap_or_default()
}

/// A plain job. Where a target says how tools are chosen and names none, jobs bring them.
fn probe(target: &Target) -> Value {
    let said = |name: &str| target.overrides.get(name).or_else(|| target.defaults.get(name));
    let mut body = json!({ "messages": [{ "role": "user", "content": "Answer in JSON." }] });
    if said("tools").is_none() && (said("tool_choice").is_some() || said("parallel_tool_calls").is_some()) {
        let named = said("tool_choice").and_then(|choice| choice.pointer("/function/name"));
        let name = named.cloned().unwrap_or_else(|| "tool".into());
        body["tools"] = json!([{ "type": "function", "function": { "name": name } }]);
    }
    body
}

/// The same, where the parameter stands; where it is set by a model definition, where that is named.
fn placed(problem: Diagnostic, bytes: &[u8], target: &Target, name: &str) -> Diagnostic {
    let place: Option<(Position, String)> = ["override", "defaults"]
        .into_iter()
        .find_map(|set| place::of_key(&problem.file, bytes, &["targets", target.name.as_str(), set], name))
        .or_else(|| place::of_value(&problem.file, bytes, &["targets", target.name.as_str(), "use"]));
    match place {
        Some((position, text)) => problem.at(position, &text),
        None => problem,
    }
}
