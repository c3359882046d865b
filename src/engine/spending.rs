//! What each pipeline has spent today, in UTC days, for its budget.
//!
//! Invariant: starts from the ledger and adds every settled cost once; a new day starts at zero.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use crate::{clock::Timestamp, money::Usd, names::PipelineName};

const DAY_MICROS: i64 = 86_400_000_000;
/// A day: what a ledger keeps at least, because budgets are by day.
pub const DAY: std::time::Duration = std::time::Duration::from_hours(24);

/// The first moment of a day.
pub fn day_start(now: Timestamp) -> Timestamp {
    Timestamp::from_micros(now.as_micros().div_euclid(DAY_MICROS).saturating_mul(DAY_MICROS))
}

#[derive(Debug)]
struct Day {
    start: Timestamp,
    spent: BTreeMap<PipelineName, Usd>,
}

/// The running sums of today.
#[derive(Debug)]
pub struct Spending(Mutex<Day>);

impl Spending {
    /// Starts from what the ledger says of today.
    pub fn starting(now: Timestamp, spent: BTreeMap<PipelineName, Usd>) -> Self {
        Self(Mutex::new(Day { start: day_start(now), spent }))
    }

    /// Adds a cost.
    pub fn add(&self, pipeline: &PipelineName, cost: Usd, now: Timestamp) {
        let mut day = self.today(now);
        *day.spent.entry(pipeline.clone()).or_default() += cost;
    }

    /// What a pipeline has spent today.
    pub fn of(&self, pipeline: &PipelineName, now: Timestamp) -> Usd {
        self.today(now).spent.get(pipeline).copied().unwrap_or_default()
    }

    fn today(&self, now: Timestamp) -> std::sync::MutexGuard<'_, Day> {
        let mut day = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = day_start(now);
        if start > day.start {
            *day = Day { start, spent: BTreeMap::new() };
        }
        day
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_day_starts_at_zero() {
        let pipeline = PipelineName::new("p").unwrap();
        let noon: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let spending = Spending::starting(noon, BTreeMap::from([(pipeline.clone(), "1.5".parse().unwrap())]));
        spending.add(&pipeline, "0.25".parse().unwrap(), noon);
        assert_eq!(spending.of(&pipeline, noon).to_string(), "1.75");
        assert_eq!(spending.of(&pipeline, "2026-11-23T00:00:00Z".parse().unwrap()), Usd::ZERO);
    }
}
