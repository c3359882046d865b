//! A chat request as both protocols mean it: what the model would see, and what bounds its answer.
//!
//! Invariant: built only by the protocols' readers, from requests that they found right.

use std::fmt;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::ids::JobId;

/// A request.
#[derive(Debug, Default)]
pub(super) struct Prompt {
    /// The model as the caller names it.
    pub model: String,
    /// The system's texts, a line each.
    pub system: String,
    /// The last user's text.
    pub question: String,
    /// What was said by users and assistants, system texts aside: the same on both sides of a migration.
    pub hash: PromptHash,
    /// The prompt's length, estimated from its characters.
    pub input_tokens: u64,
    /// What the caller asked for at most.
    pub max_output: Option<u64>,
    /// How hard the model is to think, where the caller says.
    pub effort: Option<String>,
    /// Texts that end the answer.
    pub stops: Vec<String>,
    /// The form of the answer.
    pub format: Format,
    /// The tool that must be called, if one must.
    pub tool: Option<ForcedTool>,
    /// Tools that may be called.
    pub tools: Vec<ForcedTool>,
    /// The last turn is what a tool answered.
    pub has_tool_answer: bool,
    /// The answer is to come in pieces.
    pub streamed: bool,
    /// A stream ends with what it consumed.
    pub with_usage: bool,
    /// How many answers are asked for.
    pub choices: u64,
    /// Whom the caller says the call is for: a job's id, most often.
    pub job: Option<String>,
    /// The names of optional parameters that are present and not at their neutral value, as OpenAI calls them;
    /// `assistant_prefill` stands for a last message of the assistant.
    pub parameters: Vec<&'static str>,
}

/// The form of an answer.
#[derive(Debug, Default)]
pub(super) enum Format {
    /// Free, unless the prompt asks for something.
    #[default]
    Text,
    /// A JSON object.
    Json,
    /// JSON that keeps a schema.
    Schema(Value),
}

/// A tool that the answer must or may call.
#[derive(Debug, Clone)]
pub(super) struct ForcedTool {
    /// Its name.
    pub name: String,
    /// The JSON schema of its input.
    pub schema: Value,
}

/// The first 64 bits of the SHA-256 of the texts that were said, joined by line breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct PromptHash(pub u64);

impl fmt::Display for PromptHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Who says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaker {
    System,
    User,
    /// What a tool answered.
    Tool,
    Other,
}

/// Takes in a request's texts, message by message.
#[derive(Default)]
pub(super) struct Listener {
    hasher: Sha256,
    system: String,
    question: String,
    characters: usize,
    messages: u64,
    said_anything: bool,
    last: Option<Speaker>,
}

/// What a picture or a document counts, in characters.
const ATTACHMENT: usize = 4_000;

impl Listener {
    /// Begins a message.
    pub fn message(&mut self, speaker: Speaker) {
        self.messages += 1;
        // Bedrock wants neighbours of one role merged: both forms must count as the same question.
        if speaker == Speaker::User && self.last != Some(Speaker::User) {
            self.question.clear();
        }
        self.last = Some(speaker);
    }

    /// A text of the message that was begun last.
    pub fn text(&mut self, speaker: Speaker, text: &str) {
        self.characters += text.chars().count();
        let heard = match speaker {
            Speaker::System => &mut self.system,
            Speaker::User => &mut self.question,
            Speaker::Tool | Speaker::Other => &mut String::new(),
        };
        if !heard.is_empty() {
            heard.push('\n');
        }
        heard.push_str(text);
        // What a tool answered is a block of its own kind on one side of a migration and text on the other.
        if !matches!(speaker, Speaker::System | Speaker::Tool) {
            if self.said_anything {
                self.hasher.update(b"\n");
            }
            self.hasher.update(text);
            self.said_anything = true;
        }
    }

    /// Something that is no text.
    pub fn attachment(&mut self) {
        self.characters += ATTACHMENT;
    }

    /// What was heard.
    pub fn into_prompt(self) -> Prompt {
        let digest = self.hasher.finalize();
        Prompt {
            system: self.system,
            question: self.question,
            hash: PromptHash(digest.iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte))),
            input_tokens: tokens(self.characters) + self.messages * 3 + 3,
            choices: 1,
            has_tool_answer: self.last == Some(Speaker::Tool),
            parameters: if self.last == Some(Speaker::Other) { vec!["assistant_prefill"] } else { Vec::new() },
            ..Prompt::default()
        }
    }
}

/// Tokens of so many characters, estimated.
pub(super) fn tokens(characters: usize) -> u64 {
    u64::try_from(characters.div_ceil(4)).unwrap_or(u64::MAX)
}

/// Whom a call is for, as a caller's metadata tells it: the first value that is a job's id or stands under `job`.
pub(super) fn job_hint<'a>(metadata: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<String> {
    metadata
        .into_iter()
        .find(|(key, value)| value.starts_with("job_") || key.to_ascii_lowercase().contains("job"))
        .map(|(_, value)| job_of(value))
}

/// The job that a hint names: an id that is told apart by attempt begins with the job's.
pub(super) fn job_of(hint: &str) -> String {
    match hint.get(..JOB_ID).filter(|id| id.parse::<JobId>().is_ok()) {
        Some(id) => id.to_owned(),
        None => hint.chars().take(LONGEST_HINT).collect(),
    }
}

/// Length of a job's id.
const JOB_ID: usize = "job_".len() + 32;

/// Longest hint that is kept, in characters.
const LONGEST_HINT: usize = 128;
