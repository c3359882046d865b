//! Small readings of a text: its first sentence, its telling words, a number of its own.

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

/// A number that depends on a seed and a short text, and on nothing else (FNV-1a, then mixed).
pub(super) fn number_of(seed: u64, text: &str) -> u64 {
    let sum = text
        .bytes()
        .fold(seed ^ 0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let mixed = (sum ^ (sum >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 29)
}
