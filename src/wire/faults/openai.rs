//! Failures as OpenAI, and servers that speak its form, report them.
//!
//! Invariant: the table is the whole of the knowledge; `x-should-retry` is obeyed where the table leaves room.

use serde_json::Value;

use super::{
    Classified, DAILY_REQUESTS, DAILY_REST, DAILY_TOKENS, Hints, LARGER_THAN_LIMIT, MAX_MESSAGE, Row, bedrock, excerpt,
    foreign_body, hints, normal, number_after,
};
use crate::job::Fault::{Misconfigured, Refused, Throttled, TooLong, Transient, Unavailable};

const PAY: &str = "raise the spending limit or add credit at the provider, then clear the target's parking; retrying \
                   cannot help";
const KEY: &str = "check the provider's `api_key` in the settings, and its organisation and project";

const DAY: &str =
    "the day's allowance of this model is used up: raise the limit at the provider, or let a fallback serve";

/// Codes of an account that has no money left, or may spend no more of it.
pub(super) const CREDIT: &[&str] = &[
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
    "billing_hard_limit_reached",
    "billing_not_active",
    "billing_error",
];

static TABLE: &[Row] = &[
    // What no retry can help.
    Row::new(Misconfigured).code(CREDIT).advice(PAY),
    Row::new(Throttled)
        .status(&[429])
        .says(&["tokens per day"])
        .after(DAILY_REST.as_secs())
        .named(DAILY_TOKENS)
        .advice(DAY),
    Row::new(Throttled)
        .status(&[429])
        .says(&["requests per day"])
        .after(DAILY_REST.as_secs())
        .named(DAILY_REQUESTS)
        .advice(DAY),
    Row::new(TooLong).code(&["context_length_exceeded"]),
    Row::new(TooLong).status(&[400]).says(&["maximum context length"]),
    Row::new(TooLong).status(&[400]).says(&["context window", "exceed"]),
    Row::new(TooLong).status(&[400]).says(&["prompt is too long"]),
    Row::new(TooLong).status(&[400]).says(&["prompt tokens", "exceed model maximum"]),
    Row::new(TooLong).status(&[400]).says(&["input is too long"]),
    Row::new(TooLong).status(&[413]).code(&["request_too_large"]),
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
///
/// Bedrock's own OpenAI-form endpoint says some failures in Bedrock's form: those are told by the header.
pub fn classify(status: u16, hints: &Hints<'_>, body: &[u8]) -> Classified {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    if hints.error_type.is_some() && parsed.as_ref().and_then(|value| value.get("error")).is_none() {
        return bedrock::classify(status, hints, None, body);
    }
    let said = Said::read(status, parsed.as_ref(), body);
    judge(status, hints, said)
}

/// Classifies an error that came within a stream: the answer had begun, so it may have been billed.
pub fn in_stream(body: &[u8]) -> Classified {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let said = Said::read(200, parsed.as_ref(), body);
    let names = [said.code.as_deref(), said.kind.as_deref()];
    let exception = names.into_iter().flatten().find(|name| bedrock::is_exception(name)).map(str::to_owned);
    let judged = match exception {
        Some(exception) => bedrock::in_stream(&exception, &said.message, None),
        None => judge(said.status(), &Hints::default(), said),
    };
    Classified { possibly_billed: true, ..judged }
}

fn judge(status: u16, hints: &Hints<'_>, said: Said) -> Classified {
    let message = normal(&said.message);
    let codes: Vec<&str> = [said.code.as_deref(), said.kind.as_deref()].into_iter().flatten().collect();
    let row = TABLE.iter().find(|row| row.fits(status, &codes, &message));
    let code = said.code.or_else(|| said.kind.clone());
    let code = row.map_or_else(|| code.clone(), |row| row.code_or(code.clone()));
    let credit = row.is_some_and(|row| row.codes == CREDIT);
    // A code that we do not know yet, of a kind that we do.
    let code = if credit && !code.as_deref().is_some_and(|code| CREDIT.contains(&code)) { said.kind } else { code };
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
        code,
        status: Some(status),
        param: said.param,
        retry_after: row.and_then(|row| row.retry_after),
        advice,
        possibly_billed: billed,
    };
    if result.fault == Throttled && never_fits(&message) {
        result.fault = TooLong;
        result.code = Some(LARGER_THAN_LIMIT.to_owned());
        result.advice = Some(
            "this one request is larger than the account's tokens per minute: raise the limit, or send it elsewhere"
                .to_owned(),
        );
    }
    obey(&mut result, hints);
    if matches!(result.fault, Throttled | Transient | Unavailable) {
        result.retry_after = hints.wait().or_else(|| hints::spoken(&message)).or(result.retry_after);
    } else {
        result.retry_after = None;
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

/// What an error body says.
struct Said {
    message: String,
    code: Option<String>,
    kind: Option<String>,
    param: Option<String>,
}

impl Said {
    fn read(status: u16, parsed: Option<&Value>, body: &[u8]) -> Self {
        let error = parsed.and_then(|value| value.get("error"));
        // Without the word around it, the fields stand at the top.
        let place = error.filter(|error| error.is_object()).or(parsed);
        let text = |name: &str| {
            let value = place?.get(name)?;
            // Some servers write the code as a number.
            value.as_str().map(str::to_owned).or_else(|| value.is_number().then(|| value.to_string()))
        };
        let message = text("message")
            .or_else(|| error?.as_str().map(str::to_owned))
            .or_else(|| parsed?.get("detail")?.as_str().map(str::to_owned))
            .filter(|message| !message.trim().is_empty());
        let message = message.unwrap_or_else(|| foreign_body(status, body));
        Self {
            message: excerpt(&message, MAX_MESSAGE),
            code: text("code").map(|code| excerpt(&code, 100)),
            kind: text("type").map(|kind| excerpt(&kind, 100)),
            param: text("param").map(|param| excerpt(&param, 200)),
        }
    }

    /// The status that the same error has when no answer has begun.
    fn status(&self) -> u16 {
        let names = [self.code.as_deref(), self.kind.as_deref()];
        let number = names.into_iter().flatten().find_map(|name| name.parse().ok());
        number.filter(|status| (400..600).contains(status)).unwrap_or_else(|| {
            let says = |word: &str| names.into_iter().flatten().any(|name| name.contains(word));
            let known = [
                ("rate_limit", 429),
                ("throttl", 429),
                ("slow_down", 429),
                ("overloaded", 503),
                ("unavailable", 503),
                ("timeout", 504),
                ("authentication", 401),
                ("permission", 403),
                ("not_found", 404),
                ("invalid_request", 400),
                ("content_", 400),
            ];
            known.iter().find(|(word, _)| says(word)).map_or(500, |(_, status)| *status)
        })
    }
}
