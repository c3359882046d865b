//! The exact count, by OpenAI's published vocabularies.
//!
//! Invariant: linear in the text and bounded: a text goes to the tokenizer in slices of a few kilobytes, so that no run of
//! characters can make it slow or exceed its limits, and counting stops when enough is counted. A slice that must be cut
//! inside a word may count one token too many.

use tiktoken_rs::CoreBPE;

use super::{super::model::Tokenizer, walk::Measure};

/// Bytes that the tokenizer is given at once.
const SLICE: usize = 4_096;

/// A count by a vocabulary.
pub(super) struct Vocabulary {
    tokenizer: &'static CoreBPE,
    pub(super) tokens: u64,
    halves: u64,
    enough: u64,
}

impl Vocabulary {
    /// Counts by the family's vocabulary, or the nearest published one, until there are `enough` tokens.
    pub(super) fn of(tokenizer: Tokenizer, enough: u64) -> Self {
        let tokenizer = match tokenizer {
            Tokenizer::Cl100k => tiktoken_rs::cl100k_base_singleton(),
            Tokenizer::O200k
            | Tokenizer::O200kAssumed
            | Tokenizer::Claude4
            | Tokenizer::Claude5
            | Tokenizer::Nova
            | Tokenizer::Llama
            | Tokenizer::Other => tiktoken_rs::o200k_base_singleton(),
        };
        Self { tokenizer, tokens: 0, halves: 0, enough }
    }
}

impl Measure for Vocabulary {
    fn text(&mut self, text: &str) {
        let mut rest = text;
        while !rest.is_empty() && self.tokens < self.enough {
            let (slice, after) = rest.split_at(cut(rest));
            self.tokens = self.tokens.saturating_add(self.tokenizer.count_ordinary(slice) as u64);
            rest = after;
        }
    }

    fn halves(&mut self, halves: u64) {
        let all = self.halves + halves;
        self.tokens = self.tokens.saturating_add(all / 2);
        self.halves = all % 2;
    }

    fn is_enough(&self) -> bool {
        self.tokens >= self.enough
    }
}

/// Where the next slice ends: before a blank that follows a word, if there is one, because tokens begin with blanks.
fn cut(text: &str) -> usize {
    if text.len() <= SLICE {
        return text.len();
    }
    let end = text.floor_char_boundary(SLICE);
    let head = text.get(..end).unwrap_or(text);
    let mut after_word = None;
    let mut last_blank = true;
    for (place, c) in head.char_indices() {
        if c == ' ' && !last_blank {
            after_word = Some(place);
        }
        last_blank = c.is_whitespace();
    }
    after_word.filter(|place| *place > 0).unwrap_or(end)
}
