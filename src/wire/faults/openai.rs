//! Failures as OpenAI, and servers that speak its form, report them.
//!
//! Invariant: the table is the whole of the knowledge; `x-should-retry` is obeyed where the table leaves room.

use serde_json::Value;

use super::{Classified, Hints, MAX_MESSAGE, Row, excerpt, foreign_body, hints, normal};
use crate::job::Fault::{Misconfigured, Refused, Throttled, TooLong, Transient, Unavailable};

const PAY: &str = "raise the spending limit or add credit at the provider, then clear the target's parking; retrying \
                   cannot help";
const KEY: &str = "check the provider's `api_key` in the settings, and its organisation and project";

static TABLE: &[Row] = &[
    // What no retry can help.
    Row::new(Misconfigured)
        .code(&[
            "insufficient_quota",
            "credit_balance_exhausted",
            "organization_spend_limit_exceeded",
            "project_spend_limit_exceeded",
            "organization_usage_limit_exceeded",
            "billing_hard_limit_reached",
            "billing_not_active",
        ])
        .advice(PAY),
    Row::new(TooLong).code(&["context_length_exceeded"]),
    Row::new(TooLong).status(&[400]).says(&["maximum context length"]),
    Row::new(TooLong).status(&[400]).says(&["context window", "exceed"]),
    Row::new(TooLong).status(&[400]).says(&["prompt is too long"]),
    Row::new(Refused).code(&["content_filter", "content_policy_violation", "moderation_blocked", "invalid_prompt"]),
    Row::new(Misconfigured).status(&[400, 404]).code(&["model_not_found"]).advice(
        "the model does not exist, was shut down, or this project may not use it: name another model on the target",
    ),
    Row::new(Misconfigured)
        .status(&[400])
        .says(&["model", "does not exist"])
        .advice("name another model on the target"),
    Row::new(Misconfigured)
        .status(&[400])
        .says(&["isn't supported on this route"])
        .advice("this model is served through another API of the provider"),
    Row::new(Misconfigured)
        .status(&[401])
        .code(&["ip_not_authorized"])
        .advice("add this machine's address to the project's list of allowed addresses"),
    Row::new(Misconfigured).status(&[401]).advice(KEY),
    Row::new(Misconfigured)
        .code(&["unsupported_country_region_territory"])
        .advice("the provider does not serve this country: call from elsewhere or through another provider"),
    Row::new(Misconfigured)
        .status(&[403])
        .advice("give the key's project access to the model, or name another model on the target"),
    Row::new(Misconfigured).status(&[404, 405, 410]).advice(
        "check the target's model and the provider's `base_url` in the settings (it ends before /chat/completions)",
    ),
    Row::new(Misconfigured)
        .status(&[300, 301, 302, 303, 307, 308])
        .advice("the provider's `base_url` redirects elsewhere: set the address it leads to"),
    Row::new(Misconfigured).status(&[407, 511]).advice("the proxy between us and the provider wants credentials"),
    // What passes.
    Row::new(Transient).status(&[408]).billed(),
    Row::new(Transient).status(&[409, 425]),
    Row::new(Throttled)
        .code(&["slow_down"])
        .status(&[429])
        .advice("the provider wants load to grow more slowly: raise percentages and concurrency in smaller steps"),
    Row::new(Throttled).status(&[429]),
    Row::new(Unavailable).status(&[503, 529]),
    Row::new(Unavailable).code(&["server_is_overloaded", "overloaded_error", "service_unavailable_error"]),
    // A gateway gave up: nobody knows what happened behind it.
    Row::new(Transient).status(&[502, 504, 520, 524]).billed(),
    // It did not reach what is behind it.
    Row::new(Transient).status(&[500, 521, 522, 523, 525, 526, 527, 530]),
];

