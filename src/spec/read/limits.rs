//! Retry, deadline, limits, budget, priority and retention: the sections that stand alone.

use std::{sync::Arc, time::Duration};

use rust_decimal::Decimal;

use crate::{
    catalog::{Catalog, Tier},
    clock::{MAX_SPAN, format_span},
    money::Usd,
    spec::{
        Target,
        condition::KeyExpression,
        keys,
        pipeline::{AtLimit, Budget, Retention, Retry, Sharing},
    },
    yaml::{Findings, Node},
};

/// Most attempts at one target: more is a loop, not a retry.
const MOST_ATTEMPTS: i64 = 20;
/// Longest wait between two attempts.
const LONGEST_DELAY: Duration = Duration::from_hours(1);
/// Most calls in flight of one pipeline.
const MOST_CONCURRENCY: i64 = 100_000;
/// Priorities beyond this would outrun aging for days.
const HIGHEST_PRIORITY: i64 = 1_000;

pub(super) fn read_retry(node: &Node, sharing: &mut Sharing, findings: &mut Findings) -> Retry {
    let mut retry = Retry::default();
    let Some(section) = node.section(&keys::RETRY, findings) else { return retry };
    if let Some(attempts) =
        section.get("attempts").and_then(|node| node.integer("attempts", 1..=MOST_ATTEMPTS, findings))
    {
        retry.attempts = u32::try_from(attempts).unwrap_or(retry.attempts);
    }
    let mut delay =
        |key: &str| section.get(key).and_then(|node| node.span(key, Duration::ZERO..=LONGEST_DELAY, findings));
    let (initial, max) = (delay("initial_delay"), delay("max_delay"));
    if let Some(spill_after) = delay("spill_after") {
        sharing.spill_after = spill_after;
    }
    // One of the two written alone takes the other along rather than contradict a default nobody wrote.
    retry.initial_delay = initial.unwrap_or_else(|| retry.initial_delay.min(max.unwrap_or(LONGEST_DELAY)));
    retry.max_delay = max.unwrap_or_else(|| retry.max_delay.max(retry.initial_delay));
    if retry.initial_delay > retry.max_delay {
        let at = section.get("max_delay").map_or(section.position(), |node| node.position);
        let message = format!("`max_delay` is shorter than `initial_delay` ({})", format_span(retry.initial_delay));
        findings.error("out-of-range", at, message, "write a longer `max_delay`, or a shorter `initial_delay`");
    }
    retry
}

pub(super) fn read_deadline(node: &Node, findings: &mut Findings) -> Option<Duration> {
    node.span("deadline", Duration::from_secs(1)..=MAX_SPAN, findings)
}

/// What `limits` says: calls at once, and the parts of [`Sharing`] that stand there.
pub(super) fn read_limits(node: &Node, sharing: &mut Sharing, findings: &mut Findings) -> Option<u32> {
    let section = node.section(&keys::LIMITS, findings)?;
    let most = i64::from(crate::spec::pipeline::default::MOST_WEIGHT);
    if let Some(weight) = section.get("weight").and_then(|node| node.integer("weight", 1..=most, findings)) {
        sharing.weight = u32::try_from(weight).unwrap_or(1);
    }
    if let Some(node) = section.get("fair_by")
        && let Some(text) = node.line("fair_by", super::route::LONGEST_EXPRESSION, findings)
    {
        sharing.fair_by = KeyExpression::parse(text)
            .map_err(|error| super::route::refuse(node, "bad-key", error, findings))
            .ok()
            .filter(|key| {
                if key.is_job_id() {
                    let help = "write what several jobs have in common, such as `job.metadata.customer`";
                    findings.error(
                        "no-effect",
                        node.position,
                        "every job has an id of its own: nothing to share by",
                        help,
                    );
                }
                !key.is_job_id()
            });
    }
    read_concurrency(section.get("concurrency")?, findings)
}

pub(super) fn read_concurrency(node: &Node, findings: &mut Findings) -> Option<u32> {
    u32::try_from(node.integer("concurrency", 1..=MOST_CONCURRENCY, findings)?).ok()
}

