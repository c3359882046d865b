//! One call to one target, as the ledger keeps it.

use serde::{Deserialize, Serialize};

use super::fault::Fault;
use crate::{
    clock::Timestamp,
    ids::AttemptId,
    money::Usd,
    names::{ProviderName, TargetName},
    usage::Usage,
};

/// How an attempt ended.
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
    strum::IntoStaticStr,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Outcome {
    /// Its intent is stored; its end is not.
    Open,
    /// The provider answered.
    Succeeded,
    /// It failed by the fault beside it.
    Failed,
    /// Nobody saw its end; it may have been billed.
    Unknown,
    /// We stopped it.
    Interrupted,
}

/// A row of the ledger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Attempt {
    /// Its id.
    pub id: AttemptId,
    /// Its number in the job, from 1.
    pub n: u32,
    /// The target called.
    pub target: TargetName,
    /// The target's provider.
    pub provider: ProviderName,
    /// The model asked for.
    pub model: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// The provider's words, or ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When its intent was stored.
    pub started_at: Timestamp,
    /// When its end was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// What it consumed, as reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// What it cost, where the price is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<Usd>,
    /// Bytes left and no complete answer came back: it may have been billed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub possibly_billed: bool,
    /// The most that it may have cost then, by an upper estimate made before the call; absent where nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub possible_cost_usd: Option<Usd>,
    /// The decision that led to it: a [`crate::routing::DecisionRecord`] as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<serde_json::Value>,
}

/// What was done about a parameter that a target cannot carry exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::Display, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum FidelityAction {
    /// Carried as something near.
    Approximated,
    /// Carried by other means with the same meaning.
    Emulated,
    /// Left out.
    Dropped,
}

/// One inexact parameter of one call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FidelityNote {
    /// The OpenAI name, such as `seed` or `messages[2].name`.
    pub parameter: String,
    /// What was done.
    pub action: FidelityAction,
    /// In words.
    pub detail: String,
}
