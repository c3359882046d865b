//! The one JSON value in a text that should be nothing else.
//!
//! Invariant: what comes out is a piece of the text as the model wrote it, and valid JSON; never a guess among several.

use serde_json::Value;

/// Places at which a value is looked for: an answer that needs more is not one JSON value with words around it.
const MAX_TRIES: usize = 64;

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// The value, and nothing but blanks around it.
    Alone(&'a str),
    /// The value, with other text around it.
    Among(&'a str),
    /// No value.
    None,
    /// More than one.
    Several,
}

/// Finds the value: the whole text, one fenced block, or the only object (else the only list) among words.
pub(super) fn find(text: &str) -> Found<'_> {
    let trimmed = text.trim();
    if is_json(trimmed) {
        return Found::Alone(trimmed);
    }
    let fenced: Vec<&str> = fenced(trimmed).filter(|block| is_json(block)).take(2).collect();
    match fenced.as_slice() {
        [one] => return Found::Among(one),
        [] => {}
        _ => return Found::Several,
    }
    for opening in ['{', '['] {
        match only(trimmed, opening) {
            Found::None => {}
            found => return found,
        }
    }
    Found::None
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// The insides of ``` fences, without the language after the first.
fn fenced(text: &str) -> impl Iterator<Item = &str> {
    text.split("```").skip(1).step_by(2).map(|block| match block.split_once('\n') {
        Some((language, rest)) if language.trim().chars().all(|letter| letter.is_ascii_alphanumeric()) => rest.trim(),
        _ => block.trim(),
    })
}

/// The only value in `text` that begins with `opening` and is in no other.
fn only(text: &str, opening: char) -> Found<'_> {
    let (mut found, mut place) = (Found::None, 0);
    for _ in 0..MAX_TRIES {
        let Some(rest) = text.get(place..) else { break };
        let Some(start) = rest.find(opening) else { break };
        let Some(candidate) = rest.get(start..) else { break };
        let mut values = serde_json::Deserializer::from_str(candidate).into_iter::<Value>();
        match values.next() {
            Some(Ok(_)) => {
                if found != Found::None {
                    return Found::Several;
                }
                let length = values.byte_offset();
                found = candidate.get(..length).map_or(Found::None, Found::Among);
                place += start + length.max(1);
            }
            _ => place += start + 1,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_value_is_found() {
        for (text, found) in [
            (" {\"a\":1} ", Found::Alone("{\"a\":1}")),
            ("[1]", Found::Alone("[1]")),
            ("7", Found::Alone("7")),
            ("```json\n{\"a\": 1}\n```", Found::Among("{\"a\": 1}")),
            ("Sure:\n```\n{\"a\": 1}\n```\nDone.", Found::Among("{\"a\": 1}")),
            ("Sure: {\"a\": {\"b\": [1]}}. Anything else?", Found::Among("{\"a\": {\"b\": [1]}}")),
            ("As said in [1], {\"a\": 1}", Found::Among("{\"a\": 1}")),
            ("The list: [1, 2]", Found::Among("[1, 2]")),
            ("{curly} {\"a\": \"}\"}", Found::Among("{\"a\": \"}\"}")),
            ("{\"a\": 1} {\"a\": 2}", Found::Several),
            ("```json\n{}\n```\nor\n```json\n[]\n```", Found::Several),
            ("{\"a\": 1", Found::None),
            ("no", Found::None),
            ("", Found::None),
        ] {
            assert_eq!(find(text), found, "{text:?}");
        }
        let many = "{".repeat(100_000);
        assert_eq!(find(&many), Found::None);
    }
}
