//! What follows a fault, and which target of a chain is called next. The table of faults lives here and nowhere else.
//!
//! | fault | burns | then |
//! |---|---|---|
//! | throttled | no | the same target when it allows; the next one if that is longer than `spill_after` |
//! | transient | yes | the same target after a jittered backoff; one that may have been billed (408, 424): once, then the next |
//! | unavailable | yes | the next target now; round again after a backoff |
//! | too long | no | the next target with a larger window; without one, the job fails |
//! | misconfigured | no | the next target; when all wait for an operator, the job is held |
//! | refused | – | the job fails |
//! | unknown | theirs: yes, ours: no | again, theirs after a backoff |
//! | interrupted | no | again |
//!
//! Invariant: the calls a job can cause are bounded. A target is called again only while fewer than `retry.attempts` of
//! its calls burned an attempt; a target that has failed before is called again only after a wait; and what burns
//! nothing either waits, or leaves a target that is not asked again (too long, parked), or came from outside (we were
//! stopped). Choosing looks at the chain as it is now, so a kill switch or a new spec counts from the next call on.

#[cfg(test)]
mod tests;

use std::time::Duration;

use smallvec::SmallVec;

use super::{
    attempt::{Attempt, Outcome},
    fault::Fault,
    state::HoldReason,
};
use crate::{clock::Timestamp, names::TargetName, spec::Retry};

/// A provider's hint when to come back is believed up to this long; then it is asked again, or the next target is.
/// (One call an hour costs nothing; believing a hint of a year would lose the job.)
pub const LONGEST_HINT: Duration = Duration::from_hours(1);
/// The least wait after a fault: time always moves.
const LEAST_WAIT: Duration = Duration::from_millis(1);

/// One ended call of the job's past, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// The target called.
    pub target: TargetName,
    /// Why it failed. Calls that succeeded end the job and are never past.
    pub fault: Fault,
    /// For [`Fault::Unknown`]: the connection was lost under a living daemon (theirs), so it burned an attempt;
    /// false when the daemon itself died (ours).
    pub theirs: bool,
    /// It may have been billed though no answer came. A transient fault of this kind (a model's own timeout, say) is
    /// tried again at the same target only once.
    pub possibly_billed: bool,
}

impl Past {
    /// The past of a job from its rows of the ledger. A row that a recovery closed as `unknown` is ours; one that a
    /// living daemon closed names its fault.
    pub fn from_attempts(attempts: &[Attempt]) -> Vec<Self> {
        attempts
            .iter()
            .filter_map(|attempt| {
                let (fault, theirs) = match attempt.outcome {
                    Outcome::Open | Outcome::Succeeded => return None,
                    Outcome::Failed => (attempt.fault.unwrap_or(Fault::Unknown), true),
                    Outcome::Unknown => (Fault::Unknown, false),
                    Outcome::Interrupted => (Fault::Interrupted, false),
                };
                let possibly_billed = attempt.possibly_billed;
                Some(Self { target: attempt.target.clone(), fault, theirs, possibly_billed })
            })
            .collect()
    }

    /// Whether this call counts against `retry.attempts` of its target.
    pub fn burns(&self) -> bool {
        match self.fault {
            Fault::Transient | Fault::Unavailable => true,
            Fault::Unknown => self.theirs,
            Fault::Throttled | Fault::TooLong | Fault::Misconfigured | Fault::Refused | Fault::Interrupted => false,
        }
    }

    /// Whether the call was ended by us, so that it says nothing of the target.
    fn is_ours(&self) -> bool {
        match self.fault {
            Fault::Interrupted => true,
            Fault::Unknown => !self.theirs,
            _ => false,
        }
    }
}

/// A target of the chain, as things stand now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub name: TargetName,
    /// Whether it can be called.
    pub availability: Availability,
    /// The model's context window in tokens, where known.
    pub context_window: Option<u64>,
}

/// Whether a target can be called now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// It can.
    Ready,
    /// Not before this time, because its breaker is open: it is passed over for the next of the chain.
    NotBefore(Timestamp),
    /// Not before this time, because its quota is used up or it asked us to wait: it is waited for, unless that is
    /// longer than `spill_after`.
    Throttled(Timestamp),
    /// Not until an operator acts.
    Parked,
}

/// What to do with the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Call the target at this place of the chain now.
    Call(usize),
    /// Wait; route again then. (At once, where the time is not in the future: we were stopped, the target was not at
    /// fault.)
    Wait {
        /// Until when.
        until: Timestamp,
    },
    /// Hold until something changes.
    Hold(HoldReason),
    /// Give up: every target of the chain has used its attempts, or none can take the job.
    Fail {
        /// Stable name: `attempts_exhausted`, `refused`, `too_long`.
        reason_code: &'static str,
    },
}

