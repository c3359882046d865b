//! From a file, an environment and options to valid settings, or to everything that is wrong with them.
//!
//! Invariant: every problem is found in one go; no finding repeats a line that holds a secret.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read},
    path::Path,
    time::Duration,
};

use super::{
    Environment, MediaSettings, Override, Settings, StoreSetting, WatchSettings, environment,
    layers::{Layers, layer_of},
    sections::{
        batches, callbacks, keys, listen, live, media, prices, providers, quotas, retention, store, tls, watch,
    },
};
use crate::{
    diagnostic::Diagnostic,
    yaml::{self, Findings, Keys, Node, Section, Value},
};

const KEYS: Keys = Keys::new(
    "the settings file",
    &[
        "listen",
        "ops_listen",
        "pipelines",
        "models",
        "store",
        "store_direct",
        "providers",
        "quotas",
        "prices",
        "lease",
        "drain",
        "retention",
        "watch",
        "media",
        "keys",
        "tls",
        "live",
        "batches",
        "policy",
        "callbacks",
    ],
)
.unbuilt(&[("spec_source", "put specs into the `pipelines` folder")]);

/// How long a silent daemon keeps its jobs when the settings are silent.
const LEASE: Duration = Duration::from_secs(30);
/// How long a drain may take when the settings are silent.
const DRAIN: Duration = Duration::from_mins(1);

/// Settings, and what is doubtful about them.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The valid settings.
    pub settings: Settings,
    /// Warnings, none of them an error.
    pub warnings: Vec<Diagnostic>,
}

impl Settings {
    /// Reads the file at `path`, then the environment, then the options; the later wins.
    ///
    /// # Errors
    /// Everything that is wrong, with warnings among it.
    pub fn load(path: &Path, environment: &Environment, overrides: &[Override]) -> Result<Loaded, Vec<Diagnostic>> {
        let file = path.display().to_string();
        let mut bytes = Vec::new();
        let most = yaml::MAX_BYTES as u64 + 1;
        match File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes)) {
            Ok(_) => Self::read(path, &bytes, environment, overrides),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let problem = Diagnostic::error("no-settings", &file, format!("there is no settings file {file}"));
                Err(vec![
                    problem.help("write a starter folder with `landbridge init`, or name the file with `--config`"),
                ])
            }
            Err(error) => {
                let message = format!("the settings file {file} cannot be read: {error}");
                Err(vec![Diagnostic::error("unreadable", &file, message).help("let the daemon's user read it")])
            }
        }
    }

    /// The same for bytes that were read from `path` already.
    ///
    /// # Errors
    /// Everything that is wrong, with warnings among it.
    pub fn read(
        path: &Path,
        bytes: &[u8],
        environment: &Environment,
        overrides: &[Override],
    ) -> Result<Loaded, Vec<Diagnostic>> {
        let file = path.display().to_string();
        let document = yaml::parse(&file, bytes).map_err(|problem| vec![without_secret(*problem)])?;
        let mut findings = Findings::new(&file, &document.text);
        check_shape(&document.root, &mut findings);
        let unbuilt: Vec<&str> = KEYS.unbuilt.iter().map(|(key, _)| *key).collect();
        let mut layers = Layers::of_file(&file, document.root);
        let mut elsewhere = environment::add(&mut layers, environment, &unbuilt);
        elsewhere.extend(environment::add_overrides(&mut layers, overrides));
        let merged = layers.merge().map_err(|problem| vec![*problem])?;
        let settings = settings(path, &merged, environment, &mut findings);
        let mut found = without_secrets(findings.finish());
        found = found.into_iter().map(|diagnostic| layers.localise(diagnostic)).collect();
        found.extend(elsewhere);
        match settings {
            Some(settings) if !found.iter().any(Diagnostic::is_error) => Ok(Loaded { settings, warnings: found }),
            _ => Err(found),
        }
    }
}

/// What merging would hide: a file that is no mapping, and keys that stand twice.
fn check_shape(root: &Node, findings: &mut Findings) {
    match &root.value {
        Value::Null => {}
        Value::Map(_) => check_repeats(root, findings),
        _ => {
            let _ = root.entries("the settings file", findings);
        }
    }
}

fn check_repeats(node: &Node, findings: &mut Findings) {
    for entry in node.entries("a mapping", findings).unwrap_or_default() {
        if matches!(entry.value.value, Value::Map(_)) {
            check_repeats(&entry.value, findings);
        }
    }
}

