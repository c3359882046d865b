//! The exact block test for two rates.
//!
//! A block is one outcome `y` of the candidate and k of the baseline, `s` of them bad; k is fixed before any of them is
//! seen. From *earlier* blocks alone come the estimates b̂ = (S_b + 0.18)/(N_b + 0.36) and ĉ likewise. If they lie in the
//! hypothesis that is bet against, its E stays as it is. Otherwise the point of the hypothesis nearest to them (in
//! Kullback–Leibler divergence of a whole block) lies on the margin: c° = b° + m, or c° = r·b°, and
//!
//! ln E += y·ln(ĉ/c°) + (1−y)·ln((1−ĉ)/(1−c°)) + s·ln(b̂/b°) + (k−s)·ln((1−b̂)/(1−b°)).
//!
//! Both sides share the margin, so one of them moves with each block and the other rests.
//!
//! Source: Turner, Ly, Grünwald, "Generic E-variables for exact sequential k-sample tests that allow for optional
//! stopping", arXiv 2106.02693. Assumes that within a block the outcomes are independent given the past. Rates may drift,
//! as long as they drift for both arms. What breaks it: blocks formed in the order of completion (slow failures come
//! late), and keys that stand for few customers (their outcomes are not independent).

use serde::{Deserialize, Serialize};

use super::{Drift, EProcess, Side};
use crate::{
    rollout::{beta::divergence, bits},
    spec::rollout::Margin,
};

/// What a margin says of two rates.
trait Bound {
    /// The worst rate that is allowed beside the baseline's `rate`.
    fn allowed(self, rate: f64) -> f64;
    /// The baseline's rate that just allows `rate`.
    fn allowing(self, rate: f64) -> f64;
    /// The slope of [`Bound::allowed`].
    fn slope(self) -> f64;
}

impl Bound for Margin {
    fn allowed(self, rate: f64) -> f64 {
        match self {
            Self::Points(points) => rate + points,
            Self::Ratio(ratio) => rate * ratio,
        }
    }

    fn allowing(self, rate: f64) -> f64 {
        match self {
            Self::Points(points) => rate - points,
            Self::Ratio(ratio) => rate / ratio,
        }
    }

    fn slope(self) -> f64 {
        match self {
            Self::Points(_) => 1.0,
            Self::Ratio(ratio) => ratio,
        }
    }
}

/// How near a rate may come to 0 and 1: below the first failure in any number of jobs that will ever be.
const EDGE: f64 = 1e-15;

/// Outcomes of one arm, and the bad ones among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Tally {
    seen: u64,
    bad: u64,
}

impl Tally {
    /// The estimate that never is 0 or 1; the weights are Turner's, Ly's and Grünwald's.
    fn rate(self) -> f64 {
        ((self.bad as f64 + 0.18) / (self.seen as f64 + 0.36)).clamp(EDGE, 1.0 - EDGE)
    }

    fn add(&mut self, seen: u64, bad: u64) {
        self.seen = self.seen.saturating_add(seen);
        self.bad = self.bad.saturating_add(bad.min(seen));
    }
}

/// Two rates, compared block by block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BlockTest {
    margin: Margin,
    candidate: Tally,
    baseline: Tally,
    /// The size of the last block, for the outlook.
    k: u32,
    #[serde(with = "bits")]
    ln_fail: f64,
    #[serde(with = "bits")]
    ln_pass: f64,
}

/// Most halvings of the bracket around the nearest point: enough for every bit of a number in [0, 1].
const MOST_STEPS: u32 = 100;

impl BlockTest {
    /// A test against `margin`; `None` if no test can be made of it.
    pub fn new(margin: Margin) -> Option<Self> {
        margin.is_valid().then(|| Self {
            margin,
            candidate: Tally::default(),
            baseline: Tally::default(),
            k: 1,
            ln_fail: 0.0,
            ln_pass: 0.0,
        })
    }

    /// One block: whether the candidate's outcome was bad, and how many of the baseline's `k`.
    pub fn observe(&mut self, candidate_bad: bool, k: u32, baseline_bad: u32) {
        let baseline_bad = baseline_bad.min(k);
        let (b, c) = (self.baseline.rate(), self.candidate.rate());
        if let Some((b0, c0)) = nearest(self.margin, k, b, c) {
            let candidate = if candidate_bad { (c / c0).ln() } else { ((1.0 - c) / (1.0 - c0)).ln() };
            let baseline =
                f64::from(baseline_bad) * (b / b0).ln() + f64::from(k - baseline_bad) * ((1.0 - b) / (1.0 - b0)).ln();
            if c > self.margin.allowed(b) {
                self.ln_fail += candidate + baseline;
            } else {
                self.ln_pass += candidate + baseline;
            }
        }
        self.k = k;
        self.candidate.add(1, u64::from(candidate_bad));
        self.baseline.add(u64::from(k), u64::from(baseline_bad));
    }

