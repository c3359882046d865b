//! Blocks: one outcome of the candidate and k of the baseline, next to each other in the order of dispatch.
//!
//! Invariant: which outcomes make a block is decided by their arms and places alone, never by how they ended. Bounded: at most
//! [`MOST_OPEN`] blocks wait for the rest of their outcomes, each as a few sums.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::row::{Arm, Counted, Latency};
use crate::{money::BasisPoints, rollout::bits};

/// Most blocks that wait; then the oldest goes. Keeps what is compared close in time, at a loss of about one outcome of the
/// candidate in a hundred.
pub const MOST_OPEN: usize = 32;

/// Most outcomes of the baseline in a block: beyond, they say next to nothing more about the difference.
pub const MOST_BASELINES: u32 = 99;

/// What one outcome adds to a block.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Measures {
    /// Failed, or too late.
    pub failed: bool,
    /// Answered, but not validly.
    pub invalid: bool,
    /// The logarithm of its seconds.
    pub ln_latency: Option<f64>,
    /// Its cost in dollars.
    pub cost: Option<f64>,
    /// Its score.
    pub score: Option<f64>,
}

impl Measures {
    /// What a counted leg adds, its cost cut at `cost_cap`.
    pub fn of(counted: &Counted, cost_cap: f64) -> Self {
        Self {
            failed: counted.failed,
            invalid: counted.invalid,
            ln_latency: match counted.latency {
                Latency::Took(latency) | Latency::Beyond(latency) => Some(latency.as_secs_f64().max(1e-6).ln()),
                Latency::Unknown => None,
            },
            cost: counted.cost.map(|cost| cost.min(cost_cap)),
            score: None,
        }
    }
}

/// A number of values and their sum.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Sum {
    n: u32,
    #[serde(with = "bits")]
    sum: f64,
}

impl Sum {
    fn add(&mut self, value: Option<f64>) {
        if let Some(value) = value {
            self.n = self.n.saturating_add(1);
            self.sum += value;
        }
    }

    /// The mean, if there is a value.
    pub fn mean(&self) -> Option<f64> {
        (self.n > 0).then(|| self.sum / f64::from(self.n))
    }
}

/// Outcomes of one arm in a block.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// How many.
    pub outcomes: u32,
    /// Of these, failed.
    pub failed: u32,
    /// Of these, invalid.
    pub invalid: u32,
    /// Logarithms of seconds.
    pub ln_latency: Sum,
    /// Dollars.
    pub cost: Sum,
    /// Scores.
    pub score: Sum,
}

impl Tally {
    fn add(&mut self, measures: &Measures) {
        self.outcomes += 1;
        self.failed += u32::from(measures.failed);
        self.invalid += u32::from(measures.invalid);
        self.ln_latency.add(measures.ln_latency);
        self.cost.add(measures.cost);
        self.score.add(measures.score);
    }
}

/// A block, complete when it is handed out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Block {
    /// The lowest number of its outcomes.
    pub earliest: u64,
    /// The candidate's: one outcome.
    pub candidate: Tally,
    /// The baseline's: k outcomes.
    pub baseline: Tally,
}

/// Outcomes on their way into blocks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Blocks {
    share: BasisPoints,
    k: u32,
    open: VecDeque<Block>,
}

impl Default for Blocks {
    fn default() -> Self {
        Self { share: BasisPoints::NONE, k: 1, open: VecDeque::new() }
    }
}

/// Outcomes of the baseline in a block when the candidate has `share`: as many as come by in the meantime, and fixed before
/// any of them is seen.
pub fn baselines(share: BasisPoints) -> u32 {
    let share = u32::from(share.get()).max(1);
    ((10_000 - share.min(10_000)) / share).clamp(1, MOST_BASELINES)
}

impl Blocks {
    /// Takes the next outcome in the order of dispatch; hands out the block that it completes. With another share another
    /// kind of block begins, and what is incomplete is dropped.
    pub fn offer(&mut self, sequence: u64, arm: Arm, share: BasisPoints, measures: &Measures) -> Option<Block> {
        if share == BasisPoints::NONE || share == BasisPoints::ALL {
            return None;
        }
        if share != self.share {
            *self = Self { share, k: baselines(share), open: VecDeque::new() };
        }
        let k = self.k;
        let lacking = |block: &Block| match arm {
            Arm::Candidate => block.candidate.outcomes == 0,
            Arm::Baseline => block.baseline.outcomes < k,
        };
        if !self.open.iter().any(lacking) {
            if self.open.len() >= MOST_OPEN {
                self.open.pop_front();
            }
            let empty = Block { earliest: sequence, candidate: Tally::default(), baseline: Tally::default() };
            self.open.push_back(empty);
        }
        let block = self.open.iter_mut().find(|block| lacking(block))?;
        block.earliest = block.earliest.min(sequence);
        match arm {
            Arm::Candidate => block.candidate.add(measures),
            Arm::Baseline => block.baseline.add(measures),
        }
        // Both arms fill the oldest first, so only the oldest can be complete.
        let complete =
            self.open.front().is_some_and(|block| block.candidate.outcomes == 1 && block.baseline.outcomes == k);
        if complete { self.open.pop_front() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(points: u16) -> BasisPoints {
        BasisPoints::new(points).unwrap()
    }

    #[test]
    fn the_size_follows_the_share() {
        for (points, k) in
            [(0, 99), (1, 99), (100, 99), (101, 98), (1_000, 9), (3_000, 2), (5_000, 1), (9_000, 1), (10_000, 1)]
        {
            assert_eq!(baselines(share(points)), k, "{points}");
        }
    }

    #[test]
    fn blocks_are_one_and_k_in_order() {
        let mut blocks = Blocks::default();
        let mut complete = Vec::new();
        // Three baselines, a candidate, and so on: k = 3.
        for sequence in 0..40 {
            let arm = if sequence % 4 == 3 { Arm::Candidate } else { Arm::Baseline };
            let measures = Measures { failed: sequence == 4, cost: Some(1.0), ..Measures::default() };
            complete.extend(blocks.offer(sequence, arm, share(2_500), &measures));
        }
        assert_eq!(complete.len(), 10);
        for (i, block) in complete.iter().enumerate() {
            assert_eq!(block.earliest, 4 * i as u64);
            assert_eq!((block.candidate.outcomes, block.baseline.outcomes), (1, 3));
            assert_eq!(block.baseline.failed, u32::from(i == 1));
            assert_eq!(block.baseline.cost.mean(), Some(1.0));
            assert_eq!(block.baseline.score.mean(), None);
        }
    }

    #[test]
    fn what_waits_is_bounded_and_fresh() {
        let mut blocks = Blocks::default();
        for sequence in 0..10_000 {
            assert_eq!(blocks.offer(sequence, Arm::Baseline, share(5_000), &Measures::default()), None);
        }
        assert_eq!(blocks.open.len(), MOST_OPEN);
        let block = blocks.offer(10_000, Arm::Candidate, share(5_000), &Measures::default()).unwrap();
        assert_eq!(block.earliest, 10_000 - MOST_OPEN as u64);
        // Another share: nothing that waits is mixed into its blocks.
        assert_eq!(blocks.offer(10_001, Arm::Candidate, share(2_500), &Measures::default()), None);
        assert_eq!(blocks.open.len(), 1);
        // Nobody to compare with.
        assert_eq!(blocks.offer(10_002, Arm::Candidate, BasisPoints::ALL, &Measures::default()), None);
        assert_eq!(blocks.open.len(), 1);
    }
}
