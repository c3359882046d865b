//! What each pipeline and each caller has spent today, in UTC days, for their budgets.
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
    by_caller: BTreeMap<String, Usd>,
}

/// The running sums of today.
#[derive(Debug)]
pub struct Spending(Mutex<Day>);

impl Spending {
    /// Starts from what the ledger says of today.
    pub fn starting(now: Timestamp, spent: BTreeMap<PipelineName, Usd>, by_caller: BTreeMap<String, Usd>) -> Self {
        Self(Mutex::new(Day { start: day_start(now), spent, by_caller }))
    }

    /// Adds a cost.
    pub fn add(&self, pipeline: &PipelineName, caller: &str, cost: Usd, now: Timestamp) {
        let mut day = self.today(now);
        if !caller.is_empty() {
            *day.by_caller.entry(caller.to_owned()).or_default() += cost;
        }
        *day.spent.entry(pipeline.clone()).or_default() += cost;
    }

    /// What a pipeline has spent today.
    pub fn of(&self, pipeline: &PipelineName, now: Timestamp) -> Usd {
        self.today(now).spent.get(pipeline).copied().unwrap_or_default()
    }

    /// What a caller has spent today.
    pub fn by(&self, caller: &str, now: Timestamp) -> Usd {
        self.today(now).by_caller.get(caller).copied().unwrap_or_default()
    }

    fn today(&self, now: Timestamp) -> std::sync::MutexGuard<'_, Day> {
        let mut day = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = day_start(now);
        if start > day.start {
            *day = Day { start, spent: BTreeMap::new(), by_caller: BTreeMap::new() };
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
        let spending =
            Spending::starting(noon, BTreeMap::from([(pipeline.clone(), "1.5".parse().unwrap())]), BTreeMap::new());
        spending.add(&pipeline, "key-1", "0.25".parse().unwrap(), noon);
        assert_eq!(spending.of(&pipeline, noon).to_string(), "1.75");
        assert_eq!((spending.by("key-1", noon).to_string(), spending.by("", noon)), ("0.25".to_owned(), Usd::ZERO));
        assert_eq!(spending.of(&pipeline, "2026-11-23T00:00:00Z".parse().unwrap()), Usd::ZERO);
    }
}
