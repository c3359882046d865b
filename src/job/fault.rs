//! Why a call failed, in the eight kinds that are handled differently.

use serde::{Deserialize, Serialize};

/// The kind of a failed call. What follows each is decided in [`super::retry`].
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::EnumIter,
    strum::IntoStaticStr,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Fault {
    /// The provider's quota is used up for now.
    Throttled,
    /// A passing failure: 5xx, a connection refused or lost before bytes left.
    Transient,
    /// The provider is overloaded, or its breaker is open.
    Unavailable,
    /// The prompt does not fit the model's window.
    TooLong,
    /// Credentials, access, a dead model, a spending limit: an operator must act.
    Misconfigured,
    /// The job's own fault; no target would take it.
    Refused,
    /// Nobody saw how the call ended; it may have been billed.
    Unknown,
    /// We stopped it: a drain, a cancel, or `--interrupt`.
    Interrupted,
}
