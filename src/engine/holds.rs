//! Why whole pipelines are held, and for how long they have been: nothing of it is written to job rows.
//!
//! Invariant: time spent held never counts against a deadline. A pipeline's clock is the sum of its holds; a job
//! remembers the clock at its submit, in its `expiry_key`, and expires by the difference.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    job::HoldReason,
    names::PipelineName,
    store::{DocumentChange, DocumentKind},
};

/// How long one pipeline has been held in all its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HoldClock {
    /// Microseconds of finished holds.
    total_micros: u64,
    /// The hold that goes on, and why.
    since: Option<Timestamp>,
    reason: Option<HoldReason>,
}

impl HoldClock {
    /// All time held until `now`.
    pub fn total(&self, now: Timestamp) -> Duration {
        Duration::from_micros(self.total_micros) + self.since.map_or(Duration::ZERO, |since| now.since(since))
    }

    /// Notes that the pipeline is held for `reason`, or is not; whether that is news.
    fn note(&mut self, reason: Option<HoldReason>, now: Timestamp) -> bool {
        if self.reason == reason {
            return false;
        }
        match (self.reason, reason) {
            (None, Some(_)) => self.since = Some(now),
            (Some(_), None) => {
                let total = self.total(now);
                self.total_micros = u64::try_from(total.as_micros()).unwrap_or(u64::MAX);
                self.since = None;
            }
            _ => {}
        }
        self.reason = reason;
        true
    }
}

/// The clocks of all pipelines that have ever been held.
#[derive(Debug, Default)]
pub struct HoldClocks(Mutex<BTreeMap<PipelineName, HoldClock>>);

impl HoldClocks {
    /// The clocks that an earlier life left in the store.
    pub fn restore(documents: BTreeMap<String, serde_json::Value>) -> Self {
        let clocks = documents
            .into_iter()
            .filter_map(|(key, value)| Some((PipelineName::new(&key).ok()?, serde_json::from_value(value).ok()?)))
            .collect();
        Self(Mutex::new(clocks))
    }

    /// All time a pipeline has been held.
    pub fn total(&self, pipeline: &PipelineName, now: Timestamp) -> Duration {
        self.lock().get(pipeline).map_or(Duration::ZERO, |clock| clock.total(now))
    }

    /// Notes why each pipeline is held now; what must be written down.
    pub fn note(
        &self,
        holds: impl IntoIterator<Item = (PipelineName, Option<HoldReason>)>,
        now: Timestamp,
    ) -> Vec<DocumentChange> {
        let mut clocks = self.lock();
        let mut changes = Vec::new();
        for (pipeline, reason) in holds {
            if reason.is_none() && !clocks.contains_key(&pipeline) {
                continue;
            }
            let clock = clocks.entry(pipeline.clone()).or_default();
            if clock.note(reason, now) {
                changes.push(DocumentChange {
                    kind: DocumentKind::HoldClock,
                    key: pipeline.to_string(),
                    value: serde_json::to_value(*clock).ok(),
                });
            }
        }
        changes
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<PipelineName, HoldClock>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn held_time_adds_up_over_holds_and_restarts() {
        let pipeline = PipelineName::new("p").unwrap();
        let clocks = HoldClocks::default();
        assert!(clocks.note([(pipeline.clone(), None)], at(0)).is_empty());
        assert_eq!(clocks.note([(pipeline.clone(), Some(HoldReason::Paused))], at(10)).len(), 1);
        assert!(clocks.note([(pipeline.clone(), Some(HoldReason::Paused))], at(15)).is_empty());
        assert_eq!(clocks.total(&pipeline, at(20)), Duration::from_secs(10));
        let written = clocks.note([(pipeline.clone(), Some(HoldReason::Budget))], at(20));
        let restored =
            HoldClocks::restore(written.into_iter().map(|change| (change.key, change.value.unwrap())).collect());
        assert_eq!(restored.note([(pipeline.clone(), None)], at(40)).len(), 1);
        assert_eq!(restored.total(&pipeline, at(100)), Duration::from_secs(30));
    }
}
