//! The demo's closing table: what each target did, how fast, for how much.

use std::{collections::BTreeMap, fmt};

use serde_json::Value;

use crate::money::Usd;

/// What each target of each pipeline did.
pub struct Report {
    rows: BTreeMap<(String, String), Row>,
    ended: usize,
}

#[derive(Default)]
struct Row {
    jobs: u64,
    calls: u64,
    failed_calls: u64,
    millis: Vec<i64>,
    tokens: u64,
    cost: Usd,
}

/// Adds up whole jobs.
pub fn of(jobs: &[Value]) -> Report {
    let mut report = Report { rows: BTreeMap::new(), ended: 0 };
    for job in jobs {
        report.ended += usize::from(job["finished_at"].is_string());
        let pipeline = job["pipeline"].as_str().unwrap_or_default();
        for attempt in job["attempts"].as_array().into_iter().flatten() {
            let target = attempt["target"].as_str().unwrap_or_default();
            let row = report.rows.entry((pipeline.to_owned(), target.to_owned())).or_default();
            row.calls += 1;
            if attempt["outcome"] == "succeeded" {
                row.jobs += 1;
                row.millis.extend(took(attempt));
            } else {
                row.failed_calls += 1;
            }
            for part in ["input", "output", "cache_read", "cache_write"] {
                row.tokens += attempt["usage"][part].as_u64().unwrap_or(0);
            }
            row.cost += attempt["cost_usd"].as_str().and_then(|cost| cost.parse().ok()).unwrap_or_default();
        }
    }
    report
}

/// Milliseconds from an attempt's start to its end.
fn took(attempt: &Value) -> Option<i64> {
    let time = |key: &str| attempt[key].as_str()?.parse::<crate::clock::Timestamp>().ok();
    Some((time("ended_at")?.as_micros() - time("started_at")?.as_micros()) / 1_000)
}

impl Report {
    /// Jobs that have ended.
    pub fn ended(&self) -> usize {
        self.ended
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "   {:<18} {:<12} {:>6} {:>6} {:>7} {:>8} {:>8} {:>9} {:>12}",
            "pipeline", "target", "jobs", "calls", "failed", "p50 ms", "p95 ms", "tokens", "cost USD"
        )?;
        let mut total = Usd::ZERO;
        for ((pipeline, target), row) in &self.rows {
            let mut millis = row.millis.clone();
            millis.sort_unstable();
            let rank =
                |percent: usize| millis.get(millis.len().saturating_sub(1) * percent / 100).copied().unwrap_or(0);
            writeln!(
                f,
                "   {pipeline:<18} {target:<12} {:>6} {:>6} {:>7} {:>8} {:>8} {:>9} {:>12}",
                row.jobs,
                row.calls,
                row.failed_calls,
                rank(50),
                rank(95),
                row.tokens,
                row.cost.to_string(),
            )?;
            total += row.cost;
        }
        writeln!(f, "   total cost at list prices: {total} USD (simulated usage)")
    }
}
