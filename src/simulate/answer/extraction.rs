//! Values found in a text: a label for it, fields of it, an object that keeps a schema.
//!
//! Invariant: bounded in depth and in size, whatever a schema says.

use serde_json::{Map, Value, json};

use super::{
    Prompt,
    instructions::{self, Instructions},
    text::{first_sentence, number_of, shortened, telling_words},
};

/// Schemas are followed so deep.
const DEEPEST: u32 = 8;

/// Values that one answer holds at most: a schema that names itself has no end.
const MOST_VALUES: usize = 1_000;

/// Of a hundred texts, those about which a model disagrees with the others.
const DISAGREEMENTS: u64 = 4;

/// What a question is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    text: &'a str,
    prose: &'a str,
    name: Option<&'a str>,
    /// What chance starts from: the hash of the prompt.
    seed: u64,
    /// How sure the model is: one that disagrees takes its second choice.
    disagrees: bool,
}

impl<'a> Subject<'a> {
    /// The subject of a prompt's question, as its model sees it.
    pub fn of(prompt: &'a Prompt) -> Self {
        let (text, seed) = (prompt.question.as_str(), prompt.hash.0);
        let name = ["Package:", "Name:", "Title:", "Subject:"].iter().find_map(|mark| {
            let line = text.lines().find_map(|line| line.trim_start().strip_prefix(mark))?;
            Some(line.trim()).filter(|name| !name.is_empty())
        });
        let prose = ["Description:", "Text:"]
            .iter()
            .find_map(|mark| text.split_once(mark))
            .map_or(text, |(_, prose)| prose)
            .trim();
        Self { text, prose, name, seed, disagrees: number_of(seed, &prompt.model) % 100 < DISAGREEMENTS }
    }

    /// The running text.
    pub fn prose(&self) -> &'a str {
        self.prose
    }

    /// The label that fits best: the one of whose words the text is fullest, or one that depends on the text.
    pub fn label<'l>(&self, labels: &[&'l str]) -> &'l str {
        let text = self.text.to_ascii_lowercase();
        let mut ranked: Vec<(usize, u64, &str)> = labels
            .iter()
            .map(|label| {
                let words = label.split(|c: char| !c.is_alphanumeric()).filter(|word| word.len() > 1);
                let found = words
                    .map(|word| {
                        let word = word.to_ascii_lowercase();
                        // Plurals and endings count: `games` is in `game`.
                        let stem = word.strip_suffix('s').filter(|stem| stem.len() > 2).unwrap_or(&word);
                        text.matches(stem).count()
                    })
                    .sum();
                (found, number_of(self.seed, label), *label)
            })
            .collect();
        ranked.sort_by(|a, b| b.cmp(a));
        let place = usize::from(self.disagrees && ranked.len() > 1);
        ranked.get(place).map_or("", |(_, _, label)| label)
    }

    /// A value for a field, as its name and what is said about it suggest.
    fn value(&self, field: &str, about: &str) -> Value {
        let field = field.to_ascii_lowercase();
        let about = about.to_ascii_lowercase();
        let named = |parts: &[&str]| parts.iter().any(|part| field.contains(part));
        if about.contains("true") || about.contains("boolean") || field.starts_with("is_") {
            json!(number_of(self.seed, &field).is_multiple_of(2))
        } else if about.contains("number") || about.contains("integer") || named(&["count", "number"]) {
            json!(self.text.split_whitespace().count())
        } else if about.contains("array")
            || about.contains("list")
            || named(&["tags", "keywords", "features", "topics"])
        {
            json!(telling_words(self.prose, 3))
        } else {
            json!(self.string(&field))
        }
    }

    fn string(&self, field: &str) -> &'a str {
        let named = |parts: &[&str]| parts.iter().any(|part| field.contains(part));
        let after = |mark: &str| {
            self.text.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.trim().eq_ignore_ascii_case(mark).then(|| value.trim())
            })
        };
        if let Some(value) = after(field).filter(|value| !value.is_empty()) {
            return shortened(value, 200);
        }
        if named(&["name", "package", "title", "subject"]) {
            self.name.unwrap_or_else(|| self.prose.split_whitespace().next().unwrap_or_default())
        } else if named(&["language"]) {
            self.language()
        } else if named(&["version"]) {
            let is_version = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
            self.text.split_whitespace().find(is_version).unwrap_or("unknown")
        } else {
            first_sentence(self.prose, 160)
        }
    }

    fn language(&self) -> &'static str {
        const LANGUAGES: [&str; 12] = [
            "Python",
            "Perl",
            "Haskell",
            "Ruby",
            "Java",
            "OCaml",
            "Rust",
            "PHP",
            "JavaScript",
            "Fortran",
            "Lisp",
            "C++",
        ];
        LANGUAGES.into_iter().find(|language| self.text.contains(language)).unwrap_or("unknown")
    }
}

