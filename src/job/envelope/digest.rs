//! The digest that tells a repeated submit from a conflicting one.
//!
//! Invariant: it depends on what is asked, not on how it was written: keys are sorted at every depth and spaces are
//! gone. Stores keep digests, so the form below never changes.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Envelope;

/// SHA-256 of the canonical form.
pub(super) fn of(envelope: &Envelope) -> [u8; 32] {
    let Envelope { pipeline: _, idempotency_key: _, batch, metadata, priority, not_before, deadline, callback, body } =
        envelope;
    let mut out = Vec::with_capacity(2_048);
    out.extend_from_slice(b"landbridge-envelope-1\n[");
    scalar(&mut out, batch);
    out.push(b',');
    // A BTreeMap is sorted already.
    scalar(&mut out, metadata);
    out.push(b',');
    scalar(&mut out, priority);
    out.push(b',');
    scalar(&mut out, &not_before.map(crate::clock::Timestamp::as_micros));
    out.push(b',');
    scalar(&mut out, &deadline.map(crate::clock::Timestamp::as_micros));
    out.push(b',');
    canonical(&mut out, body);
    if let Some(callback) = callback {
        out.push(b',');
        scalar(&mut out, callback);
    }
    out.push(b']');
    Sha256::digest(&out).into()
}

/// JSON without spaces and with the keys of every object in byte order.
fn canonical(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            out.push(b'{');
            for (place, (key, value)) in entries.into_iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                scalar(out, key);
                out.push(b':');
                canonical(out, value);
            }
            out.push(b'}');
        }
        Value::Array(items) => {
            out.push(b'[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                canonical(out, item);
            }
            out.push(b']');
        }
        other => scalar(out, other),
    }
}

/// Strings, numbers and string maps have one JSON form and cannot fail to be written to memory; were that ever to
/// change, the digest would differ and a repeat be reported as a conflict, which loses nothing.
fn scalar(out: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) {
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.push(b'!');
    }
}
