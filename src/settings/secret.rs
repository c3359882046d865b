//! Where a secret is, and reading it at the moment of use.
//!
//! Invariant: a value that was read can be used but not shown: it has no `Display`, and its `Debug` says nothing.

use std::{
    fmt, fs, io,
    io::Read,
    path::{Path, PathBuf},
};

use super::Secret;
use crate::yaml::{Findings, Keys, Node, Value};

/// Keys and tokens are some hundred bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// A secret that was read.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(String);

impl SecretValue {
    /// A value that is no secret, where one is expected.
    pub(super) fn of(value: &str) -> Self {
        Self(value.to_owned())
    }

    /// The secret itself; for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(…)")
    }
}

/// Why a secret cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The variable is not set, or empty.
    #[error("the environment variable {0} is not set; set it where the daemon is started")]
    NotSet(String),
    /// The file cannot be read.
    #[error("the secret file {0} cannot be read: {1}")]
    Unreadable(PathBuf, #[source] io::Error),
    /// The file holds nothing that could be a secret.
    #[error("the secret file {0} holds {1}")]
    Unusable(PathBuf, &'static str),
}

impl Secret {
    /// Reads it now.
    ///
    /// # Errors
    /// [`SecretError`] with what to do.
    pub fn read(&self) -> Result<SecretValue, SecretError> {
        match self {
            Self::Env(name) => match std::env::var(name) {
                Ok(value) if !value.trim().is_empty() => Ok(SecretValue(value.trim().to_owned())),
                _ => Err(SecretError::NotSet(name.clone())),
            },
            Self::File(path) => read_file(path),
        }
    }
}

/// The name of the place, never what is there.
impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
        }
    }
}

fn read_file(path: &Path) -> Result<SecretValue, SecretError> {
    let unreadable = |error| SecretError::Unreadable(path.to_owned(), error);
    let mut text = String::new();
    let file = fs::File::open(path).map_err(unreadable)?;
    let length = file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    if length as u64 > MAX_BYTES {
        return Err(SecretError::Unusable(path.to_owned(), "more than 64 KiB"));
    }
    match text.trim() {
        "" => Err(SecretError::Unusable(path.to_owned(), "nothing")),
        secret => Ok(SecretValue(secret.to_owned())),
    }
}

const KEYS: Keys = Keys::new("a secret", &["env", "file"]);
const HELP: &str = "write `{ env: NAME }` or `{ file: PATH }`, and withdraw the secret if this file was shared";

/// Reads where a secret is. A secret itself, standing where its place should, is refused without being repeated.
pub(super) fn secret(what: &str, node: &Node, findings: &mut Findings) -> Option<Secret> {
    if !matches!(node.value, Value::Map(_) | Value::Null) {
        let message = format!("`{what}` says where the secret is, and never holds it");
        findings.error_unshown("literal-secret", node.position, message, HELP);
        return None;
    }
    let section = node.section(&KEYS, findings)?;
    let (env, file) = super::load::either(&section, "env", "file", what, findings)?;
    if let Some(node) = env {
        return variable(what, node, findings).map(Secret::Env);
    }
    file.and_then(|node| node.line("file", 4_096, findings)).map(|path| Secret::File(path.into()))
}

/// Reads a variable's name.
pub(super) fn variable(what: &str, node: &Node, findings: &mut Findings) -> Option<String> {
    let name = node.line("env", 256, findings)?;
    let mut bytes = name.bytes();
    let starts = bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_');
    if starts && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Some(name.to_owned());
    }
    let message = format!("`{what}` needs the name of an environment variable under `env`");
    findings.error_unshown("bad-variable", node.position, message, "write a name such as OPENAI_API_KEY");
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_from_its_place_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let secret = Secret::File(path.clone());
        assert!(matches!(secret.read(), Err(SecretError::Unreadable(..))));
        for (written, expected) in [("sk-1\n", Some("sk-1")), (" \n", None), ("sk-longer", Some("sk-longer"))] {
            fs::write(&path, written).unwrap();
            assert_eq!(secret.read().ok().as_ref().map(SecretValue::expose), expected);
        }
        let shown = format!("{:?} {:?}", secret.read().unwrap(), secret);
        assert!(!shown.contains("sk-"), "{shown}");
        fs::write(&path, "x".repeat(70_000)).unwrap();
        assert!(matches!(secret.read(), Err(SecretError::Unusable(_, "more than 64 KiB"))));
    }

    #[test]
    fn a_variable_that_is_not_set_is_named() {
        let error = Secret::Env("LANDBRIDGE_TEST_NOT_SET".into()).read().unwrap_err().to_string();
        assert!(error.contains("LANDBRIDGE_TEST_NOT_SET"), "{error}");
    }
}
