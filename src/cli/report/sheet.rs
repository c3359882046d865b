//! A report as sheets: titled rows of text, whatever they are written as afterwards.
//!
//! Invariant: a figure that is not known is a dash, never a zero.

use serde_json::Value;

use crate::cli::print::{count, field, grouped, items};

/// A titled table.
pub struct Sheet {
    /// What it is about.
    pub title: String,
    /// Titles of the columns.
    pub header: Vec<&'static str>,
    /// Its rows; the first column is a name, the others are figures.
    pub rows: Vec<Vec<String>>,
}

/// All sheets of a report.
pub fn sheets(report: &Value, by: Option<&str>) -> Vec<Sheet> {
    let mut sheets = vec![
        calls("By provider", "provider", items(report, "/providers")),
        calls("By target", "target", items(report, "/targets")),
        jobs(items(report, "/pipelines")),
    ];
    if let Some(by) = by {
        sheets.push(calls(&format!("By {by}"), "value", items(report, "/labels")));
    }
    sheets.push(faults(items(report, "/targets")));
    sheets.push(tokens(items(report, "/targets")));
    sheets.push(savings(items(report, "/savings")));
    sheets.retain(|sheet| !sheet.rows.is_empty());
    sheets
}

/// The time that a report is about, in words.
pub fn span(report: &Value) -> String {
    let calls = count(report, "/total/calls");
    format!("{} calls from {} to {}", grouped(calls), field(report, "/since"), field(report, "/until"))
}

/// What should be known about the figures.
pub fn notes(report: &Value) -> Vec<String> {
    let mut notes = vec![format!(
        "percentiles are exact to {}; costs are of reported usage at known prices",
        percent(report.pointer("/percentile_error"))
    )];
    let (unpriced, billed) = (count(report, "/total/unpriced"), count(report, "/total/possibly_billed"));
    if unpriced > 0 {
        notes.push(format!("{} answers have no known cost and are in no sum of costs", grouped(unpriced)));
    }
    if billed > 0 {
        let most = field(report, "/total/possible_cost_usd");
        let unknown = match count(report, "/total/possible_cost_unknown") {
            0 => String::new(),
            n => format!(", and what {} of them cost", grouped(n)),
        };
        notes.push(format!(
            "{} calls may have been billed without an answer, at most ${most}{unknown}; they are in no sum either",
            grouped(billed)
        ));
    }
    notes.extend(items(report, "/notes").iter().map(|note| field(note, "")));
    notes
}

fn name(line: &Value) -> String {
    match field(line, "/model") {
        model if model.is_empty() => field(line, "/name"),
        model => format!("{} ({model})", field(line, "/name")),
    }
}

fn calls(title: &str, what: &'static str, lines: &[Value]) -> Sheet {
    let row = |line: &Value| {
        let ms = |pointer| milliseconds(line.pointer(pointer));
        vec![
            name(line),
            grouped(count(line, "/figures/calls")),
            grouped(count(line, "/figures/answered")),
            percent(line.pointer("/figures/error_rate")),
            percent(line.pointer("/figures/availability")),
            ms("/figures/response_ms/p50"),
            ms("/figures/response_ms/p95"),
            ms("/figures/response_ms/p99"),
            ms("/figures/first_token_ms/p50"),
            ms("/figures/first_token_ms/p95"),
            dollars(line.pointer("/figures/cost_usd")),
            dollars(line.pointer("/figures/cost_per_answer_usd")),
            grouped(count(line, "/figures/rescued")),
        ]
    };
    Sheet {
        title: title.to_owned(),
        header: vec![
            what,
            "calls",
            "answered",
            "errors",
            "available",
            "p50",
            "p95",
            "p99",
            "first token p50",
            "p95",
            "cost",
            "per answer",
            "rescued",
        ],
        rows: lines.iter().map(row).collect(),
    }
}

fn jobs(lines: &[Value]) -> Sheet {
    let row = |line: &Value| {
        let ended = |state: &str| count(line, &format!("/jobs/{state}"));
        let lost = ended("failed") + ended("expired");
        let share = (ended("succeeded") + lost > 0)
            .then(|| Value::from(ended("succeeded") as f64 / (ended("succeeded") + lost) as f64));
        vec![
            name(line),
            grouped(ended("succeeded")),
            grouped(ended("failed")),
            grouped(ended("expired")),
            grouped(ended("cancelled")),
            percent(share.as_ref()),
            grouped(count(line, "/figures/calls")),
            milliseconds(line.pointer("/figures/response_ms/p50")),
            milliseconds(line.pointer("/figures/response_ms/p95")),
            grouped(count(line, "/figures/rescued")),
            dollars(line.pointer("/figures/cost_usd")),
        ]
    };
    Sheet {
        title: "By pipeline (jobs that are kept)".to_owned(),
        header: vec![
            "pipeline",
            "succeeded",
            "failed",
            "expired",
            "cancelled",
            "with a result",
            "calls",
            "p50",
            "p95",
            "rescued by a fallback",
            "cost",
        ],
        rows: lines.iter().map(row).collect(),
    }
}

