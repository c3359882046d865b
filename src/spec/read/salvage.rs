//! The flags of a file that is broken elsewhere: a kill switch saved in a half-edited spec must get through.
//!
//! Invariant: only entries that are unmistakable (a known flag, `true` or `false`) come out; everything else in the
//! file is ignored, and nothing here says what is wrong with it: the reader does.

use super::flags;
use crate::{
    names::PipelineName,
    spec::{
        flags::{Flag, FlagSet},
        providers::Providers,
    },
    yaml::{self, Findings, Node, Value},
};

/// The flags of `file`, whatever else is wrong with it; `None` when it has no `flags` that can be made out.
///
/// Entries that cannot be read are left out, so a caller should let a salvaged `true` through and keep the last good
/// value of every flag that is absent.
pub fn salvage_flags(file: &str, text: &[u8], providers: &Providers) -> Option<FlagSet> {
    if let Ok(document) = yaml::parse(file, text) {
        return flags_of(&document.root, providers);
    }
    let block = block_of("flags", text)?;
    if let Ok(document) = yaml::parse(file, block.as_bytes())
        && let Some(flags) = flags_of(&document.root, providers)
    {
        return Some(flags);
    }
    let lines = block.lines().filter_map(|line| {
        let (name, value) = line.trim().split_once(':')?;
        let flag = Flag::parse(name.trim().trim_matches(['"', '\'']), providers.keys())?;
        let value = value.split('#').next().unwrap_or_default().trim();
        Some((flag, value.parse::<bool>().ok()?))
    });
    let flags = FlagSet(lines.collect());
    (!flags.0.is_empty()).then_some(flags)
}

/// The name of the pipeline that `file` is about, whatever else is wrong with it.
pub fn salvage_name(file: &str, text: &[u8]) -> Option<PipelineName> {
    let parse = |bytes: &[u8]| yaml::parse(file, bytes).ok();
    let document = parse(text).or_else(|| parse(block_of("name", text)?.as_bytes()))?;
    match &value_of(&document.root, "name")?.value {
        Value::Text(name) => name.parse().ok(),
        _ => None,
    }
}

fn flags_of(root: &Node, providers: &Providers) -> Option<FlagSet> {
    let node = value_of(root, "flags")?;
    matches!(node.value, Value::Map(_)).then(|| flags::read(node, providers, &mut Findings::new("", "")))
}

fn value_of<'n>(root: &'n Node, key: &str) -> Option<&'n Node> {
    let Value::Map(entries) = &root.value else { return None };
    entries.iter().find(|entry| entry.key.text == key).map(|entry| &entry.value)
}

/// The lines of a top-level key: from `key:` at the margin to the next line at the margin.
fn block_of(key: &str, text: &[u8]) -> Option<String> {
    let text = text.get(..text.len().min(yaml::MAX_BYTES))?;
    let text = String::from_utf8_lossy(text);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let opens = |line: &str| line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(':'));
    let mut lines = text.lines().skip_while(|line| !opens(line));
    let mut block = format!("{}\n", lines.next()?);
    for line in lines.take_while(|line| line.is_empty() || line.starts_with([' ', '\t', '#', '}'])) {
        block.push_str(line);
        block.push('\n');
    }
    Some(block)
}
