//! A spec without a rollout that has come to its end: everybody goes to the candidate, and what served only the rollout is
//! gone.
//!
//! Invariant: the text is edited, not written anew, so comments and layout stay; and the result means exactly what the
//! edited tree means, or nothing is given back.

use serde_json::Value as Json;

use crate::yaml::{self, Entry, Node, Value};

/// A spec with a rollout collapsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collapsed {
    /// The new text.
    pub text: String,
    /// Targets that nothing leads to any more, and that were removed.
    pub removed: Vec<String>,
}

/// Collapses a rollout to its candidate.
///
/// # Errors
/// In words, when the text is no spec with this rollout, or cannot be edited for sure.
pub fn collapse(file: &str, text: &str, rollout: &str) -> Result<Collapsed, String> {
    let body = text.strip_prefix('\u{feff}').unwrap_or(text);
    let document = yaml::parse(file, body.as_bytes()).map_err(|problem| problem.to_string())?;
    let root = &document.root;
    let found = at(root, &["rollouts", rollout]).ok_or_else(|| format!("{file} has no rollout `{rollout}`"))?;
    let name = |key: &str| match at(&found.value, &[key]).map(|entry| &entry.value.value) {
        Some(Value::Text(name)) => Ok(name.clone()),
        _ => Err(format!("rollout `{rollout}` of {file} has no `{key}`")),
    };
    let (baseline, candidate) = (name("baseline")?, name("candidate")?);
    let mut editor = Editor { text: body, edits: Vec::new() };
    for rule in rules(root) {
        if let Some(entry) = at(rule, &["rollout"])
            && matches!(&entry.value.value, Value::Text(name) if name == rollout)
        {
            editor.replace(entry.key.position.line, entry.key.position.column, "to")?;
            editor.replace(entry.value.position.line, entry.value.position.column, &candidate)?;
        }
    }
    let alone = |key: &str| matches!(at(root, &[key]).map(|entry| &entry.value.value), Some(Value::Map(entries)) if entries.len() == 1);
    if alone("rollouts") {
        editor.remove(at(root, &["rollouts"]))?;
    } else {
        editor.remove(Some(found))?;
    }
    let mut removed = Vec::new();
    if !leads_to(root, rollout, &baseline) && !alone("targets") {
        editor.remove(at(root, &["targets", &baseline]))?;
        removed.push(baseline.clone());
    }
    let edited = editor.apply();
    let expected = expected(root, rollout, &candidate, &removed);
    let is = yaml::parse(file, edited.as_bytes()).ok().and_then(|document| document.root.to_json());
    if is.is_none() || is != expected {
        return Err(format!(
            "{file} is written in a way that cannot be edited for sure; by hand: replace `rollout: {rollout}` by \
             `to: {candidate}`, and remove the rollout{}",
            removed.first().map_or_else(String::new, |name| format!(" and the target `{name}`"))
        ));
    }
    let mark = if body.len() == text.len() { "" } else { "\u{feff}" };
    Ok(Collapsed { text: format!("{mark}{edited}"), removed })
}

fn at<'n>(root: &'n Node, path: &[&str]) -> Option<&'n Entry> {
    let (last, way) = path.split_last()?;
    let mut node = root;
    for key in way {
        let Value::Map(entries) = &node.value else { return None };
        node = &entries.iter().find(|entry| entry.key.text == *key)?.value;
    }
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|entry| entry.key.text == *last)
}

fn rules(root: &Node) -> &[Node] {
    match at(root, &["route"]).map(|entry| &entry.value.value) {
        Some(Value::List(rules)) => rules,
        _ => &[],
    }
}