fn faults(lines: &[Value]) -> Sheet {
    const KINDS: [&str; 8] =
        ["throttled", "transient", "unavailable", "too_long", "misconfigured", "refused", "unknown", "interrupted"];
    let failed =
        |line: &&Value| line.pointer("/figures/faults").and_then(Value::as_object).is_some_and(|f| !f.is_empty());
    let row = |line: &Value| {
        let counts = KINDS.iter().map(|kind| match count(line, &format!("/figures/faults/{kind}")) {
            0 => "–".to_owned(),
            n => grouped(n),
        });
        std::iter::once(name(line)).chain(counts).collect()
    };
    Sheet {
        title: "Calls that failed, by fault".to_owned(),
        header: std::iter::once("target").chain(KINDS).collect(),
        rows: lines.iter().filter(failed).map(row).collect(),
    }
}

fn tokens(lines: &[Value]) -> Sheet {
    let row = |line: &Value| {
        let prompt: u64 = ["input", "cache_read", "cache_write"]
            .iter()
            .map(|part| count(line, &format!("/figures/usage/{part}")))
            .fold(0, u64::saturating_add);
        let part = |pointer: &str| percent(line.pointer(pointer));
        vec![
            name(line),
            grouped(prompt),
            grouped(count(line, "/figures/usage/output")),
            ratio(line.pointer("/figures/estimate/p50")),
            ratio(line.pointer("/figures/estimate/p95")),
            grouped(count(line, "/figures/estimate/too_low")),
            part("/figures/window/p50"),
            part("/figures/window/p95"),
            part("/figures/window/max"),
        ]
    };
    Sheet {
        title: "Tokens: how good the estimate was (1 is exact, above is too high), and how full the window".to_owned(),
        header: vec![
            "target",
            "prompt tokens",
            "answer tokens",
            "estimate p50",
            "p95",
            "too low",
            "window p50",
            "p95",
            "most",
        ],
        rows: lines.iter().filter(|line| count(line, "/figures/answered") > 0).map(row).collect(),
    }
}

fn savings(lines: &[Value]) -> Sheet {
    let row = |line: &Value| {
        let basis = match field(line, "/basis").as_str() {
            "ledger" => "the ledger's average",
            "list_price" => "list price, same tokens",
            _ => "not known",
        };
        vec![
            field(line, "/pipeline"),
            field(line, "/baseline"),
            grouped(count(line, "/jobs")),
            dollars(line.get("cost_usd")),
            dollars(line.get("at_baseline_usd")),
            dollars(line.get("saved_usd")),
            basis.to_owned(),
        ]
    };
    Sheet {
        title: "Savings against all on the baseline".to_owned(),
        header: vec!["pipeline", "baseline", "jobs answered elsewhere", "cost", "at the baseline", "saved", "by"],
        rows: lines.iter().map(row).collect(),
    }
}

/// A part of a whole, in percent.
pub fn percent(part: Option<&Value>) -> String {
    let Some(part) = part.and_then(Value::as_f64) else { return "–".to_owned() };
    let percent = part * 100.0;
    match percent {
        p if p == 0.0 || p >= 99.995 => format!("{percent:.0} %"),
        p if p < 10.0 => format!("{percent:.2} %"),
        p if p > 99.0 => format!("{percent:.2} %"),
        _ => format!("{percent:.1} %"),
    }
}

/// A time, in the unit that reads best.
pub fn milliseconds(ms: Option<&Value>) -> String {
    match ms.and_then(Value::as_f64) {
        None => "–".to_owned(),
        Some(ms) if ms < 1_000.0 => format!("{ms:.0} ms"),
        Some(ms) if ms < 60_000.0 => format!("{:.2} s", ms / 1_000.0),
        Some(ms) => format!("{:.1} min", ms / 60_000.0),
    }
}

/// An amount; two decimals, or four digits where that would be nothing.
pub fn dollars(amount: Option<&Value>) -> String {
    let exact = amount.and_then(Value::as_str).and_then(|text| text.parse::<rust_decimal::Decimal>().ok());
    let Some(exact) = exact else { return "–".to_owned() };
    let (sign, size) = if exact.is_sign_negative() && !exact.is_zero() { ("-", -exact) } else { ("", exact) };
    let places = if size.is_zero() || size >= rust_decimal::Decimal::ONE { 2 } else { 6 };
    let text = format!("{:.*}", places, size.round_dp(u32::try_from(places).unwrap_or(2)));
    let (whole, cents) = text.split_once('.').unwrap_or((&text, "00"));
    let whole = whole.parse().map_or_else(|_| whole.to_owned(), grouped);
    format!("{sign}${whole}.{cents}")
}

fn ratio(ratio: Option<&Value>) -> String {
    ratio.and_then(Value::as_f64).map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_read_well() {
        for (amount, expected) in [
            (json!("1234.5678"), "$1,234.57"),
            (json!("0.00012"), "$0.000120"),
            (json!("-3.5"), "-$3.50"),
            (json!("0"), "$0.00"),
            (json!(null), "–"),
        ] {
            assert_eq!(dollars(Some(&amount)), expected, "{amount}");
        }
        for (part, expected) in [(0.0, "0 %"), (0.0123, "1.23 %"), (0.9987, "99.87 %"), (1.0, "100 %"), (0.5, "50.0 %")]
        {
            assert_eq!(percent(Some(&json!(part))), expected);
        }
        for (ms, expected) in [(12.4, "12 ms"), (1_500.0, "1.50 s"), (90_000.0, "1.5 min")] {
            assert_eq!(milliseconds(Some(&json!(ms))), expected);
        }
        assert_eq!((percent(None), milliseconds(None), ratio(None)), ("–".into(), "–".into(), "–".into()));
    }
}
