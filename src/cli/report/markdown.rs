//! A report in Markdown, for a wiki or a pull request.
//!
//! Invariant: no name from specs or settings breaks out of its cell.

use std::fmt::Write as _;

use serde_json::Value;

use super::sheet::{notes, sheets, span};

/// The whole report.
pub fn page(report: &Value, by: Option<&str>) -> String {
    let mut page = format!("## landbridge report\n\n{}\n", cell(&span(report)));
    for sheet in sheets(report, by) {
        let _ = writeln!(page, "\n### {}\n", cell(&sheet.title));
        page.push_str(&table(&sheet.header, &sheet.rows));
    }
    page.push('\n');
    for note in notes(report) {
        let _ = writeln!(page, "- {}", cell(&note));
    }
    page
}

/// A table; the first column is text, the others are figures.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(header.iter().map(|title| cell(title)).collect());
    let ruler = header.iter().enumerate().map(|(place, _)| if place == 0 { "---" } else { "---:" }.to_owned());
    text.push_str(&line(ruler.collect()));
    for row in rows {
        text.push_str(&line(row.iter().map(|text| cell(text)).collect()));
    }
    text
}

/// Text that means nothing in Markdown.
pub fn cell(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in crate::cli::print::printable(text).chars() {
        match c {
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '#' => {
                safe.push('\\');
                safe.push(c);
            }
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_hold_anything() {
        let rows = vec![vec!["a|b\n<script>`x`".to_owned(), "1".to_owned()]];
        let text = table(&["name", "n"], &rows);
        assert_eq!(text, "| name | n |\n| --- | ---: |\n| a\\|b &lt;script&gt;\\`x\\` | 1 |\n");
    }
}