fn texts(node: Option<&Entry>) -> Vec<&str> {
    match node.map(|entry| &entry.value.value) {
        Some(Value::Text(text)) => vec![text],
        Some(Value::List(items)) => items
            .iter()
            .filter_map(|item| match &item.value {
                Value::Text(text) => Some(text.as_str()),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// Whether anything but this rollout leads to a target.
fn leads_to(root: &Node, rollout: &str, target: &str) -> bool {
    let by_rules =
        rules(root).iter().any(|rule| ["to", "fallback"].iter().any(|key| texts(at(rule, &[key])).contains(&target)));
    let children = |key: &str| match at(root, &[key]).map(|entry| &entry.value.value) {
        Some(Value::Map(entries)) => entries.as_slice(),
        _ => &[],
    };
    let by_rollouts = children("rollouts")
        .iter()
        .filter(|entry| entry.key.text != rollout)
        .any(|entry| ["baseline", "candidate"].iter().any(|key| texts(at(&entry.value, &[key])).contains(&target)));
    let by_targets = children("targets")
        .iter()
        .any(|entry| entry.key.text != target && texts(at(&entry.value, &["equivalents"])).contains(&target));
    by_rules || by_rollouts || by_targets || texts(at(root, &["fallback"])).contains(&target)
}

/// What the edited text must mean.
fn expected(root: &Node, rollout: &str, candidate: &str, removed: &[String]) -> Option<Json> {
    let mut json = root.to_json()?;
    let spec = json.as_object_mut()?;
    if let Some(rules) = spec.get_mut("route").and_then(Json::as_array_mut) {
        for rule in rules.iter_mut().filter_map(Json::as_object_mut) {
            if rule.get("rollout").and_then(Json::as_str) == Some(rollout) {
                rule.remove("rollout");
                rule.insert("to".to_owned(), candidate.into());
            }
        }
    }
    let mut take = |key: &str, name: &str| {
        let Some(map) = spec.get_mut(key).and_then(Json::as_object_mut) else { return };
        map.remove(name);
        if map.is_empty() {
            spec.remove(key);
        }
    };
    take("rollouts", rollout);
    for name in removed {
        take("targets", name);
    }
    Some(json)
}

/// Edits of a text, by byte.
struct Editor<'t> {
    text: &'t str,
    edits: Vec<(usize, usize, String)>,
}

impl Editor<'_> {
    /// The byte of a place, lines and columns from 1.
    fn byte(&self, line: u32, column: u32) -> Option<usize> {
        let start = self.line_start(line)?;
        let rest = self.text.get(start..)?;
        let column = column.saturating_sub(1) as usize;
        let within = rest.char_indices().map(|(at, _)| at).chain([rest.len()]).nth(column)?;
        Some(start + within)
    }

    fn line_start(&self, line: u32) -> Option<usize> {
        match line.checked_sub(2) {
            None => Some(0),
            Some(before) => self.text.match_indices('\n').nth(before as usize).map(|(at, _)| at + 1),
        }
    }

    /// Replaces a plain or quoted word.
    fn replace(&mut self, line: u32, column: u32, by: &str) -> Result<(), String> {
        let start = self.byte(line, column).ok_or("a place is beyond the file")?;
        let rest = self.text.get(start..).unwrap_or_default();
        let length = match rest.chars().next() {
            Some(quote @ ('"' | '\'')) => rest.get(1..).and_then(|inner| inner.find(quote)).map(|end| end + 2),
            _ => rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_')).or(Some(rest.len())),
        };
        let length = length.filter(|length| *length > 0).ok_or_else(|| format!("line {line} cannot be edited"))?;
        self.edits.push((start, start + length, by.to_owned()));
        Ok(())
    }

    /// Removes an entry of a mapping, whichever way it is written.
    fn remove(&mut self, entry: Option<&Entry>) -> Result<(), String> {
        let Some(entry) = entry else { return Err("a part that was to be removed is not there".to_owned()) };
        let at = entry.key.position;
        let start = self.byte(at.line, at.column).ok_or("a place is beyond the file")?;
        let line_start = self.line_start(at.line).unwrap_or(0);
        let before = self.text.get(line_start..start).unwrap_or_default();
        let (from, to) = if before.trim().is_empty() && !self.in_flow(start) {
            (line_start, self.block_end(line_start, before.len()))
        } else {
            self.flow_entry(start)
        };
        self.edits.push((from, to, String::new()));
        Ok(())
    }

    /// Whether a byte is inside braces, as far as lines above tell: text in quotes and comments does not count.
    fn in_flow(&self, until: usize) -> bool {
        let mut depth = 0_usize;
        let mut quote: Option<char> = None;
        let mut before = '\n';
        let mut comment = false;
        for c in self.text.get(..until).unwrap_or_default().chars() {
            match (quote, c) {
                _ if comment => comment = c != '\n',
                (Some(open), c) if c == open => quote = None,
                (Some(_), _) => {}
                (None, '"' | '\'') if !before.is_alphanumeric() => quote = Some(c),
                (None, '#') if before.is_whitespace() => comment = true,
                (None, '{' | '[') if depth > 0 || before.is_whitespace() => depth += 1,
                (None, '}' | ']') => depth = depth.saturating_sub(1),
                _ => {}
            }
            before = c;
        }
        depth > 0
    }

    /// The end of a block entry whose key stands `indent` bytes into the line: behind its last line that is neither blank
    /// nor a comment, so that comments before what follows stay.
    fn block_end(&self, line_start: usize, indent: usize) -> usize {
        let rest = self.text.get(line_start..).unwrap_or_default();
        let (mut end, mut at) = (0, 0);
        for (number, line) in rest.split_inclusive('\n').enumerate() {
            let inner = line.trim_start_matches(' ');
            let deeper = line.len() - inner.len() > indent;
            let content = !inner.trim().is_empty() && !inner.starts_with('#');
            let closes = inner.starts_with(['}', ']']);
            if number > 0 && content && !deeper && !closes {
                break;
            }
            at += line.len();
            if content {
                end = at;
            }
        }
        line_start + end
    }

    /// An entry between braces, with one of the commas around it.
    fn flow_entry(&self, start: usize) -> (usize, usize) {
        let rest = self.text.get(start..).unwrap_or_default();
        let (mut depth, mut quote) = (0_usize, None);
        let mut end = rest.len();
        for (at, c) in rest.char_indices() {
            match (quote, c) {
                (Some(open), c) if c == open => quote = None,
                (Some(_), _) => {}
                (None, '"' | '\'') => quote = Some(c),
                (None, '{' | '[') => depth += 1,
                (None, '}' | ']' | ',') if depth == 0 => {
                    end = at;
                    break;
                }
                (None, '}' | ']') => depth -= 1,
                _ => {}
            }
        }
        let after = rest.get(end..).unwrap_or_default();
        if let Some(behind) = after.strip_prefix(',') {
            let spaces = behind.len() - behind.trim_start_matches([' ', '\n']).len();
            return (start, start + end + 1 + spaces);
        }
        let before = self.text.get(..start).unwrap_or_default();
        let comma = before.trim_end().strip_suffix(',').map_or(start, str::len);
        (comma, start + rest.get(..end).unwrap_or_default().trim_end().len())
    }

    fn apply(mut self) -> String {
        self.edits.sort_by_key(|(start, ..)| *start);
        let mut edited = String::with_capacity(self.text.len());
        let mut done = 0;
        for (start, end, by) in self.edits {
            if start < done {
                continue;
            }
            edited.push_str(self.text.get(done..start).unwrap_or_default());
            edited.push_str(&by);
            done = end;
        }
        edited.push_str(self.text.get(done..).unwrap_or_default());
        edited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collapsed(text: &str, rollout: &str) -> Collapsed {
        collapse("triage.yaml", text, rollout).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    #[test]
    fn block_specs_keep_their_comments() {
        let text = "\
# Tickets.
version: 1
name: triage
targets:
  # where everybody was
  openai:
    provider: openai          # list price
    model: gpt-5.4-mini
  # where everybody is
  bedrock:
    provider: bedrock
    model: us.anthropic.claude-haiku-4-5-20251001-v1:0
route:
  - name: migrate             # the last
    rollout: to-bedrock
rollouts:
  to-bedrock:
    baseline: openai
    candidate: bedrock
    percent: 100

# no more than this
limits: { concurrency: 4 }
";
        let is = collapsed(text, "to-bedrock");
        assert_eq!(is.removed, ["openai"]);
        assert_eq!(
            is.text,
            "\
# Tickets.
version: 1
name: triage
targets:
  # where everybody was
  # where everybody is
  bedrock:
    provider: bedrock
    model: us.anthropic.claude-haiku-4-5-20251001-v1:0
route:
  - name: migrate             # the last
    to: bedrock

# no more than this
limits: { concurrency: 4 }
"
        );
    }

    #[test]
    fn flow_specs_and_other_uses() {
        for (text, expected, removed) in [
            (
                "targets: { a: { provider: x, model: m }, b: { provider: y, model: n } }\nroute: [ { rollout: r } ]\nrollouts: { r: { baseline: a, candidate: b, percent: 100 } }\n",
                "targets: { b: { provider: y, model: n } }\nroute: [ { to: b } ]\n",
                &["a"][..],
            ),
            (
                "targets: { b: { provider: y, model: n }, a: { provider: x, model: m } }\nroute: [ { rollout: r } ]\nrollouts: { q: { baseline: b, candidate: a, percent: 1 }, r: { baseline: a, candidate: b, percent: 100 } }\n",
                "targets: { b: { provider: y, model: n }, a: { provider: x, model: m } }\nroute: [ { to: b } ]\nrollouts: { q: { baseline: b, candidate: a, percent: 1 } }\n",
                &[],
            ),
            (
                "targets:\n  a: { provider: x, model: m }\n  b: { provider: y, model: n }\nroute:\n- { name: \"{\", when: 'job.id == \"}\"', rollout: \"r\" }\n- rollout: r\nrollouts:\n  r: { baseline: a, candidate: b,\n       percent: 100 }\nfallback: [a]\n",
                "targets:\n  a: { provider: x, model: m }\n  b: { provider: y, model: n }\nroute:\n- { name: \"{\", when: 'job.id == \"}\"', to: b }\n- to: b\nfallback: [a]\n",
                &[],
            ),
        ] {
            let is = collapsed(text, "r");
            assert_eq!(
                (is.text.as_str(), is.removed.iter().map(String::as_str).collect::<Vec<_>>().as_slice()),
                (expected, removed)
            );
        }
    }

    #[test]
    fn what_cannot_be_edited_for_sure_is_left_alone() {
        let unknown = collapse("x.yaml", "name: x\n", "r").unwrap_err();
        assert!(unknown.contains("no rollout `r`"), "{unknown}");
        let anchored = "targets: { a: &t { provider: x, model: m }, b: *t }\nroute: [ { rollout: r } ]\nrollouts: { r: { baseline: a, candidate: b, percent: 100 } }\n";
        let refused = collapse("x.yaml", anchored, "r").unwrap_err();
        assert!(refused.contains("by hand"), "{refused}");
    }
}
