//! Charts as inline SVG: lines over time, bars by name.
//!
//! Invariant: every chart says in words what it shows, for those who cannot see it; names are escaped; a chart of nothing is
//! no chart.

use std::fmt::Write as _;

use super::html::escape;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 28.0;
const TOP: f64 = 12.0;
/// Bars in one chart at most.
const MOST_BARS: usize = 24;

/// Points of one line: a place on the time axis and a value.
pub struct Line {
    /// Its name.
    pub name: String,
    /// Seconds and value, in order.
    pub points: Vec<(f64, f64)>,
}

/// Lines over time. `label` writes a value, `ends` the two ends of the time axis.
pub fn lines(title: &str, lines: &[Line], label: impl Fn(f64) -> String, ends: (&str, &str)) -> String {
    let points = || lines.iter().flat_map(|line| &line.points);
    let (first, last) = points().fold((f64::MAX, f64::MIN), |(a, b), (at, _)| (a.min(*at), b.max(*at)));
    let most = points().map(|(_, value)| *value).fold(0.0, f64::max);
    if most <= 0.0 || first > last {
        return String::new();
    }
    let span = (last - first).max(1.0);
    let x = |at: f64| LEFT + (at - first) / span * (WIDTH - LEFT - 12.0);
    let y = |value: f64| HEIGHT - BOTTOM - value / most * (HEIGHT - BOTTOM - TOP);
    let described: Vec<String> = lines
        .iter()
        .filter_map(|line| {
            let last = line.points.last()?;
            Some(format!("{}: {} at the end", line.name, label(last.1)))
        })
        .collect();
    let mut svg = open(title, &described.join("; "), HEIGHT);
    for part in [0.0, 0.5, 1.0] {
        let at = y(most * part);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            at + 4.0,
            escape(&label(most * part))
        );
    }
    for (text, at, anchor) in [(ends.0, LEFT, "start"), (ends.1, WIDTH - 4.0, "end")] {
        let _ = write!(
            svg,
            "<text class=\"tick\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            HEIGHT - 8.0,
            escape(text)
        );
    }
    for (place, line) in lines.iter().enumerate() {
        let color = place % 6;
        let path: Vec<String> =
            line.points.iter().map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value))).collect();
        let _ = write!(svg, "<polyline class=\"line c{color}\" points=\"{}\"/>", path.join(" "));
        for (at, value) in &line.points {
            let _ = write!(
                svg,
                "<circle class=\"dot c{color}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\"><title>{}: {}</title></circle>",
                x(*at),
                y(*value),
                escape(&line.name),
                escape(&label(*value))
            );
        }
    }
    svg.push_str("</svg>");
    legend(&mut svg, lines.iter().map(|line| line.name.as_str()));
    figure(title, &svg)
}

/// Bars of several values a name, side by side.
pub fn bars(
    title: &str,
    series: &[&str],
    rows: &[(String, Vec<Option<f64>>)],
    label: impl Fn(f64) -> String,
) -> String {
    let rows: Vec<_> = rows.iter().filter(|(_, values)| values.iter().any(Option::is_some)).take(MOST_BARS).collect();
    let most = rows.iter().flat_map(|(_, values)| values.iter().flatten()).copied().fold(0.0, f64::max);
    if most <= 0.0 {
        return String::new();
    }
    let (left, bar) = (230.0, 13.0);
    let each = bar * series.len() as f64 + 12.0;
    let height = each * rows.len() as f64 + TOP;
    let described: Vec<String> = rows
        .iter()
        .map(|(name, values)| {
            let values: Vec<String> = series
                .iter()
                .zip(values)
                .filter_map(|(what, value)| Some(format!("{what} {}", label((*value)?))))
                .collect();
            format!("{name}: {}", values.join(", "))
        })
        .collect();
    let mut svg = open(title, &described.join("; "), height);
    for (place, (name, values)) in rows.iter().enumerate() {
        let top = TOP + each * place as f64;
        let shown: String = name.chars().take(34).collect();
        let _ = write!(
            svg,
            "<text class=\"name\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left - 8.0,
            top + (each - 12.0) / 2.0 + 4.0,
            escape(&shown)
        );
        for (number, value) in values.iter().enumerate() {
            let Some(value) = value else { continue };
            let width = (value / most * (WIDTH - left - 90.0)).max(1.0);
            let at = top + bar * number as f64;
            let _ = write!(
                svg,
                "<rect class=\"bar c{}\" x=\"{left}\" y=\"{at:.1}\" width=\"{width:.1}\" height=\"{:.1}\"/>\
                 <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                number % 6,
                bar - 2.0,
                left + width + 6.0,
                at + bar - 3.0,
                escape(&label(*value))
            );
        }
    }
    svg.push_str("</svg>");
    if series.len() > 1 {
        legend(&mut svg, series.iter().copied());
    }
    figure(title, &svg)
}

fn open(title: &str, described: &str, height: f64) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"{}\"><title>{}</title><desc>{}</desc>",
        escape(title),
        escape(title),
        escape(described)
    )
}

fn legend<'a>(svg: &mut String, names: impl Iterator<Item = &'a str>) {
    svg.push_str("<p class=\"legend\">");
    for (place, name) in names.enumerate() {
        let _ = write!(svg, "<span><i class=\"c{}\"></i>{}</span>", place % 6, escape(name));
    }
    svg.push_str("</p>");
}

fn figure(title: &str, inside: &str) -> String {
    format!("<figure><figcaption>{}</figcaption>{inside}</figure>\n", escape(title))
}
