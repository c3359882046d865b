//! From a line of the input to a native job with an idempotency key.
//!
//! Invariant: the same input with the same options gives the same keys, so that a run can be repeated without doubling
//! a job. What is wrong with a job's contents is the daemon's to say.
//!
//! A line's key is, in this order: what `--key-from` points at, an OpenAI batch line's `custom_id`, a native job's
//! `idempotency_key`. A line without any gets a key made of a digest of the job as sent (options included) and of how
//! many equal lines came before it. Lines may thus be added, removed or moved between runs; equal lines stay separate
//! jobs; another `--batch` makes other jobs.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
};

use serde_json::value::{RawValue, to_raw_value};
use sha2::{Digest, Sha256};

use super::lines::{Line, MAX_LINE};

/// Distinct lines without keys that one run keeps count of, at some 30 bytes each.
const MAX_KEYLESS: usize = 10_000_000;

/// What the options say of every line.
#[derive(Debug, Clone, Default)]
pub struct Defaults {
    /// For lines that name no pipeline.
    pub pipeline: Option<String>,
    /// For lines that name no batch.
    pub batch: Option<String>,
    /// For lines that lack these values.
    pub metadata: Vec<(String, String)>,
    /// A JSON pointer to each line's key.
    pub key_from: Option<String>,
}

/// A job ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// The line's number in the input.
    pub line: u64,
    /// The job's idempotency key.
    pub key: String,
    /// The native job as JSON on one line.
    pub json: String,
}

/// A line that is no job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// Its number in the input.
    pub line: u64,
    /// What is wrong with it.
    pub message: String,
}

/// Prepares lines.
#[derive(Debug)]
pub struct Preparer {
    defaults: Defaults,
    seen: HashMap<u64, u32>,
}

type Fields = BTreeMap<String, Box<RawValue>>;

impl Preparer {
    /// With these options.
    pub fn new(defaults: Defaults) -> Self {
        Self { defaults, seen: HashMap::new() }
    }

    /// Prepares one line.
    ///
    /// # Errors
    /// [`BadLine`] for a line that cannot be a job.
    pub fn prepare(&mut self, line: Line) -> Result<Prepared, BadLine> {
        let number = line.number;
        self.job(line).map_err(|message| BadLine { line: number, message })
    }

    fn job(&mut self, line: Line) -> Result<Prepared, String> {
        let text = line.text.ok_or_else(|| format!("longer than {} MiB", MAX_LINE >> 20))?;
        let mut job: Fields = serde_json::from_slice(&text).map_err(|error| not_a_job(&error))?;
        let pointed = self.defaults.key_from.as_deref().map(|pointer| key_at(&text, pointer)).transpose()?;
        let custom_id = from_batch_line(&mut job)?;
        self.add_defaults(&mut job)?;
        let given = job.remove("idempotency_key").map(|raw| string(&raw, "idempotency_key")).transpose()?;
        let key = match pointed.or(custom_id).or(given) {
            Some(key) => key,
            None => self.derive_key(&job)?,
        };
        job.insert("idempotency_key".to_owned(), raw(&key)?);
        let json = serde_json::to_string(&job).map_err(|error| error.to_string())?;
        Ok(Prepared { line: line.number, key, json: on_one_line(json) })
    }

    fn add_defaults(&self, job: &mut Fields) -> Result<(), String> {
        for (field, value) in [("pipeline", &self.defaults.pipeline), ("batch", &self.defaults.batch)] {
            if let Some(value) = value
                && is_absent(job, field)
            {
                job.insert(field.to_owned(), raw(value)?);
            }
        }
        if !self.defaults.metadata.is_empty() {
            let mut metadata: Fields = match job.get("metadata") {
                Some(given) if given.get() != "null" => {
                    serde_json::from_str(given.get()).map_err(|_| "metadata: is not an object of strings".to_owned())?
                }
                _ => Fields::new(),
            };
            for (name, value) in &self.defaults.metadata {
                if !metadata.contains_key(name) {
                    metadata.insert(name.clone(), raw(value)?);
                }
            }
            job.insert("metadata".to_owned(), to_raw_value(&metadata).map_err(|error| error.to_string())?);
        }
        Ok(())
    }

