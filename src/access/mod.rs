//! Who may do what: keys, their scopes, the pipelines they are bound to, and the callers who show them.
//!
//! Invariant: a key's text exists once, in the hands of whoever made it; here there is only its hash, compared in
//! constant time. Pure: chance and time are arguments.

mod hash;
mod ring;

use std::{collections::BTreeSet, sync::Arc};

use serde::{Deserialize, Serialize};

pub use self::{
    hash::{InvalidHash, KeyHash, Token},
    ring::{Refusal, Ring},
};
use crate::{clock::Timestamp, money::Usd, names::PipelineName};

/// Longest name of a key, in characters.
pub const MAX_KEY_NAME: usize = 80;

/// What a key may be used for.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
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
pub enum Scope {
    /// Hand in work, and see what was handed in with the same key.
    Submit,
    /// See jobs, levers and metrics, without prompt or result text.
    Read,
    /// See the text of prompts and results.
    Content,
    /// Ask what specs would do.
    Plan,
    /// Pull levers, reload, make and revoke keys.
    Operate,
    /// Promote rollouts past their gates.
    Approve,
}

/// What one key may use up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct KeyLimits {
    /// Requests a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u32>,
    /// US dollars a day (UTC): once they are spent, its jobs are held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd_per_day: Option<Usd>,
    /// US dollars a month (UTC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd_per_month: Option<Usd>,
}

/// A key, without its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Key {
    /// Who a caller with this key is, on jobs and in the ledger. Never given twice.
    pub id: String,
    /// For people.
    pub name: String,
    /// What it may be used for.
    pub scopes: BTreeSet<Scope>,
    /// The pipelines it is bound to; empty for all.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub pipelines: BTreeSet<PipelineName>,
    /// What it may use up.
    #[serde(default)]
    pub limits: KeyLimits,
    /// When it was made; `None` for a declared key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// No longer good from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Withdrawn then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
}

impl Key {
    /// Whether it opens anything at this moment.
    pub fn is_good(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

/// Who asks: the holder of a key, or anybody while no key exists.
#[derive(Debug, Clone, Default)]
pub struct Caller(Option<Arc<Key>>);

impl Caller {
    /// Anybody, while no key exists.
    pub fn anybody() -> Self {
        Self(None)
    }

    /// The holder of a key.
    pub fn holding(key: Arc<Key>) -> Self {
        Self(Some(key))
    }

    /// Whoever handed something in that is still being worked on, though the key may be gone by now. It may hand in more
    /// of the same, within the pipelines that it was bound to.
    pub fn on_behalf_of(owner: &str, pipelines: &BTreeSet<PipelineName>) -> Self {
        if owner.is_empty() {
            return Self::anybody();
        }
        Self::holding(Arc::new(Key {
            id: owner.to_owned(),
            name: owner.to_owned(),
            scopes: BTreeSet::from([Scope::Submit]),
            pipelines: pipelines.clone(),
            limits: KeyLimits::default(),
            created_at: None,
            expires_at: None,
            revoked_at: None,
        }))
    }

    /// What jobs carry to say whose they are; empty for anybody.
    pub fn id(&self) -> &str {
        self.0.as_deref().map_or("", |key| &key.id)
    }

    /// What the audit trail says.
    pub fn name(&self) -> &str {
        self.0.as_deref().map_or("local", |key| &key.name)
    }

    /// The key, if one was shown.
    pub fn key(&self) -> Option<&Key> {
        self.0.as_deref()
    }

    /// Whether the key has a scope.
    pub fn may(&self, scope: Scope) -> bool {
        self.0.as_deref().is_none_or(|key| key.scopes.contains(&scope))
    }

    /// Whether a pipeline is within the key's binding.
    pub fn reaches(&self, pipeline: &PipelineName) -> bool {
        self.0.as_deref().is_none_or(|key| key.pipelines.is_empty() || key.pipelines.contains(pipeline))
    }

    /// Whether the key is bound to some pipelines only.
    pub fn is_bound(&self) -> bool {
        self.0.as_deref().is_some_and(|key| !key.pipelines.is_empty())
    }

    /// Whether this caller handed it in.
    pub fn owns(&self, caller: &str) -> bool {
        self.0.as_deref().is_some_and(|key| key.id == caller)
    }

    /// Whether a job of a pipeline, handed in by `owner`, may be seen at all.
    pub fn sees(&self, pipeline: &PipelineName, owner: &str) -> bool {
        self.reaches(pipeline) && (self.owns(owner) || self.may(Scope::Read))
    }

    /// Whether its prompt and result may be seen.
    pub fn sees_content(&self, owner: &str) -> bool {
        self.owns(owner) || self.may(Scope::Content)
    }
}
