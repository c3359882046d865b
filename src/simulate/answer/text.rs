//! Small readings of a text: its first sentence, its telling words, a number of its own.

use sha2::{Digest, Sha256};

/// The first sentence, at most `most` bytes long and cut between words where it must be.
pub(super) fn first_sentence(text: &str, most: usize) -> &str {
    let text = text.trim();
    let end = text
        .char_indices()
        .zip(text.chars().skip(1).map(Some).chain([None]))
        .find(|((_, c), next)| matches!(c, '.' | '!' | '?') && next.is_none_or(char::is_whitespace))
        .map_or(text.len(), |((place, _), _)| place + 1);
    let paragraph = text.find("\n\n").unwrap_or(text.len());
    shortened(text.get(..end.min(paragraph)).unwrap_or(text).trim_end(), most)
}

/// At most `most` bytes, whole words if there are any.
pub(super) fn shortened(text: &str, most: usize) -> &str {
    if text.len() <= most {
        return text;
    }
    let fits = text.char_indices().map(|(place, _)| place).take_while(|place| *place <= most).last().unwrap_or(0);
    let cut = text.get(..fits).unwrap_or_default();
    cut.rfind(char::is_whitespace).and_then(|space| cut.get(..space)).filter(|cut| !cut.is_empty()).unwrap_or(cut)
}

/// The words of a text that say most about it: long ones, in order, each once.
pub(super) fn telling_words(text: &str, count: usize) -> Vec<&str> {
    let mut words: Vec<&str> = Vec::with_capacity(count);
    for word in text.split(|c: char| !c.is_alphanumeric() && c != '-' && c != '+') {
        let long = word.chars().count() >= 6 && !COMMON.iter().any(|common| word.eq_ignore_ascii_case(common));
        if long && !words.iter().any(|known| known.eq_ignore_ascii_case(word)) {
            words.push(word);
            if words.len() == count {
                break;
            }
        }
    }
    words
}

const COMMON: [&str; 17] = [
    "package",
    "provides",
    "contains",
    "includes",
    "description",
    "various",
    "support",
    "without",
    "through",
    "between",
    "several",
    "should",
    "version",
    "library",
    "system",
    "program",
    "running",
];

/// A number that a text always has, and no other text is likely to have.
pub(super) fn number_of(parts: &[&str]) -> u64 {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
        hasher.update([0x1f]);
    }
    let digest = hasher.finalize();
    digest.iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte))
}
