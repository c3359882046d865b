//! Which jobs a command is about: by id, by key, by batch, by metadata.

use clap::Args;
use serde_json::{Value, json};

use crate::{
    cli::{
        connection::{CallError, Daemon, Request},
        exit::{Failure, Result},
        print::{field, items},
    },
    ids::JobId,
    job::State,
    names::PipelineName,
};

/// Jobs asked for at once.
const PAGE: u32 = 200;

/// Conditions on jobs; all must hold.
#[derive(Debug, Clone, Default, Args)]
pub struct Filter {
    /// Of this pipeline
    #[arg(long, short, value_name = "PIPELINE")]
    pub pipeline: Option<PipelineName>,
    /// Of this batch
    #[arg(long, short, value_name = "NAME")]
    pub batch: Option<String>,
    /// With this idempotency key
    #[arg(long, short, value_name = "KEY")]
    pub key: Option<String>,
    /// With this metadata value; may be repeated
    #[arg(long = "where", value_name = "metadata.NAME=VALUE", value_parser = parse_where)]
    pub metadata: Vec<(String, String)>,
}

/// Jobs by id, or by conditions; at least one of either.
#[derive(Debug, Clone, Default, Args)]
#[command(group(clap::ArgGroup::new("selection").required(true).multiple(true).args(["ids", "pipeline", "batch", "key", "metadata"])))]
pub struct Selector {
    /// Job ids
    #[arg(value_name = "JOB", conflicts_with_all = ["pipeline", "batch", "key", "metadata"])]
    pub ids: Vec<JobId>,
    /// Conditions
    #[command(flatten)]
    pub filter: Filter,
}

/// Reads `NAME=VALUE`.
pub fn parse_assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

fn parse_where(text: &str) -> Result<(String, String), String> {
    text.strip_prefix("metadata.")
        .ok_or_else(|| "only metadata can be asked for: metadata.NAME=VALUE".to_owned())
        .and_then(parse_assignment)
        .map_err(|_| "expected metadata.NAME=VALUE".to_owned())
}

impl Filter {
    /// The conditions as parameters of a request for a list.
    fn apply<'a>(&self, mut request: Request<'a>, states: &[State]) -> Request<'a> {
        for state in states {
            request = request.query("state", &state.to_string());
        }
        if let Some(pipeline) = &self.pipeline {
            request = request.query("pipeline", pipeline.as_str());
        }
        if let Some(batch) = &self.batch {
            request = request.query("batch", batch);
        }
        if let Some(key) = &self.key {
            request = request.query("key", key);
        }
        for (name, value) in &self.metadata {
            request = request.query("where", &format!("metadata.{name}={value}"));
        }
        request
    }

    /// Whether the batch is the only condition.
    pub fn only_batch(&self) -> Option<&str> {
        let alone = self.pipeline.is_none() && self.key.is_none() && self.metadata.is_empty();
        self.batch.as_deref().filter(|_| alone)
    }

    /// The batch, the pipeline or both as the daemon is told, when nothing else is asked for.
    pub fn whole(&self) -> Option<Value> {
        let others = self.key.is_some() || !self.metadata.is_empty();
        match (&self.batch, &self.pipeline) {
            _ if others => None,
            (None, None) => None,
            (Some(batch), None) => Some(json!({"batch": batch})),
            (None, Some(pipeline)) => Some(json!({"pipeline": pipeline})),
            (Some(batch), Some(pipeline)) => Some(json!({"batch": batch, "pipeline": pipeline})),
        }
    }
}

/// A list of jobs, page by page, newest first.
pub struct Pages<'a> {
    daemon: &'a Daemon,
    filter: &'a Filter,
    states: &'a [State],
    cursor: Cursor,
}

/// Where the next page starts.
enum Cursor {
    Start,
    After(String),
    End,
}

impl<'a> Pages<'a> {
    /// The jobs that meet the conditions, in one of these states (in any, when empty).
    pub fn new(daemon: &'a Daemon, filter: &'a Filter, states: &'a [State]) -> Self {
        Self { daemon, filter, states, cursor: Cursor::Start }
    }

    /// Starts after a cursor of an earlier list.
    pub fn after(mut self, cursor: Option<String>) -> Self {
        self.cursor = cursor.map_or(Cursor::Start, Cursor::After);
        self
    }

    /// The next page of at most `limit` jobs. A page may be empty though more follow.
    pub async fn next(&mut self, limit: u32) -> Result<Option<Vec<Value>>, CallError> {
        let after = match std::mem::replace(&mut self.cursor, Cursor::End) {
            Cursor::Start => None,
            Cursor::After(cursor) => Some(cursor),
            Cursor::End => return Ok(None),
        };
        let mut request = self.filter.apply(self.daemon.get(&["v1", "jobs"]), self.states);
        if let Some(after) = &after {
            request = request.query("after", after);
        }
        let mut page = request.query("limit", &limit.min(PAGE).to_string()).send().await?;
        let next = Some(field(&page, "/next")).filter(|next| !next.is_empty());
        if next.is_some() && next == after {
            return Err(CallError::Strange("the daemon's list of jobs does not move on".to_owned()));
        }
        self.cursor = next.map_or(Cursor::End, Cursor::After);
        Ok(Some(match page.pointer_mut("/data") {
            Some(Value::Array(jobs)) => std::mem::take(jobs),
            _ => Vec::new(),
        }))
    }

    /// Where to go on, when there may be more.
    pub fn cursor(&self) -> Option<&str> {
        match &self.cursor {
            Cursor::After(cursor) => Some(cursor),
            Cursor::Start | Cursor::End => None,
        }
    }
}

/// The ids that a selector means, some at a time.
pub enum Selected<'a> {
    /// As given.
    Ids(Option<Vec<JobId>>),
    /// By conditions.
    Pages(Pages<'a>),
}

impl Selector {
    /// The jobs meant; by conditions, those in one of these states (in any, when empty).
    pub fn jobs<'a>(&'a self, daemon: &'a Daemon, states: &'a [State]) -> Selected<'a> {
        if self.ids.is_empty() {
            Selected::Pages(Pages::new(daemon, &self.filter, states))
        } else {
            Selected::Ids(Some(self.ids.clone()))
        }
    }
}

impl Selected<'_> {
    /// The next ids.
    pub async fn next(&mut self) -> Result<Option<Vec<JobId>>> {
        match self {
            Self::Ids(ids) => Ok(ids.take()),
            Self::Pages(pages) => {
                let Some(jobs) = pages.next(PAGE).await? else { return Ok(None) };
                let ids = jobs.iter().map(|job| {
                    field(job, "/id")
                        .parse()
                        .map_err(|error| Failure::new(format!("the daemon's list is strange: {error}")))
                });
                ids.collect::<Result<Vec<JobId>>>().map(Some)
            }
        }
    }
}

/// How many jobs of a batch stand where.
pub async fn batch_counts(daemon: &Daemon, batch: &str) -> Result<Value, CallError> {
    daemon.get(&["v1", "ops", "batches", batch]).send().await
}

/// How many jobs of a pipeline stand where, as the daemon's list of pipelines says; null for one that it does not list.
pub async fn pipeline_counts(daemon: &Daemon, pipeline: &PipelineName) -> Result<Value, CallError> {
    let list = daemon.get(&["v1", "ops", "pipelines"]).send().await?;
    let found = items(&list, "/data").iter().find(|item| field(item, "/name") == pipeline.as_str());
    Ok(found.and_then(|item| item.get("jobs")).cloned().unwrap_or_default())
}
