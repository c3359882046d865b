//! Ended jobs as lines of an OpenAI batch output file, and the file that they are written to.
//!
//! Invariant: an output file appears whole or not at all, and holds a job once.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::{
    connection::{CallError, Daemon},
    exit::{Failure, Result},
    patience::Patience,
    print::field,
};
use crate::{ids::JobId, job::State};

/// How long the daemon is asked to hold back the answer for a job that has not ended.
const LONG_POLL: Duration = Duration::from_secs(30);

/// Where a job of an answer stands.
pub fn state(job: &Value) -> Option<State> {
    job.get("state")?.as_str()?.parse().ok()
}

/// A job once it has ended.
///
/// # Errors
/// [`CallError`] when the daemon does not know the job, or cannot be reached for `patience`.
pub async fn ended(daemon: &Daemon, id: JobId, patience: Duration, bar: &ProgressBar) -> Result<Value, CallError> {
    let mut patience = Patience::new(patience, bar);
    loop {
        match daemon.get(&["v1", "jobs", &id.to_string()]).waiting(LONG_POLL).send().await {
            Ok(job) => match state(&job) {
                Some(state) if state.is_terminal() => return Ok(job),
                Some(_) => patience.restore(),
                None => return Err(CallError::Strange(format!("the answer for {id} has no state that is known here"))),
            },
            Err(error) => patience.wait_out(error).await?,
        }
    }
}

/// Why a job ended without a result, in a line.
pub fn end_in_words(job: &Value) -> String {
    let message = field(job, "/error/message");
    let state = field(job, "/state");
    if message.is_empty() {
        format!("{} {state}", field(job, "/id"))
    } else {
        format!("{} {state}: {message}", field(job, "/id"))
    }
}

/// A job as a line of an OpenAI batch output file. Jobs without a result have an `error` in the same file.
pub fn batch_line(job: &Value, custom_id: &str) -> Value {
    let id = field(job, "/id");
    let (response, error) = match (job.get("result"), job.get("error")) {
        (Some(result), _) if !result.is_null() => {
            (json!({"status_code": 200, "request_id": id, "body": result}), Value::Null)
        }
        (_, Some(error)) if !error.is_null() => {
            let code =
                ["/code", "/type"].map(|pointer| field(error, pointer)).into_iter().find(|code| !code.is_empty());
            (
                Value::Null,
                json!({"code": code.unwrap_or_else(|| "failed".to_owned()), "message": field(error, "/message")}),
            )
        }
        _ => {
            let state = field(job, "/state");
            let message = match state.as_str() {
                "succeeded" => "the result is no longer kept (see the pipeline's `retention`)".to_owned(),
                state => format!("the job is {state}"),
            };
            (Value::Null, json!({"code": state, "message": message}))
        }
    };
    json!({"id": format!("batch_req_{}", id.trim_start_matches("job_")), "custom_id": custom_id, "response": response, "error": error})
}

/// A file that is written beside its place and moved there when it is whole; `-` is standard output.
pub enum Output<'a> {
    /// Standard output.
    Stream(&'a mut dyn Write),
    /// A file to be.
    File {
        /// Under the name it has until then.
        file: BufWriter<File>,
        /// That name.
        part: PathBuf,
        /// The name it will have.
        path: PathBuf,
    },
}

impl<'a> Output<'a> {
    /// Opens `path` for writing.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn open(path: &Path, out: &'a mut dyn Write) -> Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::Stream(out));
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let part = path.with_file_name(name);
        let file = File::create(&part).map_err(|error| cannot_write(&part, &error))?;
        Ok(Self::File { file: BufWriter::new(file), part, path: path.to_owned() })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn line(&mut self, value: &Value) -> Result<()> {
        match self {
            Self::Stream(out) => Ok(writeln!(out, "{value}")?),
            Self::File { file, part, .. } => writeln!(file, "{value}").map_err(|error| cannot_write(part, &error)),
        }
    }

    /// Makes the file appear.
    ///
    /// # Errors
    /// When it cannot be written or moved.
    pub fn finish(self) -> Result<()> {
        match self {
            Self::Stream(out) => Ok(out.flush()?),
            Self::File { file, part, path } => file
                .into_inner()
                .map_err(io::IntoInnerError::into_error)
                .and_then(|file| file.sync_all())
                .and_then(|()| std::fs::rename(&part, &path))
                .map_err(|error| cannot_write(&path, &error)),
        }
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("cannot write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_its_line() {
        for (job, response, error) in [
            (
                json!({"id": "job_1", "state": "succeeded", "result": {"choices": []}}),
                json!({"status_code": 200, "request_id": "job_1", "body": {"choices": []}}),
                Value::Null,
            ),
            (
                json!({"id": "job_1", "state": "failed", "error": {"message": "no", "type": "invalid_request_error", "code": null}}),
                Value::Null,
                json!({"code": "invalid_request_error", "message": "no"}),
            ),
            (
                json!({"id": "job_1", "state": "expired"}),
                Value::Null,
                json!({"code": "expired", "message": "the job is expired"}),
            ),
            (
                json!({"id": "job_1", "state": "succeeded", "result": null}),
                Value::Null,
                json!({"code": "succeeded", "message": "the result is no longer kept (see the pipeline's `retention`)"}),
            ),
        ] {
            let expected = json!({"id": "batch_req_1", "custom_id": "c", "response": response, "error": error});
            assert_eq!(batch_line(&job, "c"), expected);
        }
    }

    #[test]
    fn a_file_appears_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        let mut nowhere = Vec::new();
        let mut output = Output::open(&path, &mut nowhere).unwrap();
        output.line(&json!(1)).unwrap();
        assert!(!path.exists());
        output.finish().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let missing = Output::open(&folder.path().join("no/such/folder"), &mut nowhere).err().unwrap();
        assert!(missing.message.contains("no/such/folder.part"), "{missing}");
    }
}
