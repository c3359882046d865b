//! `landbridge submit`: a file of jobs becomes jobs in the queue, each line once.
//!
//! Invariant: memory is bounded by the requests in flight, whatever the file's size (with `--wait`, plus an id and a key
//! for each job). A bad line stops no other.

pub mod dry_run;
pub mod lines;
pub mod prepare;
pub mod send;

#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use futures_util::{StreamExt, stream};
use indicatif::ProgressBar;
use serde_json::json;
use tokio::io::{AsyncBufRead, BufReader};

use self::{
    lines::{Lines, MAX_LINE},
    prepare::{BadLine, Defaults, Prepared, Preparer},
    send::{Accepted, Answer},
};
use super::{
    connection::{CallError, Connection, Daemon},
    exit::{Exit, Failure, Result},
    jobs::select::parse_assignment,
    print::{Console, Format, counted, grouped, printable},
    progress::{byte_bar, job_bar},
    results::{self, Output},
};
use crate::{clock::parse_span, ids::JobId, job::State};

/// Jobs in one request, at most.
const CHUNK_LINES: usize = 1_000;
/// Bytes in one request, at most (a longer line goes alone).
const CHUNK_BYTES: usize = 4 << 20;
/// A request that has a line waits this long for the next one.
const LINGER: Duration = Duration::from_millis(200);
/// Requests in flight at once: enough to keep the store's group commit busy.
const IN_FLIGHT: usize = 4;
/// Jobs waited for at once.
const WAITING: usize = 16;
/// Problems printed one by one; the rest is counted.
const MAX_PRINTED: u64 = 50;