    fn derive_key(&mut self, job: &Fields) -> Result<String, String> {
        let mut digest = Sha256::new();
        for (field, value) in job {
            digest.update(field);
            digest.update([0x1f]);
            digest.update(value.get());
            digest.update([0x1e]);
        }
        let digest = digest.finalize();
        let short = digest.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        if self.seen.len() >= MAX_KEYLESS && !self.seen.contains_key(&short) {
            return Err(format!(
                "the input has more than {MAX_KEYLESS} lines without a key: give them keys (--key-from), or split the file"
            ));
        }
        let times = self.seen.entry(short).or_default();
        *times += 1;
        let mut key = "line-".to_owned();
        for byte in digest.iter().take(16) {
            // Writing to a string cannot fail.
            let _ = write!(key, "{byte:02x}");
        }
        if *times > 1 {
            let _ = write!(key, "-{times}");
        }
        Ok(key)
    }
}

fn not_a_job(error: &serde_json::Error) -> String {
    if error.is_data() {
        "not a JSON object: write a job, or a line of an OpenAI batch file".to_owned()
    } else {
        // The position's line is always 1 here; the column is what helps.
        let text = error.to_string();
        let what = text.split(" at line ").next().unwrap_or_default();
        format!("not JSON: {what} (column {})", error.column())
    }
}

/// Turns an OpenAI batch line into a native job; its `custom_id` is handed back.
fn from_batch_line(job: &mut Fields) -> Result<Option<String>, String> {
    let Some(custom_id) = job.remove("custom_id") else { return Ok(None) };
    if let Some(method) = job.remove("method")
        && string(&method, "method")? != "POST"
    {
        return Err("method: only POST is understood".to_owned());
    }
    if let Some(url) = job.remove("url")
        && string(&url, "url")? != "/v1/chat/completions"
    {
        return Err("url: only /v1/chat/completions is understood".to_owned());
    }
    string(&custom_id, "custom_id").map(Some)
}

fn key_at(text: &[u8], pointer: &str) -> Result<String, String> {
    let line: serde_json::Value = serde_json::from_slice(text).map_err(|error| not_a_job(&error))?;
    match line.pointer(pointer) {
        Some(serde_json::Value::String(key)) if !key.is_empty() => Ok(key.clone()),
        Some(serde_json::Value::Number(key)) => Ok(key.to_string()),
        Some(_) => Err(format!("{pointer}: a key is a string that is not empty, or a number")),
        None => Err(format!("{pointer}: is missing, and --key-from takes the key from there")),
    }
}

fn is_absent(job: &Fields, field: &str) -> bool {
    job.get(field).is_none_or(|value| value.get() == "null")
}

fn string(raw: &RawValue, field: &str) -> Result<String, String> {
    serde_json::from_str(raw.get()).map_err(|_| format!("{field}: is not a string"))
}

fn raw(text: &str) -> Result<Box<RawValue>, String> {
    to_raw_value(text).map_err(|error| error.to_string())
}

