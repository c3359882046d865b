//! The decision itself: rules, arm, chain, in that order.
//!
//! Invariant: total and deterministic; every target of a chain is permitted by the matching rule's confinement, whatever
//! flags and rollouts say, and, where a provider is forced, is of that provider. A plain decision allocates nothing.

use smallvec::SmallVec;

use super::{
    decision::{Arm, ArmChoice, Decision, Question, Reason, Route},
    flags::EffectiveFlags,
};
use crate::{
    job::HoldReason,
    money::BasisPoints,
    rollout,
    spec::{Destination, MissingKey, OnMissing, Pipeline, RolloutIx, Rule, TargetIx, condition::Verdict},
};

type Reasons = SmallVec<[Reason; 6]>;
type Chain = SmallVec<[TargetIx; 4]>;

/// Decides where a job goes.
pub fn decide(question: &Question<'_>) -> Decision {
    let mut reasons = Reasons::new();
    let mut rule = None;
    let mut arm = None;
    let route = match route(question, &mut rule, &mut arm, &mut reasons) {
        Ok(chain) => Route::Dispatch(chain),
        Err(reason) => {
            reasons.push(Reason::Held { reason });
            Route::Hold(reason)
        }
    };
    Decision { rule, arm, route, reasons }
}

fn route(
    question: &Question<'_>,
    matched: &mut Option<u16>,
    arm: &mut Option<ArmChoice>,
    reasons: &mut Reasons,
) -> Result<Chain, HoldReason> {
    let flags = question.flags;
    if flags.pause.is_some() {
        return Err(HoldReason::Paused);
    }
    if flags.forced.len() > 1 {
        return Err(HoldReason::ForcedProvidersConflict);
    }
    let rule = first_match(question, matched, reasons)?;
    let first = match rule.to {
        Destination::Target(target) => target,
        Destination::Rollout(ix) => {
            let choice = arm.insert(choose_arm(question, ix, reasons)?);
            target_of(question, choice.rollout, choice.served)
        }
    };
    let mut chain = with_fallback(question, rule, first, arm.as_ref(), reasons);
    confine(rule, &mut chain, reasons);
    force(question, rule, &mut chain, reasons)?;
    if chain.is_empty() {
        return Err(HoldReason::Confined);
    }
    if let Some(source) = flags.disable_fallback
        && chain.len() > 1
    {
        chain.truncate(1);
        reasons.push(Reason::FallbackDisabled { level: source.level });
    }
    if let (Some(choice), Some(first)) = (arm, chain.first()) {
        // A forced provider may have put the other arm's target first; what serves is what is told.
        for side in [Arm::Baseline, Arm::Candidate] {
            if target_of(question, choice.rollout, side) == *first {
                choice.served = side;
            }
        }
    }
    Ok(chain)
}

/// Every target that may serve a job that was decided for, whatever its rule prefers: as confinement, forced providers and
/// a rollout below 100 % allow; in the order of the spec.
pub fn permitted(pipeline: &Pipeline, flags: &EffectiveFlags, decision: &Decision) -> SmallVec<[TargetIx; 4]> {
    let rule = decision.rule.and_then(|place| pipeline.route.get(usize::from(place)));
    let withheld = decision.arm.and_then(|choice| withheld(pipeline, flags, &choice));
    let all = (0..pipeline.targets.len()).filter_map(|place| u16::try_from(place).ok()).map(TargetIx);
    all.filter(|target| {
        let confined = rule.and_then(|rule| rule.confine.as_ref()).is_none_or(|confine| confine.permits(*target));
        let forced = flags.forced.is_empty() || flags.permitted.get(target.get()).copied().unwrap_or(false);
        confined && forced && withheld != Some(*target)
    })
    .collect()
}

/// The candidate that a baseline job may not fall back to.
fn withheld(pipeline: &Pipeline, flags: &EffectiveFlags, choice: &ArmChoice) -> Option<TargetIx> {
    let rollout = pipeline.rollout(choice.rollout);
    let below = choice.percent < BasisPoints::ALL && !rollout.fallback_to_candidate;
    (choice.served == Arm::Baseline && (below || flags.rolled_back)).then_some(rollout.candidate)
}

/// The first rule whose condition holds.
fn first_match<'a>(
    question: &Question<'a>,
    matched: &mut Option<u16>,
    reasons: &mut Reasons,
) -> Result<&'a Rule, HoldReason> {
    for (place, rule) in (0..).zip(&question.pipeline.route) {
        let verdict = rule.when.as_ref().map_or(Verdict::True, |condition| condition.evaluate(&question.facts));
        let then = rule.on_missing;
        let then = match verdict {
            Verdict::True => OnMissing::Match,
            Verdict::False => {
                reasons.push(Reason::RuleSkipped { rule: place });
                OnMissing::NoMatch
            }
            Verdict::Missing(path) => {
                reasons.push(Reason::RuleMissing { rule: place, path, then });
                then
            }
            Verdict::Failed(why) => {
                reasons.push(Reason::RuleFailed { rule: place, why, then });
                then
            }
        };
        match then {
            OnMissing::NoMatch => {}
            OnMissing::Match => {
                reasons.push(Reason::RuleMatched { rule: place });
                *matched = Some(place);
                return Ok(rule);
            }
            OnMissing::Hold => {
                *matched = Some(place);
                return Err(HoldReason::MissingValue);
            }
        }
    }
    // A valid pipeline's last rule takes every job. Were one to end otherwise, its jobs are kept, not guessed about.
    Err(HoldReason::MissingValue)
}

