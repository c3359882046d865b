//! The environment as settings see it: a snapshot, and which variable says what.
//!
//! `LANDBRIDGE_WATCH__QUIET` is `watch.quiet`: two underscores go one level down, and `-` in a name is `_` in a
//! variable. Variables that say nothing known are warned of, not refused: Kubernetes makes some of its own.
//!
//! Invariant: the process's environment is read in one place, once; everything else gets the snapshot.

use std::collections::BTreeMap;

use super::layers::{Layers, MAX_LAYERS};
use crate::{
    diagnostic::Diagnostic,
    names::{ProviderName, nearest},
    spec::{Flag, FlagSet, Providers},
    yaml::{self, Node, Value},
};

/// Variables by name.
pub type Environment = BTreeMap<String, String>;

/// The process's environment as it is now. Bytes that are not UTF-8 are replaced.
pub fn environment() -> Environment {
    let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value))).collect()
}

/// A setting given on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The option as typed, such as `--listen`.
    pub option: String,
    /// The setting, such as `listen` or `watch.quiet`.
    pub path: String,
    /// Its value as typed.
    pub value: String,
}

const PREFIX: &str = "LANDBRIDGE_";

/// Variables with the prefix that are no settings: flags, and the command line's own.
const NOT_SETTINGS: [&str; 5] = ["PAUSE", "DISABLE_FALLBACK", "URL", "KEY", "CONFIG"];

/// What variables and options can say; `*` stands for a provider's name. A path above one of these, given as a YAML
/// mapping or list, is fine too.
pub(super) const PATHS: &[&str] = &[
    "listen",
    "ops_listen",
    "pipelines",
    "models",
    "store.env",
    "store_direct.env",
    "providers.*.api",
    "providers.*.family",
    "providers.*.data_regions",
    "providers.*.base_url",
    "providers.*.api_key.env",
    "providers.*.api_key.file",
    "providers.*.organization",
    "providers.*.project",
    "providers.*.region",
    "providers.*.auth",
    "providers.*.profile",
    "providers.*.role_arn",
    "providers.*.endpoint_url",
    "quotas",
    "prices.*.multiplier",
    "lease",
    "drain",
    "retention.ledger",
    "retention.audit",
    "keys",
    "tls.cert",
    "tls.key",
    "live.deadline",
    "batches.max_requests",
    "batches.max_megabytes",
    "callbacks.secret",
    "callbacks.allow",
    "callbacks.timeout",
    "watch.mode",
    "watch.quiet",
    "watch.rescan",
    "watch.apply",
    "watch.allow_empty",
    "media.allow",
    "media.max_bytes",
    "media.timeout",
    "media.private",
];

/// Puts a layer on top of `layers` for every variable that says something, and returns what is doubtful or wrong.
pub(super) fn add(layers: &mut Layers, environment: &Environment, unbuilt: &[&str]) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let ours = environment.iter().filter_map(|(name, value)| Some((name, name.strip_prefix(PREFIX)?, value)));
    for (name, rest, value) in ours {
        if NOT_SETTINGS.contains(&rest) {
            continue;
        }
        let origin = origin(name);
        let Some(path) = path(rest, unbuilt) else {
            found.push(unknown(name, &origin));
            continue;
        };
        if value.trim().is_empty() {
            let message = format!("{name} is empty and counts as not set");
            found.push(Diagnostic::warning("empty-variable", &origin, message).help("give it a value, or unset it"));
            continue;
        }
        found.extend(push(layers, origin, &path, value));
    }
    found
}

/// Puts a layer on top of `layers` for every option.
pub(super) fn add_overrides(layers: &mut Layers, overrides: &[Override]) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for given in overrides {
        let path: Vec<String> = given.path.split('.').map(str::to_owned).collect();
        found.extend(push(layers, format!("option {}", given.option), &path, &given.value));
    }
    found
}

fn push(layers: &mut Layers, origin: String, path: &[String], value: &str) -> Option<Diagnostic> {
    if layers.len() >= MAX_LAYERS {
        let message = format!("more than {MAX_LAYERS} settings come from variables and options");
        return Some(Diagnostic::error("too-many", &origin, message).help("put them into the settings file"));
    }
    match node(&origin, value) {
        Ok(node) => {
            layers.push(origin, path, node);
            None
        }
        Err(mut problem) => {
            // The value may be a secret.
            problem.position = None;
            problem.source_line = None;
            Some(*problem)
        }
    }
}

