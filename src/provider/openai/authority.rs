//! What a call shows to be let in: an API key, an AWS signature, or nothing.
//!
//! Invariant: no key is in an error; a Bedrock API key goes before a signature, as in Amazon's own clients.

use http::{HeaderMap, header};
use rustls::pki_types::CertificateDer;

use super::Address;
use crate::{
    job::Fault,
    provider::{
        CallError, RateLimit,
        bedrock::{self, Account},
        secret::{Key, SecretSource},
        signature::Signer,
    },
    settings::Secret,
    wire::faults::Classified,
};

/// A Bedrock API key, where the environment has one.
const BEDROCK_KEY: &str = "AWS_BEARER_TOKEN_BEDROCK";

/// What to show.
#[derive(Debug)]
pub(super) enum Authority {
    Nothing,
    Key(SecretSource),
    Signature(Signer),
}

/// What was shown.
#[derive(Debug, Default)]
pub(super) struct Granted(Option<Key>);

impl Granted {
    /// A call's error, without the key should the provider quote it.
    pub(super) fn error(&self, fault: Classified, rate_limit: RateLimit) -> CallError {
        let message = self.0.as_ref().map(|key| key.redact(&fault.message));
        let mut error = CallError { rate_limit, ..fault.into() };
        if let Some(message) = message {
            error.message = message;
        }
        error
    }
}

impl Authority {
    pub(super) async fn of(address: &Address<'_>, extra_roots: &[CertificateDer<'static>]) -> Result<Self, String> {
        if let Some(key) = address.api_key {
            return Ok(Self::Key(SecretSource::new(key.clone())));
        }
        let Some((auth, region)) = address.aws else { return Ok(Self::Nothing) };
        let has_key = std::env::var_os(BEDROCK_KEY).is_some_and(|key| !key.is_empty());
        if has_key && !auth.anonymous {
            return Ok(Self::Key(SecretSource::new(Secret::Env(BEDROCK_KEY.to_owned()))));
        }
        let account = Account {
            region: Some(region),
            profile: auth.profile.as_deref(),
            role_arn: auth.role_arn.as_deref(),
            endpoint_url: None,
            anonymous: auth.anonymous,
        };
        let credentials = bedrock::credentials(&account, extra_roots).await?;
        Ok(Self::Signature(Signer::new(auth.service, region.as_str(), credentials)))
    }

    /// Adds to `headers` what lets a POST of `body` in.
    pub(super) async fn grant(&self, url: &str, headers: &mut HeaderMap, body: &[u8]) -> Result<Granted, Classified> {
        match self {
            Self::Nothing => Ok(Granted(None)),
            Self::Key(source) => {
                let key = source.key().map_err(|message| {
                    let advice = "put the key where the provider's `api_key` in the settings says";
                    Classified::unbilled(Fault::Misconfigured, message).with_code("no_api_key").with_advice(advice)
                })?;
                headers.insert(header::AUTHORIZATION, key.bearer().clone());
                Ok(Granted(Some(key)))
            }
            Self::Signature(signer) => {
                signer.sign(url, headers, body).await?;
                Ok(Granted(None))
            }
        }
    }
}
