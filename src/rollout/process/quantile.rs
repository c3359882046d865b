//! Quantiles of two arms' latencies, exactly.
//!
//! Of n values, the number s that lie at or below the true p-quantile is binomial. Those s for which
//!
//! B(κp + s, κ(1−p) + n − s) / B(κp, κ(1−p)) / (p^s · (1−p)^(n−s)) < 2/α
//!
//! are the *ranks* still believable; the ordered values at the lowest and just above the highest bound the quantile at all n
//! at once (the 2 shares α between the arms). The candidate fails when its lower bound exceeds ratio × the baseline's upper
//! bound, and passes when its upper bound is at most ratio × the baseline's lower bound.
//!
//! Values are kept in bins a hundredth apart, and the bins' outer edges are used, so that nothing is claimed that the values
//! do not prove. A value that was never seen because it took too long is infinite, and harmless.
//!
//! Source: Howard, Ramdas, "Sequential estimation of quantiles with applications to A/B testing and best-arm
//! identification", arXiv 1906.09712. Assumes that an arm's values come from one law: a quantile that drifts during the test
//! is a mixture's. Needs numbers: an upper bound of p95 exists from about 120 values on, of p99 from about 450.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Levels, Side};
use crate::rollout::beta::{ln_beta, x_ln_y};

/// The weight κ of the prior around p.
const PRIOR_WEIGHT: f64 = 30.0;

/// The width of a bin, as a logarithm.
const BIN: f64 = 0.01;

/// The bin of values that took too long: above e^50, whatever the unit.
const ENDLESS: u16 = 10_000;

/// Doublings that an outlook tries.
const MOST_DOUBLINGS: i32 = 24;

/// One arm: its values by bin, and the believable ranks.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Arm {
    seen: u64,
    bins: BTreeMap<u16, u64>,
    lowest: u64,
    highest: u64,
}

/// Which ranks are believable at one level.
#[derive(Debug, Clone, Copy)]
pub struct Ranks {
    p: f64,
    ln_limit: f64,
    ln_prior: f64,
}

impl Ranks {
    /// Ranks of the `p`-quantile at error rate `alpha`, half of it for each of two arms.
    pub fn new(p: f64, alpha: f64) -> Self {
        Self { p, ln_limit: (2.0 / alpha).ln(), ln_prior: ln_beta(PRIOR_WEIGHT * p, PRIOR_WEIGHT * (1.0 - p)) }
    }

    fn believable(self, s: f64, n: f64) -> bool {
        let (p, q) = (self.p, 1.0 - self.p);
        let ln_e =
            ln_beta(PRIOR_WEIGHT * p + s, PRIOR_WEIGHT * q + n - s) - self.ln_prior - x_ln_y(s, p) - x_ln_y(n - s, q);
        ln_e < self.ln_limit
    }

    /// The lowest believable rank of `n`, found from a guess that is not above it by much.
    fn lowest(self, n: u64, guess: u64) -> u64 {
        let mut rank = guess.min(n);
        while rank < n && !self.believable(rank as f64, n as f64) {
            rank += 1;
        }
        while rank > 0 && self.believable((rank - 1) as f64, n as f64) {
            rank -= 1;
        }
        rank
    }

    /// The highest believable rank of `n`, found from a guess that is not below it by much.
    fn highest(self, n: u64, guess: u64) -> u64 {
        let mut rank = guess.min(n);
        while rank > 0 && !self.believable(rank as f64, n as f64) {
            rank -= 1;
        }
        while rank < n && self.believable((rank + 1) as f64, n as f64) {
            rank += 1;
        }
        rank
    }

    /// The same two for an `n` far from the last one, by halving; the middle is always believable.
    fn both_afar(self, n: f64) -> (f64, f64) {
        let middle = (n * self.p).round();
        let (mut low, mut high) = ((-1.0, middle), (middle, n + 1.0));
        while low.1 - low.0 > 1.0 {
            let at = low.0.midpoint(low.1).floor();
            if self.believable(at.max(0.0), n) { low.1 = at } else { low.0 = at }
        }
        while high.1 - high.0 > 1.0 {
            let at = high.0.midpoint(high.1).floor();
            if self.believable(at.min(n), n) { high.0 = at } else { high.1 = at }
        }
        (low.1.max(0.0), high.0.min(n))
    }
}

impl Arm {
    fn observe(&mut self, value: f64) {
        *self.bins.entry(bin(value)).or_default() += 1;
        self.seen = self.seen.saturating_add(1);
        // The believable ranks move up with n; this keeps the guess above them.
        self.highest = self.highest.saturating_add(1);
    }

