//! A plan as a comment on a pull request.
//!
//! Invariant: no name from specs breaks out of its cell.

use std::fmt::Write as _;

use serde_json::Value;

use super::human::{headline, move_row, problems, quota_row, signed, told};
use crate::cli::{
    print::{count, field, grouped, items},
    report::markdown::{cell, table},
};

/// The comment.
pub fn comment(plan: &Value) -> String {
    let mut text = format!("### landbridge plan\n\n**{}**\n", cell(&headline(plan)));
    let problems = problems(plan);
    if !problems.is_empty() {
        // A fence longer than any in the text cannot be closed by it.
        let fence = "`".repeat(8);
        let _ = writeln!(text, "\n{fence}text\n{}\n{fence}", problems.join("\n\n").replace(&fence, ""));
    }
    if !items(plan, "/changes").is_empty() {
        text.push('\n');
    }
    for change in items(plan, "/changes") {
        let _ = writeln!(text, "- {}", cell(&field(change, "")));
    }
    for line in items(plan, "/pipelines") {
        let _ = write!(
            text,
            "\n#### {} ({}): {} of {} jobs move, cost {}\n\n",
            cell(&field(line, "/pipeline")),
            cell(&field(line, "/change")),
            grouped(count(line, "/moved")),
            grouped(count(line, "/jobs")),
            cell(&signed(line.get("cost_change_usd")))
        );
        let rows: Vec<Vec<String>> = items(line, "/moves").iter().map(move_row).collect();
        if !rows.is_empty() {
            let header = ["from", "to", "rule", "jobs", "cost an answer", "p50", "p95", "cost change", "by"];
            text.push_str(&table(&header, &rows));
            text.push('\n');
        }
        for told in told(line) {
            let _ = writeln!(text, "- {}", cell(&told));
        }
    }
    let rows: Vec<Vec<String>> = items(plan, "/quotas").iter().map(quota_row).collect();
    if !rows.is_empty() {
        let header = ["quota, busiest hour", "jobs", "requests/min", "of", "tokens/min", "of", "used"];
        let _ = write!(text, "\n{}", table(&header, &rows));
    }
    text.push_str("\n<sub>");
    let notes: Vec<String> = items(plan, "/notes").iter().map(|note| cell(&field(note, ""))).collect();
    text.push_str(&notes.join("<br>"));
    text.push_str("</sub>\n");
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::plan::human;

    fn plan() -> Value {
        json!({
            "generation": 7, "changed": true, "changes": ["`triage`: rollout `to-bedrock` goes from 5% to 25%"],
            "files": [{ "file": "a.yaml", "valid": false, "diagnostics": [{ "code": "x", "severity": "error", "file": "a.yaml", "message": "it is ```` broken" }] }],
            "jobs": { "count": 10_000, "from": "2026-11-21T00:00:00Z", "to": "2026-11-22T00:00:00Z", "moved": 2_004, "cannot_tell": 3 },
            "pipelines": [{
                "pipeline": "triage", "change": "changed", "jobs": 10_000, "moved": 2_004, "cannot_tell": 3, "fallback_changes": 1,
                "cost_change_usd": "-0.4008",
                "moves": [
                    { "from": "openai", "to": "bedrock", "rule": "migrate|all", "rule_before": "migrate|all", "jobs": 2_000, "cost_before_usd": "0.0012",
                      "cost_after_usd": "0.001", "basis": "ledger", "cost_change_usd": "-0.4", "p50_before_ms": 800.0, "p50_after_ms": 700.0,
                      "p95_before_ms": 1_900.0, "p95_after_ms": null },
                    { "from": "openai", "to": "held (confined)", "rule": "eu", "rule_before": "migrate|all", "jobs": 4, "basis": "unknown" },
                ],
                "rollouts": [{ "rollout": "to-bedrock", "percent_before": "5%", "percent_after": "25%", "keys": 812, "keys_to_candidate": 160,
                    "keys_to_baseline": 0, "jobs_without_key": 12, "warnings": ["only 812 distinct keys"] }],
                "doubts": [{ "target": "bedrock", "parameter": "seed", "what": "dropped", "requests": 12, "looked_at": 300 }],
            }],
            "quotas": [{ "quota": "bedrock us-east-1", "jobs_before": 500, "jobs_after": 2_504, "requests_per_minute": 41.7, "tokens_per_minute": 60_000.0,
                "granted_requests": 40.0, "granted_tokens": null, "used": 1.04, "used_before": 0.21 }],
            "notes": ["a note"],
        })
    }

    #[test]
    fn plans_in_words() {
        insta::assert_snapshot!("human", human::text(&plan()));
        insta::assert_snapshot!("markdown", comment(&plan()));
    }
}
