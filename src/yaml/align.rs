//! Finds the characters of a decoded scalar again in the way it was written: plain, quoted, literal or folded.
//!
//! Needed because expressions live inside scalars and report offsets into the decoded text, while people look at files.

/// How a scalar was written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    /// Plain, literal or folded: characters stand for themselves, white space may be folded.
    Bare,
    /// `'…'`, where `''` is one quote.
    Single,
    /// `"…"` with escapes.
    Double,
}

/// For each character of `text`, its byte offset in `raw`; `None` when the two cannot be matched.
pub(super) fn align(raw: &str, text: &str) -> Option<Vec<usize>> {
    [Style::Bare, Style::Single, Style::Double].into_iter().find_map(|style| align_as(style, raw, text))
}

fn align_as(style: Style, raw: &str, text: &str) -> Option<Vec<usize>> {
    let quote = match style {
        Style::Bare => "",
        Style::Single => "'",
        Style::Double => "\"",
    };
    let inner = raw.strip_prefix(quote)?;
    let lead = quote.len();
    let written: Vec<(usize, char)> = inner.char_indices().map(|(at, c)| (at + lead, c)).collect();
    let wanted: Vec<char> = text.chars().collect();
    let mut places = Vec::with_capacity(wanted.len());
    let mut at = 0;
    while let Some(&c) = wanted.get(places.len()) {
        let &(place, found) = written.get(at)?;
        if c.is_whitespace() && found.is_whitespace() {
            let wide = written.iter().skip(at).take_while(|(_, c)| c.is_whitespace()).count();
            let narrow = wanted.iter().skip(places.len()).take_while(|c| c.is_whitespace()).count();
            // Folding drops line breaks and indentation, so the two runs agree at their ends.
            for back in (1..=narrow).rev() {
                let from = if back <= wide { at + wide - back } else { at };
                places.push(written.get(from).map_or(place, |(at, _)| *at));
            }
            at += wide;
            continue;
        }
        at += match style {
            Style::Single if c == '\'' => (found == '\'' && written.get(at + 1)?.1 == '\'').then_some(2)?,
            Style::Double if found == '\\' => escape_length(written.get(at + 1)?.1),
            _ => (found == c).then_some(1)?,
        };
        places.push(place);
    }
    Some(places)
}

/// Characters of an escape, the backslash included.
fn escape_length(kind: char) -> usize {
    match kind {
        'x' => 4,
        'u' => 6,
        'U' => 10,
        _ => 2,
    }
}
