//! A key, read from where the settings say when it is needed.
//!
//! Invariant: a key is never printed: not by `Debug`, not in an error, not in a message that a provider sends back.

use std::{
    fmt, fs,
    io::Read,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use http::HeaderValue;

use crate::settings::Secret;

/// Longest key that is read, in bytes.
const MAX_KEY: u64 = 64 * 1024;
/// A file is looked at again after this long: a new key serves soon, and a call costs no disk access.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Where a key comes from.
pub(super) struct SecretSource {
    place: Secret,
    cached: Mutex<Option<Cached>>,
}

struct Cached {
    looked: Instant,
    stamp: Stamp,
    key: Key,
}

/// What changes when a file does.
#[derive(PartialEq, Eq, Clone, Copy)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

/// A key, as the `Authorization` header carries it.
#[derive(Clone)]
pub(super) struct Key {
    bearer: HeaderValue,
}

impl Key {
    fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let mut bearer = HeaderValue::from_str(&format!("Bearer {text}")).ok().filter(|_| !text.is_empty())?;
        bearer.set_sensitive(true);
        Some(Self { bearer })
    }

    /// The header's value.
    pub(super) fn bearer(&self) -> &HeaderValue {
        &self.bearer
    }

    /// A provider's words without the key, should it quote it.
    pub(super) fn redact(&self, words: &str) -> String {
        /// Shorter keys are words of their own.
        const SHORTEST: usize = 8;
        match self.bearer.to_str().ok().and_then(|text| text.strip_prefix("Bearer ")) {
            Some(key) if key.len() >= SHORTEST => words.replace(key, "(key)"),
            _ => words.to_owned(),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(hidden)")
    }
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SecretSource").field(&self.place).finish()
    }
}

impl SecretSource {
    pub(super) fn new(place: Secret) -> Self {
        Self { place, cached: Mutex::new(None) }
    }

    /// The key as of now.
    pub(super) fn key(&self) -> Result<Key, String> {
        match &self.place {
            Secret::Env(name) => {
                let text = std::env::var(name)
                    .map_err(|_| format!("the environment variable {name} holds no key: set it, or name a file"))?;
                Key::new(&text).ok_or_else(|| format!("what the environment variable {name} holds is no key"))
            }
            Secret::File(path) => self.read_file(path),
        }
    }

    fn read_file(&self, path: &Path) -> Result<Key, String> {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cached) = &*cached
            && cached.looked.elapsed() < LOOK_AGAIN
        {
            return Ok(cached.key.clone());
        }
        let unreadable = |error: std::io::Error| format!("the key file {} cannot be read: {error}", path.display());
        let stamp = stamp(path).map_err(unreadable)?;
        let key = match cached.take() {
            Some(cached) if cached.stamp == stamp => cached.key,
            _ => {
                let mut text = String::new();
                let file = fs::File::open(path).map_err(unreadable)?;
                file.take(MAX_KEY).read_to_string(&mut text).map_err(unreadable)?;
                Key::new(&text).ok_or_else(|| format!("what the file {} holds is no key", path.display()))?
            }
        };
        *cached = Some(Cached { looked: Instant::now(), stamp, key: key.clone() });
        Ok(key)
    }
}

fn stamp(path: &Path) -> Result<Stamp, std::io::Error> {
    use std::os::unix::fs::MetadataExt;
    let facts = fs::metadata(path)?;
    Ok(Stamp { modified: facts.modified().ok(), length: facts.len(), inode: facts.ino() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_again_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "sk-first-one\n").unwrap();
        let source = SecretSource::new(Secret::File(path.clone()));
        assert_eq!(source.key().unwrap().bearer(), "Bearer sk-first-one");

        // As a secret store swaps it: a new file in the old one's place.
        fs::write(folder.path().join("new"), "sk-second").unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while source.key().unwrap().bearer() != "Bearer sk-second" {
            assert!(Instant::now() < deadline, "the new key is never seen");
            std::thread::yield_now();
        }
    }

    #[test]
    fn no_key_shows_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "sk-very-secret").unwrap();
        let source = SecretSource::new(Secret::File(path.clone()));
        let key = source.key().unwrap();
        for shown in [
            format!("{source:?}"),
            format!("{:?}", key.bearer()),
            key.redact("Incorrect API key provided: sk-very-secret."),
        ] {
            assert!(!shown.contains("sk-very-secret"), "{shown}");
        }
        for (contents, says) in [("", "is no key"), (" \n", "is no key"), ("a\u{1}b", "is no key")] {
            let path = folder.path().join("bad");
            fs::write(&path, contents).unwrap();
            let error = SecretSource::new(Secret::File(path)).key().map(|_| ()).unwrap_err();
            assert!(error.contains(says) && error.contains("bad"), "{error}");
        }
        let error = SecretSource::new(Secret::File(folder.path().join("absent"))).key().map(|_| ()).unwrap_err();
        assert!(error.contains("absent"), "{error}");
        let error = SecretSource::new(Secret::Env("LANDBRIDGE_NO_SUCH_KEY".to_owned())).key().map(|_| ()).unwrap_err();
        assert!(error.contains("LANDBRIDGE_NO_SUCH_KEY"), "{error}");
    }
}
