//! How pieces of a JSON value grow into the whole, as OpenAI's own clients do it.

use serde_json::Value;

/// Adds `more` to `value`: text is joined, lists are extended, objects are merged name by name, and anything else
/// replaces what was there. List items that carry the same `index` are one item.
pub(in crate::wire) fn merge(value: &mut Value, more: Value) {
    match (value, more) {
        (_, Value::Null) => {}
        (Value::String(text), Value::String(more)) => text.push_str(&more),
        (Value::Array(items), Value::Array(more)) => {
            for item in more {
                let place = item.get("index").and_then(Value::as_u64);
                let known = place.and_then(|place| {
                    items.iter_mut().find(|item| item.get("index").and_then(Value::as_u64) == Some(place))
                });
                match known {
                    Some(known) => merge(known, item),
                    None => items.push(item),
                }
            }
        }
        (Value::Object(fields), Value::Object(more)) => {
            for (name, more) in more {
                match fields.get_mut(&name) {
                    // A place is a name, not a sum; a kind is said again, not twice.
                    Some(known) if name != "index" && name != "type" => merge(known, more),
                    _ => {
                        fields.insert(name, more);
                    }
                }
            }
        }
        (value, more) => *value = more,
    }
}
