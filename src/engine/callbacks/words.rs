//! What receivers are told, and what callers are told of it.
//!
//! Invariant: no prompt, answer or error text leaves by this door: a receiver fetches those with a key of its own.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Engine, Notice};
use crate::{
    clock::Timestamp,
    engine::batches::BatchRecord,
    money::Usd,
    provider::messenger,
    store::{DocumentChange, JobRecord, Result},
    usage::Usage,
};

/// How a job's callback stands.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct CallbackStanding {
    /// Whom, without the query.
    pub url: String,
    /// Where it stands.
    pub state: CallbackState,
    /// How often it was tried in vain.
    pub tries: u32,
    /// Why the newest try failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When it is tried next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Timestamp>,
    /// When it was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub given_up_at: Option<Timestamp>,
}

/// Where a callback stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, strum::Display, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum CallbackState {
    /// The job has not ended.
    Waiting,
    /// The job has ended; the receiver has not taken it yet.
    Due,
    /// The receiver took it.
    Delivered,
    /// The receiver never took it.
    GivenUp,
}

impl Engine {
    /// How a job's callback stands; `None` where nobody is to be told.
    ///
    /// # Errors
    /// [`crate::store::StoreError`].
    pub async fn callback_of(&self, record: &JobRecord) -> Result<Option<CallbackStanding>> {
        let Some(url) = &record.callback else { return Ok(None) };
        let ended = record.summary.state.is_terminal();
        let notice = if ended { self.notice(&Notice::id_of_job(record.summary.id)).await? } else { None };
        let state = match &notice {
            _ if !ended => CallbackState::Waiting,
            None => CallbackState::Delivered,
            Some(notice) if notice.given_up_at.is_some() => CallbackState::GivenUp,
            Some(_) => CallbackState::Due,
        };
        let url = messenger::shown(url);
        Ok(Some(match notice {
            None => CallbackStanding { url, state, tries: 0, last_error: None, next_at: None, given_up_at: None },
            Some(Notice { tries, last_error, next_at, given_up_at, .. }) => {
                CallbackStanding { url, state, tries, last_error, next_at, given_up_at }
            }
        }))
    }

    /// A notice, word for word.
    pub(super) async fn words_of(&self, id: &str, notice: &Notice) -> Result<String> {
        let mut data = notice.data.clone();
        if let Some(job) = notice.job
            && let Some(record) = self.store.job(job).await?
            && let Value::Object(data) = &mut data
        {
            complete(data, &record);
        }
        Ok(json!({
            "id": id,
            "object": "event",
            "type": notice.kind,
            "created_at": notice.at.as_micros().div_euclid(1_000_000),
            "timestamp": notice.at,
            "data": data,
        })
        .to_string())
    }
}

/// What the job's row, its attempts and its error add.
fn complete(data: &mut Map<String, Value>, record: &JobRecord) {
    let summary = &record.summary;
    let costs: Vec<Usd> = record.attempts.iter().filter_map(|attempt| attempt.cost_usd).collect();
    let usages: Vec<Usage> = record.attempts.iter().filter_map(|attempt| attempt.usage).collect();
    let usage = usages.into_iter().reduce(|mut sum, usage| {
        sum += usage;
        sum
    });
    let cost: Option<Usd> = (!costs.is_empty()).then(|| costs.into_iter().sum());
    let texts = [
        ("batch", summary.batch.clone()),
        ("idempotency_key", summary.idempotency_key.clone()),
        ("retry_of", summary.retry_of.map(|job| job.to_string())),
        ("target", summary.target.as_ref().map(ToString::to_string)),
        ("reason_code", record.error.as_ref().map(|error| error.reason_code.clone())),
        ("cost_usd", cost.map(|cost| cost.to_string())),
    ];
    data.insert("created_at".to_owned(), json!(summary.created_at));
    data.insert("finished_at".to_owned(), json!(summary.finished_at));
    data.insert("attempts".to_owned(), json!(summary.attempts));
    data.extend(texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), Value::String(text?)))));
    if let Some(usage) = usage {
        data.insert("usage".to_owned(), json!(usage));
    }
}

/// The notice of a batch's end, if somebody is to be told: in the words of the original's own events.
pub(in crate::engine) fn of_batch(batch: &BatchRecord, now: Timestamp) -> Vec<DocumentChange> {
    let Some(url) = &batch.callback else { return Vec::new() };
    let seconds = |at: Timestamp| at.as_micros().div_euclid(1_000_000);
    let data = json!({
        "id": batch.id,
        "status": batch.status,
        "created_at": seconds(batch.created_at),
        "finished_at": seconds(now),
        "request_counts": { "total": batch.total, "completed": batch.completed, "failed": batch.failed },
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "usage": batch.usage,
    });
    let notice = Notice::new(url.clone(), format!("batch.{}", batch.status), now, data);
    notice.posting(&format!("msg_{}", batch.id)).into()
}
