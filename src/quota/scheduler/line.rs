//! One line: who waits in it, and whose turn it is.
//!
//! Invariant: a job stands in one queue, of its key, in its pipeline's; a pipeline that cannot use its turns is benched
//! and not looked at.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use smallvec::SmallVec;

use super::{Ask, Gate, LineIx, TicketIx};
use crate::{
    clock::Timestamp,
    quota::{
        fair::Fair,
        grant::{Blocked, Limit},
    },
};

/// Of so many turns in a line, one is a queued job's, however many interactive calls wait.
pub(super) const QUEUED_TURN: u32 = 10;
/// Smaller jobs may pass one that does not fit for so long.
pub const PASSING: Duration = Duration::from_secs(1);
/// So many are asked whether they fit before the line waits.
pub(super) const LOOK: usize = 16;
/// Of one pipeline, so many.
const DEPTH: usize = 4;

type Queue = BTreeSet<(i64, TicketIx)>;
pub(super) type Flow = Fair<Arc<str>, Queue>;
pub(super) type Flows = Fair<Arc<str>, Flow>;

/// One line.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) interactive: Flows,
    pub(super) queued: Flows,
    pub(super) waiting: usize,
    /// Turns of interactive calls in a row.
    pub(super) streak: u32,
    /// The first that did not fit, since when.
    pub(super) too_large: Option<(TicketIx, Timestamp)>,
    /// Flows that cannot use their turns, until when at most.
    pub(super) benched: BTreeMap<(bool, Arc<str>), Timestamp>,
    pub(super) exhausted_since: Option<Timestamp>,
    pub(super) blocked: Option<Blocked>,
    pub(super) due: Option<Timestamp>,
}

/// How far a limit reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Everybody in the line.
    Line,
    /// Everybody in the line who is as large.
    Size,
    /// The pipeline alone.
    Flow,
    /// This job alone, for now.
    Job,
}

/// How far this one reaches.
pub(super) fn reach(limit: Limit) -> Reach {
    match limit {
        Limit::RequestsPerMinute | Limit::Concurrency | Limit::RetryAfter | Limit::Exhausted | Limit::Turn => {
            Reach::Line
        }
        Limit::TokensPerMinute | Limit::TokensPerDay => Reach::Size,
        Limit::PipelineConcurrency | Limit::TargetConcurrency | Limit::Breaker | Limit::Budget => Reach::Flow,
        Limit::KeyBudget => Reach::Job,
    }
}

/// Whether a limit counts as a quota that another line may still have.
pub(super) fn is_quota(limit: Limit) -> bool {
    !matches!(reach(limit), Reach::Flow | Reach::Job)
}

/// What a look at a line found.
#[derive(Debug, Clone, Copy)]
pub(super) enum Search {
    /// It has taken what it needs.
    Found(TicketIx),
    /// Nobody can go, for this reason.
    Blocked(Blocked),
    /// Nobody waits who could use a turn.
    Nobody,
}

