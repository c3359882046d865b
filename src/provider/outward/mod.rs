//! Calls to addresses that somebody else names: media that requests point at, and receivers of callbacks.
//!
//! Invariant: the address that was checked is the address that is called: names are resolved in here, redirects are not
//! followed, no proxy resolves anew. Who may be called is the caller's to decide; what leads inside is refused unless
//! they say so.

mod address;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::pki_types::CertificateDer;

use super::sockets::{self, chain};
use crate::settings::AddressRule;

/// Which addresses of this machine and its network may be called.
#[derive(Debug, Clone)]
pub(super) enum Inside {
    /// None.
    Nowhere,
    /// All.
    Anywhere,
    /// Those of these networks.
    Within(Vec<IpNet>),
}

impl Inside {
    /// Whether an address may be called, as far as the network that it is in goes.
    pub(super) fn lets(&self, address: IpAddr) -> bool {
        let plain = address.to_canonical();
        match self {
            _ if address::is_public(address) => true,
            Self::Nowhere => false,
            Self::Anywhere => true,
            Self::Within(networks) => networks.iter().any(|network| network.contains(&plain)),
        }
    }
}

/// A host that leads inside.
#[derive(Debug, thiserror::Error)]
#[error("{host} has the address {address}, which is inside this machine or its network")]
pub(super) struct LedInside {
    /// As the address names it.
    pub(super) host: String,
    /// What it leads to.
    pub(super) address: IpAddr,
}

/// Resolves names to addresses that may be called.
#[derive(Debug)]
struct Guarded(std::sync::Arc<Inside>);

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let inside = self.0.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            // One bad address among good ones is reason enough: who answers so means no good.
            match found.iter().find(|found| !inside.lets(found.ip())) {
                Some(led) => Err(LedInside { host: name.as_str().to_owned(), address: led.ip() }.into()),
                None => Ok(Box::new(found.into_iter()) as Addrs),
            }
        })
    }
}

/// A client that calls only what may be called, and goes nowhere else.
pub(super) fn client(inside: Inside, extra_roots: &[CertificateDer<'static>]) -> Result<reqwest::Client, String> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(sockets::tls(extra_roots)?)
        .http1_only()
        .no_proxy()
        .dns_resolver(Guarded(std::sync::Arc::new(inside)))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .pool_idle_timeout(Duration::from_secs(10))
        .user_agent(super::USER_AGENT)
        .build()
        .map_err(|error| format!("no HTTP client: {}", chain(&error)))
}

/// Why a text is no address to be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadAddress {
    #[error("it is no URL")]
    NoUrl,
    #[error("only https and http addresses are called")]
    OtherScheme,
    #[error("it holds a user name or password")]
    HoldsUser,
    #[error("it names no host")]
    NoHost,
}

/// An address, taken apart.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// The whole.
    pub(super) url: reqwest::Url,
    /// Rather than http.
    https: bool,
    /// As the URL has it: version 6 in brackets.
    pub(super) host: String,
    port: u16,
}

impl Place {
    pub(super) fn read(text: &str) -> Result<Self, BadAddress> {
        let url: reqwest::Url = text.parse().map_err(|_| BadAddress::NoUrl)?;
        let https = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(BadAddress::OtherScheme),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BadAddress::HoldsUser);
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(BadAddress::NoHost)?.to_owned();
        let port = url.port_or_known_default().unwrap_or(0);
        Ok(Self { url, https, host, port })
    }

    fn bare_host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The number that it names its host by, if it does: nobody resolves those.
    pub(super) fn number(&self) -> Option<IpAddr> {
        self.bare_host().parse().ok()
    }

    pub(super) fn is_covered_by(&self, rule: &AddressRule) -> bool {
        rule.covers(self.https, self.bare_host(), self.port, self.url.path())
    }

    /// As messages show it: without its query, which may hold a signature.
    pub(super) fn shown(&self) -> String {
        let mut bare = self.url.clone();
        bare.set_query(None);
        bare.set_fragment(None);
        excerpt(bare.as_str())
    }

    /// `https://host:port`.
    pub(super) fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }
}

/// Enough of an address to recognise it by, without its query.
pub(super) fn excerpt(text: &str) -> String {
    const SHOWN: usize = 200;
    text.split(['?', '#']).next().unwrap_or_default().chars().take(SHOWN).collect()
}
