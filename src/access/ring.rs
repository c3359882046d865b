//! All keys of a daemon, and finding the one that was shown.
//!
//! Invariant: every key is compared, whichever matches. A ring that ever had a key, good or not, asks for one.

use std::sync::Arc;

use super::{Key, KeyHash};
use crate::clock::Timestamp;

/// Every key that is known.
#[derive(Debug, Clone, Default)]
pub struct Ring {
    keys: Vec<(KeyHash, Arc<Key>)>,
    /// Keys that are declared but whose hash cannot be read: none opens anything, but they are keys.
    unreadable: usize,
}

/// Why a key opens nothing. None says more than the holder may know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody's.
    #[error("this key is not known here")]
    Unknown,
    /// Its time is over.
    #[error("this key expired at {0}; ask for a new one")]
    Expired(Timestamp),
    /// It was withdrawn.
    #[error("this key was revoked; ask for a new one")]
    Revoked,
}

impl Ring {
    /// A ring of these keys, and so many that could not be read.
    pub fn new(keys: Vec<(KeyHash, Arc<Key>)>, unreadable: usize) -> Self {
        Self { keys, unreadable }
    }

    /// Whether no key exists at all.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.unreadable == 0
    }

    /// Every key.
    pub fn keys(&self) -> impl Iterator<Item = &Arc<Key>> {
        self.keys.iter().map(|(_, key)| key)
    }

    /// The key with this text.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn find(&self, token: &str, now: Timestamp) -> Result<&Arc<Key>, Refusal> {
        let shown = KeyHash::of(token);
        let mut found = None;
        for (hash, key) in &self.keys {
            if hash.matches(&shown) {
                found = Some(key);
            }
        }
        let key = found.ok_or(Refusal::Unknown)?;
        match (key.revoked_at, key.expires_at) {
            (Some(_), _) => Err(Refusal::Revoked),
            (None, Some(end)) if end <= now => Err(Refusal::Expired(end)),
            _ => Ok(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Caller, KeyLimits, Scope, Token};

    fn key(n: u8, scopes: &[Scope], pipelines: &[&str]) -> (KeyHash, Arc<Key>) {
        let key = Key {
            id: format!("key_{n}"),
            name: format!("k{n}"),
            scopes: scopes.iter().copied().collect(),
            pipelines: pipelines.iter().map(|name| name.parse().unwrap()).collect(),
            limits: KeyLimits::default(),
            created_at: None,
            expires_at: (n == 2).then(|| Timestamp::from_micros(100)),
            revoked_at: (n == 3).then(|| Timestamp::from_micros(1)),
        };
        (Token::from_chance([n; 32]).hash(), Arc::new(key))
    }

    #[test]
    fn a_key_is_good_until_it_expires_or_is_revoked() {
        let ring = Ring::new((1..=3).map(|n| key(n, &[Scope::Submit], &[])).collect(), 0);
        let find = |n: u8, at| {
            let token = Token::from_chance([n; 32]);
            ring.find(token.expose(), Timestamp::from_micros(at)).map(|key| key.id.clone())
        };
        assert_eq!(find(1, 500), Ok("key_1".to_owned()));
        assert_eq!(find(2, 99), Ok("key_2".to_owned()));
        assert_eq!(find(2, 100), Err(Refusal::Expired(Timestamp::from_micros(100))));
        assert_eq!(find(3, 0), Err(Refusal::Revoked));
        assert_eq!(find(4, 0), Err(Refusal::Unknown));
        assert!(Ring::default().is_empty() && !ring.is_empty() && !Ring::new(Vec::new(), 1).is_empty());
    }

    #[test]
    fn a_caller_sees_its_own_and_what_its_scopes_and_binding_allow() {
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        let caller = |scopes: &[Scope], pipelines: &[&str]| Caller::holding(key(1, scopes, pipelines).1);
        let anybody = Caller::anybody();
        assert!(anybody.sees(&a, "x") && anybody.sees_content("x") && anybody.may(Scope::Operate));
        let submitter = caller(&[Scope::Submit], &["a"]);
        assert!(submitter.sees(&a, "key_1") && submitter.sees_content("key_1"));
        assert!(!submitter.sees(&a, "key_9") && !submitter.sees(&b, "key_1") && !submitter.sees_content("key_9"));
        let reader = caller(&[Scope::Read], &[]);
        assert!(reader.sees(&b, "key_9") && !reader.sees_content("key_9") && !reader.may(Scope::Submit));
    }
}
