//! Writing what became of a batch: one pass over its input, one line for each of its lines.
//!
//! Invariant: each `custom_id` stands exactly once, in one of the two files. The files are durable before the batch says
//! that they are there; written again after a crash, they are the same files.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{
    lines,
    record::{BatchRecord, BatchStatus},
};
use crate::{
    engine::{
        Engine,
        files::{ContentWriter, FileRecord, Lines},
    },
    ids::JobId,
    job::{State, envelope::MAX_JOB_BYTES},
    store::{DocumentChange, JobError, JobOutcome, Result},
    usage::Usage,
};

/// Lines looked up in one go.
const LINES_A_LOOK: usize = 256;

/// What was written.
pub(super) struct Written {
    pub(super) completed: u64,
    pub(super) failed: u64,
    pub(super) usage: Usage,
    pub(super) output: bool,
    pub(super) errors: bool,
    /// Rows of the files.
    pub(super) changes: Vec<DocumentChange>,
}

struct Output {
    writer: ContentWriter,
    lines: u64,
}

impl Output {
    async fn write(&mut self, line: &str) -> Result<()> {
        self.lines += 1;
        self.writer.write(line.as_bytes()).await?;
        self.writer.write(b"\n").await
    }
}

impl Engine {
    /// Writes both files. `ending` is what the batch becomes, and what its unfinished lines are told.
    pub(super) async fn write_results(&self, batch: &BatchRecord, ending: BatchStatus) -> Result<Written> {
        let begin = |id: &Option<String>| {
            let id = id.clone().unwrap_or_else(crate::engine::files::new_file_id);
            ContentWriter::begin(self.store.clone(), id)
        };
        let mut output = Output { writer: begin(&batch.output_file_id).await?, lines: 0 };
        let mut errors = Output { writer: begin(&batch.error_file_id).await?, lines: 0 };
        let mut usage = Usage::default();
        let mut reader = Lines::of(self.store.clone(), &batch.input_file_id, MAX_JOB_BYTES);
        loop {
            let mut some: Vec<(JobId, String)> = Vec::with_capacity(LINES_A_LOOK);
            while some.len() < LINES_A_LOOK
                && let Some(line) = reader.next().await?
            {
                if let (Ok(read), crate::engine::files::Line::Whole(number, _)) = (lines::read(batch, &line), &line) {
                    some.push((batch.job_of_line(*number), read.custom_id));
                }
            }
            if some.is_empty() {
                break;
            }
            let outcomes = self.store.outcomes(some.iter().map(|(job, _)| *job).collect()).await?;
            for ((job, custom_id), outcome) in some.into_iter().zip(outcomes) {
                if let Some(outcome) = &outcome {
                    usage += outcome.usage;
                }
                match line_of(job, &custom_id, outcome, ending) {
                    (true, line) => output.write(&line).await?,
                    (false, line) => errors.write(&line).await?,
                }
            }
        }
        let mut written = Written {
            completed: output.lines,
            failed: errors.lines,
            usage,
            output: output.lines > 0,
            errors: errors.lines > 0,
            changes: Vec::new(),
        };
        for (file, name) in [(output, "output"), (errors, "error")] {
            if file.lines == 0 {
                continue;
            }
            let id = file.writer.id().to_owned();
            let bytes = file.writer.seal().await?;
            let now = self.clock.now();
            let kept = batch.output_expires_after.map_or(super::FILES_KEPT, std::time::Duration::from_secs);
            let row = FileRecord {
                filename: format!("{}_{name}.jsonl", batch.id),
                id,
                bytes,
                created_at: now,
                expires_at: Some(now + kept),
                purpose: "batch_output".to_owned(),
                owner: batch.owner.clone(),
                pipelines: batch.pipelines.clone(),
            };
            written.changes.push(row.change());
        }
        Ok(written)
    }
}

