//! Pictures and documents that a request only points at, fetched for targets that take bytes alone.
//!
//! Invariant: nothing is asked of a host that no rule of the settings names, nor of an address inside this machine or
//! its network unless they allow it. A failure is the job's own (`refused`) or passes (`transient`); it is never billed.

mod kinds;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, stream};
use http_body_util::BodyExt;
use rustls::pki_types::CertificateDer;

use super::{
    outward::{self, BadAddress, Inside, LedInside, Place, excerpt},
    sockets::{chain, find},
};
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

fn refused(message: impl Into<String>) -> Classified {
    Classified { param: Some("messages".to_owned()), ..Classified::unbilled(Fault::Refused, message) }
}

impl Fetcher {
    pub(super) fn open(settings: &MediaSettings, extra_roots: &[CertificateDer<'static>]) -> Result<Self, String> {
        let inside = if settings.private { Inside::Anywhere } else { Inside::Nowhere };
        let client = outward::client(inside, extra_roots)?;
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
        let place = self.permitted(&text)?;
        let shown = place.shown();
        let fetched = tokio::time::timeout(settings.timeout, self.download(client, place.url, &shown));
        fetched.await.unwrap_or_else(|_| {
            let after = crate::clock::format_span(settings.timeout);
            let message = format!("{shown} was not fetched within {after}");
            Err(Classified::unbilled(Fault::Transient, message).with_code("media_timeout"))
        })
    }

    /// An address that a rule names and that does not say by itself that it leads inside.
    fn permitted(&self, text: &str) -> Result<Place, Classified> {
        let settings = &self.0.settings;
        let bad = |why: String| refused(why).with_code("bad_media_url");
        let place = Place::read(text).map_err(|fault| match fault {
            // Not even in part repeated.
            BadAddress::HoldsUser => bad("an address of a medium holds a user name or password".to_owned()),
            other => bad(format!("{} cannot be fetched: {other}", excerpt(text))),
        })?;
        let (scheme, host) = (place.url.scheme(), &place.host);
        if !settings.allow.iter().any(|rule| place.is_covered_by(rule)) {
            let message = format!(
                "{} is not fetched: no rule under `media: {{ allow: […] }}` in the settings covers {scheme}://{host}",
                place.shown()
            );
            let advice = format!("send the medium itself (a data: URL), or allow \"{scheme}://{host}\"");
            return Err(refused(message).with_code("media_not_allowed").with_advice(advice));
        }
        let inside_allowed = if settings.private { Inside::Anywhere } else { Inside::Nowhere };
        if let Some(address) = place.number().filter(|address| !inside_allowed.lets(*address)) {
            return Err(inside(&LedInside { host: host.clone(), address }));
        }
        Ok(place)
    }

    async fn download(&self, client: &reqwest::Client, url: reqwest::Url, shown: &str) -> Result<Fetched, Classified> {
        let most = self.0.settings.max_bytes;
        let too_large = || {
            refused(format!("{shown} has more than {most} bytes, the most that is fetched"))
                .with_code("media_too_large")
        };
        let path = url.path().to_owned();
        let lost = |error: reqwest::Error| {
            if let Some(led) = find::<LedInside>(&error) {
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

fn inside(led: &LedInside) -> Classified {
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
