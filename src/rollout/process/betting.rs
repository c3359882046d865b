//! A bet on the mean of bounded numbers, exactly.
//!
//! Each y lies in [−1, 1] and is worse the greater it is; the hypothesis is a mean of at most 0. Before each one a stake is
//! set from those before it, λ = clip(μ̂/(σ̂² + μ̂²), 0, ½), and ln E += ln(1 + λy). For the other side −y.
//!
//! Used for
//! - *pairs of costs or latencies*, y = (c − r·b)/(c + r·b): what is tested is the mean relative difference **a job**, not the
//!   difference of the totals. One dear job weighs no more than a cheap one;
//! - *pairs of yes and no* against a margin: y = (c − b − m)/(1 + m), or (c − r·b)/r;
//! - *scores* of a known range, block by block: (b̄ − c − m)/(1 + m).
//!
//! Source: Waudby-Smith, Ramdas, "Estimating means of bounded random variables by betting", arXiv 2010.09686. Assumes only
//! that each y, given the past, has a mean within the hypothesis. What breaks it: pairs that are chosen by how they ended.

use serde::{Deserialize, Serialize};

use super::{Drift, EProcess, Side};
use crate::rollout::bits;

/// The largest stake: half of what one owns, so that no single y can ruin the process.
const HIGHEST_STAKE: f64 = 0.5;

/// A variance to start with, in the weight of one observation.
const PRIOR_VARIANCE: f64 = 0.25;

/// A mean of bounded numbers, bet on.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Betting {
    seen: u64,
    #[serde(with = "bits")]
    mean: f64,
    /// The sum of squared distances from the mean.
    #[serde(with = "bits")]
    spread: f64,
    #[serde(with = "bits")]
    ln_fail: f64,
    #[serde(with = "bits")]
    ln_pass: f64,
}

impl Betting {
    /// The relative difference of two amounts against a ratio, in [−1, 1]; `None` unless both are finite and not negative.
    pub fn relative(candidate: f64, baseline: f64, ratio: f64) -> Option<f64> {
        let allowed = baseline * ratio;
        let sane = candidate >= 0.0 && allowed >= 0.0 && candidate.is_finite() && allowed.is_finite();
        let whole = candidate + allowed;
        match (sane, whole > 0.0) {
            (false, _) => None,
            (true, false) => Some(0.0),
            // Halves first: the sum of two finite amounts need not be finite.
            (true, true) => {
                Some((candidate / 2.0 - allowed / 2.0) / (candidate / 2.0 + allowed / 2.0).max(f64::MIN_POSITIVE))
            }
        }
    }

    /// One number; beyond [−1, 1] it is cut, and what is no number is left out.
    pub fn observe(&mut self, y: f64) {
        if y.is_nan() {
            return;
        }
        let y = y.clamp(-1.0, 1.0);
        let stake = self.stake();
        if stake > 0.0 {
            self.ln_fail += (stake * y).ln_1p();
        } else if stake < 0.0 {
            self.ln_pass += (stake * y).ln_1p();
        }
        self.seen = self.seen.saturating_add(1);
        let step = y - self.mean;
        self.mean += step / self.seen as f64;
        self.spread += step * (y - self.mean);
    }

    /// The mean seen so far.
    pub fn mean(&self) -> Option<f64> {
        (self.seen > 0).then_some(self.mean)
    }

    /// What is staked on the next number: above zero on "worse", below zero on "not worse".
    fn stake(&self) -> f64 {
        let seen = self.seen as f64;
        let mean = self.mean * seen / (seen + 1.0);
        let variance = (PRIOR_VARIANCE + self.spread.max(0.0)) / (seen + 1.0);
        (mean / (variance + mean * mean)).clamp(-HIGHEST_STAKE, HIGHEST_STAKE)
    }
}

impl EProcess for Betting {
    fn fresh(&self) -> Self {
        Self::default()
    }

    fn ln_e(&self, side: Side) -> f64 {
        match side {
            Side::Fail => self.ln_fail,
            Side::Pass => self.ln_pass,
        }
    }

