//! AWS Service Quotas as far as Bedrock has any: what this simulation grants, under the names that AWS gives to quotas.
//!
//! Invariant: what is told is what is kept to: a quota is listed for a model and a reach if calls to it are limited so.

use axum::http::HeaderMap;
use serde_json::{Value, json};

use crate::{
    catalog::Catalog,
    simulate::{
        model::{Quota, Scoped},
        reply::Reply,
    },
    spec::Api,
};

/// Which operation is meant.
const TARGET: &str = "x-amz-target";
const LIST: &str = "ServiceQuotasV20190624.ListServiceQuotas";
/// The largest page.
const PAGE: u64 = 100;

/// Answers one request.
pub(in crate::simulate) fn answer(
    headers: &HeaderMap,
    body: &[u8],
    catalog: &Catalog,
    quotas: &[Scoped<Quota>],
) -> Reply {
    let fail =
        |status: u16, kind: &str, message: &str| Reply::json(status, &json!({ "__type": kind, "Message": message }));
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if text(TARGET) != Some(LIST) {
        return fail(400, "UnknownOperationException", "The simulation does ListServiceQuotas alone.");
    }
    let signed = text("authorization").unwrap_or_default();
    // A signature has to be over the operation's name too.
    if !signed.starts_with("AWS4-HMAC-SHA256") || !signed.contains("x-amz-target") {
        return fail(403, "InvalidSignatureException", "The request is not signed, or not with x-amz-target.");
    }
    let Ok(asked) = serde_json::from_slice::<Value>(body) else {
        return fail(400, "SerializationException", "The body is no JSON.");
    };
    if asked["ServiceCode"] != "bedrock" {
        return fail(400, "NoSuchResourceException", "The simulation knows the service bedrock alone.");
    }
    let region = super::signed_region(headers).unwrap_or("us-east-1");
    let all = listed(catalog, quotas, region);
    let from = asked["NextToken"].as_str().and_then(|token| token.parse::<usize>().ok()).unwrap_or(0);
    let size = asked["MaxResults"].as_u64().unwrap_or(PAGE).clamp(1, PAGE);
    let to = from.saturating_add(usize::try_from(size).unwrap_or(1)).min(all.len());
    let mut page = json!({ "Quotas": all.get(from..to).unwrap_or_default() });
    if to < all.len() {
        page["NextToken"] = to.to_string().into();
    }
    let mut reply = Reply::json(200, &page);
    reply
        .headers
        .insert(axum::http::header::CONTENT_TYPE, axum::http::HeaderValue::from_static("application/x-amz-json-1.1"));
    reply
}

fn listed(catalog: &Catalog, quotas: &[Scoped<Quota>], region: &str) -> Vec<Value> {
    let mut all = Vec::new();
    for model in catalog.models().iter().filter(|model| model.api == Api::Bedrock) {
        for (head, geography) in [("On-demand", ""), ("Cross-region", "us."), ("Global cross-region", "global.")] {
            let id = format!("{geography}{}", model.id);
            let Some(quota) = quotas.iter().rev().find(|quota| quota.scope.covers(Api::Bedrock, &id)) else { continue };
            let subject = in_words(&model.id);
            let limits = [("requests", quota.value.requests_per_minute), ("tokens", quota.value.tokens_per_minute)];
            for (what, limit) in limits {
                let Some(limit) = limit else { continue };
                all.push(json!({
                    "ServiceCode": "bedrock",
                    "ServiceName": "Amazon Bedrock",
                    "QuotaArn": format!("arn:aws:servicequotas:{region}:123456789012:bedrock/L-{:08X}", all.len()),
                    "QuotaCode": format!("L-{:08X}", all.len()),
                    "QuotaName": format!("{head} model inference {what} per minute for {subject}"),
                    "Value": limit as f64,
                    "Unit": "None",
                    "Adjustable": true,
                    "GlobalQuota": false,
                }));
            }
        }
    }
    all
}

/// A model's name for people: `anthropic.claude-haiku-4-5-20251001-v1:0` is Anthropic Claude Haiku 4.5.
fn in_words(id: &str) -> String {
    let (vendor, model) = id.split_once('.').unwrap_or(("", id));
    let model = model.rsplit_once(':').map_or(model, |(front, _)| front);
    let is_version = |part: &str| part.strip_prefix('v').unwrap_or(part).bytes().all(|byte| byte.is_ascii_digit());
    let mut words = vec![capital(vendor)];
    let parts: Vec<&str> = model.split('-').collect();
    for (place, part) in parts.iter().enumerate() {
        let last = place + 1 == parts.len();
        let is_day = part.len() == 8 && is_version(part);
        if is_day || (last && id.contains(':') && matches!(*part, "v1" | "1")) {
            continue;
        }
        match words.last_mut() {
            // 4, 5 is 4.5.
            Some(before) if is_version(part) && before.len() <= 2 && is_version(before) => {
                before.push('.');
                before.push_str(part);
            }
            _ => words.push(capital(part)),
        }
    }
    words.join(" ")
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::applied::Applied;

    #[test]
    fn names_are_those_that_aws_gives_and_lead_back_to_every_model() {
        for (id, name) in [
            ("anthropic.claude-haiku-4-5-20251001-v1:0", "Anthropic Claude Haiku 4.5"),
            ("anthropic.claude-sonnet-5", "Anthropic Claude Sonnet 5"),
            ("amazon.nova-lite-v1:0", "Amazon Nova Lite"),
            ("openai.gpt-oss-120b-1:0", "Openai Gpt Oss 120b"),
        ] {
            assert_eq!(in_words(id), name);
        }
        let catalog = Catalog::builtin();
        let all = "bedrock=rpm=77,tpm=777".parse().unwrap();
        let quotas: Vec<Applied> = listed(&catalog, &[all], "us-east-1")
            .iter()
            .filter_map(|quota| Applied::read(quota["QuotaName"].as_str()?, quota["Value"].as_f64()?))
            .collect();
        let models: Vec<_> = catalog.models().iter().filter(|model| model.api == Api::Bedrock).collect();
        assert_eq!(quotas.len(), models.len() * 6);
        for model in models {
            for geography in ["", "eu.", "global."] {
                let id = format!("{geography}{}", model.id);
                let grants = Applied::grants(&quotas, &id);
                assert_eq!((grants.requests_per_minute, grants.tokens_per_minute), (Some(77), Some(777)), "{id}");
            }
        }
    }
}
