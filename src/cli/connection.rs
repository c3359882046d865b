//! The way to a running daemon: where it is, who we are, and what its answers and silences mean.
//!
//! Invariant: a call says whether it is worth trying again; who tries again decides for how long. The key comes from
//! the environment alone: arguments can be seen by every user of the machine.

use std::{path::Path, time::Duration};

use clap::Args;
use reqwest::{Method, StatusCode, Url, header};
use serde_json::Value;

use super::{
    exit::{Exit, Failure, Result},
    local::Local,
};

/// Where the daemon is.
#[derive(Debug, Clone, Args)]
pub struct Connection {
    /// Where the daemon listens [default: `listen` of the settings at hand]
    #[arg(long, env = "LANDBRIDGE_URL", value_name = "URL", global = true, help_heading = "Daemon")]
    pub url: Option<String>,
}

/// The environment variable that holds the key.
const KEY_VARIABLE: &str = "LANDBRIDGE_KEY";
/// For a connection to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For an ordinary answer, beyond what the request itself asks the daemon to wait.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);
/// An answer above this is not one of ours: the largest hold a page of jobs or a job with its result.
const MAX_ANSWER: usize = 256 << 20;

/// Why a call gave no answer that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No connection, or it was lost.
    #[error("{0}")]
    Unreachable(String),
    /// It cannot answer now.
    #[error("{message}")]
    Busy {
        /// What it said.
        message: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// It will not do this.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// The answer is not landbridge's.
    #[error("{0}")]
    Strange(String),
}

impl CallError {
    /// Whether the same call may succeed later.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Busy { .. })
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let exit = if matches!(error, CallError::Unreachable(_)) { Exit::Unreachable } else { Exit::Failed };
        Self { exit, message: error.to_string() }
    }
}

/// A daemon to talk to.
#[derive(Debug, Clone)]
pub struct Daemon {
    http: reqwest::Client,
    base: Url,
    key: Option<header::HeaderValue>,
}

/// A request under way to being sent.
pub struct Request<'a> {
    daemon: &'a Daemon,
    method: Method,
    url: Url,
    body: Option<(&'static str, Vec<u8>)>,
    patience: Duration,
    also: Option<u16>,
}

impl Daemon {
    /// The daemon at `--url`, or the one that the settings at hand describe. Nothing is sent yet.
    ///
    /// # Errors
    /// A wrong URL is wrong usage; settings that cannot be read are bad settings.
    pub fn new(connection: &Connection, config: &Path) -> Result<Self> {
        let address = match &connection.url {
            Some(url) => url.clone(),
            None => Local::read(config)?.url()?,
        };
        let base = Url::parse(&address)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| {
            Failure::usage(format!("{address:?} is not a URL of a daemon: write, say, http://127.0.0.1:4100"))
        })?;
        let key = match std::env::var(KEY_VARIABLE) {
            Ok(key) if !key.is_empty() => {
                let mut value = header::HeaderValue::from_str(&format!("Bearer {key}"))
                    .map_err(|_| Failure::usage(format!("{KEY_VARIABLE} holds characters that no key has")))?;
                value.set_sensitive(true);
                Some(value)
            }
            _ => None,
        };
        // An earlier installation by this process is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT);
        let loopback = base.host_str().is_some_and(|host| {
            host == "localhost"
                || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        });
        if loopback {
            builder = builder.no_proxy();
        }
        let http =
            builder.build().map_err(|error| Failure::new(format!("cannot make an HTTP client: {}", chain(&error))))?;
        Ok(Self { http, base, key })
    }

    /// Asks for something: path segments are encoded.
    pub fn get(&self, path: &[&str]) -> Request<'_> {
        self.request(Method::GET, path)
    }

    /// Asks to do something.
    pub fn post(&self, path: &[&str]) -> Request<'_> {
        self.request(Method::POST, path)
    }

    /// Asks to take something away.
    pub fn delete(&self, path: &[&str]) -> Request<'_> {
        self.request(Method::DELETE, path)
    }

    fn request(&self, method: Method, path: &[&str]) -> Request<'_> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        Request { daemon: self, method, url, body: None, patience: ANSWER_TIMEOUT, also: None }
    }

    /// Where it is, for messages.
    pub fn address(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }
}