    /// The rates seen so far, the candidate's first; `None` before the first block.
    pub fn rates(&self) -> Option<(f64, f64)> {
        (self.candidate.seen > 0 && self.baseline.seen > 0).then(|| {
            (
                self.candidate.bad as f64 / self.candidate.seen as f64,
                self.baseline.bad as f64 / self.baseline.seen as f64,
            )
        })
    }
}

impl EProcess for BlockTest {
    fn fresh(&self) -> Self {
        Self { candidate: Tally::default(), baseline: Tally::default(), ln_fail: 0.0, ln_pass: 0.0, ..self.clone() }
    }

    fn ln_e(&self, side: Side) -> f64 {
        match side {
            Side::Fail => self.ln_fail,
            Side::Pass => self.ln_pass,
        }
    }

    fn drift(&self) -> Option<Drift> {
        let (b, c) = (self.baseline.rate(), self.candidate.rate());
        let (b0, c0) = nearest(self.margin, self.k, b, c)?;
        let rate = divergence(c, c0) + f64::from(self.k) * divergence(b, b0);
        let side = if c > self.margin.allowed(b) { Side::Fail } else { Side::Pass };
        (rate > 0.0 && self.candidate.seen > 0).then_some(Drift { side, rate })
    }
}

/// The point (b°, c°) of the margin nearest to (b, c), as seen by a block with `k` outcomes of the baseline: the root of
/// k·(b/b° − (1−b)/(1−b°)) + slope·(c/c° − (1−c)/(1−c°)), which falls from +∞ to −∞. `None` if (b, c) lies on the margin.
///
/// Newton's steps, kept inside a bracket: at the baseline's own rate the function has one sign, at the rate that would just
/// allow the candidate's it has the other.
fn nearest(margin: Margin, k: u32, b: f64, c: f64) -> Option<(f64, f64)> {
    let slope = margin.slope();
    let just = margin.allowing(c);
    let highest = margin.allowing(1.0);
    let (mut low, mut high) = if just > b { (b, just) } else { (just, b) };
    (low, high) = (low.max(0.0), high.min(highest));
    if high - low <= 0.0 {
        return None;
    }
    let k = f64::from(k);
    let mut at = ((k * b + slope * just) / (k + slope)).clamp(low, high);
    for _ in 0..MOST_STEPS {
        if at <= 0.0 || at >= highest {
            at = low.midpoint(high);
        }
        let other = margin.allowed(at);
        let value = k * (b / at - (1.0 - b) / (1.0 - at)) + slope * (c / other - (1.0 - c) / (1.0 - other));
        if value > 0.0 {
            low = at;
        } else {
            high = at;
        }
        let fall = k * (b / (at * at) + (1.0 - b) / ((1.0 - at) * (1.0 - at)))
            + slope * slope * (c / (other * other) + (1.0 - c) / ((1.0 - other) * (1.0 - other)));
        let next = at + value / fall;
        let next = if next > low && next < high { next } else { low.midpoint(high) };
        let moved = (next - at).abs();
        at = next;
        if moved <= f64::EPSILON * at {
            break;
        }
    }
    let b0 = at.clamp(EDGE / 1e3, 1.0 - EDGE);
    let c0 = margin.allowed(b0).clamp(EDGE / 1e3, 1.0 - EDGE);
    Some((b0, c0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDES: [Side; 2] = [Side::Fail, Side::Pass];

    fn binomial(k: u32, s: u32) -> f64 {
        (0..s).map(|i| f64::from(k - i) / f64::from(i + 1)).product()
    }

    #[expect(clippy::many_single_char_names, reason = "the letters of the formula")]
    fn weight(b: f64, c: f64, y: bool, k: u32, s: u32) -> f64 {
        let candidate = if y { c } else { 1.0 - c };
        candidate * binomial(k, s) * b.powi(s.cast_signed()) * (1.0 - b).powi((k - s).cast_signed())
    }

    /// E of all continuations of `test` by `depth` blocks, expected under the rates (b, c).
    fn expectation(test: &BlockTest, side: Side, k: u32, depth: u32, b: f64, c: f64) -> f64 {
        if depth == 0 {
            return test.ln_e(side).exp();
        }
        let mut total = 0.0;
        for y in [false, true] {
            for s in 0..=k {
                let mut next = test.clone();
                next.observe(y, k, s);
                total += weight(b, c, y, k, s) * expectation(&next, side, k, depth - 1, b, c);
            }
        }
        total
    }

    /// Points of the side's hypothesis: of the half plane, boundary included.
    fn hypothesis(margin: Margin, side: Side) -> Vec<(f64, f64)> {
        let grid = [0.0, 0.001, 0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 0.99, 1.0];
        let mut points = Vec::new();
        for b in grid {
            points.push((b, margin.allowed(b)));
            for c in grid {
                points.push((b, c));
            }
        }
        points.retain(|(b, c)| {
            *c <= 1.0
                && match side {
                    Side::Fail => *c <= margin.allowed(*b),
                    Side::Pass => *c >= margin.allowed(*b),
                }
        });
        points
    }

    const MARGINS: [Margin; 5] =
        [Margin::Points(0.0), Margin::Points(0.01), Margin::Points(0.2), Margin::Ratio(1.0), Margin::Ratio(1.5)];

    #[test]
    fn every_sequence_of_blocks_is_expected_to_stay_at_one() {
        let mut worst = 0.0_f64;
        for margin in MARGINS {
            for (k, depth) in [(1, 4), (2, 3), (3, 3), (4, 3)] {
                let test = BlockTest::new(margin).unwrap();
                for side in SIDES {
                    for (b, c) in hypothesis(margin, side) {
                        let expected = expectation(&test, side, k, depth, b, c);
                        worst = worst.max(expected);
                        assert!(expected <= 1.0 + 1e-12, "{margin:?} {side} k={k} b={b} c={c}: {expected}");
                    }
                }
            }
        }
        println!("greatest expectation of E: 1 + {:e}", worst - 1.0);
    }

    #[test]
    fn one_more_block_is_expected_to_change_nothing_whatever_was_seen() {
        for margin in MARGINS {
            for k in 1..=4 {
                for (blocks, bad_c, bad_b) in [(10, 0, 0), (10, 9, 0), (10, 0, 10 * k), (200, 3, 1), (5_000, 250, 60)] {
                    let mut test = BlockTest::new(margin).unwrap();
                    test.candidate.add(blocks, bad_c);
                    test.baseline.add(blocks * u64::from(k), u64::from(bad_b));
                    for side in SIDES {
                        for (b, c) in hypothesis(margin, side) {
                            let expected = expectation(&test, side, k, 1, b, c);
                            assert!(
                                expected <= 1.0 + 1e-12,
                                "{margin:?} {side} k={k} {blocks} {bad_c} {bad_b}: {expected}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_wrong_nearest_point_is_caught_by_the_enumeration() {
        // The same bet against a point that is not the nearest one wins on average: the enumeration can fail.
        let (margin, k) = (Margin::Points(0.01), 3);
        let mut test = BlockTest::new(margin).unwrap();
        test.candidate.add(200, 30);
        test.baseline.add(600, 6);
        let (b, c) = (test.baseline.rate(), test.candidate.rate());
        let (right, _) = nearest(margin, k, b, c).unwrap();
        let wrong = right * 0.7;
        let mut expected = 0.0;
        for y in [false, true] {
            for s in 0..=k {
                let ratio = weight(b, c, y, k, s) / weight(wrong, margin.allowed(wrong), y, k, s);
                expected += weight(right, margin.allowed(right), y, k, s) * ratio;
            }
        }
        assert!(expected > 1.01, "{expected}");
    }

    proptest::proptest! {
        #[test]
        fn always_a_number(
            margin in proptest::prop_oneof![
                (0.0..=0.5_f64).prop_map(Margin::Points), (1.0..=100.0_f64).prop_map(Margin::Ratio)
            ],
            start in (0..1u64 << 53, 0..1u64 << 53, 0..1u64 << 53, 0..1u64 << 53),
            blocks in proptest::collection::vec((proptest::bool::ANY, 0..200u32, 0..300u32), 0..50),
        ) {
            let mut test = BlockTest::new(margin).unwrap();
            test.candidate.add(start.0, start.1);
            test.baseline.add(start.2, start.3);
            for (y, k, s) in blocks {
                test.observe(y, k, s);
                for side in SIDES {
                    proptest::prop_assert!(test.ln_e(side).is_finite());
                }
                if let Some(drift) = test.drift() {
                    proptest::prop_assert!(drift.rate.is_finite());
                }
            }
        }
    }

    use proptest::strategy::Strategy as _;
}
