//! A mean of unbounded numbers, watched by an asymptotic confidence sequence.
//!
//! Each x is worse the greater it is; the hypothesis is a mean of at most `limit`. After n of them, with the mean x̄ and the
//! standard error SE = s/√n, the candidate fails when x̄ − w > limit and passes when x̄ + w ≤ limit, where
//!
//! w = SE · √(2(η+1)/η · ln(1 + √(η+1)/(2α))), η = n·ρ², ρ² = (−2 ln 2α + ln(1 − 2 ln 2α))/n*, n* = 500
//!
//! (ρ makes the sequence tightest around n*). Nothing is concluded during the burn-in, nor while all x are the same.
//!
//! Used for
//! - *latency*: x is the candidate's log latency minus the mean log latency of its block's baseline, so that a slow hour
//!   cancels; burn-in 100, the limit ln(ratio). It compares geometric means;
//! - *cost without a shadow*: x is the capped cost minus ratio × the mean capped cost of its block's baseline; burn-in 200.
//!
//! Source: Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, "Time-uniform central limit theory and asymptotic confidence
//! sequences", arXiv 2103.06476, equation 134. The error rate holds in the limit, not for every n. What breaks it: rare
//! large values (before the first is seen there is no variance; hence the cap and the burn-in), and any use for rates of
//! rare events, which have an exact test.

use serde::{Deserialize, Serialize};

use super::{Levels, Side};
use crate::rollout::bits;

/// Where the sequence is tightest.
const TIGHTEST: f64 = 500.0;

/// Numbers beyond this are cut, so that their squares can be added up.
const LARGEST: f64 = 1e100;

/// The number of observations that no outlook goes beyond.
const HORIZON: f64 = 1e12;

/// A mean, compared with a limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeanSequence {
    #[serde(with = "bits")]
    limit: f64,
    burn_in: u32,
    seen: u64,
    #[serde(with = "bits")]
    mean: f64,
    /// The sum of squared distances from the mean.
    #[serde(with = "bits")]
    spread: f64,
}

impl MeanSequence {
    /// A test of a mean against `limit` that says nothing before `burn_in` numbers; `None` if the limit is no number.
    pub fn new(limit: f64, burn_in: u32) -> Option<Self> {
        limit.is_finite().then_some(Self { limit, burn_in, seen: 0, mean: 0.0, spread: 0.0 })
    }

    /// One number; what is no number is left out.
    pub fn observe(&mut self, x: f64) {
        if x.is_nan() {
            return;
        }
        let x = x.clamp(-LARGEST, LARGEST);
        self.seen = self.seen.saturating_add(1);
        let step = x - self.mean;
        self.mean += step / self.seen as f64;
        self.spread += step * (x - self.mean);
    }

    /// The mean seen so far.
    pub fn mean(&self) -> Option<f64> {
        (self.seen > 0).then_some(self.mean)
    }

    /// What the numbers so far prove.
    pub fn proves(&self, levels: Levels) -> Option<Side> {
        if self.seen < u64::from(self.burn_in) || self.spread <= 0.0 {
            return None;
        }
        let n = self.seen as f64;
        if self.mean - self.width(n, levels.fail) > self.limit {
            Some(Side::Fail)
        } else if self.mean + self.width(n, levels.pass) <= self.limit {
            Some(Side::Pass)
        } else {
            None
        }
    }

    /// Numbers still needed, and for which conclusion, if what was seen so far is what is true.
    pub fn remaining(&self, levels: Levels) -> Option<(Side, f64)> {
        if self.seen < 2 || self.spread <= 0.0 {
            return None;
        }
        let side = if self.mean > self.limit { Side::Fail } else { Side::Pass };
        let (distance, alpha) = ((self.mean - self.limit).abs(), levels.of(side));
        let seen = self.seen as f64;
        let mut low = seen.max(f64::from(self.burn_in));
        if self.width(low, alpha) < distance {
            return Some((side, low - seen));
        }
        let mut high = low * 2.0;
        while self.width(high, alpha) >= distance {
            if high > HORIZON {
                return None;
            }
            (low, high) = (high, high * 2.0);
        }
        for _ in 0..40 {
            let middle = low.midpoint(high);
            if self.width(middle, alpha) < distance {
                high = middle;
            } else {
                low = middle;
            }
        }
        Some((side, high - seen))
    }

    /// The half width after `n` numbers with the variance seen so far.
    fn width(&self, n: f64, alpha: f64) -> f64 {
        let variance = self.spread / (self.seen.max(2) - 1) as f64;
        let doubled = (2.0 * alpha).ln();
        // At α = ½ there is nothing to bound; the sequence then is as wide as at a hair below.
        let rho_squared = (-2.0 * doubled + (1.0 - 2.0 * doubled).ln()).max(1e-9) / TIGHTEST;
        let eta = n * rho_squared;
        let factor = 2.0 * (eta + 1.0) / eta * ((eta + 1.0).sqrt() / (2.0 * alpha)).ln_1p();
        (variance / n * factor).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_said_during_the_burn_in_or_without_variance() {
        let levels = Levels::new(0.05, 1);
        let mut test = MeanSequence::new(0.0, 100).unwrap();
        for i in 0..99 {
            test.observe(5.0 + f64::from(i % 2));
        }
        assert_eq!(test.proves(levels), None);
        assert_eq!(test.remaining(levels), Some((Side::Fail, 1.0)));
        test.observe(5.0);
        assert_eq!(test.proves(levels), Some(Side::Fail));

        let mut same = MeanSequence::new(0.0, 100).unwrap();
        (0..1_000).for_each(|_| same.observe(5.0));
        assert_eq!((same.proves(levels), same.remaining(levels)), (None, None));
        assert!(MeanSequence::new(f64::INFINITY, 100).is_none());
    }

    #[test]
    fn the_outlook_comes_true_when_the_figures_stay() {
        let levels = Levels::new(0.05, 3);
        for (limit, expected) in [(-0.2, Side::Fail), (0.2, Side::Pass)] {
            let mut test = MeanSequence::new(limit, 100).unwrap();
            let feed = |test: &mut MeanSequence, i: u32| test.observe(if i.is_multiple_of(2) { 1.0 } else { -1.0 });
            (0..100).for_each(|i| feed(&mut test, i));
            let (side, more) = test.remaining(levels).unwrap();
            assert_eq!(side, expected);
            let mut needed = 0_u32;
            while test.proves(levels).is_none() {
                feed(&mut test, needed);
                needed += 1;
            }
            assert!((f64::from(needed) - more).abs() < 12.0, "{needed} {more}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_numbers_are_survived(numbers in proptest::collection::vec(proptest::num::f64::ANY, 0..200)) {
            let levels = Levels::new(0.05, 3);
            let mut test = MeanSequence::new(0.1, 10).unwrap();
            for x in numbers {
                test.observe(x);
                let _ = test.proves(levels);
                proptest::prop_assert!(test.remaining(levels).is_none_or(|(_, more)| more.is_finite() && more >= 0.0));
                proptest::prop_assert!(test.mean().is_none_or(f64::is_finite));
            }
        }
    }
}
