//! `providers`: the accounts that targets name.

use std::collections::{BTreeMap, BTreeSet};

use super::aws;
use crate::{
    diagnostic::Position,
    names::{ProviderName, Region, nearest},
    settings::{ApiSettings, AwsAuth, ProviderSettings, secret::secret},
    spec::Api,
    yaml::{Entry, Findings, Keys, Node, Section, Value},
};

/// Most providers.
const MOST: usize = 100;
/// Longest text of a key.
const LONGEST: usize = 2_048;

pub(in crate::settings) const OPENAI: Keys = Keys::new(
    "an `api: openai` provider",
    &["api", "family", "data_regions", "auth", "base_url", "api_key", "organization", "project"],
);

pub(in crate::settings) const OPENAI_ON_AWS: Keys = Keys::new(
    "an `api: openai` provider with `auth: aws`",
    &["api", "family", "auth", "base_url", "api_key", "organization", "project", "region", "profile", "role_arn"],
);

pub(in crate::settings) const BEDROCK: Keys = Keys::new(
    "an `api: bedrock` provider",
    &["api", "family", "data_regions", "region", "profile", "role_arn", "endpoint_url"],
);

const OPENAI_URL: &str = "https://api.openai.com/v1";

/// The names of all providers, whatever may be wrong with what they name.
pub(in crate::settings) fn names(node: &Node) -> BTreeSet<ProviderName> {
    let Value::Map(entries) = &node.value else { return BTreeSet::new() };
    entries.iter().filter_map(|entry| entry.key.text.parse().ok()).collect()
}

/// Complains unless `name`, which stands at `at`, is one of `names`.
pub(in crate::settings) fn known(
    name: ProviderName,
    at: Position,
    names: &BTreeSet<ProviderName>,
    findings: &mut Findings,
) -> Option<ProviderName> {
    if names.contains(&name) {
        return Some(name);
    }
    let texts = || names.iter().map(ProviderName::as_str);
    let help = nearest(name.as_str(), texts()).map_or_else(
        || format!("the providers are {}", texts().collect::<Vec<_>>().join(", ")),
        |near| format!("did you mean `{near}`?"),
    );
    findings.error("unknown-provider", at, format!("there is no provider `{name}`"), help);
    None
}

/// Reads every provider.
pub(in crate::settings) fn read(
    node: &Node,
    findings: &mut Findings,
) -> Option<BTreeMap<ProviderName, ProviderSettings>> {
    let entries = node.entries("providers", findings)?;
    if entries.is_empty() || entries.len() > MOST {
        let message = format!("`providers` has {} entries; one to {MOST} are needed", entries.len());
        findings.error("no-provider", node.position, message, "add `openai: { api: openai, api_key: { env: … } }`");
        return None;
    }
    let names = names(node);
    let mut providers = BTreeMap::new();
    for entry in &entries {
        let name = entry.key.name("a provider", findings);
        let provider = provider(entry, &names, findings);
        if let (Some(name), Some(provider)) = (name, provider) {
            providers.insert(name, provider);
        }
    }
    Some(providers)
}

fn provider(entry: &Entry, names: &BTreeSet<ProviderName>, findings: &mut Findings) -> Option<ProviderSettings> {
    let node = &entry.value;
    let Some(api) = node.entries("a provider", findings)?.into_iter().find(|inner| inner.key.text == "api") else {
        let message = format!("the provider `{}` needs `api`", entry.key.text);
        findings.error("missing-key", entry.key.position, message, "add `api: openai` or `api: bedrock`");
        return None;
    };
    let api = api.value.choice("api", &[("openai", Api::OpenAi), ("bedrock", Api::Bedrock)], findings)?;
    let on_aws = api == Api::OpenAi
        && matches!(&node.value, Value::Map(entries) if entries.iter().any(|e| e.key.text == "auth"));
    let keys = match api {
        Api::OpenAi if on_aws => &OPENAI_ON_AWS,
        Api::OpenAi => &OPENAI,
        Api::Bedrock => &BEDROCK,
    };
    let section = node.section(keys, findings)?;
    let family = section.get("family").and_then(|node| family(node, &entry.key.text, names, findings));
    let data_regions = match section.entries().find(|entry| entry.key.text == "data_regions") {
        None => Some(Vec::new()),
        Some(entry) => regions(&entry.value, findings),
    };
    let api = match api {
        Api::OpenAi => openai(&section, on_aws, findings),
        Api::Bedrock => bedrock(&section, findings),
    };
    Some(ProviderSettings { family, data_regions: data_regions?, api: api? })
}

fn openai(section: &Section<'_>, on_aws: bool, findings: &mut Findings) -> Option<ApiSettings> {
    let base_url =
        section.get("base_url").map_or(Some(OPENAI_URL.to_owned()), |node| address("base_url", node, findings));
    let api_key = match section.get("api_key") {
        None => None,
        Some(node) => Some(secret("api_key", node, findings)?),
    };
    if let (Some(node), Some(url)) = (section.get("base_url"), &base_url)
        && (api_key.is_some() || on_aws)
        && is_plain_and_remote(url)
    {
        let message = "the key for this `base_url` would cross the network unencrypted";
        findings.warning("plain-http", node.position, message, "write https://");
    }
    let base_url = base_url?;
    let known = aws::endpoint(&base_url);
    let (region, aws) = if on_aws {
        let auth = section.get("auth").and_then(|node| node.choice("auth", &[("aws", ())], findings));
        let (region, aws) = aws_auth(section, known, findings)?;
        auth?;
        (Some(region), Some(aws))
    } else {
        (known.and_then(|known| known.region.parse().ok()), None)
    };
    Some(ApiSettings::OpenAi {
        base_url,
        api_key,
        organization: line(section, "organization", findings)?,
        project: line(section, "project", findings)?,
        region,
        aws,
    })
}

