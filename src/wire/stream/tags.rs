//! Reasoning that stands in the text itself: `<reasoning>…</reasoning>` before the answer.
//!
//! Invariant: what comes out does not depend on how the text was cut into pieces; every letter but the tags comes out,
//! as reasoning or as text.

const OPEN: &str = "<reasoning>";
const CLOSE: &str = "</reasoning>";

/// A piece of the text, told apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    Reasoning(String),
}

/// Tells reasoning at the beginning of a text from the text.
#[derive(Debug, Clone)]
pub(super) enum Tags {
    /// Nothing but blanks and perhaps part of a tag so far.
    Before(String),
    /// Within; the end of it may be part of a tag.
    Within(String),
    /// The answer itself has begun.
    After,
}

impl Tags {
    pub(super) fn new(expected: bool) -> Self {
        if expected { Self::Before(String::new()) } else { Self::After }
    }

    pub(super) fn push(&mut self, text: String) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            match std::mem::replace(self, Self::After) {
                Self::After => {
                    pieces.push(Piece::Text(rest));
                    break;
                }
                Self::Before(held) => {
                    let whole = held + &rest;
                    let start = whole.trim_start();
                    if let Some(inside) = start.strip_prefix(OPEN) {
                        inside.clone_into(&mut rest);
                        *self = Self::Within(String::new());
                    } else if OPEN.starts_with(start) {
                        *self = Self::Before(whole);
                        break;
                    } else {
                        rest = whole;
                    }
                }
                Self::Within(held) => {
                    let mut whole = held + &rest;
                    if let Some(place) = whole.find(CLOSE) {
                        rest = whole.split_off(place).split_off(CLOSE.len());
                        *self = Self::Before(String::new());
                    } else {
                        let open = (1..CLOSE.len())
                            .rev()
                            .find(|length| CLOSE.get(..*length).is_some_and(|start| whole.ends_with(start)));
                        *self = Self::Within(whole.split_off(whole.len() - open.unwrap_or(0)));
                        rest = String::new();
                    }
                    if !whole.is_empty() {
                        pieces.push(Piece::Reasoning(whole));
                    }
                }
            }
        }
        pieces
    }

    /// The text is over.
    pub(super) fn end(&mut self) -> Option<Piece> {
        match std::mem::replace(self, Self::After) {
            Self::Before(held) if !held.is_empty() => Some(Piece::Text(held)),
            Self::Within(held) if !held.is_empty() => Some(Piece::Reasoning(held)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(pieces: &[&str]) -> (String, String) {
        let mut tags = Tags::new(true);
        let (mut text, mut reasoning) = (String::new(), String::new());
        let mut all: Vec<Piece> = pieces.iter().flat_map(|piece| tags.push((*piece).to_owned())).collect();
        all.extend(tags.end());
        for piece in all {
            match piece {
                Piece::Text(more) => text += &more,
                Piece::Reasoning(more) => reasoning += &more,
            }
        }
        (reasoning, text)
    }

    #[test]
    fn reasoning_is_told_from_text() {
        for (whole, reasoning, text) in [
            ("<reasoning>hm</reasoning>Hi", "hm", "Hi"),
            (" \n<reasoning>hm</reasoning>\nHi", "hm", "\nHi"),
            ("<reasoning>a</reasoning><reasoning>b</reasoning>c", "ab", "c"),
            ("<reasoning>a < b </reasonable", "a < b </reasonable", ""),
            ("<reasoning></reasoning>", "", ""),
            ("<reason", "", "<reason"),
            ("Hi <reasoning>no</reasoning>", "", "Hi <reasoning>no</reasoning>"),
            ("", "", ""),
            (" ", "", " "),
        ] {
            assert_eq!(told(&[whole]), (reasoning.to_owned(), text.to_owned()), "{whole:?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(parts in prop::collection::vec("(<reasoning>|</reasoning>|<|reas|oning>|/| |x|ü)", 0..12),
                                cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
            let whole = parts.concat();
            let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(whole.len() + 1)).collect();
            places.retain(|place| whole.is_char_boundary(*place));
            places.extend([0, whole.len()]);
            places.sort_unstable();
            let pieces: Vec<&str> = places.windows(2).map(|pair| &whole[pair[0]..pair[1]]).collect();
            prop_assert_eq!(told(&pieces), told(&[&whole]));
        }
    }
}