impl Request<'_> {
    /// The same with a query parameter.
    pub fn query(mut self, name: &str, value: &str) -> Self {
        self.url.query_pairs_mut().append_pair(name, value);
        self
    }

    /// The same with a JSON body.
    pub fn json(mut self, body: &Value) -> Self {
        self.body = Some(("application/json", body.to_string().into_bytes()));
        self
    }

    /// The same with a body of JSON lines.
    pub fn json_lines(mut self, body: Vec<u8>) -> Self {
        self.body = Some(("application/x-ndjson", body));
        self
    }

    /// The same, for an answer that the daemon holds back for up to `wait`.
    pub fn waiting(mut self, wait: Duration) -> Self {
        self.url.query_pairs_mut().append_pair("wait", &crate::clock::format_span(wait));
        self.patience = ANSWER_TIMEOUT + wait;
        self
    }

    /// The same, for an answer that takes the daemon up to `patience` to work out.
    pub fn patient(mut self, patience: Duration) -> Self {
        self.patience = ANSWER_TIMEOUT + patience;
        self
    }

    /// Sends it and reads the answer as JSON.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn send(self) -> Result<Value, CallError> {
        let address = self.daemon.address().to_owned();
        let body = self.send_for_bytes().await?;
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body)
            .map_err(|error| CallError::Strange(format!("{address} does not answer like landbridge: {error}")))
    }

    /// The same, where this status comes with an answer too.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn send_accepting(mut self, status: u16) -> Result<Value, CallError> {
        self.also = Some(status);
        self.send().await
    }

    /// Sends it and reads the answer as it comes.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn send_for_bytes(self) -> Result<Vec<u8>, CallError> {
        let (daemon, also) = (self.daemon, self.also);
        let unreachable = |error: &reqwest::Error| {
            let url = daemon.address();
            CallError::Unreachable(format!(
                "cannot reach landbridge at {url}: {}; is it running (`landbridge run`)? --url or LANDBRIDGE_URL name another",
                chain(error)
            ))
        };
        let mut request = daemon.http.request(self.method, self.url).timeout(self.patience);
        if let Some(key) = &daemon.key {
            request = request.header(header::AUTHORIZATION, key);
        }
        if let Some((kind, body)) = self.body {
            request = request.header(header::CONTENT_TYPE, kind).body(body);
        }
        let mut answer = request.send().await.map_err(|error| unreachable(&error))?;
        let status = answer.status();
        let retry_after = answer
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(|error| unreachable(&error))? {
            if body.len() + part.len() > MAX_ANSWER {
                return Err(CallError::Strange(format!("the answer of {} is too long", daemon.address())));
            }
            body.extend_from_slice(&part);
        }
        if status.is_success() || also == Some(status.as_u16()) {
            Ok(body)
        } else {
            Err(daemon.explain(status, retry_after, &body))
        }
    }
}

impl Daemon {
    fn explain(&self, status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> CallError {
        let said = serde_json::from_slice::<Value>(body).ok();
        let said = said.as_ref().and_then(|value| value.pointer("/error/message")?.as_str());
        if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
            let message = said.map_or_else(|| format!("{} answered {status}", self.address()), str::to_owned);
            return CallError::Busy { message, retry_after };
        }
        let Some(said) = said else {
            return CallError::Strange(format!(
                "{} answered {status} and not like landbridge; is the URL right?",
                self.address()
            ));
        };
        let advice = match (status, &self.key) {
            (StatusCode::UNAUTHORIZED, None) => format!(" (set {KEY_VARIABLE} to a key)"),
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, Some(_)) => {
                format!(" (the key is that of {KEY_VARIABLE})")
            }
            _ => String::new(),
        };
        CallError::Refused { status: status.as_u16(), message: format!("{}{advice}", super::print::printable(said)) }
    }
}

/// An error with its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