    /// The bin of the value that has `rank` values at or below it, itself included, of `total` as spread as those seen.
    fn bin_at(&self, rank: f64, total: f64) -> Option<u16> {
        let seen = self.seen as f64;
        let wanted = rank / total * seen - 1e-9;
        if wanted <= seen / 2.0 {
            let mut upto = 0.0;
            return self.bins.iter().find_map(|(bin, count)| {
                upto += *count as f64;
                (upto >= wanted).then_some(*bin)
            });
        }
        // High quantiles are near the upper end: the first bin from there that has fewer than wanted below it.
        let mut below = seen;
        self.bins.iter().rev().find_map(|(bin, count)| {
            below -= *count as f64;
            (below < wanted).then_some(*bin)
        })
    }

    /// The bound from below after `total` values; zero while there is none.
    fn lower(&self, rank: f64, total: f64) -> f64 {
        if rank < 1.0 { 0.0 } else { self.bin_at(rank, total).map_or(0.0, lower_edge) }
    }

    /// The bound from above after `total` values; infinite while there is none.
    fn upper(&self, rank: f64, total: f64) -> f64 {
        if rank + 1.0 > total {
            f64::INFINITY
        } else {
            self.bin_at(rank + 1.0, total).map_or(f64::INFINITY, upper_edge)
        }
    }
}

/// The bin of a value; what is not above zero goes to the lowest.
fn bin(value: f64) -> u16 {
    if value.is_infinite() && value > 0.0 {
        return ENDLESS;
    }
    // Bins span e^−50 to e^49.99.
    let index = (value.max(f64::MIN_POSITIVE).ln() / BIN).floor() + f64::from(ENDLESS / 2);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the bins")]
    let index = index.clamp(0.0, f64::from(ENDLESS - 1)) as u16;
    index
}

fn lower_edge(bin: u16) -> f64 {
    if bin == 0 { 0.0 } else { ((f64::from(bin) - f64::from(ENDLESS / 2)) * BIN).exp() }
}

fn upper_edge(bin: u16) -> f64 {
    if bin >= ENDLESS - 1 { f64::INFINITY } else { lower_edge(bin + 1) }
}

/// One quantile of two arms, compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuantileSequence {
    p: f64,
    ratio: f64,
    candidate: Arm,
    baseline: Arm,
}

impl QuantileSequence {
    /// A test of the `p`-quantiles against a ratio; `None` unless 0 < p < 1 and the ratio is 1 to 100.
    pub fn new(p: f64, ratio: f64) -> Option<Self> {
        let valid = p > 0.0 && p < 1.0 && (1.0..=100.0).contains(&ratio);
        valid.then(|| Self { p, ratio, candidate: Arm::default(), baseline: Arm::default() })
    }

    /// One value of an arm; infinite if it took too long to be seen. What is no number is left out.
    pub fn observe(&mut self, candidate: bool, value: f64) {
        if value.is_nan() {
            return;
        }
        if candidate {
            self.candidate.observe(value);
        } else {
            self.baseline.observe(value);
        }
    }

    /// What the values so far prove. Remembers the ranks, to find the next ones near them.
    pub fn proves(&mut self, levels: Levels) -> Option<Side> {
        let (fail, pass) = (Ranks::new(self.p, levels.fail), Ranks::new(self.p, levels.pass));
        let (candidate, baseline) = (&mut self.candidate, &mut self.baseline);
        if candidate.seen == 0 || baseline.seen == 0 {
            return None;
        }
        candidate.lowest = fail.lowest(candidate.seen, candidate.lowest);
        candidate.highest = pass.highest(candidate.seen, candidate.highest);
        baseline.lowest = pass.lowest(baseline.seen, baseline.lowest);
        baseline.highest = fail.highest(baseline.seen, baseline.highest);
        let sizes = (candidate.seen as f64, baseline.seen as f64);
        self.concludes(
            sizes,
            (self.candidate.lowest as f64, self.baseline.highest as f64),
            (self.candidate.highest as f64, self.baseline.lowest as f64),
        )
    }

    /// Values of the candidate still needed, and for which conclusion, if both arms go on as they are.
    pub fn remaining(&self, levels: Levels) -> Option<(Side, f64)> {
        if self.candidate.seen == 0 || self.baseline.seen == 0 {
            return None;
        }
        let (fail, pass) = (Ranks::new(self.p, levels.fail), Ranks::new(self.p, levels.pass));
        let seen = self.candidate.seen as f64;
        // Half a doubling at a time: an outlook is a rough figure.
        (0..2 * MOST_DOUBLINGS).find_map(|half_doublings| {
            let growth = 2.0_f64.powf(f64::from(half_doublings) / 2.0);
            let sizes = ((seen * growth).round(), (self.baseline.seen as f64 * growth).round());
            let lower = (fail.both_afar(sizes.0).0, fail.both_afar(sizes.1).1);
            let upper = (pass.both_afar(sizes.0).1, pass.both_afar(sizes.1).0);
            self.concludes(sizes, lower, upper).map(|side| (side, sizes.0 - seen))
        })
    }

