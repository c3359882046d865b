//! Sends jobs in bounded requests until the daemon has answered for each.
//!
//! Invariant: a request that got no whole answer is sent again; keys make that safe. A passing fault is waited out with
//! growing pauses for as long as the caller allows, then it ends the command.

use std::time::Duration;

use indicatif::ProgressBar;
use serde_json::Value;

use super::prepare::{BadLine, Prepared};
use crate::{
    cli::{
        connection::{CallError, Daemon},
        patience::Patience,
    },
    ids::JobId,
    job::State,
};

/// A line that the daemon accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The line's number in the input.
    pub line: u64,
    /// Its key.
    pub key: String,
    /// Its job.
    pub id: JobId,
    /// Where the job stands: one that was there already may have ended.
    pub state: State,
}

/// What became of a line.
pub type Answer = Result<Accepted, BadLine>;

/// Sends jobs and says what became of each line, in order.
///
/// # Errors
/// [`CallError`] when the daemon cannot be reached for `patience`, or refuses the request as a whole.
pub async fn send(
    daemon: &Daemon,
    jobs: Vec<Prepared>,
    patience: Duration,
    bar: &ProgressBar,
) -> Result<Vec<Answer>, CallError> {
    let mut answers = Vec::with_capacity(jobs.len());
    // Halves of a request that was too large, the earlier one on top.
    let mut pending = vec![jobs];
    let mut patience = Patience::new(patience, bar);
    while let Some(mut jobs) = pending.pop() {
        if jobs.is_empty() {
            continue;
        }
        let mut body = Vec::with_capacity(jobs.iter().map(|job| job.json.len() + 1).sum());
        for job in &jobs {
            body.extend_from_slice(job.json.as_bytes());
            body.push(b'\n');
        }
        let answered = match daemon.post(&["v1", "jobs"]).json_lines(body).send_for_bytes().await {
            Ok(answer) => read(&answer, &jobs),
            Err(error) => Err(error),
        };
        match answered {
            Ok(lines) => {
                patience.restore();
                answers.extend(lines);
            }
            Err(CallError::Refused { status: 413, message }) => {
                if jobs.len() == 1 {
                    answers
                        .extend(jobs.into_iter().map(|job| Err(BadLine { line: job.line, message: message.clone() })));
                } else {
                    let later = jobs.split_off(jobs.len() / 2);
                    pending.extend([later, jobs]);
                }
            }
            Err(error) => {
                patience.wait_out(error).await?;
                pending.push(jobs);
            }
        }
    }
    Ok(answers)
}

/// Reads the answer to a request: one line for each job, in order.
fn read(answer: &[u8], jobs: &[Prepared]) -> Result<Vec<Answer>, CallError> {
    let lines: Vec<Value> = answer
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.iter().all(u8::is_ascii_whitespace))
        .map(serde_json::from_slice)
        .collect::<Result<_, _>>()
        .map_err(|error| CallError::Strange(format!("the answer to a submit is not JSON lines: {error}")))?;
    if lines.len() != jobs.len() {
        // Cut off in the middle, by a proxy say. Keys make it safe to ask again.
        return Err(CallError::Unreachable(format!("{} of {} jobs were answered for", lines.len(), jobs.len())));
    }
    jobs.iter().zip(&lines).map(|(job, line)| read_line(job, line)).collect()
}

fn read_line(job: &Prepared, line: &Value) -> Result<Answer, CallError> {
    if let Some(error) = line.get("error").filter(|error| !error.is_null()) {
        let message = error.get("message").and_then(Value::as_str).unwrap_or("refused without a reason").to_owned();
        let kind = error.get("type").and_then(Value::as_str).unwrap_or_default();
        if matches!(kind, "service_unavailable_error" | "server_error") {
            return Err(CallError::Busy { message, retry_after: None });
        }
        let param = error.get("param").and_then(Value::as_str).filter(|param| !message.contains(*param));
        let message = param.map_or_else(|| message.clone(), |param| format!("{param}: {message}"));
        return Ok(Err(BadLine { line: job.line, message }));
    }
    let text = |name: &str| line.get(name).and_then(Value::as_str).unwrap_or_default();
    match (text("id").parse(), text("state").parse()) {
        (Ok(id), Ok(state)) => Ok(Ok(Accepted { line: job.line, key: job.key.clone(), id, state })),
        _ => Err(CallError::Strange(format!("the answer to a submit has a line without a job: {line}"))),
    }
}