/// Line breaks between the tokens of a value become spaces; inside strings, JSON has none.
fn on_one_line(json: String) -> String {
    if json.contains(['\n', '\r']) { json.replace(['\n', '\r'], " ") } else { json }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn line(number: u64, value: &Value) -> Line {
        Line { number, text: Some(value.to_string().into_bytes()) }
    }

    fn prepare(defaults: Defaults, value: &Value) -> Result<(String, Value), String> {
        Preparer::new(defaults)
            .prepare(line(7, value))
            .map(|job| (job.key, serde_json::from_str(&job.json).unwrap()))
            .map_err(|bad| {
                assert_eq!(bad.line, 7);
                bad.message
            })
    }

    #[test]
    fn a_batch_line_becomes_a_native_job() {
        let (key, job) = prepare(
            Defaults { pipeline: Some("triage".into()), batch: Some("monday".into()), ..Defaults::default() },
            &json!({"custom_id": "r-1", "method": "POST", "url": "/v1/chat/completions", "body": {"n": 1.50}}),
        )
        .unwrap();
        assert_eq!(key, "r-1");
        assert_eq!(job, json!({"idempotency_key": "r-1", "pipeline": "triage", "batch": "monday", "body": {"n": 1.5}}));
    }

    #[test]
    fn what_a_line_says_beats_the_options() {
        let defaults = Defaults {
            pipeline: Some("triage".into()),
            batch: Some("monday".into()),
            metadata: vec![("team".into(), "a".into()), ("order".into(), "7".into())],
            key_from: Some("/metadata/id".into()),
        };
        let (key, job) = prepare(
            defaults,
            &json!({"pipeline": "own", "batch": null, "idempotency_key": "ignored", "metadata": {"team": "b", "id": 12}, "body": {}}),
        )
        .unwrap();
        assert_eq!(key, "12");
        let expected = json!({"pipeline": "own", "batch": "monday", "idempotency_key": "12", "metadata": {"team": "b", "id": 12, "order": "7"}, "body": {}});
        assert_eq!(job, expected);
    }

    #[test]
    fn lines_that_are_no_jobs_say_why() {
        let pointed = || Defaults { key_from: Some("/id".into()), ..Defaults::default() };
        for (defaults, value, expected) in [
            (Defaults::default(), json!([1]), "not a JSON object"),
            (Defaults::default(), json!({"custom_id": 1}), "custom_id: is not a string"),
            (Defaults::default(), json!({"custom_id": "a", "method": "GET"}), "method: only POST"),
            (Defaults::default(), json!({"custom_id": "a", "url": "/v1/embeddings"}), "url: only /v1/chat/completions"),
            (pointed(), json!({"body": {}}), "/id: is missing"),
            (pointed(), json!({"id": "", "body": {}}), "/id: a key is a string"),
        ] {
            let message = prepare(defaults, &value).unwrap_err();
            assert!(message.starts_with(expected), "{message}");
        }
        let mut preparer = Preparer::new(Defaults::default());
        let bad = preparer.prepare(Line { number: 1, text: Some(b"{\"a\": nul}".to_vec()) }).unwrap_err();
        assert!(bad.message.contains("not JSON") && bad.message.contains("column"), "{}", bad.message);
        let bad = preparer.prepare(Line { number: 2, text: None }).unwrap_err();
        assert!(bad.message.contains("longer than 32 MiB"), "{}", bad.message);
    }

    #[test]
    fn derived_keys_repeat_with_the_input_and_tell_equal_lines_apart() {
        let keys = |batch: Option<&str>, order: &[u64]| -> Vec<String> {
            let defaults = Defaults { batch: batch.map(str::to_owned), ..Defaults::default() };
            let mut preparer = Preparer::new(defaults);
            order.iter().map(|n| preparer.prepare(line(*n, &json!({"body": {"n": n}}))).unwrap().key).collect()
        };
        let first = keys(None, &[1, 2, 1]);
        assert_eq!(first, keys(None, &[1, 2, 1]), "the same input");
        assert_eq!(first.iter().collect::<std::collections::BTreeSet<_>>().len(), 3, "{first:?}");
        assert_eq!(keys(None, &[9, 1, 2, 1])[1..], first, "a line was put in front");
        assert_ne!(keys(Some("b"), &[1])[0], first[0], "another batch is another job");
    }

    #[test]
    fn bodies_are_carried_as_written() {
        let text = br#"{"body": {"seed": 123456789012345678901234567890, "temperature": 1.0}}"#;
        let job = Preparer::new(Defaults::default()).prepare(Line { number: 1, text: Some(text.to_vec()) }).unwrap();
        assert!(job.json.contains(r#"{"seed": 123456789012345678901234567890, "temperature": 1.0}"#), "{}", job.json);
    }
}
