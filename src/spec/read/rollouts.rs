//! The `rollouts` of a spec.

use std::cell::Cell;

use super::{Context, course, dangling, models, route::Route, targets::Targets};
use crate::{
    diagnostic::Position,
    money::BasisPoints,
    names::{PipelineName, RolloutName},
    spec::{
        condition::KeyExpression,
        keys,
        pipeline::{Course, Destination, MissingKey, Rollout, RolloutIx},
        rollout::Identity,
        target::{Target, TargetIx},
    },
    yaml::{Entry, Findings, Node, Section},
};

/// Most rollouts of a pipeline.
const MOST_ROLLOUTS: usize = 64;
/// Longest salt.
const LONGEST_SALT: usize = 256;

const MISSING_KEYS: [(&str, MissingKey); 3] =
    [("baseline", MissingKey::Baseline), ("job_id", MissingKey::JobId), ("hold", MissingKey::Hold)];

/// All rollouts of a spec, broken ones included, by place.
pub(super) struct Rollouts {
    declared: Vec<Declared>,
    /// Whether a name was looked for in vain: what it meant may be any of these.
    missed: Cell<bool>,
}

struct Declared {
    name: String,
    position: Position,
    arms: [Option<TargetIx>; 2],
    rollout: Option<Rollout>,
}

pub(super) fn read(
    node: Option<&Node>,
    pipeline: Option<&PipelineName>,
    targets: &Targets,
    context: &Context<'_>,
    findings: &mut Findings,
) -> Rollouts {
    let mut rollouts = Rollouts { declared: Vec::new(), missed: Cell::new(false) };
    let Some(node) = node else { return rollouts };
    let Some(entries) = node.entries("rollouts", findings) else { return rollouts };
    if entries.len() > MOST_ROLLOUTS {
        let message = format!("`rollouts` has {} rollouts; at most {MOST_ROLLOUTS} are taken", entries.len());
        findings.error("too-many", node.position, message, "remove those that are done");
    }
    for entry in entries.into_iter().take(MOST_ROLLOUTS) {
        rollouts.declared.push(read_rollout(entry, pipeline, targets, context, findings));
    }
    rollouts
}

impl Rollouts {
    /// The place of the rollout that `node` names; says so when there is none.
    pub(super) fn resolve(&self, node: &Node, findings: &mut Findings) -> Option<RolloutIx> {
        let name = node.text("rollout", findings)?;
        let place = self.declared.iter().position(|declared| declared.name == name);
        if place.is_none() {
            self.missed.set(true);
            dangling("rollout", name, node.position, self.declared.iter().map(|d| d.name.as_str()), findings);
        }
        u16::try_from(place?).ok().map(RolloutIx)
    }

    /// The targets of the rollout at `ix`, as far as they are known.
    pub(super) fn arms(&self, ix: RolloutIx) -> impl Iterator<Item = TargetIx> {
        self.declared.get(usize::from(ix.0)).map(|declared| declared.arms).into_iter().flatten().flatten()
    }

    /// The two arms of each, as far as they are known.
    pub(super) fn pairs(&self) -> impl Iterator<Item = [Option<TargetIx>; 2]> {
        self.declared.iter().map(|declared| declared.arms)
    }

    /// The rollout called `name`, unless it is broken; says so when there is none.
    pub(super) fn named(&self, name: &crate::yaml::Key, findings: &mut Findings) -> Option<&Rollout> {
        let declared = self.declared.iter().find(|declared| declared.name == name.text);
        if declared.is_none() {
            dangling("rollout", &name.text, name.position, self.declared.iter().map(|d| d.name.as_str()), findings);
        }
        declared?.rollout.as_ref()
    }

    /// All of them, if none is broken.
    pub(super) fn complete(&self) -> Option<Vec<Rollout>> {
        self.declared.iter().map(|declared| declared.rollout.clone()).collect()
    }

