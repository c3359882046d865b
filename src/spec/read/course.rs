//! How a rollout's share goes: a percentage, or steps with what they ask for.
//!
//! Invariant: one of the two, never both; a step that no rollout could ever leave is refused here, where it can be shown.

use std::{sync::Arc, time::Duration};

use super::gates;
use crate::{
    clock::MAX_SPAN,
    diagnostic::Position,
    money::BasisPoints,
    spec::{
        keys,
        pipeline::{Course, Gated},
        rollout::{
            BreakerRule, GateSpec, Identity, MOST_STEPS, OnNoData, OnUndecided, Patience, Plan, Require, Step, Windows,
            Written,
        },
    },
    yaml::{Findings, Node, Section, in_backticks},
};

/// The keys that only steps give a meaning.
const OF_STEPS: [&str; 8] =
    ["alpha", "require", "gates", "outcome_within", "undecided", "no_data", "breaker", "windows"];
/// When a job that has not ended counts as failed, where the spec is silent.
const OUTCOME_WITHIN: Duration = Duration::from_mins(10);
/// The chance of a wrong verdict, where the spec is silent.
const ALPHA: f64 = 0.05;
/// Most jobs or pairs that a step can ask for.
const MOST_JOBS: i64 = 1_000_000_000;

const REQUIRES: [(&str, Require); 2] = [("pass", Require::Pass), ("not_fail", Require::NotFail)];

pub(super) fn read(section: &Section<'_>, identity: Option<Identity>, findings: &mut Findings) -> Option<Course> {
    let of_steps: Vec<&str> = OF_STEPS.into_iter().filter(|key| section.entry(key).is_some()).collect();
    let (percent, steps) = (section.entry("percent"), section.entry("steps"));
    match (percent, steps) {
        (Some(percent), Some(_)) => {
            let message = "a rollout has `percent` or `steps`, not both";
            let help = "remove `percent`: with steps, the share moves by evidence";
            findings.error("conflicting-keys", percent.key.position, message, help);
            None
        }
        (Some(percent), None) => {
            if let Some(entry) = of_steps.first().and_then(|key| section.entry(key)) {
                let message = format!("{} mean nothing without `steps`", in_backticks(of_steps.iter().copied()));
                let help = "write `steps: [{ percent: 1 }, { percent: 100 }]` instead of `percent`, or remove them";
                findings.error("no-effect", entry.key.position, message, help);
                return None;
            }
            percent.value.percent("percent", findings).map(Course::Percent)
        }
        (None, None) => {
            let help = "add `percent: 0` and raise it by editing the file, or `steps: […]` that go by evidence";
            findings.error("missing-key", section.position(), "a rollout needs `percent` or `steps`", help);
            None
        }
        (None, Some(steps)) => read_gated(section, &steps.value, identity, findings),
    }
}

fn read_gated(
    section: &Section<'_>,
    steps: &Node,
    identity: Option<Identity>,
    findings: &mut Findings,
) -> Option<Course> {
    let alpha = match section.get("alpha") {
        Some(node) => read_alpha(node, findings),
        None => Some(ALPHA),
    };
    let require = match section.get("require") {
        Some(node) => node.choice("require", &REQUIRES, findings),
        None => Some(Require::default()),
    };
    let gates = match section.get("gates") {
        Some(node) => gates::read(node, findings),
        None => Some(Vec::new()),
    };
    let outcome_within = match section.get("outcome_within") {
        Some(node) => node.span("outcome_within", Duration::from_millis(100)..=Duration::from_hours(7 * 24), findings),
        None => Some(OUTCOME_WITHIN),
    };
    let undecided = optional(section.get("undecided"), |node| {
        let acts =
            [("hold", OnUndecided::Hold), ("rollback", OnUndecided::Rollback), ("advance", OnUndecided::Advance)];
        read_patience(node, "undecided", &acts, findings)
    });
    let no_data = optional(section.get("no_data"), |node| {
        read_patience(node, "no_data", &[("hold", OnNoData::Hold), ("rollback", OnNoData::Rollback)], findings)
    });
    let breaker = optional(section.get("breaker"), |node| read_breaker(node, findings));
    let windows = optional(section.get("windows"), |node| read_windows(node, findings));
    let steps = read_steps(steps, require, gates.as_deref(), findings);
    let position = |key: &str| section.entry(key).map_or(section.position(), |entry| entry.key.position);
    let gated = Gated {
        fixed_at: [position("key"), position("salt")],
        plan: Plan {
            identity: identity?,
            steps: steps?,
            alpha: alpha?,
            gates: gates?,
            outcome_within: outcome_within?,
            undecided: undecided?,
            no_data: no_data?,
            breaker: breaker?,
            windows: windows?,
        },
    };
    // What was read piece by piece is whole; this is the rule book's last word.
    let faults = gated.plan.check();
    for fault in &faults {
        let help = "see docs/rollouts.md for what each key may say";
        findings.error("bad-rollout", section.position(), fault.to_string(), help);
    }
    faults.is_empty().then(|| Course::Steps(Arc::new(gated)))
}