/// The arm by bucket, and the one that serves.
fn choose_arm(question: &Question<'_>, ix: RolloutIx, reasons: &mut Reasons) -> Result<ArmChoice, HoldReason> {
    let rollout = question.pipeline.rollout(ix);
    let percent = question.standings.percent(question.pipeline, ix);
    let standing = question.standings.get(ix);
    let everybody = percent == BasisPoints::ALL;
    let key = rollout.key.evaluate(&question.facts);
    let bucket = match (&key, rollout.missing_key) {
        (Some(key), _) => Some(rollout::bucket(&rollout.salt, key)),
        (None, then) => {
            reasons.push(Reason::KeyMissing { then });
            match then {
                MissingKey::JobId => Some(rollout::bucket(&rollout.salt, question.facts.id)),
                MissingKey::Hold if !everybody => return Err(HoldReason::MissingValue),
                MissingKey::Hold | MissingKey::Baseline => None,
            }
        }
    };
    let assigned = match bucket {
        Some(bucket) if rollout::is_candidate(bucket, percent) => Arm::Candidate,
        Some(_) => Arm::Baseline,
        None if everybody => Arm::Candidate,
        None => Arm::Baseline,
    };
    if let Some(bucket) = bucket {
        reasons.push(Reason::Bucketed { bucket, percent, arm: assigned });
    }
    let mut served = assigned;
    if question.flags.rolled_back && assigned == Arm::Candidate {
        served = Arm::Baseline;
        reasons.push(Reason::RolledBack);
    }
    let revision = if standing.counts { standing.revision } else { 0 };
    Ok(ArmChoice { rollout: ix, assigned, served, bucket, percent, revision })
}

fn target_of(question: &Question<'_>, ix: RolloutIx, arm: Arm) -> TargetIx {
    let rollout = question.pipeline.rollout(ix);
    match arm {
        Arm::Baseline => rollout.baseline,
        Arm::Candidate => rollout.candidate,
    }
}

/// The routed target, then the rule's own fallback or the pipeline's, none of them twice.
fn with_fallback(
    question: &Question<'_>,
    rule: &Rule,
    first: TargetIx,
    arm: Option<&ArmChoice>,
    reasons: &mut Reasons,
) -> Chain {
    let withheld = arm.and_then(|choice| withheld(question.pipeline, question.flags, choice));
    let mut chain = Chain::new();
    chain.push(first);
    let mut left_out = false;
    for target in rule.fallback.as_ref().unwrap_or(&question.pipeline.fallback) {
        if withheld == Some(*target) {
            left_out = true;
        } else if !chain.contains(target) {
            chain.push(*target);
        }
    }
    if left_out {
        reasons.push(Reason::CandidateWithheld);
    }
    chain
}

/// Takes out what the rule's confinement does not permit.
fn confine(rule: &Rule, chain: &mut Chain, reasons: &mut Reasons) {
    let Some(confinement) = &rule.confine else { return };
    let removed = keep(chain, |target| confinement.permits(target));
    if removed > 0 {
        reasons.push(Reason::Confined { removed });
    }
}

/// Takes out what is not of the forced provider; where nothing stays, the pipeline's other targets of that provider
/// serve, in the order of the spec, as far as the confinement permits.
fn force(question: &Question<'_>, rule: &Rule, chain: &mut Chain, reasons: &mut Reasons) -> Result<(), HoldReason> {
    let flags = question.flags;
    let Some((provider, source)) = flags.forced.first() else { return Ok(()) };
    let permitted = |target: TargetIx| flags.permitted.get(target.get()).copied().unwrap_or(false);
    let removed = keep(chain, permitted);
    reasons.push(Reason::Forced { provider: provider.clone(), level: source.level, removed });
    if !chain.is_empty() {
        return Ok(());
    }
    let confined = |target: TargetIx| rule.confine.as_ref().is_none_or(|confinement| confinement.permits(target));
    let of_provider =
        || (0..question.pipeline.targets.len()).filter_map(|place| u16::try_from(place).ok()).map(TargetIx);
    chain.extend(of_provider().filter(|target| permitted(*target) && confined(*target)));
    if !chain.is_empty() {
        reasons.push(Reason::ForcedOutsideChain { count: u16::try_from(chain.len()).unwrap_or(u16::MAX) });
        Ok(())
    } else if of_provider().any(permitted) {
        Err(HoldReason::Confined)
    } else {
        Err(HoldReason::ForcedProviderHasNoTarget)
    }
}

/// Keeps the targets that `permits` and says how many went.
fn keep(chain: &mut Chain, permits: impl Fn(TargetIx) -> bool) -> u16 {
    let before = chain.len();
    chain.retain(|target| permits(*target));
    u16::try_from(before - chain.len()).unwrap_or(u16::MAX)
}