impl Line {
    /// The first that can go now, in the order of turns.
    pub(super) fn next(
        &mut self,
        ix: LineIx,
        now: Timestamp,
        gate: &mut impl Gate,
        asks: &HashMap<TicketIx, Ask>,
        benched: &mut HashMap<Arc<str>, BTreeSet<LineIx>>,
    ) -> Search {
        if let Some((ticket, since)) = self.too_large
            && now.since(since) >= PASSING
        {
            // Its patience is over: the line is kept for it.
            match gate.admit(now, ticket, 0) {
                Ok(()) => return Search::Found(ticket),
                Err(blocked) if !is_quota(blocked.by) => self.too_large = None,
                Err(blocked) => return Search::Blocked(blocked),
            }
        }
        let queued_first = self.streak + 1 >= QUEUED_TURN && !self.queued.is_idle();
        let mut first: Option<Blocked> = None;
        let mut looked = 0;
        for interactive in [!queued_first, queued_first] {
            let mut last: Option<Arc<str>> = None;
            loop {
                let flows = if interactive { &self.interactive } else { &self.queued };
                let Some(name) = flows.next_after(last.as_ref()).cloned() else { break };
                let tickets: SmallVec<[TicketIx; DEPTH]> =
                    flows.queue(&name).into_iter().flat_map(front).take(DEPTH).collect();
                let mut stays = true;
                for ticket in tickets {
                    match gate.admit(now, ticket, 0) {
                        Ok(()) => return Search::Found(ticket),
                        Err(blocked) => match reach(blocked.by) {
                            Reach::Flow => {
                                let flows = if interactive { &mut self.interactive } else { &mut self.queued };
                                flows.leave(&name);
                                self.benched.insert((interactive, name.clone()), blocked.until);
                                benched.entry(name.clone()).or_default().insert(ix);
                                stays = false;
                                break;
                            }
                            Reach::Line => return Search::Blocked(first.unwrap_or(blocked)),
                            Reach::Job | Reach::Size => {
                                if reach(blocked.by) == Reach::Size
                                    && self.too_large.is_none_or(|(large, _)| !asks.contains_key(&large))
                                {
                                    self.too_large = Some((ticket, now));
                                }
                                let kept = first.get_or_insert(blocked);
                                kept.until = kept.until.min(blocked.until);
                                looked += 1;
                                if looked >= LOOK {
                                    return Search::Blocked(*kept);
                                }
                            }
                        },
                    }
                }
                // Whoever left has no place in the order any more: look on from the last one that stayed.
                if stays {
                    last = Some(name);
                }
            }
        }
        first.map_or(Search::Nobody, Search::Blocked)
    }

    /// The next few of each pipeline, in the order of turns.
    pub(super) fn heads(&self) -> impl Iterator<Item = TicketIx> {
        [&self.interactive, &self.queued].into_iter().flat_map(|flows| {
            flows.turns().filter_map(|name| flows.queue(name)).flat_map(|flow| front(flow).take(DEPTH))
        })
    }

    pub(super) fn take_out(&mut self, ticket: TicketIx, ask: &Ask) {
        let flows = if ask.interactive { &mut self.interactive } else { &mut self.queued };
        let Some(flow) = flows.queue_mut(&ask.flow) else { return };
        let Some(queue) = flow.queue_mut(&ask.key) else { return };
        if !queue.remove(&(ask.order, ticket)) {
            return;
        }
        self.waiting = self.waiting.saturating_sub(1);
        if queue.is_empty() {
            flow.leave(&ask.key);
        }
        if flow.is_idle() {
            flows.leave(&ask.flow);
            self.benched.remove(&(ask.interactive, ask.flow.clone()));
        }
    }

    pub(super) fn unbench(&mut self, flow: &Arc<str>) {
        for interactive in [true, false] {
            if self.benched.remove(&(interactive, flow.clone())).is_some() {
                let flows = if interactive { &mut self.interactive } else { &mut self.queued };
                if flows.queue(flow).is_some_and(|flow| !flow.is_idle()) {
                    flows.rejoin(flow);
                }
            }
        }
    }

    pub(super) fn unbench_all(&mut self) {
        let all: Vec<Arc<str>> = self.benched.keys().map(|(_, flow)| flow.clone()).collect();
        for flow in &all {
            self.unbench(flow);
        }
    }

    pub(super) fn unbench_due(&mut self, now: Timestamp) {
        if self.benched.is_empty() {
            return;
        }
        let due: Vec<Arc<str>> =
            self.benched.iter().filter(|(_, until)| **until <= now).map(|((_, flow), _)| flow.clone()).collect();
        for flow in &due {
            self.unbench(flow);
        }
    }
}

/// A pipeline's jobs as they would go: key by key in the order of turns.
fn front(flow: &Flow) -> impl Iterator<Item = TicketIx> {
    flow.turns().filter_map(|key| flow.queue(key)).flat_map(|queue| queue.iter().map(|(_, ticket)| *ticket))
}
