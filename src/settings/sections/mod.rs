//! One small file for each part of the settings file.
//!
//! Invariant: a reader that returns `None` has said why in the findings.

pub(super) mod addresses;
mod aws;
pub(super) mod batches;
pub(super) mod callbacks;
pub(super) mod keys;
pub(super) mod listen;
pub(super) mod live;
pub(super) mod media;
pub(super) mod prices;
pub(super) mod providers;
pub(super) mod quotas;
pub(super) mod retention;
pub(super) mod store;
pub(super) mod tls;
pub(super) mod watch;
