//! What was learned of quotas, kept across restarts.
//!
//! Invariant: a document that cannot be read is as good as none; nothing learned is ever needed.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Engine;
use crate::{
    quota::Learned,
    store::{DocumentChange, DocumentKind, StoreError},
};

/// What keys of learned quotas begin with.
const LEARNED: &str = "learned ";

impl Engine {
    /// Takes up what an earlier life learned.
    pub(super) fn remember_quotas(&self, documents: BTreeMap<String, Value>) {
        let learned = documents.into_iter().filter_map(|(key, value)| {
            let name = key.strip_prefix(LEARNED)?.to_owned();
            serde_json::from_value::<Learned>(value).ok().map(|learned| (name, learned))
        });
        self.health.remember(learned.collect());
    }

    /// Writes down what was learned since the last time.
    pub(super) async fn write_down_quotas(&self) -> Result<(), StoreError> {
        let news = self.health.news(self.clock.now());
        if news.is_empty() {
            return Ok(());
        }
        let changes = news
            .into_iter()
            .map(|(name, learned)| DocumentChange {
                kind: DocumentKind::Quota,
                key: format!("{LEARNED}{name}"),
                value: serde_json::to_value(learned).ok(),
            })
            .collect();
        self.store.apply(changes, None).await
    }
}
