//! Pictures and documents that a request only points at, fetched for targets that take bytes alone.
//!
//! Invariant: nothing is asked of a host that no rule of the settings names, nor of an address inside this machine or
//! its network unless they allow it. The address that was checked is the address that is called: names are resolved
//! in here, redirects are not followed, no proxy resolves anew. A failure is the job's own (`refused`) or passes
//! (`transient`); it is never billed.

mod address;
mod kinds;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, stream};
use http_body_util::BodyExt;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::pki_types::CertificateDer;

use super::sockets::{self, chain, find};
use crate::{
    job::Fault,
    settings::MediaSettings,
    wire::{
        converse::{Block, Request, Source},
        faults::Classified,
    },
};

/// Media of one request that are fetched; Converse takes 20 pictures and 5 documents.
const MOST: usize = 25;
/// Fetches of one request that run at a time.
const AT_A_TIME: usize = 4;
/// Bytes of all media of one request: Bedrock takes requests of 25,000,000 bytes, and media grow by a third in them.
const MOST_BYTES: usize = 18_000_000;

/// Fetches media.
#[derive(Debug, Clone)]
pub(super) struct Fetcher(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: MediaSettings,
    client: reqwest::Client,
}

/// A host that leads inside.
#[derive(Debug, thiserror::Error)]
#[error("{host} has the address {address}, which is inside this machine or its network")]
struct Inside {
    host: String,
    address: std::net::IpAddr,
}

/// Resolves names to addresses that may be called.
#[derive(Debug)]
struct Guarded {
    private: bool,
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let private = self.private;
        Box::pin(async move {
            let found: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            // One bad address among good ones is reason enough: who answers so means no good.
            let inside = found.iter().find(|found| !private && !address::is_public(found.ip()));
            match inside {
                Some(inside) => Err(Inside { host: name.as_str().to_owned(), address: inside.ip() }.into()),
                None => Ok(Box::new(found.into_iter()) as Addrs),
            }
        })
    }
}

fn refused(message: impl Into<String>) -> Classified {
    Classified { param: Some("messages".to_owned()), ..Classified::unbilled(Fault::Refused, message) }
}

impl Fetcher {
    pub(super) fn open(settings: &MediaSettings, extra_roots: &[CertificateDer<'static>]) -> Result<Self, String> {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(sockets::tls(extra_roots)?)
            .http1_only()
            .no_proxy()
            .dns_resolver(Guarded { private: settings.private })
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .pool_idle_timeout(Duration::from_secs(10))
            .user_agent(super::USER_AGENT)
            .build()
            .map_err(|error| format!("no HTTP client for media: {}", chain(&error)))?;
        Ok(Self(Arc::new(Inner { settings: settings.clone(), client })))
    }

    /// Replaces every remote source of a request by its bytes.
    pub(super) async fn resolve(&self, request: &mut Request) -> Result<(), Classified> {
        let mut wanted = Vec::new();
        for block in request.messages.iter_mut().flat_map(|message| &mut message.content) {
            collect(block, &mut wanted);
        }
        if wanted.is_empty() {
            return Ok(());
        }
        if wanted.len() > MOST {
            let message = format!("the request points at {} remote media; at most {MOST} are fetched", wanted.len());
            return Err(refused(message).with_code("too_many_media"));
        }
        let addresses: Vec<String> = wanted.iter().map(|wanted| wanted.url().to_owned()).collect();
        let fetches = stream::iter(addresses.into_iter().map(|address| self.fetch(address)));
        let fetched: Vec<Fetched> = fetches.buffered(AT_A_TIME).try_collect().await?;
        let total: usize = fetched.iter().map(|fetched| fetched.bytes.len()).sum();
        if total > MOST_BYTES {
            let message = format!("the remote media have {total} bytes in all; at most {MOST_BYTES} fit a request");
            return Err(refused(message).with_code("media_too_large"));
        }
        wanted.into_iter().zip(fetched).try_for_each(|(wanted, fetched)| wanted.put(fetched))
    }

    async fn fetch(&self, text: String) -> Result<Fetched, Classified> {
        let Inner { settings, client } = &*self.0;
        let url = self.permitted(&text)?;
        let shown = shown(&url);
        let fetched = tokio::time::timeout(settings.timeout, self.download(client, url, &shown));
        fetched.await.unwrap_or_else(|_| {
            let after = crate::clock::format_span(settings.timeout);
            let message = format!("{shown} was not fetched within {after}");
            Err(Classified::unbilled(Fault::Transient, message).with_code("media_timeout"))
        })
    }

    /// An address that a rule names and that does not say by itself that it leads inside.
    fn permitted(&self, text: &str) -> Result<reqwest::Url, Classified> {
        let settings = &self.0.settings;
        let bad = |why: &str| refused(format!("{} cannot be fetched: {why}", excerpt(text))).with_code("bad_media_url");
        let url: reqwest::Url = text.parse().map_err(|_| bad("it is no URL"))?;
        let https = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(bad("only https and http addresses are fetched")),
        };
        if !url.username().is_empty() || url.password().is_some() {
            let message = format!("an address at {} holds a user name or password", url.host_str().unwrap_or_default());
            return Err(refused(message).with_code("bad_media_url"));
        }
        let host = url.host_str().ok_or_else(|| bad("it names no host"))?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let port = url.port_or_known_default().unwrap_or(0);
        if !settings.allow.iter().any(|rule| rule.covers(https, bare, port, url.path())) {
            let message = format!(
                "{} is not fetched: no rule under `media: {{ allow: […] }}` in the settings covers {}://{host}",
                shown(&url),
                url.scheme()
            );
            let advice = format!("send the medium itself (a data: URL), or allow \"{}://{host}\"", url.scheme());
            return Err(refused(message).with_code("media_not_allowed").with_advice(advice));
        }
        if let Ok(address) = bare.parse()
            && !settings.private
            && !address::is_public(address)
        {
            return Err(inside(&Inside { host: host.to_owned(), address }));
        }
        Ok(url)
    }

