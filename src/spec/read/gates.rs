//! The `gates` of a rollout: what is measured, and how much worse the candidate may be.
//!
//! Invariant: a gate is read into the one shape that its metric allows; a key that its metric has no use for is refused.

use crate::{
    diagnostic::Position,
    spec::{
        keys,
        rollout::{CostOf, Criterion, GateSpec, LatencyOf, MOST_GATES, Margin, OnFail, Source},
    },
    yaml::{Findings, Node, Section, Value, in_backticks, shortened},
};

/// Longest name of a score, and longest pointer.
const LONGEST: usize = 200;

const ON_FAILS: [(&str, OnFail); 2] = [("rollback", OnFail::Rollback), ("hold", OnFail::Hold)];

/// What a gate measures.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Metric<'t> {
    Failure,
    InvalidOutput,
    Agreement,
    Score(&'t str),
    Latency(Option<f64>),
    Cost,
}

impl<'t> Metric<'t> {
    fn parse(text: &'t str) -> Option<Self> {
        Some(match text {
            "failure" => Self::Failure,
            "invalid_output" => Self::InvalidOutput,
            "agreement" => Self::Agreement,
            "latency" => Self::Latency(None),
            "cost" => Self::Cost,
            _ => match text.split_once('.')? {
                ("score", name) if is_score_name(name) => Self::Score(name),
                ("latency", quantile) => {
                    let percent: f64 = quantile.strip_prefix('p')?.parse().ok()?;
                    Self::Latency(Some((percent * 10.0).round() / 1_000.0))
                }
                _ => return None,
            },
        })
    }

    /// The keys that it has a use for, besides `metric` and `on_fail`.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Failure | Self::InvalidOutput => &["of", "max_increase", "max_ratio"],
            Self::Agreement => &["at", "min"],
            Self::Score(_) => &["max_decrease", "range"],
            Self::Latency(None) => &["of", "max_ratio"],
            Self::Latency(Some(_)) => &["max_ratio"],
            Self::Cost => &["of", "max_ratio", "cap_usd"],
        }
    }

    fn on_fail(self) -> OnFail {
        match self {
            Self::Failure | Self::InvalidOutput => OnFail::Rollback,
            _ => OnFail::Hold,
        }
    }
}

/// Whether a score may be called so: what a JSON key and a metric's label can carry without quotes.
pub fn is_score_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'))
}

/// Reads all gates; `None` when any is broken.
pub(super) fn read(node: &Node, findings: &mut Findings) -> Option<Vec<GateSpec>> {
    let items = node.list("gates", MOST_GATES, findings)?;
    let mut gates: Vec<Option<GateSpec>> = Vec::with_capacity(items.len());
    for item in items {
        let gate = read_gate(item, findings);
        if let Some(gate) = &gate {
            if let Err(invalid) = gate.check() {
                findings.error("out-of-range", item.position, format!("gate `{}`", invalid.gate), invalid.fault);
            }
            if gates.iter().flatten().any(|known| known.name() == gate.name()) {
                let message = format!("gate `{}` stands here twice", gate.name());
                findings.error("duplicate-value", item.position, message, "remove one of the two");
            }
        }
        gates.push(gate);
    }
    gates.into_iter().collect()
}

fn read_gate(node: &Node, findings: &mut Findings) -> Option<GateSpec> {
    let section = node.section(&keys::GATE, findings)?;
    let named = section.require("metric", findings)?;
    let text = named.line("metric", LONGEST, findings)?;
    let Some(metric) = Metric::parse(text) else {
        let help = "write `failure`, `invalid_output`, `agreement`, `score.NAME`, `latency`, `latency.p95` or `cost`";
        findings.error("unknown-value", named.position, format!("`metric` cannot be \"{}\"", shortened(text)), help);
        return None;
    };
    for entry in section.entries() {
        let key = entry.key.text.as_str();
        if !matches!(key, "metric" | "on_fail") && !metric.keys().contains(&key) {
            let message = format!("`{key}` says nothing about `{text}`");
            let help = format!("`{text}` takes {}", in_backticks(metric.keys().iter().copied()));
            findings.error("no-effect", entry.key.position, message, help);
        }
    }
    let on_fail = match section.get("on_fail") {
        Some(node) => node.choice("on_fail", &ON_FAILS, findings),
        None => Some(metric.on_fail()),
    };
    let criterion = read_criterion(metric, &section, named.position, findings);
    Some(GateSpec { criterion: criterion?, on_fail: on_fail? })
}

