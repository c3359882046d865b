//! Notices: what receivers are to be told, as rows of the store.
//!
//! Invariant: a notice is written in the same transaction as what it tells of, under an id that follows from it, so a crash
//! neither loses nor invents one. Two rows each: the notice itself, and when it is due, by which due ones are found.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{DocumentChange, DocumentKind};
use crate::{clock::Timestamp, ids::JobId, job::State, names::PipelineName};

/// What a receiver is to be told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// Whom.
    pub url: String,
    /// What happened, such as `job.succeeded`.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it happened.
    pub at: Timestamp,
    /// What is known of it by then; a job's notice is completed from the job when it is sent.
    pub data: Value,
    /// The job that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// What is sent, word for word, once it was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// How often it was tried.
    #[serde(default)]
    pub tries: u32,
    /// When it is tried next, unless its receiver keeps others waiting too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Timestamp>,
    /// Why the newest try failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Nobody will be told any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up_at: Option<Timestamp>,
}

impl Notice {
    /// A notice of something that just happened.
    pub fn new(url: impl Into<String>, kind: impl Into<String>, at: Timestamp, data: Value) -> Self {
        Self {
            url: url.into(),
            kind: kind.into(),
            at,
            data,
            job: None,
            body: None,
            tries: 0,
            next_at: None,
            last_error: None,
            given_up_at: None,
        }
    }

    /// The notice of a job's end, and its id.
    pub fn of_job(job: JobId, pipeline: &PipelineName, state: State, url: String, at: Timestamp) -> (String, Self) {
        let data = json!({ "id": job, "pipeline": pipeline, "state": state, "finished_at": at });
        (Self::id_of_job(job), Self { job: Some(job), ..Self::new(url, format!("job.{state}"), at, data) })
    }

    /// The id of the notice of a job's end: there is one of each job.
    pub fn id_of_job(job: JobId) -> String {
        format!("msg_{}", job.to_string().trim_start_matches("job_"))
    }

    /// The changes that put it into the line; for the transaction of what it tells of.
    pub fn posting(&self, id: &str) -> [DocumentChange; 2] {
        [self.keeping(id), self.place(self.at, id)]
    }

    /// The change that gives it a place in the line.
    pub fn place(&self, at: Timestamp, id: &str) -> DocumentChange {
        Due { at, id: id.to_owned(), since: self.at, to: receiver(&self.url) }.change(true)
    }

    /// The change that writes it as it is.
    pub fn keeping(&self, id: &str) -> DocumentChange {
        let value = serde_json::to_value(self).unwrap_or_default();
        DocumentChange { kind: DocumentKind::Callback, key: id.to_owned(), value: Some(value) }
    }
}

/// A place in the line of due notices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// When it is due.
    pub at: Timestamp,
    /// The notice.
    pub id: String,
    /// When what it tells of happened.
    pub since: Timestamp,
    /// Its receiver's scheme, host and port.
    pub to: String,
}

impl Due {
    /// The change that writes it, or takes it out.
    pub fn change(&self, present: bool) -> DocumentChange {
        let key = format!("{:020}/{}", self.at.as_micros().max(0), self.id);
        let value = present.then(|| json!({ "since": self.since.as_micros(), "to": self.to }));
        DocumentChange { kind: DocumentKind::CallbackDue, key, value }
    }

    /// From a row.
    pub fn read(key: &str, value: &Value) -> Option<Self> {
        let (at, id) = key.split_once('/')?;
        Some(Self {
            at: Timestamp::from_micros(at.parse().ok()?),
            id: id.to_owned(),
            since: Timestamp::from_micros(value.get("since")?.as_i64()?),
            to: value.get("to")?.as_str()?.to_owned(),
        })
    }
}

/// Scheme, host and port, as far as the address says them.
fn receiver(url: &str) -> String {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find(['/', '?', '#']).map_or(url.len(), |at| host + at);
    url[..end].to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_in_order_of_time() {
        let place = |micros: i64| Due {
            at: Timestamp::from_micros(micros),
            id: "msg_1".to_owned(),
            since: Timestamp::from_micros(7),
            to: "https://a".to_owned(),
        };
        let key = |micros| place(micros).change(true).key;
        assert!(key(9) < key(10) && key(10) < key(1_795_341_600_000_000));
        let written = place(42).change(true);
        assert_eq!(Due::read(&written.key, &written.value.unwrap()), Some(place(42)));
        assert_eq!(Due::read("nonsense", &Value::Null), None);
    }

    #[test]
    fn receivers_are_told_apart_by_their_hosts() {
        for (url, expected) in [
            ("https://Hooks.example.com/in?x=1", "https://hooks.example.com"),
            ("http://a:8080", "http://a:8080"),
            ("http://a:8080?x", "http://a:8080"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(receiver(url), expected);
        }
    }
}
