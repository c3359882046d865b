//! Whose turn it is: several queues share one thing by weight.
//!
//! Every queue has a tag: how much it has had, over its weight. The lowest tag is next. (This is deficit round robin
//! without the rounds: the same shares, but a large job does not wait for its deficit to grow.) A queue that was empty, or
//! could not use its turn, starts again from where the others are: nothing is saved up.
//!
//! Invariant: among queues that always have something, what each has had over its weight differs by at most one job.

use std::collections::{BTreeMap, BTreeSet};

/// Costs are divided by weights up to this.
pub const MOST_WEIGHT: u32 = 1_000;
/// Queues that are empty and not ahead of the others are forgotten when there are more than this.
const IDLE: usize = 64;

/// Queues by key, in the order of their turns.
#[derive(Debug)]
pub struct Fair<K, Q> {
    children: BTreeMap<K, Child<Q>>,
    turns: BTreeSet<(u64, K)>,
    /// The tag of whoever had the latest turn.
    clock: u64,
}

#[derive(Debug)]
struct Child<Q> {
    tag: u64,
    weight: u32,
    in_turn: bool,
    queue: Q,
}

impl<K, Q> Default for Fair<K, Q> {
    fn default() -> Self {
        Self { children: BTreeMap::new(), turns: BTreeSet::new(), clock: 0 }
    }
}

impl<K: Ord + Clone, Q: Default> Fair<K, Q> {
    /// The queue of a key, which takes its turn from now on.
    pub fn enter(&mut self, key: &K, weight: u32) -> &mut Q {
        if self.children.len() > IDLE.max(self.turns.len() * 2) && !self.children.contains_key(key) {
            let clock = self.clock;
            self.children.retain(|_, child| child.in_turn || child.tag > clock);
        }
        let child = self.children.entry(key.clone()).or_insert_with(|| Child {
            tag: 0,
            weight: 1,
            in_turn: false,
            queue: Q::default(),
        });
        child.weight = weight.clamp(1, MOST_WEIGHT);
        if !child.in_turn {
            child.tag = child.tag.max(self.clock);
            child.in_turn = true;
            self.turns.insert((child.tag, key.clone()));
        }
        &mut child.queue
    }

    /// The queue of a key, if there is one.
    pub fn queue(&self, key: &K) -> Option<&Q> {
        self.children.get(key).map(|child| &child.queue)
    }

    /// The queue of a key, if there is one.
    pub fn queue_mut(&mut self, key: &K) -> Option<&mut Q> {
        self.children.get_mut(key).map(|child| &mut child.queue)
    }

    /// Keys in the order of their turns.
    pub fn turns(&self) -> impl Iterator<Item = &K> {
        self.turns.iter().map(|(_, key)| key)
    }

    /// The key after `last` in the order of turns; the first, after none.
    pub fn next_after(&self, last: Option<&K>) -> Option<&K> {
        let Some(last) = last else { return self.turns.first().map(|(_, key)| key) };
        let tag = self.children.get(last)?.tag;
        let from = std::ops::Bound::Excluded((tag, last.clone()));
        self.turns.range((from, std::ops::Bound::Unbounded)).next().map(|(_, key)| key)
    }

    /// Whether nobody has a turn.
    pub fn is_idle(&self) -> bool {
        self.turns.is_empty()
    }

    /// A key had its turn, at this cost.
    pub fn charge(&mut self, key: &K, cost: u64) {
        let Some(child) = self.children.get_mut(key) else { return };
        let had = child.in_turn && self.turns.remove(&(child.tag, key.clone()));
        self.clock = self.clock.max(child.tag);
        let step = cost.saturating_mul(u64::from(MOST_WEIGHT)) / u64::from(child.weight);
        child.tag = child.tag.max(self.clock).saturating_add(step.max(1));
        if had {
            self.turns.insert((child.tag, key.clone()));
        }
    }

    /// A key takes no turns for now: its queue is empty, or cannot use them.
    pub fn leave(&mut self, key: &K) {
        if let Some(child) = self.children.get_mut(key)
            && child.in_turn
        {
            child.in_turn = false;
            self.turns.remove(&(child.tag, key.clone()));
        }
    }

    /// A key takes its turns again, from where the others are.
    pub fn rejoin(&mut self, key: &K) {
        if let Some(child) = self.children.get_mut(key)
            && !child.in_turn
        {
            child.in_turn = true;
            child.tag = child.tag.max(self.clock);
            self.turns.insert((child.tag, key.clone()));
        }
    }
}
