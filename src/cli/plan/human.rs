//! A plan for people.
//!
//! Invariant: what is not known is a dash.

use std::fmt::Write as _;

use serde_json::Value;

use crate::cli::{
    print::{Table, count, counted, field, grouped, items, printable, printable_lines},
    report::sheet::{dollars, milliseconds, percent},
};

/// The plan.
pub fn text(plan: &Value) -> String {
    let mut text = String::new();
    for problem in problems(plan) {
        let _ = writeln!(text, "{problem}\n");
    }
    let _ = writeln!(text, "{}", headline(plan));
    for change in items(plan, "/changes") {
        let _ = writeln!(text, "  {}", printable(&field(change, "")));
    }
    for line in items(plan, "/pipelines") {
        let _ = write!(text, "\n{}", pipeline(line));
    }
    let quotas = items(plan, "/quotas");
    if !quotas.is_empty() {
        let mut table = Table::new(&["QUOTA", "JOBS", "REQUESTS/MIN", "OF", "TOKENS/MIN", "OF", "USED"]);
        for quota in quotas {
            table.row(quota_row(quota));
        }
        let _ = write!(text, "\nquotas in the busiest hour:\n{table}");
    }
    text.push('\n');
    for note in items(plan, "/notes") {
        let _ = writeln!(text, "{}", printable(&field(note, "")));
    }
    text
}

/// Problems of files, as `check` prints them.
pub fn problems(plan: &Value) -> Vec<String> {
    items(plan, "/files")
        .iter()
        .flat_map(|file| items(file, "/diagnostics"))
        .map(|found| match serde_json::from_value::<crate::diagnostic::Diagnostic>(found.clone()) {
            Ok(found) => printable_lines(&found.to_string()),
            Err(_) => printable(&field(found, "/message")),
        })
        .collect()
}

/// What it comes to, in a sentence.
pub fn headline(plan: &Value) -> String {
    let (looked, moved) = (count(plan, "/jobs/count"), count(plan, "/jobs/moved"));
    let span = match (field(plan, "/jobs/from"), field(plan, "/jobs/to")) {
        (from, to) if !from.is_empty() => format!(" accepted from {from} to {to}"),
        _ => String::new(),
    };
    let what = if plan.get("changed") == Some(&Value::Bool(true)) { "would change" } else { "nothing changes" };
    format!(
        "{what} against generation {}: {} of {}{span} move",
        count(plan, "/generation"),
        grouped(moved),
        counted(looked, "job")
    )
}

fn pipeline(line: &Value) -> String {
    let (jobs, moved) = (count(line, "/jobs"), count(line, "/moved"));
    let mut text = format!(
        "{} ({}): {} of {} move",
        printable(&field(line, "/pipeline")),
        field(line, "/change"),
        grouped(moved),
        counted(jobs, "job")
    );
    if moved > 0 {
        let _ = write!(text, ", cost {}", signed(line.get("cost_change_usd")));
    }
    text.push('\n');
    let moves = items(line, "/moves");
    if !moves.is_empty() {
        let mut table =
            Table::new(&["  FROM", "TO", "RULE", "JOBS", "COST AN ANSWER", "P50", "P95", "COST CHANGE", "BY"]);
        for way in moves {
            let mut row = move_row(way);
            if let Some(first) = row.first_mut() {
                first.insert_str(0, "  ");
            }
            table.row(row);
        }
        text.push_str(&table.to_string());
    }
    for told in told(line) {
        let _ = writeln!(text, "  {}", printable(&told));
    }
    text
}

/// A move's cells.
pub fn move_row(way: &Value) -> Vec<String> {
    let pair = |before: String, after: String| if before == after { before } else { format!("{before} → {after}") };
    let ms = |pointer: &str| milliseconds(way.get(pointer));
    let basis = match field(way, "/basis").as_str() {
        "ledger" => "ledger",
        "list_price" => "list price",
        _ => "–",
    };
    let (rule, rule_before) = (field(way, "/rule"), field(way, "/rule_before"));
    vec![
        field(way, "/from"),
        field(way, "/to"),
        if rule == rule_before || rule_before.is_empty() { rule } else { format!("{rule_before} → {rule}") },
        grouped(count(way, "/jobs")),
        pair(dollars(way.get("cost_before_usd")), dollars(way.get("cost_after_usd"))),
        pair(ms("p50_before_ms"), ms("p50_after_ms")),
        pair(ms("p95_before_ms"), ms("p95_after_ms")),
        signed(way.get("cost_change_usd")),
        basis.to_owned(),
    ]
}