/// `None` when it is there but broken.
#[expect(clippy::option_option, reason = "outside: is it broken; inside: is it there")]
fn optional<T>(node: Option<&Node>, read: impl FnOnce(&Node) -> Option<T>) -> Option<Option<T>> {
    match node {
        None => Some(None),
        Some(node) => read(node).map(Some),
    }
}

fn read_alpha(node: &Node, findings: &mut Findings) -> Option<f64> {
    let alpha = gates::number(node, "alpha", findings)?;
    if alpha > 0.0 && alpha <= 0.5 {
        return Some(alpha);
    }
    let message = format!("`alpha` is {alpha}, not above 0 and at most 0.5");
    findings.error("out-of-range", node.position, message, "write the chance of a wrong verdict, such as 0.05");
    None
}

fn read_patience<Act: Copy>(
    node: &Node,
    what: &str,
    acts: &[(&str, Act)],
    findings: &mut Findings,
) -> Option<Patience<Act>> {
    let section = node.section(&keys::PATIENCE, findings)?;
    let after = section.require("after", findings);
    let after = after.and_then(|node| {
        node.span(&format!("{what}.after"), Duration::from_millis(100)..=Duration::from_hours(365 * 24), findings)
    });
    let act = section.require("do", findings).and_then(|node| node.choice("do", acts, findings));
    Some(Patience { after: after?, act: act? })
}

fn read_breaker(node: &Node, findings: &mut Findings) -> Option<BreakerRule> {
    let section = node.section(&keys::BREAKER, findings)?;
    let most = i64::from(BreakerRule::MOST);
    let last = section.require("last", findings).and_then(|node| node.integer("last", 1..=most, findings));
    let failures = section.require("failures", findings).and_then(|node| {
        let failures = node.integer("failures", 1..=most, findings)?;
        if last.is_some_and(|last| failures > last) {
            let message = format!("{failures} of {} jobs can never fail", last.unwrap_or(0));
            findings.error("out-of-range", node.position, message, "write at most as many `failures` as `last`");
            return None;
        }
        Some(failures)
    });
    Some(BreakerRule { last: u32::try_from(last?).ok()?, failures: u32::try_from(failures?).ok()? })
}

fn read_windows(node: &Node, findings: &mut Findings) -> Option<Windows> {
    let section = node.section(&keys::WINDOWS, findings)?;
    let zone = section.require("tz", findings).and_then(|node| {
        let name = node.line("tz", 100, findings)?;
        check_window(name, "Mon", node.position, findings).then_some(name)
    });
    let advance = section.require("advance", findings)?;
    let items = advance.list("advance", 64, findings)?;
    if items.is_empty() {
        let message = "without a window it would never advance";
        findings.error(
            "no-effect",
            advance.position,
            message,
            "write `[\"Mon-Thu 09:00-16:00\"]`, or remove `windows`",
        );
        return None;
    }
    let ranges: Vec<Option<String>> = items
        .iter()
        .map(|item| {
            let range = item.line("advance", 100, findings)?;
            check_window("UTC", range, item.position, findings).then(|| range.to_owned())
        })
        .collect();
    let written = Written { tz: zone?.to_owned(), advance: ranges.into_iter().collect::<Option<_>>()? };
    Windows::try_from(written).ok()
}

