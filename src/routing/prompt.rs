//! `job.prompt_tokens` in rules: as exact as the decision needs it, and no more.
//!
//! Invariant: a prompt is counted by the vocabulary only when the cheap lower bound and the cheap upper bound lead to
//! different decisions. In rules a prompt has as many tokens as OpenAI's current models count, wherever it goes then: a
//! rule is asked before there is a target.

use std::cell::Cell;

use super::{Decision, Question, decide};
use crate::{
    catalog::{
        Tokenizer,
        tokens::{self, Bounds},
    },
    spec::condition::Facts,
};

/// A prompt is counted up to so many tokens: more than any window has, and some 300 ms of work.
const MOST_COUNTED: u64 = 2_000_000;

/// The decision, if the cheap bounds of `job.prompt_tokens` leave no doubt about it. Where no rule asks for tokens,
/// nothing is estimated at all.
pub fn decide_cheaply(question: &Question<'_>) -> Option<Decision> {
    let body = question.facts.body;
    let bounds: Cell<Option<Bounds>> = Cell::new(None);
    let most = || {
        let estimate = bounds.get().unwrap_or_else(|| tokens::estimate_prompt(Tokenizer::O200k, body));
        bounds.set(Some(estimate));
        estimate.most
    };
    let decision = decide(&with_tokens(question, &most));
    let Some(bounds) = bounds.get() else { return Some(decision) };
    let other = decide(&with_tokens(question, &|| bounds.least));
    let same = other.rule == decision.rule && other.route == decision.route && other.arm == decision.arm;
    same.then_some(decision)
}

/// Decides; counts the prompt if need be, which takes a moment for a long one.
pub fn decide_counting(question: &Question<'_>) -> Decision {
    decide_cheaply(question).unwrap_or_else(|| {
        let tokens = prompt_tokens(question.facts.body);
        decide(&with_tokens(question, &|| tokens))
    })
}

/// `job.prompt_tokens` to the token. The first count in a process loads the vocabulary.
pub fn prompt_tokens(body: &serde_json::Value) -> u64 {
    tokens::count_prompt(Tokenizer::O200k, body, MOST_COUNTED).most
}

fn with_tokens<'a>(question: &Question<'a>, prompt_tokens: &'a dyn Fn() -> u64) -> Question<'a> {
    Question { facts: Facts { prompt_tokens, ..question.facts }, ..*question }
}