/// Settings of the decision.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// The pipeline's.
    pub retry: Retry,
    /// A throttled target whose wait is longer than this is passed over for the next of the chain.
    pub spill_after: Duration,
}

/// Chooses the next target at dispatch; a wait that the past asked for has been served.
pub fn choose(chain: &[Candidate], past: &[Past], policy: &Policy, now: Timestamp) -> Step {
    if past.iter().any(|past| past.fault == Fault::Refused) {
        return Step::Fail { reason_code: "refused" };
    }
    let standings = Standing::of_chain(chain, past, policy);
    pick(chain, &standings, policy, now, |_, candidate| candidate.availability)
}

/// Decides what follows the newest fault in `past`. `retry_after` is the provider's own hint; `chance` is uniform in
/// [0, 1) and jitters the backoff (full jitter: a uniform share of `initial_delay × 2^(n−1)`, capped at `max_delay`).
/// The candidates may or may not know of that fault yet: its target's wait or parking is taken into account here.
pub fn after_fault(
    chain: &[Candidate],
    past: &[Past],
    policy: &Policy,
    now: Timestamp,
    retry_after: Option<Duration>,
    chance: f64,
) -> Step {
    let Some(newest) = past.last() else { return choose(chain, past, policy, now) };
    if newest.is_ours() {
        return Step::Wait { until: now };
    }
    if past.iter().any(|past| past.fault == Fault::Refused) {
        return Step::Fail { reason_code: "refused" };
    }
    let standings = Standing::of_chain(chain, past, policy);
    let hint = retry_after.map(|hint| hint.min(LONGEST_HINT));
    let availability = |place: usize, candidate: &Candidate| {
        let standing = standings.get(place).copied().unwrap_or_default();
        match (candidate.availability, newest.fault) {
            (known, _) if candidate.name != newest.target => known,
            (_, Fault::Misconfigured) | (Availability::Parked, _) => Availability::Parked,
            (known, Fault::Throttled) => {
                let until = now + throttle_wait(standing.throttles, policy, hint, chance);
                Availability::Throttled(known.time().map_or(until, |known| known.max(until)))
            }
            (known, Fault::Unavailable) => match hint {
                Some(hint) => {
                    let until = now + hint + backoff(standing.burned, policy, chance);
                    Availability::NotBefore(known.time().map_or(until, |known| known.max(until)))
                }
                None => known,
            },
            (known, _) => known,
        }
    };
    match pick(chain, &standings, policy, now, availability) {
        // A fresh target is called at once; one that has failed before, only after a wait.
        Step::Call(place) => match (standings.get(place), chain.get(place)) {
            (Some(standing), Some(candidate)) if standing.failed => {
                let asked = hint.filter(|_| candidate.name == newest.target).unwrap_or_default();
                Step::Wait { until: now + asked + backoff(standing.burned, policy, chance) }
            }
            _ => Step::Call(place),
        },
        step => step,
    }
}

impl Availability {
    fn time(self) -> Option<Timestamp> {
        match self {
            Self::NotBefore(until) | Self::Throttled(until) => Some(until),
            Self::Ready | Self::Parked => None,
        }
    }
}

/// What the past says of one target of the chain.
#[derive(Debug, Clone, Copy, Default)]
struct Standing {
    /// Attempts burned.
    burned: u32,
    /// How often it gave cause to turn to the next target. Those with the fewest come first, so that every target has its
    /// turn before one has its second.
    passes: u32,
    /// Throttled so often in a row.
    throttles: u32,
    /// It has failed by a fault of its own.
    failed: bool,
    /// The prompt does not fit it.
    outgrown: bool,
}

type Standings = SmallVec<[Standing; 4]>;

impl Standing {
    fn of_chain(chain: &[Candidate], past: &[Past], policy: &Policy) -> Standings {
        let mut standings: Standings = chain.iter().map(|candidate| Self::of(&candidate.name, past, policy)).collect();
        // What did not fit a window fits none that is as small.
        let outgrown = chain.iter().zip(&standings).filter(|(_, standing)| standing.outgrown);
        if let Some(window) = outgrown.filter_map(|(candidate, _)| candidate.context_window).max() {
            for (candidate, standing) in chain.iter().zip(&mut standings) {
                standing.outgrown |= candidate.context_window.is_some_and(|own| own <= window);
            }
        }
        standings
    }

