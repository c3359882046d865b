//! The keys that the store holds: making, listing, revoking them.
//!
//! Invariant: what is written down is a hash; the text is given back once and forgotten. A revoked key stays listed, so
//! that its id is never another's and its jobs can be told.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    access::{Caller, Key, KeyHash, KeyLimits, MAX_KEY_NAME, Scope, Token},
    clock::Timestamp,
    money::Usd,
    names::PipelineName,
    store::{AuditEntry, DocumentChange, DocumentKind, Store, StoreError},
};

/// Most keys that a store holds: every request is compared with each.
const MOST: usize = 1_000;
/// Longest life of a key that expires.
const LONGEST: Duration = Duration::from_hours(10 * 366 * 24);

/// A key as the store has it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) hash: KeyHash,
}

/// A key to be made.
#[derive(Debug, Clone, Default)]
pub struct NewKey {
    /// For people; made up when absent.
    pub name: Option<String>,
    /// What it may be used for; at least one.
    pub scopes: BTreeSet<Scope>,
    /// The pipelines it is bound to; empty for all.
    pub pipelines: BTreeSet<PipelineName>,
    /// How long it is good; for ever when absent.
    pub expires: Option<Duration>,
    /// Requests a minute.
    pub requests_per_minute: Option<u32>,
    /// US dollars a day.
    pub usd_per_day: Option<Usd>,
    /// US dollars a month.
    pub usd_per_month: Option<Usd>,
}

/// Why a key was not made or not revoked.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// What was asked for is no key.
    #[error("{1}")]
    Invalid(&'static str, String),
    /// Somebody may not give what they do not have.
    #[error("{0}")]
    Forbidden(String),
    /// No such key.
    #[error("there is no key {0:?}; `landbridge key list` shows them")]
    Unknown(String),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes a key; its text is in the answer and nowhere else.
///
/// # Errors
/// [`KeyError`]; nothing was made then.
pub async fn create(
    store: &dyn Store,
    new: NewKey,
    by: &Caller,
    now: Timestamp,
    chance: [u8; 32],
) -> Result<(Key, Token), KeyError> {
    let token = Token::from_chance(chance);
    let id = uuid::Uuid::now_v7().simple().to_string();
    let short: String = id.chars().rev().take(8).collect();
    let name = new.name.unwrap_or_else(|| format!("key-{short}"));
    if name.trim().is_empty() || name.chars().count() > MAX_KEY_NAME || name.chars().any(char::is_control) {
        return Err(KeyError::Invalid("name", format!("a key's name has 1 to {MAX_KEY_NAME} characters on one line")));
    }
    if new.scopes.is_empty() {
        return Err(KeyError::Invalid(
            "scopes",
            "a key without scopes opens nothing; give it `submit`, say".to_owned(),
        ));
    }
    if new.expires.is_some_and(|span| span.is_zero() || span > LONGEST) {
        return Err(KeyError::Invalid("expires", "a key expires after some time, at most ten years".to_owned()));
    }
    if new.requests_per_minute == Some(0) {
        return Err(KeyError::Invalid(
            "requests_per_minute",
            "a key that may ask 0 times a minute opens nothing".to_owned(),
        ));
    }
    if new.usd_per_day.is_some_and(|budget| budget < Usd::ZERO) {
        return Err(KeyError::Invalid("usd_per_day", "a budget is 0 US dollars or more".to_owned()));
    }
    if let Some(scope) = new.scopes.iter().find(|scope| !by.may(**scope)) {
        return Err(KeyError::Forbidden(format!("key {:?} has no scope `{scope}` to give", by.name())));
    }
    let beyond = new.pipelines.iter().find(|name| !by.reaches(name));
    if by.is_bound() && (new.pipelines.is_empty() || beyond.is_some()) {
        return Err(KeyError::Forbidden(format!(
            "key {:?} is bound to its pipelines, and so are those it makes",
            by.name()
        )));
    }
    let known = entries(store).await?;
    if known.len() >= MOST {
        return Err(KeyError::Invalid("name", format!("there are {MOST} keys already, revoked ones included")));
    }
    if known.iter().any(|entry| entry.key.name == name && entry.key.revoked_at.is_none()) {
        return Err(KeyError::Invalid(
            "name",
            format!("a key called {name:?} exists; revoke it first, or choose another name"),
        ));
    }
    let key = Key {
        id: format!("key_{id}"),
        name,
        scopes: new.scopes,
        pipelines: new.pipelines,
        limits: KeyLimits {
            requests_per_minute: new.requests_per_minute,
            usd_per_day: new.usd_per_day,
            usd_per_month: new.usd_per_month,
        },
        created_at: Some(now),
        expires_at: new.expires.map(|span| now + span),
        revoked_at: None,
    };
    let entry = Entry { key: key.clone(), hash: token.hash() };
    write(store, &entry, "key.create", by, now).await?;
    Ok((key, token))
}

/// Every key that was made, oldest first.
///
/// # Errors
/// [`StoreError`] when they cannot be read.
pub async fn list(store: &dyn Store) -> Result<Vec<Key>, StoreError> {
    Ok(entries(store).await?.into_iter().map(|entry| entry.key).collect())
}

/// Revokes the key of this id or name. Revoking it again is fine.
///
/// # Errors
/// [`KeyError`].
pub async fn revoke(store: &dyn Store, which: &str, by: &Caller, now: Timestamp) -> Result<Key, KeyError> {
    let known = entries(store).await?;
    let named = |entry: &&Entry| entry.key.id == which || entry.key.name == which;
    let good = known.iter().find(|entry| named(entry) && entry.key.revoked_at.is_none());
    let Some(entry) = good.or_else(|| known.iter().find(named)) else {
        return Err(KeyError::Unknown(which.to_owned()));
    };
    if entry.key.revoked_at.is_some() {
        return Ok(entry.key.clone());
    }
    let key = Key { revoked_at: Some(now), ..entry.key.clone() };
    write(store, &Entry { key: key.clone(), hash: entry.hash }, "key.revoke", by, now).await?;
    Ok(key)
}

async fn entries(store: &dyn Store) -> Result<Vec<Entry>, StoreError> {
    let documents = store.documents(DocumentKind::Key).await?;
    Ok(documents.into_values().filter_map(|value| serde_json::from_value(value).ok()).collect())
}

async fn write(store: &dyn Store, entry: &Entry, action: &str, by: &Caller, now: Timestamp) -> Result<(), KeyError> {
    let Key { id, name, scopes, pipelines, .. } = &entry.key;
    let value = serde_json::to_value(entry).map_err(|error| KeyError::Invalid("name", error.to_string()))?;
    let change = DocumentChange { kind: DocumentKind::Key, key: id.clone(), value: Some(value) };
    let audit = AuditEntry {
        at: now,
        actor: by.name().to_owned(),
        action: action.to_owned(),
        subject: name.clone(),
        reason: None,
        detail: json!({ "id": id, "scopes": scopes, "pipelines": pipelines }),
    };
    Ok(store.apply(vec![change], Some(audit)).await?)
}
