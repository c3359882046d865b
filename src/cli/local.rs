//! The settings at hand: where a daemon on this machine listens, and which folders it watches.
//!
//! Invariant: only what a command needs is looked at, so that a lever can be pulled while some other setting is broken.
//! A missing settings file means the defaults; a setting that cannot be read is never guessed around.

use std::{
    fs::File,
    io::{self, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::exit::{Failure, Result};
use crate::{
    catalog::Catalog,
    settings::{Environment, environment},
    yaml,
};

/// Where a daemon listens when nobody says otherwise.
const DEFAULT_LISTEN: &str = "127.0.0.1:4100";

/// Where jobs are kept when nobody says otherwise.
const DEFAULT_STORE: &str = "sqlite:data/landbridge.db";

/// The settings at hand, as they are written.
pub struct Local {
    config: PathBuf,
    file: Value,
    environment: Environment,
}

impl Local {
    /// Reads the settings file, if there is one, and the environment.
    ///
    /// # Errors
    /// When there is a file that cannot be read, or that is not YAML.
    pub fn read(config: &Path) -> Result<Self> {
        let name = config.display().to_string();
        let bytes = read(config).map_err(|error| Failure::settings(format!("{name} cannot be read: {error}")))?;
        let file = match bytes {
            None => Value::Null,
            Some(bytes) => {
                let document = yaml::parse(&name, &bytes).map_err(|problem| Failure::settings(problem.to_string()))?;
                document.root.to_json().unwrap_or_default()
            }
        };
        Ok(Self { config: config.to_owned(), file, environment: environment() })
    }

    fn text(&self, key: &str, default: &str) -> Result<String> {
        if let Some(value) = self.environment.get(&format!("LANDBRIDGE_{}", key.to_ascii_uppercase())) {
            return Ok(value.clone());
        }
        match self.file.get(key) {
            None | Some(Value::Null) => Ok(default.to_owned()),
            Some(Value::String(value)) => Ok(value.clone()),
            Some(other) => Err(self.bad(&format!("`{key}` is {other}, not text"))),
        }
    }

    fn bad(&self, what: &str) -> Failure {
        Failure::settings(format!("{}: {what}; `landbridge check` says more", self.config.display()))
    }

    /// Where a daemon with these settings is reached from this machine.
    ///
    /// # Errors
    /// When `listen` is not an address.
    pub fn url(&self) -> Result<String> {
        let listen = self.text("listen", DEFAULT_LISTEN)?;
        let address = listen
            .parse()
            .map_err(|_| self.bad(&format!("`listen` is {listen:?}, not an address such as {DEFAULT_LISTEN}")))?;
        let scheme = if self.file.get("tls").is_some_and(|tls| !tls.is_null()) { "https" } else { "http" };
        Ok(url_of(scheme, address))
    }

    /// The store that the settings name, wherever they say so.
    ///
    /// # Errors
    /// When it is not text, or the variable that should hold it is not set.
    pub fn store(&self) -> Result<String> {
        let named = self.file.get("store").and_then(|store| store.get("env")).and_then(Value::as_str);
        match named.filter(|_| !self.environment.contains_key("LANDBRIDGE_STORE")) {
            None => self.text("store", DEFAULT_STORE),
            Some(name) => match self.environment.get(name) {
                Some(store) => Ok(store.trim().to_owned()),
                None => Err(self.bad(&format!("`store` is in the environment variable {name}, which is not set"))),
            },
        }
    }

    /// The folders of specs and of model definitions.
    ///
    /// # Errors
    /// When one of them is not text.
    pub fn folders(&self) -> Result<[PathBuf; 2]> {
        Ok([self.text("pipelines", "pipelines")?.into(), self.text("models", "config/models")?.into()])
    }

    /// The built-in catalogue with the operator's file over it, where there is one.
    ///
    /// # Errors
    /// When the file cannot be read, or has errors.
    pub fn catalog(&self) -> Result<Catalog> {
        let path = self.config.with_file_name("catalog.yaml");
        let name = path.display().to_string();
        let builtin = Catalog::builtin();
        let bytes = read(&path).map_err(|error| Failure::settings(format!("{name} cannot be read: {error}")))?;
        let Some(bytes) = bytes else { return Ok((*builtin).clone()) };
        let (catalog, found) = builtin.overlaid(&name, &bytes);
        catalog.ok_or_else(|| {
            let errors: Vec<String> =
                found.iter().filter(|problem| problem.is_error()).map(ToString::to_string).collect();
            Failure::settings(errors.join("\n"))
        })
    }
}

/// A file's bytes; `None` when there is no such file.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut bytes = Vec::new();
    // The parser refuses what is above its bound; more need not be read.
    file.take(yaml::MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// The URL at which a listener is reached from this machine.
fn url_of(scheme: &str, mut listen: SocketAddr) -> String {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    // A listener on every address is reached on loopback.
    if listen.ip().is_unspecified() {
        listen.set_ip(match listen.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("{scheme}://{listen}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_reached_by_a_url() {
        for (listen, url) in [
            ("127.0.0.1:4100", "http://127.0.0.1:4100"),
            ("0.0.0.0:80", "http://127.0.0.1:80"),
            ("[::]:4100", "http://[::1]:4100"),
            ("10.0.0.7:4100", "http://10.0.0.7:4100"),
        ] {
            assert_eq!(url_of("http", listen.parse().unwrap()), url);
        }
    }
}
