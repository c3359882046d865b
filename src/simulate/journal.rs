//! What has been called: a bounded journal of calls, and counts that tell whether anything was asked twice.
//!
//! Invariant: bounded. The journal forgets its oldest calls, counts stop taking new names; both say how much is missing.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

use serde::Serialize;

use super::prompt::PromptHash;
use crate::{clock::Timestamp, spec::Api};

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// With an answer, which is billed.
    Answered,
    /// With 429.
    Throttled,
    /// With another 4xx.
    Refused,
    /// With 5xx, a broken body or a cut connection.
    Failed,
    /// The caller hung up first.
    Cancelled,
}

/// One call.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// Its place in the journal, from 1: calls are written down as they end.
    pub n: u64,
    /// When it came.
    pub at: Timestamp,
    /// How long it was here.
    pub took_ms: u64,
    /// By which protocol.
    pub api: Api,
    /// The model as the caller named it.
    pub model: String,
    /// The region that the call was signed for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Whom the caller says it is for: from `idempotency-key`, `x-client-request-id`, or metadata that speaks of a job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// The hash of the prompt, system texts aside; absent when the request could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// The HTTP status; absent when none was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How it ended.
    pub outcome: Outcome,
    /// The fault that struck it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<&'static str>,
    /// The prompt's tokens.
    pub input_tokens: u64,
    /// The answer's tokens; 0 when none was made.
    pub output_tokens: u64,
    /// The id that the reply carried.
    pub request_id: String,
}

/// A stretch of the journal.
#[derive(Debug, Clone, Serialize)]
pub struct JournalPage {
    /// Calls in the order in which they ended.
    pub data: Vec<Entry>,
    /// To be given as `after` to go on.
    pub next: u64,
    /// Calls after the one asked for that are already forgotten.
    pub forgotten: u64,
}

/// How often a model was called, with one outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelCount {
    /// By which protocol.
    pub api: Api,
    /// The model.
    pub model: String,
    /// How the calls ended.
    pub outcome: Outcome,
    /// How many.
    pub calls: u64,
}

/// How often things of one kind were called.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tallies {
    /// Different ones.
    pub distinct: u64,
    /// Of these, called more than once.
    pub called_again: u64,
    /// Of these, answered more than once: paid twice.
    pub answered_again: u64,
    /// Calls beyond what can be told apart.
    pub not_counted: u64,
}

/// Something that was called more than once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Repeated {
    /// The prompt's hash or the job.
    pub key: String,
    /// Calls.
    pub calls: u64,
    /// Answered calls.
    pub answered: u64,
}

/// What has been called, in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Calls that have ended.
    pub calls: u64,
    /// Calls that ended with an answer.
    pub answered: u64,
    /// Calls that are here now.
    pub in_flight: u64,
    /// Most calls that were here at once.
    pub peak_in_flight: u64,
    /// By model and outcome.
    pub by_model: Vec<ModelCount>,
    /// By prompt.
    pub prompts: Tallies,
    /// By job, where callers name one.
    pub jobs: Tallies,
}

/// Prompts, and jobs, that are told apart.
const MOST_KEYS: usize = 2_000_000;

/// Models that are told apart.
const MOST_MODELS: usize = 1_000;

/// The name under which further models are counted.
const OTHER_MODELS: &str = "(others)";

#[derive(Debug, Clone, Copy, Default)]
struct Times {
    calls: u32,
    answered: u32,
}

#[derive(Debug)]
struct Tally<K> {
    times: HashMap<K, Times>,
    not_counted: u64,
}

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self { times: HashMap::new(), not_counted: 0 }
    }
}

impl<K: Eq + Hash + ToString> Tally<K> {
    fn count(&mut self, key: K, answered: bool) {
        if self.times.len() >= MOST_KEYS && !self.times.contains_key(&key) {
            self.not_counted += 1;
            return;
        }
        let times = self.times.entry(key).or_default();
        times.calls = times.calls.saturating_add(1);
        times.answered = times.answered.saturating_add(u32::from(answered));
    }

    fn summary(&self) -> Tallies {
        let mut tallies =
            Tallies { distinct: self.times.len() as u64, not_counted: self.not_counted, ..Tallies::default() };
        for times in self.times.values() {
            tallies.called_again += u64::from(times.calls > 1);
            tallies.answered_again += u64::from(times.answered > 1);
        }
        tallies
    }

