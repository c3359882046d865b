//! Which pipeline takes a job that names only a model.
//!
//! Invariant: no two pipelines of a snapshot take the same model (see [`super::overlap`]), so the answer never depends on
//! an order. Plain names are looked up in one step; globs are tried all at once.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use globset::{GlobSet, GlobSetBuilder};

use super::{LoadedPipeline, overlap::Shape};
use crate::{names::PipelineName, spec::Accept};

/// The models that a snapshot's pipelines take.
#[derive(Debug, Clone, Default)]
pub(crate) struct AcceptIndex {
    names: HashMap<String, PipelineName>,
    globs: GlobSet,
    owners: Vec<PipelineName>,
}

impl AcceptIndex {
    /// Of these pipelines.
    pub(super) fn of(pipelines: &BTreeMap<PipelineName, Arc<LoadedPipeline>>) -> Self {
        let mut index = Self::default();
        let mut globs = GlobSetBuilder::new();
        for (name, loaded) in pipelines {
            for glob in &loaded.pipeline.accept.models {
                if is_plain(&glob.text) {
                    index.names.insert(glob.text.clone(), name.clone());
                } else {
                    globs.add(glob.matcher.glob().clone());
                    index.owners.push(name.clone());
                }
            }
        }
        if !index.owners.is_empty() {
            // Each glob was compiled when its spec was read; together they can fail only by being too many.
            index.globs = globs.build().unwrap_or_else(|error| {
                tracing::error!(%error, "globs under `accept` are too many to be matched; only plain names are taken");
                GlobSet::empty()
            });
        }
        index
    }

    /// The pipeline that takes `model`.
    pub(super) fn find(&self, model: &str) -> Option<&PipelineName> {
        if let Some(name) = self.names.get(model) {
            return Some(name);
        }
        if self.owners.is_empty() {
            return None;
        }
        self.owners.get(*self.globs.matches(model).first()?)
    }
}

/// Whether a glob stands for itself alone.
fn is_plain(glob: &str) -> bool {
    !glob.contains(['*', '?', '[', ']', '{', '}', '\\'])
}

/// Pairs of pipelines (by their places in `accepts`) that could take the same model, with the globs that meet. Globs are
/// compared only where one begins as the other does, so a thousand pipelines cost little more than a thousand lookups.
pub(super) fn overlaps<'a>(accepts: &[(usize, &'a Accept)]) -> Vec<Overlap<'a>> {
    struct Entry<'a> {
        owner: usize,
        text: &'a str,
        shape: Shape,
        prefix: String,
    }
    let mut entries = Vec::new();
    for (owner, accept) in accepts {
        for glob in &accept.models {
            let shape = Shape::of(&glob.text);
            let prefix = shape.prefix();
            entries.push(Entry { owner: *owner, text: &glob.text, shape, prefix });
        }
    }
    let mut by_prefix: HashMap<&str, Vec<usize>> = HashMap::new();
    for (place, entry) in entries.iter().enumerate() {
        by_prefix.entry(&entry.prefix).or_default().push(place);
    }
    let mut found = Vec::new();
    for (place, entry) in entries.iter().enumerate() {
        let cuts = entry.prefix.char_indices().map(|(at, _)| at).chain([entry.prefix.len()]);
        for beginning in cuts.filter_map(|at| entry.prefix.get(..at)) {
            for other_place in by_prefix.get(beginning).into_iter().flatten() {
                let Some(other) = entries.get(*other_place) else { continue };
                // Of two with the same prefix, the pair is seen twice.
                let seen_before = beginning == entry.prefix && *other_place >= place;
                if other.owner != entry.owner && !seen_before && entry.shape.overlaps(&other.shape) {
                    found.push(Overlap { one: (entry.owner, entry.text), other: (other.owner, other.text) });
                }
            }
        }
    }
    found
}

/// Two globs of different pipelines that can match the same model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Overlap<'a> {
    /// The one's place, and its glob.
    pub one: (usize, &'a str),
    /// The other's.
    pub other: (usize, &'a str),
}