/// The line of one request, and whether it goes to the output file.
fn line_of(job: JobId, custom_id: &str, outcome: Option<JobOutcome>, ending: BatchStatus) -> (bool, String) {
    let id = format!("batch_req_{}", job.to_string().trim_start_matches("job_"));
    let unanswered = |code: &str, message: &str| {
        let error = json!({ "code": code, "message": message });
        json!({ "id": id, "custom_id": custom_id, "response": null, "error": error }).to_string()
    };
    let answered = |status: u16, body: &RawValue| {
        let (id, custom_id) = (Value::from(id.clone()), Value::from(custom_id));
        // The answer goes as it was stored: read and written again, numbers could change.
        format!(
            "{{\"id\":{id},\"custom_id\":{custom_id},\"response\":{{\"status_code\":{status},\"request_id\":\"{job}\",\"body\":{}}},\"error\":null}}",
            body.get()
        )
    };
    let gone =
        || unanswered("result_gone", "the result of this request is no longer kept (`retention` of its pipeline)");
    match outcome {
        Some(JobOutcome { state: State::Succeeded, result, .. }) => {
            match result.map(one_line).and_then(|result| RawValue::from_string(result).ok()) {
                Some(body) => (true, answered(200, &body)),
                None => (false, gone()),
            }
        }
        Some(JobOutcome { state: State::Failed, error: Some(error), .. }) => {
            let body = json!({ "error": { "message": error.message, "type": error.kind, "param": error.param, "code": error.code } });
            let body = RawValue::from_string(body.to_string());
            (false, body.map_or_else(|_| gone(), |body| answered(status_of(&error), &body)))
        }
        Some(JobOutcome { state: State::Cancelled, .. }) if ending != BatchStatus::Expired => {
            (false, unanswered("batch_cancelled", "this request was cancelled before it was executed"))
        }
        _ if ending == BatchStatus::Cancelled => {
            (false, unanswered("batch_cancelled", "this request was cancelled before it was executed"))
        }
        Some(JobOutcome { state: State::Failed, .. }) => (false, gone()),
        _ => {
            let message = "this request could not be executed before the completion window expired";
            (false, unanswered("batch_expired", message))
        }
    }
}

/// A stored answer is one JSON text; a line of the file is one line.
fn one_line(text: String) -> String {
    if !text.contains(['\n', '\r']) {
        return text;
    }
    serde_json::from_str::<Value>(&text).map_or(text, |value| value.to_string())
}

/// The status that a caller who had waited would have seen.
fn status_of(error: &JobError) -> u16 {
    match error.reason_code.as_str() {
        "refused" | "too_long" => 400,
        "attempts_exhausted" => 502,
        _ => 500,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_its_line() {
        let job = JobId::generate();
        let outcome = |state, result: Option<&str>, reason: Option<&str>| {
            Some(JobOutcome {
                state,
                result: result.map(str::to_owned),
                error: reason.map(|reason| JobError {
                    reason_code: reason.to_owned(),
                    message: "m".to_owned(),
                    kind: "invalid_request_error".to_owned(),
                    code: None,
                    param: None,
                }),
                usage: Usage::default(),
            })
        };
        for (given, ending, output, status, code) in [
            (
                outcome(State::Succeeded, Some("{\n\"a\": 1.0}"), None),
                BatchStatus::Completed,
                true,
                json!(200),
                Value::Null,
            ),
            (outcome(State::Succeeded, None, None), BatchStatus::Completed, false, Value::Null, json!("result_gone")),
            (outcome(State::Failed, None, Some("refused")), BatchStatus::Completed, false, json!(400), Value::Null),
            (
                outcome(State::Failed, None, Some("attempts_exhausted")),
                BatchStatus::Cancelled,
                false,
                json!(502),
                Value::Null,
            ),
            (outcome(State::Expired, None, None), BatchStatus::Completed, false, Value::Null, json!("batch_expired")),
            (outcome(State::Cancelled, None, None), BatchStatus::Expired, false, Value::Null, json!("batch_expired")),
            (
                outcome(State::Cancelled, None, None),
                BatchStatus::Completed,
                false,
                Value::Null,
                json!("batch_cancelled"),
            ),
            (None, BatchStatus::Cancelled, false, Value::Null, json!("batch_cancelled")),
            (None, BatchStatus::Expired, false, Value::Null, json!("batch_expired")),
        ] {
            let (to_output, line) = line_of(job, "c\"1", given, ending);
            let value: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(
                (to_output, &value["response"]["status_code"], &value["error"]["code"]),
                (output, &status, &code),
                "{line}"
            );
            assert!(!line.contains('\n') && value["custom_id"] == "c\"1", "{line}");
        }
    }
}
