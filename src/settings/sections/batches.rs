//! `batches`: how large a batch of the OpenAI form may be.

use crate::{
    settings::BatchSettings,
    yaml::{Findings, Keys, Node},
};

const KEYS: Keys = Keys::new("`batches`", &["max_requests", "max_megabytes"]);
const MEGABYTE: u64 = 1_000_000;

/// The original's own limits.
pub(in crate::settings) const DEFAULT: BatchSettings =
    BatchSettings { max_requests: 50_000, max_bytes: 200 * MEGABYTE };

/// Reads both limits.
pub(in crate::settings) fn read(node: &Node, findings: &mut Findings) -> Option<BatchSettings> {
    let section = node.section(&KEYS, findings)?;
    let mut number = |key: &str, highest: i64, default: u64| match section.get(key) {
        None => Some(default),
        Some(node) => node.integer(key, 1..=highest, findings).map(i64::unsigned_abs),
    };
    let max_requests = number("max_requests", 10_000_000, DEFAULT.max_requests);
    let megabytes = number("max_megabytes", 100_000, DEFAULT.max_bytes / MEGABYTE);
    Some(BatchSettings { max_requests: max_requests?, max_bytes: megabytes? * MEGABYTE })
}