    fn drift(&self) -> Option<Drift> {
        let stake = self.stake();
        let variance = self.spread.max(0.0) / (self.seen.max(1)) as f64;
        // ln(1 + λy) to second order around the mean.
        let base = 1.0 + stake * self.mean;
        let rate = base.ln() - stake * stake * variance / (2.0 * base * base);
        let side = if stake > 0.0 { Side::Fail } else { Side::Pass };
        (self.seen > 0 && rate > 0.0).then_some(Drift { side, rate })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sequence_is_expected_to_stay_at_one() {
        // Laws whose mean is at most 0, and their mirror images; all sequences of 7.
        fn expectation(test: &Betting, depth: u32, law: &[(f64, f64)], side: Side) -> f64 {
            if depth == 0 {
                return test.ln_e(side).exp();
            }
            law.iter()
                .map(|(y, chance)| {
                    let mut next = test.clone();
                    next.observe(*y);
                    chance * expectation(&next, depth - 1, law, side)
                })
                .sum()
        }
        let laws = [
            [(-1.0, 0.3), (0.0, 0.4), (0.5, 0.3)],
            [(-0.2, 0.5), (0.0, 0.1), (0.25, 0.4)],
            [(-0.05, 0.475), (-0.05, 0.475), (0.95, 0.05)],
            [(-1.0, 0.5), (0.0, 0.0), (1.0, 0.5)],
        ];
        for law in laws {
            for (side, sign) in [(Side::Fail, 1.0), (Side::Pass, -1.0)] {
                let law = law.map(|(y, chance)| (sign * y, chance));
                let expected = expectation(&Betting::default(), 7, &law, side);
                assert!(expected <= 1.0 + 1e-12, "{law:?} {side}: {expected}");
            }
        }
        let fair = [(-1.0, 0.25), (0.5, 0.5), (0.0, 0.25)];
        for side in [Side::Fail, Side::Pass] {
            let expected = expectation(&Betting::default(), 7, &fair, side);
            assert!((expected - 1.0).abs() < 1e-12, "{side}: {expected}");
        }
        let bad = [(-1.0, 0.05), (0.5, 0.75), (0.0, 0.2)];
        assert!(expectation(&Betting::default(), 7, &bad, Side::Fail) > 1.5);
    }

    #[test]
    fn relative_differences() {
        for (c, b, r, y) in [
            (1.1, 1.0, 1.1, Some(0.0)),
            (0.0, 0.0, 1.1, Some(0.0)),
            (3.0, 1.0, 1.0, Some(0.5)),
            (0.0, 1.0, 1.0, Some(-1.0)),
            (1.0, 0.0, 1.0, Some(1.0)),
            (f64::MAX, f64::MAX, 1.0, Some(0.0)),
            (f64::NAN, 1.0, 1.0, None),
            (-1.0, 1.0, 1.0, None),
            (1.0, f64::MAX, 2.0, None),
        ] {
            let seen = Betting::relative(c, b, r);
            match (seen, y) {
                (Some(seen), Some(y)) => assert!((seen - y).abs() < 1e-9, "{c} {b} {r}: {seen}"),
                _ => assert_eq!(seen, y, "{c} {b} {r}"),
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn always_a_number(numbers in proptest::collection::vec(proptest::num::f64::ANY, 0..200)) {
            let mut test = Betting::default();
            for y in numbers {
                test.observe(y);
                for side in [Side::Fail, Side::Pass] {
                    proptest::prop_assert!(test.ln_e(side).is_finite());
                }
                if let Some(drift) = test.drift() {
                    proptest::prop_assert!(drift.rate.is_finite());
                }
            }
        }

        #[test]
        fn differences_are_bounded(c in proptest::num::f64::ANY, b in proptest::num::f64::ANY, r in 1.0..10.0_f64) {
            if let Some(y) = Betting::relative(c, b, r) {
                proptest::prop_assert!((-1.0..=1.0).contains(&y), "{y}");
            }
        }
    }
}