    fn of(name: &TargetName, past: &[Past], policy: &Policy) -> Self {
        let mut standing = Self::default();
        let mut billed = 0_u32;
        let mut throttled_for = Duration::ZERO;
        for past in past.iter().filter(|past| past.target == *name && !past.is_ours()) {
            standing.failed = true;
            standing.burned = standing.burned.saturating_add(u32::from(past.burns()));
            standing.throttles = if past.fault == Fault::Throttled { standing.throttles.saturating_add(1) } else { 0 };
            match past.fault {
                Fault::Unavailable => standing.passes = standing.passes.saturating_add(1),
                Fault::Transient if past.possibly_billed => {
                    billed += 1;
                    standing.passes = standing.passes.saturating_add(u32::from(billed > 1));
                }
                Fault::Throttled => {
                    // Without a hint nobody knows how long it will be; what has been waited so far must do.
                    throttled_for = throttled_for.saturating_add(ceiling(standing.throttles, policy));
                    if throttled_for > policy.spill_after {
                        standing.passes = standing.passes.saturating_add(1);
                        throttled_for = Duration::ZERO;
                    }
                }
                Fault::TooLong => standing.outgrown = true,
                _ => {}
            }
        }
        standing
    }

    /// Whether it may be called at all.
    fn is_eligible(&self, policy: &Policy) -> bool {
        !self.outgrown && self.burned < policy.retry.attempts.max(1)
    }
}

/// The first target in line that can be called, or what to wait for.
fn pick(
    chain: &[Candidate],
    standings: &Standings,
    policy: &Policy,
    now: Timestamp,
    availability: impl Fn(usize, &Candidate) -> Availability,
) -> Step {
    let mut line: SmallVec<[(u32, usize, &Candidate); 4]> = chain
        .iter()
        .zip(standings)
        .enumerate()
        .filter(|(_, (_, standing))| standing.is_eligible(policy))
        .map(|(place, (candidate, standing))| (standing.passes, place, candidate))
        .collect();
    line.sort_by_key(|(passes, place, _)| (*passes, *place));
    let mut parked = chain.is_empty();
    let mut earliest: Option<Timestamp> = None;
    for (_, place, candidate) in line {
        match availability(place, candidate) {
            Availability::Ready => return Step::Call(place),
            Availability::NotBefore(until) | Availability::Throttled(until) if until <= now => {
                return Step::Call(place);
            }
            Availability::NotBefore(until) => earliest = Some(earliest.map_or(until, |time| time.min(until))),
            Availability::Throttled(until) => {
                earliest = Some(earliest.map_or(until, |time| time.min(until)));
                if now.until(until) <= policy.spill_after {
                    break;
                }
            }
            Availability::Parked => parked = true,
        }
    }
    if let Some(until) = earliest {
        Step::Wait { until: until.min(now + LONGEST_HINT) }
    } else if parked {
        Step::Hold(HoldReason::TargetsParked)
    } else if standings.iter().all(|standing| standing.outgrown) {
        Step::Fail { reason_code: "too_long" }
    } else {
        Step::Fail { reason_code: "attempts_exhausted" }
    }
}

/// `initial_delay × 2^(n−1)`, capped at `max_delay`.
fn ceiling(n: u32, policy: &Policy) -> Duration {
    let doublings = n.saturating_sub(1).min(31);
    policy.retry.initial_delay.saturating_mul(1 << doublings).min(policy.retry.max_delay)
}

/// Full jitter: anything up to the ceiling.
fn backoff(n: u32, policy: &Policy, chance: f64) -> Duration {
    share(ceiling(n.max(1), policy), chance).max(LEAST_WAIT)
}

/// A throttle burns nothing, so it waits at least half the ceiling; where the provider names a time, that and a jitter of
/// up to one initial delay, so that not everybody is back in the same instant.
fn throttle_wait(throttles: u32, policy: &Policy, hint: Option<Duration>, chance: f64) -> Duration {
    let half = ceiling(throttles, policy) / 2;
    let (least, jitter) = hint.map_or((half, half), |hint| (hint, policy.retry.initial_delay));
    let wait = least.saturating_add(share(jitter, chance));
    wait.max(LEAST_WAIT)
}

fn share(span: Duration, chance: f64) -> Duration {
    // A chance that is no number is none.
    let chance = if chance.is_nan() { 0.0 } else { chance.clamp(0.0, 1.0) };
    Duration::try_from_secs_f64(span.as_secs_f64() * chance).unwrap_or(span).min(span)
}
