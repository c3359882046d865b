//! A test that begins again at each step, without forgetting.
//!
//! A candidate that did well for a week and then turns bad has the week on its side. So a share of the starting capital is
//! kept back, and with each rise of the candidate's percentage a fresh process is started from it:
//! E = Σ wᵢEᵢ + (what is kept back), with weights that sum to 1. While the hypothesis holds, none of the terms is expected
//! to grow. The price is a little delay for the first process: ln(1/0.8) on the way to ln(K/α).
//!
//! Only the fail side begins again. Passing is about the whole rollout.
//!
//! A weighted sum of e-processes is one, whatever starts each of them, so long as it does not look ahead; nothing more is
//! used. So it is as exact as what it restarts.

use serde::{Deserialize, Serialize};

use super::{Drift, EProcess, Levels, Side};

/// The weight of the process that runs from the beginning.
const FIRST: f64 = 0.8;

/// Most processes started later: each gets half of what is left.
const MOST_LATER: usize = 6;

/// One process from the beginning, and one from each later step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Restarted<P> {
    first: P,
    later: Vec<P>,
}

impl<P: EProcess> Restarted<P> {
    /// One process so far.
    pub fn new(first: P) -> Self {
        Self { first, later: Vec::new() }
    }

    /// Starts another, if there is still one to start.
    pub fn restart(&mut self) {
        if self.later.len() < MOST_LATER {
            self.later.push(self.first.fresh());
        }
    }

    /// Hands an observation to all of them.
    pub fn each(&mut self, mut observe: impl FnMut(&mut P)) {
        observe(&mut self.first);
        self.later.iter_mut().for_each(observe);
    }

    /// The process from the beginning.
    pub fn whole(&self) -> &P {
        &self.first
    }

    /// ln E of one side.
    pub fn ln_e(&self, side: Side) -> f64 {
        let whole = self.first.ln_e(side);
        if side == Side::Pass {
            return whole;
        }
        let mut kept = 1.0 - FIRST;
        let mut terms = vec![whole + FIRST.ln()];
        for process in &self.later {
            kept /= 2.0;
            terms.push(process.ln_e(side) + kept.ln());
        }
        terms.push(kept.ln());
        let greatest = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        greatest + terms.iter().map(|term| (term - greatest).exp()).sum::<f64>().ln()
    }

    /// Observations still needed, and for which conclusion, if what was seen so far is what is true.
    pub fn remaining(&self, levels: Levels) -> Option<(Side, f64)> {
        let Drift { side, rate } = self.first.drift()?;
        let observations = (levels.ln_threshold(side) - self.ln_e(side)).max(0.0) / rate;
        observations.is_finite().then_some((side, observations))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::process::{BlockTest, Margin};

    #[test]
    fn a_late_regression_is_found_sooner() {
        let levels = Levels::new(0.05, 1);
        let detect = |restarts: bool| {
            let mut test = Restarted::new(BlockTest::new(Margin::Points(0.01)).unwrap());
            // 4,000 good blocks: one failure in 100 on either side.
            for i in 0..4_000_u32 {
                let (y, s) = (i % 100 == 50, u32::from(i % 11 == 0));
                test.each(|test| test.observe(y, 9, s));
            }
            if restarts {
                test.restart();
            }
            (0_u32..20_000).find(|i| {
                let (y, s) = (i % 20 == 10, u32::from(i % 11 == 0));
                test.each(|test| test.observe(y, 9, s));
                test.ln_e(Side::Fail) >= levels.ln_threshold(Side::Fail)
            })
        };
        let (with, without) = (detect(true).unwrap(), detect(false).unwrap());
        assert!(with * 3 < without, "{with} with, {without} without");
    }

    #[test]
    fn the_weights_sum_to_one() {
        let mut test = Restarted::new(BlockTest::new(Margin::Points(0.01)).unwrap());
        for _ in 0..20 {
            assert!(test.ln_e(Side::Fail).abs() < 1e-12);
            test.restart();
        }
        assert_eq!(test.later.len(), MOST_LATER);
    }
}