/// Whether a zone and a range are understood; says so if not.
fn check_window(zone: &str, range: &str, at: Position, findings: &mut Findings) -> bool {
    let written = Written { tz: zone.to_owned(), advance: vec![range.to_owned()] };
    match Windows::try_from(written) {
        Ok(_) => true,
        Err(error) => {
            let text = error.to_string();
            let (what, help) = text.split_once(": ").unwrap_or((&text, "see docs/rollouts.md"));
            findings.error("bad-window", at, what, help);
            false
        }
    }
}

fn read_steps(
    node: &Node,
    require: Option<Require>,
    gates: Option<&[GateSpec]>,
    findings: &mut Findings,
) -> Option<Vec<Step>> {
    let items = node.list("steps", MOST_STEPS, findings)?;
    if items.is_empty() {
        let help = "write at least one, such as `steps: [{ percent: 1 }, { percent: 100 }]`";
        findings.error("no-effect", node.position, "a rollout without steps goes nowhere", help);
        return None;
    }
    let mut before: Option<BasisPoints> = None;
    let mut steps = Vec::with_capacity(items.len());
    for item in items {
        let step = read_step(item, require, findings);
        if let Some(step) = &step {
            if let Some(before) = before.filter(|before| step.percent <= *before) {
                let message = format!("this step is at {}, not above the one before it at {before}", step.percent);
                findings.error("out-of-range", item.position, message, "let each step raise the percentage");
            }
            before = Some(step.percent);
            check_way_out(step, gates, item.position, findings);
        }
        steps.push(step);
    }
    steps.into_iter().collect()
}

fn read_step(node: &Node, require: Option<Require>, findings: &mut Findings) -> Option<Step> {
    let section = node.section(&keys::STEP, findings)?;
    let percent = section.require("percent", findings).and_then(|node| node.percent("percent", findings));
    let min_duration = section
        .get("min_duration")
        .map_or(Some(Duration::ZERO), |node| node.span("min_duration", Duration::ZERO..=MAX_SPAN, findings));
    let mut least = |key: &str| match section.get(key) {
        Some(node) => node.integer(key, 0..=MOST_JOBS, findings).and_then(|least| u64::try_from(least).ok()),
        None => Some(0),
    };
    let (min_jobs, min_pairs) = (least("min_jobs"), least("min_pairs"));
    let require = match section.get("require") {
        Some(node) => node.choice("require", &REQUIRES, findings),
        None => require,
    };
    let approval = section.get("approval").map_or(Some(false), |node| node.boolean("approval", findings));
    Some(Step {
        percent: percent?,
        min_duration: min_duration?,
        min_jobs: min_jobs?,
        min_pairs: min_pairs?,
        require: require?,
        approval: approval?,
    })
}

/// Steps that could never be left, and steps that nothing keeps a rollout at.
fn check_way_out(step: &Step, gates: Option<&[GateSpec]>, at: Position, findings: &mut Findings) {
    let (nobody, everybody) = (step.percent == BasisPoints::NONE, step.percent == BasisPoints::ALL);
    if nobody && step.min_jobs > 0 {
        let message = "at 0 % the candidate gets no jobs, so this step could never be left";
        findings.error("never-left", at, message, "remove `min_jobs`");
    }
    if step.min_pairs > 0 {
        let message = "pairs come from the shadow, and this rollout has none, so this step could never be left";
        findings.error("never-left", at, message, "remove `min_pairs`");
    }
    let Some(gates) = gates else { return };
    let asked = !gates.is_empty() && !nobody && !everybody && step.require == Require::Pass;
    let waits = asked || step.approval || step.min_jobs > 0 || step.min_pairs > 0 || !step.min_duration.is_zero();
    if !waits && !everybody {
        let message = "nothing keeps the rollout at this step: it goes on at once";
        let help = "add `min_duration`, `min_jobs` or `approval: true`, or remove the step";
        findings.warning("no-effect", at, message, help);
    }
}