    /// Warns of rollouts that no rule leads to.
    pub(super) fn warn_unused(&self, route: &Route, findings: &mut Findings) {
        if self.missed.get() || !route.is_usable() {
            return;
        }
        for (place, declared) in self.declared.iter().enumerate() {
            let used =
                route.destinations().any(|to| matches!(to, Destination::Rollout(ix) if usize::from(ix.0) == place));
            if !used {
                let message = format!("no rule leads to the rollout `{}`", declared.name);
                let help = format!("add `rollout: {}` to a rule, or remove it", declared.name);
                findings.warning("unused-rollout", declared.position, message, help);
            }
        }
    }
}

fn read_rollout(
    entry: &Entry,
    pipeline: Option<&PipelineName>,
    targets: &Targets,
    context: &Context<'_>,
    findings: &mut Findings,
) -> Declared {
    let mut declared =
        Declared { name: entry.key.text.clone(), position: entry.key.position, arms: [None, None], rollout: None };
    let name: Option<RolloutName> = entry.key.name("a rollout", findings);
    let Some(section) = entry.value.section(&keys::ROLLOUT, findings) else { return declared };
    let mut arm = |key: &str| section.require(key, findings).and_then(|node| targets.resolve(node, key, findings));
    let (baseline, candidate) = (arm("baseline"), arm("candidate"));
    declared.arms = [baseline, candidate];
    if let (Some(baseline), Some(candidate), Some(node)) = (baseline, candidate, section.get("candidate"))
        && baseline == candidate
    {
        let message = format!("baseline and candidate are both `{}`", targets.name(baseline));
        findings.error(
            "same-targets",
            node.position,
            message,
            "name another target; a rollout moves traffic between two",
        );
    }
    if let (Some(baseline), Some(node)) = (baseline, section.get("baseline")) {
        models::check_way_back(targets.get(baseline), node.position, "a rollback", context, findings);
    }
    let key = read_key(&section, findings);
    let salt = section.get("salt").map(|node| node.line("salt", LONGEST_SALT, findings));
    let salt = match (salt, &name, pipeline) {
        (Some(salt), ..) => salt.map(str::to_owned),
        (None, Some(name), Some(pipeline)) => Some(format!("{pipeline}/{name}")),
        (None, ..) => None,
    };
    let missing_key = section.get("missing_key").map(|node| node.choice("missing_key", &MISSING_KEYS, findings));
    let to_candidate = section.get("fallback_to_candidate").map(|node| node.boolean("fallback_to_candidate", findings));
    let identity = identity(targets, [baseline, candidate], key.as_ref(), salt.as_deref());
    let course = course::read(&section, identity, findings);
    if let (Some(Course::Percent(BasisPoints::ALL)), Some(Some(_)), Some(entry)) =
        (&course, to_candidate, section.entry("fallback_to_candidate"))
    {
        let message = "at 100 % every job goes to the candidate, so this says nothing";
        findings.warning("no-effect", entry.key.position, message, "remove it");
    }
    declared.rollout = name.and_then(|name: RolloutName| {
        Some(Rollout {
            name,
            baseline: baseline?,
            candidate: candidate?,
            course: course?,
            key: key?,
            salt: salt?,
            missing_key: missing_key.unwrap_or(Some(MissingKey::default()))?,
            fallback_to_candidate: to_candidate.unwrap_or(Some(false))?,
        })
    });
    declared
}

/// What makes it the same rollout.
fn identity(
    targets: &Targets,
    arms: [Option<TargetIx>; 2],
    key: Option<&KeyExpression>,
    salt: Option<&str>,
) -> Option<Identity> {
    let [baseline, candidate] = arms.map(|arm| targets.get(arm?).map(Target::identity));
    Some(Identity { baseline: baseline?, candidate: candidate?, key: key?.source().to_owned(), salt: salt?.to_owned() })
}

fn read_key(section: &Section<'_>, findings: &mut Findings) -> Option<KeyExpression> {
    let Some(node) = section.get("key") else { return KeyExpression::parse("job.id").ok() };
    let text = node.line("key", super::route::LONGEST_EXPRESSION, findings)?;
    KeyExpression::parse(text).map_err(|error| super::route::refuse(node, "bad-key", error, findings)).ok()
}
