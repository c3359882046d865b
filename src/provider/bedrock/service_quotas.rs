//! What an account is granted, by AWS Service Quotas.
//!
//! One operation in JSON, signed with what signs calls already: an SDK of its own for it would cost every build more than
//! these lines, and bring nothing but retries that are not wanted here.
//!
//! Invariant: reads only. Every page and the number of pages are bounded; a page that is no answer of the service is an
//! error, never an empty list.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::Deserialize;
use serde_json::json;

use super::Bedrock;
use crate::{
    job::Fault,
    names::Region,
    provider::{
        CallError, ServiceQuota, signature,
        sockets::{self, Departure, Through},
    },
    wire::faults::Classified,
};

/// The service whose quotas are asked for.
const SERVICE: &str = "bedrock";
const TARGET: HeaderName = signature::TARGET;
const LIST: HeaderValue = HeaderValue::from_static("ServiceQuotasV20190624.ListServiceQuotas");
const JSON_1_1: HeaderValue = HeaderValue::from_static("application/x-amz-json-1.1");
/// As many as the service gives.
const PAGE: u32 = 100;
/// Bedrock has some hundreds of quotas.
const MOST_PAGES: usize = 100;
/// For one page.
const PATIENCE: Duration = Duration::from_secs(20);
/// What an operator does about a refusal.
const ADVICE: &str = "allow servicequotas:ListServiceQuotas (`landbridge iam-policy` prints it), or write the limits instead of \
                      `source: aws`";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    quotas: Vec<Quota>,
    next_token: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Quota {
    quota_name: Option<String>,
    value: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
struct Failure {
    #[serde(rename = "__type")]
    kind: Option<String>,
    #[serde(alias = "Message")]
    message: Option<String>,
}

impl Bedrock {
    /// Every quota of the service, in one region.
    pub(super) async fn list_quotas(&self, region: Option<&Region>) -> Result<Vec<ServiceQuota>, CallError> {
        let named = region.map(ToString::to_string).or_else(|| self.sdk.region().map(ToString::to_string));
        let region = named.ok_or_else(|| {
            Classified::unbilled(Fault::Misconfigured, "no region is known to ask for quotas in".to_owned())
                .with_code("no_region")
        })?;
        let url = self.endpoint_url.clone().unwrap_or_else(|| address(&region));
        let credentials = self.sdk.credentials_provider().ok_or_else(|| {
            Classified::unbilled(Fault::Misconfigured, "there are no AWS credentials".to_owned())
                .with_code("no_credentials")
        })?;
        let signer = signature::Signer::new("servicequotas", &region, credentials);
        let mut found = Vec::new();
        let mut next: Option<String> = None;
        for _ in 0..MOST_PAGES {
            let page = tokio::time::timeout(PATIENCE, self.page(&url, &signer, next.as_deref())).await;
            let page = page.map_err(|_| {
                Classified::unbilled(Fault::Transient, format!("no answer within {PATIENCE:?}")).with_code("timeout")
            })??;
            found.extend(
                page.quotas
                    .into_iter()
                    .filter_map(|quota| Some(ServiceQuota { name: quota.quota_name?, value: quota.value? })),
            );
            next = page.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(found);
            }
        }
        let message = format!("more than {MOST_PAGES} pages of quotas");
        Err(Classified::unbilled(Fault::Transient, message).with_code("too_many_pages").into())
    }

    async fn page(&self, url: &str, signer: &signature::Signer, next: Option<&str>) -> Result<Page, Classified> {
        let transient = |message: String| Classified::unbilled(Fault::Transient, message);
        let mut asked = json!({ "ServiceCode": SERVICE, "MaxResults": PAGE });
        if let Some(next) = next {
            asked["NextToken"] = next.into();
        }
        let body = Bytes::from(asked.to_string());
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, JSON_1_1);
        headers.insert(TARGET, LIST);
        signer.sign(url, &mut headers, &body).await?;
        let address: reqwest::Url = url.parse().map_err(|error| transient(format!("{url}: {error}")))?;
        let through = Through::to(address.host_str().unwrap_or_default());
        let pool = if through == Through::Direct { &self.direct } else { &self.sockets };
        let mut request = reqwest::Request::new(http::Method::POST, address);
        *request.headers_mut() = headers;
        let answer = pool.send(request, body, &Departure::default()).await.map_err(|lost| lost.0)?;
        let status = answer.status();
        let text = sockets::read(answer.into_body()).await.map_err(|lost| lost.0)?;
        if status.is_success() {
            return serde_json::from_slice(&text).map_err(|error| transient(format!("no list of quotas: {error}")));
        }
        let failure: Failure = serde_json::from_slice(&text).unwrap_or_default();
        let kind = failure.kind.as_deref().unwrap_or("an error");
        let kind = kind.rsplit('#').next().unwrap_or(kind).to_owned();
        let message = format!("{kind} ({status}): {}", failure.message.unwrap_or_default());
        let denied = status == http::StatusCode::FORBIDDEN
            || ["AccessDenied", "UnrecognizedClient", "InvalidSignature", "ExpiredToken", "NotAuthorized"]
                .iter()
                .any(|word| kind.contains(word));
        if denied {
            return Err(Classified::unbilled(Fault::Misconfigured, message)
                .with_code("access_denied")
                .with_advice(ADVICE));
        }
        Err(transient(message))
    }
}

/// Where the service is, in one region.
fn address(region: &str) -> String {
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    format!("https://servicequotas.{region}.{domain}/")
}
