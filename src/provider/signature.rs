//! AWS signatures (SigV4) for calls that no SDK makes: Bedrock's endpoint in OpenAI's form, Service Quotas.
//!
//! Invariant: a request is signed once, right before it leaves, with credentials that have not expired; no secret is
//! ever printed.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwapOption;
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider, error::CredentialsError},
};
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::bedrock::without_credentials;
use crate::{job::Fault, wire::faults::Classified};

/// Which operation of a service is meant, where the address does not say.
pub(super) const TARGET: HeaderName = HeaderName::from_static(TARGET_NAME);
const TARGET_NAME: &str = "x-amz-target";
/// Credentials are asked for anew so long before they expire.
const BEFORE_EXPIRY: Duration = Duration::from_mins(5);
/// Credentials that name no end are asked for anew after so long.
const LOOK_AGAIN: Duration = Duration::from_mins(15);

/// Signs requests for one service in one region.
pub(super) struct Signer {
    service: &'static str,
    region: String,
    credentials: SharedCredentialsProvider,
    kept: ArcSwapOption<Kept>,
    /// One question at a time, however many calls wait for its answer.
    asking: tokio::sync::Mutex<()>,
}

struct Kept {
    credentials: Credentials,
    asked: Instant,
}

impl Kept {
    fn serves(&self) -> bool {
        match self.credentials.expiry() {
            Some(expiry) => expiry > SystemTime::now() + BEFORE_EXPIRY,
            None => self.asked.elapsed() < LOOK_AGAIN,
        }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("service", &self.service).field("region", &self.region).finish_non_exhaustive()
    }
}

impl Signer {
    pub(super) fn new(service: &'static str, region: &str, credentials: SharedCredentialsProvider) -> Self {
        Self {
            service,
            region: region.to_owned(),
            credentials,
            kept: ArcSwapOption::empty(),
            asking: tokio::sync::Mutex::default(),
        }
    }

    async fn credentials(&self) -> Result<Credentials, CredentialsError> {
        let kept = || self.kept.load_full().filter(|kept| kept.serves()).map(|kept| kept.credentials.clone());
        if let Some(credentials) = kept() {
            return Ok(credentials);
        }
        let _turn = self.asking.lock().await;
        if let Some(credentials) = kept() {
            return Ok(credentials);
        }
        let credentials = self.credentials.provide_credentials().await?;
        self.kept.store(Some(Arc::new(Kept { credentials: credentials.clone(), asked: Instant::now() })));
        Ok(credentials)
    }

    /// Adds a signature over method, address, body and content type to `headers`.
    pub(super) async fn sign(&self, url: &str, headers: &mut HeaderMap, body: &[u8]) -> Result<(), Classified> {
        let credentials = self.credentials().await.map_err(|error| without_credentials(&error))?;
        let unsigned = |error: &dyn std::error::Error| {
            Classified::unbilled(Fault::Misconfigured, format!("the request cannot be signed: {error}"))
                .with_code("not_signed")
        };
        let identity = credentials.into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(self.service)
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| unsigned(&error))?
            .into();
        let content_type = headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let target = headers.get(TARGET).and_then(|value| value.to_str().ok());
        let signed = content_type.map(|value| ("content-type", value));
        let signed = signed.into_iter().chain(target.map(|value| (TARGET_NAME, value)));
        let request =
            SignableRequest::new("POST", url, signed, SignableBody::Bytes(body)).map_err(|error| unsigned(&error))?;
        let (instructions, _) = sign(request, &params).map_err(|error| unsigned(&error))?.into_parts();
        for header in instructions.into_parts().0 {
            let name = HeaderName::from_static(header.name());
            let mut value = HeaderValue::from_str(header.value()).map_err(|error| unsigned(&error))?;
            value.set_sensitive(header.sensitive());
            headers.insert(name, value);
        }
        Ok(())
    }
}
