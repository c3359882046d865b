//! `store`: where jobs are kept.

use crate::{
    settings::{Environment, StoreSetting, secret::variable},
    yaml::{Findings, Keys, Node, Value},
};

/// Where jobs are kept when the settings are silent.
pub(in crate::settings) const DEFAULT: &str = "data/landbridge.db";

const KEYS: Keys = Keys::new("a store", &["env"]);
const HELP: &str = "write `sqlite:PATH`, `memory:` or `{ env: NAME }`";

/// Reads `sqlite:PATH`, `memory:`, or the variable that says one of them.
pub(in crate::settings) fn read(
    node: &Node,
    environment: &Environment,
    findings: &mut Findings,
) -> Option<StoreSetting> {
    if !matches!(node.value, Value::Map(_)) {
        return parse(node.line("store", 4_096, findings)?, node, findings);
    }
    let section = node.section(&KEYS, findings)?;
    let named = section.require("env", findings)?;
    let name = variable("store", named, findings)?;
    let Some(text) = environment.get(&name).filter(|text| !text.trim().is_empty()) else {
        let message = format!("`store` is to be read from the environment variable {name}, which is not set");
        findings.error(
            "not-set",
            named.position,
            message,
            "set it where the daemon is started, or write `sqlite:PATH`",
        );
        return None;
    };
    parse(text.trim(), named, findings)
}

/// Says what is wrong without repeating the text: a database address often holds a password.
fn parse(text: &str, node: &Node, findings: &mut Findings) -> Option<StoreSetting> {
    let (scheme, rest) = text.split_once(':').unwrap_or((text, ""));
    let (code, message, help) = match (scheme, rest) {
        ("sqlite", ":memory:") => {
            ("bad-store", "`store: sqlite::memory:` is spelled otherwise here", "write `memory:`")
        }
        ("sqlite", path) if path.starts_with("//") => {
            ("bad-store", "`store` has slashes before its path", "write the path right after the colon: `sqlite:PATH`")
        }
        ("sqlite", "") => ("bad-store", "`store` names no file", "write `sqlite:data/landbridge.db`"),
        ("sqlite", path) => return Some(StoreSetting::Sqlite(path.into())),
        ("memory", "") if text.ends_with(':') => return Some(StoreSetting::Memory),
        ("postgres" | "postgresql", _) => {
            ("not-in-this-release", "a `store` on PostgreSQL is not part of this release", "write `sqlite:PATH`")
        }
        _ => ("bad-store", "`store` is of no known kind", HELP),
    };
    findings.error_unshown(code, node.position, message, help);
    None
}
