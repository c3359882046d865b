//! Where something stands in a file that has been read before: for faults that show only when files meet.

use crate::{
    diagnostic::Position,
    yaml::{self, Node, Value},
};

/// The place of the value at `path`, with the text that it refers to.
pub(super) fn of_value(file: &str, bytes: &[u8], path: &[&str]) -> Option<(Position, String)> {
    let document = yaml::parse(file, bytes).ok()?;
    let position = walk(&document.root, path)?.position;
    Some((position, document.text))
}

/// The place of the item `text` in the list at `path`.
pub(super) fn of_item(file: &str, bytes: &[u8], path: &[&str], text: &str) -> Option<(Position, String)> {
    let document = yaml::parse(file, bytes).ok()?;
    let Value::List(items) = &walk(&document.root, path)?.value else { return None };
    let position = items.iter().find(|item| matches!(&item.value, Value::Text(found) if found == text))?.position;
    Some((position, document.text))
}

/// The place of the key `key` in the mapping at `path`.
pub(super) fn of_key(file: &str, bytes: &[u8], path: &[&str], key: &str) -> Option<(Position, String)> {
    let document = yaml::parse(file, bytes).ok()?;
    let Value::Map(entries) = &walk(&document.root, path)?.value else { return None };
    let position = entries.iter().find(|entry| entry.key.text == key)?.key.position;
    Some((position, document.text))
}

fn walk<'n>(mut node: &'n Node, path: &[&str]) -> Option<&'n Node> {
    for step in path {
        let Value::Map(entries) = &node.value else { return None };
        node = &entries.iter().find(|entry| entry.key.text == *step)?.value;
    }
    Some(node)
}