/// An amount that says whether it is more or less.
pub fn signed(amount: Option<&Value>) -> String {
    match dollars(amount) {
        text if text.starts_with('$') && !text.trim_matches(['$', '0', '.', ',']).is_empty() => format!("+{text}"),
        text => text,
    }
}

/// What else there is to say of a pipeline.
pub fn told(line: &Value) -> Vec<String> {
    let mut told = Vec::new();
    for rollout in items(line, "/rollouts") {
        let name = field(rollout, "/rollout");
        let (before, after) = (field(rollout, "/percent_before"), field(rollout, "/percent_after"));
        let share = if before.is_empty() {
            format!("new at {after}")
        } else if before == after {
            format!("stays at {after}")
        } else {
            format!("{before} → {after}")
        };
        let least = if rollout.get("keys_at_least") == Some(&Value::Bool(true)) { "at least " } else { "" };
        let mut words = format!(
            "rollout {name}: {share}; of {least}{} distinct keys {} change to the candidate, {} back to the baseline",
            grouped(count(rollout, "/keys")),
            grouped(count(rollout, "/keys_to_candidate")),
            grouped(count(rollout, "/keys_to_baseline"))
        );
        let without = count(rollout, "/jobs_without_key");
        if without > 0 {
            let _ = write!(words, "; {} have no key", counted(without, "job"));
        }
        told.push(words);
        told.extend(items(rollout, "/warnings").iter().map(|warning| format!("warning: {}", field(warning, ""))));
    }
    for doubt in items(line, "/doubts") {
        let what = match (field(doubt, "/what").as_str(), field(doubt, "/parameter")) {
            ("too_long", _) => "too long for the model".to_owned(),
            ("refused", parameter) if parameter.is_empty() => "cannot be carried".to_owned(),
            ("refused", parameter) => format!("cannot be carried because of `{parameter}`"),
            (action, parameter) => format!("`{parameter}` {action}"),
        };
        told.push(format!(
            "warning: at {}, {what}: {} of {} requests looked at",
            field(doubt, "/target"),
            grouped(count(doubt, "/requests")),
            grouped(count(doubt, "/looked_at"))
        ));
    }
    for (pointer, what) in [
        ("/fallback_changes", "would fall back elsewhere than now"),
        ("/cannot_tell", "cannot be told: their prompt is gone"),
    ] {
        let jobs = count(line, pointer);
        if jobs > 0 {
            told.push(format!("{} {what}", counted(jobs, "job")));
        }
    }
    told
}

/// A quota's cells.
pub fn quota_row(quota: &Value) -> Vec<String> {
    let rate = |pointer: &str| {
        quota
            .get(pointer)
            .and_then(Value::as_f64)
            .map_or_else(|| "–".to_owned(), |rate| if rate < 10.0 { format!("{rate:.1}") } else { grouped_float(rate) })
    };
    let (before, after) = (percent(quota.get("used_before")), percent(quota.get("used")));
    let over = quota.get("used").and_then(Value::as_f64).is_some_and(|used| used > 1.0);
    let mut used = if before == after { after } else { format!("{before} → {after}") };
    if over {
        used.push_str(" (jobs would wait)");
    }
    vec![
        field(quota, "/quota"),
        format!("{} → {}", grouped(count(quota, "/jobs_before")), grouped(count(quota, "/jobs_after"))),
        rate("requests_per_minute"),
        rate("granted_requests"),
        rate("tokens_per_minute"),
        rate("granted_tokens"),
        used,
    ]
}

fn grouped_float(value: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate, rounded for reading")]
    let whole = value.round().max(0.0) as u64;
    grouped(whole)
}
