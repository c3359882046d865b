//! Files held at an earlier version, until they are saved again.
//!
//! Invariant: a pin is about single files. Each holds for as long as the disk holds what it held when the pin was made; a
//! file that is saved afterwards is followed again, and the others stay pinned. Flags and the policy are never pinned: a
//! kill switch in a file works whatever is pinned.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Snapshot, SourceFile, Sources};
use crate::clock::Timestamp;

/// An earlier generation in force, as far as it differs from the disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pin {
    /// The generation that was gone back to.
    pub generation: u64,
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub actor: String,
    /// Why.
    pub reason: Option<String>,
    /// By name, see [`Texts`].
    pub files: BTreeMap<String, Pinned>,
}

/// A pinned file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinned {
    /// SHA-256 of what stands on disk; `None` when nothing does.
    pub disk: Option<String>,
    /// What serves instead; `None` when nothing does.
    pub text: Option<String>,
}

/// The texts that a snapshot serves by: `specs/FILE`, `models/STEM.json`, `catalog.yaml`, `flags.yaml`, `policy.yaml`.
pub type Texts = BTreeMap<String, String>;

const SPECS: &str = "specs/";
const MODELS: &str = "models/";
const CATALOG: &str = "catalog.yaml";
const FLAGS: &str = "flags.yaml";
const POLICY: &str = "policy.yaml";

/// SHA-256 of a text, as hexadecimal digits.
pub fn hash_of(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        use std::fmt::Write as _;
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Snapshot {
    /// The texts that serve.
    pub fn texts(&self) -> Texts {
        self.sources().texts()
    }
}

impl Sources {
    /// The files by the names that history gives them.
    pub fn texts(&self) -> Texts {
        let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        let mut texts: Texts = self.specs.iter().map(|(name, bytes)| (format!("{SPECS}{name}"), text(bytes))).collect();
        texts.extend(self.models.iter().map(|(stem, bytes)| (format!("{MODELS}{stem}.json"), text(bytes))));
        for (name, bytes) in [(CATALOG, &self.catalog), (FLAGS, &self.flags), (POLICY, &self.policy)] {
            texts.extend(bytes.as_ref().map(|bytes| (name.to_owned(), text(bytes))));
        }
        texts
    }

    /// The files that such texts stand for.
    pub fn of_texts(texts: Texts) -> Self {
        let mut sources = Self::default();
        for (name, text) in texts {
            sources.put(&name, Some(text));
        }
        sources
    }

    fn put(&mut self, name: &str, text: Option<String>) {
        let bytes = text.map(String::into_bytes);
        if let Some(file) = name.strip_prefix(SPECS) {
            self.unreadable.remove(&SourceFile::Spec(file.to_owned()));
            match bytes {
                Some(bytes) => self.specs.insert(file.to_owned(), bytes),
                None => self.specs.remove(file),
            };
        } else if let Some(stem) = name.strip_prefix(MODELS).and_then(|name| name.strip_suffix(".json")) {
            self.unreadable.remove(&SourceFile::Model(stem.to_owned()));
            match bytes {
                Some(bytes) => self.models.insert(stem.to_owned(), bytes),
                None => self.models.remove(stem),
            };
        } else if name == CATALOG {
            self.unreadable.remove(&SourceFile::Catalog);
            self.catalog = bytes;
        } else if name == FLAGS {
            self.flags = bytes;
        } else if name == POLICY {
            self.policy = bytes;
        }
    }
}

impl Pin {
    /// What must be pinned so that these texts serve over what stands on disk.
    pub fn files(serve: &Texts, disk: &Texts) -> BTreeMap<String, Pinned> {
        let names: BTreeSet<&String> = serve.keys().chain(disk.keys()).collect();
        names
            .into_iter()
            .filter(|name| *name != FLAGS && *name != POLICY && serve.get(*name) != disk.get(*name))
            .map(|name| {
                let disk = disk.get(name).map(|text| hash_of(text.as_bytes()));
                (name.clone(), Pinned { disk, text: serve.get(name).cloned() })
            })
            .collect()
    }

    /// Lays the pinned files over what was found on disk. Files that were saved since are let go; their names come back.
    pub fn lay_over(&mut self, sources: &mut Sources) -> Vec<String> {
        let disk = sources.texts();
        let mut released = Vec::new();
        self.files.retain(|name, pinned| {
            let unreadable = match name.strip_prefix(SPECS) {
                Some(file) => sources.unreadable_spec(file).is_some(),
                None => false,
            };
            let now = disk.get(name).map(|text| hash_of(text.as_bytes()));
            // What cannot be read has not been seen to change.
            let holds = unreadable || now == pinned.disk;
            if holds {
                sources.put(name, pinned.text.clone());
            } else {
                released.push(name.clone());
            }
            holds
        });
        released
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(pairs: &[(&str, &str)]) -> Texts {
        pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn each_file_is_pinned_until_it_is_saved() {
        let earlier =
            texts(&[("specs/a.yaml", "a1"), ("specs/b.yaml", "b1"), ("models/m.json", "m1"), ("flags.yaml", "f1")]);
        let now =
            texts(&[("specs/a.yaml", "a2"), ("specs/b.yaml", "b1"), ("specs/c.yaml", "c1"), ("flags.yaml", "f2")]);
        let pin = |files| Pin { generation: 3, at: Timestamp::from_micros(0), actor: "x".into(), reason: None, files };
        let mut held = pin(Pin::files(&earlier, &now));
        assert_eq!(held.files.keys().collect::<Vec<_>>(), ["models/m.json", "specs/a.yaml", "specs/c.yaml"]);
        let mut sources = Sources::of_texts(now.clone());
        assert!(held.lay_over(&mut sources).is_empty());
        let expected =
            texts(&[("specs/a.yaml", "a1"), ("specs/b.yaml", "b1"), ("models/m.json", "m1"), ("flags.yaml", "f2")]);
        assert_eq!(sources.texts(), expected, "all but the flags, which are those of now");

        // One file is saved: it alone is followed again.
        let mut saved = now.clone();
        saved.insert("specs/a.yaml".to_owned(), "a3".to_owned());
        let mut sources = Sources::of_texts(saved);
        assert_eq!(held.lay_over(&mut sources), ["specs/a.yaml"]);
        assert_eq!(sources.specs["a.yaml"], b"a3");
        assert!(!sources.specs.contains_key("c.yaml"), "still pinned away");
        // What is gone from the disk was changed too; what was pinned as absent stays so until it comes.
        let mut sources = Sources::of_texts(texts(&[("models/m.json", "m2")]));
        assert_eq!(held.lay_over(&mut sources), ["models/m.json", "specs/c.yaml"]);
        assert!(held.files.is_empty());
    }
}