/// An object with the fields that the instructions name.
pub(super) fn by_fields(told: &Instructions<'_>, subject: &Subject<'_>) -> Value {
    let fields = instructions::fields(told);
    if fields.is_empty() {
        let answer = match instructions::labels(told) {
            Some(labels) => subject.label(&labels),
            None => first_sentence(subject.prose(), 160),
        };
        return json!({"answer": answer});
    }
    let labels = instructions::labels(told);
    let object: Map<String, Value> = fields
        .into_iter()
        .take(MOST_VALUES)
        .map(|(field, about)| {
            let lower = field.to_ascii_lowercase();
            let wants_label = ["label", "section", "category", "class"].iter().any(|mark| lower.contains(mark));
            let value = match &labels {
                Some(labels) if wants_label => json!(subject.label(labels)),
                _ => subject.value(field, about),
            };
            (field.to_owned(), value)
        })
        .collect();
    Value::Object(object)
}

/// A value that keeps a schema.
pub(super) fn by_schema(schema: &Value, subject: &Subject<'_>) -> Value {
    Filler { root: schema, subject, left: MOST_VALUES }.fill(schema, "answer", DEEPEST)
}

struct Filler<'a> {
    root: &'a Value,
    subject: &'a Subject<'a>,
    left: usize,
}

impl Filler<'_> {
    fn fill(&mut self, schema: &Value, name: &str, depth: u32) -> Value {
        let subject = self.subject;
        if depth == 0 || self.left == 0 {
            return Value::Null;
        }
        self.left -= 1;
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let found = reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
            return match found {
                Some(schema) => self.fill(schema, name, depth - 1),
                None => Value::Null,
            };
        }
        if let Some(only) = schema.get("const") {
            return only.clone();
        }
        if let Some(values) = schema.get("enum").and_then(Value::as_array) {
            let labels: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
            return if labels.is_empty() {
                values.first().cloned().unwrap_or_default()
            } else {
                json!(subject.label(&labels))
            };
        }
        let alternatives =
            ["anyOf", "oneOf", "allOf"].iter().find_map(|key| schema.get(*key).and_then(Value::as_array));
        if let Some(alternative) = alternatives.and_then(|all| all.iter().find(|one| kind(one) != "null")) {
            return self.fill(alternative, name, depth - 1);
        }
        match kind(schema) {
            "object" => {
                let properties = schema.get("properties").and_then(Value::as_object);
                let filled: Map<String, Value> = properties
                    .into_iter()
                    .flatten()
                    .map(|(name, schema)| (name.clone(), self.fill(schema, name, depth - 1)))
                    .collect();
                Value::Object(filled)
            }
            "array" => {
                let items = schema.get("items").unwrap_or(&Value::Null);
                match kind(items) {
                    "string" if items.get("enum").or(items.get("$ref")).is_none() => {
                        json!(telling_words(subject.prose(), 3))
                    }
                    _ => json!([self.fill(items, name, depth - 1)]),
                }
            }
            "boolean" => json!(number_of(subject.seed, name).is_multiple_of(2)),
            "integer" | "number" => {
                schema.get("minimum").cloned().unwrap_or_else(|| json!(number_of(subject.seed, name) % 100))
            }
            "null" => Value::Null,
            _ => json!(subject.string(&name.to_ascii_lowercase())),
        }
    }
}

/// A schema's type: the first that is not null.
fn kind(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::String(kind)) => kind,
        Some(Value::Array(kinds)) => {
            kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or("null")
        }
        _ if schema.get("properties").is_some() => "object",
        _ if schema.get("items").is_some() => "array",
        _ => "string",
    }
}
