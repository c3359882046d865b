//! What a prompt's instructions ask for: the labels that they list, the fields that they name.

/// Labels or fields in one list at most.
const MOST_ITEMS: usize = 200;

/// Longest label or field, in bytes.
const LONGEST_ITEM: usize = 60;

const LABEL_MARKS: [&str; 8] =
    ["one of", "labels", "categories", "classes", "sections", "options", "one label from", "choose from"];
const FIELD_MARKS: [&str; 6] = ["with the keys", "keys", "fields", "properties", "with exactly", "members"];

/// What a model is told to do.
pub(super) struct Instructions<'a> {
    told: &'a str,
    /// The same in lower case, byte for byte.
    lower: String,
}

impl<'a> Instructions<'a> {
    /// The instructions of a text.
    pub fn of(told: &'a str) -> Self {
        Self { told, lower: told.to_ascii_lowercase() }
    }

    /// Whether they speak of something, given in lower case.
    pub fn mention(&self, word: &str) -> bool {
        self.lower.contains(word)
    }

    fn list_after(&self, mark: &str) -> Option<Vec<&'a str>> {
        let place = self.lower.find(mark)?;
        list(self.told.get(place + mark.len()..)?)
    }
}

/// The labels that the instructions list, if they list at least two.
pub(super) fn labels<'a>(told: &Instructions<'a>) -> Option<Vec<&'a str>> {
    LABEL_MARKS.iter().find_map(|mark| told.list_after(mark)).filter(|labels| labels.len() >= 2)
}

/// The fields that the instructions name, with what they say about each: `tags (array of strings)`.
pub(super) fn fields<'a>(told: &Instructions<'a>) -> Vec<(&'a str, &'a str)> {
    let listed = FIELD_MARKS.iter().find_map(|mark| told.list_after(mark)).unwrap_or_default();
    let mut fields: Vec<(&str, &str)> = listed
        .into_iter()
        .map(|item| match item.split_once(['(', ':']) {
            Some((name, about)) => (unquoted(name), about.trim_end_matches(')')),
            None => (item, ""),
        })
        .filter(|(name, _)| is_field(name))
        .collect();
    if fields.is_empty() {
        fields = quoted_keys(told.told);
    }
    fields
}

fn is_field(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// Names in quotes before a colon, as in an example object.
fn quoted_keys(told: &str) -> Vec<(&str, &str)> {
    let mut keys = Vec::new();
    let mut pieces = told.split('"');
    pieces.next();
    while let (Some(inside), Some(after)) = (pieces.next(), pieces.next()) {
        if after.trim_start().starts_with(':') && is_field(inside) && keys.len() < MOST_ITEMS {
            keys.push((inside, ""));
        }
    }
    keys
}

/// The items listed after a mark: on lines of their own, or up to the end of the sentence.
fn list(rest: &str) -> Option<Vec<&str>> {
    // `one of these sections: a, b`: the list begins behind the colon, if one is near.
    let line_end = rest.find(['\n', '.']).unwrap_or(rest.len());
    let colon = rest.get(..line_end)?.find(':').filter(|colon| *colon <= 60);
    let rest = match colon {
        Some(colon) => rest.get(colon + 1..)?,
        None => rest,
    };
    let items = match rest.trim_start_matches(' ').strip_prefix('\n') {
        Some(lines) => lines.lines().map_while(bullet).collect(),
        None => inline(rest),
    };
    let items: Vec<&str> = items
        .into_iter()
        .map(unquoted)
        .filter(|item| !item.is_empty() && item.len() <= LONGEST_ITEM)
        .take(MOST_ITEMS)
        .collect();
    (!items.is_empty()).then_some(items)
}

fn bullet(line: &str) -> Option<&str> {
    let line = line.trim();
    let numbered = || line.split_once(['.', ')']).filter(|(number, _)| number.bytes().all(|b| b.is_ascii_digit()));
    line.strip_prefix("- ")
        .or_else(|| line.strip_prefix("* "))
        .or_else(|| line.strip_prefix("• "))
        .or_else(|| numbered().map(|(_, item)| item))
}

/// Items of a sentence, split outside parentheses.
fn inline(sentence: &str) -> Vec<&str> {
    let mut items = Vec::new();
    let (mut start, mut depth) = (0, 0_i32);
    for (place, c) in sentence.char_indices() {
        let next = sentence.get(place + c.len_utf8()..).and_then(|rest| rest.chars().next());
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' | '|' | ';' if depth <= 0 => {
                items.extend(sentence.get(start..place));
                start = place + c.len_utf8();
            }
            '\n' => {
                items.extend(sentence.get(start..place));
                return split_last(items);
            }
            '.' if depth <= 0 && next.is_none_or(char::is_whitespace) => {
                items.extend(sentence.get(start..place));
                return split_last(items);
            }
            _ => {}
        }
        if items.len() > MOST_ITEMS {
            return items;
        }
    }
    items.extend(sentence.get(start..));
    split_last(items)
}

/// `a, b or c`: the last item is two.
fn split_last(mut items: Vec<&str>) -> Vec<&str> {
    if let Some(last) = items.pop() {
        match last.split_once(" or ").or_else(|| last.split_once(" and ")).filter(|_| !last.contains('(')) {
            Some((one, other)) => items.extend([one, other]),
            None => items.push(last),
        }
    }
    items
}

fn unquoted(item: &str) -> &str {
    let item = item.trim();
    let item = item.strip_prefix("or ").or_else(|| item.strip_prefix("and ")).unwrap_or(item);
    item.trim_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '“' | '”'))
}
