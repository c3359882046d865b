//! Percentiles of many values in little memory.
//!
//! Invariant: a percentile is wrong by at most [`ERROR`] of its value, however many values there were, and two sets may be
//! laid together without making it worse.

use std::collections::BTreeMap;

/// How far a percentile may be off, as a part of it.
pub const ERROR: f64 = 0.01;

/// Values are counted in steps, each this much above the one before: its middle is off by half of that.
const GROWTH: f64 = 1.02;

/// Counted values.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Quantiles {
    steps: BTreeMap<i32, u64>,
    count: u64,
    most: f64,
}

impl Quantiles {
    /// Counts a value; one that is not above zero counts as the smallest.
    pub fn add(&mut self, value: f64) {
        let step = if value > 0.0 && value.is_finite() { (value.ln() / GROWTH.ln()).floor() } else { f64::MIN };
        #[expect(clippy::cast_possible_truncation, reason = "a cast to an integer keeps to its range")]
        let step = step as i32;
        *self.steps.entry(step).or_default() += 1;
        self.count += 1;
        self.most = self.most.max(value);
    }

    /// Adds all values of another set.
    pub fn merge(&mut self, other: &Self) {
        for (step, count) in &other.steps {
            *self.steps.entry(*step).or_default() += count;
        }
        self.count += other.count;
        self.most = self.most.max(other.most);
    }

    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The largest value.
    pub fn most(&self) -> Option<f64> {
        (self.count > 0).then_some(self.most)
    }

    /// The value that a part of all (0 to 1) are not above.
    pub fn at(&self, part: f64) -> Option<f64> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and the count")]
        let rank = ((part * self.count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        self.steps.iter().find_map(|(step, count)| {
            seen += count;
            (seen >= rank).then(|| match *step {
                i32::MIN => 0.0,
                step => GROWTH.powi(step) * GROWTH.sqrt(),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn exact(values: &mut [f64], part: f64) -> f64 {
        values.sort_by(f64::total_cmp);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the length")]
        let rank = ((part * values.len() as f64).ceil() as usize).max(1);
        values[rank - 1]
    }

    proptest! {
        #[test]
        fn percentiles_are_within_the_error(
            mut values in prop::collection::vec(0.001..1e9_f64, 1..300),
            split in 0..300_usize,
            part in 0.0..=1.0_f64,
        ) {
            let (mut one, mut other) = (Quantiles::default(), Quantiles::default());
            for (place, value) in values.iter().enumerate() {
                if place < split { one.add(*value) } else { other.add(*value) }
            }
            one.merge(&other);
            let (found, truth) = (one.at(part).unwrap(), exact(&mut values, part));
            prop_assert!((found / truth - 1.0).abs() <= ERROR * 1.001, "{found} for {truth}");
            prop_assert_eq!(one.count(), values.len() as u64);
            prop_assert_eq!(one.most(), values.last().copied());
        }
    }

    #[test]
    fn nothing_and_zeros() {
        let mut values = Quantiles::default();
        assert_eq!((values.at(0.5), values.most()), (None, None));
        values.add(0.0);
        values.add(5.0);
        assert_eq!(values.at(0.5), Some(0.0));
    }
}
