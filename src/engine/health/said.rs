//! What a provider's answer says of its quotas.
//!
//! Invariant: words are read, never obeyed here; what they lead to is the allowance's to decide, within its bounds.

use crate::{
    provider::{CallError, RateLimit},
    quota::{Throttle, Told},
};

/// What headers say of requests and of tokens.
pub(super) fn told(said: &RateLimit) -> (Told, Told) {
    let requests = Told { limit: said.limit_requests, remaining: said.remaining_requests, reset: said.reset_requests };
    let tokens = Told { limit: said.limit_tokens, remaining: said.remaining_tokens, reset: said.reset_tokens };
    (requests, tokens)
}

/// Which limit a provider names when it turns a call away.
pub(super) fn throttle(error: &CallError) -> Throttle {
    let words = error.message.to_ascii_lowercase();
    let says = |any: &[&str]| any.iter().any(|word| words.contains(word));
    if says(&["tokens per day", "token per day", "(tpd)"]) {
        Throttle::TokensPerDay
    } else if says(&["requests per day", "request per day", "(rpd)"]) {
        Throttle::Exhausted
    } else if says(&["(tpm)", "tokens per min", "token per min", "too many tokens"]) {
        Throttle::Tokens
    } else if says(&["concurren"]) {
        Throttle::Concurrency
    } else if says(&["(rpm)", "requests per min", "too many requests"]) {
        Throttle::Requests
    } else {
        Throttle::Unsaid
    }
}
