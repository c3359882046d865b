//! `config/flags.yaml`: the flags for all pipelines, and for some.
//!
//! ```yaml
//! FORCE_OPENAI_PROVIDER: true       # for all pipelines; `flags: { … }`, as in a spec, means the same
//! pipelines:
//!   ticket-triage: { PAUSE: true }  # for this one
//! ```
//!
//! Invariant: a switch that can be made out gets through, whatever else is wrong with the file; and a switch that stood
//! in the last good version is not lifted by a file that is broken. Only a file without faults replaces everything.

use std::{collections::BTreeMap, fmt::Write};

use crate::{
    diagnostic::Diagnostic,
    names::{PipelineName, nearest},
    spec::{Flag, FlagSet, Providers, read_flags},
    yaml::{self, Findings, Keys, Node, Value},
};

/// What the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FileFlags {
    /// For all pipelines.
    pub all: FlagSet,
    /// For one.
    pub by_pipeline: BTreeMap<PipelineName, FlagSet>,
}

const FILE: Keys = Keys::new("the flags file", &["flags", "pipelines"]);

/// Reads the file's contents over the last good version. Says whether the file is without faults.
pub(super) fn read(
    file: &str,
    bytes: &[u8],
    last_good: &FileFlags,
    providers: &Providers,
) -> (FileFlags, Vec<Diagnostic>) {
    let document = match yaml::parse(file, bytes) {
        Ok(document) => document,
        Err(problem) => {
            let mut flags = last_good.clone();
            flags.lay_over(salvage(bytes, providers));
            return (flags, vec![*problem]);
        }
    };
    let mut findings = Findings::new(file, &document.text);
    let read = read_root(&document.root, providers, &mut findings);
    let flags = if findings.has_errors() {
        let mut flags = last_good.clone();
        flags.lay_over(read);
        flags
    } else {
        read
    };
    (flags, findings.finish())
}

fn read_root(root: &Node, providers: &Providers, findings: &mut Findings) -> FileFlags {
    let mut flags = FileFlags::default();
    if root.is_null() {
        return flags;
    }
    let Value::Map(entries) = &root.value else {
        root.section(&FILE, findings);
        return flags;
    };
    // Whatever is no key of the file is a flag, or meant to be one.
    let (keys, names): (Vec<_>, Vec<_>) =
        entries.iter().cloned().partition(|entry| FILE.known.contains(&entry.key.text.as_str()));
    let part = |entries| {
        let mut node = root.clone();
        node.value = Value::Map(entries);
        node
    };
    flags.all = read_flags(&part(names), providers, findings);
    let keys = part(keys);
    let Some(section) = keys.section(&FILE, findings) else { return flags };
    if let Some(node) = section.get("flags").filter(|node| !node.is_null()) {
        for (flag, value) in read_flags(node, providers, findings).0 {
            if flags.all.get(&flag).is_some_and(|other| other != value) {
                let message = format!("`{flag}` is true in one place of this file and false in another");
                findings.error("conflicting-keys", node.position, message, "keep one of the two");
            }
            // Of two, the one that is true: a switch is not lost to a contradiction.
            let either = value || flags.all.get(&flag) == Some(true);
            flags.all.0.insert(flag, either);
        }
    }
    if let Some(node) = section.get("pipelines").filter(|node| !node.is_null()) {
        for entry in node.entries("pipelines", findings).unwrap_or_default() {
            let Some(name) = entry.key.name::<PipelineName>("pipelines", findings) else { continue };
            flags.by_pipeline.insert(name, read_flags(&entry.value, providers, findings));
        }
    }
    warn_of_two(&flags.all, root, findings);
    flags
}

fn warn_of_two(all: &FlagSet, root: &Node, findings: &mut Findings) {
    let forced: Vec<String> = all
        .0
        .iter()
        .filter(|(flag, value)| **value && matches!(flag, Flag::Force(_)))
        .map(|(flag, _)| format!("`{flag}`"))
        .collect();
    if forced.len() > 1 {
        let message = format!("{} are true at once, so every job is held", forced.join(" and "));
        findings.warning("forced-twice", root.position, message, "keep one of them true");
    }
}

/// Warns of pipelines that no spec defines. They may come later, so their flags stay.
pub(super) fn warn_of_strangers<'a>(
    flags: &FileFlags,
    file: &str,
    bytes: &[u8],
    known: impl Iterator<Item = &'a str> + Clone,
) -> Vec<Diagnostic> {
    let strangers: Vec<&PipelineName> =
        flags.by_pipeline.keys().filter(|name| known.clone().all(|known| known != name.as_str())).collect();
    let mut warnings = Vec::new();
    for name in strangers {
        let message = format!("no spec defines a pipeline `{name}`");
        let help = match nearest(name.as_str(), known.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "the flags wait until one does".to_owned(),
        };
        let mut warning = Diagnostic::warning("unknown-pipeline", file, message).help(help);
        if let Some((position, text)) = super::place::of_key(file, bytes, &["pipelines"], name.as_str()) {
            warning = warning.at(position, &text);
        }
        warnings.push(warning);
    }
    warnings
}

/// What can be made out of a file that is not YAML: each part that stands at the margin is looked at on its own.
fn salvage(bytes: &[u8], providers: &Providers) -> FileFlags {
    let text = String::from_utf8_lossy(bytes.get(..bytes.len().min(yaml::MAX_BYTES)).unwrap_or_default());
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut blocks: Vec<String> = Vec::new();
    for line in text.lines() {
        let goes_on = line.is_empty() || line.starts_with([' ', '\t', '#', '}']);
        match blocks.last_mut() {
            Some(block) if goes_on => block.extend([line, "\n"]),
            _ => blocks.push(format!("{line}\n")),
        }
    }
    let mut flags = FileFlags::default();
    for block in blocks {
        if let Ok(document) = yaml::parse("", block.as_bytes()) {
            flags.lay_over(read_root(&document.root, providers, &mut Findings::new("", "")));
        } else if !block.starts_with("pipelines") {
            let lines = block.lines().filter_map(|line| {
                let (name, value) = line.trim().split_once(':')?;
                let flag = Flag::parse(name.trim().trim_matches(['"', '\'']), providers.keys())?;
                let value = value.split('#').next().unwrap_or_default().trim();
                Some((flag, value.parse::<bool>().ok()?))
            });
            flags.all.0.extend(lines);
        }
    }
    flags
}

impl FileFlags {
    fn lay_over(&mut self, newer: Self) {
        self.all.0.extend(newer.all.0);
        for (name, flags) in newer.by_pipeline {
            self.by_pipeline.entry(name).or_default().0.extend(flags.0);
        }
    }

    /// As a file that [`read`] reads back.
    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        for (flag, value) in &self.all.0 {
            let _ = writeln!(text, "{flag}: {value}");
        }
        if !self.by_pipeline.is_empty() {
            text.push_str("pipelines:\n");
        }
        for (name, flags) in &self.by_pipeline {
            let entries: Vec<String> = flags.0.iter().map(|(flag, value)| format!("{flag}: {value}")).collect();
            // Quoted, because a name may look like a number.
            let _ = writeln!(text, "  \"{name}\": {{ {} }}", entries.join(", "));
        }
        text
    }
}
