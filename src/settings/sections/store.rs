//! `store` and `store_direct`: where jobs are kept.
//!
//! Invariant: a database's password is read from the environment when it is needed, and stands in no settings value.

use crate::{
    settings::{DatabaseUrl, Environment, Secret, StoreSetting, layers::layer_of, secret::variable},
    store::postgres::check_address,
    yaml::{Findings, Keys, Node, Value},
};

/// Where jobs are kept when the settings are silent.
pub(in crate::settings) const DEFAULT: &str = "data/landbridge.db";

const KEYS: Keys = Keys::new("a store", &["env"]);
const HELP: &str = "write `sqlite:PATH`, `postgres://USER@HOST/DATABASE`, `memory:` or `{ env: NAME }`";

/// A text that says where, and the variable that it stands in, if it does.
struct Said<'a> {
    text: &'a str,
    variable: Option<String>,
    node: &'a Node,
}

/// Reads `sqlite:PATH`, `postgres://…`, `memory:`, or the variable that says one of them.
pub(in crate::settings) fn read(
    node: &Node,
    environment: &Environment,
    findings: &mut Findings,
) -> Option<StoreSetting> {
    let said = said("store", node, environment, findings)?;
    let (scheme, rest) = said.text.split_once(':').unwrap_or((said.text, ""));
    let (message, help) = match (scheme, rest) {
        ("sqlite", ":memory:") => ("`store: sqlite::memory:` is spelled otherwise here", "write `memory:`"),
        ("sqlite", path) if path.starts_with("//") => {
            ("`store` has slashes before its path", "write the path right after the colon: `sqlite:PATH`")
        }
        ("sqlite", "") => ("`store` names no file", "write `sqlite:data/landbridge.db`"),
        ("sqlite", path) => return Some(StoreSetting::Sqlite(path.into())),
        ("memory", "") if said.text.ends_with(':') => return Some(StoreSetting::Memory),
        ("postgres" | "postgresql", _) => {
            return database("store", said, findings).map(|url| StoreSetting::Postgres { url, direct: None });
        }
        _ => ("`store` is of no known kind", HELP),
    };
    findings.error_unshown("bad-store", said.node.position, message, help);
    None
}

/// Reads `store_direct`, which only a store on PostgreSQL can have.
pub(in crate::settings) fn direct(
    node: &Node,
    store: StoreSetting,
    environment: &Environment,
    findings: &mut Findings,
) -> Option<StoreSetting> {
    let StoreSetting::Postgres { url, .. } = store else {
        let message = "`store_direct` is the way past a pooler to a `store` on PostgreSQL, and `store` is none";
        findings.error_unshown("bad-store", node.position, message, "remove it");
        return None;
    };
    let said = said("store_direct", node, environment, findings)?;
    let direct = database("store_direct", said, findings)?;
    Some(StoreSetting::Postgres { url, direct: Some(direct) })
}

fn said<'a>(key: &str, node: &'a Node, environment: &'a Environment, findings: &mut Findings) -> Option<Said<'a>> {
    if !matches!(node.value, Value::Map(_)) {
        let text = node.line(key, 4_096, findings)?;
        let name = format!("LANDBRIDGE_{}", key.to_ascii_uppercase());
        let above = layer_of(node.position) > 0;
        let variable = environment.get(&name).filter(|value| above && value.trim() == text).map(|_| name);
        return Some(Said { text, variable, node });
    }
    let section = node.section(&KEYS, findings)?;
    let named = section.require("env", findings)?;
    let name = variable(key, named, findings)?;
    let Some(text) = environment.get(&name).filter(|text| !text.trim().is_empty()) else {
        let message = format!("`{key}` is to be read from the environment variable {name}, which is not set");
        let help = "set it where the daemon is started, or write `sqlite:PATH`";
        findings.error_unshown("not-set", named.position, message, help);
        return None;
    };
    Some(Said { text: text.trim(), variable: Some(name), node: named })
}

/// Says what is wrong without repeating the text: a database's address often holds a password.
fn database(key: &str, said: Said<'_>, findings: &mut Findings) -> Option<DatabaseUrl> {
    if let Err(error) = check_address(said.text) {
        let message = format!("`{key}`: {error}");
        findings.error_unshown("bad-store", said.node.position, message, HELP);
        return None;
    }
    match said.variable {
        Some(variable) => Some(DatabaseUrl::Secret(Secret::Env(variable))),
        None if holds_password(said.text) => {
            let message = format!("`{key}` holds a password, which does not stand in a settings file or a command");
            let help = format!(
                "put the address into an environment variable and write `{key}: {{ env: DATABASE_URL }}`, and change the \
                 password if this file was shared"
            );
            findings.error_unshown("literal-secret", said.node.position, message, help);
            None
        }
        None => Some(DatabaseUrl::Plain(said.text.to_owned())),
    }
}

fn holds_password(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (base, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = base.split('/').next().unwrap_or(base);
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    user.contains(':') || query.split('&').any(|pair| pair.starts_with("password="))
}
