//! Names for the files behind a snapshot, for the times when one of them is there but its bytes cannot be had.
//!
//! Invariant: a file that cannot be read is not a file that was removed: it keeps its last good version.

use std::fmt;

use super::Sources;
use crate::diagnostic::Diagnostic;

/// A file, or a folder of them, that a snapshot is made from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceFile {
    /// A spec, relative to the pipelines folder.
    Spec(String),
    /// A folder of specs, relative to the pipelines folder; the empty text is the pipelines folder itself.
    SpecFolder(String),
    /// A model definition, by file stem.
    Model(String),
    /// The folder of model definitions.
    ModelFolder,
    /// `config/flags.yaml`.
    Flags,
    /// `config/catalog.yaml`.
    Catalog,
    /// The policy.
    Policy,
}

impl fmt::Display for SourceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spec(name) => write!(f, "spec {name}"),
            Self::SpecFolder(name) if name.is_empty() => f.write_str("the pipelines folder"),
            Self::SpecFolder(name) => write!(f, "spec folder {name}"),
            Self::Model(stem) => write!(f, "model definition {stem}"),
            Self::ModelFolder => f.write_str("the models folder"),
            Self::Flags => f.write_str("the flags file"),
            Self::Catalog => f.write_str("the catalogue file"),
            Self::Policy => f.write_str("the policy"),
        }
    }
}

impl Sources {
    /// Why the spec `file` (relative to the pipelines folder) cannot be read, if it or a folder above it cannot.
    pub fn unreadable_spec(&self, file: &str) -> Option<&Diagnostic> {
        let own = self.unreadable.get(&SourceFile::Spec(file.to_owned()));
        let mut folders = file.match_indices('/').map(|(end, _)| &file[..end]).chain([""]);
        own.or_else(|| folders.find_map(|folder| self.unreadable.get(&SourceFile::SpecFolder(folder.to_owned()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_a_folder_is_a_fault_of_every_spec_below_it() {
        let sources = |faulty: SourceFile| Sources {
            unreadable: [(faulty, Diagnostic::error("unreadable", "x", "it is"))].into(),
            ..Sources::default()
        };
        let spec = SourceFile::Spec("a/b/c.yaml".into());
        for (faulty, file, expected) in [
            (spec.clone(), "a/b/c.yaml", true),
            (spec, "a/b/d.yaml", false),
            (SourceFile::SpecFolder(String::new()), "c.yaml", true),
            (SourceFile::SpecFolder(String::new()), "a/b/c.yaml", true),
            (SourceFile::SpecFolder("a".into()), "a/b/c.yaml", true),
            (SourceFile::SpecFolder("a/b".into()), "a/b/c.yaml", true),
            (SourceFile::SpecFolder("a/b".into()), "a/c.yaml", false),
            (SourceFile::SpecFolder("a".into()), "ab/c.yaml", false),
            (SourceFile::Flags, "c.yaml", false),
        ] {
            assert_eq!(sources(faulty.clone()).unreadable_spec(file).is_some(), expected, "{faulty} {file}");
        }
    }
}
