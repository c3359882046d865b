//! `live`: requests whose callers wait.

use std::time::Duration;

use crate::{
    settings::LiveSettings,
    yaml::{Findings, Keys, Node},
};

const KEYS: Keys = Keys::new("`live`", &["deadline"]);

/// What clients of this kind wait for at most by themselves is ten minutes; two leave room for their own retry.
pub(in crate::settings) const DEFAULT: LiveSettings = LiveSettings { deadline: Duration::from_mins(2) };

/// Reads how long a live request may take.
pub(in crate::settings) fn read(node: &Node, findings: &mut Findings) -> Option<LiveSettings> {
    let section = node.section(&KEYS, findings)?;
    let range = Duration::from_secs(1)..=Duration::from_hours(1);
    let deadline =
        section.get("deadline").map_or(Some(DEFAULT.deadline), |node| node.span("deadline", range, findings));
    Some(LiveSettings { deadline: deadline? })
}