    fn called_at_least(&self, calls: u64, limit: usize) -> Vec<Repeated> {
        let mut found: Vec<Repeated> = self
            .times
            .iter()
            .filter(|(_, times)| u64::from(times.calls) >= calls)
            .map(|(key, times)| Repeated {
                key: key.to_string(),
                calls: times.calls.into(),
                answered: times.answered.into(),
            })
            .collect();
        found.sort_by(|a, b| b.calls.cmp(&a.calls).then_with(|| a.key.cmp(&b.key)));
        found.truncate(limit);
        found
    }
}

/// Everything that is written down.
#[derive(Debug)]
pub(super) struct Journal {
    capacity: usize,
    ring: VecDeque<Entry>,
    calls: u64,
    answered: u64,
    in_flight: u64,
    peak_in_flight: u64,
    models: HashMap<(Api, Outcome), HashMap<String, u64>>,
    known_models: usize,
    prompts: Tally<PromptHash>,
    jobs: Tally<String>,
}

impl Journal {
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            ring: VecDeque::new(),
            calls: 0,
            answered: 0,
            in_flight: 0,
            peak_in_flight: 0,
            models: HashMap::new(),
            known_models: 0,
            prompts: Tally::default(),
            jobs: Tally::default(),
        }
    }

    /// Forgets all but the calls that are here now.
    pub fn reset(&mut self) {
        *self = Self { in_flight: self.in_flight, peak_in_flight: self.in_flight, ..Self::new(self.capacity) };
    }

    pub fn resize(&mut self, capacity: usize) {
        self.capacity = capacity;
        while self.ring.len() > capacity {
            self.ring.pop_front();
        }
    }

    /// A call came.
    pub fn begin(&mut self) {
        self.in_flight += 1;
        self.peak_in_flight = self.peak_in_flight.max(self.in_flight);
    }

    /// A call ended.
    pub fn end(&mut self, mut entry: Entry, prompt: Option<PromptHash>) {
        let answered = entry.outcome == Outcome::Answered;
        self.in_flight = self.in_flight.saturating_sub(1);
        self.calls += 1;
        self.answered += u64::from(answered);
        self.count_model(entry.api, entry.outcome, &entry.model);
        if let Some(prompt) = prompt {
            self.prompts.count(prompt, answered);
        }
        if let Some(job) = &entry.job {
            self.jobs.count(job.clone(), answered);
        }
        if self.capacity > 0 {
            if self.ring.len() >= self.capacity {
                self.ring.pop_front();
            }
            entry.n = self.calls;
            self.ring.push_back(entry);
        }
    }

    fn count_model(&mut self, api: Api, outcome: Outcome, model: &str) {
        let models = self.models.entry((api, outcome)).or_default();
        if let Some(calls) = models.get_mut(model) {
            *calls += 1;
            return;
        }
        let name = if self.known_models < MOST_MODELS { model } else { OTHER_MODELS };
        self.known_models += 1;
        *models.entry(name.to_owned()).or_default() += 1;
    }

    pub fn counts(&self) -> Counts {
        let mut by_model: Vec<ModelCount> = self
            .models
            .iter()
            .flat_map(|((api, outcome), models)| {
                models.iter().map(|(model, calls)| ModelCount {
                    api: *api,
                    model: model.clone(),
                    outcome: *outcome,
                    calls: *calls,
                })
            })
            .collect();
        by_model.sort_by(|a, b| {
            (a.api.to_string(), &a.model, a.outcome as u8).cmp(&(b.api.to_string(), &b.model, b.outcome as u8))
        });
        Counts {
            calls: self.calls,
            answered: self.answered,
            in_flight: self.in_flight,
            peak_in_flight: self.peak_in_flight,
            by_model,
            prompts: self.prompts.summary(),
            jobs: self.jobs.summary(),
        }
    }

    /// Prompts that were called at least so often, most often first.
    pub fn prompts(&self, calls: u64, limit: usize) -> Vec<Repeated> {
        self.prompts.called_at_least(calls, limit)
    }

    /// Jobs that were called at least so often, most often first.
    pub fn jobs(&self, calls: u64, limit: usize) -> Vec<Repeated> {
        self.jobs.called_at_least(calls, limit)
    }

    /// Calls that ended after the `after`-th.
    pub fn page(&self, after: u64, limit: usize) -> JournalPage {
        let oldest = self.calls.saturating_sub(self.ring.len() as u64);
        let skip = usize::try_from(after.saturating_sub(oldest)).unwrap_or(usize::MAX);
        let data: Vec<Entry> = self.ring.iter().skip(skip).take(limit).cloned().collect();
        let next = data.last().map_or(after.min(self.calls), |entry| entry.n);
        JournalPage { data, next, forgotten: oldest.saturating_sub(after) }
    }
}
