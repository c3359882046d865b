//! One decision: the question, the answer, and each reason on the way.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::{flags::EffectiveFlags, standing::Standings};
pub use crate::rollout::evidence::Arm;
use crate::{
    job::HoldReason,
    money::BasisPoints,
    names::RolloutName,
    spec::{Pipeline, RolloutIx, TargetIx, condition::Facts},
};

/// What is asked.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// The job's pipeline.
    pub pipeline: &'a Pipeline,
    /// The flags in force for it.
    pub flags: &'a EffectiveFlags,
    /// Where its rollouts stand.
    pub standings: &'a Standings,
    /// The job.
    pub facts: Facts<'a>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The place of the rule that matched, or that holds the job; `None` when the job was held before any rule was looked
    /// at.
    pub rule: Option<u16>,
    /// Which arm, when the rule leads to a rollout.
    pub arm: Option<ArmChoice>,
    /// What to do.
    pub route: Route,
    /// How it came to this, in order.
    pub reasons: SmallVec<[Reason; 6]>,
}

/// What to do with the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Try these targets in this order (never empty, no target twice).
    Dispatch(SmallVec<[TargetIx; 4]>),
    /// Hold it.
    Hold(HoldReason),
}

/// How a job fell to an arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArmChoice {
    /// The rollout.
    pub rollout: RolloutIx,
    /// The arm by the job's bucket, before flags and rollback.
    pub assigned: Arm,
    /// The arm that serves, after rollback and flags.
    pub served: Arm,
    /// The job's bucket, 0 to 9,999; `None` without a key, unless jobs without one are bucketed by their id.
    pub bucket: Option<u16>,
    /// The candidate's share then.
    pub percent: BasisPoints,
    /// Which launch of a rollout with steps that was, if what it sees counts; 0 where nothing does.
    pub revision: u32,
}

/// One step of a decision. [`DecisionRecord`] carries it in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// A rule's condition did not hold.
    RuleSkipped {
        /// Its place.
        rule: u16,
    },
    /// A rule's condition needed a value that the job lacks.
    RuleMissing {
        /// Its place.
        rule: u16,
        /// The path that is missing.
        path: Arc<str>,
        /// What the rule says to do.
        then: crate::spec::OnMissing,
    },
    /// A rule's condition could not be evaluated on this job (a value of the wrong kind, say). What the rule says to do
    /// about a missing value holds here too: a value that cannot be used is as good as none, and a rule that keeps data
    /// in place must be able to hold the jobs it cannot judge.
    RuleFailed {
        /// Its place.
        rule: u16,
        /// Why.
        why: Arc<str>,
        /// What the rule says to do.
        then: crate::spec::OnMissing,
    },
    /// A rule matched.
    RuleMatched {
        /// Its place.
        rule: u16,
    },
    /// The job has no key for the rollout.
    KeyMissing {
        /// What the rollout says to do.
        then: crate::spec::MissingKey,
    },
    /// The bucket decided the arm.
    Bucketed {
        /// 0 to 9,999.
        bucket: u16,
        /// The candidate's share.
        percent: BasisPoints,
        /// The arm.
        arm: Arm,
    },
    /// A rollback serves the baseline.
    RolledBack,
    /// Targets that the rule's confinement does not permit were taken out.
    Confined {
        /// How many.
        removed: u16,
    },
    /// Targets that are not of the forced provider were taken out.
    Forced {
        /// The provider.
        provider: crate::names::ProviderName,
        /// Who says so.
        level: crate::spec::flags::FlagLevel,
        /// How many.
        removed: u16,
    },
    /// Nothing of the chain was of the forced provider, so the pipeline's other targets of it serve.
    ForcedOutsideChain {
        /// How many.
        count: u16,
    },
    /// The baseline does not fall back to the candidate while the rollout is below 100 %.
    CandidateWithheld,
    /// `DISABLE_FALLBACK` left only the first target.
    FallbackDisabled {
        /// Who says so.
        level: crate::spec::flags::FlagLevel,
    },
    /// The job is held.
    Held {
        /// Why.
        reason: HoldReason,
    },
}

/// The evidence of a rollout: fixed at a job's first dispatch to one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The rollout.
    pub rollout: RolloutName,
    /// The arm by bucket.
    pub arm: Arm,
    /// 0 to 9,999, where the job was bucketed.
    pub bucket: Option<u16>,
    /// Whether the job counts: it had a key, was not confined, and no switch was on.
    pub evidence: bool,
    /// What a rollout with steps needs to know; a percentage in a file needs nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted: Option<Counted>,
}

/// Where a job stands in the evidence of a rollout with steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// The launch that it belongs to.
    pub revision: u32,
    /// The candidate's share at its first dispatch.
    pub share: BasisPoints,
    /// Its number among all that happened to the rollout: given by the store when the dispatch is written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
}

/// A decision in names, as the ledger keeps it and the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// The snapshot's generation.
    pub generation: u64,
    /// The rule's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The targets in the order tried.
    pub chain: Vec<String>,
    /// Why the job is held, when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<HoldReason>,
    /// The rollout's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutName>,
    /// The arm by bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned: Option<Arm>,
    /// The arm that served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served: Option<Arm>,
    /// The bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<u16>,
    /// The reasons in words, in order.
    pub reasons: Vec<String>,
}
