//! The ledger of a time in little memory: what calls came to, by where they went.
//!
//! Invariant: memory follows the number of places and of slots of time, never the number of calls.

use std::collections::BTreeMap;

use super::quantiles::Quantiles;
use crate::{
    clock::Timestamp,
    job::{Fault, Outcome},
    money::Usd,
    names::{PipelineName, ProviderName},
    store::{LedgerPage, LedgerRow, TrafficKey},
    usage::Usage,
};

/// Places told apart at most; calls elsewhere are only counted.
const MOST_PLACES: usize = 20_000;

/// What the calls to one place, or to some together, came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sums {
    /// All ended calls.
    pub calls: u64,
    /// Those that were answered.
    pub answered: u64,
    /// Those that were not, by fault.
    pub faults: BTreeMap<&'static str, u64>,
    /// Milliseconds that answered calls took.
    pub took: Quantiles,
    /// Milliseconds to the first piece of streamed answers.
    pub first_token: Quantiles,
    /// The estimate of a prompt over what it had.
    pub estimate: Quantiles,
    /// Prompts that had more tokens than the estimate, which is meant to be the most.
    pub underestimated: u64,
    /// Prompt and answer over the model's window.
    pub window: Quantiles,
    /// What was consumed, as reported.
    pub usage: Usage,
    /// What answered calls consumed.
    pub answered_usage: Usage,
    /// What it cost, where known.
    pub cost: Usd,
    /// What answered calls cost, where known.
    pub answered_cost: Usd,
    /// Answered calls without a known cost.
    pub unpriced: u64,
    /// Calls that may have been billed without an answer.
    pub possibly_billed: u64,
    /// The most that those may have cost.
    pub possible_cost: Usd,
    /// Those of which not even that is known.
    pub unbounded: u64,
    /// Answers to jobs that another target had been tried for before.
    pub rescued: u64,
}

impl Sums {
    fn add(&mut self, row: &LedgerRow, window: Option<u64>) {
        self.calls += 1;
        if let Some(usage) = row.usage {
            self.usage += usage;
        }
        self.cost += row.cost.unwrap_or_default();
        if row.possibly_billed {
            self.possibly_billed += 1;
            self.possible_cost += row.possible_cost.unwrap_or_default();
            self.unbounded += u64::from(row.possible_cost.is_none());
        }
        if row.outcome != Outcome::Succeeded {
            let fault = row.fault.unwrap_or(if row.outcome == Outcome::Interrupted {
                Fault::Interrupted
            } else {
                Fault::Unknown
            });
            *self.faults.entry(fault.into()).or_default() += 1;
            return;
        }
        self.answered += 1;
        self.rescued += u64::from(row.rescued);
        self.unpriced += u64::from(row.cost.is_none());
        self.answered_cost += row.cost.unwrap_or_default();
        self.took.add(row.took.as_secs_f64() * 1_000.0);
        if let Some(first) = row.first_token {
            self.first_token.add(first.as_secs_f64() * 1_000.0);
        }
        let Some(usage) = row.usage else { return };
        self.answered_usage += usage;
        if let (Some(estimate), prompt @ 1..) = (row.prompt_estimate, usage.prompt()) {
            self.estimate.add(estimate as f64 / prompt as f64);
            self.underestimated += u64::from(estimate < prompt);
        }
        if let Some(window @ 1..) = window {
            self.window.add(usage.total() as f64 / window as f64);
        }
    }

    /// Adds what other calls came to.
    pub fn merge(&mut self, other: &Self) {
        self.calls += other.calls;
        self.answered += other.answered;
        for (fault, count) in &other.faults {
            *self.faults.entry(fault).or_default() += count;
        }
        self.took.merge(&other.took);
        self.first_token.merge(&other.first_token);
        self.estimate.merge(&other.estimate);
        self.underestimated += other.underestimated;
        self.window.merge(&other.window);
        self.usage += other.usage;
        self.answered_usage += other.answered_usage;
        self.cost += other.cost;
        self.answered_cost += other.answered_cost;
        self.unpriced += other.unpriced;
        self.possibly_billed += other.possibly_billed;
        self.possible_cost += other.possible_cost;
        self.unbounded += other.unbounded;
        self.rescued += other.rescued;
    }

    /// Calls that failed by a fault.
    pub fn by(&self, fault: Fault) -> u64 {
        self.faults.get(<&str>::from(fault)).copied().unwrap_or(0)
    }

    /// Answered calls whose cost is known.
    pub fn priced(&self) -> u64 {
        self.answered.saturating_sub(self.unpriced)
    }
}

/// What calls of a slot of time to one provider came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Point {
    /// All.
    pub calls: u64,
    /// Those that were answered.
    pub answered: u64,
    /// What it cost.
    pub cost: Usd,
    /// Milliseconds that answered calls took.
    pub took: Quantiles,
}

/// The ledger from a moment on.
#[derive(Debug, Clone)]
pub struct Digest {
    /// By place.
    pub places: BTreeMap<TrafficKey, Sums>,
    /// By slot of time, and by provider.
    pub slots: BTreeMap<(i64, ProviderName), Point>,
    /// Microseconds of a slot.
    pub slot: i64,
    /// Calls to more places than are told apart.
    pub left_out: u64,
    windows: BTreeMap<TrafficKey, Option<u64>>,
}

/// An hour, and a day, in microseconds.
const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;

impl Digest {
    /// An empty one for a time: in hours up to three days, in days up to two months, else in weeks or more, so that there
    /// are some sixty slots at most.
    pub fn new(since: Timestamp, until: Timestamp) -> Self {
        let span = until.as_micros().saturating_sub(since.as_micros());
        let slot = match span {
            ..=259_200_000_000 => HOUR,
            _ => DAY.max(span / (60 * DAY) * DAY),
        };
        Self { places: BTreeMap::new(), slots: BTreeMap::new(), slot, left_out: 0, windows: BTreeMap::new() }
    }

    /// Adds a page. `window` knows the context windows of models; `wanted` which pipelines are asked about.
    pub fn add(
        &mut self,
        page: &LedgerPage,
        window: impl Fn(&TrafficKey) -> Option<u64>,
        wanted: impl Fn(&PipelineName) -> bool,
    ) {
        let mut by_place: Vec<Vec<&LedgerRow>> = vec![Vec::new(); page.places.len()];
        for row in &page.rows {
            if let Some(rows) = by_place.get_mut(row.place) {
                rows.push(row);
            }
        }
        for (key, rows) in page.places.iter().zip(by_place).filter(|(key, _)| wanted(&key.pipeline)) {
            if self.places.len() >= MOST_PLACES && !self.places.contains_key(key) {
                self.left_out += rows.len() as u64;
                continue;
            }
            let window = *self.windows.entry(key.clone()).or_insert_with(|| window(key));
            let sums = self.places.entry(key.clone()).or_default();
            for row in rows {
                sums.add(row, window);
                let slot = row.ended_at.as_micros().div_euclid(self.slot);
                let point = self.slots.entry((slot, key.provider.clone())).or_default();
                point.calls += 1;
                point.cost += row.cost.unwrap_or_default();
                if row.outcome == Outcome::Succeeded {
                    point.answered += 1;
                    point.took.add(row.took.as_secs_f64() * 1_000.0);
                }
            }
        }
    }

    /// What calls came to that a test picks, all together.
    pub fn of(&self, picks: impl Fn(&TrafficKey) -> bool) -> Sums {
        let mut sums = Sums::default();
        for (_, some) in self.places.iter().filter(|(key, _)| picks(key)) {
            sums.merge(some);
        }
        sums
    }
}