/// Where calls are signed for, and by whom.
fn aws_auth(
    section: &Section<'_>,
    known: Option<aws::Endpoint<'_>>,
    findings: &mut Findings,
) -> Option<(Region, AwsAuth)> {
    let named: Option<Region> = match section.get("region") {
        None => None,
        Some(node) => Some(node.name("region", findings)?),
    };
    let (profile, role_arn) = (line(section, "profile", findings)?, role(section, findings)?);
    let inside: Option<Region> = known.and_then(|known| known.region.parse().ok());
    let region = match (named, inside) {
        (Some(named), Some(inside)) if named != inside => {
            let at = section.get("region").map_or(section.position(), |node| node.position);
            let message = format!("`base_url` is of {inside}, not of {named}");
            findings.error("wrong-region", at, message, "remove `region`, or write another address");
            return None;
        }
        (Some(region), _) | (None, Some(region)) => region,
        (None, None) => {
            let help = "write Bedrock's address, such as https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1, or \
                        add `region: …` for an address of your own";
            let at = section.get("base_url").map_or(section.position(), |node| node.position);
            findings.error("no-region", at, "`auth: aws` needs a region, and `base_url` names none", help);
            return None;
        }
    };
    let service = known.map_or(aws::RUNTIME, |known| known.service);
    Some((region, AwsAuth { service, profile, role_arn, anonymous: false }))
}

fn bedrock(section: &Section<'_>, findings: &mut Findings) -> Option<ApiSettings> {
    let region = match section.get("region") {
        None => None,
        Some(node) => Some(node.name::<Region>("region", findings)?),
    };
    let endpoint_url = match section.get("endpoint_url") {
        None => None,
        Some(node) => Some(address("endpoint_url", node, findings)?),
    };
    let profile = line(section, "profile", findings)?;
    let role_arn = role(section, findings)?;
    Some(ApiSettings::Bedrock { region, profile, role_arn, endpoint_url, anonymous: false })
}

/// The ARN of a role, if one is named; `None` only after a complaint.
#[expect(clippy::option_option, reason = "absent and wrong are two things, and both are common here")]
fn role(section: &Section<'_>, findings: &mut Findings) -> Option<Option<String>> {
    let role_arn = line(section, "role_arn", findings)?;
    if let (Some(node), Some(role)) = (section.get("role_arn"), &role_arn)
        && !(role.starts_with("arn:") && role.contains(":role/"))
    {
        let message = "`role_arn` is not the ARN of a role";
        findings.error("bad-arn", node.position, message, "write `arn:aws:iam::ACCOUNT:role/NAME`");
        return None;
    }
    Some(role_arn)
}

/// Nothing where the key is absent; `None` only after a complaint.
#[expect(clippy::option_option, reason = "absent and wrong are two things, and both are common here")]
fn line(section: &Section<'_>, key: &str, findings: &mut Findings) -> Option<Option<String>> {
    match section.get(key) {
        None => Some(None),
        Some(node) => node.line(key, LONGEST, findings).map(|text| Some(text.to_owned())),
    }
}

fn family(node: &Node, own: &str, names: &BTreeSet<ProviderName>, findings: &mut Findings) -> Option<ProviderName> {
    let family: ProviderName = node.name("family", findings)?;
    if family.as_str() == own {
        let message = "`family` names the provider itself";
        findings.error("own-family", node.position, message, "name another provider, or remove the key");
        return None;
    }
    known(family, node.position, names, findings)
}

fn regions(node: &Node, findings: &mut Findings) -> Option<Vec<Region>> {
    node.list("data_regions", 100, findings)?.iter().map(|item| item.name("data_regions", findings)).collect()
}

/// Reads `http://…` or `https://…`, and takes slashes off its end.
fn address(what: &str, node: &Node, findings: &mut Findings) -> Option<String> {
    let text = node.line(what, LONGEST, findings)?.trim_end_matches('/');
    let uri: Option<http::Uri> = text.parse().ok();
    let host = uri.as_ref().and_then(http::Uri::authority).map_or("", http::uri::Authority::as_str);
    let scheme = uri.as_ref().and_then(http::Uri::scheme_str).unwrap_or_default();
    if host.contains('@') {
        let help = "write the address alone, and the secret as `{ env: NAME }` or `{ file: PATH }` in its own key";
        findings.error_unshown("literal-secret", node.position, format!("`{what}` holds a user name or secret"), help);
        return None;
    }
    let has_query = text.contains(['?', '#']);
    if host.is_empty() || !matches!(scheme, "http" | "https") || has_query {
        let message = format!("`{what}` is not the address of a server");
        let help = format!("write an address such as {OPENAI_URL}, without `?` and `#`");
        findings.error("bad-url", node.position, message, help);
        return None;
    }
    Some(text.to_owned())
}

fn is_plain_and_remote(url: &str) -> bool {
    let Some(uri) = url.parse::<http::Uri>().ok().filter(|uri| uri.scheme_str() == Some("http")) else { return false };
    let host = uri.host().unwrap_or_default();
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    !(host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback()))
}