    /// The quantiles seen so far, the candidate's first, to the width of a bin.
    pub fn quantiles(&self) -> Option<(f64, f64)> {
        let at = |arm: &Arm| arm.bin_at((arm.seen as f64 * self.p).max(1.0), arm.seen as f64).map(lower_edge);
        Some((at(&self.candidate)?, at(&self.baseline)?))
    }

    fn concludes(&self, sizes: (f64, f64), fail: (f64, f64), pass: (f64, f64)) -> Option<Side> {
        let (candidate, baseline) = (&self.candidate, &self.baseline);
        if candidate.lower(fail.0, sizes.0) > self.ratio * baseline.upper(fail.1, sizes.1) {
            Some(Side::Fail)
        } else if candidate.upper(pass.0, sizes.0) <= self.ratio * baseline.lower(pass.1, sizes.1) {
            Some(Side::Pass)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upper_bound_needs_numbers() {
        // The smallest n with a finite upper bound at α = 0.05: the published figures.
        for (p, least) in [(0.5, 20), (0.9, 71), (0.95, 120), (0.99, 451)] {
            let ranks = Ranks::new(p, 0.05);
            let n = (1..1_000).find(|n| ranks.highest(*n, *n) < *n).unwrap();
            assert_eq!(n, least, "p{p}");
        }
    }

    #[test]
    fn ranks_from_afar_are_the_ranks_from_near() {
        for p in [0.5, 0.95, 0.99] {
            let ranks = Ranks::new(p, 0.025);
            let (mut low, mut high) = (0, 0);
            for n in 1..600 {
                (low, high) = (ranks.lowest(n, low), ranks.highest(n, high + 1));
                assert_eq!(ranks.both_afar(n as f64), (low as f64, high as f64), "p{p} n={n}");
            }
        }
    }

    #[test]
    fn bins_are_outer_bounds() {
        for value in [1e-30, 1e-3, 0.5, 1.0, 37.2, 1e9, 1e30, f64::MAX, 0.0, -3.0] {
            let bin = bin(value);
            assert!(lower_edge(bin) <= value.max(0.0) * (1.0 + 1e-9) && upper_edge(bin) >= value, "{value}");
        }
        assert_eq!(lower_edge(bin(f64::INFINITY)).is_finite(), upper_edge(bin(1.0)).is_finite());
    }

    #[test]
    fn time_outs_fail_a_candidate_and_cannot_hide() {
        let levels = Levels::new(0.05, 3);
        let mut test = QuantileSequence::new(0.95, 1.25).unwrap();
        let mut failed_after = None;
        for i in 0..2_000_u32 {
            let value = 1.0 + f64::from(i % 17) / 50.0;
            test.observe(false, value);
            test.observe(true, if i % 4 == 0 { f64::INFINITY } else { value });
            if test.proves(levels) == Some(Side::Fail) {
                failed_after = Some(i);
                break;
            }
        }
        assert!(failed_after.is_some_and(|n| n < 400), "{failed_after:?}");
    }

    #[test]
    fn the_outlook_is_about_right() {
        let levels = Levels::new(0.05, 1);
        let mut test = QuantileSequence::new(0.5, 1.25).unwrap();
        let feed = |test: &mut QuantileSequence, i: u32| {
            let value = f64::from(i * 37 % 101 + 1);
            test.observe(true, value);
            test.observe(false, value);
        };
        (0..101).for_each(|i| feed(&mut test, i));
        let (side, more) = test.remaining(levels).unwrap();
        assert_eq!(side, Side::Pass);
        let needed = (0..100_000).find(|i| {
            feed(&mut test, i + 101);
            test.proves(levels).is_some()
        });
        let needed = f64::from(needed.unwrap());
        assert!(more >= needed * 0.5 && more <= needed * 2.0, "{more} was said, {needed} were needed");
    }

    proptest::proptest! {
        #[test]
        fn any_values_are_survived(
            p in 0.01..0.999_f64,
            values in proptest::collection::vec((proptest::bool::ANY, proptest::num::f64::ANY), 0..300),
        ) {
            let levels = Levels::new(0.05, 2);
            let mut test = QuantileSequence::new(p, 1.1).unwrap();
            for (arm, value) in values {
                test.observe(arm, value);
                let _ = test.proves(levels);
            }
            proptest::prop_assert!(test.remaining(levels).is_none_or(|(_, more)| more >= 0.0 && more.is_finite()));
        }
    }
}
