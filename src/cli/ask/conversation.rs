//! What is said: the prompt with its context, and the conversation that it goes on.
//!
//! Invariant: every file is bounded; a kept conversation is replaced whole or not at all, holds OpenAI's messages, and
//! stays below its bounds by losing its oldest turns.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::cli::exit::{Failure, Result};

/// Longest prompt or context file.
const MAX_FILE: u64 = 8 << 20;
/// Longest message: prompt and context together.
const MAX_MESSAGE: usize = 24 << 20;
/// Longest kept conversation.
const MAX_HISTORY: u64 = 16 << 20;
/// Messages that a conversation keeps.
const MOST_MESSAGES: usize = 400;

/// The user's message: each context file in a wrapper of its own, then the prompt.
pub(super) fn message(prompt: &Path, context: &[PathBuf]) -> Result<Value> {
    let mut text = String::new();
    for path in context {
        text.push_str(&wrapped(&path.display().to_string(), &read_text(path)?));
        text.push_str("\n\n");
        if text.len() > MAX_MESSAGE {
            return Err(Failure::new(format!("the context files are larger than {} MiB together", MAX_MESSAGE >> 20)));
        }
    }
    let prompt_text = read_text(prompt)?;
    if prompt_text.trim().is_empty() {
        return Err(Failure::new(format!("{} holds no prompt", name_of(prompt))));
    }
    text.push_str(prompt_text.trim_end());
    Ok(json!({ "role": "user", "content": text }))
}

/// A file in a wrapper that its own text cannot end.
fn wrapped(name: &str, text: &str) -> String {
    let mut tag = "context".to_owned();
    let mut number = 1;
    while text.contains(&format!("</{tag}>")) {
        number += 1;
        tag = format!("context-{number}");
    }
    let name = name.replace('&', "&amp;").replace('"', "&quot;").replace(['\n', '\r'], " ");
    format!("<{tag} file=\"{name}\">\n{}\n</{tag}>", text.trim_end_matches('\n'))
}

fn read_text(path: &Path) -> Result<String> {
    let bytes = read_bounded(path, MAX_FILE)?;
    String::from_utf8(bytes).map_err(|_| Failure::new(format!("{} is not text (UTF-8)", name_of(path))))
}

fn name_of(path: &Path) -> String {
    if path.as_os_str() == "-" { "standard input".to_owned() } else { path.display().to_string() }
}

/// Reads a file, or standard input for `-`.
pub(super) fn read_bounded(path: &Path, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = if path.as_os_str() == "-" {
        io::stdin().lock().take(most + 1).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes))
    };
    match read {
        Err(error) => Err(Failure::new(format!("cannot read {}: {error}", name_of(path)))),
        Ok(read) if read as u64 > most => {
            Err(Failure::new(format!("{} is larger than {} MiB", name_of(path), most >> 20)))
        }
        Ok(_) => Ok(bytes),
    }
}

/// A kept conversation.
#[derive(Debug)]
pub(super) struct History {
    path: PathBuf,
    messages: Vec<Value>,
}

impl History {
    /// Reads what was said before; nothing was where there is no file.
    pub(super) fn read(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Ok(Self { path: path.to_owned(), messages: Vec::new() });
        }
        let name = path.display();
        let bytes = read_bounded(path, MAX_HISTORY)?;
        let messages: Vec<Value> = serde_json::from_slice(&bytes)
            .map_err(|error| Failure::new(format!("{name} is no list of OpenAI's messages: {error}")))?;
        let odd = messages.iter().position(|message| {
            !message
                .get("role")
                .and_then(Value::as_str)
                .is_some_and(|role| matches!(role, "system" | "developer" | "user" | "assistant" | "tool" | "function"))
        });
        match odd {
            Some(place) => Err(Failure::new(format!("{name}: message {} has no role that OpenAI knows", place + 1))),
            None => Ok(Self { path: path.to_owned(), messages }),
        }
    }

    /// What was said before.
    pub(super) fn messages(&self) -> &[Value] {
        &self.messages
    }

    /// Adds a turn and writes the whole, all or nothing.
    pub(super) fn keep(mut self, said: Value, answer: &str) -> Result<()> {
        self.messages.push(said);
        self.messages.push(json!({ "role": "assistant", "content": answer }));
        let text = loop {
            let text = format!("{:#}\n", Value::Array(self.messages.clone()));
            let fits = text.len() as u64 <= MAX_HISTORY && self.messages.len() <= MOST_MESSAGES;
            if fits || !self.forget_oldest_turn() {
                break text;
            }
        };
        write_whole(&self.path, &text).map_err(|error| {
            Failure::new(format!("the conversation cannot be kept in {}: {error}", self.path.display()))
        })
    }

    /// Forgets the oldest turn; what the system said stays. False when only the newest turn is left.
    fn forget_oldest_turn(&mut self) -> bool {
        let is_user = |message: &Value| message.get("role").and_then(Value::as_str) == Some("user");
        let is_system =
            |message: &Value| matches!(message.get("role").and_then(Value::as_str), Some("system" | "developer"));
        let Some(first) = self.messages.iter().position(|message| !is_system(message)) else { return false };
        let rest = self.messages.iter().skip(first + 1).position(is_user);
        let Some(next) = rest.map(|place| first + 1 + place) else { return false };
        self.messages.drain(first..next);
        true
    }
}

fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
