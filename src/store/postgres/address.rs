//! Which database, and how it is reached: a `postgres://` URL taken apart.
//!
//! Invariant: nothing that is printed of an address holds its password.

use std::{fmt, path::PathBuf, time::Duration};

use tokio_postgres::Config;

use crate::store::{Result, StoreError};

/// How long one try to connect may take.
const CONNECT: Duration = Duration::from_secs(5);
/// Silence after which the kernel asks whether the other side is still there, and after which data that nobody
/// acknowledges ends a connection.
const KEEPALIVE: Duration = Duration::from_secs(15);
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);

/// What is asked of TLS, in libpq's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::EnumString, strum::Display)]
#[strum(serialize_all = "kebab-case")]
pub enum SslMode {
    /// Never.
    Disable,
    /// If the server offers it; whoever it is.
    Prefer,
    /// Always; whoever it is.
    Require,
    /// Always, and its certificate must come from a known authority.
    VerifyCa,
    /// Always, and the certificate must be the host's own.
    VerifyFull,
}

/// A database's address.
#[derive(Clone)]
pub struct Address {
    /// For the driver.
    pub config: Config,
    /// What is asked of TLS.
    pub ssl: SslMode,
    /// Authorities to trust instead of the system's.
    pub roots: Option<PathBuf>,
    /// Without user and password, for messages.
    pub name: String,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Address").field(&self.name).finish()
    }
}

fn unusable(what: impl fmt::Display) -> StoreError {
    StoreError::Unusable(format!("the database address of `store` cannot be read: {what}"))
}

impl Address {
    /// Takes a URL apart. `sslmode` and `sslrootcert` are ours to keep; the driver knows too few modes.
    ///
    /// # Errors
    /// [`StoreError::Unusable`], which does not repeat the URL.
    pub fn parse(url: &str) -> Result<Self> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut ssl, mut roots, mut rest) = (SslMode::Prefer, None, Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", mode)) => {
                    // libpq's `allow` tries without TLS first; whoever writes it does not mind either way.
                    let mode = if mode == "allow" { "prefer" } else { mode };
                    ssl = mode.parse().map_err(|_| {
                        unusable("`sslmode` is none of disable, prefer, require, verify-ca, verify-full")
                    })?;
                }
                Some(("sslrootcert", "system")) => {}
                Some(("sslrootcert", path)) => roots = Some(PathBuf::from(decoded(path))),
                _ => rest.push(pair),
            }
        }
        let plain = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
        // The driver's own words may quote what it was given.
        let mut config: Config = plain.parse().map_err(|_| {
            unusable(
                "write `postgres://USER@HOST:PORT/DATABASE?sslmode=verify-full`, with `%` codes for odd characters",
            )
        })?;
        if config.get_hosts().is_empty() {
            return Err(unusable("it names no host"));
        }
        config.ssl_mode(match ssl {
            SslMode::Disable => tokio_postgres::config::SslMode::Disable,
            SslMode::Prefer => tokio_postgres::config::SslMode::Prefer,
            _ => tokio_postgres::config::SslMode::Require,
        });
        if config.get_application_name().is_none() {
            config.application_name("landbridge");
        }
        config
            .connect_timeout(CONNECT)
            .keepalives(true)
            .keepalives_idle(KEEPALIVE)
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3)
            .tcp_user_timeout(UNACKNOWLEDGED);
        let name = name(&config);
        Ok(Self { config, ssl, roots, name })
    }
}

/// `postgres://HOST:PORT/DATABASE`, nothing more.
fn name(config: &Config) -> String {
    use tokio_postgres::config::Host;
    let ports = config.get_ports();
    let hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .enumerate()
        .map(|(place, host)| {
            let port = ports.get(place).or_else(|| ports.first()).copied().unwrap_or(5_432);
            match host {
                Host::Tcp(host) => format!("{host}:{port}"),
                Host::Unix(folder) => format!("{}:{port}", folder.display()),
            }
        })
        .collect();
    let database = config.get_dbname().or(config.get_user()).unwrap_or_default();
    format!("postgres://{}/{database}", hosts.join(","))
}

/// Undoes `%` codes; what is none stays.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let code = (byte == b'%').then(|| {
            let mut ahead = rest.clone();
            let digit = |digit: Option<u8>| digit.and_then(|digit| char::from(digit).to_digit(16));
            let value = digit(ahead.next())? * 16 + digit(ahead.next())?;
            u8::try_from(value).ok()
        });
        if let Some(Some(value)) = code {
            bytes.push(value);
            let _ = (rest.next(), rest.next());
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        for (url, ssl, roots, name) in [
            ("postgres://db/x", SslMode::Prefer, None, "postgres://db:5432/x"),
            ("postgresql://me:pw@db:6432/x?sslmode=require", SslMode::Require, None, "postgres://db:6432/x"),
            ("postgres://db/x?sslmode=allow&sslrootcert=system", SslMode::Prefer, None, "postgres://db:5432/x"),
            (
                "postgres://a,b:1/x?sslmode=verify-full&connect_timeout=9&sslrootcert=%2Fetc%2Fca.pem",
                SslMode::VerifyFull,
                Some("/etc/ca.pem"),
                "postgres://a:5432,b:1/x",
            ),
            ("postgres://%2Frun%2Fpg/x?sslmode=disable", SslMode::Disable, None, "postgres:///run/pg:5432/x"),
        ] {
            let address = Address::parse(url).unwrap();
            assert_eq!((address.ssl, address.name.as_str()), (ssl, name), "{url}");
            assert_eq!(address.roots, roots.map(PathBuf::from), "{url}");
        }
    }

    #[test]
    fn no_message_holds_a_password() {
        for url in [
            "postgres://me:hunter2@db:notaport/x",
            "postgres://me:hunter2@db/x?sslmode=hunter2",
            "postgres://me:hunter2@db/x?hunter2=1",
            "hunter2",
        ] {
            let error = Address::parse(url).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let address = Address::parse("postgres://me:hunter2@db/x").unwrap();
        assert!(!format!("{address:?} {}", address.name).contains("hunter2"));
    }
}
