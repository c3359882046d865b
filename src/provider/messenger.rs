//! Tells receivers what happened: one POST each, signed in the form of Standard Webhooks.
//!
//! Invariant: nobody is called that no rule of the settings names, nor an address inside this machine or its network that
//! no rule names by number or network. One call, one try: when to try again is for others to decide.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http_body_util::{BodyExt, Limited};
use ring::hmac;

use super::{
    outward::{self, BadAddress, Inside, LedInside, Place, excerpt},
    sockets::{chain, find},
};
use crate::{
    clock::{Timestamp, format_span},
    settings::{Callable, CallbackSettings, Secret},
};

/// Of an answer, this much is read, so that its connection can be used again.
const MOST_ANSWER: usize = 64 * 1024;
/// What a secret may have in bytes, as the form asks.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// A receiver's own wish of when to be asked again is followed up to here.
const MOST_RETRY_AFTER: Duration = Duration::from_hours(1);

/// Calls receivers.
#[derive(Debug)]
pub struct Messenger {
    settings: CallbackSettings,
    client: reqwest::Client,
}

/// Why a receiver was not told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Undelivered {
    /// In words.
    pub message: String,
    /// What is to be done about it.
    pub kind: Obstacle,
    /// When the receiver wants to be asked again.
    pub retry_after: Option<Duration>,
}

/// What stands in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// The receiver cannot be reached, or answers that it cannot take it.
    Receiver,
    /// The receiver says that it wants no more (410).
    Gone,
    /// Our own: not allowed, nothing to sign with.
    Ours,
}

impl Undelivered {
    fn new(kind: Obstacle, message: impl Into<String>) -> Self {
        Self { message: message.into(), kind, retry_after: None }
    }
}

impl Messenger {
    /// Ready to call whom these settings allow.
    ///
    /// # Errors
    /// When there can be no HTTP client.
    pub fn open(settings: &CallbackSettings) -> Result<Self, String> {
        let networks = settings.allow.iter().filter_map(|allowed| match allowed {
            Callable::Network(network) => Some(*network),
            Callable::Rule(_) => None,
        });
        let client = outward::client(Inside::Within(networks.collect()), &[])?;
        Ok(Self { settings: settings.clone(), client })
    }

    /// Whether an address may be called, as far as it says by itself.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub fn permits(&self, address: &str) -> Result<(), String> {
        self.permitted(address).map(drop)
    }

    fn permitted(&self, address: &str) -> Result<Place, String> {
        let place = Place::read(address).map_err(|fault| match fault {
            BadAddress::HoldsUser => "the callback's address holds a user name or password".to_owned(),
            other => format!("{:?} cannot be called: {other}", excerpt(address)),
        })?;
        let number = place.number();
        let mut covered = false;
        let mut named = false;
        for allowed in &self.settings.allow {
            match allowed {
                Callable::Rule(rule) if place.is_covered_by(rule) => {
                    covered = true;
                    named |= rule.names_a_number();
                }
                Callable::Network(network) => {
                    named |= number.is_some_and(|number| network.contains(&number.to_canonical()));
                }
                Callable::Rule(_) => {}
            }
        }
        let allowed = match number {
            // A pattern of names does not open what lies behind numbers.
            Some(number) => named || (covered && Inside::Nowhere.lets(number)),
            None => covered,
        };
        if allowed {
            return Ok(place);
        }
        Err(format!(
            "{} is not called: nothing under `callbacks: {{ allow: […] }}` in the settings covers {}",
            place.shown(),
            place.origin()
        ))
    }

    /// Tells a receiver, once.
    ///
    /// # Errors
    /// [`Undelivered`]; the receiver may have heard all the same.
    pub async fn tell(&self, address: &str, id: &str, now: Timestamp, body: &str) -> Result<(), Undelivered> {
        let place = self.permitted(address).map_err(|why| Undelivered::new(Obstacle::Ours, why))?;
        let seconds = now.as_micros().div_euclid(1_000_000);
        let signature =
            sign(&self.settings.secrets, id, seconds, body).map_err(|why| Undelivered::new(Obstacle::Ours, why))?;
        let shown = place.shown();
        let request = self
            .client
            .post(place.url)
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", seconds)
            .header("webhook-signature", signature)
            .body(body.to_owned());
        let told = tokio::time::timeout(self.settings.timeout, send(request, &shown)).await;
        told.unwrap_or_else(|_| {
            let after = format_span(self.settings.timeout);
            Err(Undelivered::new(Obstacle::Receiver, format!("{shown} did not answer within {after}")))
        })
    }
}

async fn send(request: reqwest::RequestBuilder, shown: &str) -> Result<(), Undelivered> {
    let response = request.send().await.map_err(|error| match find::<LedInside>(&error) {
        Some(led) => Undelivered::new(
            Obstacle::Receiver,
            format!("{shown} is not called: {led}; where that is meant, allow its network under `callbacks`"),
        ),
        None => {
            Undelivered::new(Obstacle::Receiver, format!("{shown} cannot be called: {}", chain(&error.without_url())))
        }
    })?;
    let status = response.status();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(|seconds| Duration::from_secs(seconds).min(MOST_RETRY_AFTER));
    // What it says is of no interest, but a connection whose answer was read is used again.
    let _rest = Limited::new(http::Response::from(response).into_body(), MOST_ANSWER).collect().await;
    if status.is_success() {
        return Ok(());
    }
    let (kind, why) = match status.as_u16() {
        410 => (Obstacle::Gone, ": it wants no more of them"),
        300..=399 => (Obstacle::Receiver, " (redirects are not followed: name the address that it leads to)"),
        _ => (Obstacle::Receiver, ""),
    };
    Err(Undelivered {
        retry_after,
        ..Undelivered::new(kind, format!("{shown} answered HTTP {}{why}", status.as_u16()))
    })
}

