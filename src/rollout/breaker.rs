//! The breaker of a rollout: so many failures among the candidate's last jobs that nobody needs statistics.
//!
//! Invariant: remembers the last few ends and nothing else, in the order in which they are told. It asks no question about the
//! baseline, so it may be wrong when everything is down; it is there for speed.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

pub use crate::spec::rollout::BreakerRule;

/// The candidate's last ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breaker {
    rule: BreakerRule,
    failed: VecDeque<bool>,
}

impl Breaker {
    /// No ends yet.
    pub fn new(rule: BreakerRule) -> Self {
        Self { rule, failed: VecDeque::new() }
    }

    /// When it trips.
    pub fn rule(&self) -> BreakerRule {
        self.rule
    }

    /// One more end of the candidate. Says how many of the last failed when that is too many, and then begins afresh.
    pub fn note(&mut self, failed: bool) -> Option<u32> {
        self.failed.push_back(failed);
        while self.failed.len() > self.rule.last.min(BreakerRule::MOST) as usize {
            self.failed.pop_front();
        }
        let failures = u32::try_from(self.failed.iter().filter(|failed| **failed).count()).unwrap_or(u32::MAX);
        let trips = failures >= self.rule.failures.max(1);
        if trips {
            self.failed.clear();
        }
        trips.then_some(failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trips_on_the_last_few() {
        let mut breaker = Breaker::new(BreakerRule { last: 5, failures: 3 });
        let told =
            |breaker: &mut Breaker, ends: &str| ends.chars().map(|end| breaker.note(end == 'x')).collect::<Vec<_>>();
        assert!(told(&mut breaker, "xx....xx...x").iter().all(Option::is_none));
        assert_eq!(told(&mut breaker, "x.x"), [None, None, Some(3)]);
        assert_eq!(told(&mut breaker, "xx"), [None, None], "it begins afresh");
        for (last, failures, valid) in [(20, 15, true), (0, 0, false), (5, 6, false), (5, 0, false), (1_001, 5, false)]
        {
            assert_eq!(BreakerRule { last, failures }.is_valid(), valid);
        }
    }
}
