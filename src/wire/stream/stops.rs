//! Stop sequences that the model does not take: the text is cut where the first of them is complete.
//!
//! Invariant: what comes out does not depend on how the text was cut into pieces, and nothing after a stop sequence, nor
//! any of its letters, ever comes out.

/// Watches a text for stop sequences.
#[derive(Debug, Clone, Default)]
pub(super) struct Stops {
    sequences: Vec<String>,
    /// The end of the text so far, in case a sequence begins there.
    held: String,
}

impl Stops {
    pub(super) fn new(sequences: &[String]) -> Self {
        let sequences = sequences.iter().filter(|sequence| !sequence.is_empty()).cloned().collect();
        Self { sequences, held: String::new() }
    }

    /// Takes more text. Returns what is safe to say, and whether a sequence was met.
    pub(super) fn push(&mut self, text: String) -> (String, bool) {
        if self.sequences.is_empty() {
            return (text, false);
        }
        let mut text = std::mem::take(&mut self.held) + &text;
        // A model that knew the sequence would have stopped at the first that is complete; of two that end there, the
        // longer one began first.
        let met = self
            .sequences
            .iter()
            .filter_map(|sequence| text.find(sequence.as_str()).map(|start| (start + sequence.len(), start)))
            .min();
        if let Some((_, start)) = met {
            text.truncate(start);
            return (text, true);
        }
        let open = self.sequences.iter().map(|sequence| open_end(&text, sequence)).max().unwrap_or(0);
        self.held = text.split_off(text.len() - open);
        (text, false)
    }

    /// The text is over: what was held back was no stop sequence.
    pub(super) fn end(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// How many bytes at the end of `text` could be the beginning of `sequence`.
fn open_end(text: &str, sequence: &str) -> usize {
    sequence
        .char_indices()
        .map(|(place, _)| place)
        .filter(|place| *place > 0 && sequence.get(..*place).is_some_and(|beginning| text.ends_with(beginning)))
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut watch = Stops::new(&stops.iter().map(|stop| (*stop).to_owned()).collect::<Vec<_>>());
        let mut said = String::new();
        for piece in pieces {
            let (safe, met) = watch.push((*piece).to_owned());
            said.push_str(&safe);
            if met {
                return (said, true);
            }
        }
        said.push_str(&watch.end());
        (said, false)
    }

    #[test]
    fn texts_are_cut_at_the_first_complete_sequence() {
        for (stops, pieces, said, met) in [
            (&["END"][..], &["one EN", "D two"][..], "one ", true),
            (&["END"], &["one EN", "TER"], "one ENTER", false),
            (&["END"], &["one E", "N", "D"], "one ", true),
            (&["END"], &["one EN"], "one EN", false),
            (&["abc", "b"], &["a", "b", "c"], "a", true),
            (&["b", "ab"], &["xab"], "x", true),
            (&["aab"], &["aa", "ab"], "a", true),
            (&["ü"], &["x", "ü"], "x", true),
            (&[""], &["x"], "x", false),
            (&[], &["x", "y"], "xy", false),
        ] {
            assert_eq!(cut(stops, pieces), (said.to_owned(), met), "{stops:?} {pieces:?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            stops in prop::collection::vec("[abü]{1,3}", 1..4),
            pieces in prop::collection::vec("[abcü]{0,4}", 0..8),
        ) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let whole = pieces.concat();
            let (said, met) = cut(&stops, &pieces);
            prop_assert_eq!((said.clone(), met), cut(&stops, &[&whole]));
            prop_assert!(whole.starts_with(&said));
            prop_assert!(stops.iter().all(|stop| !said.contains(stop)));
            prop_assert_eq!(met, stops.iter().any(|stop| whole.contains(stop)));
        }
    }
}