const AT_LIMIT: [(&str, AtLimit); 2] = [("hold", AtLimit::Hold), ("cheapest", AtLimit::Cheapest)];

pub(super) fn read_budget(node: &Node, findings: &mut Findings) -> Option<Budget> {
    let section = node.section(&keys::BUDGET, findings)?;
    let mut amount = |key: &str| -> Option<Usd> {
        let node = section.get(key)?;
        let usd = node.decimal(key, Decimal::ZERO..=Decimal::from(1_000_000_000), findings)?;
        if usd.is_zero() {
            let help = "write an amount above zero; to stop the pipeline, use `flags: { PAUSE: true }`";
            findings.error("out-of-range", node.position, "a budget of nothing would hold every job", help);
            return None;
        }
        Some(Usd(usd))
    };
    let (usd_per_day, usd_per_month) = (amount("usd_per_day"), amount("usd_per_month"));
    let at_limit = section.get("at_limit").map(|node| node.choice("at_limit", &AT_LIMIT, findings));
    if section.get("usd_per_day").or_else(|| section.get("usd_per_month")).is_none() {
        let help = "add `usd_per_day`, `usd_per_month` or both";
        findings.error("empty-budget", section.position(), "this budget limits nothing", help);
    }
    if let (Some(day), Some(month), Some(node)) = (usd_per_day, usd_per_month, section.get("usd_per_day"))
        && day > month
    {
        let message = format!("a day's {day} US dollars are more than the month's {month}: the month is spent first");
        findings.warning("no-effect", node.position, message, "write a smaller `usd_per_day`, or leave it out");
    }
    (usd_per_day.is_some() || usd_per_month.is_some()).then_some(Budget {
        usd_per_day,
        usd_per_month,
        at_limit: at_limit.flatten().unwrap_or_default(),
    })
}

/// What only the targets can tell of a budget: whether their calls can be counted, and whether there is a choice.
pub(super) fn check_budget(
    node: &Node,
    budget: &Budget,
    targets: &[Arc<Target>],
    catalog: &Catalog,
    findings: &mut Findings,
) {
    let unpriced: Vec<&str> = targets
        .iter()
        .filter(|target| {
            catalog.cost_at_most(target.api, &target.model, (1, 1), Tier::Standard, Decimal::ONE).is_none()
        })
        .map(|target| target.name.as_str())
        .collect();
    if !unpriced.is_empty() {
        let message =
            format!("no price is known for target {}: its calls cost this budget nothing", unpriced.join(", "));
        let help = "add the model's prices to config/catalog.yaml";
        findings.warning("unpriced-budget", node.position, message, help);
    }
    if budget.at_limit == AtLimit::Cheapest && targets.len() == 1 {
        let message = "`at_limit: cheapest` has no choice between targets: the one target goes on spending";
        findings.warning("no-effect", node.position, message, "add a cheaper target, or write `at_limit: hold`");
    }
}

pub(super) fn read_priority(node: &Node, findings: &mut Findings) -> Option<i32> {
    let priority = node.integer("priority", -HIGHEST_PRIORITY..=HIGHEST_PRIORITY, findings)?;
    i32::try_from(priority).ok()
}

pub(super) fn read_retention(node: &Node, findings: &mut Findings) -> Retention {
    let silent = Retention::default();
    let Some(section) = node.section(&keys::RETENTION, findings) else { return silent };
    let mut span = |key: &str| section.get(key).and_then(|node| node.span(key, Duration::ZERO..=MAX_SPAN, findings));
    let (prompts, results) = (span("prompts"), span("results"));
    // As with delays: what is written alone draws the silent one along.
    let results = results.unwrap_or_else(|| silent.results.max(prompts.unwrap_or_default()));
    let prompts = prompts.unwrap_or_else(|| silent.prompts.min(results));
    if prompts > results {
        let at = section.get("prompts").map_or(section.position(), |node| node.position);
        let message = format!("`prompts` outlive `results` ({}), but a job goes with its result", format_span(results));
        findings.error("out-of-range", at, message, "keep results at least as long as prompts");
    }
    Retention { prompts, results }
}
