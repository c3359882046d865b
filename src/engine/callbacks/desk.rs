//! Who is being told right now, and which receivers do not answer.
//!
//! Invariant: a notice is in one pair of hands at a time. Of one receiver only a few are called at once, and few wait in
//! memory for it; one that failed several times in a row is left alone for a while.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::sync::Semaphore;

use crate::{clock::Timestamp, store::Due};

/// Calls to one receiver at once.
const AT_ONCE: usize = 4;
/// Notices in hand for one receiver, and for all.
const IN_HAND: usize = 64;
const ALL_IN_HAND: usize = 512;
/// Failures in a row after which a receiver is left alone, how long at first, and at most.
const FAILURES: u32 = 5;
const CLOSED: Duration = Duration::from_secs(15);
const LONGEST_CLOSED: Duration = Duration::from_mins(10);

/// What a due notice may do.
#[derive(Debug)]
pub(super) enum Turn {
    /// It is its turn, in this line.
    Go(Arc<Semaphore>),
    /// It is in somebody's hands, or there are enough.
    Later,
    /// Its receiver is left alone until then.
    Closed(Timestamp),
}

#[derive(Debug)]
struct Receiver {
    line: Arc<Semaphore>,
    in_hand: usize,
    failures: u32,
    closed_until: Option<Timestamp>,
}

impl Receiver {
    fn new() -> Self {
        Self { line: Arc::new(Semaphore::new(AT_ONCE)), in_hand: 0, failures: 0, closed_until: None }
    }

    fn closed_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.closed_until.filter(|until| *until > now)
    }
}

/// All that are in hand.
#[derive(Debug, Default)]
pub(super) struct Desk {
    in_hand: HashSet<String>,
    receivers: HashMap<String, Receiver>,
}

impl Desk {
    /// Takes a notice into hand, if it may be.
    pub(super) fn turn(&mut self, due: &Due, now: Timestamp) -> Turn {
        if self.in_hand.contains(&due.id) {
            return Turn::Later;
        }
        if let Some(until) = self.receivers.get(&due.to).and_then(|receiver| receiver.closed_at(now)) {
            return Turn::Closed(until);
        }
        if self.in_hand.len() >= ALL_IN_HAND {
            return Turn::Later;
        }
        let receiver = self.receivers.entry(due.to.clone()).or_insert_with(Receiver::new);
        if receiver.in_hand >= IN_HAND {
            return Turn::Later;
        }
        receiver.in_hand += 1;
        self.in_hand.insert(due.id.clone());
        Turn::Go(receiver.line.clone())
    }

    /// A notice is out of hand.
    pub(super) fn leave(&mut self, due: &Due) {
        self.in_hand.remove(&due.id);
        if let Some(receiver) = self.receivers.get_mut(&due.to) {
            receiver.in_hand = receiver.in_hand.saturating_sub(1);
            if receiver.in_hand == 0 && receiver.failures == 0 {
                self.receivers.remove(&due.to);
            }
        }
    }

    /// A receiver took what it was told.
    pub(super) fn answered(&mut self, to: &str) {
        if let Some(receiver) = self.receivers.get_mut(to) {
            (receiver.failures, receiver.closed_until) = (0, None);
        }
    }

    /// A receiver did not.
    pub(super) fn failed(&mut self, to: &str, now: Timestamp) {
        let Some(receiver) = self.receivers.get_mut(to) else { return };
        if receiver.closed_at(now).is_some() {
            // One of those that were called together.
            return;
        }
        receiver.failures = receiver.failures.saturating_add(1);
        if let Some(more) = receiver.failures.checked_sub(FAILURES) {
            let closed = CLOSED.saturating_mul(1 << more.min(10)).min(LONGEST_CLOSED);
            receiver.closed_until = Some(now + closed);
        }
    }

    /// Whether a receiver is left alone now.
    pub(super) fn is_closed(&self, to: &str, now: Timestamp) -> bool {
        self.receivers.get(to).is_some_and(|receiver| receiver.closed_at(now).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(n: usize, to: &str) -> Due {
        let at = Timestamp::from_micros(0);
        Due { at, id: format!("msg_{n}"), since: at, to: to.to_owned() }
    }

    #[test]
    fn one_receiver_does_not_fill_the_desk() {
        let mut desk = Desk::default();
        let now = Timestamp::from_micros(0);
        let mut went = 0;
        for n in 0..1_000 {
            went += usize::from(matches!(desk.turn(&due(n, "https://a"), now), Turn::Go(_)));
        }
        assert_eq!(went, IN_HAND);
        assert!(matches!(desk.turn(&due(0, "https://a"), now), Turn::Later), "it is in hand already");
        assert!(matches!(desk.turn(&due(5_000, "https://b"), now), Turn::Go(_)));
        desk.leave(&due(0, "https://a"));
        assert!(matches!(desk.turn(&due(0, "https://a"), now), Turn::Go(_)));
    }

    #[test]
    fn a_receiver_that_does_not_answer_is_left_alone_longer_and_longer() {
        let mut desk = Desk::default();
        let mut now = Timestamp::from_micros(0);
        assert!(matches!(desk.turn(&due(1, "https://a"), now), Turn::Go(_)));
        let mut spans = Vec::new();
        for _ in 0..20 {
            desk.failed("https://a", now);
            if desk.is_closed("https://a", now) {
                let Turn::Closed(until) = desk.turn(&due(2, "https://a"), now) else { panic!("it is closed") };
                spans.push(now.until(until).as_secs());
                // What was called together with the failed one does not count again.
                desk.failed("https://a", now);
                now = until;
            }
        }
        assert_eq!(spans[..4], [15, 30, 60, 120]);
        assert_eq!(spans.last(), Some(&600));
        desk.answered("https://a");
        desk.failed("https://a", now);
        assert!(!desk.is_closed("https://a", now), "a single failure is no reason");
        desk.answered("https://a");
        desk.leave(&due(1, "https://a"));
        assert!(desk.receivers.is_empty(), "who is well and idle is forgotten");
    }
}
