//! `retention`: how long ended work stays on record.

use std::time::Duration;

use crate::{
    clock::MAX_SPAN,
    settings::RetentionSettings,
    yaml::{Findings, Keys, Node},
};

const KEYS: Keys = Keys::new("`retention`", &["ledger", "audit"]);
const SHORTEST: Duration = Duration::from_hours(1);

/// A year and a month: enough to compare a month with the same one a year ago.
pub(in crate::settings) const DEFAULT: RetentionSettings =
    RetentionSettings { ledger: Duration::from_hours(400 * 24), audit: Duration::from_hours(400 * 24) };

/// Reads both spans.
pub(in crate::settings) fn read(node: &Node, findings: &mut Findings) -> Option<RetentionSettings> {
    let section = node.section(&KEYS, findings)?;
    let mut span = |key: &str, default: Duration| {
        section.get(key).map_or(Some(default), |node| node.span(key, SHORTEST..=MAX_SPAN, findings))
    };
    let ledger = span("ledger", DEFAULT.ledger);
    let audit = span("audit", DEFAULT.audit);
    Some(RetentionSettings { ledger: ledger?, audit: audit? })
}
