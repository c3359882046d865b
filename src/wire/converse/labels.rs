//! Names and ids that Converse takes, made from those that callers use.
//!
//! Invariant: the same text gives the same label wherever it stands, so both ends of a tool call agree without a list;
//! what fits already stays as it is.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// Longest name of a tool and longest id of a call.
const LONGEST: usize = 64;
/// Hex digits that tell labels apart which were alike after cleaning.
const DIGITS: usize = 8;

/// A label of letters, digits, `_` and `-`, at most 64 of them. (Converse lets an id have dots and colons as well;
/// Claude does not.)
pub(super) fn clean(text: &str) -> String {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
    if !text.is_empty() && text.len() <= LONGEST && text.chars().all(fits) {
        return text.to_owned();
    }
    let kept = LONGEST - DIGITS - 1;
    let mut label: String = text.chars().take(kept).map(|letter| if fits(letter) { letter } else { '_' }).collect();
    label.push('_');
    for byte in Sha256::digest(text.as_bytes()).iter().take(DIGITS / 2) {
        // Writing to a String cannot fail.
        let _ = write!(label, "{byte:02x}");
    }
    label
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_fit_and_stay_apart() {
        for fits in ["get_weather", "call-1", &"x".repeat(64)] {
            assert_eq!(clean(fits), fits);
        }
        let odd = ["", "a.b", "a:b", "ünïcode", "a b", "call_1|fc_2", &"x".repeat(65), &"x".repeat(66), "🙂"];
        let labels: Vec<String> = odd.iter().map(|text| clean(text)).collect();
        for (n, label) in labels.iter().enumerate() {
            assert!(!label.is_empty() && label.len() <= 64, "{label}");
            assert!(label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'), "{label}");
            assert!(!labels[..n].contains(label), "{label}");
        }
    }
}
