//! What went where: sums of ended calls by hour, pipeline, target and model.
//!
//! Invariant: an attempt is added once, when it closes; reading sums costs what there are names and hours, however many
//! calls there were. Answered, failed and possibly billed calls never mix: what was answered has a reported cost, what was
//! possibly billed only the most that it may have cost.

use crate::{
    clock::Timestamp,
    job::{Attempt, Outcome},
    money::Usd,
    names::{PipelineName, ProviderName, TargetName},
    store::AttemptEnd,
    usage::Usage,
};

/// Microseconds of an hour.
pub(super) const HOUR: i64 = 3_600_000_000;

/// The hour that a moment is in.
pub(super) fn hour_of(at: Timestamp) -> i64 {
    at.as_micros().div_euclid(HOUR)
}

/// What sums are kept by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrafficKey {
    /// The pipeline.
    pub pipeline: PipelineName,
    /// Its target.
    pub target: TargetName,
    /// The target's provider.
    pub provider: ProviderName,
    /// The model asked for.
    pub model: String,
}

/// Sums over ended calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Calls.
    pub attempts: u64,
    /// Calls that were answered: as many jobs.
    pub answered: u64,
    /// Calls that ended without an answer and may have been billed all the same.
    pub possibly_billed: u64,
    /// What answers consumed, as reported.
    pub usage: Usage,
    /// What answers cost, where the price is known.
    pub cost: Usd,
    /// Answered calls whose cost is not known.
    pub unpriced: u64,
    /// The most that possibly billed calls may have cost.
    pub possible_cost: Usd,
    /// Possibly billed calls of which not even that is known.
    pub unbounded: u64,
}

impl Traffic {
    /// One call; `most` is the most that it may have cost.
    pub(super) fn of(end: &AttemptEnd, most: Option<Usd>) -> Self {
        let answered = end.outcome == Outcome::Succeeded;
        Self {
            attempts: 1,
            answered: u64::from(answered),
            possibly_billed: u64::from(end.possibly_billed),
            usage: end.usage.unwrap_or_default(),
            cost: end.cost.unwrap_or_default(),
            unpriced: u64::from(answered && end.cost.is_none()),
            possible_cost: most.filter(|_| end.possibly_billed).unwrap_or_default(),
            unbounded: u64::from(end.possibly_billed && most.is_none()),
        }
    }
}

impl Traffic {
    /// What a closed attempt was added as.
    pub(super) fn of_attempt(attempt: &Attempt) -> Self {
        let answered = attempt.outcome == Outcome::Succeeded;
        let (billed, most) = (attempt.possibly_billed, attempt.possible_cost_usd);
        Self {
            attempts: 1,
            answered: u64::from(answered),
            possibly_billed: u64::from(billed),
            usage: attempt.usage.unwrap_or_default(),
            cost: attempt.cost_usd.unwrap_or_default(),
            unpriced: u64::from(answered && attempt.cost_usd.is_none()),
            possible_cost: most.filter(|_| billed).unwrap_or_default(),
            unbounded: u64::from(billed && most.is_none()),
        }
    }

    /// What a call whose end nobody had seen was added as.
    pub(super) fn of_unseen(possibly_billed: bool, usage: Usage, most: Option<Usd>) -> Self {
        Self {
            attempts: 1,
            possibly_billed: u64::from(possibly_billed),
            usage,
            possible_cost: most.filter(|_| possibly_billed).unwrap_or_default(),
            unbounded: u64::from(possibly_billed && most.is_none()),
            ..Self::default()
        }
    }
}

/// Takes out what was added before: a call whose end was not seen, once its end is known.
impl std::ops::SubAssign for Traffic {
    fn sub_assign(&mut self, other: Self) {
        let less = |sum: &mut u64, by: u64| *sum = sum.saturating_sub(by);
        less(&mut self.attempts, other.attempts);
        less(&mut self.answered, other.answered);
        less(&mut self.possibly_billed, other.possibly_billed);
        less(&mut self.usage.input, other.usage.input);
        less(&mut self.usage.output, other.usage.output);
        less(&mut self.usage.cache_read, other.usage.cache_read);
        less(&mut self.usage.cache_write, other.usage.cache_write);
        less(&mut self.usage.reasoning, other.usage.reasoning);
        less(&mut self.unpriced, other.unpriced);
        less(&mut self.unbounded, other.unbounded);
        self.cost = Usd(self.cost.0.saturating_sub(other.cost.0));
        self.possible_cost = Usd(self.possible_cost.0.saturating_sub(other.possible_cost.0));
    }
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.attempts += other.attempts;
        self.answered += other.answered;
        self.possibly_billed += other.possibly_billed;
        self.usage += other.usage;
        self.cost += other.cost;
        self.unpriced += other.unpriced;
        self.possible_cost += other.possible_cost;
        self.unbounded += other.unbounded;
    }
}
