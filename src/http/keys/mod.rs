//! Keys at the door: the ring in force, who is let in, and how much each may ask for.
//!
//! Invariant: a key that was revoked through this daemon opens nothing from the next request on. Where anybody on the
//! network can knock, an empty ring lets nobody in.

mod book;
mod gate;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

pub use self::book::{KeyError, NewKey, create, list, revoke};
pub(super) use self::gate::{authorise, scopes_for};
use crate::{
    access::{Caller, Key, KeyHash, Refusal, Ring},
    clock::Timestamp,
    settings::DeclaredKey,
    store::{DocumentKind, Store, StoreError},
};

/// Hashes in files and keys made elsewhere are looked for this often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// What declared keys' ids begin with.
const DECLARED: &str = "declared:";
const MINUTE: Duration = Duration::from_mins(1);

/// The keys in force.
pub struct Keyring {
    store: Arc<dyn Store>,
    ring: ArcSwap<Ring>,
    /// Whether anybody may come while no key exists.
    open: bool,
    /// By key: until when its allowance is spoken for.
    pace: Mutex<HashMap<String, Timestamp>>,
}

/// Why a request is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// A key is needed, and none was shown.
    NoKey,
    /// No key exists, and anybody could be asking.
    NoKeyExists,
    /// The key opens nothing.
    Bad(Refusal),
    /// The key has asked as often as it may; again after this.
    TooOften { limit: u32, wait: Duration },
}

impl Keyring {
    /// Reads all keys. `open` says whether anybody may come while none exists.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    pub async fn load(store: Arc<dyn Store>, declared: &[DeclaredKey], open: bool) -> Result<Self, StoreError> {
        let ring = ArcSwap::from_pointee(read(store.as_ref(), declared, true).await?);
        Ok(Self { store, ring, open, pace: Mutex::default() })
    }

    /// Whether no key exists, good or not.
    pub fn is_empty(&self) -> bool {
        self.ring.load().is_empty()
    }

    /// The keys in force.
    pub fn ring(&self) -> Arc<Ring> {
        self.ring.load_full()
    }

    /// Every key, revoked ones included.
    pub fn all(&self) -> Vec<Key> {
        self.ring.load().keys().map(|key| Key::clone(key)).collect()
    }

    /// Reads all keys again.
    ///
    /// # Errors
    /// [`StoreError`]; the keys stay as they were.
    pub async fn refresh(&self, declared: &[DeclaredKey]) -> Result<(), StoreError> {
        self.ring.store(Arc::new(read(self.store.as_ref(), declared, false).await?));
        Ok(())
    }

    /// Follows hashes in files and keys made by others, until `stop`; `tell` hears of every look.
    pub async fn follow(&self, declared: impl Fn() -> Vec<DeclaredKey>, tell: impl Fn(&Ring), stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
            if let Err(error) = self.refresh(&declared()).await {
                tracing::warn!(%error, "the keys are as of the last look");
            }
            tell(&self.ring.load());
        }
    }

    /// Who shows this key, if they may come in now.
    pub(super) fn admit(&self, token: Option<&str>, now: Timestamp) -> Result<Caller, Denied> {
        let ring = self.ring.load();
        if ring.is_empty() {
            return if self.open { Ok(Caller::anybody()) } else { Err(Denied::NoKeyExists) };
        }
        let key = ring.find(token.ok_or(Denied::NoKey)?, now).map_err(Denied::Bad)?;
        self.keep_pace(key, now)?;
        Ok(Caller::holding(key.clone()))
    }

    /// Lets a key ask as often as it may a minute, in any rhythm within the minute.
    fn keep_pace(&self, key: &Key, now: Timestamp) -> Result<(), Denied> {
        let Some(limit) = key.limits.requests_per_minute else { return Ok(()) };
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let step = MINUTE / limit.max(1);
        let spoken_for = pace.get(&key.id).copied().unwrap_or(now).max(now) + step;
        let ahead = now.until(spoken_for);
        if ahead > MINUTE {
            return Err(Denied::TooOften { limit, wait: ahead.saturating_sub(MINUTE) });
        }
        pace.insert(key.id.clone(), spoken_for);
        Ok(())
    }
}

async fn read(store: &dyn Store, declared: &[DeclaredKey], first: bool) -> Result<Ring, StoreError> {
    let mut keys = Vec::new();
    let mut unreadable = 0;
    for (id, value) in store.documents(DocumentKind::Key).await? {
        match serde_json::from_value::<book::Entry>(value) {
            Ok(entry) => keys.push((entry.hash, Arc::new(entry.key))),
            Err(error) => {
                unreadable += 1;
                if first {
                    tracing::error!(key = id, %error, "this key cannot be read and opens nothing");
                }
            }
        }
    }
    for one in declared {
        let hash = one.hash.read().map_err(|error| error.to_string());
        match hash.and_then(|text| text.expose().parse::<KeyHash>().map_err(|error| error.to_string())) {
            Ok(hash) => keys.push((hash, Arc::new(declared_key(one)))),
            Err(error) => {
                unreadable += 1;
                if first {
                    tracing::error!(
                        key = one.name,
                        error,
                        "the hash of this declared key cannot be read; it opens nothing"
                    );
                }
            }
        }
    }
    Ok(Ring::new(keys, unreadable))
}

fn declared_key(declared: &DeclaredKey) -> Key {
    Key {
        id: format!("{DECLARED}{}", declared.name),
        name: declared.name.clone(),
        scopes: declared.scopes.clone(),
        pipelines: declared.pipelines.clone(),
        limits: declared.limits,
        created_at: None,
        expires_at: None,
        revoked_at: None,
    }
}
