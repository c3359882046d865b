//! One thing that is wrong, or doubtful, in a file that an operator wrote: where, what, and what to write instead.
//!
//! Invariant: a diagnostic is self-contained (it carries the source line), so it can be printed long after the file
//! has changed again. Positions count from 1, columns in characters.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file is usable; `check --strict` still refuses it.
    Warning,
    /// The file is refused.
    Error,
}

/// A stretch of one line. Line and column count from 1; the length is in characters and at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Position {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Characters that the caret underlines, at least 1.
    pub length: u32,
}

/// A problem found in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// A stable, kebab-case name for this kind of problem, such as `unknown-key`.
    pub code: String,
    /// The file, as the operator would name it.
    pub file: String,
    /// Where in the file; `None` when it concerns the file as a whole.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// What is wrong, in a sentence without a full stop.
    pub message: String,
    /// What to write instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The line at `position`, without its line break.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_line: Option<String>,
}

impl Diagnostic {
    /// A new error without a position.
    pub fn error(code: &str, file: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, file, message.into())
    }

    /// A new warning without a position.
    pub fn warning(code: &str, file: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, file, message.into())
    }

    fn new(severity: Severity, code: &str, file: &str, message: String) -> Self {
        Self {
            severity,
            code: code.to_owned(),
            file: file.to_owned(),
            position: None,
            message,
            help: None,
            source_line: None,
        }
    }

    /// The same, at a place in `source`, whose line is kept for printing.
    #[must_use]
    pub fn at(mut self, position: Position, source: &str) -> Self {
        self.source_line = source
            .lines()
            .nth(position.line.saturating_sub(1) as usize)
            .map(|line| line.chars().take(MAX_SOURCE_LINE).collect());
        self.position = Some(position);
        self
    }

    /// The same, with advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Whether the file is refused because of this.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// Source lines are cut here when kept: enough for any terminal, bounded for hostile files.
const MAX_SOURCE_LINE: usize = 400;

/// The form of compilers, with the source line under a caret:
///
/// ```text
/// error[unknown-key]: unknown key `tragets`
///   --> pipelines/triage.yaml:3:1
///    |
///  3 | tragets:
///    | ^^^^^^^
///    = help: did you mean `targets`?
/// ```
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        writeln!(f, "{severity}[{}]: {}", self.code, self.message)?;
        let Some(Position { line, column, length }) = self.position else {
            write!(f, "  --> {}", self.file)?;
            if let Some(help) = &self.help {
                write!(f, "\n   = help: {help}")?;
            }
            return Ok(());
        };
        let gutter = line.to_string().len();
        write!(f, "{:gutter$}--> {}:{line}:{column}", "", self.file)?;
        if let Some(source) = &self.source_line {
            let lead: String = source
                .chars()
                .take(column.saturating_sub(1) as usize)
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            let room = source.chars().count().saturating_sub(column.saturating_sub(1) as usize).max(1);
            let carets = "^".repeat((length as usize).clamp(1, room));
            write!(f, "\n{:gutter$} |\n{line} | {source}\n{:gutter$} | {lead}{carets}", "", "")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n{:gutter$} = help: {help}", "")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_the_line_under_a_caret() {
        let source = "version: 1\nname: x\ntragets: {}\n";
        let text = Diagnostic::error("unknown-key", "pipelines/x.yaml", "unknown key `tragets`")
            .at(Position { line: 3, column: 1, length: 7 }, source)
            .help("did you mean `targets`?")
            .to_string();
        assert_eq!(
            text,
            "error[unknown-key]: unknown key `tragets`\n --> pipelines/x.yaml:3:1\n  |\n3 | tragets: {}\n  | ^^^^^^^\n  = help: did you mean `targets`?"
        );
    }

    #[test]
    fn a_position_past_the_end_does_not_panic() {
        let text = Diagnostic::error("x", "f", "m").at(Position { line: 9, column: 90, length: 0 }, "a\n").to_string();
        assert!(text.contains("f:9:90"));
    }
}
