//! `watch`: how the folders are watched.

use std::time::Duration;

use crate::{
    settings::{ApplyMode, WatchMode, WatchSettings},
    yaml::{Findings, Keys, Node},
};

const KEYS: Keys = Keys::new("`watch`", &["mode", "quiet", "rescan", "apply", "allow_empty"]);

/// Reads all of it.
pub(in crate::settings) fn read(node: &Node, findings: &mut Findings) -> Option<WatchSettings> {
    let default = WatchSettings::default();
    let section = node.section(&KEYS, findings)?;
    let modes = [("auto", WatchMode::Auto), ("poll", WatchMode::Poll)];
    let mode = section.get("mode").map_or(Some(default.mode), |node| node.choice("mode", &modes, findings));
    let quiet = Duration::from_millis(10)..=Duration::from_secs(10);
    let quiet = section.get("quiet").map_or(Some(default.quiet), |node| node.span("quiet", quiet, findings));
    let rescan = Duration::from_millis(100)..=Duration::from_hours(1);
    let rescan = section.get("rescan").map_or(Some(default.rescan), |node| node.span("rescan", rescan, findings));
    let applies = [("per_file", ApplyMode::PerFile), ("all", ApplyMode::All)];
    let apply = section.get("apply").map_or(Some(default.apply), |node| node.choice("apply", &applies, findings));
    let allow_empty = section.get("allow_empty");
    let allow_empty = allow_empty.map_or(Some(default.allow_empty), |node| node.boolean("allow_empty", findings));
    Some(WatchSettings { mode: mode?, quiet: quiet?, rescan: rescan?, apply: apply?, allow_empty: allow_empty? })
}