/// Put jobs into the queue
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Each line of FILE is a job ({\"body\": {…}, …}) or a line of an OpenAI batch file
({\"custom_id\": …, \"body\": {…}}). Every job has a key, so a run that broke off, or
that had bad lines, can simply be run again: lines that were accepted stay one job.
The key is what --key-from points at, else custom_id, else idempotency_key, else it
is made from the line's contents and the options (so another --batch means new jobs).

Examples:
  landbridge submit prompts.jsonl --pipeline ticket-triage
  landbridge submit batch.jsonl --batch monday --wait -o results.jsonl
  landbridge submit batch.jsonl --pipeline ticket-triage --dry-run
  zcat huge.jsonl.gz | landbridge submit - --key-from /id --format json > ids.jsonl

Exit codes: 0 all accepted (with --wait: all succeeded); 1 some lines were refused;
3 some jobs ended without a result; 64 wrong usage; 69 daemon not reachable")]
pub struct SubmitArgs {
    /// Job lines; `-` reads standard input
    #[arg(value_name = "FILE.jsonl")]
    pub file: PathBuf,
    /// The pipeline of lines that name none
    #[arg(long, short, value_name = "PIPELINE")]
    pub pipeline: Option<crate::names::PipelineName>,
    /// The batch of lines that name none
    #[arg(long, short, value_name = "NAME")]
    pub batch: Option<String>,
    /// A JSON pointer to the key in each line, such as /custom_id
    #[arg(long, value_name = "POINTER", value_parser = parse_pointer)]
    pub key_from: Option<String>,
    /// A metadata value for lines that lack it; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_assignment)]
    pub metadata: Vec<(String, String)>,
    /// Queue nothing; say when the jobs would be done under the quotas of this moment, and what they would cost
    #[arg(long, conflicts_with_all = ["wait", "output"])]
    pub dry_run: bool,
    /// Wait until every job has ended
    #[arg(long, short)]
    pub wait: bool,
    /// With --wait: write the results there as OpenAI batch output lines; `-` is standard output
    #[arg(long, short, value_name = "OUT.jsonl", requires = "wait")]
    pub output: Option<PathBuf>,
    /// How long to try again when the daemon cannot be reached or is busy
    #[arg(long, value_name = "SPAN", default_value = "2m", value_parser = parse_span)]
    pub retry_for: Duration,
    /// json: one line for each input line, {"line","id","key","state"} or {"line","error"}
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// The daemon
    #[command(flatten)]
    pub connection: Connection,
}

fn parse_pointer(text: &str) -> std::result::Result<String, String> {
    if text.starts_with('/') {
        Ok(text.to_owned())
    } else {
        Err("a JSON pointer starts with '/', such as /custom_id".to_owned())
    }
}

/// What a run has come to.
#[derive(Debug, Default)]
struct Tally {
    /// Lines accepted.
    accepted: u64,
    /// Lines refused.
    refused: u64,
    /// Distinct jobs.
    seen: HashSet<JobId>,
    /// With `--wait`: distinct jobs in the order of their lines.
    jobs: Vec<(JobId, Box<str>, State)>,
}

/// Runs the command.
pub async fn execute(args: &SubmitArgs, config: &Path, console: &mut Console<'_>) -> Result {
    let to_stdout = args.output.as_deref() == Some(Path::new("-"));
    if to_stdout && args.format == Format::Json {
        return Err(Failure::usage("--format json and `-o -` would both write to standard output: choose one"));
    }
    let daemon = Daemon::new(&args.connection, config)?;
    let (input, size) = open(&args.file).await?;
    if args.dry_run {
        return dry_run::execute(args, &daemon, input, size, console).await;
    }
    let mut tally = Tally::default();
    let sent = send_all(args, &daemon, input, size, &mut tally, console).await;
    if let Err(failure) = sent {
        return Err(Failure {
            message: format!(
                "{}\n{} accepted so far; run the same command again to go on: accepted lines are not doubled",
                failure.message,
                counted(tally.accepted, "line")
            ),
            ..failure
        });
    }
    let repeated = tally.accepted - tally.seen.len() as u64;
    let mut summary = format!("{} accepted", counted(tally.accepted, "line"));
    if repeated > 0 {
        summary = format!("{summary} ({})", counted(repeated, "repeated key"));
    }
    if tally.refused > 0 {
        summary = format!("{summary}, {} refused", grouped(tally.refused));
    }
    if to_stdout || args.format == Format::Json {
        writeln!(console.err, "{summary}")?;
    } else {
        writeln!(console.out, "{summary}")?;
    }
    let failed = if args.wait { wait(args, &daemon, &tally, console).await? } else { 0 };
    Ok(match (failed, tally.refused) {
        (0, 0) => Exit::Success,
        (0, _) => Exit::Failed,
        _ => Exit::JobsFailed,
    })
}

type Input = Box<dyn AsyncBufRead + Unpin>;

async fn open(file: &Path) -> Result<(Input, Option<u64>)> {
    if file == Path::new("-") {
        return Ok((Box::new(BufReader::with_capacity(1 << 18, tokio::io::stdin())), None));
    }
    let cannot_read = |error: std::io::Error| Failure::new(format!("cannot read {}: {error}", file.display()));
    let opened = tokio::fs::File::open(file).await.map_err(cannot_read)?;
    let facts = opened.metadata().await.map_err(cannot_read)?;
    if facts.is_dir() {
        return Err(Failure::new(format!("cannot read {}: it is a folder", file.display())));
    }
    let size = facts.is_file().then_some(facts.len());
    Ok((Box::new(BufReader::with_capacity(1 << 18, opened)), size))
}

/// What goes into one request, and the lines among it that are no jobs.
struct Chunk {
    jobs: Vec<Prepared>,
    bad: Vec<BadLine>,
    consumed: u64,
}

async fn next_chunk(
    lines: &mut Lines<Input>,
    preparer: &mut Preparer,
    carry: &mut Option<Prepared>,
) -> std::io::Result<Option<Chunk>> {
    let mut chunk = Chunk { jobs: Vec::new(), bad: Vec::new(), consumed: 0 };
    let mut bytes = 0;
    if let Some(job) = carry.take() {
        bytes = job.json.len();
        chunk.jobs.push(job);
    }
    while chunk.jobs.len() + chunk.bad.len() < CHUNK_LINES {
        // What a slow producer has given so far is not kept waiting for more.
        let started = !chunk.jobs.is_empty() || !chunk.bad.is_empty();
        let patience = if started { LINGER } else { Duration::MAX };
        let Ok(line) = tokio::time::timeout(patience, lines.next()).await else { break };
        let Some(line) = line? else { break };
        match preparer.prepare(line) {
            Ok(job) if !chunk.jobs.is_empty() && bytes + job.json.len() > CHUNK_BYTES => {
                *carry = Some(job);
                break;
            }
            Ok(job) => {
                bytes += job.json.len();
                chunk.jobs.push(job);
            }
            Err(bad) => chunk.bad.push(bad),
        }
    }
    chunk.consumed = lines.consumed();
    Ok((!chunk.jobs.is_empty() || !chunk.bad.is_empty()).then_some(chunk))
}

fn defaults(args: &SubmitArgs) -> Defaults {
    Defaults {
        pipeline: args.pipeline.as_ref().map(ToString::to_string),
        batch: args.batch.clone(),
        metadata: args.metadata.clone(),
        key_from: args.key_from.clone(),
    }
}

async fn send_all(
    args: &SubmitArgs,
    daemon: &Daemon,
    input: Input,
    size: Option<u64>,
    tally: &mut Tally,
    console: &mut Console<'_>,
) -> Result<()> {
    let reading = (Lines::new(input, MAX_LINE), Preparer::new(defaults(args)), None);
    let chunks = stream::try_unfold(reading, |(mut lines, mut preparer, mut carry)| async move {
        let chunk = next_chunk(&mut lines, &mut preparer, &mut carry).await?;
        Ok::<_, std::io::Error>(chunk.map(|chunk| (chunk, (lines, preparer, carry))))
    });
    let bar = &byte_bar(console.progress, size);
    let answers = chunks.map(|chunk| async move {
        let chunk = chunk.map_err(|error| Failure::new(format!("cannot read {}: {error}", args.file.display())))?;
        let mut answers = send::send(daemon, chunk.jobs, args.retry_for, bar).await?;
        answers.extend(chunk.bad.into_iter().map(Err));
        answers.sort_by_key(|answer| match answer {
            Ok(accepted) => accepted.line,
            Err(bad) => bad.line,
        });
        Ok::<_, Failure>((answers, chunk.consumed))
    });
    let mut answers = Box::pin(answers.buffered(IN_FLIGHT));
    while let Some(answered) = answers.next().await {
        let (lines, consumed) = answered?;
        bar.set_position(consumed);
        for answer in lines {
            record(args, answer, tally, console, bar)?;
        }
    }
    bar.finish_and_clear();
    Ok(())
}

fn record(
    args: &SubmitArgs,
    answer: Answer,
    tally: &mut Tally,
    console: &mut Console<'_>,
    bar: &ProgressBar,
) -> Result<()> {
    match answer {
        Ok(Accepted { line, key, id, state }) => {
            tally.accepted += 1;
            if args.format == Format::Json {
                writeln!(console.out, "{}", json!({"line": line, "id": id, "key": key, "state": state}))?;
            }
            if tally.seen.insert(id) && args.wait {
                tally.jobs.push((id, key.into(), state));
            }
        }
        Err(BadLine { line, message }) => {
            tally.refused += 1;
            if args.format == Format::Json {
                writeln!(console.out, "{}", json!({"line": line, "error": {"message": message}}))?;
            }
            if tally.refused <= MAX_PRINTED {
                let text = format!("{}:{line}: {}", args.file.display(), printable(&message));
                bar.suspend(|| writeln!(console.err, "{text}"))?;
            } else if tally.refused == MAX_PRINTED + 1 {
                bar.suspend(|| {
                    writeln!(console.err, "further refused lines are counted, not shown (--format json has all)")
                })?;
            }
        }
    }
    Ok(())
}

/// Waits for every job; how many ended without a result.
async fn wait(args: &SubmitArgs, daemon: &Daemon, tally: &Tally, console: &mut Console<'_>) -> Result<u64> {
    let bar = &job_bar(console.progress, tally.jobs.len() as u64);
    let mut output = args.output.as_deref().map(|path| Output::open(path, console.out)).transpose()?;
    let writes = output.is_some();
    let mut ended = stream::iter(&tally.jobs)
        .map(|(id, key, state)| async move {
            let job = if state.is_terminal() && !writes {
                json!({"id": id, "state": state})
            } else {
                results::ended(daemon, *id, args.retry_for, bar).await?
            };
            Ok::<_, CallError>((key, job))
        })
        .buffered(WAITING);
    let (mut succeeded, mut failed) = (0, 0);
    while let Some(job) = ended.next().await {
        let (key, job) = job?;
        bar.inc(1);
        if results::state(&job) == Some(State::Succeeded) {
            succeeded += 1;
        } else {
            failed += 1;
            if failed <= MAX_PRINTED {
                let text = format!("{key}: {}", results::end_in_words(&job));
                bar.suspend(|| writeln!(console.err, "{}", printable(&text)))?;
            }
        }
        if let Some(output) = &mut output {
            output.line(&results::batch_line(&job, key))?;
        }
    }
    drop(ended);
    bar.finish_and_clear();
    let to_stdout = matches!(output, Some(Output::Stream(_)));
    if let Some(output) = output {
        output.finish()?;
    }
    let summary = format!("{} succeeded, {} without a result", counted(succeeded, "job"), grouped(failed));
    if to_stdout || args.format == Format::Json {
        writeln!(console.err, "{summary}")?;
    } else {
        writeln!(console.out, "{summary}")?;
    }
    Ok(failed)
}
