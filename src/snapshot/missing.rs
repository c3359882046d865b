//! What to say about a pipeline that is not there.

use super::Snapshot;
use crate::{diagnostic::Diagnostic, names::PipelineName};

/// Near names that are listed.
const NEAR: usize = 3;

impl Snapshot {
    /// Names of pipelines that somebody may have meant by `name`, nearest first.
    pub fn near_names(&self, name: &str) -> Vec<&str> {
        let mut near: Vec<(usize, &str)> = self
            .pipelines
            .keys()
            .map(|known| (strsim::damerau_levenshtein(name, known.as_str()), known.as_str()))
            .filter(|(distance, known)| {
                *distance <= 1 + known.chars().count() / 4 || (name.len() >= 3 && known.contains(name))
            })
            .collect();
        near.sort_unstable();
        near.into_iter().take(NEAR).map(|(_, known)| known).collect()
    }

    /// Why there is no pipeline `name`, in words: the fault of the file that would define it, or near names.
    pub fn explain_missing(&self, name: &PipelineName) -> String {
        if let Some(file) = self.broken.get(name) {
            let report = self.files.iter().find(|report| report.file == *file);
            let fault = report.and_then(|report| report.diagnostics.iter().find(|found| found.is_error()));
            return format!(
                "the pipeline `{name}` has no valid version yet: {}",
                fault.map_or_else(|| format!("{file} is broken"), in_a_line,)
            );
        }
        let near: Vec<String> = self.near_names(name.as_str()).into_iter().map(|name| format!("`{name}`")).collect();
        match near.as_slice() {
            [] if self.pipelines.is_empty() => format!("there is no pipeline `{name}`: no spec is loaded"),
            [] => format!("there is no pipeline `{name}`; GET /v1/ops/pipelines lists those that are"),
            near => format!("there is no pipeline `{name}`; did you mean {}?", near.join(" or ")),
        }
    }
}

fn in_a_line(fault: &Diagnostic) -> String {
    match fault.position {
        Some(at) => format!("{}:{}:{}: {}", fault.file, at.line, at.column, fault.message),
        None => format!("{}: {}", fault.file, fault.message),
    }
}
