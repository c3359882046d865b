//! A proportion θ against a limit θ0, exactly.
//!
//! Of n observations, S were of the kind that counts. With θ̃ the likeliest value that the hypothesis allows
//! (min(S/n, θ0) for "θ ≤ θ0", max(S/n, θ0) for "θ ≥ θ0"),
//!
//! E = B(1+S, 1+n−S) / (θ̃^S · (1−θ̃)^(n−S)).
//!
//! Used for
//! - *failures that are rare and drift together*: which arm did each failure hit? With the candidate's share ρ and a ratio r
//!   of rates, θ0 = ρr/(ρr + 1 − ρ). Every failure tells, successes are not even counted. Needs jobs that are split one by
//!   one: with few sticky keys the failures of one customer are not independent, and the error rate is void;
//! - *the sample ratio*: which arm did each job go to? θ0 = ρ, both sides: a split that is not the split that was asked for
//!   voids every other comparison;
//! - *agreement*: the share of pairs that disagree, θ0 = 1 − min;
//! - *pairs that differ*: of the pairs where exactly one side was bad, the candidate's, θ0 = ½.
//!
//! When θ0 changes (the share was raised), what was proved so far is kept as a factor and counting starts again: a product
//! of such E is one.
//!
//! Source: Lindon, Malek, "Anytime-valid inference for multinomial count data", arXiv 2011.03567.

use serde::{Deserialize, Serialize};

use super::{Drift, EProcess, Side};
use crate::rollout::{
    beta::{divergence, ln_beta, x_ln_y},
    bits,
};

/// A proportion, compared with a limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proportion {
    #[serde(with = "bits")]
    limit: f64,
    seen: u64,
    counted: u64,
    /// ln E of both sides at earlier limits.
    #[serde(with = "bits")]
    kept_fail: f64,
    #[serde(with = "bits")]
    kept_pass: f64,
}

impl Proportion {
    /// A test against `limit`; `None` unless 0 < limit < 1.
    pub fn new(limit: f64) -> Option<Self> {
        (limit > 0.0 && limit < 1.0).then_some(Self { limit, seen: 0, counted: 0, kept_fail: 0.0, kept_pass: 0.0 })
    }

    /// The limit for "the candidate's rate is at most `ratio` times the baseline's" when `share` of the jobs go to the
    /// candidate and only failures are looked at.
    pub fn failure_limit(share: f64, ratio: f64) -> f64 {
        share * ratio / (share * ratio + 1.0 - share)
    }

    /// Goes on with another limit; nothing happens if it is the same or no limit at all.
    pub fn limit(&mut self, limit: f64) {
        if limit.to_bits() == self.limit.to_bits() || !(limit > 0.0 && limit < 1.0) {
            return;
        }
        *self = Self { limit, seen: 0, counted: 0, kept_fail: self.ln_e(Side::Fail), kept_pass: self.ln_e(Side::Pass) };
    }

    /// One observation, and whether it is of the kind that counts against the candidate.
    pub fn observe(&mut self, counts: bool) {
        self.seen = self.seen.saturating_add(1);
        self.counted = self.counted.saturating_add(u64::from(counts));
    }

    /// The share seen so far, at the present limit.
    pub fn share(&self) -> Option<f64> {
        (self.seen > 0).then(|| self.counted as f64 / self.seen as f64)
    }

    /// ln E against "θ is exactly the limit": the sample-ratio check.
    pub fn ln_e_equal(&self) -> f64 {
        // A factor of each earlier limit is not kept here: a split is judged at the share it has now.
        self.ln_e_at(self.limit)
    }

    fn ln_e_at(&self, likeliest: f64) -> f64 {
        let (n, s) = (self.seen as f64, self.counted as f64);
        ln_beta(1.0 + s, 1.0 + n - s) - x_ln_y(s, likeliest) - x_ln_y(n - s, 1.0 - likeliest)
    }
}

impl EProcess for Proportion {
    fn fresh(&self) -> Self {
        Self { limit: self.limit, seen: 0, counted: 0, kept_fail: 0.0, kept_pass: 0.0 }
    }

    fn ln_e(&self, side: Side) -> f64 {
        let kept = match side {
            Side::Fail => self.kept_fail,
            Side::Pass => self.kept_pass,
        };
        let Some(share) = self.share() else { return kept };
        let likeliest = match side {
            Side::Fail => share.min(self.limit),
            Side::Pass => share.max(self.limit),
        };
        kept + self.ln_e_at(likeliest)
    }

    fn drift(&self) -> Option<Drift> {
        let share = (self.counted as f64 + 0.5) / (self.seen as f64 + 1.0);
        let rate = divergence(share, self.limit);
        let side = if share > self.limit { Side::Fail } else { Side::Pass };
        (self.seen > 0 && rate > 0.0).then_some(Drift { side, rate })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// E of all sequences of `n` observations, by their number of counted ones, expected under `theta`.
    fn expectation(limit: f64, side: Side, n: u32, theta: f64) -> f64 {
        let mut total = 0.0;
        let mut ways = 1.0_f64;
        for counted in 0..=n {
            let mut test = Proportion::new(limit).unwrap();
            for i in 0..n {
                test.observe(i < counted);
            }
            let chance = ways * theta.powi(counted.cast_signed()) * (1.0 - theta).powi((n - counted).cast_signed());
            total += chance * test.ln_e(side).exp();
            ways *= f64::from(n - counted) / f64::from(counted + 1);
        }
        total
    }

    #[test]
    fn no_hypothesis_expects_growth() {
        for limit in [0.01, 0.03, 0.1, 0.5, 0.9] {
            for n in [1, 2, 5, 20] {
                for theta in [0.0, 0.001, 0.01, 0.03, 0.1, 0.3, 0.5, 0.9, 1.0, limit] {
                    for (side, holds) in [(Side::Fail, theta <= limit), (Side::Pass, theta >= limit)] {
                        let expected = expectation(limit, side, n, theta);
                        assert!(!holds || expected <= 1.0 + 1e-12, "{limit} {side} n={n} θ={theta}: {expected}");
                    }
                }
            }
        }
        assert!(expectation(0.1, Side::Fail, 20, 0.5) > 10.0, "and it grows where it should");
    }

    #[test]
    fn a_new_limit_keeps_what_was_proved() {
        let mut test = Proportion::new(0.1).unwrap();
        (0..20).for_each(|_| test.observe(true));
        let proved = test.ln_e(Side::Fail);
        test.limit(0.2);
        assert_eq!(test.ln_e(Side::Fail).to_bits(), proved.to_bits());
        test.limit(f64::NAN);
        test.limit(1.0);
        assert_eq!(test.ln_e(Side::Fail).to_bits(), proved.to_bits());
        test.observe(true);
        assert!(test.ln_e(Side::Fail) > proved);
        assert!((Proportion::failure_limit(0.1, 1.0) - 0.1).abs() < 1e-15);
    }

    proptest::proptest! {
        #[test]
        fn always_a_number(limit in 1e-9..0.999_999_999_f64, seen in 0..1u64 << 53, part in 0.0..=1.0_f64) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a count is one")]
            let counted = ((seen as f64) * part) as u64;
            let test = Proportion { limit, seen, counted: counted.min(seen), kept_fail: 0.0, kept_pass: 0.0 };
            proptest::prop_assert!(test.ln_e(Side::Fail).is_finite());
            proptest::prop_assert!(test.ln_e(Side::Pass).is_finite());
            proptest::prop_assert!(test.ln_e_equal().is_finite());
            if let Some(drift) = test.drift() {
                proptest::prop_assert!(drift.rate.is_finite());
            }
        }
    }
}