/// `https://host:port` of an address.
pub fn origin(address: &str) -> String {
    Place::read(address).map_or_else(|_| String::new(), |place| place.origin())
}

/// An address as others than its owner may see it: without its query.
pub fn shown(address: &str) -> String {
    Place::read(address).map_or_else(|_| String::new(), |place| place.shown())
}

/// What proves who sends it: a signature by each secret.
fn sign(secrets: &[Secret], id: &str, seconds: i64, body: &str) -> Result<String, String> {
    let mut signatures = String::new();
    for place in secrets {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key(place)?);
        let tag = hmac::sign(&key, format!("{id}.{seconds}.{body}").as_bytes());
        if !signatures.is_empty() {
            signatures.push(' ');
        }
        signatures.push_str("v1,");
        signatures.push_str(&STANDARD.encode(tag));
    }
    Ok(signatures)
}

/// The key that a secret stands for: `whsec_` and base64, as the form has it.
fn key(place: &Secret) -> Result<Vec<u8>, String> {
    let value = place.read().map_err(|error| error.to_string())?;
    let text = value.expose();
    let key = STANDARD.decode(text.strip_prefix("whsec_").unwrap_or(text)).ok();
    key.filter(|key| SECRET_BYTES.contains(&key.len())).ok_or_else(|| {
        format!(
            "the {place} does not hold a secret for callbacks: it must be `whsec_` and base64 of {} to {} bytes",
            SECRET_BYTES.start(),
            SECRET_BYTES.end()
        )
    })
}

/// Whether the secrets can be read now, and serve.
///
/// # Errors
/// What is wrong with the first that cannot.
pub fn check_secrets(settings: &CallbackSettings) -> Result<(), String> {
    settings.secrets.iter().try_for_each(|place| key(place).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(folder: &std::path::Path, name: &str, text: &str) -> Secret {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        Secret::File(path)
    }

    #[test]
    fn signatures_are_those_of_the_form() {
        let folder = tempfile::tempdir().unwrap();
        // The example of the form's own reference libraries.
        let known = secret(folder.path(), "known", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n");
        let other = secret(folder.path(), "other", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSx");
        let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", "{\"test\": 2432232314}");
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(sign(std::slice::from_ref(&known), id, 1_614_265_330, body).unwrap(), expected);
        let both = sign(&[other, known], id, 1_614_265_330, body).unwrap();
        assert!(both.ends_with(&format!(" {expected}")) && both.matches("v1,").count() == 2, "{both}");
        for bad in ["whsec_", "whsec_short", "no base64 at all!", "whsec_c2hvcnQ="] {
            let error = key(&secret(folder.path(), "bad", bad)).unwrap_err();
            assert!(error.contains("whsec_") && !error.contains("short"), "{error}");
        }
    }

    #[test]
    fn only_what_the_list_names_is_called() {
        crate::provider::install_crypto();
        let allow = |rules: &[&str]| {
            let allow = rules.iter().map(|rule| Callable::parse(rule).unwrap()).collect();
            let settings = CallbackSettings { secrets: Vec::new(), allow, timeout: Duration::from_secs(1) };
            Messenger::open(&settings).unwrap()
        };
        for (rules, address, allowed) in [
            (&["https://hooks.example.com"][..], "https://hooks.example.com/in?token=1", true),
            (&["https://hooks.example.com"], "http://hooks.example.com/in", false),
            (&["https://hooks.example.com"], "https://hooks.example.com.evil.test/in", false),
            (&["https://hooks.example.com"], "https://me:pw@hooks.example.com/in", false),
            (&["https://hooks.example.com"], "ftp://hooks.example.com/in", false),
            (&["https://hooks.example.com"], "nonsense", false),
            (&["http://127.0.0.1:8080"], "http://127.0.0.1:8080/in", true),
            (&["http://127.0.0.1:8080"], "http://127.0.0.1:8081/in", false),
            (&["10.0.0.0/8"], "http://10.2.3.4:8080/in", true),
            (&["10.0.0.0/8"], "http://[::ffff:10.2.3.4]:8080/in", true),
            (&["10.0.0.0/8"], "http://192.168.0.1/in", false),
            (&["10.0.0.0/8"], "http://receiver.svc/in", false),
            (&["http://*"], "http://169.254.169.254/latest", false),
            (&["http://*"], "http://2130706433/", false),
            (&["http://*"], "http://93.184.215.14/in", true),
            (&["http://*"], "http://receiver.svc/in", true),
            (&[], "https://hooks.example.com/in", false),
        ] {
            assert_eq!(allow(rules).permits(address).is_ok(), allowed, "{rules:?} {address}");
        }
        let refusal = allow(&[]).permits("https://hooks.example.com/in?token=1").unwrap_err();
        assert!(refusal.contains("callbacks: { allow:") && !refusal.contains("token"), "{refusal}");
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_not_called() {
        crate::provider::install_crypto();
        let folder = tempfile::tempdir().unwrap();
        let known = secret(folder.path(), "known", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://localhost:{}/in", listener.local_addr().unwrap().port());
        let allow = vec![Callable::parse(address.trim_end_matches("/in")).unwrap()];
        let settings = CallbackSettings { secrets: vec![known], allow, timeout: Duration::from_secs(5) };
        let messenger = Messenger::open(&settings).unwrap();
        let refused = messenger.tell(&address, "msg_1", Timestamp::from_micros(0), "{}").await.unwrap_err();
        assert!(refused.message.contains("inside this machine"), "{refused}");
    }
}
