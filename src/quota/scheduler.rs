//! Who goes next: jobs wait in lines, one line a quota, and go as the quotas let them.
//!
//! Within a line, pipelines take turns by weight; within a pipeline, keys take turns (`fair_by`); within a key, the
//! lowest order key goes first (priority with age in it). Interactive calls go before queued jobs, but for one turn in
//! ten. A small job may pass a large one that does not fit yet; after a while the line is kept for the large one. A job
//! whose line has been exhausted for long goes by another line, where that one has nobody waiting.
//!
//! Invariant: what goes has taken everything it needs, and what cannot go has taken nothing. Nothing is looked at again
//! before something that it waits for can have changed. Knows tickets, not jobs.

mod line;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use smallvec::SmallVec;

pub use line::PASSING;
use line::{LOOK, Line, Reach, Search, is_quota, reach};

use super::grant::Blocked;
use crate::clock::Timestamp;

/// Jobs let go in one pass at most, so that a pass stays short.
const PASS: usize = 1_024;

/// A line, by the caller's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LineIx(pub u32);

/// A waiting job, by the caller's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TicketIx(pub u64);

/// What a job asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// The line of the target that it was routed to.
    pub line: LineIx,
    /// Its pipeline.
    pub flow: Arc<str>,
    /// The pipeline's weight.
    pub weight: u32,
    /// Whom it belongs to, inside its pipeline; empty for all alike.
    pub key: Arc<str>,
    /// Somebody waits for the answer.
    pub interactive: bool,
    /// The lowest goes first.
    pub order: i64,
    /// What it takes of the line, in microseconds of its rate.
    pub cost: u64,
    /// Lines of equal targets ...
    pub equals: SmallVec<[LineIx; 2]>,
    /// ... open to it when its own has been exhausted for so long.
    pub spill_after: Duration,
}

/// What lets jobs go.
pub trait Gate {
    /// Takes everything that a job needs to go, by its own line (0) or by an equal one (from 1).
    ///
    /// # Errors
    /// [`Blocked`]; nothing is taken.
    fn admit(&mut self, now: Timestamp, ticket: TicketIx, option: usize) -> Result<(), Blocked>;
}

/// A job that goes now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// Which.
    pub ticket: TicketIx,
    /// By its own line (0) or by an equal one (from 1).
    pub option: usize,
}

/// How a line stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LineStanding {
    /// Jobs that wait in it.
    pub waiting: usize,
    /// What keeps the next of them, if something does.
    pub blocked: Option<Blocked>,
    /// Since when there has always been somebody waiting for the quota.
    pub exhausted_since: Option<Timestamp>,
}

/// All lines.
#[derive(Debug, Default)]
pub struct Scheduler {
    lines: HashMap<LineIx, Line>,
    asks: HashMap<TicketIx, Ask>,
    /// When each line is to be looked at.
    due: BTreeSet<(Timestamp, LineIx)>,
    /// Lines where a pipeline is benched.
    benched: HashMap<Arc<str>, BTreeSet<LineIx>>,
}

/// Now, for lines that something changed for.
const AT_ONCE: Timestamp = Timestamp::from_micros(i64::MIN);

impl Scheduler {
    /// A job begins to wait; ask [`Scheduler::pump`] whether it may go at once.
    pub fn enter(&mut self, ticket: TicketIx, ask: Ask) {
        let line = self.lines.entry(ask.line).or_default();
        let bench = (ask.interactive, ask.flow.clone());
        let benched = line.benched.contains_key(&bench);
        let flows = if ask.interactive { &mut line.interactive } else { &mut line.queued };
        let flow = flows.enter(&ask.flow, ask.weight);
        flow.enter(&ask.key, 1).insert((ask.order, ticket));
        if benched {
            flows.leave(&ask.flow);
        }
        line.waiting += 1;
        // Where everybody waits for the same, one more changes nothing.
        let at = match line.blocked {
            Some(Blocked { by, until }) if matches!(reach(by), Reach::Line) && ask.equals.is_empty() => until,
            _ => AT_ONCE,
        };
        self.schedule(ask.line, at);
        self.asks.insert(ticket, ask);
    }

    /// A job does not wait any more.
    pub fn withdraw(&mut self, ticket: TicketIx) -> Option<Ask> {
        let ask = self.asks.remove(&ticket)?;
        if let Some(line) = self.lines.get_mut(&ask.line) {
            line.take_out(ticket, &ask);
            if line.too_large.is_some_and(|(large, _)| large == ticket) {
                line.too_large = None;
                self.schedule(ask.line, AT_ONCE);
            }
        }
        Some(ask)
    }

    /// What a waiting job asks for.
    pub fn ask(&self, ticket: TicketIx) -> Option<&Ask> {
        self.asks.get(&ticket)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.asks.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.asks.is_empty()
    }

    /// How a line stands.
    pub fn line(&self, line: LineIx) -> LineStanding {
        self.lines.get(&line).map_or_else(LineStanding::default, |line| LineStanding {
            waiting: line.waiting,
            blocked: line.blocked,
            exhausted_since: line.exhausted_since,
        })
    }

    /// Something changed for a line: a call ended, a quota was raised.
    pub fn stir(&mut self, line: LineIx) {
        if self.lines.get(&line).is_some_and(|line| line.waiting > 0) {
            self.schedule(line, AT_ONCE);
        }
    }

    /// A line's provider serves again: whoever was benched may try.
    pub fn reopen(&mut self, ix: LineIx) {
        if let Some(line) = self.lines.get_mut(&ix) {
            line.unbench_all();
        }
        self.stir(ix);
    }