fn read_criterion(
    metric: Metric<'_>,
    section: &Section<'_>,
    at: Position,
    findings: &mut Findings,
) -> Option<Criterion> {
    match metric {
        Metric::Failure | Metric::InvalidOutput => {
            let of = read_source(section, findings);
            let margin = read_margin(section, at, findings);
            let (of, margin) = (of?, margin?);
            Some(match metric {
                Metric::Failure => Criterion::Failure { margin, of },
                _ => Criterion::InvalidOutput { margin, of },
            })
        }
        Metric::Agreement => {
            let help = "agreement compares pairs of the shadow, which this rollout has not";
            findings.error("needs-shadow", at, "`agreement` needs pairs", help);
            let pointer = section.get("at").map_or(Some(String::new()), |node| read_pointer(node, findings));
            let min = section.require("min", findings).and_then(|node| number(node, "min", findings));
            Some(Criterion::Agreement { at: pointer?, min: min? })
        }
        Metric::Score(name) => {
            let range = section.get("range").map_or(Some((0.0, 1.0)), |node| read_range(node, findings));
            let decrease = section.require("max_decrease", findings);
            let max_decrease = decrease.and_then(|node| number(node, "max_decrease", findings));
            let (lowest, highest) = range?;
            Some(Criterion::Score { name: name.to_owned(), lowest, highest, max_decrease: max_decrease? })
        }
        Metric::Latency(quantile) => {
            let of = read_source(section, findings);
            let max_ratio = read_ratio(section, findings);
            let of = match (quantile, of?) {
                (Some(quantile), _) => LatencyOf::Quantile(quantile),
                (None, Source::Arms) => LatencyOf::GeometricMean,
                (None, Source::Pairs) => LatencyOf::Pairs,
            };
            Some(Criterion::Latency { of, max_ratio: max_ratio? })
        }
        Metric::Cost => {
            let of = read_source(section, findings);
            let max_ratio = read_ratio(section, findings);
            let of = match of? {
                Source::Pairs => CostOf::Pairs,
                Source::Arms => {
                    let Some(cap) = section.get("cap_usd") else {
                        let help = "add `cap_usd: 0.50`, several times what a job costs: one dear job may not decide";
                        findings.error("missing-key", at, "without a shadow, `cost` needs `cap_usd`", help);
                        return None;
                    };
                    CostOf::Capped(number(cap, "cap_usd", findings)?)
                }
            };
            Some(Criterion::Cost { of, max_ratio: max_ratio? })
        }
    }
}

fn read_source(section: &Section<'_>, findings: &mut Findings) -> Option<Source> {
    let Some(node) = section.get("of") else { return Some(Source::Arms) };
    let source = node.choice("of", &[("arms", Source::Arms), ("pairs", Source::Pairs)], findings)?;
    if source == Source::Pairs {
        let help = "write `of: arms`, or leave it out";
        findings.error("needs-shadow", node.position, "pairs come from the shadow, which this rollout has not", help);
    }
    Some(source)
}

fn read_margin(section: &Section<'_>, at: Position, findings: &mut Findings) -> Option<Margin> {
    match (section.get("max_increase"), section.get("max_ratio")) {
        (Some(node), None) => read_points(node, findings).map(Margin::Points),
        (None, Some(node)) => number(node, "max_ratio", findings).map(Margin::Ratio),
        (Some(_), Some(node)) => {
            let message = "a margin is `max_increase` or `max_ratio`, not both";
            findings.error("conflicting-keys", node.position, message, "keep one of the two");
            None
        }
        (None, None) => {
            let help = "add `max_increase: 1pp` (points), or `max_ratio: 2` (times the baseline's rate)";
            findings.error("missing-key", at, "this gate has no margin", help);
            None
        }
    }
}

/// `1pp`, `0.5pp`.
fn read_points(node: &Node, findings: &mut Findings) -> Option<f64> {
    let help = "write percentage points, such as `1pp` or `0.5pp`";
    let written = match &node.value {
        Value::Text(text) => text.as_str(),
        Value::Number(number) => number.text.as_str(),
        _ => "",
    };
    let points = written.strip_suffix("pp").and_then(|text| text.trim_end().parse::<f64>().ok());
    if points.is_none() {
        let message = format!("`max_increase` is \"{}\", not a number of percentage points", shortened(written));
        findings.error("bad-points", node.position, message, help);
    }
    // To the tenth of a thousandth, so that what was written is what is meant.
    points.map(|points| (points * 10_000.0).round() / 1_000_000.0)
}

fn read_ratio(section: &Section<'_>, findings: &mut Findings) -> Option<f64> {
    section.require("max_ratio", findings).and_then(|node| number(node, "max_ratio", findings))
}

fn read_pointer(node: &Node, findings: &mut Findings) -> Option<String> {
    let text = node.text("at", findings)?;
    let sound = text.is_empty() || (text.starts_with('/') && text.len() <= LONGEST);
    if !sound {
        let help = "write a JSON pointer into the answer, such as `/label`; without `at`, whole answers are compared";
        findings.error("bad-pointer", node.position, format!("`at` cannot be \"{}\"", shortened(text)), help);
    }
    sound.then(|| text.to_owned())
}

fn read_range(node: &Node, findings: &mut Findings) -> Option<(f64, f64)> {
    let items = node.list("range", 2, findings)?;
    let [lowest, highest] = items else {
        let help = "write the lowest and the highest score that there can be, such as `range: [1, 5]`";
        findings.error("wrong-type", node.position, "`range` has two numbers", help);
        return None;
    };
    let (lowest, highest) = (number(lowest, "range", findings), number(highest, "range", findings));
    Some((lowest?, highest?))
}

/// A finite number.
pub(super) fn number(node: &Node, what: &str, findings: &mut Findings) -> Option<f64> {
    let value = match &node.value {
        Value::Number(number) => number.text.parse::<f64>().ok().filter(|value| value.is_finite()),
        _ => None,
    };
    if value.is_none() {
        findings.error("wrong-type", node.position, format!("`{what}` must be a number"), "write such as 1.25");
    }
    value
}