    async fn download(&self, client: &reqwest::Client, url: reqwest::Url, shown: &str) -> Result<Fetched, Classified> {
        let most = self.0.settings.max_bytes;
        let too_large = || {
            refused(format!("{shown} has more than {most} bytes, the most that is fetched"))
                .with_code("media_too_large")
        };
        let path = url.path().to_owned();
        let lost = |error: reqwest::Error| {
            if let Some(led) = find::<Inside>(&error) {
                return inside(led);
            }
            let message = format!("{shown} cannot be fetched: {}", chain(&error.without_url()));
            Classified::unbilled(Fault::Transient, message).with_code("media_unreachable")
        };
        let response = client.get(url).send().await.map_err(lost)?;
        let status = response.status().as_u16();
        if status != 200 {
            return Err(not_there(shown, status));
        }
        if response.content_length().is_some_and(|length| length > most as u64) {
            return Err(too_large());
        }
        let content_type = response
            .headers()
            .get(http::header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_ascii_lowercase();
        let mut body = http::Response::from(response).into_body();
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(lost)?.into_data() else { continue };
            if bytes.len() + data.len() > most {
                return Err(too_large());
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Fetched { bytes: bytes.freeze(), content_type, path, shown: shown.to_owned() })
    }
}

fn inside(led: &Inside) -> Classified {
    let message = format!("the medium is not fetched: {led}");
    refused(message)
        .with_code("media_inside")
        .with_advice("send the medium itself (a data: URL); where such hosts are meant, set `media: { private: true }`")
}

fn not_there(shown: &str, status: u16) -> Classified {
    let (fault, why) = match status {
        300..=399 => (Fault::Refused, " (redirects are not followed: give the address that it leads to)"),
        408 | 425 | 429 | 500..=599 => (Fault::Transient, ""),
        _ => (Fault::Refused, ""),
    };
    let classified = Classified::unbilled(fault, format!("{shown} answered HTTP {status}{why}"));
    Classified { param: Some("messages".to_owned()), ..classified }.with_code("media_not_found")
}

/// A URL as messages show it: without its query, which may hold a signature.
fn shown(url: &reqwest::Url) -> String {
    let mut bare = url.clone();
    bare.set_query(None);
    bare.set_fragment(None);
    excerpt(bare.as_str())
}

fn excerpt(text: &str) -> String {
    const SHOWN: usize = 200;
    text.split(['?', '#']).next().unwrap_or_default().chars().take(SHOWN).collect()
}

/// What came.
struct Fetched {
    bytes: Bytes,
    content_type: String,
    path: String,
    shown: String,
}

/// A place in a request that waits for bytes.
enum Wanted<'a> {
    Image(&'a mut crate::wire::converse::Image),
    Document(&'a mut crate::wire::converse::Document),
}

fn collect<'a>(block: &'a mut Block, wanted: &mut Vec<Wanted<'a>>) {
    match block {
        Block::Image(image) if matches!(image.source, Source::Remote(_)) => wanted.push(Wanted::Image(image)),
        Block::Document(document) if matches!(document.source, Source::Remote(_)) => {
            wanted.push(Wanted::Document(document));
        }
        Block::ToolResult(result) => result.content.iter_mut().for_each(|block| collect(block, wanted)),
        _ => {}
    }
}

impl Wanted<'_> {
    fn url(&self) -> &str {
        match self {
            Self::Image(image) => remote(&image.source),
            Self::Document(document) => remote(&document.source),
        }
    }

    fn put(self, fetched: Fetched) -> Result<(), Classified> {
        let Fetched { bytes, content_type, path, shown } = fetched;
        let found = match &self {
            Self::Image(_) => kinds::image(&bytes),
            Self::Document(_) => kinds::document(&bytes, &content_type, &path),
        };
        let Some(format) = found else {
            let what = match self {
                Self::Image(_) => "a picture that models take (PNG, JPEG, GIF or WebP)",
                Self::Document(_) => {
                    "a document that models take (PDF, Word, Excel, CSV, HTML, Markdown or plain text)"
                }
            };
            return Err(refused(format!("{shown} is not {what}, by its own first bytes")).with_code("bad_media_format"));
        };
        match self {
            Self::Image(image) => (image.format, image.source) = (format.to_owned(), Source::Bytes(bytes)),
            Self::Document(document) => {
                (document.format, document.source) = (format.to_owned(), Source::Bytes(bytes));
            }
        }
        Ok(())
    }
}

fn remote(source: &Source) -> &str {
    match source {
        Source::Remote(url) => url,
        Source::Bytes(_) | Source::S3(_) => "",
    }
}
