//! The layers of settings (file, environment, flags) become one tree; figment merges them, and each value stays a node
//! that knows its place in the layer it came from.
//!
//! Invariant: a later layer wins wherever both say something; mappings are merged, lists and single values replaced.

use std::collections::BTreeMap;

use figment::{
    Figment, Metadata, Profile, Provider,
    value::{Dict, Map, Tag, Value as Merged},
};

use crate::{
    diagnostic::{Diagnostic, Position},
    yaml::{Entry, Key, Node, Value},
};

/// Lines of a layer: a file of the largest size has fewer, and so a line also says which layer it is of.
const LINE_BITS: u32 = 21;
/// Most layers: the file, and one for each variable and flag.
pub(super) const MAX_LAYERS: usize = 1_000;

/// One source of settings.
#[derive(Debug, Clone)]
struct Layer {
    /// The file, or what it is in words: `environment variable LANDBRIDGE_STORE`.
    origin: String,
    root: Node,
}

/// The sources of settings, weakest first.
#[derive(Debug)]
pub(super) struct Layers {
    file: Layer,
    above: Vec<Layer>,
}

impl Layers {
    /// The settings file's tree alone.
    pub(super) fn of_file(file: &str, root: Node) -> Self {
        Self { file: Layer { origin: file.to_owned(), root }, above: Vec::new() }
    }

    /// How many layers there are.
    pub(super) fn len(&self) -> usize {
        1 + self.above.len()
    }

    fn all(&self) -> impl Iterator<Item = &Layer> {
        std::iter::once(&self.file).chain(&self.above)
    }

    /// Puts a layer on top that says one thing: the value at `path`.
    pub(super) fn push(&mut self, origin: String, path: &[String], value: Node) {
        let layer = u32::try_from(self.len()).unwrap_or(u32::MAX);
        let mut root = value;
        mark(&mut root, layer);
        for key in path.iter().rev() {
            let position = root.position;
            let mut around = root.clone();
            around.value = Value::Map(vec![Entry { key: Key { text: key.clone(), position }, value: root }]);
            root = around;
        }
        self.above.push(Layer { origin, root });
    }

    /// One tree out of all.
    pub(super) fn merge(&self) -> Result<Node, Box<Diagnostic>> {
        let figment = self
            .all()
            .enumerate()
            .fold(Figment::new(), |figment, (index, layer)| figment.merge(Source { index, layer }));
        let mut profiles = figment.data().map_err(|error| {
            let message = format!("the settings cannot be put together: {error}");
            Box::new(Diagnostic::error("unmergeable", &self.file.origin, message))
        })?;
        let merged = Merged::from(profiles.remove(&Profile::Default).unwrap_or_default());
        Ok(self.graft(&figment, &merged, &mut Vec::new()))
    }

    /// The merged value as a node, its leaves taken from the layers that they came from.
    fn graft<'v>(&self, figment: &Figment, merged: &'v Merged, path: &mut Vec<&'v str>) -> Node {
        let Merged::Dict(_, entries) = merged else {
            let index = figment.get_metadata(merged.tag()).and_then(|metadata| metadata.name.parse().ok()).unwrap_or(0);
            let found = self.all().nth(index).and_then(|layer| find(&layer.root, path));
            return found.map_or_else(|| self.nothing(), Node::clone);
        };
        let stand_in = self.all().filter_map(|layer| find(&layer.root, path)).find(|node| is_map(node));
        let mut node = stand_in.cloned().unwrap_or_else(|| self.nothing());
        let mut grafted = Vec::with_capacity(entries.len());
        for (name, value) in entries {
            path.push(name);
            let value = self.graft(figment, value, path);
            path.pop();
            let key = self.all().filter_map(|layer| find(&layer.root, path)).find_map(|node| key_of(node, name));
            let key = key.cloned().unwrap_or_else(|| Key { text: name.clone(), position: value.position });
            grafted.push(Entry { key, value });
        }
        node.value = Value::Map(grafted);
        node
    }

    fn nothing(&self) -> Node {
        let mut node = self.file.root.clone();
        node.value = Value::Null;
        node
    }

    /// A diagnostic with its place said in terms of the layer that it concerns.
    pub(super) fn localise(&self, mut diagnostic: Diagnostic) -> Diagnostic {
        let Some(position) = diagnostic.position else { return diagnostic };
        let layer = layer_of(position);
        if layer > 0 {
            diagnostic.position = None;
            diagnostic.source_line = None;
            if let Some(layer) = self.all().nth(layer) {
                diagnostic.file.clone_from(&layer.origin);
            }
        }
        diagnostic
    }
}

/// Which layer a node at this position came from; the file is 0, and the highest wins.
pub(super) fn layer_of(position: Position) -> usize {
    (position.line >> LINE_BITS) as usize
}

fn mark(node: &mut Node, layer: u32) {
    let shift = |position: &mut Position| position.line |= layer << LINE_BITS;
    shift(&mut node.position);
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| mark(item, layer)),
        Value::Map(entries) => {
            for entry in entries {
                shift(&mut entry.key.position);
                mark(&mut entry.value, layer);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => {}
    }
}

fn is_map(node: &Node) -> bool {
    matches!(node.value, Value::Map(_))
}

fn entries(node: &Node) -> &[Entry] {
    if let Value::Map(entries) = &node.value { entries } else { &[] }
}

fn key_of<'n>(node: &'n Node, name: &str) -> Option<&'n Key> {
    entries(node).iter().map(|entry| &entry.key).find(|key| key.text == name)
}

fn find<'n>(root: &'n Node, path: &[&str]) -> Option<&'n Node> {
    path.iter().try_fold(root, |node, name| {
        entries(node).iter().find(|entry| entry.key.text == *name).map(|entry| &entry.value)
    })
}

/// A layer as figment takes it. Only the shape matters: the leaves stay in the tree.
struct Source<'l> {
    index: usize,
    layer: &'l Layer,
}

impl Provider for Source<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.index.to_string())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(BTreeMap::from([(Profile::Default, shape(entries(&self.layer.root)))]))
    }
}

/// Of equal keys the first counts; the tree's reader has complained about the others.
fn shape(entries: &[Entry]) -> Dict {
    let mut dict = Dict::new();
    for entry in entries {
        let value = match &entry.value.value {
            Value::Map(below) => Merged::Dict(Tag::Default, shape(below)),
            _ => Merged::String(Tag::Default, String::new()),
        };
        dict.entry(entry.key.text.clone()).or_insert(value);
    }
    dict
}
