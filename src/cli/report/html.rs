//! A report as one page that needs nothing else: no script, no font, no address outside of itself.
//!
//! Invariant: whatever comes from specs, settings or providers is escaped; a policy in the page forbids it to load anything.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::Value;

use super::{
    chart::{self, Line},
    sheet::{dollars, milliseconds, notes, percent, sheets, span},
};
use crate::{
    cli::print::{field, grouped, items},
    clock::Timestamp,
};

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1c2330;--soft:#5b6573;--paper:#fff;--rule:#d9dee5;--c0:#1f6feb;--c1:#d9730d;--c2:#2da44e;--c3:#a371f7;--c4:#cf222e;--c5:#6e7781}\
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ee;--soft:#9aa4b2;--paper:#14181f;--rule:#2c333d;--c0:#58a6ff;--c1:#f0883e;--c2:#56d364;--c3:#bc8cff;--c4:#ff7b72;--c5:#8b949e}}\
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1100px;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}\
.tiles{display:flex;flex-wrap:wrap;gap:.75rem;margin:1.25rem 0}.tile{border:1px solid var(--rule);border-radius:8px;padding:.6rem 1rem;min-width:9rem}\
.tile b{display:block;font-size:1.35rem}.tile span,.soft,figcaption,.tick{color:var(--soft)}\
.wrap{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
th,td{padding:.3rem .6rem;border-bottom:1px solid var(--rule);text-align:right;white-space:nowrap}th:first-child,td:first-child{text-align:left}\
th{color:var(--soft);font-weight:600}figure{margin:1.5rem 0}svg{width:100%;height:auto;font:11px system-ui,sans-serif}\
svg text{fill:var(--soft)}svg .name{fill:var(--ink)}.grid{stroke:var(--rule)}.line{fill:none;stroke-width:2}\
.line.c0{stroke:var(--c0)}.line.c1{stroke:var(--c1)}.line.c2{stroke:var(--c2)}.line.c3{stroke:var(--c3)}.line.c4{stroke:var(--c4)}.line.c5{stroke:var(--c5)}\
.dot.c0,.bar.c0{fill:var(--c0)}.dot.c1,.bar.c1{fill:var(--c1)}.dot.c2,.bar.c2{fill:var(--c2)}.dot.c3,.bar.c3{fill:var(--c3)}.dot.c4,.bar.c4{fill:var(--c4)}.dot.c5,.bar.c5{fill:var(--c5)}\
.legend{margin:.25rem 0 0}.legend span{margin-right:1rem;color:var(--soft)}.legend i{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.35em}\
i.c0{background:var(--c0)}i.c1{background:var(--c1)}i.c2{background:var(--c2)}i.c3{background:var(--c3)}i.c4{background:var(--c4)}i.c5{background:var(--c5)}";

/// The whole page.
pub fn page(report: &Value, by: Option<&str>) -> String {
    let mut body = format!("<h1>landbridge report</h1>\n<p class=\"soft\">{}</p>\n", escape(&span(report)));
    body.push_str(&tiles(report));
    body.push_str(&charts(report, by));
    for sheet in sheets(report, by) {
        let _ = write!(body, "<h2>{}</h2>\n<div class=\"wrap\"><table><thead><tr>", escape(&sheet.title));
        for title in &sheet.header {
            let _ = write!(body, "<th scope=\"col\">{}</th>", escape(title));
        }
        body.push_str("</tr></thead><tbody>\n");
        for row in &sheet.rows {
            body.push_str("<tr>");
            for cell in row {
                let _ = write!(body, "<td>{}</td>", escape(cell));
            }
            body.push_str("</tr>\n");
        }
        body.push_str("</tbody></table></div>\n");
    }
    body.push_str("<h2>About these figures</h2>\n<ul>\n");
    for note in notes(report) {
        let _ = writeln!(body, "<li>{}</li>", escape(&note));
    }
    body.push_str("</ul>\n");
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>landbridge report</title>\n<style>{STYLE}</style></head>\n<body><main>\n{body}</main></body></html>\n"
    )
}

fn tiles(report: &Value) -> String {
    let saved = items(report, "/savings")
        .iter()
        .filter_map(|line| line.get("saved_usd")?.as_str()?.parse::<rust_decimal::Decimal>().ok())
        .reduce(rust_decimal::Decimal::saturating_add)
        .map(|saved| Value::from(saved.to_string()));
    let at = |pointer: &str| report.pointer(pointer);
    let tiles = [
        ("calls", grouped(at("/total/calls").and_then(Value::as_u64).unwrap_or(0))),
        ("errors", percent(at("/total/error_rate"))),
        ("available", percent(at("/total/availability"))),
        ("half of the answers within", milliseconds(at("/total/response_ms/p50"))),
        ("95 of 100 within", milliseconds(at("/total/response_ms/p95"))),
        ("cost", dollars(at("/total/cost_usd"))),
        ("saved against the baseline", dollars(saved.as_ref())),
        ("jobs rescued by a fallback", grouped(at("/total/rescued").and_then(Value::as_u64).unwrap_or(0))),
    ];
    let mut html = "<div class=\"tiles\">".to_owned();
    for (what, figure) in &tiles {
        let _ = write!(html, "<div class=\"tile\"><b>{}</b><span>{what}</span></div>", escape(figure));
    }
    html + "</div>\n"
}