fn settings(path: &Path, root: &Node, environment: &Environment, findings: &mut Findings) -> Option<Settings> {
    let section = root.section(&KEYS, findings)?;
    let listen = match section.get("listen") {
        None => listen::DEFAULT.parse().ok(),
        Some(node) => listen::address("listen", node, findings),
    };
    let ops_listen = match section.get("ops_listen") {
        None => Some(None),
        Some(node) => listen::address("ops_listen", node, findings).map(Some),
    };
    if let (Some(node), Some(listen), Some(Some(ops))) = (section.get("ops_listen"), listen, ops_listen)
        && listen == ops
        && ops.port() != 0
    {
        let message = format!("`ops_listen` is {ops}, which `listen` takes already");
        findings.error("same-address", node.position, message, "give it a port of its own, or remove it");
    }
    let pipelines = folder(&section, "pipelines", "pipelines", findings);
    let models = folder(&section, "models", "config/models", findings);
    let policy = match section.get("policy") {
        None => Some(path.with_file_name("policy.yaml")),
        Some(_) => folder(&section, "policy", "config/policy.yaml", findings),
    };
    let store = match section.get("store") {
        None => Some(StoreSetting::Sqlite(store::DEFAULT.into())),
        Some(node) => store::read(node, environment, findings),
    };
    let store = match (section.get("store_direct"), store) {
        (Some(node), Some(store)) => store::direct(node, store, environment, findings),
        (_, store) => store,
    };
    let providers = section.require("providers", findings).and_then(|node| providers::read(node, findings));
    let names = section.get("providers").map_or_else(BTreeSet::new, providers::names);
    let quotas =
        section.get("quotas").map_or(Some(Vec::new()), |node| quotas::read(node, &names, providers.as_ref(), findings));
    let prices = section.get("prices").map_or(Some([].into()), |node| prices::read(node, &names, findings));
    let lease = span(&section, "lease", LEASE, Duration::from_secs(1)..=Duration::from_hours(1), findings);
    let drain = span(&section, "drain", DRAIN, Duration::ZERO..=Duration::from_hours(1), findings);
    let retention = section.get("retention");
    let retention = retention.map_or(Some(retention::DEFAULT), |node| retention::read(node, findings));
    let watch = section.get("watch").map_or(Some(WatchSettings::default()), |node| watch::read(node, findings));
    let media = section.get("media").map_or(Some(MediaSettings::default()), |node| media::read(node, findings));
    let keys = section.get("keys").map_or(Some(Vec::new()), |node| keys::read(node, findings));
    let tls = match section.get("tls") {
        None => Some(None),
        Some(node) => tls::read(node, findings).map(Some),
    };
    let live = section.get("live").map_or(Some(live::DEFAULT), |node| live::read(node, findings));
    let batches = section.get("batches").map_or(Some(batches::DEFAULT), |node| batches::read(node, findings));
    let callbacks = match section.get("callbacks") {
        None => Some(None),
        Some(node) => callbacks::read(node, findings).map(Some),
    };
    Some(Settings {
        listen: listen?,
        ops_listen: ops_listen?,
        pipelines: pipelines?,
        models: models?,
        flags_file: path.with_file_name("flags.yaml"),
        catalog_file: path.with_file_name("catalog.yaml"),
        policy: policy?,
        store: store?,
        providers: providers?,
        quotas: quotas?,
        prices: prices?,
        lease: lease?,
        drain: drain?,
        retention: retention?,
        watch: watch?,
        media: media?,
        keys: keys?,
        tls: tls?,
        live: live?,
        batches: batches?,
        callbacks: callbacks?,
    })
}

fn folder(section: &Section<'_>, key: &str, default: &str, findings: &mut Findings) -> Option<std::path::PathBuf> {
    section.get(key).map_or(Some(default), |node| node.line(key, 4_096, findings)).map(Into::into)
}

fn span(
    section: &Section<'_>,
    key: &str,
    default: Duration,
    range: std::ops::RangeInclusive<Duration>,
    findings: &mut Findings,
) -> Option<Duration> {
    section.get(key).map_or(Some(default), |node| node.span(key, range, findings))
}

/// Of two keys that exclude each other, the one that counts: the one from the higher layer.
pub(super) fn either<'n>(
    section: &Section<'n>,
    first: &str,
    second: &str,
    what: &str,
    findings: &mut Findings,
) -> Option<(Option<&'n Node>, Option<&'n Node>)> {
    let help = format!("write either `{first}` or `{second}`");
    match (section.get(first), section.get(second)) {
        (None, None) => {
            findings.error("missing-key", section.position(), format!("`{what}` says neither"), help);
            None
        }
        (Some(one), Some(other)) => match layer_of(one.position).cmp(&layer_of(other.position)) {
            std::cmp::Ordering::Greater => Some((Some(one), None)),
            std::cmp::Ordering::Less => Some((None, Some(other))),
            std::cmp::Ordering::Equal => {
                findings.error("conflict", other.position, format!("`{what}` says both"), help);
                None
            }
        },
        one => Some(one),
    }
}

/// Takes out every repetition of a line that some finding says holds a secret, or that looks as if it did.
fn without_secrets(found: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let hidden: BTreeSet<u32> = found
        .iter()
        .filter(|diagnostic| diagnostic.source_line.is_none())
        .filter_map(|diagnostic| Some(diagnostic.position?.line))
        .collect();
    let hide = |mut diagnostic: Diagnostic| {
        if diagnostic.position.is_some_and(|at| hidden.contains(&at.line)) {
            diagnostic.source_line = None;
        }
        without_secret(diagnostic)
    };
    found.into_iter().map(hide).collect()
}

/// Takes the line out if a key stands in it that is not a place.
fn without_secret(mut diagnostic: Diagnostic) -> Diagnostic {
    let holds_secret = |line: &str| {
        let after = line.split_once("api_key").map(|(_, after)| after.trim_start_matches([':', '"', '\'', ' ']));
        after.is_some_and(|value| !value.is_empty() && !value.starts_with('{'))
    };
    if diagnostic.source_line.as_deref().is_some_and(holds_secret) {
        diagnostic.source_line = None;
    }
    diagnostic
}