    /// Something changed for a pipeline: a call of it ended.
    pub fn stir_flow(&mut self, flow: &Arc<str>) {
        for ix in self.benched.remove(flow).unwrap_or_default() {
            if let Some(line) = self.lines.get_mut(&ix) {
                line.unbench(flow);
            }
            self.schedule(ix, AT_ONCE);
        }
    }

    /// Something changed for everybody.
    pub fn stir_all(&mut self) {
        let flows: Vec<Arc<str>> = self.benched.keys().cloned().collect();
        for flow in &flows {
            self.stir_flow(flow);
        }
        let lines: Vec<LineIx> = self.lines.keys().copied().collect();
        for line in lines {
            self.stir(line);
        }
    }

    /// When to pump next, if nothing changes before.
    pub fn due(&self) -> Option<Timestamp> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Lets go who can go now. There may be more when as many went as fit a pass: then [`Scheduler::due`] is not later
    /// than now.
    pub fn pump(&mut self, now: Timestamp, gate: &mut impl Gate) -> Vec<Granted> {
        let mut granted = Vec::new();
        let due: SmallVec<[LineIx; 16]> =
            self.due.iter().take_while(|(due, _)| *due <= now).map(|(_, line)| *line).collect();
        for ix in due {
            if granted.len() >= PASS {
                break;
            }
            self.serve(ix, now, gate, &mut granted);
        }
        granted
    }

    fn schedule(&mut self, ix: LineIx, at: Timestamp) {
        if let Some(line) = self.lines.get_mut(&ix)
            && line.due.is_none_or(|due| at < due)
        {
            if let Some(due) = line.due.replace(at) {
                self.due.remove(&(due, ix));
            }
            self.due.insert((at, ix));
        }
    }

    fn serve(&mut self, ix: LineIx, now: Timestamp, gate: &mut impl Gate, granted: &mut Vec<Granted>) {
        let Some(line) = self.lines.get_mut(&ix) else { return };
        if let Some(due) = line.due.take() {
            self.due.remove(&(due, ix));
        }
        line.unbench_due(now);
        let mut next = None;
        loop {
            if granted.len() >= PASS {
                next = Some(Timestamp::from_micros(i64::MIN));
                break;
            }
            let Some(line) = self.lines.get_mut(&ix) else { break };
            match line.next(ix, now, gate, &self.asks, &mut self.benched) {
                Search::Found(ticket) => {
                    line.blocked = None;
                    self.let_go(ticket, true);
                    granted.push(Granted { ticket, option: 0 });
                }
                Search::Blocked(blocked) => {
                    line.blocked = Some(blocked);
                    next = Some(blocked.until);
                    if is_quota(blocked.by) {
                        let since = *line.exhausted_since.get_or_insert(now);
                        next = self.spill(ix, since, now, gate, granted).into_iter().chain(next).min();
                    }
                    break;
                }
                Search::Nobody => {
                    line.blocked = None;
                    line.exhausted_since = None;
                    next = line.benched.values().min().copied();
                    break;
                }
            }
        }
        if let Some(next) = next {
            // Never at once again, for the same reason: that would spin.
            let next = if next == AT_ONCE { next } else { next.max(now + Duration::from_micros(1)) };
            self.schedule(ix, next);
        }
    }

    /// Sends jobs by equal lines where theirs has been exhausted for long; when to try again.
    fn spill(
        &mut self,
        ix: LineIx,
        since: Timestamp,
        now: Timestamp,
        gate: &mut impl Gate,
        granted: &mut Vec<Granted>,
    ) -> Option<Timestamp> {
        let mut next: Option<Timestamp> = None;
        let mut looked = 0;
        let heads: SmallVec<[TicketIx; LOOK]> = self.lines.get(&ix)?.heads().take(LOOK).collect();
        let mut heads = heads.into_iter();
        while let Some(ticket) = heads.next() {
            let Some(ask) = self.asks.get(&ticket) else { continue };
            if ask.equals.is_empty() {
                continue;
            }
            let from = since + ask.spill_after;
            if from > now {
                next = Some(next.map_or(from, |next| next.min(from)));
                continue;
            }
            looked += 1;
            if looked > LOOK || granted.len() >= PASS {
                break;
            }
            let equals = ask.equals.clone();
            let mut went = false;
            for (place, equal) in equals.iter().enumerate() {
                if self.lines.get(equal).is_some_and(|line| line.waiting > 0) {
                    continue;
                }
                match gate.admit(now, ticket, place + 1) {
                    Ok(()) => {
                        self.let_go(ticket, false);
                        granted.push(Granted { ticket, option: place + 1 });
                        went = true;
                        break;
                    }
                    Err(blocked) => next = Some(next.map_or(blocked.until, |next| next.min(blocked.until))),
                }
            }
            if went {
                looked = 0;
                let again: SmallVec<[TicketIx; LOOK]> = self.lines.get(&ix)?.heads().take(LOOK).collect();
                heads = again.into_iter();
            }
        }
        next
    }

    /// Takes a job out of its line; whether it used its line's turn.
    fn let_go(&mut self, ticket: TicketIx, own: bool) {
        let Some(ask) = self.asks.remove(&ticket) else { return };
        let Some(line) = self.lines.get_mut(&ask.line) else { return };
        line.take_out(ticket, &ask);
        if line.too_large.is_some_and(|(large, _)| large == ticket) {
            line.too_large = None;
        }
        if own {
            line.streak = if ask.interactive { line.streak.saturating_add(1) } else { 0 };
            let flows = if ask.interactive { &mut line.interactive } else { &mut line.queued };
            if let Some(flow) = flows.queue_mut(&ask.flow) {
                flow.charge(&ask.key, ask.cost);
            }
            flows.charge(&ask.flow, ask.cost);
        }
    }
}