fn charts(report: &Value, by: Option<&str>) -> String {
    let number = |value: f64| grouped_float(value);
    let money = |value: f64| dollars(Some(&Value::from(format!("{value:.6}"))));
    let time = |value: f64| milliseconds(Some(&Value::from(value)));
    let (since, until) = (field(report, "/since"), field(report, "/until"));
    let ends = (since.get(..16).unwrap_or(&since), until.get(..16).unwrap_or(&until));
    let over_time = |pointer: &str| -> Vec<Line> {
        let mut lines: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        for point in items(report, "/series/points") {
            let value = point.pointer(pointer).and_then(|v| v.as_f64().or_else(|| v.as_str()?.parse().ok()));
            if let (Some(value), Ok(at)) = (value, field(point, "/at").parse::<Timestamp>()) {
                lines.entry(field(point, "/provider")).or_default().push((at.as_micros() as f64 / 1e6, value));
            }
        }
        lines.into_iter().map(|(name, points)| Line { name, points }).collect()
    };
    let by_name = |list: &str, pointers: &[&str]| -> Vec<(String, Vec<Option<f64>>)> {
        let value = |line: &Value, pointer: &&str| {
            line.pointer(pointer).and_then(|v| v.as_f64().or_else(|| v.as_str()?.parse().ok()))
        };
        items(report, list)
            .iter()
            .map(|line| (field(line, "/name"), pointers.iter().map(|pointer| value(line, pointer)).collect()))
            .collect()
    };
    let mut charts = vec![
        chart::lines("Calls over time, by provider", &over_time("/calls"), number, ends),
        chart::lines("Cost over time, by provider", &over_time("/cost_usd"), money, ends),
        chart::lines("Response time over time: 95 of 100 within", &over_time("/p95_ms"), time, ends),
        chart::bars(
            "Response time by target",
            &["p50", "p95", "p99"],
            &by_name("/targets", &["/figures/response_ms/p50", "/figures/response_ms/p95", "/figures/response_ms/p99"]),
            time,
        ),
        chart::bars("Errors by target", &["errors"], &by_name("/targets", &["/figures/error_rate"]), |part| {
            percent(Some(&Value::from(part)))
        }),
        chart::bars("Cost by target", &["cost"], &by_name("/targets", &["/figures/cost_usd"]), money),
    ];
    if let Some(by) = by {
        charts.push(chart::bars(
            &format!("Cost by {by}"),
            &["cost"],
            &by_name("/labels", &["/figures/cost_usd"]),
            money,
        ));
    }
    charts.concat()
}

fn grouped_float(value: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count, rounded for an axis")]
    let whole = value.round().max(0.0) as u64;
    grouped(whole)
}

/// Text that means nothing in HTML, in an element or in a quoted attribute.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c if c.is_control() && c != '\n' => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_page_needs_nothing_else_and_escapes_everything() {
        let evil = "<img src=x onerror=alert(1)>\"'&";
        let figures = json!({
            "calls": 10, "answered": 9, "faults": { "throttled": 1 }, "error_rate": 0.1, "availability": 1.0,
            "response_ms": { "p50": 100.0, "p95": 200.0, "p99": 250.0, "max": 300.0 },
            "cost_usd": "1.25", "cost_per_answer_usd": "0.138888", "unpriced": 1, "rescued": 2, "usage": { "input": 5, "output": 6 },
        });
        let line = json!({ "name": evil, "model": evil, "figures": figures, "jobs": { "succeeded": 9 } });
        let point = json!({ "at": "2026-11-22T10:00:00Z", "provider": evil, "calls": 10, "answered": 9, "cost_usd": "1.25", "p95_ms": 200.0 });
        let report = json!({
            "since": "2026-11-15T10:00:00Z", "until": "2026-11-22T10:00:00Z", "total": figures, "percentile_error": 0.01,
            "providers": [line], "targets": [line], "pipelines": [line], "labels": [line], "notes": [evil],
            "savings": [{ "pipeline": evil, "baseline": evil, "jobs": 3, "cost_usd": "1", "at_baseline_usd": "2", "saved_usd": "1", "basis": "ledger" }],
            "series": { "step_seconds": 86_400, "points": [point, point] },
        });
        let page = page(&report, Some(evil));
        assert!(!page.contains("<img"), "{page}");
        assert!(
            !page.contains("http:") && !page.contains("https:") && !page.contains("<script"),
            "no address, no script"
        );
        assert!(page.contains("&lt;img src=x onerror=alert(1)&gt;&quot;&#39;&amp;"));
        assert_eq!(page.matches("role=\"img\"").count(), page.matches("<desc>").count());
        assert!(page.matches("<svg").count() >= 6, "charts of calls, cost, times, errors");
        for tag in ["svg", "table", "figure", "main", "text", "tr", "td", "th"] {
            let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
        assert!(page.contains("prefers-color-scheme:dark"));
    }

    #[test]
    fn a_report_of_nothing_is_a_page_too() {
        let report = json!({ "since": "a", "until": "b", "total": {}, "series": { "points": [] } });
        let page = page(&report, None);
        assert!(page.contains("0 calls") && !page.contains("<svg") && page.ends_with("</html>\n"));
    }
}
