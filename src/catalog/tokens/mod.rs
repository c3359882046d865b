//! How many tokens a prompt has, before anybody is asked.
//!
//! Invariant: the cheap estimate is linear in the size of the request and needs no vocabulary; its upper bound leans
//! upwards, so that a request believed to fit does fit. The exact count is linear too, and stops at a bound: a caller makes
//! it only where the cheap bounds leave a question open (a window is near, or a rule's answer hangs on it).
//!
//! Against OpenAI's current tokenizer the cheap estimate came out 30 to 50 % above for English prose, 25 to 55 % for
//! code, 5 to 20 % for JSON and YAML, 50 to 110 % for other languages and scripts, and even for base64 and hexadecimal
//! text. Only words of random letters cost more than it says.
//!
//! What no tokenizer of OpenAI's counts is bounded by family, in percent of OpenAI's current one:
//!
//! | family | at least | at most | why |
//! |---|---|---|---|
//! | OpenAI's, counted | 100 | 100 | the vocabulary is published |
//! | OpenAI's since gpt-6 | 90 | 110 | the vocabulary is not named; the last published one is assumed |
//! | Claude up to 4.6, Llama since 3 | 85 | 115 | 4.3 characters a token of English |
//! | Claude from 4.7 on | 85 | 160 | up to 1.47 times what Claude counted before |
//! | Nova | 85 | 150 | 3 bytes a token of English |
//! | others | 60 | 150 | vocabularies of 100,000 to 260,000 tokens |

mod vocabulary;
mod walk;
mod weights;

use serde_json::Value;

use self::{vocabulary::Vocabulary, walk::Walk, weights::Weights};
use super::model::Tokenizer;

/// Twentieths of a token: the unit of weights.
const UNITS: u64 = 20;

/// Between how many tokens a prompt has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Not fewer.
    pub least: u64,
    /// Not more.
    pub most: u64,
}

impl Bounds {
    /// These and so many tokens more.
    pub fn plus(self, tokens: Self) -> Self {
        Self { least: self.least.saturating_add(tokens.least), most: self.most.saturating_add(tokens.most) }
    }
}

/// An upper-leaning estimate of a chat request's prompt, as OpenAI's current models would count it.
pub fn estimate_prompt_tokens(body: &Value) -> u64 {
    estimate_prompt_tokens_for(Tokenizer::O200k, body)
}

/// The same for a family of models.
pub fn estimate_prompt_tokens_for(tokenizer: Tokenizer, body: &Value) -> u64 {
    estimate_prompt(tokenizer, body).most
}

/// Cheap bounds of a chat request's prompt.
pub fn estimate_prompt(tokenizer: Tokenizer, body: &Value) -> Bounds {
    let mut walk = Walk::new(Weights::default());
    walk.request(body);
    cheap(tokenizer, &walk)
}

/// Cheap bounds of one text.
pub fn estimate_text(tokenizer: Tokenizer, text: &str) -> Bounds {
    let mut walk = Walk::new(Weights::default());
    walk.text(text);
    cheap(tokenizer, &walk)
}

/// Bounds of a chat request's prompt by the family's vocabulary, or the nearest published one. Counting stops once more
/// than `up_to` tokens are sure: `least` is above it then, and `most` says nothing. The first call loads a vocabulary (a
/// few tens of megabytes, some 150 ms): keep it off threads that others wait for.
pub fn count_prompt(tokenizer: Tokenizer, body: &Value, up_to: u64) -> Bounds {
    counted(tokenizer, up_to, |walk| walk.request(body))
}

/// The same for one text.
pub fn count_text(tokenizer: Tokenizer, text: &str, up_to: u64) -> Bounds {
    counted(tokenizer, up_to, |walk| walk.text(text))
}

/// Whether [`count_prompt`] counts what the models themselves count.
pub fn is_exact(tokenizer: Tokenizer) -> bool {
    matches!(tokenizer, Tokenizer::O200k | Tokenizer::Cl100k)
}

fn cheap(tokenizer: Tokenizer, walk: &Walk<Weights>) -> Bounds {
    // The family's share of what OpenAI's current tokenizer needs, with a margin for the worst kinds of text.
    let percent = match tokenizer {
        Tokenizer::O200k => 100,
        Tokenizer::O200kAssumed => 110,
        Tokenizer::Cl100k | Tokenizer::Claude4 | Tokenizer::Llama => 115,
        Tokenizer::Claude5 => 160,
        Tokenizer::Nova | Tokenizer::Other => 135,
    };
    let tokens = |units: u64, percent: u64| units.saturating_mul(percent).div_ceil(UNITS * 100);
    Bounds {
        least: (walk.measure.least * family(tokenizer).0 / (UNITS * 100)).saturating_add(walk.framing()),
        most: tokens(walk.measure.most, percent).saturating_add(walk.whole()),
    }
}

fn counted(tokenizer: Tokenizer, up_to: u64, visit: impl FnOnce(&mut Walk<Vocabulary>)) -> Bounds {
    let (least, most) = family(tokenizer);
    let enough = up_to.saturating_add(1).saturating_mul(100) / least;
    let mut walk = Walk::new(Vocabulary::of(tokenizer, enough));
    visit(&mut walk);
    Bounds {
        least: (walk.measure.tokens.saturating_mul(least) / 100).saturating_add(walk.framing()),
        most: walk.measure.tokens.saturating_mul(most).div_ceil(100).saturating_add(walk.whole()),
    }
}

/// What a family needs of what OpenAI's vocabulary needs, in percent: at least, at most.
fn family(tokenizer: Tokenizer) -> (u64, u64) {
    match tokenizer {
        Tokenizer::O200k | Tokenizer::Cl100k => (100, 100),
        Tokenizer::O200kAssumed => (90, 110),
        Tokenizer::Claude4 | Tokenizer::Llama => (85, 115),
        Tokenizer::Claude5 => (85, 160),
        Tokenizer::Nova => (85, 150),
        Tokenizer::Other => (60, 150),
    }
}

#[cfg(test)]
mod tests;
