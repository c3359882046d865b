//! Collects what is wrong with one file.
//!
//! Invariant: every finding carries advice, and the list is sorted by place, free of repetitions and bounded.

use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Position};

/// Findings kept of one file. A file with more is beyond listing; the rest is counted.
const MAX_FINDINGS: usize = 200;

/// The problems of one file, as they are found.
#[derive(Debug, Clone)]
pub struct Findings {
    file: String,
    text: Arc<str>,
    found: Vec<Diagnostic>,
    left_off: usize,
}

impl Findings {
    /// For `file` (as the operator would name it), whose contents are `text`.
    pub fn new(file: &str, text: &str) -> Self {
        Self { file: file.to_owned(), text: Arc::from(text), found: Vec::new(), left_off: 0 }
    }

    /// The file's contents.
    pub fn text(&self) -> Arc<str> {
        Arc::clone(&self.text)
    }

    /// The file is refused: what is wrong at `at`, and what to write instead.
    pub fn error(&mut self, code: &str, at: Position, message: impl Into<String>, help: impl Into<String>) {
        self.add(at, help, |file| Diagnostic::error(code, file, message));
    }

    /// The same, without showing the line: it may hold a secret.
    pub fn error_unshown(&mut self, code: &str, at: Position, message: impl Into<String>, help: impl Into<String>) {
        let mut diagnostic = Diagnostic::error(code, &self.file, message).help(help);
        diagnostic.position = Some(at);
        self.push(diagnostic);
    }

    /// The file is doubtful: what at `at`, and what to write instead.
    pub fn warning(&mut self, code: &str, at: Position, message: impl Into<String>, help: impl Into<String>) {
        self.add(at, help, |file| Diagnostic::warning(code, file, message));
    }

    fn add(&mut self, at: Position, help: impl Into<String>, new: impl FnOnce(&str) -> Diagnostic) {
        if self.found.len() < MAX_FINDINGS {
            let diagnostic = new(&self.file).at(at, &self.text).help(help);
            self.push(diagnostic);
        } else {
            self.left_off += 1;
        }
    }

    /// Adds a finding made elsewhere.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        // An anchor used twice is read twice, and says the same of the same place.
        if self.found.contains(&diagnostic) {
            return;
        }
        if self.found.len() < MAX_FINDINGS {
            self.found.push(diagnostic);
        } else {
            self.left_off += 1;
        }
    }

    /// Whether anything found so far refuses the file.
    pub fn has_errors(&self) -> bool {
        self.left_off > 0 || self.found.iter().any(Diagnostic::is_error)
    }

    /// All of them, in the order of the file.
    pub fn finish(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(|diagnostic| {
            (diagnostic.position.map_or((0, 0), |at| (at.line, at.column)), std::cmp::Reverse(diagnostic.severity))
        });
        if self.left_off > 0 {
            let message = format!("{} more problems are not listed", self.left_off);
            self.found
                .push(Diagnostic::error("too-many-problems", &self.file, message).help("correct those above first"));
        }
        self.found
    }
}
