//! Every set of files that was in force, for as long as it is kept: to be listed, compared, and gone back to.
//!
//! Invariant: a generation names its files by the hashes of their texts, and a text is kept once and for as long as a kept
//! generation names it. How many are kept is bounded in number and by the retention of the audit.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    snapshot::{
        Snapshot,
        pin::{Texts, hash_of},
    },
    store::{DocumentChange, DocumentKind, DocumentPage, Store, StoreError},
};

/// Generations kept at most.
const MOST: u64 = 200;
/// So many come between two looks for old ones.
pub(super) const SLACK: u64 = 20;
/// Generations read at once.
const PAGE: u32 = 50;

/// A generation that was in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    /// Its number.
    pub generation: u64,
    /// When it came into force.
    pub at: Timestamp,
    /// The snapshot's hash.
    pub hash: String,
    /// Who put it in force; `landbridge` when a file was saved.
    pub actor: String,
    /// Why, where somebody said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What differed from the one before, in words.
    pub changes: Vec<String>,
    /// The hash of each file's text.
    pub files: BTreeMap<String, String>,
}

fn key_of(generation: u64) -> String {
    format!("{generation:020}")
}

/// A generation that comes into force, and the texts of it that `before` did not have, as documents.
pub fn to_write(
    snapshot: &Snapshot,
    before: Option<&Snapshot>,
    (at, actor, reason): (Timestamp, &str, Option<&str>),
    changes: Vec<String>,
) -> Vec<DocumentChange> {
    let texts = snapshot.texts();
    let known: Texts = before.map(Snapshot::texts).unwrap_or_default();
    let mut documents = Vec::new();
    let mut files = BTreeMap::new();
    for (name, text) in texts {
        let hash = hash_of(text.as_bytes());
        if known.get(&name) != Some(&text) {
            documents.push(DocumentChange {
                kind: DocumentKind::ConfigText,
                key: hash.clone(),
                value: Some(text.into()),
            });
        }
        files.insert(name, hash);
    }
    let generation = Generation {
        generation: snapshot.generation,
        at,
        hash: snapshot.hash.clone(),
        actor: actor.to_owned(),
        reason: reason.map(str::to_owned),
        changes,
        files,
    };
    documents.push(DocumentChange {
        kind: DocumentKind::Generation,
        key: key_of(snapshot.generation),
        value: serde_json::to_value(generation).ok(),
    });
    documents
}

/// One generation.
///
/// # Errors
/// [`StoreError`].
pub async fn one(store: &Arc<dyn Store>, generation: u64) -> Result<Option<Generation>, StoreError> {
    let found = store.document(DocumentKind::Generation, &key_of(generation)).await?;
    Ok(found.and_then(|value| serde_json::from_value(value).ok()))
}

/// The newest generations, newest first, below `before`.
///
/// # Errors
/// [`StoreError`].
pub async fn newest(store: &Arc<dyn Store>, before: Option<u64>, limit: u32) -> Result<Vec<Generation>, StoreError> {
    let page = DocumentPage {
        kind: DocumentKind::Generation,
        after: before.map(key_of),
        descending: true,
        limit: limit.clamp(1, PAGE),
    };
    let found = store.documents_page(page).await?;
    Ok(found.into_iter().filter_map(|(_, value)| serde_json::from_value(value).ok()).collect())
}

/// The texts of a generation; `None` when one of them is no longer kept.
///
/// # Errors
/// [`StoreError`].
pub async fn texts(store: &Arc<dyn Store>, generation: &Generation) -> Result<Option<Texts>, StoreError> {
    let mut texts = Texts::new();
    for (name, hash) in &generation.files {
        match store.document(DocumentKind::ConfigText, hash).await? {
            Some(serde_json::Value::String(text)) => texts.insert(name.clone(), text),
            _ => return Ok(None),
        };
    }
    Ok(Some(texts))
}

/// Forgets generations that are too many, or older than `oldest`, and the texts that only they named. `newest` stays.
///
/// # Errors
/// [`StoreError`].
pub async fn prune(store: &Arc<dyn Store>, newest_kept: u64, oldest: Timestamp) -> Result<(), StoreError> {
    let mut page = DocumentPage { kind: DocumentKind::Generation, after: None, descending: true, limit: PAGE };
    let (mut kept, mut named): (u64, BTreeSet<String>) = (0, BTreeSet::new());
    let mut gone: Vec<Generation> = Vec::new();
    loop {
        let found = store.documents_page(page.clone()).await?;
        let Some((last, _)) = found.last() else { break };
        page.after = Some(last.clone());
        for (_, value) in found {
            let Ok(generation) = serde_json::from_value::<Generation>(value) else { continue };
            let stays = generation.generation == newest_kept || (kept < MOST && generation.at >= oldest);
            if stays {
                kept += 1;
                named.extend(generation.files.into_values());
            } else {
                gone.push(generation);
            }
        }
    }
    if gone.is_empty() {
        return Ok(());
    }
    let mut changes: Vec<DocumentChange> = gone
        .iter()
        .map(|it| DocumentChange { kind: DocumentKind::Generation, key: key_of(it.generation), value: None })
        .collect();
    let texts: BTreeSet<&String> =
        gone.iter().flat_map(|it| it.files.values()).filter(|hash| !named.contains(*hash)).collect();
    changes.extend(texts.into_iter().map(|hash| DocumentChange {
        kind: DocumentKind::ConfigText,
        key: hash.clone(),
        value: None,
    }));
    for some in changes.chunks(500) {
        store.apply(some.to_vec(), None).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{clock::SystemClock, engine::reload::tests_only::load_text, store::MemoryStore};

    const SPEC: &str = "version: 1\nname: triage\ntargets: { openai: { provider: openai, model: gpt-5.4-mini } }\n";

    #[tokio::test]
    async fn generations_are_kept_with_their_texts_and_go_with_time() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
        let start: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        let mut before: Option<Arc<Snapshot>> = None;
        for n in 1..=260_u64 {
            let at = start + Duration::from_secs(n);
            let snapshot = load_text(&format!("{SPEC}description: version {n}\n"), before.clone(), at);
            assert_eq!(snapshot.generation, n);
            let changes = to_write(&snapshot, before.as_deref(), (at, "x", None), vec![format!("change {n}")]);
            store.apply(changes, None).await.unwrap();
            before = Some(snapshot);
        }
        prune(&store, 260, start).await.unwrap();
        assert_eq!(store.documents(DocumentKind::Generation).await.unwrap().len(), 200);
        assert_eq!(store.documents(DocumentKind::ConfigText).await.unwrap().len(), 200, "a text each");
        assert!(one(&store, 60).await.unwrap().is_none());
        let earlier = one(&store, 61).await.unwrap().unwrap();
        let found = texts(&store, &earlier).await.unwrap().unwrap();
        assert!(found["specs/triage.yaml"].ends_with("version 61\n"));
        let list = newest(&store, Some(260), 2).await.unwrap();
        assert_eq!(list.iter().map(|it| it.generation).collect::<Vec<_>>(), [259, 258]);
        prune(&store, 260, start + Duration::from_secs(1_000)).await.unwrap();
        assert_eq!(store.documents(DocumentKind::Generation).await.unwrap().len(), 1, "what is in force stays");
    }
}