/// Classifies an answer that is not a completion.
pub fn classify(status: u16, hints: &Hints<'_>, body: &[u8]) -> Classified {
    let said = Said::read(status, body);
    let message = normal(&said.message);
    let codes: Vec<&str> = [said.code.as_deref(), said.kind.as_deref()].into_iter().flatten().collect();
    let row = TABLE.iter().find(|row| row.fits(status, &codes, &message));
    let (fault, billed, advice) = match row {
        _ if status == 400 && said.param.as_deref() == Some("service_tier") => {
            let advice = "this account or model has no such service tier: set `override: { service_tier: auto }`";
            (Misconfigured, false, Some(advice.to_owned()))
        }
        Some(row) => (row.fault, row.billed, row.advice_text()),
        None if (500..600).contains(&status) => (Transient, false, None),
        None if (400..500).contains(&status) => (Refused, false, None),
        // Neither a success with a completion nor a failure: something that is no such provider.
        None => (Transient, true, Some("check the provider's `base_url` in the settings".to_owned())),
    };
    let mut result = Classified {
        fault,
        message: said.message,
        code: said.code.or(said.kind),
        status: Some(status),
        param: said.param,
        retry_after: None,
        advice,
        possibly_billed: billed,
    };
    if result.fault == Throttled && never_fits(&message) {
        result.fault = TooLong;
        result.advice = Some(
            "this one request is larger than the account's tokens per minute: raise the limit, or send it elsewhere"
                .to_owned(),
        );
    }
    obey(&mut result, hints);
    if matches!(result.fault, Throttled | Transient | Unavailable) {
        result.retry_after = hints.wait().or_else(|| hints::spoken(&message));
    }
    result
}

/// What `x-should-retry` changes: a "no" sends the job to another target, a "yes" gives the same one another try.
fn obey(result: &mut Classified, hints: &Hints<'_>) {
    match (hints.should_retry(), result.fault) {
        (Some(false), Transient | Throttled) => result.fault = Unavailable,
        (Some(true), Refused) => result.fault = Transient,
        _ => {}
    }
}

/// Whether a rate limit's message names a request that is larger than the whole limit: it would never pass.
fn never_fits(message: &str) -> bool {
    if message.contains("request too large") {
        return true;
    }
    match (number_after(message, "limit "), number_after(message, "requested ")) {
        (Some(limit), Some(requested)) => requested > limit,
        _ => false,
    }
}

fn number_after(message: &str, word: &str) -> Option<u64> {
    message.match_indices(word).find_map(|(place, _)| {
        let rest = message.get(place + word.len()..)?;
        let digits: String = rest
            .chars()
            .take(24)
            .take_while(|letter| letter.is_ascii_digit() || *letter == ',')
            .filter(char::is_ascii_digit)
            .collect();
        digits.parse().ok()
    })
}

/// What an error body says.
struct Said {
    message: String,
    code: Option<String>,
    kind: Option<String>,
    param: Option<String>,
}

impl Said {
    fn read(status: u16, body: &[u8]) -> Self {
        let parsed: Option<Value> = serde_json::from_slice(body).ok();
        let error = parsed.as_ref().and_then(|value| value.get("error"));
        let text = |name: &str| {
            let value = error?.get(name)?;
            // Some servers write the code as a number.
            value.as_str().map(str::to_owned).or_else(|| value.is_number().then(|| value.to_string()))
        };
        let message = text("message")
            .or_else(|| error?.as_str().map(str::to_owned))
            .or_else(|| parsed.as_ref()?.get("message")?.as_str().map(str::to_owned))
            .or_else(|| parsed.as_ref()?.get("detail")?.as_str().map(str::to_owned))
            .filter(|message| !message.trim().is_empty());
        let message = message.unwrap_or_else(|| foreign_body(status, body));
        Self {
            message: excerpt(&message, MAX_MESSAGE),
            code: text("code").map(|code| excerpt(&code, 100)),
            kind: text("type").map(|kind| excerpt(&kind, 100)),
            param: text("param").map(|param| excerpt(&param, 200)),
        }
    }
}
