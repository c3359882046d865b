//! The `flags` of a spec, of one of its tests, and of a file that is broken elsewhere.

use super::targets::Targets;
use crate::{
    names::{ProviderName, nearest},
    spec::{
        flags::{Flag, FlagSet},
        providers::Providers,
    },
    yaml::{Findings, Node, in_backticks, shortened},
};

/// Reads a mapping from flags to booleans. What is wrong in it is left out of the set, and said.
pub fn read(node: &Node, providers: &Providers, findings: &mut Findings) -> FlagSet {
    let mut flags = FlagSet::default();
    for entry in node.entries("flags", findings).unwrap_or_default() {
        let text = entry.key.text.as_str();
        let Some(flag) = Flag::parse(text, providers.keys()) else {
            let known: Vec<String> = Flag::known(providers.keys()).iter().map(ToString::to_string).collect();
            let names = || known.iter().map(String::as_str);
            let help = nearest(&text.to_ascii_uppercase().replace('-', "_"), names()).map_or_else(
                || format!("with the providers configured there is {}", in_backticks(names())),
                |near| format!("did you mean `{near}`?"),
            );
            findings.error("unknown-flag", entry.key.position, format!("there is no flag `{}`", shortened(text)), help);
            continue;
        };
        if let Some(value) = entry.value.boolean(text, findings) {
            flags.0.insert(flag, value);
        }
    }
    flags
}

/// Looks at what the spec's own flags would do to it.
pub(super) fn check_forced(
    node: &Node,
    flags: &FlagSet,
    targets: &Targets,
    providers: &Providers,
    findings: &mut Findings,
) {
    let Some(entries) = node.entries("flags", &mut Findings::new("", "")) else { return };
    let mut first: Option<&ProviderName> = None;
    for entry in entries {
        let Some(flag @ Flag::Force(provider)) = flags.0.keys().find(|flag| flag.to_string() == entry.key.text) else {
            continue;
        };
        if flags.get(flag) != Some(true) {
            continue;
        }
        if let Some(first) = first {
            let message = format!("`{first}` and `{provider}` are both forced, so every job would be held");
            findings.error("forced-twice", entry.key.position, message, "keep one of the two true");
            continue;
        }
        first = Some(provider);
        let serves = |name: &ProviderName| {
            name == provider || providers.get(name).is_some_and(|facts| facts.family.as_ref() == Some(provider))
        };
        if !targets.providers().any(serves) {
            let message = format!("no target uses the provider `{provider}`, so every job would be held");
            let help = format!("add a target of the provider `{provider}`, or set the flag to false");
            findings.warning("forced-without-target", entry.key.position, message, help);
        }
    }
}
