//! The cheap estimate: every character has a weight by its kind.
//!
//! Invariant: one pass, no tables. A letter or blank of ASCII weighs three tenths of a token, digits and punctuation
//! more, most of all in long runs that no word has; letters of other alphabets six tenths; Chinese, Japanese and Korean
//! characters 1.2; emoji three.

use std::cmp::Ordering;

use super::{UNITS, walk::Measure};

/// Letters and digits in a row that may still be a word, in units of characters.
const LONGEST_WORD: u64 = 20;
/// What each character of a longer run costs more, in units.
const PER_RUN_CHARACTER: u64 = 9;
/// What is left of a weight for the lower bound: words of a dozen letters can be one token.
const LEAST_SHARE: u64 = 5;

/// Weights in units.
#[derive(Debug, Default)]
pub(super) struct Weights {
    /// For the lower bound.
    pub(super) least: u64,
    /// For the upper bound.
    pub(super) most: u64,
}

impl Measure for Weights {
    fn text(&mut self, text: &str) {
        let (mut most, mut least, mut run, mut last) = (0_u64, 0_u64, 0_u64, None);
        for c in text.chars() {
            run = if c.is_ascii_alphanumeric() { run + 1 } else { 0 };
            let weight = match c {
                'a'..='z' | 'A'..='Z' | ' ' => 6,
                '0'..='9' => 10,
                '\0'..='\u{2e7f}' => 12,
                '\u{2e80}'..='\u{ffff}' => 24,
                _ => 60,
            };
            most += weight;
            // A long run of one character can be one token.
            least += if last == Some(c) { 0 } else { weight };
            last = Some(c);
            // Nothing that long is a word: keys, digests and encoded bytes fall into short tokens.
            most += match run.cmp(&LONGEST_WORD) {
                Ordering::Less => 0,
                Ordering::Equal => LONGEST_WORD * PER_RUN_CHARACTER,
                Ordering::Greater => PER_RUN_CHARACTER,
            };
        }
        self.most = self.most.saturating_add(most);
        self.least = self.least.saturating_add(least / LEAST_SHARE);
    }

    fn halves(&mut self, halves: u64) {
        self.most = self.most.saturating_add(halves * UNITS / 2);
    }
}