/// A value as its author means it: a boolean, a number, YAML where it looks like it, else the text as it is.
fn node(origin: &str, value: &str) -> Result<Node, Box<Diagnostic>> {
    let looks_like_yaml = value.trim_start().starts_with(['{', '[', '"', '\'']);
    if let Some(document) = parsed(origin, value, looks_like_yaml)? {
        return Ok(document);
    }
    let mut node = yaml::parse(origin, b"text")?.root;
    node.value = Value::Text(value.trim().to_owned());
    Ok(node)
}

fn parsed(origin: &str, value: &str, looks_like_yaml: bool) -> Result<Option<Node>, Box<Diagnostic>> {
    match yaml::parse(origin, value.as_bytes()) {
        Ok(document) => {
            let plain = matches!(document.root.value, Value::Bool(_) | Value::Number(_));
            Ok((plain || looks_like_yaml).then_some(document.root))
        }
        Err(problem) if looks_like_yaml => Err(problem),
        Err(_) => Ok(None),
    }
}

/// Where a variable leads: `PROVIDERS__BEDROCK_EU__REGION` to `providers.bedrock-eu.region`.
fn path(rest: &str, unbuilt: &[&str]) -> Option<Vec<String>> {
    let steps: Vec<String> = rest.split("__").map(str::to_ascii_lowercase).collect();
    if steps.first().is_some_and(|first| unbuilt.contains(&first.as_str())) {
        return Some(steps);
    }
    PATHS.iter().find_map(|known| {
        let mut path = Vec::with_capacity(steps.len());
        let mut keys = known.split('.');
        for step in &steps {
            match keys.next()? {
                "*" => path.push(step.replace('_', "-")),
                key if key == step => path.push(step.clone()),
                _ => return None,
            }
        }
        Some(path)
    })
}

fn unknown(name: &str, origin: &str) -> Diagnostic {
    let spelled: Vec<String> = PATHS
        .iter()
        .filter(|path| !path.contains('*'))
        .map(|path| format!("{PREFIX}{}", path.to_ascii_uppercase().replace('.', "__")))
        .collect();
    let help = nearest(name, spelled.iter().map(String::as_str)).map_or_else(
        || "if it is not meant as a setting, nothing needs to be done".to_owned(),
        |near| format!("did you mean {near}?"),
    );
    Diagnostic::warning("unknown-variable", origin, format!("{name} is no setting and changes nothing")).help(help)
}

fn origin(name: &str) -> String {
    format!("environment variable {name}")
}

/// The flags that the environment sets for all pipelines: `FORCE_<NAME>_PROVIDER`, `LANDBRIDGE_PAUSE` and
/// `LANDBRIDGE_DISABLE_FALLBACK`, with what is doubtful about them. An error among the findings is a lever whose
/// position cannot be read: a daemon should not start on a guess.
pub fn environment_flags(environment: &Environment, providers: &Providers) -> (FlagSet, Vec<Diagnostic>) {
    let mut flags = FlagSet::default();
    let mut found = Vec::new();
    for (name, value) in environment {
        let flag = match name.as_str() {
            "LANDBRIDGE_PAUSE" => Flag::Pause,
            "LANDBRIDGE_DISABLE_FALLBACK" => Flag::DisableFallback,
            _ if name.starts_with("FORCE_") && name.ends_with("_PROVIDER") => {
                let Some(flag) = Flag::parse(name, providers.keys()) else {
                    found.push(unknown_provider(name, providers));
                    continue;
                };
                flag
            }
            _ => continue,
        };
        match value.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => {
                flags.0.insert(flag, true);
            }
            "false" | "0" | "no" | "off" => {
                flags.0.insert(flag, false);
            }
            "" => {}
            _ => {
                let message = format!("{name} is neither true nor false");
                found.push(Diagnostic::error("bad-flag", &origin(name), message).help("write true or false"));
            }
        }
    }
    (flags, found)
}

fn unknown_provider(name: &str, providers: &Providers) -> Diagnostic {
    let spelled: Vec<String> =
        providers.keys().cloned().map(|name: ProviderName| Flag::Force(name).to_string()).collect();
    let help = nearest(name, spelled.iter().map(String::as_str)).map_or_else(
        || format!("the flags of this kind are {}", spelled.join(", ")),
        |near| format!("did you mean {near}?"),
    );
    let message = format!("{name} names no configured provider and changes nothing");
    Diagnostic::warning("unknown-provider", &origin(name), message).help(help)
}
